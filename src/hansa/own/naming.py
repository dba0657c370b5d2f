"""Which parts of a plan are code of the project, and what is said of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from hansa.errors import PlanError
from hansa.plan import Plan


class Own(NamedTuple):
    """What a plan names of the project's own, as "file.py:function"; empty where it is Hansa's."""

    workflow: str = ""
    algorithm: str = ""
    aggregator: str = ""
    transforms: str = ""

    def told(self) -> str:
        """Say which part is whose, to begin a sentence with."""
        key, name = next((key, name) for key, name in self._asdict().items() if name)
        return f"The plan's {key} is {name!r}" if key != "transforms" else f"{name!r} transforms"


def own_parts(plan: Plan) -> Own:
    """Return what a plan names of the project's own; modules of local steps are the sites' affair.

    >>> own_parts(Plan(algorithm={"name": "fed_opt", "chain": ["mine.py:half"]})).algorithm
    'mine.py:half'
    """
    parts = (plan.workflow, plan.algorithm, plan.aggregator, list(plan.transforms))
    return Own(*(next((n for n in _names(part) if ":" in n), "") for part in parts))


def at_server(plan: Plan) -> Plan:
    """Return a plan without modules of local steps that are the project's: no server takes any."""
    local = (list(plan.learner.optimizer.chain), list(plan.learner.optimizer.regularizers))
    if not any(":" in name for name in _names(local)):
        return plan
    optimizer = msgspec.structs.replace(plan.learner.optimizer, chain=(), regularizers=())
    learner = msgspec.structs.replace(plan.learner, optimizer=optimizer)
    return msgspec.structs.replace(plan, learner=learner)


def check_files(own: Own, code: Mapping[str, bytes]) -> None:
    """Refuse a plan whose own parts are in no file of its project; executes nothing.

    Raises:
      PlanError: plan-bad-value.
    """
    for key, name in own._asdict().items():
        file, _, _ = name.partition(":")
        if not file:
            continue
        try:
            ast.parse(code[file])
        except KeyError:
            raise PlanError(
                "plan-bad-value",
                f"The plan's {key} names {name!r}, and the project has no file {file!r}.",
                "Name a .py file in the project folder.",
            ) from None
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise PlanError(
                "plan-bad-value", f"{file} is not Python: {error}.", "Correct that line."
            ) from None


def told(plan: Plan) -> str:
    """Return what data owners must know of a plan's own parts; empty if it has none."""
    files = sorted({name.partition(":")[0] for name in own_parts(plan) if name})
    if not files:
        return ""
    return (
        f"The server runs {', '.join(files)} of this package in a sandbox; it may see each site's "
        "update by itself."
    )


def _names(named: Any) -> Iterator[str]:
    """Yield the names in a value of a plan: its own, and those of a list among its options."""
    if isinstance(named, str):
        yield named
    elif isinstance(named, list | tuple):
        for one in named:
            yield from _names(one)
    elif isinstance(named, dict):
        yield from _names(named.get("name"))
        for key, option in named.items():
            if key != "name" and isinstance(option, list | tuple | dict):
                yield from _names(option)
