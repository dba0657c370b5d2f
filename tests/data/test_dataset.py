import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.data import Dataset
from hansa.data.dataset import held_out
from hansa.errors import DataError
from hansa.seeds import Key

KEY = Key.root(11)


def numbered(labels: list[int], classes: tuple[str, ...] = ("a", "b", "c", "d")) -> Dataset:
    return Dataset.of(np.arange(len(labels))[:, None], np.array(labels, int), classes=classes)


def test_string_labels_are_sorted_and_numbered():
    data = Dataset.of(np.eye(4), np.array(["pear", "apple", "pear", "fig"]))
    assert data.classes == ("apple", "fig", "pear")
    assert data.y.tolist() == [2, 0, 2, 1]
    assert data.y.dtype == np.int64


def test_labels_from_a_pandas_column_of_text_are_read():
    data = Dataset.of(np.eye(2), np.array(["b", "a"], dtype=object))
    assert (data.classes, data.y.tolist()) == (("a", "b"), [1, 0])


def test_integer_labels_keep_their_value_even_where_one_is_absent():
    data = Dataset.of(np.eye(3), np.array([0, 3, 1], dtype=np.uint8))
    assert data.y.tolist() == [0, 3, 1]
    assert data.classes == ("0", "1", "2", "3")


def test_negative_and_enormous_integer_labels_are_numbered_by_value():
    assert Dataset.of(np.eye(3), np.array([1, -1, 1])).y.tolist() == [1, 0, 1]
    huge = Dataset.of(np.eye(2), np.array([2**62, 5]))
    assert (huge.classes, huge.y.tolist()) == (("5", str(2**62)), [1, 0])


def test_floating_targets_mean_regression():
    data = Dataset.of(np.eye(2), np.array([1.5, -2.0]))
    assert data.classes is None
    assert data.labels is None


def test_take_keeps_rows_targets_and_groups_together():
    data = Dataset.of(
        np.arange(8).reshape(4, 2), np.array([3, 1, 0, 2]), groups=np.array(["n", "s", "n", "e"])
    )
    part = data.take([3, 0])
    assert part.x.tolist() == [[6, 7], [0, 1]]
    assert part.y.tolist() == [2, 3]
    assert part.groups is not None
    assert part.groups.tolist() == ["e", "n"]
    assert part.classes == data.classes


@given(
    labels=st.lists(st.integers(0, 3), min_size=2, max_size=200),
    fraction=st.floats(0.05, 0.95),
    seed=st.integers(0, 99),
)
def test_held_out_rows_are_each_class_s_share_rounded_up_or_down(labels, fraction, seed):
    y = np.array(labels)
    mask = held_out(y, len(y), fraction=fraction, key=Key.root(seed))
    assert not mask.all()
    assert abs(mask.sum() - fraction * len(y)) <= 1
    for label in range(4):
        held = np.count_nonzero(mask & (y == label))
        # One more below, for the row that is left when all would be held out.
        assert np.floor(fraction * np.sum(y == label)) - 1 <= held
        assert held <= np.ceil(fraction * np.sum(y == label))


def test_holdout_is_exact_where_the_classes_divide_evenly():
    data = numbered([0] * 50 + [1] * 30 + [3] * 20)
    train, test = data.holdout(0.2, KEY)
    assert np.bincount(test.y, minlength=4).tolist() == [10, 6, 0, 4]
    assert sorted([*train.x[:, 0], *test.x[:, 0]]) == list(range(100))
    assert np.all(np.diff(test.x[:, 0]) > 0)


@pytest.mark.parametrize(
    ("rows", "fraction", "held"),
    [(3, 0.2, 1), (10, 0.26, 3), (10, 0.24, 2), (2, 0.5, 1), (1, 0.9, 0)],
)
def test_the_number_held_out_is_rounded_to_the_nearest(rows, fraction, held):
    for labels in (None, np.arange(rows)):
        assert held_out(labels, rows, fraction=fraction, key=KEY).sum() == held


