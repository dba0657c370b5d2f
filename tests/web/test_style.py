"""Colours that everybody can read: the formulas of WCAG and of colour-vision deficiency."""

import re

import numpy as np
import pytest

from hansa.web.style import (
    HEAT_LEVELS,
    INVERSE_FROM,
    PALETTE,
    SLOTS,
    chart_css,
    palette_css,
    standalone_css,
)

# Linear RGB to what is left of it; Vienot, Brettel and Mollon 1999, in the usual rounding.
DEFICIENCIES = {
    "protanopia": [[0.1124, 0.8876, 0.0], [0.1124, 0.8876, 0.0], [0.004, -0.004, 1.0]],
    "deuteranopia": [[0.2927, 0.7073, 0.0], [0.2927, 0.7073, 0.0], [-0.0223, 0.0223, 1.0]],
}


def rgb(colour):
    return np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def light(colour):
    encoded = rgb(colour)
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    low, high = sorted(float(light(c) @ [0.2126, 0.7152, 0.0722]) + 0.05 for c in (one, other))
    return high / low


def test_the_formula_gives_the_known_contrast_of_black_on_white():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("side", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["ink", "muted", "link", "good", "bad", "warn", "busy"])
def test_text_reads_on_every_ground(name, side):
    for ground in ("surface", "raised"):
        assert contrast(PALETTE[name][side], PALETTE[ground][side]) >= 4.5


@pytest.mark.parametrize("side", [0, 1], ids=["light", "dark"])
def test_lines_stand_out_from_the_surface(side):
    for slot in range(1, SLOTS + 1):
        assert contrast(PALETTE[f"c{slot}"][side], PALETTE["surface"][side]) >= 4.5


@pytest.mark.parametrize("side", [0, 1], ids=["light", "dark"])
def test_numbers_read_on_every_step_of_the_heat_map(side):
    for level in range(1, HEAT_LEVELS + 1):
        text = "surface" if level >= INVERSE_FROM else "ink"
        assert contrast(PALETTE[f"h{level}"][side], PALETTE[text][side]) >= 4.5


@pytest.mark.parametrize("side", [0, 1], ids=["light", "dark"])
def test_the_steps_of_the_heat_map_go_one_way(side):
    against = [
        contrast(PALETTE[f"h{level}"][side], PALETTE["surface"][side])
        for level in range(1, HEAT_LEVELS + 1)
    ]
    assert against == sorted(against)


@pytest.mark.parametrize("side", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_training_validation_and_held_out_stay_apart(deficiency, side):
    matrix = np.array(DEFICIENCIES[deficiency])
    seen = [np.sqrt(np.clip(matrix @ light(PALETTE[f"c{i}"][side]), 0, 1)) for i in (1, 2, 3)]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.linalg.norm(seen[one] - seen[other]) > 0.15


def test_a_chart_alone_names_no_variable_and_has_a_dark_part():
    css = standalone_css()
    assert "var(" not in css and "prefers-color-scheme:dark" in css
    assert PALETTE["c1"][0] in css and PALETTE["c1"][1] in css


def test_every_variable_that_charts_use_is_defined():
    used = set(re.findall(r"var\(--(\w+)\)", chart_css()))
    assert used <= set(re.findall(r"--(\w+):", palette_css()))
