"""Charts: the coordinates that are drawn, gaps, single points, thinning, and well-formed SVG.

The oracle is geometry worked out by hand: a plot is 1000 units wide and 200 pixels high (columns:
96), its axis starts and ends on a tick.
"""

import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hansa.web.charts import Band, ReferenceLine, Series, columns, heat_map, line_chart, strip
from hansa.web.style import chart_css

BAD = "</title><script>alert(1)</script>\"'&\u202e\x00" + "A" * 10_000
maybe = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))


def lines(*series, **options):
    given_options = {"title": "Loss", "x_label": "round", "y_label": "loss", **options}
    return line_chart(series, **given_options)


def tree(svg):
    return ET.fromstring(svg)


def paths(svg, css):
    return [p.get("d") for p in tree(svg).iter() if (p.get("class") or "").split(" ")[0] == css]


def texts(svg):
    return ["".join(t.itertext()) for t in tree(svg).iter("text")]


def hovers(svg):
    return [t.text.split("\n") for t in tree(svg).iter("title")]


def test_a_line_goes_from_its_first_to_its_last_value():
    svg = lines(Series("a", [(1, 1.0), (2, -1.0), (5, 0.0)]))
    assert paths(svg, "l")[-1] == "M0 0L250 200L1000 100"


def test_a_lost_value_interrupts_the_line_and_is_marked():
    for lost in (None, math.nan, math.inf):
        svg = lines(Series("a", [(1, 0.0), (2, 1.0), (3, lost), (4, 1.0), (5, 0.0)]))
        assert paths(svg, "l")[-1] == "M0 200L250 0M750 0L1000 200"
        assert texts(svg).count("\u00d7") == 1
        assert ["round 3", "a: not a number"] in hovers(svg)


def test_rounds_that_were_not_evaluated_do_not_interrupt_the_line():
    svg = lines(
        Series("train", [(x, 1.0 / x) for x in range(1, 5)]), Series("test", [(2, 0), (4, 1)])
    )
    assert paths(svg, "l")[-1] == "M333.3 200L1000 0"
    assert "\u00d7" not in texts(svg)


@pytest.mark.parametrize("count", [1, 3, 1000])
def test_a_single_point_is_visible_at_any_number_of_rounds(count):
    points = [(x, 0.5 if x == 1 else None) for x in range(1, count + 1)]
    svg = lines(Series("a", points))
    assert len(list(tree(svg).iter("circle"))) == 1


def test_no_values_are_said_in_words():
    for series in ((), (Series("a", []),), (Series("a", [(1, None), (2, math.nan)]),)):
        assert "No values yet." in texts(lines(*series))


def test_a_spike_among_a_thousand_rounds_stays():
    points = [(x, 5.0 if x == 637 else 0.0) for x in range(1, 1001)]
    svg = lines(Series("a", points))
    assert re.search(r"L636\.\d 0L", paths(svg, "l")[-1])
    assert len(svg) < 30_000


def test_a_band_surrounds_its_values():
    band = Band("spread", [(1, 0.0, 4.0), (2, 1.0, 2.0)])
    svg = lines(Series("a", [(1, 2.0), (2, 1.5)]), bands=[band])
    assert paths(svg, "f") == ["M0 0L1000 100L1000 150L0 200Z"]
    assert ["round 1", "a: 2.00", "spread: 0.000 to 4.00"] in hovers(svg)


def test_a_band_has_the_gaps_of_its_edges():
    band = Band("b", [(1, 0, 1), (2, 0, 1), (3, None, 1), (4, 0, 1), (5, 0, 1)], inner=True)
    svg = lines(Series("a", [(1, 0.5), (5, 0.5)]), bands=[band])
    assert paths(svg, "q")[0].count("M") == 2


def test_a_reference_line_is_drawn_at_its_value_and_named():
    svg = lines(Series("a", [(1, 0.0), (2, 1.0)]), reference_lines=[ReferenceLine("alone", 0.25)])
    dashed = next(line for line in tree(svg).iter("line") if line.get("class") == "r")
    assert (dashed.get("y1"), dashed.get("y2")) == ("150", "150")
    assert "alone 0.250" in texts(svg)


def test_a_logarithmic_axis_needs_positive_values():
    svg = lines(Series("a", [(1, 0.1), (2, 10.0), (3, 1.0)]), log=True)
    assert paths(svg, "l")[-1] == "M0 200L500 0L1000 100"
    assert lines(Series("a", [(1, 0.0), (2, 1.0)]), log=True) == lines(
        Series("a", [(1, 0), (2, 1)])
    )