def test_holdout_depends_on_the_key_and_on_nothing_else():
    data = numbered([0, 1, 2, 3] * 25)
    assert data.holdout(0.3, KEY)[1].x.tolist() == data.holdout(0.3, KEY)[1].x.tolist()
    assert data.holdout(0.3, KEY)[1].x.tolist() != data.holdout(0.3, KEY.child("b"))[1].x.tolist()


def test_held_out_rows_are_spread_over_the_whole_dataset():
    """Mean row number over many draws against the centre; 3 standard errors."""
    means = [
        np.flatnonzero(held_out(None, 1000, fraction=0.2, key=KEY.child(i))).mean()
        for i in range(50)
    ]
    assert abs(np.mean(means) - 499.5) < 3 * 288.7 / np.sqrt(200 * 50)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_holdout_refuses_a_fraction_outside_0_to_1(fraction):
    with pytest.raises(DataError) as error:
        numbered([0, 1]).holdout(fraction, KEY)
    assert error.value.code == "data-option"


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_holdout_refuses_to_leave_a_part_empty(rows):
    with pytest.raises(DataError) as error:
        numbered([0] * rows).holdout(0.1, KEY)
    assert error.value.code == "data-too-few"


def test_names_of_given_classes_become_their_positions_even_where_some_are_lacking():
    for y, expected in ([["dog", "ant", "dog"], [2, 1, 2]], [["cat", "cat", "cat"], [0, 0, 0]]):
        data = Dataset.of(np.eye(3), np.array(y), classes=("cat", "ant", "dog"))
        assert data.y.tolist() == expected
        assert data.y.dtype == np.int64


BAD = [
    ("data-mismatch", {"x": np.eye(3), "y": np.array([0, 1])}),
    ("data-mismatch", {"x": np.eye(2), "y": np.array([0, 1]), "groups": np.array([1, 2, 3])}),
    ("data-mismatch", {"x": np.eye(2), "y": np.array([0, 1]), "groups": np.eye(2, dtype=int)}),
    ("data-bad-file", {"x": np.array(["a", "b"]), "y": np.array([0, 1])}),
    ("data-bad-file", {"x": np.array([{}, None]), "y": np.array([0, 1])}),
    ("data-bad-file", {"x": [[1, 2], [3]], "y": np.array([0, 1])}),
    ("data-bad-file", {"x": np.eye(2), "y": np.array(["a", 1], dtype=object)}),
    ("data-bad-file", {"x": np.array(3.0), "y": np.array([0])}),
    ("data-bad-file", {"x": np.eye(2), "y": np.array([0, 1]), "groups": np.array([0.5, 1.5])}),
    ("data-not-finite", {"x": np.array([[1.0], [np.nan]]), "y": np.array([0, 1])}),
    ("data-not-finite", {"x": np.array([[1.0], [-np.inf]]), "y": np.array([0, 1])}),
    ("data-not-finite", {"x": np.eye(2), "y": np.array([1.0, np.nan])}),
    ("data-labels", {"x": np.eye(2), "y": np.array([0, 2]), "classes": ("a", "b")}),
    ("data-labels", {"x": np.eye(2), "y": np.array([-1, 0]), "classes": ("a", "b")}),
    ("data-labels", {"x": np.eye(2), "y": np.array([0.0, 1.0]), "classes": ("a", "b")}),
    ("data-labels", {"x": np.eye(2), "y": np.array(["a", "c"]), "classes": ("a", "b")}),
]


@pytest.mark.parametrize(("code", "parts"), BAD)
def test_arrays_that_are_no_dataset_are_refused(code, parts):
    with pytest.raises(DataError) as error:
        Dataset.of(**parts)
    assert error.value.code == code


def test_the_row_that_is_not_finite_is_named():
    x = np.zeros((6, 2))
    x[4, 1] = np.inf
    with pytest.raises(DataError, match="row 4"):
        Dataset.of(x, np.zeros(6))


def test_more_labels_than_a_limit_allows_are_refused(monkeypatch):
    monkeypatch.setattr("hansa.limits.CLASSES_MAX", 5)
    with pytest.raises(DataError) as error:
        Dataset.of(np.zeros((6, 1)), np.array(list("abcdef")))
    assert error.value.code == "data-labels"
