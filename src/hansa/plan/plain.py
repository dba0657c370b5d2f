"""Plain values: what a plan may hold, whoever wrote it: a TOML file, `--set`, or a notebook."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from hansa.errors import PlanError
from hansa.limits import PLAN_DEPTH_MAX
from hansa.text import quoted


def plain(value: Any, where: str = "", *, depth: int = 0) -> Any:
    """Return a copy made of dicts, lists and Python's own numbers; NumPy's are converted.

    Args:
      value: what stands in the plan.
      where: its dotted key.
      depth: tables and lists around it.

    Raises:
      PlanError: nested too deeply, a key that is not text, or an integer beyond 64 bits.
    """
    if depth > PLAN_DEPTH_MAX:
        raise _refused(where, f"is nested deeper than {PLAN_DEPTH_MAX} levels")
    if isinstance(value, Mapping):
        prefix = f"{where}." if where else ""
        return {
            _text(key, where): plain(inner, f"{prefix}{key}", depth=depth + 1)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [plain(inner, f"{where}[{i}]", depth=depth + 1) for i, inner in enumerate(value)]
    # NumPy has none yet as long as another thread imports it.
    generic: Any = getattr(sys.modules.get("numpy"), "generic", ())
    if isinstance(value, generic):
        value = value.item()
    if hasattr(value, "isoformat"):  # which TOML has, and JSON has not
        raise PlanError(
            "plan-wrong-type",
            f"The plan's {where} is not usable: {value} is a date or a time. Nothing was started.",
            'No key takes one; write it as text: "2024-01-01".',
        )
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise _refused(where, "is an integer that does not fit into 64 bits")
    return value


def _text(key: object, where: str) -> str:
    if not isinstance(key, str):
        raise _refused(where, f"has the key {quoted(key)}, which is not text")
    return key


def _refused(where: str, fault: str) -> PlanError:
    return PlanError(
        "plan-bad-value",
        f"The plan's {where[:80] or 'top level'} {fault}. Nothing was started.",
        "See what each key takes with: hansa config explain --defaults",
    )