def test_columns_are_stacked_from_zero():
    svg = columns(
        [Series("kept", [(1, 3.0), (2, 2.0)], 6), Series("lost", [(1, 0.0), (2, 1.0)], 7)],
        title="Updates",
        x_label="round",
        y_label="clients",
    )
    kept, lost = paths(svg, "c")
    assert kept == "M0.42 96h0.16v-96h-0.16zM1.42 96h0.16v-64h-0.16z"
    assert lost == "M1.42 32h0.16v-32h-0.16z"
    assert hovers(svg) == [["round 1", "kept: 3", "lost: 0"], ["round 2", "kept: 2", "lost: 1"]]


def test_many_columns_become_averages_and_say_so():
    series = Series("s", [(x, 2.0 if x % 2 else 4.0) for x in range(1, 241)])
    svg = columns([series], title="Time", x_label="round", y_label="seconds")
    assert "round, averages of 2" in texts(svg)
    assert hovers(svg)[0] == ["round 1 to 2, average", "s: 3"]
    assert len(hovers(svg)) == 120


def test_the_last_average_counts_only_what_is_there():
    series = Series("s", [(x, 2.0) for x in range(1, 122)])
    svg = columns([series], title="Time", x_label="round", y_label="seconds")
    assert hovers(svg)[-1] == ["round 121", "s: 2"]


def test_a_strip_is_sorted_and_lists_who_has_no_value():
    values = {"north": -0.5, "south": 0.75, "east": None, "west": 0.25}
    svg = strip(values, title="Accuracy", x_label="accuracy")
    shown = [t for t in texts(svg) if t in values or t == "no value" or t[-1:].isdigit()]
    rows = [shown[shown.index(name) : shown.index(name) + 2] for name in values]
    order = sorted(values, key=shown.index)
    assert order == ["south", "west", "north", "east"]
    assert ["east", "no value"] in rows and ["north", "-0.500"] in rows


def test_bars_start_at_zero_and_end_at_their_amount():
    svg = strip({"a": 1000.0, "b": 250.0}, title="Size", x_label="examples", from_zero=True)
    bars = [r.get("width") for r in tree(svg).iter("rect") if r.get("class") == "d s1"]
    assert bars == ["100%", "25%"]
    assert "1,000" in texts(svg)


def test_many_clients_are_ranked_with_the_ends_named():
    values = {f"c{i}": (i * 37 % 100) / 100 for i in range(100)} | {"lost": math.nan}
    svg = strip(values, title="Accuracy", x_label="accuracy")
    heights = [float(c.get("cy")) for c in tree(svg).iter("circle")]
    assert len(heights) == 100 and heights == sorted(heights, reverse=True)
    assert "highest: c27 0.990" in texts(svg)  # 27 * 37 = 999
    assert any(text.startswith("c0 0.000") for text in texts(svg))
    assert "lowest first; 1 without a value" in texts(svg)


def test_ten_thousand_clients_stay_small_and_keep_the_worst_thirty():
    values = {f"c{i:05d}": i / 10_000 for i in range(10_000)}
    svg = strip(values, title="Accuracy", x_label="accuracy")
    assert len(svg) < 40_000
    assert {f"c{i:05d}" for i in range(30)} <= {lines_[0] for lines_ in hovers(svg)}


def test_clients_that_are_alike_look_alike():
    svg = strip({"a": 0.9501, "b": 0.9499}, title="t", x_label="x")
    places = [float(c.get("cx").rstrip("%")) for c in tree(svg).iter("circle")]
    assert abs(places[0] - places[1]) < 1


def test_a_heat_map_shows_amounts_totals_and_steps():
    svg = heat_map(
        [[6, 0, 1], [0, 3, 0]],
        rows=["north", "south"],
        columns=["a", "b", "c"],
        title="Examples",
        x_label="class",
        y_label="client",
    )
    by_level = {p.get("class"): p.get("d") for p in tree(svg).iter("path")}
    assert by_level == {"k h6": "M0 0h1v1h-1z", "k h1": "M2 0h1v1h-1z", "k h3": "M1 1h1v1h-1z"}
    assert [t for t in texts(svg) if t.isdigit()] == ["6", "1", "3", "7", "3"]
    assert hovers(svg)[0] == ["north, 7 in all", "a: 6", "c: 1"]


def test_the_smallest_amount_is_still_coloured():
    options = {"title": "t", "x_label": "class", "y_label": "client"}
    svg = heat_map([[1000, 1, 0]], rows=["a"], columns=["x", "y", "z"], **options)
    assert {p.get("class") for p in tree(svg).iter("path")} == {"k h6", "k h1"}


