"""How many clients a round asks, as a Flower server class says it.

Flower asks max(int(share * clients), least) of them, and waits until so many are there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from hansa.compat.flower.reading import PROJECT_FILE
from hansa.compat.flower.server_code import Strategy
from hansa.compat.flower.strategies import refused
from hansa.compat.laying_out import line
from hansa.workflows.sampling import cohort_size

_TRAIN = ("fraction_train", "fraction_fit")
_TRAIN_LEAST = ("min_train_nodes", "min_fit_clients")
_THERE = ("min_available_nodes", "min_available_clients")
_EVALUATE = ("fraction_evaluate", "fraction_eval")
_EVALUATE_LEAST = ("min_evaluate_nodes", "min_evaluate_clients", "min_eval_clients")
_ALL_ANSWER, _RATE = "accept_failures", "min_completion_rate_fit"
_LEAST = 2  # Flower's own default

ARGUMENTS = (
    *(*_TRAIN, *_TRAIN_LEAST, *_THERE, *_EVALUATE, *_EVALUATE_LEAST),
    *(_ALL_ANSWER, _RATE),
)
"""Arguments of a server class that are read here."""


class _Said(NamedTuple):
    """A value, and where it was taken from."""

    value: float
    where: str


class Asking:
    """What a server class, or else the project's file, says of the clients that a round asks.

    Args:
      strategy: the server class, where one was found.
      config: `run_config`, which may name what the server class is not given.
      clients: how many there are.
    """

    def __init__(self, strategy: Strategy | None, config: Mapping[str, Any], clients: int) -> None:
        self._strategy, self._config, self._clients = strategy, config, clients
        self._arguments = strategy.arguments if strategy else {}

    def lines(self) -> Iterator[str]:
        """Yield the lines of plan.toml.

        Raises:
          PlanError: import-refused, no client would train.
        """
        cohort = [*self._size(), *self._minimum()]
        if cohort:
            yield from ["", "[cohort]", *cohort]
        share, least = self._said(_EVALUATE), self._said(_EVALUATE_LEAST)
        count = self._count(share, least) if share is None or share.value else 0
        if count < self._clients and (said := share or least):
            yield from ["", "[evaluate]", line("clients", count, said.where)]

    def _size(self) -> Iterator[str]:
        share, least = self._said(_TRAIN), self._said(_TRAIN_LEAST)
        if share is None or share.value == 1:
            return
        if not share.value and not (self._strategy and self._strategy.older):
            raise refused(f"{share.where} is 0: no client would train.")
        count = self._count(share, least)
        if share.value and cohort_size(self._clients, fraction=share.value) == count:
            yield line("fraction", share.value, share.where)
            return
        reason = f"{share.value:g} of {self._clients} clients"
        reason += f", and {least.where}" if least else f", and Flower asks {_LEAST} at least"
        yield line("count", count, reason)

    def _minimum(self) -> Iterator[str]:
        share, least = self._said(_TRAIN), self._said(_TRAIN_LEAST)
        count = self._count(share, least)
        fewer = "with fewer updates a round fails"
        if self._strategy is not None and self._strategy.name == "FaultTolerantFedAvg":
            rate = self._arguments.get(_RATE, 0.5)
            yield line("minimum", max(1, math.ceil(rate * count)), f"{_RATE}; {fewer}")
        elif self._arguments.get(_ALL_ANSWER) is False:
            yield line("minimum", count, f"{_ALL_ANSWER}=False; {fewer}")
        elif told := [said for said in (least, self._said(_THERE)) if said is not None]:
            most = max(told, key=lambda said: said.value)
            yield line("minimum", max(1, min(count, int(most.value))), f"{most.where}; {fewer}")

    def _count(self, share: _Said | None, least: _Said | None) -> int:
        asked = int(self._clients * (1.0 if share is None else share.value))
        return max(asked, _LEAST if least is None else int(least.value))

    def _said(self, names: tuple[str, ...]) -> _Said | None:
        for name in names:
            if name in self._arguments:
                return _number(name, self._arguments[name], "the server app")
        for name in (*names, *(name.replace("_", "-") for name in names)):
            if name in self._config:
                return _number(name, self._config[name], PROJECT_FILE)
        return None


def _number(name: str, value: Any, place: str) -> _Said | None:
    most = 1.0 if name.startswith("fraction") else math.inf
    fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most
    if not fits:
        raise refused(f"{name} in {place} is {value!r:.40}, which is no number of clients.")
    return _Said(value, f"{name} in {place}")
