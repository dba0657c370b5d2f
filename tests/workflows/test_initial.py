"""The model begins at the clients: their mean, or that of one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hansa
from hansa.errors import RunError

NUMBERS = {"client-0": (-3.0, 2), "client-1": (8.5, 5), "client-2": (0.25, 1)}


def run(folder: Path, initial: str, own: bool = True, **plan: Any) -> Any:
    def init(rng: np.random.Generator, sample: Any) -> dict[str, Any]:
        return {"w": np.array([sample[0][0, 0], 100.0])}

    def weights(params: Any, data: Any, ctx: Any) -> Any:
        value, rows = NUMBERS[ctx.client]
        return {"w": np.array([value, -value])}, {"weight": rows}

    def data(client: str) -> Any:
        value, rows = NUMBERS[client]
        return {"train": (np.full((rows, 1), value), np.zeros(rows))}

    learner = hansa.function_learner(
        init,
        lambda params, data, ctx: {"w": params["w"] + 1},
        tasks={"initial_weights": weights} if own else {},
    )
    return hansa.run(
        learner=learner, data=hansa.clients(data, 3), runs=folder, initial=initial, **plan
    )


def expected(initial: str) -> float:
    told = [NUMBERS[initial]] if initial in NUMBERS else list(NUMBERS.values())
    return sum(v * n for v, n in told) / sum(n for _, n in told)


@pytest.mark.parametrize("initial", ["mean", "client-1"])
def test_the_first_round_begins_from_the_clients_weights(tmp_path: Path, initial: str) -> None:
    result = run(tmp_path, initial, rounds=2)
    w = expected(initial) + 2
    np.testing.assert_allclose(result.params["w"], [w, 4 - w], rtol=1e-12)


def test_without_a_function_of_its_own_the_learner_makes_the_weights(tmp_path: Path) -> None:
    result = run(tmp_path, "mean", own=False, rounds=1)
    np.testing.assert_allclose(result.params["w"], [expected("mean") + 1, 101.0], rtol=1e-12)


def test_the_server_s_model_is_the_default(tmp_path: Path) -> None:
    result = run(tmp_path, "server", rounds=1)
    assert result.params["w"].tolist() == [-2.0, 101.0]


def test_a_client_that_is_not_there_gives_no_model_and_the_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"weights of nobody.* of nobody none is there") as error:
        run(tmp_path, "nobody", rounds=1)
    assert error.value.code == "run-too-few"
