"""The synchronous round with server functions in it, and when a plan can have them.

Whom to ask, what to tell them and how to combine what they return: each is the project's function
where its file defines one, and the plan's own way where it does not.  What they remember is part of
every commit, so a run that is continued gives the bytes of one that was never interrupted.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hansa.aggregators import Aggregate, Contribution
from hansa.aggregators.gathered import apart, gathered
from hansa.algorithms import Algorithm, Vectors
from hansa.errors import PlanError, RunError
from hansa.functions.messages import FUNCTIONS, KEPT, MODEL, Call, Function, One
from hansa.functions.place import Answer, Functions, Place, failed
from hansa.limits import FUNCTION_VALUE_BYTES_MAX
from hansa.params import Params
from hansa.params.model import ModelLayout
from hansa.plan import Method, Plan, weighting_of
from hansa.rounds import BUFFERS, Terms
from hansa.workflows import Commit, Federation, GlobalState, Progress, Trained, Workflow, one_round
from hansa.workflows.synchronous import Extra, choose

_KEPT = "server functions"
"""How names of vectors begin that a commit keeps for the functions, and the key of their memory."""


def with_functions(
    plan: Plan, method: Method, workflow: Workflow, place: Place
) -> tuple[Method, Workflow]:
    """Return method and workflow as they are with a plan's server functions, if it has any.

    Nothing of the project is executed here.

    Args:
      plan: the plan.
      method: algorithm, aggregator and transforms without them.
      workflow: the plan's.
      place: where the functions will run; its code holds their file.

    Raises:
      PlanError: there is no such file, it defines none, or the plan cannot have them.
    """
    if plan.server_functions.file is None:
        return method, workflow
    defined = defined_in(plan.server_functions.file, place.code)
    _check(plan, method, workflow, defined)
    if "aggregate" in defined:
        method = method._replace(aggregator=gathered(method.aggregator))

    async def run(federation: Federation, plan: Plan, algorithm: Algorithm) -> Progress:
        functions = Functions(plan, place, federation.layout.layout.nbytes)
        try:
            commit = federation.resume()
            while Progress(**commit.progress).ended is None:
                extra = _Served(functions, plan, defined, commit, federation.layout)
                commit, problems = await one_round(federation, plan, algorithm, commit, extra=extra)
                await federation.commit(commit, problems)
            return Progress(**commit.progress)
        finally:
            functions.close()

    return method, workflow._replace(run=run)


def told(plan: Plan) -> str:
    """Return what data owners must know of a plan's server functions; empty if it has none."""
    if plan.server_functions.file is None:
        return ""
    return (
        f"The server runs {plan.server_functions.file} of this package in a sandbox; it may see "
        "each site's update by itself."
    )


def defined_in(file: str, code: Mapping[str, bytes]) -> frozenset[Function]:
    """Return which functions a file defines, without executing it.

    Raises:
      PlanError: plan-bad-value, there is no such file, or none of them in it.
    """
    if file not in code:
        raise PlanError(
            "plan-bad-value",
            f"The plan's server_functions.file is {file!r}, and the project has no such file.",
            "Name a .py file in the project folder.",
        )
    try:
        tree = ast.parse(code[file])
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise PlanError(
            "plan-bad-value", f"{file} is not Python: {error}.", "Correct that line."
        ) from None
    found = frozenset(name for name in FUNCTIONS if name in set(_names(tree)))
    if not found:
        raise PlanError(
            "plan-bad-value",
            f"{file} defines none of {', '.join(FUNCTIONS)}. Nothing was started.",
            "Define one of them, or leave server_functions out.",
        )
    return found


