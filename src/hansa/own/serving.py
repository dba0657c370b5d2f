"""A plan's method and workflow as a server has them: stand-ins for what is the project's own.

What a process says of its parts is checked like any message: a lie may spoil its own run only.
"""

from __future__ import annotations

import re
import threading
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np

from hansa.aggregators import Aggregate, Aggregator, Contribution, collected
from hansa.algorithms import Algorithm, Vectors
from hansa.errors import RunError
from hansa.functions import Place, with_functions
from hansa.limits import FUNCTION_TIMES_MAX, OWN_MADE_AT_ONCE
from hansa.own.answering import Answering
from hansa.own.messages import Call, Denied, Facts, Given, Returned, Wanted
from hansa.own.naming import at_server, own_parts
from hansa.own.process import Model, Parts
from hansa.own.values import Unfit, unfit
from hansa.plan import Method, Plan, build_method
from hansa.rounds import BUFFERS
from hansa.text import clean
from hansa.transforms import Transform
from hansa.transforms.transform import Wire
from hansa.workflows import Federation, Progress, Workflow, build_workflow

_VECTOR = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)
_MAKING = threading.Semaphore(OWN_MADE_AT_ONCE)
_STAND_IN = "own:"  # begins the names of stand-ins in a plan that nobody else sees


def with_own(plan: Plan, place: Place, model: Model) -> tuple[Method, Workflow]:
    """Return method and workflow of a plan that names code of its project, with stand-ins for it.

    The code runs in the place only: here to say what it is, and later while the workflow runs.

    Args:
      plan: the plan; its server functions are in the result too.
      place: where the code runs.
      model: of the run.

    Raises:
      HansaError: the code cannot be made into its parts, or they cannot work together.
    """
    own = own_parts(plan)
    parts = Parts(plan, own, place, model)
    with _MAKING:
        facts = _checked(parts.facts())
    made = {
        "workflow": _workflow(parts, facts),
        "algorithm": _algorithm(parts, facts),
        "aggregator": _aggregator(parts, facts),
        "transforms": Transform(facts.transform, _at_sites, _decode(parts)),
    }
    named: dict[str, Any] = {
        key: f"{_STAND_IN}{key}" for key, name in own._asdict().items() if name
    }
    if "transforms" in named:
        named["transforms"] = (named["transforms"],)
    stood_in = msgspec.structs.replace(at_server(plan), **named)

    def stand_ins(name: str) -> Any:
        return SimpleNamespace(**made)

    method = build_method(stood_in, stand_ins)
    workflow = build_workflow(stood_in, method, stand_ins)
    method, workflow = with_functions(plan, method, workflow, place)
    inner = workflow.run

    async def run(federation: Federation, plan: Plan, algorithm: Algorithm) -> Progress:
        parts.start()
        try:
            return await inner(federation, plan, algorithm)
        finally:
            parts.close()

    return method, workflow._replace(run=run)


def _checked(facts: Facts) -> Facts:
    """Return facts that a server can go by.

    Raises:
      RunError: function-failed.
    """
    odd = [name for name in facts.sends if not _VECTOR.fullmatch(name) or name == BUFFERS]
    many = len(facts.sends) > FUNCTION_TIMES_MAX or len(set(facts.sends)) < len(facts.sends)
    if odd or many or not facts.sends or facts.needs < 1 or not 0 <= facts.spread < 1e6:
        raise RunError(
            "function-failed",
            f"The algorithm {clean(facts.algorithm)} sends {clean(', '.join(facts.sends), 200)}, "
            f"the aggregator needs {facts.needs} updates: no server can do that.",
            f"An update has 1 to {FUNCTION_TIMES_MAX} vectors with names of letters, digits and _.",
        )
    words = ("algorithm", "aggregator", "transform", "workflow")
    named = {word: clean(getattr(facts, word)) for word in words}
    return msgspec.structs.replace(facts, **named, tells=clean(facts.tells, 400))


