"""A Flower project's client side as the functions of a `function` learner.

    flower = FlowerApp(__file__, client="quickstart.client_app:app", clients=10)
    data, init, train, evaluate, close = flower.functions()

`hansa import flower` writes these lines.  Nothing of the Flower project is imported here: that
happens in a process of its own, which `hansa.compat.process` starts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hansa.code import code_digest, read_code
from hansa.compat.flower.wire import Answer, Kind, Setup, Task
from hansa.compat.process import ClientProcess
from hansa.errors import LearnerError
from hansa.metrics import Mean
from hansa.seeds import Key

WORKER = "hansa.compat.flower.worker"
_SIMULATED = "client-"  # and a number: names of simulated clients
_KEY_BYTES = 16
_NO_KEY = Key.root(0).child("evaluate").material


@dataclass(frozen=True)
class Shard:
    """One client's data, which only its own code can read."""

    client: str
    node_config: Mapping[str, Any]

    def __len__(self) -> int:
        """Return 1: how many examples there are, the client says when it has trained."""
        return 1


class FlowerApp:
    """The client side of a Flower project.

    Args:
      file: `__file__` of the caller; the project lies in its folder.
      client: "module:object" of a ClientApp, a client_fn or a client class; or a script that
        calls `start_client`.
      model: "module:object" that makes the seed model: a function or class without arguments, or
        with one, the run_config.  By default the first client's get_parameters.
      clients: into how many parts the client's code divides the data; "num-partitions".
      nodes: node_config of clients by name; by default client-N has "partition-id" N.
      run_config: as in `[tool.flwr.app.config]`.
      train_config: what each message to train carries, beside the round.
      evaluate_config: what each message to evaluate carries, beside the round.
      from_plan: which keys of run_config and train_config have the plan's value: "epochs", "lr",
        "batch_size" or "steps" by key.
      weighted_by: metric of a message-based client that is its weight.
      arrays_in: name of the record that a message-based client finds the model in.
      config_in: name of the record that it finds its settings in.
      arguments: of a script; {partition} and {partitions} are replaced.
    """

    def __init__(
        self,
        file: str,
        *,
        client: str,
        model: str | None = None,
        clients: int = 10,
        nodes: Mapping[str, Mapping[str, Any]] | None = None,
        run_config: Mapping[str, Any] | None = None,
        train_config: Mapping[str, Any] | None = None,
        evaluate_config: Mapping[str, Any] | None = None,
        from_plan: Mapping[str, str] | None = None,
        weighted_by: str = "num-examples",
        arrays_in: str = "arrays",
        config_in: str = "config",
        arguments: str = "",
    ) -> None:
        folder = Path(file).resolve().parent
        digest = code_digest(read_code(folder))
        setup = Setup(
            str(folder), digest, client, arguments, model, weighted_by, arrays_in, config_in
        )
        self._process = ClientProcess(WORKER, setup, Answer, "Flower")
        self._clients, self._nodes = clients, dict(nodes or {})
        self._run_config = dict(run_config or {})
        self._configs = {"train": dict(train_config or {}), "evaluate": dict(evaluate_config or {})}
        self._from_plan = dict(from_plan or {})
        self._round = 0

    def functions(self) -> tuple[Callable[..., Any], ...]:
        """Return data, init, train, evaluate and close, which a function learner asks for."""
        return self.data, self.init, self.train, self.evaluate, self.close

    def data(self, client: str) -> dict[str, Shard]:
        """Return what stands for a client's data.

        Raises:
          LearnerError: it is not known which part of the data is this client's.
        """
        shard = Shard(client, self._node_config(client))
        return {"train": shard, "validation": shard}

    def init(self, rng: np.random.Generator, sample: Any) -> dict[str, np.ndarray]:
        """Return the seed model, from the named function or from the first client."""
        first = next(iter(self._nodes), f"{_SIMULATED}0")
        shard = sample if isinstance(sample, Shard) else Shard(first, self._node_config(first))
        _, arrays = self._ask("seed", shard, {}, key=rng.bytes(_KEY_BYTES))
        return arrays

    def train(
        self, params: dict[str, np.ndarray], data: Shard, ctx: Any
    ) -> tuple[dict[str, np.ndarray], dict[str, Mean]]:
        """Have a client train; its number of examples is its weight."""
        self._round = ctx.round
        told = {key: getattr(ctx, field) for key, field in self._from_plan.items()}
        answer, arrays = self._ask(
            "train", _shard(data), params, told=told, key=ctx.rng.bytes(_KEY_BYTES)
        )
        ctx.weight = answer.weight
        return arrays, _means(answer)

    def evaluate(self, params: dict[str, np.ndarray], data: Shard) -> dict[str, Mean]:
        """Have a client evaluate; each metric counts for the examples that the client says."""
        answer, _ = self._ask("evaluate", _shard(data), params, key=_NO_KEY)
        return _means(answer)

    def close(self) -> None:
        """End the process that runs the clients."""
        self._process.close()

    def _ask(
        self,
        kind: Kind,
        shard: Shard,
        params: dict[str, np.ndarray],
        *,
        told: Mapping[str, Any] | None = None,
        key: bytes,
    ) -> tuple[Answer, dict[str, np.ndarray]]:
        run_config, config = dict(self._run_config), dict(self._configs.get(kind, {}))
        for values in (run_config, config):
            values |= {k: v for k, v in (told or {}).items() if k in values and v is not None}
        node = dict(shard.node_config)
        number = int(node.get("partition-id", 0)) + 1
        task = Task(kind, shard.client, number, node, run_config, config, self._round, key, size=0)
        answer, arrays = self._process.ask(task, params)
        if answer.keeps and _in_simulation_worker():
            raise LearnerError(
                "learner-capability",
                f"{shard.client} keeps something between rounds in Context.state, and the "
                "processes engine moves clients from one worker to another.",
                "Run it with --engine inline.",
            )
        return answer, arrays

    def _node_config(self, client: str) -> dict[str, Any]:
        counted = {"num-partitions": self._clients}
        if client in self._nodes:
            return counted | dict(self._nodes[client])
        number = client.removeprefix(_SIMULATED)
        if client.startswith(_SIMULATED) and number.isdecimal() and int(number) < self._clients:
            return {"partition-id": int(number)} | counted
        raise LearnerError(
            "learner-data",
            f"The project divides its data into {self._clients} parts, and it is not known which "
            f"one is {client}'s.",
            f'Say in FlowerApp(...): clients=N, or nodes={{"{client}": {{"partition-id": 0}}}}.',
        )


def _shard(data: Any) -> Shard:
    if isinstance(data, Shard):
        return data
    raise LearnerError(
        "learner-data",
        "Flower clients read their data themselves; the plan gives them some.",
        "Remove set and split from [data] of plan.toml.",
    )


def _means(answer: Answer) -> dict[str, Mean]:
    return {name: Mean(*pair) for name, pair in answer.metrics.items()}


def _in_simulation_worker() -> bool:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return getattr(spec, "name", "") == "hansa.simulation.worker"
