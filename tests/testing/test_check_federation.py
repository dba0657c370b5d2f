"""The simulated handle keeps the laws of handles, and the check of that notices broken ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handles import simulated

from hansa.testing import LawBroken, check_federation
from hansa.testing.case import Case, Interruption
from hansa.workflows import Federation, GlobalState


def test_the_simulated_handle_keeps_every_law(tmp_path: Path) -> None:
    check_federation(simulated, tmp_path)


class Changed:
    """The simulated handle with one of its methods changed."""

    def __init__(self, real: Federation, name: str, change: Callable[..., Any]) -> None:
        self._real, self._name, self._change = real, name, change

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._real, name)
        if name != self._name:
            return method
        return lambda *args, **kwargs: self._change(method, *args, **kwargs)


def resuming_half_the_state(resume: Any) -> Any:
    commit = resume()
    vectors = {**commit.state.algorithm, "v": 0 * commit.state.algorithm.x}
    algorithm = type(commit.state.algorithm)(vectors)
    return commit._replace(state=GlobalState(algorithm, commit.state.buffers))


async def training(change: Callable[[Any], Any], train: Any, *args: Any, **kwargs: Any) -> Any:
    return change(await train(*args, **kwargs))


def with_vector(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Any], Any]:
    def changed(trained: Any) -> Any:
        if trained.aggregate is None:
            return trained
        vectors = trained.aggregate.vectors
        aggregate = trained.aggregate._replace(vectors={**vectors, name: change(vectors[name])})
        return trained._replace(aggregate=aggregate)

    return changed


def without_problems(trained: Any) -> Any:
    return trained._replace(problems=[])


def trains(change: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda train, *args, **kwargs: training(change, train, *args, **kwargs)


def asks_everybody(train: Any, number: int, state: Any, cohort: Sequence[str], **terms: Any) -> Any:
    return train(number, state, [f"client-{i}" for i in range(5)], **terms)


def forgets_the_goal(train: Any, *args: Any, terms: Any, **steps: Any) -> Any:
    return train(*args, terms=terms._replace(goal=None), **steps)


async def forgetting_to_commit(commit: Any, *args: Any) -> None:
    return None


async def roster_of_three(roster: Any, number: int) -> list[str]:
    return list(await roster(number))[:3]


async def with_a_client_without_data(evaluate: Any, number: int, state: Any, clients: Any) -> Any:
    evaluated = await evaluate(number, state, clients)
    more = {"client-3": next(iter(evaluated.metrics.values()))} if clients else {}
    return evaluated._replace(metrics={**evaluated.metrics, **more})


def gives_all_the_same_steps(train: Any, *args: Any, steps: Any = None, **kwargs: Any) -> Any:
    return train(*args, **kwargs)


def recalls_the_last(recall: Any, number: int) -> GlobalState:
    return recall(2)


async def forgetting_the_memory(commit: Any, made: Any, problems: Any) -> None:
    await commit(made._replace(progress={**made.progress, "memory": {}}), problems)


def arriving(change: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    async def arrivals(real: Any, *args: Any, **kwargs: Any) -> Any:
        return change(await real(*args, **kwargs), kwargs["at_work"])

    return arrivals


def forgets_who_is_at_work(arrived: Any, at_work: Any) -> Any:
    return arrived._replace(at_work={})


def brings_them_back_to_work(arrived: Any, at_work: Any) -> Any:
    back = {u.client: at_work.get(u.client, next(iter(arrived.at_work.values()), None))
            for u in arrived.updates}  # fmt: skip
    return arrived._replace(at_work={**back, **arrived.at_work})


def gives_all_the_newest(arrivals: Any, number: int, *args: Any, at_work: Any, count: int) -> Any:
    newest = {client: work._replace(round=number) for client, work in at_work.items()}
    return arrivals(number, *args, at_work=newest, count=count)


def swallowing(train: Any, *args: Any, **kwargs: Any) -> Any:
    async def swallowed() -> Any:
        try:
            return await train(*args, **kwargs)
        except Interruption:
            return await train(args[0], args[1], args[2][:2], **kwargs)

    return swallowed()


BROKEN = {
    "resume": (resuming_half_the_state, "when it is read back"),
    "roster": (roster_of_three, "the roster is"),
    "evaluate": (with_a_client_without_data, "an evaluation measures"),
    "commit": (forgetting_to_commit, "when it is read back"),
    "train: another mean": (
        trains(with_vector("delta", lambda v: v * np.float32(1.00001))),
        "the aggregate of",
    ),
    "train: unrounded buffers": (
        trains(with_vector("buffers", lambda v: v + 0.25)),
        "the aggregate of",
    ),
    "train: everybody": (asks_everybody, "a round counts 5 clients"),
    "train: silent problems": (trains(without_problems), "are told as"),
    "train: no goal": (forgets_the_goal, "whose goal is 3 answers"),
    "train: steps": (gives_all_the_same_steps, "that were asked for the local steps"),
    "recall": (recalls_the_last, "is recalled as"),
    "commit: forgetful": (forgetting_the_memory, "a semi_synchronous run that was interrupted"),
    "train: immortal": (swallowing, "goes on although"),
    "arrivals: forgetful": (arriving(forgets_who_is_at_work), "are said to be at work"),
    "arrivals: twice": (arriving(brings_them_back_to_work), "are said to be at work"),
    "arrivals: newest": (gives_all_the_newest, "are said to be at work"),
    "stored": (lambda stored, state: state, "which are integers"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_handle_is_noticed(tmp_path: Path, name: str) -> None:
    change, sentence = BROKEN[name]

    @contextmanager
    def opened(case: Case, folder: Path) -> Iterator[Any]:
        with simulated(case, folder) as real:
            yield Changed(real, name.partition(":")[0], change)

    with pytest.raises(LawBroken, match=sentence):
        check_federation(opened, tmp_path)
