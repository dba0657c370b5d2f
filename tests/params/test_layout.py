import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.errors import ParamsError
from hansa.limits import NAME_CHARS_MAX
from hansa.params import Layout
from hansa.params.dtypes import DTYPES, FLOATS, width

SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)
TENSORS = st.lists(
    st.tuples(st.text(max_size=5), st.sampled_from(DTYPES), SHAPES),
    unique_by=lambda tensor: tensor[0],
    max_size=12,
)


def test_tensors_keep_their_order_and_are_grouped_by_dtype_widest_first():
    tensors = [("m", "BOOL", (3,)), ("w", "F32", (2, 3)), ("n", "I64", ()), ("b", "F32", (1,))]
    layout = Layout.of(tensors)
    assert layout.names == ("m", "w", "n", "b")
    assert [spec[3:] for spec in layout.specs] == [(36, 39), (8, 32), (0, 8), (32, 36)]
    assert layout.dtypes == ("I64", "F32", "BOOL")
    assert (layout.span("F32"), layout.span("U8"), layout.nbytes) == ((8, 36), (0, 0), 39)
    assert layout.float_size == 7


@given(TENSORS)
def test_tensors_fill_the_body_aligned_without_hole_or_overlap(tensors):
    layout = Layout.of(tensors)
    free = 0
    for spec in sorted(layout.specs, key=lambda spec: (spec.start, spec.stop)):
        assert spec.start == free
        assert spec.start % width(spec.dtype) == 0
        free = spec.stop
    assert free == layout.nbytes
    assert [spec[:3] for spec in layout.specs] == tensors


@given(TENSORS)
def test_spans_are_the_places_of_each_dtype(tensors):
    layout = Layout.of(tensors)
    for dtype in layout.dtypes:
        mine = [spec for spec in layout.specs if spec.dtype == dtype]
        assert layout.span(dtype) == (min(s.start for s in mine), max(s.stop for s in mine))
    floats = [s for s in layout.specs if s.dtype in FLOATS]
    assert layout.float_size == sum((s.stop - s.start) // width(s.dtype) for s in floats)


@given(TENSORS, st.data())
def test_a_subset_keeps_the_order_whatever_the_order_of_the_names(tensors, data):
    layout = Layout.of(tensors)
    names = data.draw(st.lists(st.sampled_from(layout.names), unique=True)) if tensors else []
    assert layout.subset(names) == Layout.of(t for t in tensors if t[0] in names)


def test_a_subset_of_an_unknown_name_is_refused():
    layout = Layout.of([("w", "F32", (2,)), ("b", "F32", (2,))])
    with pytest.raises(ParamsError, match=r"no tensor 'v' .* Choose from 'w', 'b'") as caught:
        layout.subset(["w", "v"])
    assert caught.value.code == "params-mismatch"


def test_equal_layouts_are_equal_and_hash_alike_after_a_copy():
    layout = Layout.of([("w", "F32", [2, 3]), ("n", "I64", ())])
    twin = copy.deepcopy(layout)
    assert twin == layout and hash(twin) == hash(layout) and twin["w"] == layout["w"]
    assert layout != Layout.of([("n", "I64", ()), ("w", "F32", (2, 3))])
    assert "w" in layout and "v" not in layout


@pytest.mark.parametrize(
    ("tensor", "code"),
    [
        (("evil", "F8", (1,)), "params-unknown-dtype"),
        (("evil", "f32", (1,)), "params-unknown-dtype"),
        (("evil", "F32", (-1,)), "params-bad-header"),
        (("evil", "F32", (2.0,)), "params-bad-header"),
        (("evil", "F32", (True,)), "params-bad-header"),
        (("evil", "F32", (2**40, 2**40)), "params-too-large"),
        (("evil", "F32", (2**61,)), "params-too-large"),
        (("evil", "F32", (0, 2**62, 2**62)), "params-too-large"),
        (("evil", "U8", (1,) * 65), "params-too-large"),
        (("evil" + "x" * NAME_CHARS_MAX, "U8", (1,)), "params-too-large"),
        (("evil\ud800", "U8", (1,)), "params-bad-header"),
        (("ok", "U8", (1,)), "params-duplicate-name"),
    ],
)
def test_a_tensor_that_cannot_be_is_refused_by_name(tensor, code):
    with pytest.raises(ParamsError, match=f"'{tensor[0][:4]}") as caught:
        Layout.of([("ok", "F32", (1,)), tensor])
    assert caught.value.code == code
    assert len(str(caught.value)) < 400 and str(caught.value).isascii()


@pytest.mark.parametrize("name", ["__metadata__", 3, None, b"w"])
def test_a_name_must_be_free_text(name):
    with pytest.raises(ParamsError, match="cannot be the name") as caught:
        Layout.of([(name, "F32", (1,))])
    assert caught.value.code == "params-bad-header"


def test_tensors_may_not_together_exceed_what_each_may():
    with pytest.raises(ParamsError, match="3 tensors") as caught:
        Layout.of((name, "U8", (2**61,)) for name in "abc")
    assert caught.value.code == "params-too-large"
