from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hansa.data import load
from hansa.data.tables import read_csv
from hansa.errors import DataError

PATIENTS = """age,dose,hospital,outcome
61,-0.5,north,ill
44,1e2,south,well
"70",+3.25,north,well
"""


def table(folder: Path, text: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_features_target_and_group_are_told_apart(tmp_path):
    data = load(table(tmp_path, PATIENTS), target="outcome", group="hospital")
    assert data.x.tolist() == [[61, -0.5], [44, 100], [70, 3.25]]
    assert data.x.dtype == np.float32
    assert data.y.tolist() == [0, 1, 1]
    assert data.classes == ("ill", "well")
    assert data.groups is not None
    assert data.groups.tolist() == ["north", "south", "north"]
    assert data.name == "t"


def test_the_target_may_stand_anywhere(tmp_path):
    for place in range(3):
        cells = [["a", "b"], ["1", "2"], ["3", "4"]]
        for row, value in zip(cells, ["t", "x", "y"], strict=True):
            row.insert(place, value)
        got = read_csv(table(tmp_path, "\n".join(map(",".join, cells))), target="t", group=None)
        assert got.x.tolist() == [[1, 2], [3, 4]]
        assert got.target.tolist() == ["x", "y"]
        assert got.features == ("a", "b")


def test_windows_lines_a_byte_order_mark_quotes_and_blank_lines_are_read(tmp_path):
    text = '\ufeffa,"the, label"\r\n\r\n1,"x, y"\r\n\r\n2,"he said ""z"""\r\n\r\n'
    data = load(table(tmp_path, text), target="the, label")
    assert data.x.tolist() == [[1], [2]]
    assert data.classes == ('he said "z"', "x, y")


def test_rows_come_in_order_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("hansa.data.tables.BLOCK_ROWS", 7)
    text = "a,b,y\n" + "".join(f"{i},{-i},{i % 3}\n" for i in range(100))
    data = load(table(tmp_path, text), target="y")
    assert data.x.tolist() == [[i, -i] for i in range(100)]
    assert data.y.tolist() == [i % 3 for i in range(100)]


@pytest.mark.parametrize(
    ("cells", "y", "classes"),
    [
        (["b", "a", "b"], [1, 0, 1], ("a", "b")),
        (["3", "1", "3"], [3, 1, 3], ("0", "1", "2", "3")),
        (["+2", "00", "2"], [2, 0, 2], ("0", "1", "2")),
        (["1.0", "2.0", "1.0"], [1, 2, 1], None),
        (["1.", "0", ".5"], [1, 0, 0.5], None),
        (["1", "1e0"], [1, 1], None),
        (["-1", "1", "1"], [0, 1, 1], ("-1", "1")),
        (["1", "b", "1"], [0, 1, 0], ("1", "b")),
        (["0.5", "1", "-2e1"], [0.5, 1, -20], None),
        (["9007199254740993", "9007199254740992"], [1, 0], "9007199254740992 9007199254740993"),
        ([str(i) for i in range(100)], list(range(100)), tuple(map(str, range(100)))),
    ],
)
def test_a_target_column_means_what_its_cells_say(cells, y, classes, tmp_path):
    data = load(table(tmp_path, "a,y\n" + "".join(f"0,{c}\n" for c in cells)), target="y")
    assert data.y.tolist() == y
    assert data.classes == (tuple(classes.split()) if isinstance(classes, str) else classes)
    assert data.y.dtype == (np.float32 if classes is None else np.int64)


def test_whole_numbers_of_many_values_are_neither_guessed_to_be_classes_nor_to_be_numbers(tmp_path):
    cells = [str(1000 + 3 * i) for i in range(101)]
    path = table(tmp_path, "a,y\n" + "".join(f"0,{c}\n" for c in cells))
    with pytest.raises(DataError, match="101 different whole numbers, from 1000 to 1300") as error:
        load(path, target="y")
    assert error.value.code == "data-labels" and "250.0" in error.value.hint
    assert load(path, target="y", classes=1301).y.tolist() == [int(c) for c in cells]
    with pytest.raises(DataError, match="different whole numbers"):
        load(table(tmp_path, f"a,y\n0,1\n0,{2**64}\n"), target="y", classes=2)


BAD_CELLS = [
    ("a,b,y\n1,2,p\n3,,q\n", "row 3, column 'b', the cell is empty"),
    ("a,b,y\n1,2,p\n\n3,n/a,q\n", "row 4, column 'b', the cell is 'n/a'"),
    ("a,b,y\nred,2,p\n", "row 2, column 'a', the cell is 'red'"),
    ("a,b,y\n1,nan,p\n", "row 2, column 'b', the cell is 'nan'"),
    ("a,b,y\n1,2,p\n-inf,2,p\n", "row 3, column 'a', the cell is '-inf'"),
    ("a,b,y\n1,1e39,p\n", "row 2, column 'b', the cell is '1e39'"),
    ("a,b,y\n1,2,\n", "row 2, column 'y', the cell is empty"),
    ("a,b_c,y\n1,2,p_q\n3,1_000,q\n", "row 3, column 'b_c', the cell is '1_000'"),
    ("a,b,y\n1,2,1\n3,4,inf\n", "row 3, column 'y', the cell is 'inf'"),
    ("a,b,y\n1,2,-Infinity\n", "row 2, column 'y', the cell is '-Infinity'"),
    ("a,b,y\n1,2,1_000\n3,4,2\n", "row 2, column 'y', the cell is '1_000'"),
    ("a,b,y\n1,2,\u0661\n", "row 2, column 'y', the cell is '\u0661'"),
    ("a,b,y\n1,2,NA\n", "row 2, column 'y', the cell is 'NA'"),
    ("y,a,b\np,1,2\nq,1,x\n", "row 3, column 'b', the cell is 'x'"),
    ("a,b,y\n1,2," + "p" * 257, "row 2, column 'y'"),
]


@pytest.mark.parametrize(("text", "where"), BAD_CELLS, ids=range(len(BAD_CELLS)))
def test_a_cell_that_is_missing_or_no_number_is_named_by_row_and_column(tmp_path, text, where):
    with pytest.raises(DataError) as error:
        load(table(tmp_path, text), target="y")
    assert error.value.code == "data-bad-cell"
    assert where in error.value.happened


BAD_TABLES = {
    "empty": "",
    "header only": "a,b,y\n",
    "short row": "a,b,y\n1,2,p\n1,p\n",
    "long row": "a,b,y\n1,2,3,p\n",
    "semicolons": "a;b;y\n1;2;p\n",
    "no name": "a,,y\n1,2,p\n",
    "same name": "a,a,y\n1,2,p\n",
    "open quote": 'a,b,y\n1,2,"p\n',
    "not utf-8": b"a,b,y\n1,2,\xe9\n",
    "binary": bytes(range(256)),
}


@pytest.mark.parametrize("text", BAD_TABLES.values(), ids=BAD_TABLES.keys())
def test_a_file_that_is_no_table_is_refused(tmp_path, text):
    with pytest.raises(DataError) as error:
        load(table(tmp_path, text), target="y")
    assert error.value.code == "data-bad-file"


def test_a_table_of_only_a_target_and_a_group_is_refused(tmp_path):
    with pytest.raises(DataError, match="no column left"):
        load(table(tmp_path, "y,who\np,q\n"), target="y", group="who")


def test_a_ragged_row_is_named(tmp_path):
    with pytest.raises(DataError, match="2 cells in row 3, but 3 in its header"):
        load(table(tmp_path, "a,b,y\n1,2,p\n1,p\n"), target="y")


@pytest.mark.parametrize(
    ("target", "group", "hint"),
    [
        (None, None, "Set target to one of these"),
        ("outcom", None, "Set target to 'outcome'."),
        ("zzz", None, "one of these"),
        ("outcome", "hospitl", "Set group to 'hospital'."),
    ],
)
def test_a_column_that_is_not_there_is_answered_with_the_columns(tmp_path, target, group, hint):
    with pytest.raises(DataError) as error:
        load(table(tmp_path, PATIENTS), target=target, group=group)
    assert error.value.code == "data-no-column"
    assert "age, dose, hospital, outcome" in error.value.happened
    assert hint in error.value.hint


def test_many_columns_are_listed_in_part(tmp_path):
    header = ",".join(f"c{i}" for i in range(1000))
    with pytest.raises(DataError, match="and 980 more"):
        load(table(tmp_path, header + "\n"), target="y")


def test_limits_hold(tmp_path, monkeypatch):
    path = table(tmp_path, PATIENTS)
    monkeypatch.setattr("hansa.limits.CSV_COLUMNS_MAX", 3)
    with pytest.raises(DataError) as error:
        load(path, target="outcome")
    assert error.value.code == "data-too-large"
    monkeypatch.undo()
    monkeypatch.setattr("hansa.limits.DATA_BYTES_MAX", 20)
    with pytest.raises(DataError) as error:
        load(path, target="outcome")
    assert error.value.code == "data-too-large"


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet='a,1y\n"-. \r\0é', max_size=60))
def test_no_text_gives_a_traceback(tmp_path, text):
    try:
        load(table(tmp_path, "a,y\n" + text), target="y")
    except DataError as error:
        assert "t.csv" in error.happened
