"""The colours of pages and charts, light and dark, and the rules by which charts use them.

Lines differ by dash as well as by colour.  Text has a contrast of 4.5 and lines of 3 against the
surface (WCAG 2.2, AA), and the first three colours stay apart for the common colour-vision
deficiencies; tests compute both.
"""

from __future__ import annotations

import re

PALETTE: dict[str, tuple[str, str]] = {
    # name: (light, dark)
    "surface": ("#fcfcfa", "#14171b"),
    "raised": ("#f2f3f1", "#1d2126"),
    "ink": ("#1a1e24", "#e9ebee"),
    "muted": ("#565f69", "#a4adb7"),
    "line": ("#d5d8d9", "#363c44"),
    "grid": ("#e7e9e8", "#262b31"),
    "link": ("#0a5aa0", "#7cbcf2"),
    "good": ("#1b7340", "#5fcf93"),
    "bad": ("#b3261e", "#ff8d80"),
    "warn": ("#825500", "#e3b556"),
    "busy": ("#0a5aa0", "#7cbcf2"),
    "brick": ("#b3261e", "#e5604f"),
    "c1": ("#0f66b3", "#5cb0f2"),
    "c2": ("#c24e00", "#f79a52"),
    "c3": ("#0b7f68", "#46cfae"),
    "c4": ("#93458c", "#dd9bd3"),
    "c5": ("#7d6500", "#d6bb4c"),
    "c6": ("#5b636d", "#b3bbc4"),
    "c7": ("#a8324f", "#f58ba4"),
    "c8": ("#4b51b8", "#a5aaf7"),
    "h1": ("#e0ecf6", "#1b2a38"),
    "h2": ("#bfd8ee", "#1f3f5a"),
    "h3": ("#94bfe3", "#22557e"),
    "h4": ("#62a0d6", "#2869a0"),
    "h5": ("#2472b4", "#62a8de"),
    "h6": ("#0a4a84", "#b7dcf8"),
}

SLOTS = 8
"""Lines that differ in colour and dash; further ones start over."""

HEAT_LEVELS = 6
"""Steps of the heat map, from nearly nothing to the maximum."""

INVERSE_FROM = 5
"""The first step whose numbers are printed in the colour of the surface."""

FONT = 'system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif'

_DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2", "12 4", "1 4", "6 2 1 2 1 2")

_RULES = """
.hc{display:block;overflow:visible;font:12px/1.2 FONT;font-variant-numeric:tabular-nums}
.hc svg{overflow:visible}
.hc .bg{fill:var(--surface)}
.hc text{fill:var(--muted)}
.hc .t{fill:var(--ink);font-size:14px;font-weight:600}
.hc .n{fill:var(--ink)}
.hc .m{text-anchor:middle}
.hc .e{text-anchor:end}
.hc .v{font-size:11px;text-anchor:middle;fill:var(--ink)}
.hc .i{fill:var(--surface)}
.hc .o{paint-order:stroke;stroke:var(--surface);stroke-width:4px;stroke-linejoin:round}
.hc .g{stroke:var(--grid)}
.hc .x{stroke:var(--line)}
.hc .r{stroke:var(--ink);stroke-dasharray:5 4;stroke-opacity:.75}
.hc .l{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round}
.hc .l,.hc .k{vector-effect:non-scaling-stroke}
.hc .d{fill:currentColor}
.hc .c{fill:currentColor;fill-opacity:.8}
.hc .f{fill:currentColor;fill-opacity:.13}
.hc .q{fill:currentColor;fill-opacity:.22}
.hc .s{stroke:currentColor;stroke-width:2;stroke-opacity:.45}
.hc .k{stroke:var(--surface)}
.hc text.z{fill:currentColor;font-weight:700}
.hc .p{fill:var(--ink);fill-opacity:0}
.hc .p:hover{fill-opacity:.09}
@media (max-width:600px){.hc .y{display:none}}
""".replace("FONT", FONT)


def chart_css() -> str:
    """Return the rules of all charts, in CSS variables."""
    slots = "".join(
        f".hc .s{slot}{{color:var(--c{slot})}}\n"
        + (f".hc .l.s{slot}{{stroke-dasharray:{dash}}}\n" if dash else "")
        for slot, dash in enumerate(_DASHES, start=1)
    )
    levels = "".join(
        f".hc .h{level}{{fill:var(--h{level})}}\n" for level in range(1, HEAT_LEVELS + 1)
    )
    return _RULES + slots + levels


def palette_css() -> str:
    """Return the variables, light by default and dark where the reader prefers it."""
    light, dark = (
        ";".join(f"--{name}:{pair[side]}" for name, pair in PALETTE.items()) for side in (0, 1)
    )
    return (
        f":root{{color-scheme:light dark;{light}}}\n"
        f"@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
    )


def standalone_css() -> str:
    """Return the rules of a chart that stands alone.

    Colours are written out, because many SVG readers other than browsers know no variables; the
    same readers skip the dark part.
    """
    rules = chart_css().strip()
    light, dark = (
        re.sub(r"var\(--(\w+)\)", lambda found: PALETTE[found[1]][side], rules)  # noqa: B023
        for side in (0, 1)
    )
    dark_colours = "\n".join(rule for rule in dark.splitlines() if "#" in rule)
    return f"{light}\n@media (prefers-color-scheme:dark){{\n{dark_colours}\n}}"
