"""The part of YAML in which fedn.yaml and python_env.yaml are written, read strictly.

Mappings and lists by indentation, plain and quoted text, `[a, b]`, `{a: b}` and comments.  What
else YAML has (anchors, tags, text over several lines, several documents) is refused with its line,
never guessed at.  All scalars are text; one that is empty is None.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from hansa.errors import PlanError
from hansa.text import clean

_KEY = re.compile(r"""([\w.-]+|"[^"\\]*"|'[^']*')\s*:(?:\s+(.*))?$""")
_DEPTH_MAX = 16


class _Line(NamedTuple):
    number: int
    indent: int
    text: str


def read_yaml(text: str, name: str) -> Any:
    r"""Return what a small YAML file says: dicts, lists, text and None.

    Args:
      text: of the file.
      name: of the file, for messages.

    Raises:
      PlanError: import-refused, with the line that is not in this part of YAML.

    >>> read_yaml("a:\n  b: x y  # why\n  c: []\nd:\n- '1'\n", "f")
    {'a': {'b': 'x y', 'c': []}, 'd': ['1']}
    """
    return _Reader(text, name).read()


class _Reader:
    def __init__(self, text: str, name: str) -> None:
        self._name = name
        self._lines = [line for line in map(self._line, *_numbered(text)) if line.text]
        self._at = 0

    def read(self) -> Any:
        if self._lines and self._lines[0].text == "---":
            self._at = 1
        value = self._block(0) if self._at < len(self._lines) else None
        if self._at < len(self._lines):
            raise self._bad(self._lines[self._at], "is indented in a way that says nothing")
        return value

    def _line(self, number: int, raw: str) -> _Line:
        text = raw.lstrip(" ")
        line = _Line(number, len(raw) - len(text), _uncommented(text).rstrip())
        if "\t" in line.text[:1]:
            raise self._bad(line, "is indented with a tab")
        return line

    def _block(self, depth: int) -> Any:
        """Read the mapping or list that begins here."""
        first = self._lines[self._at]
        if depth > _DEPTH_MAX:
            raise self._bad(first, "is nested too deeply")
        if _is_item(first.text):
            return self._list(first.indent)
        return self._mapping(first.indent, depth)

    def _list(self, indent: int) -> list[Any]:
        values = []
        while (line := self._next(indent)) is not None and _is_item(line.text):
            self._at += 1
            text = line.text[1:].strip()
            if _KEY.match(text):
                raise self._bad(line, "is a mapping inside a list")
            values.append(self._scalar(line, text))
        return values

    def _mapping(self, indent: int, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while (line := self._next(indent)) is not None and not _is_item(line.text):
            found = _KEY.match(line.text)
            if found is None:
                raise self._bad(line, "is not `key: value`")
            key, text = found[1].strip("\"'"), (found[2] or "").strip()
            if key in values:
                raise self._bad(line, f"gives {key} again")
            self._at += 1
            values[key] = self._scalar(line, text) if text else self._below(indent, depth)
        return values

    def _below(self, indent: int, depth: int) -> Any:
        """Read what belongs to a key that has nothing on its own line."""
        if self._at == len(self._lines):
            return None
        line = self._lines[self._at]
        inside = line.indent > indent or (line.indent == indent and _is_item(line.text))
        return self._block(depth + 1) if inside else None

    def _next(self, indent: int) -> _Line | None:
        """Return the next line of this block, or None where another block begins."""
        if self._at == len(self._lines) or self._lines[self._at].indent < indent:
            return None
        line = self._lines[self._at]
        if line.indent > indent:
            raise self._bad(line, "is indented further than the line before; write it on one line")
        return line

    def _scalar(self, line: _Line, text: str) -> Any:
        if not text or text in ("~", "null"):
            return None
        if text[0] in "[{":
            return self._flow(line, text)
        if text[0] in "\"'":
            if len(text) < 2 or text[-1] != text[0] or text[0] in text[1:-1] or "\\" in text:
                raise self._bad(line, "has a quotation that does not simply end with the line")
            return text[1:-1]
        if text[0] in "&*!|>%@`":
            raise self._bad(line, f"begins a value with {text[0]}; write it as one plain line")
        if re.search(r":(\s|$)", text):
            raise self._bad(line, "has a second colon; put the value into quotation marks")
        return text

    def _flow(self, line: _Line, text: str) -> Any:
        ends = {"[": "]", "{": "}"}[text[0]]
        inside = text[1:-1].strip()
        if text[-1] != ends or re.search(r"[\[\]{}]", inside):
            raise self._bad(line, "has brackets inside brackets, or over several lines")
        parts = [part.strip() for part in inside.split(",")] if inside else []
        if text[0] == "[":
            return [self._scalar(line, part) for part in parts]
        pairs = [_KEY.match(part) for part in parts]
        if not all(pairs):
            raise self._bad(line, "is not `{key: value}`")
        return {p[1].strip("\"'"): self._scalar(line, (p[2] or "").strip()) for p in pairs if p}

    def _bad(self, line: _Line, how: str) -> PlanError:
        return PlanError(
            "import-refused",
            f"{self._name}, line {line.number}, {how}: {clean(line.text)}. Nothing was written.",
            "Hansa reads mappings, lists and plain text there, without the rest of YAML.",
        )


def _numbered(text: str) -> tuple[range, list[str]]:
    lines = text.removeprefix("\ufeff").splitlines()
    return range(1, len(lines) + 1), lines


def _is_item(text: str) -> bool:
    return text == "-" or text.startswith("- ")


def _uncommented(text: str) -> str:
    """Return a line without its comment: from # at the beginning or after a blank."""
    quote = ""
    for at, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'" and (at == 0 or text[at - 1] in " :[{,"):
            quote = char
        elif char == "#" and (at == 0 or text[at - 1] in " \t"):
            return text[:at]
    return text
