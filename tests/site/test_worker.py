"""The worker process by itself, spoken to as a site does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from blake3 import blake3
from site_cases import Case, function_package, make_case

from hansa.hosting.confined import Limits
from hansa.pipes import Closed, receive, send
from hansa.site.worker import _finite
from hansa.site.worker_messages import (
    Declared,
    Done,
    Evaluate,
    Failed,
    Ready,
    Reply,
    Setup,
    Train,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")

FIRST = """
import resource
kinds = (resource.RLIMIT_DATA, resource.RLIMIT_CORE, resource.RLIMIT_CPU)
raise ValueError(repr([resource.getrlimit(kind) for kind in kinds]))
"""


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "hansa.site.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        yield process
        process.kill()


def setup_of(case: Case, **changes: Any) -> Setup:
    facts: dict[str, Any] = {
        "limits": Limits(1024, 100, None),
        "package": str(case.package),
        "plan": case.offer.plan,
        "identity": case.offer.identity,
        "name": "client-0",
        "data": {"rows": Declared("/nowhere")},
        "states": str(case.package.parent / "states"),
        "tensors": tuple((n, d, tuple(s)) for n, d, s in case.offer.tensors),
        "buffers": (),
    }
    return Setup(**(facts | changes))


def ask(worker: subprocess.Popen[bytes], request: Any) -> Any:
    send(worker.stdin, request)  # type: ignore[arg-type]
    return receive(worker.stdout, Reply)  # type: ignore[arg-type]


def test_a_worker_sets_up_trains_evaluates_and_ends_with_its_input(
    tmp_path: Path, worker: subprocess.Popen[bytes]
) -> None:
    case = make_case(function_package(tmp_path / "code", "pass"))
    assert ask(worker, setup_of(case)) == Ready(3)
    done = ask(worker, Train(1, str(case.message)))
    assert isinstance(done, Done) and (done.weight, done.examples, done.state) == (2.0, 2, 0)
    body = worker.stdout.read(done.update)  # type: ignore[union-attr]
    assert len(blake3(body).digest()) == 32 and body[8:9] == b"{"
    assert ask(worker, Evaluate(1, str(case.message))).metrics == {"first": (4.0, 1.0)}
    worker.stdin.close()  # type: ignore[union-attr]
    assert worker.wait(5) == 0


def test_limits_are_set_before_any_code_runs(
    tmp_path: Path, worker: subprocess.Popen[bytes]
) -> None:
    case = make_case(function_package(tmp_path / "code", FIRST))
    ask(worker, setup_of(case))
    failed = ask(worker, Train(1, str(case.message)))
    memory = 1024 * 2**20
    assert failed.message == f"ValueError: {[(memory, memory), (0, 0), (100, 100)]}"
    assert "model.py" in failed.trace


def test_code_that_is_not_what_was_approved_is_refused(
    tmp_path: Path, worker: subprocess.Popen[bytes]
) -> None:
    case = make_case(function_package(tmp_path / "code", "pass"))
    answer = ask(worker, setup_of(case, identity="blake3:" + "0" * 64))
    assert isinstance(answer, Failed) and answer.code == "run-changed"


def test_a_frame_that_is_none_ends_the_worker(worker: subprocess.Popen[bytes]) -> None:
    worker.stdin.write(b"\xff" * 100)  # type: ignore[union-attr]
    worker.stdin.flush()  # type: ignore[union-attr]
    with pytest.raises(Closed):
        receive(worker.stdout, Reply)  # type: ignore[arg-type]
    assert worker.wait(5) == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_an_update_that_the_server_will_refuse_is_known_in_every_precision(dtype: Any) -> None:
    """It leaves no state behind; in bfloat16, which NumPy does not count among floats, it did."""
    assert _finite(np.array([1.5, -2.0]).astype(dtype))
    assert not _finite(np.array([1.5, -np.inf]).astype(dtype))
    assert not _finite(np.array([np.nan]).astype(dtype))
    assert _finite(np.array([-3, 7]))
