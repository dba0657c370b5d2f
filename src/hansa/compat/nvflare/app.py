"""A FLARE app's client side as the functions of a `function` learner.

    flare = FlareApp(__file__, executors=[...], persistor={...}, rounds=3)
    data, init, train, evaluate, close = flare.functions()

`hansa import nvflare` writes these lines.  Nothing of the app is imported here: that happens in a
process of its own, which `hansa.compat.process` starts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from hansa.code import code_digest, read_code
from hansa.compat.nvflare.wire import Answer, Kind, Parts, Setup, Task, site_of
from hansa.compat.process import ClientProcess
from hansa.errors import LearnerError
from hansa.learners.learner import ClientData
from hansa.learners.named_tasks import TaskContext
from hansa.metrics import Mean
from hansa.seeds import Key

WORKER = "hansa.compat.nvflare.worker"
_KEY_BYTES = 16
_NO_KEY = Key.root(0).child("evaluate").material


@dataclass(frozen=True)
class Shard:
    """One client's data, which only its own code can read."""

    site: str

    def __len__(self) -> int:
        """Return 1: how many steps there are, the client says when it has trained."""
        return 1


class FlareApp:
    """The client side of a FLARE app.

    Args:
      file: `__file__` of the caller; the app's custom/ lies in its folder.
      persistor: path and args of what loads the seed model.
      executors: as in config_fed_client.json: tasks, and the executor's path and args.
      components: as in config_fed_client.json.
      data_filters: its task_data_filters.
      result_filters: its task_result_filters.
      apps: where sites have different apps, in place of these four: of each app these, its sites,
        and the folder of its code below the caller's.
      persistor_folder: where the persistor's code lies, below the caller's.
      train_task: name of the task that trains.
      validate_task: name of the task that validates.
      expects: the kind of a result: WEIGHTS, or WEIGHT_DIFF, which is added; "" takes either.
      weights: aggregation_weights of clients by name; 1 for others.
      rounds: in all, which executors are told.
      start_round: what the first round is called.
      turns: rounds of Hansa in one of the app's; of a cyclic workflow, the number of clients.
      log_levels: of loggers by name; "root" is that of all others.
      initial_task: name of the task whose result is a first model; "" if there is none.
      initial_site: the one client that does it; "" lets all.
      own_server: whether the app's own aggregator or generator gets the results.
    """

    def __init__(
        self,
        file: str,
        *,
        persistor: Mapping[str, Any],
        executors: Sequence[Mapping[str, Any]] = (),
        components: Sequence[Mapping[str, Any]] = (),
        data_filters: Sequence[Mapping[str, Any]] = (),
        result_filters: Sequence[Mapping[str, Any]] = (),
        apps: Sequence[Mapping[str, Any]] = (),
        persistor_folder: str = "",
        train_task: str = "train",
        validate_task: str = "validate",
        expects: str = "WEIGHTS",
        weights: Mapping[str, float] | None = None,
        rounds: int = 1,
        start_round: int = 0,
        turns: int = 1,
        log_levels: Mapping[str, str] | None = None,
        initial_task: str = "",
        initial_site: str = "",
        own_server: bool = False,
    ) -> None:
        single = {
            "executors": [*executors],
            "components": [*components],
            "data_filters": [*data_filters],
            "result_filters": [*result_filters],
        }
        self._apps = [msgspec.convert(app, Parts) for app in apps or [single]]
        self._persistor_folder = persistor_folder
        setup = Setup(
            folder="",
            digest=b"",
            file=Path(file).name,
            apps=[],
            persistor=dict(persistor),
            tasks={"train": train_task, "evaluate": validate_task},
            expects=expects,
            rounds=rounds,
            start_round=start_round,
            log_levels=dict(log_levels or {}),
            says_more=own_server,
        )
        home, folders = Path(file).resolve().parent, [app.folder for app in self._apps]
        self._processes = {
            folder: self._process(setup, home / folder, folder)
            for folder in dict.fromkeys([*folders, persistor_folder])
        }
        self._weights, self._start, self._turns = dict(weights or {}), start_round, turns
        self._round = start_round
        self._initial = (initial_task, initial_site)

    def _process(self, setup: Setup, at: Path, folder: str) -> ClientProcess[Answer]:
        """Return a process for the clients of some code: modules of another's may be called so."""
        mine = [app for app in self._apps if app.folder == folder]
        digest = code_digest(read_code(at))
        told = msgspec.structs.replace(setup, folder=str(at), digest=digest, apps=mine)
        return ClientProcess(WORKER, told, Answer, "FLARE")

    def _process_of(self, site: str) -> ClientProcess[Answer]:
        for app in self._apps:
            if not app.sites or site in app.sites:
                return self._processes[app.folder]
        raise LearnerError(
            "client-failed",
            f"No app of the job is deployed to {site}.",
            "Leave it out of cohort.where in plan.toml, or name it in model.py.",
        )

    def functions(self) -> tuple[Callable[..., Any], ...]:
        """Return data, init, train, evaluate and close, which a function learner asks for."""
        return self.data, self.init, self.train, self.evaluate, self.close

    def tasks(self) -> dict[str, Callable[..., Any]]:
        """Return what answers named tasks: every task that an executor names."""
        made: dict[str, Callable[..., Any]] = {
            str(name): functools.partial(self._answer, str(name))
            for app in self._apps
            for part in app.executors
            for name in part["tasks"]
            if name != "*"
        }
        if self._initial[0]:
            made["initial_weights"] = self._initial_weights
        return made

    def _answer(
        self, name: str, params: dict[str, np.ndarray] | None, data: ClientData, ctx: TaskContext
    ) -> tuple[dict[str, np.ndarray] | None, dict[str, Any]]:
        """Have a client's executor do a task; what it gives is arrays and facts."""
        number = self._start + (ctx.round - 1) // self._turns
        key = ctx.rng.bytes(_KEY_BYTES)
        shard = _shard(data.train)
        told = dict(ctx.settings)
        task = Task("ask", shard.site, number, key, size=0, name=name, settings=told)
        answer, arrays = self._process_of(shard.site).ask(task, params or {})
        return arrays or None, answer.facts

    def _initial_weights(self, params: Any, data: ClientData, ctx: TaskContext) -> Any:
        name, site = self._initial
        if site and _shard(data.train).site != site:
            raise LearnerError(
                "client-failed",
                f"The app takes its first model from {site} alone.",
                "Nothing need be done.",
            )
        arrays, facts = self._answer(name, None, data, ctx)
        steps = facts.get("meta", {}).get("NUM_STEPS_CURRENT_ROUND", 1)
        return arrays or {}, {"weight": steps}

    def data(self, client: str) -> dict[str, Shard]:
        """Return what stands for a client's data; client-0 is called site-1, as FLARE does."""
        site = site_of(client, (site for app in self._apps for site in app.sites))
        return {"train": Shard(site), "validation": Shard(site)}

    def init(self, rng: np.random.Generator, sample: Any) -> dict[str, np.ndarray]:
        """Return the model that the app's persistor loads."""
        task = Task("seed", "server", self._start, rng.bytes(_KEY_BYTES), size=0)
        process = self._processes[self._persistor_folder]
        model = process.ask(task, {})[1]
        if all(app.folder != self._persistor_folder for app in self._apps):
            process.close()  # no client runs in it
        return model

    def train(
        self, params: dict[str, np.ndarray], data: Shard, ctx: Any
    ) -> tuple[dict[str, np.ndarray], dict[str, Mean]]:
        """Have a client train; it weighs its aggregation weight times its number of steps."""
        self._round = self._start + (ctx.round - 1) // self._turns
        answer, arrays = self._ask("train", data, params, key=ctx.rng.bytes(_KEY_BYTES))
        ctx.weight = self._weights.get(data.site, 1.0) * answer.steps
        weight = ctx.weight
        return arrays, {name: Mean(v * weight, weight) for name, v in answer.metrics.items()}

    def evaluate(self, params: dict[str, np.ndarray], data: Shard) -> dict[str, Mean]:
        """Have a client validate; all clients count alike."""
        answer, _ = self._ask("evaluate", data, params, key=_NO_KEY)
        return {name: Mean(value, 1.0) for name, value in answer.metrics.items()}

    def close(self) -> None:
        """End the processes that run the clients."""
        for process in self._processes.values():
            process.close()

    def _ask(
        self, kind: Kind, data: Shard, params: dict[str, np.ndarray], *, key: bytes
    ) -> tuple[Answer, dict[str, np.ndarray]]:
        site = _shard(data).site
        return self._process_of(site).ask(Task(kind, site, self._round, key, size=0), params)


def _shard(data: Any) -> Shard:
    if isinstance(data, Shard):
        return data
    raise LearnerError(
        "learner-data",
        "Clients of a FLARE app read their data themselves; the plan gives them some.",
        "Remove set and split from [data] of plan.toml.",
    )