def _algorithm(parts: Parts, facts: Facts) -> Algorithm:
    def init(x: Any) -> Vectors:
        return _with_x(parts, "init", parts.call("init", np.asarray(x), Vectors), x)

    def broadcast(state: Vectors) -> Vectors:
        return _with_x(parts, "broadcast", parts.call("broadcast", state, Vectors), state.x)

    def server(state: Vectors, mean: Vectors, share: float) -> Vectors:
        stepped = parts.call("server", (state, mean, share), Vectors)
        return _with_x(parts, "server", stepped, state.x)

    return Algorithm(
        facts.algorithm,
        client=_at_sites,
        server=server,
        init=init,
        broadcast=broadcast,
        sends=tuple(facts.sends),
        needs_mean=facts.needs_mean,
        uniform=facts.uniform,
        local_steps=facts.local_steps,
    )


def _with_x(parts: Parts, part: str, vectors: Vectors, like: Any) -> Vectors:
    """Return vectors whose `x` is as long as the model.

    Raises:
      RunError: function-failed.
    """
    x = vectors.get("x")
    if x is None or x.shape != np.shape(like) or x.dtype.kind != "f":
        found = "no x" if x is None else f"an x of shape {list(x.shape)} and {x.dtype}"
        why = Unfit(f"it has {found}, and the model is {list(np.shape(like))}")
        raise unfit(f"What {parts.words(part)} returned", why)
    return vectors


def _aggregator(parts: Parts, facts: Facts) -> Aggregator:
    """Return a rule that keeps all updates, and has them aggregated in canonical order at the end.

    Those of a sum too: a monoid's result is that of one sum over all, in any order.
    """

    def finish(acc: collected.Collected) -> Aggregate:
        acc.members.require_any()
        each = [acc.contributions[client] for client in sorted(acc.contributions)]
        return _aggregated(parts, acc, each)

    return Aggregator(
        facts.aggregator,
        linear=facts.linear,
        streaming=False,
        zero=collected.zero,
        add=collected.add,
        merge=collected.merge,
        finish=finish,
        dump=collected.dump,
        load=collected.load,
        needs=facts.needs,
    )


def _aggregated(parts: Parts, acc: collected.Collected, each: list[Contribution]) -> Aggregate:
    try:
        made = parts.call("aggregate", (acc.spec, parts.show(each)), Aggregate)
    finally:
        parts.hide()
    for name, spec in acc.spec.vectors.items():
        vector = made.vectors.get(name)
        if vector is None or vector.shape != (spec.size,) or vector.dtype.kind != "f":
            found = "is missing" if vector is None else f"is {list(vector.shape)} {vector.dtype}"
            why = Unfit(f"{name} {found}; it is {spec.size} numbers")
            raise unfit(f"What {parts.words('aggregate')} returned", why)
    if not 0 < made.clients <= len(each):
        why = Unfit(f"it counts {made.clients} clients, and there are {len(each)}")
        raise unfit(f"What {parts.words('aggregate')} returned", why)
    return made


def _decode(parts: Parts) -> Any:
    def decode(vectors: Wire) -> Wire:
        return parts.call("decode", dict(vectors), dict[str, np.ndarray])

    return decode


def _at_sites(*_: Any) -> Any:
    raise AssertionError("clients' halves run at sites")


def _workflow(parts: Parts, facts: Facts) -> Workflow:
    async def run(federation: Federation, plan: Plan, algorithm: Algorithm) -> Progress:
        hansas = None if parts.own.algorithm else algorithm
        answering = Answering(federation, parts.expect, hansas)
        reply, arrays = parts.asked("run", Call("run"), None)
        while isinstance(reply, Wanted):
            if answering.spent:
                raise unfit("The workflow", Unfit("it asks for ever, and commits no round"))
            try:
                given = await answering.answer(reply.method, reply.value, arrays)
                frame: Given | Denied = Given()
            except RunError as error:
                given, frame = None, Denied(error.code, error.happened, error.hint)
            del arrays  # of what was asked, while the workflow works
            reply, arrays = parts.asked("run", frame, given)
        if not isinstance(reply, Returned):
            raise unfit("What the workflow sent", Unfit("it is no answer"))
        progress = parts.fitted("run", reply.value, arrays, Progress)
        if not progress.ended:
            raise unfit(
                f"What {parts.words('run')} returned", Unfit("it does not say why it ended")
            )
        return progress._replace(ended=clean(progress.ended, 400))

    return Workflow(
        facts.workflow,
        run,
        tells=facts.tells,
        timed=facts.timed,
        spread=facts.spread,
        raced=facts.raced,
    )
