"""What a FEDn client says of its work, as JSON data: metadata of an update, a validation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hansa.errors import LearnerError
from hansa.limits import METRICS_MAX


def metadata_of(said: Any) -> dict[str, Any]:
    """Return the metadata of an update, which may stand in `training_metadata`.

    Raises:
      LearnerError: command-result, they have no num_examples.
    """
    if isinstance(said, Mapping) and isinstance(said.get("training_metadata"), Mapping):
        said = said["training_metadata"]
    if not isinstance(said, Mapping) or "num_examples" not in said:
        raise wrong("The metadata of the update has no num_examples.")
    return dict(said)


def examples_of(said: Mapping[str, Any]) -> int:
    """Return `num_examples`.

    Raises:
      LearnerError: command-result, it is no whole number above 0.
    """
    number = said["num_examples"]
    whole = isinstance(number, int | float) and not isinstance(number, bool)
    if not whole or number != number or number < 1 or number != int(number):
        raise wrong(f"The num_examples are {number!r:.80} and no whole number above 0.")
    return int(number)


def metrics_of(said: Any) -> dict[str, float]:
    """Return the finite numbers by name; those in objects by names with a dot.

    Raises:
      LearnerError: command-result, there are too many.

    >>> metrics_of({"num_examples": 3, "loss": 0.5, "by": {"row": -2}, "note": "text"})
    {'loss': 0.5, 'by.row': -2.0}
    """
    found = dict(_numbers(said))
    if len(found) > METRICS_MAX:
        raise wrong(f"There are {len(found):,} numbers; at most {METRICS_MAX:,} are taken.")
    return found


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key != "num_examples":
                yield from _numbers(inner, f"{name}.{key}" if name else str(key))
    elif name and isinstance(value, int | float) and abs(value) < 2.0**1023:  # no NaN is
        yield name, float(value)


def wrong(what: str) -> LearnerError:
    """Return the error for what a client's code said."""
    return LearnerError(
        "command-result", f"{what} Nothing was sent.", "Correct the package or the script."
    )