def test_a_wide_heat_map_keeps_its_colours_and_drops_its_numbers():
    counts = [[x * y for x in range(100)] for y in range(40)]
    names = [f"c{i}" for i in range(40)]
    options = {"title": "t", "x_label": "class", "y_label": "client"}
    svg = heat_map(counts, rows=names, columns=[str(i) for i in range(100)], **options)
    assert len(svg) < 90_000
    assert sum(p.get("d").count("M") for p in tree(svg).iter("path")) == 39 * 99


@pytest.mark.parametrize("standalone", [False, True])
def test_hostile_text_stays_text(standalone):
    options = {"title": BAD, "standalone": standalone}
    drawn = [
        lines(
            Series(BAD, [(1, 0.0), (2, 1.0)]),
            x_label=BAD,
            y_label=BAD,
            bands=[Band(BAD, [(1, 0, 1), (2, 0, 1)])],
            reference_lines=[ReferenceLine(BAD, 0.5)],
            **options,
        ),
        columns([Series(BAD, [(1, 1.0)])], x_label=BAD, y_label=BAD, **options),
        strip({BAD: 1.0, BAD + "b": None}, x_label=BAD, **options),
        strip({f"{i}{BAD}": i for i in range(30)}, x_label=BAD, **options),
        heat_map([[1]], rows=[BAD], columns=[BAD], x_label=BAD, y_label=BAD, **options),
        line_chart([], x_label=BAD, y_label=BAD, **options),
    ]
    for svg in drawn:
        assert not list(tree(svg).iter("script")) and "<script" not in svg
        assert "\u202e" not in svg and "\x00" not in svg and "AAAAAAAAAA" * 7 not in svg


def test_a_chart_alone_brings_its_style_and_a_chart_on_a_page_does_not():
    series = Series("a", [(1, 0.0), (2, 1.0)])
    alone, inline = lines(series, standalone=True), lines(series)
    assert tree(alone).tag == "{http://www.w3.org/2000/svg}svg"
    assert "<style>" in alone and "var(" not in alone and 'viewBox="0 0 720' in alone
    assert "<style>" not in inline and "calc(100% - " in inline


def test_every_chart_says_in_words_what_it_shows():
    svg = lines(Series("training", [(1, 0.25), (2, -0.75)]), title="Loss")
    assert tree(svg).get("aria-label") == "Loss. training: loss from 0.250 to -0.750."


def test_every_class_that_is_drawn_has_a_rule():
    drawn = lines(
        Series("a", [(1, 0.0), (2, None), (3, 1.0)]),
        bands=[Band("b", [(1, 0, 1), (3, 0, 1)]), Band("c", [(1, 0, 1)], inner=True)],
        reference_lines=[ReferenceLine("r", 0.5)],
    )
    drawn += strip({"a": 0.5, "b": 0.25}, title="t", x_label="x")
    drawn += heat_map([[9] * 30], rows=["r"], columns=["c"] * 30, title="", x_label="", y_label="")
    drawn += heat_map(
        [[999] * 10], rows=["r"], columns=["c"] * 10, title="", x_label="", y_label=""
    )
    drawn += columns([Series("a", [(1, 1.0)], 8)], title="t", x_label="x", y_label="y")
    used = {name for group in re.findall(r'class="([^"]*)"', drawn) for name in group.split()}
    assert used <= set(re.findall(r"\.(\w+)", chart_css()))


@settings(max_examples=60)
@example(rows=[(None, None, 5e-324), (1.0, None, None)], log=True)
@given(st.lists(st.tuples(maybe, maybe, maybe), max_size=60), st.booleans())
def test_any_numbers_give_well_formed_svg_with_finite_coordinates(rows, log):
    points = list(enumerate(rows, start=1))
    drawn = [
        lines(
            Series("a", [(x, row[0]) for x, row in points]),
            bands=[Band("b", [(x, row[1], row[2]) for x, row in points])],
            log=log,
        ),
        strip({str(x): row[0] for x, row in points}, title="t", x_label="x"),
        columns(
            [Series("a", [(x, row[0]) for x, row in points])], title="t", x_label="x", y_label="y"
        ),
        heat_map(
            [[value or 0.0 for value in row] for row in rows],
            rows=[str(x) for x, _ in points],
            columns=["a", "b", "c"],
            title="t",
            x_label="x",
            y_label="y",
        ),
    ]
    for svg in drawn:
        for element in tree(svg).iter():
            for name in ("d", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height"):
                assert not re.search("nan|inf", element.get(name) or "", re.IGNORECASE)
