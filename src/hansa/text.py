"""Text of unknown origin made harmless: for a terminal, a log, a page.

A client's name or an error message may carry escape sequences that clear a screen, marks that
make it read backwards, or ten thousand characters.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

NAME_CHARS = 60
"""Characters of a name that are shown; what is longer ends in an ellipsis."""

TEXT_CHARS = 400
"""Characters of a message that are shown among others."""

ERROR_CHARS = 2_000
"""Characters of an error that ends a command; it stands alone."""

_JOINERS = "\u200c\u200d"  # needed to write Persian and several Indic scripts


def clean(text: object, limit: int = NAME_CHARS) -> str:
    r"""Return `text` on one line of at most `limit` characters, invisible ones spelt out.

    Direction overrides could make a name read backwards, escape sequences act on a terminal, and
    control characters are not allowed in XML; all are shown as escapes instead of taking effect.

    >>> clean("ab\u202ecd\nef")
    'ab\\u202ecd ef'
    >>> clean("abcdef", 4)
    'abc…'
    """
    line = " ".join(str(text)[: limit * 4].split())
    shown = "".join(char if _harmless(char) else f"\\u{ord(char):04x}" for char in line)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def _harmless(char: str) -> bool:
    if char in _JOINERS:
        return True
    noncharacter = ord(char) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(char) <= 0xFDEF
    return not noncharacter and unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}


def quoted(value: object) -> str:
    """Return a value as it fits into a sentence: as Python writes it, and not too long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def few(names: Sequence[str], most: int) -> str:
    """Return the first of some names, and how many there are beside them.

    >>> few(["a", "b", "c"], 2), few(["a"], 2)
    ('a, b and 1 more', 'a')
    """
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most:,} more" if len(names) > most else shown


_UNKNOWN_KEY = re.compile(r"Object contains unknown field `(?P<field>.*)`$", re.DOTALL)
_UNKNOWN_WORD = re.compile(r"^Invalid (enum )?value '(?P<word>.*)'$", re.DOTALL)


def unknown_key(reason: str) -> str | None:
    """Return the key that msgspec says no table has; None if it says something else."""
    found = _UNKNOWN_KEY.search(reason)
    return found and found["field"]


def unknown_word(reason: str) -> str | None:
    """Return the word that msgspec says a key does not take; None if it says something else."""
    found = _UNKNOWN_WORD.search(reason)
    return found and found["word"]


def nearest(word: str, words: Iterable[str]) -> str:
    """Return a sentence that names the nearest of the valid words, or lists them all."""
    import difflib  # only when something was mistyped

    words = sorted(words)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else f"Valid: {', '.join(words)}."


def plan_name(name: str, *, otherwise: str = "study") -> str:
    """Return a name that a plan, and so a run folder, may have."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_")[:60] or otherwise


def toml(value: object) -> str:
    """Return a value as TOML, whose strings, numbers and lists are JSON's; but for DEL."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{toml_key(k)} = {toml(v)}' for k, v in value.items())} }}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_key(name: str) -> str:
    """Return a key as TOML, in quotes where it needs them."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml(name)
