"""Commands at a site: in its sandbox, within its limits, and gone when they must be."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from site_cases import Case, make_case, make_workers

from hansa.hosting.sandbox import trouble
from hansa.params import Params
from hansa.site.settings import DataSource, SiteLimits
from hansa.site.workers import Workers
from hansa.store.files import load_params, save_params

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the programs are for a POSIX shell")

PLAN = """
name = "commands"
[learner]
kind = "command"
train = ["sh", "train.sh"]
validate = ["sh", "-c", 'echo "{\\"metrics\\": {\\"seen\\": 2}}" > "$HANSA_RESULT_OUT"']
init = ["cp", "seed.safetensors", "{model_out}"]
rows = "path"
[data]
set = "cohort"
"""
ADD = """
cp "$HANSA_MODEL_IN" "$HANSA_UPDATE_OUT"
echo "{\\"metrics\\": {\\"rows\\": $(wc -l < "$HANSA_DATA_PATH")}, \\"examples\\": 4}" \
> "$HANSA_RESULT_OUT"
"""


@contextlib.contextmanager
def site(
    folder: Path, train: str, *, sandbox: str = "required", seconds: float = 60.0
) -> Iterator[tuple[Workers, Case]]:
    import numpy as np

    package = folder / "code"
    package.mkdir()
    (package / "plan.toml").write_text(PLAN)
    (package / "train.sh").write_text(train)
    save_params(package / "seed.safetensors", Params.of({"w": np.array([1.0, -2.0], np.float32)}))
    rows = folder / "cohort"
    rows.mkdir()
    (rows / "patients.csv").write_text("a\nb\nc\n")
    case = make_case(package, f'data.set="{rows}"')
    case = case._replace(offer=_with_name(case))
    data = {"cohort": DataSource(path=str(rows / "patients.csv"))}
    workers = make_workers(
        folder / "site", data, sandbox=sandbox, limits=SiteLimits(task_s=seconds)
    )
    try:
        yield workers, case
    finally:
        workers.close_all()


def _with_name(case: Case):  # type: ignore[no-untyped-def]
    import msgspec

    from hansa.code import identity
    from hansa.plan import Plan

    plan = dict(case.offer.plan)
    plan["data"] = {**plan["data"], "set": "cohort"}
    named = identity(msgspec.convert(plan, Plan), case.project.code)
    return msgspec.structs.replace(case.offer, plan=plan, identity=named)


SANDBOXES = ["required", "none"] if trouble() is None else ["none"]


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_a_command_trains_and_measures_on_what_the_site_declares(
    tmp_path: Path, sandbox: str
) -> None:
    with site(tmp_path, ADD, sandbox=sandbox) as (workers, case):
        assert workers.examples(case.offer, case.package) == 0, "nobody has counted"
        update = tmp_path / "update"
        result = workers.train(case.offer, case.package, 1, case.message, update)
        assert result.state == "done", result
        assert result.metrics == {"rows": (12.0, 4.0)} and result.weight == 4
        assert load_params(update)["delta"].tolist() == [0.0, 0.0]
        measured = workers.evaluate(case.offer, case.package, 1, case.message)
        assert measured.metrics == {"seen": (2.0, 1.0)}


@pytest.mark.skipif(trouble() is not None, reason="no sandbox here")
def test_in_the_sandbox_a_command_reaches_neither_network_nor_the_machine(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("x")
    train = f"""
    cat {secret} 2>/dev/null && exit 5
    echo > /hansa/package/x 2>/dev/null && exit 6
    echo > "$HANSA_DATA_PATH" 2>/dev/null && exit 7
    python -c 'import socket; socket.create_connection(("192.0.2.1", 80), 2)' 2>/dev/null && exit 8
    {ADD}
    """
    with site(tmp_path, train) as (workers, case):
        result = workers.train(case.offer, case.package, 1, case.message, tmp_path / "update")
        assert result.state == "done", result


def test_why_a_command_failed_is_told_without_the_places_of_the_site(tmp_path: Path) -> None:
    train = 'echo "$HANSA_DATA_PATH holds no scan" >&2; exit 3'
    with site(tmp_path, train, sandbox="none") as (workers, case):
        result = workers.train(case.offer, case.package, 1, case.message, tmp_path / "update")
        assert result.code == "command-failed"
        assert "status 3" in result.reason and "cohort holds no scan" in result.reason
        assert str(tmp_path) not in result.reason
        assert result.trace_file is not None and "holds no scan" in result.trace_file.read_text()


@pytest.mark.parametrize("sandbox", SANDBOXES)
@pytest.mark.parametrize("how", ["cancelled", "the site's limit"])
def test_a_command_ends_with_its_worker(tmp_path: Path, sandbox: str, how: str) -> None:
    mark = f"6{os.getpid() % 10000:04d}{len(sandbox)}"
    seconds = 60.0 if how == "cancelled" else 3.0
    with site(tmp_path, f"sleep {mark}", sandbox=sandbox, seconds=seconds) as (workers, case):
        workers.ready(case.offer, case.package)
        if how == "cancelled":

            def cancel() -> None:
                _until(lambda: _running(mark))
                workers.cancel(case.offer.run)

            threading.Thread(target=cancel).start()
        result = workers.train(case.offer, case.package, 1, case.message, tmp_path / "update")
        assert result.code == ("site-cancelled" if how == "cancelled" else "site-limit")
        _until(lambda: not _running(mark))


def _running(mark: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes() == f"sleep\0{mark}\0".encode():
                return True
    return False


def _until(reached, seconds: float = 60.0) -> None:  # type: ignore[no-untyped-def]
    until = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < until
        time.sleep(0.02)
