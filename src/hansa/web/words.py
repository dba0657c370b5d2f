"""Text for people: numbers, sizes and times in few digits; names come through `hansa.text`.

Escaping for HTML is not done here: templates and charts escape everything they print.
"""

from __future__ import annotations

import json
import math

from hansa.text import TEXT_CHARS, clean, few

_SETTING_CHARS = 80

__all__ = [
    "TEXT_CHARS",
    "amount",
    "byte_size",
    "byte_unit",
    "clean",
    "count",
    "duration",
    "listing",
    "number",
    "sentence",
    "setting",
    "spans",
    "titled",
]


def titled(name: str) -> str:
    """Return a name as the beginning of a title or sentence.

    >>> titled("top_5_accuracy"), titled("mse")
    ('Top 5 accuracy', 'MSE')
    """
    shown = clean(name).replace("_", " ")
    if shown in {"auc", "f1", "mae", "mse", "nll", "r2", "rmse"}:
        return shown.upper()
    return shown[:1].upper() + shown[1:]


def sentence(text: str) -> str:
    """Return text with a capital at its beginning and a full stop at its end.

    >>> sentence("all 10 rounds are done"), sentence("Why?"), sentence("")
    ('All 10 rounds are done.', 'Why?', '')
    """
    shown = clean(text, TEXT_CHARS)
    return shown[:1].upper() + shown[1:] + ("" if shown[-1:] in "….!?" else ".")


def number(value: float | None) -> str:
    """Return a measured value in three significant digits or so.

    >>> [number(v) for v in (0.95312, 1, 0.00123, 12.345, 4821.7, 1e9, float("nan"))]
    ['0.953', '1.000', '0.00123', '12.3', '4,822', '1.00e+09', 'not a number']
    """
    if value is None or not math.isfinite(value):
        return "not a number"
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-4:
        return f"{value:.2e}"
    if size < 0.1 and value != 0:
        return f"{value:.3g}"
    decimals = 3 if size <= 1 else 2 if size < 10 else 1 if size < 100 else 0
    return f"{value:,.{decimals}f}"


def amount(value: float) -> str:
    """Return how much there is of something: whole numbers without decimals.

    >>> amount(90.0), amount(1200), amount(0.3125)
    ('90', '1,200', '0.312')
    """
    return f"{value:,.0f}" if float(value).is_integer() else number(value)


def count(number_of: int, noun: str) -> str:
    """Return an amount with its noun, such as "1 round" or "12 rounds".

    >>> count(1, "round"), count(1200, "client")
    ('1 round', '1,200 clients')
    """
    return f"{number_of:,} {noun}" + ("" if number_of == 1 else "s")


def byte_size(size: float) -> str:
    """Return a number of bytes with a decimal unit.

    >>> byte_size(999), byte_size(2_140_000)
    ('999 B', '2.1 MB')
    """
    scale, unit = byte_unit(size)
    return f"{size / scale:.0f} {unit}" if scale == 1 else f"{size / scale:.1f} {unit}"


def byte_unit(size: float) -> tuple[float, str]:
    """Return the divisor and the name of the unit that suits `size` bytes."""
    for scale, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= scale * 0.99995:
            return scale, unit
    return 1.0, "B"


def duration(seconds: float | None) -> str:
    """Return a time span in the two units that matter.

    >>> [duration(s) for s in (0.0042, 4.11, 75, 3 * 3600 + 125)]
    ['4.2 ms', '4.1 s', '1 min 15 s', '3 h 02 min']
    """
    if seconds is None or not math.isfinite(seconds):
        return "an unknown time"
    if seconds < 0.0995:
        return f"{seconds * 1000:.2g} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def listing(items: list[str], limit: int = 4) -> str:
    """Return names as a phrase, with how many were left out.

    >>> listing(["a", "b", "c"]), listing(["a", "b", "c", "d"], 2)
    ('a, b and c', 'a, b and 2 more')
    """
    if len(items) > limit:
        return few(items, limit)
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def spans(rounds: list[int]) -> str:
    """Return round numbers with neighbours joined.

    >>> spans([1, 2, 3, 7, 9, 10])
    '1-3, 7, 9-10'
    """
    runs: list[list[int]] = []
    for at in sorted(set(rounds)):
        if runs and at == runs[-1][1] + 1:
            runs[-1][1] = at
        else:
            runs.append([at, at])
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in runs]
    return ", ".join(texts[:8]) + (" ..." if len(texts) > 8 else "")


def setting(value: object) -> str:
    """Return a value of a plan much as its owner wrote it.

    >>> setting(True), setting(0.05), setting([1, "a"]), setting("sgd"), setting(None)
    ('true', '0.05', '[1, "a"]', 'sgd', 'none')
    """
    if value is None:
        return "none"
    if isinstance(value, str):
        return clean(value, _SETTING_CHARS) if value else '""'
    return clean(json.dumps(value, ensure_ascii=False, default=str), _SETTING_CHARS)