def _names(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a module binds at its top level."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def _check(plan: Plan, method: Method, workflow: Workflow, defined: frozenset[Function]) -> None:
    file, algorithm = plan.server_functions.file, method.algorithm
    if workflow.name != "synchronous":
        raise PlanError(
            "plan-impossible",
            f"The plan has server functions in {file}, and the workflow {workflow.name}. Nothing "
            "was started.",
            'They act in workflow = "synchronous".',
        )
    if "aggregate" in defined and (algorithm.needs_mean or algorithm.sends != ("delta",)):
        raise PlanError(
            "plan-impossible",
            f"{algorithm.name} needs the mean of what its clients send; aggregate() of {file} "
            "gives a model. Nothing was started.",
            "Use fed_avg or another algorithm whose updates are models, or leave aggregate() out.",
        )
    unlimited = plan.weight_limit is None and weighting_of(plan, algorithm) == "steps"
    if "settings" in defined and unlimited:
        raise PlanError(
            "plan-impossible",
            f"The plan weighs updates by local steps, which settings() of {file} may change. "
            "Nothing was started.",
            "Set weight_limit to the most that one round's steps can add up to, or weigh by "
            "examples.",
        )


class _Served(Extra):
    """One round with server functions."""

    def __init__(
        self,
        functions: Functions,
        plan: Plan,
        defined: frozenset[Function],
        commit: Commit,
        layout: ModelLayout,
    ) -> None:
        self._functions, self._plan, self._defined = functions, plan, defined
        self._round, self._state, self._layout = commit.round + 1, commit.state, layout
        self._memory = Progress(**commit.progress).memory.get(_KEPT)
        start = f"{_KEPT}/"
        self._kept = {
            name.removeprefix(start): v
            for name, v in commit.state.algorithm.items()
            if name.startswith(start)
        }
        self._row: dict[str, Any] = {}

    # ---- what a synchronous round asks

    def choose(self, plan: Plan, roster: Sequence[str], number: int) -> tuple[list[str], Terms]:
        answer = self._called("select", clients=list(roster))
        if answer is None:
            return choose(plan, roster, number)
        chosen = set(answer.value)
        self._row["selected"] = len(chosen)
        return [client for client in roster if client in chosen], Terms(plan.cohort.minimum)

    def settings(self, cohort: Sequence[str]) -> dict[str, Any]:
        answer = self._called("settings", clients=list(cohort), arrays=self._model())
        if answer is None:
            return {}
        # As sites will get them, wherever these are: JSON has no names but text.
        told = json.loads(json.dumps(answer.value))
        self._row["settings"] = told
        return dict(told)

    def learn(self, trained: Trained) -> tuple[Trained, dict[str, Any], dict[str, Any]]:
        aggregate = trained.aggregate
        if "aggregate" in self._defined and aggregate is not None:
            aggregate, each = apart(aggregate)
            answer = self._called("aggregate", each=each, trained=trained)
            if answer is not None:
                aggregate = self._changed(aggregate, answer)
            trained = trained._replace(aggregate=aggregate)
        row = {"server_functions": self._row} if self._row else {}
        return trained, row, {} if self._memory is None else {_KEPT: self._memory}

    def keep(self, state: GlobalState) -> GlobalState:
        kept = {f"{_KEPT}/{name}": array for name, array in self._kept.items()}
        return state._replace(algorithm=Vectors({**state.algorithm, **kept}))

    # ---- inside

    def _model(self) -> dict[str, np.ndarray]:
        model = self._layout.join(self._state.algorithm.x, self._state.buffers)
        return {f"{MODEL}{name}": array for name, array in model.to_dict().items()}

    def _called(
        self,
        function: Function,
        *,
        clients: Sequence[str] = (),
        arrays: Mapping[str, np.ndarray] | None = None,
        each: Sequence[Contribution] = (),
        trained: Trained | None = None,
    ) -> Answer | None:
        """Call a function; None if the file has none, or it failed and the plan goes on without.

        Raises:
          RunError: function-failed, function-time; and the plan says nothing of going on.
        """
        if function not in self._defined:
            return None
        call = Call(function, self._round, list(clients), self._memory)
        given = {f"{KEPT}{name}": array for name, array in self._kept.items()}
        given |= arrays or {}
        try:
            if trained is None:
                answer = self._functions.call(call, given)
            else:
                given |= self._model()
                answer = self._functions.aggregate(call, given, self._updates(each, trained))
            self._check_answer(function, answer, clients)
        except RunError as error:
            if self._plan.server_functions.failing != "default":
                raise
            self._row.setdefault("failed", {})[function] = str(error)
            return None
        self._memory, self._kept = answer.memory, answer.kept
        return answer

    def _updates(
        self, each: Sequence[Contribution], trained: Trained
    ) -> Iterator[tuple[One, dict[str, np.ndarray]]]:
        x, buffers = self._state.algorithm.x, self._state.buffers
        for one in each:
            mine = {name: np.asarray(vector) for name, vector in one.vectors.items()}
            model = self._layout.join(x + mine["delta"], mine.get(BUFFERS, buffers)).to_dict()
            client, _, _ = one.client.partition("@")  # of a late update, its round follows
            metrics = {
                name: float(m.value)
                for name, m in trained.metrics.get(client, {}).items()
                if m.weight
            }
            yield One(one.client, one.weight, metrics), model

    def _changed(self, aggregate: Aggregate, answer: Answer) -> Aggregate:
        """Return the aggregate that leads to the model which the function returned."""
        x, buffers = self._layout.split(self._fitted(answer))
        vectors = {**aggregate.vectors, "delta": x - self._state.algorithm.x}
        if BUFFERS in vectors:
            vectors[BUFFERS] = buffers
        return aggregate._replace(vectors=vectors)

    def _fitted(self, answer: Answer) -> Params:
        """Return the model in the tensors' own dtypes; `_check_answer` has seen to the rest."""
        return Params.of(
            {
                s.name: np.asarray(answer.model[s.name]).astype(dtype)
                for s, dtype in zip(self._layout.layout.specs, self._dtypes(), strict=True)
            }
        )

    def _dtypes(self) -> list[np.dtype[Any]]:
        model = self._layout.join(self._state.algorithm.x, self._state.buffers)
        return [array.dtype for array in model.to_dict().values()]

    def _check_answer(self, function: Function, answer: Answer, clients: Sequence[str]) -> None:
        """Refuse an answer that cannot be used.

        Raises:
          RunError: function-failed.
        """
        fault = {
            "select": self._fault_of_selection,
            "settings": self._fault_of_settings,
            "aggregate": self._fault_of_model,
        }[function](answer, clients)
        fault = fault or _fault_of_json("its memory", answer.memory)
        if fault:
            raise failed(self._plan, function, fault)

    def _fault_of_selection(self, answer: Answer, clients: Sequence[str]) -> str:
        chosen, there = answer.value, set(clients)
        if not isinstance(chosen, list) or not all(isinstance(c, str) for c in chosen):
            return "it returned no list of clients"
        if odd := [client for client in chosen if client not in there]:
            return f"it chose {odd[0]!r:.80}, who is not there"
        if len(set(chosen)) < max(1, self._plan.cohort.minimum):
            least = max(1, self._plan.cohort.minimum)
            return f"it chose {len(set(chosen))} clients, and a round needs {least}"
        return ""

    def _fault_of_settings(self, answer: Answer, clients: Sequence[str]) -> str:
        if not isinstance(answer.value, dict):
            return "it returned no dict"
        return _fault_of_json("its settings", answer.value)

    def _fault_of_model(self, answer: Answer, clients: Sequence[str]) -> str:
        wanted = {s.name: tuple(s.shape) for s in self._layout.layout.specs}
        if answer.model.keys() != wanted.keys():
            odd = sorted(answer.model.keys() ^ wanted.keys())[0]
            return f"it returned {'no' if odd in wanted else 'another'} tensor {odd!r:.80}"
        for dtype, (name, shape) in zip(self._dtypes(), wanted.items(), strict=True):
            array = answer.model[name]
            if array.shape != shape:
                return f"it returned {name} of shape {list(array.shape)}; it is {list(shape)}"
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                return f"it returned NaN or infinity in {name}"
            with np.errstate(over="ignore", invalid="ignore"):
                fitted = array.astype(dtype)
            if dtype.kind in "iub" and (fitted != array).any():
                return f"it returned {name} as {array.dtype}; it is {dtype}"
            if dtype.kind not in "iub" and not np.isfinite(fitted.astype(np.float64)).all():
                return f"it returned {name} with values that no {dtype} holds"
        return ""


def _fault_of_json(what: str, value: Any) -> str:
    """Say why something cannot be kept with a commit; empty if it can."""
    try:
        size = len(json.dumps(value, allow_nan=False))
    except ValueError:
        return f"{what} cannot be written as JSON: there is NaN or infinity in it"
    except (TypeError, RecursionError) as error:  # such as bytes and times
        return f"{what} cannot be written as JSON: {error}"
    if size > FUNCTION_VALUE_BYTES_MAX:
        return f"{what}, arrays aside: {size:,} characters; {FUNCTION_VALUE_BYTES_MAX:,} may travel"
    return ""
