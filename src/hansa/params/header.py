"""The JSON header of a tensor file: written canonically, read with suspicion.

The `json` module reads it, not `msgspec`: it reports duplicate keys, and imports five times faster.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any, NoReturn

from hansa.errors import ParamsError
from hansa.limits import HEADER_BYTES_MAX, HEADER_VALUES_MAX, TENSORS_MAX
from hansa.params.layout import METADATA, Layout, repeated, shown, too_large

Offsets = dict[str, tuple[int, int]]
"""The bytes [start, stop) of the body that a header claims for each tensor."""

_FIELDS = {"dtype", "shape", "data_offsets"}
_HINT = "Nothing was loaded.  Write the file again from its source; do not trust this copy."


def render(layout: Layout, metadata: Mapping[str, str]) -> bytes:
    """Return the header of a file, padded so that the body after it begins at a multiple of 64.

    The same tensors and metadata always give the same bytes.

    Raises:
      ParamsError: params-too-large, a header that could not be read again.
    """
    parts = [_tensors_json(layout)] if layout.specs else []
    if metadata:
        parts.insert(0, f'"{METADATA}":{_json(dict(sorted(metadata.items())))}')
    text = ("{" + ",".join(parts) + "}").encode()
    _check_size(text)
    return text + b" " * (-(len(text) + 8) % 64)


@functools.lru_cache(maxsize=16)
def _tensors_json(layout: Layout) -> str:
    return ",".join(
        f'{_json(name)}:{{"dtype":"{dtype}","shape":{_json(shape)},"data_offsets":[{start},{stop}]}}'
        for name, dtype, shape, start, stop in layout.specs
    )


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def parse(header: bytes) -> tuple[Layout, Offsets, dict[str, str]]:
    """Read a header: the layout its tensors would have here, where they lie there, and metadata.

    Whether the offsets fit the shapes, each other and the body is not checked.

    Raises:
      ParamsError: params-bad-header, params-bad-offsets, params-too-large, params-duplicate-name,
        params-unknown-dtype.
    """
    top = _load(header)
    metadata = _metadata(top.pop(METADATA, {}))
    entries = [(name, *_fields(name, entry)) for name, entry in top.items()]
    layout = Layout.of((name, dtype, shape) for name, dtype, shape, _ in entries)
    return layout, {name: offsets for name, _, _, offsets in entries}, metadata


def _load(header: bytes) -> dict[str, Any]:
    if header[:1] != b"{":
        _refuse(f"The header begins with {shown(header[:8])} instead of an opening brace.")
    _check_size(header)
    try:
        top: dict[str, Any] = json.loads(header.decode(), object_pairs_hook=_Objects())
    except RecursionError:
        _refuse("The header is nested too deeply.")
    except ValueError as error:  # malformed JSON or UTF-8, or an integer of thousands of digits
        _refuse(f"The header is not valid JSON: {shown(str(error))}.")
    return top


def _check_size(header: bytes) -> None:
    """Bound the memory that parsing takes, before anything is parsed, and what may be written."""
    values = header.count(b",") + header.count(b"[")
    if len(header) > HEADER_BYTES_MAX or values > HEADER_VALUES_MAX:
        raise too_large(f"a header of {len(header)} bytes and {values} values")


class _Objects:
    """Builds dicts from the pairs of JSON objects; counts them, and refuses a key given twice."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        self.count += 1
        if self.count > TENSORS_MAX + 2:  # one for the header, one for the metadata
            raise too_large(f"a header of more than {TENSORS_MAX} tensors")
        made = dict(pairs)
        if len(made) != len(pairs):
            twice = repeated(key for key, _ in pairs)
            _refuse(f"The name {shown(twice)} occurs twice.", "params-duplicate-name")
        return made


def _metadata(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        _refuse(f"{METADATA} is {shown(value)}; it must map text to text.")
    return value


def _fields(name: str, entry: object) -> tuple[str, tuple[int, ...], tuple[int, int]]:
    """Check the types of one tensor's entry; return dtype, shape, offsets."""
    if not isinstance(entry, dict) or entry.keys() != _FIELDS:
        _refuse(f"Tensor {shown(name)} is {shown(entry)}; expected dtype, shape and data_offsets.")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or not isinstance(shape, list):
        _refuse(f"Tensor {shown(name)} has dtype {shown(dtype)} and shape {shown(shape)}.")
    if not isinstance(offsets, list) or [type(offset) for offset in offsets] != [int, int]:
        _refuse(f"Tensor {shown(name)} has the offsets {shown(offsets)}, not two whole numbers.")
    start, stop = offsets
    if not 0 <= start <= stop < 2**63:
        _refuse(f"Tensor {shown(name)} has the offsets {shown(offsets)}.", "params-bad-offsets")
    return dtype, tuple(shape), (start, stop)


def _refuse(happened: str, code: str = "params-bad-header") -> NoReturn:
    raise ParamsError(code, happened, _HINT)
