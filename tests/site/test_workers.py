"""Whatever a run's code does, the site gets a result and goes on with a worker that works."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from site_cases import Case, function_package, make_case, make_workers

import hansa.site.workers
from hansa.clock import monotonic
from hansa.errors import SiteError
from hansa.hosting.process import Log
from hansa.hosting.sandbox import trouble
from hansa.limits import FAILURE_CHARS_MAX, WORKER_LOG_BYTES_MAX
from hansa.params import encode
from hansa.rounds.questions import packed
from hansa.site.failures import keep_failure
from hansa.site.policy import Policy
from hansa.site.settings import DataSource, SiteLimits
from hansa.site.worker_messages import Ask, Done, Ready, Setup
from hansa.site.worker_process import Answer, Files
from hansa.site.workers import WorkerResult, Workers
from hansa.store.addresses import digest_of_file
from hansa.store.files import load_params

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of POSIX")

MODES = ["required", "none"] if trouble() is None else ["none"]
Make = Callable[..., tuple[Workers, Case]]


@pytest.fixture(params=MODES[:1])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    made: list[Workers] = []

    def opened(first: str, *, top: str = "", task_s: float = 20.0) -> tuple[Workers, Case]:
        case = make_case(function_package(tmp_path / "code", first, top=top))
        limits = SiteLimits(task_s=task_s)
        workers = make_workers(tmp_path / "site", {}, sandbox=request.param, limits=limits)
        made.append(workers)
        return workers, case

    yield opened
    for workers in made:
        workers.close_all()


def train(workers: Workers, case: Case, number: int) -> WorkerResult:
    update = case.package.parent / f"update-{number}"
    result = workers.train(case.offer, case.package, number, case.message, update)
    assert update.exists() == (result.state == "done")
    assert not list(update.parent.glob(f"{update.name}.*"))  # others may be at work beside it
    return result


def delta(case: Case, number: int) -> list[float]:
    params = load_params(case.package.parent / f"update-{number}")
    return [float(v) for v in np.array(params["delta"])]


@pytest.mark.parametrize("make", MODES, indirect=True)
def test_a_worker_stays_warm_and_answers_tasks_of_both_kinds(make: Make) -> None:
    workers, case = make("pass")
    assert workers.examples(case.offer, case.package) == 3
    pid = workers._slots["run-1"].worker.pid
    first = train(workers, case, 1)
    assert first.state == "done" and delta(case, 1) == [3.0, 3.0, 3.0]
    assert first.weight == 2.0 and first.tensors == (("delta", "F32", (3,)),)
    evaluated = workers.evaluate(case.offer, case.package, 1, case.message)
    assert evaluated.metrics == {"first": (4.0, 1.0)}
    assert workers._slots["run-1"].worker.pid == pid


def test_a_worker_takes_the_steps_it_is_asked_and_says_how_long_they_took(make: Make) -> None:
    slow = "threading.Event().wait(0.01 * (ctx.steps or 1)); params['w'] += ctx.steps or 0"
    workers, case = make(slow, top='workflow = "semi_synchronous"')
    steps, update = 12, case.package.parent / "update-1"
    done = workers.train(case.offer, case.package, 1, case.message, update, steps)
    plain = train(workers, case, 2)
    assert done.state == plain.state == "done"
    assert np.subtract(delta(case, 1), delta(case, 2)).tolist() == [12.0, 12.0, 12.0]
    for result, taken, least in ((done, 12, 0.12), (plain, 1, 0.0)):  # round 2 does not wait
        seconds, weight = result.metrics["step_seconds"]
        assert seconds > least and weight == taken
        assert result.metrics["epoch_steps"] == (1.0, 1.0)


def test_a_worker_keeps_its_time_to_itself_where_nobody_asks(make: Make) -> None:
    workers, case = make("pass")
    assert "step_seconds" not in train(workers, case, 1).metrics


TROUBLE = {
    "raises": ("raise ValueError('no such thing')", "client-failed", "ValueError: no such thing"),
    "exits": ("sys.exit('enough')", "client-failed", "SystemExit"),
    "leaves": ("os._exit(7)", "client-lost", "status 7"),
    "crashes": ("os.kill(os.getpid(), signal.SIGSEGV)", "client-lost", "signal 11"),
    "closes files": ("os.closerange(0, 1000)", "client-lost", ""),
    "wrong shape": ("return {'w': np.zeros(4, np.float32)}", "learner-params", "w"),
    "wrong name": ("return {'v': np.zeros(3, np.float32)}", "learner-params", "v"),
    "lies": (
        "for fd in range(3, 20):\n    try: os.write(fd, b'x' * 100)\n    except OSError: pass",
        "client-lost",
        "",
    ),
    "leaves a child": ("if os.fork(): os._exit(0)\nsignal.pause()", "client-lost", ""),
    "names too much": (
        "return {'w': np.zeros(3, np.float32)}, {'m' * 201: 1.0}",
        "learner-metrics",
        "201",
    ),
    "counts too much": (
        "return {'w': np.zeros(3, np.float32)}, {str(i): 1.0 for i in range(1001)}",
        "learner-metrics",
        "1001",
    ),
    "weighs nothing": ("ctx.weight = float('nan')", "", "weigh"),
}  # fmt: skip


ALSO_WITHOUT = ("leaves", "closes files", "lies", "leaves a child")
CASES = [(MODES[0], how) for how in TROUBLE] + [
    (mode, h) for mode in MODES[1:] for h in ALSO_WITHOUT
]


@pytest.mark.parametrize(("make", "how"), CASES, indirect=["make"])
def test_trouble_in_one_task_is_told_and_the_next_task_works(make: Make, how: str) -> None:
    first, code, words = TROUBLE[how]
    top = 'weighting = "user"' if "ctx.weight" in first else ""
    workers, case = make(first, top=top)
    before = monotonic()
    result = train(workers, case, 1)
    assert monotonic() - before < 10  # nobody waited for what will never come
    assert result.state == "failed" and words in result.reason
    assert not code or result.code == code
    assert str(case.package.parent) not in result.reason and "Traceback" not in result.reason
    if code == "client-failed":
        assert result.trace_file is not None and "model.py" in result.trace_file.read_text()
    if not top:
        assert train(workers, case, 2).state == "done" and delta(case, 2) == [3.0] * 3


@pytest.mark.parametrize("make", MODES[:1], indirect=True)
def test_a_worker_that_says_too_much_is_ended_before_it_is_decoded(make: Make) -> None:
    """Sixteen megabytes of metrics took half a gigabyte of the agent's memory."""
    first = "return {'w': np.zeros(3, np.float32)}, {'m' * 190 + str(i): 1.0 for i in range(9000)}"
    workers, case = make(first)
    result = train(workers, case, 1)
    assert (result.state, result.code) == ("failed", "client-lost")


def test_tracebacks_are_cut_and_the_oldest_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hansa.site.failures.FAILURES_KEPT", 3)
    for number in range(5):
        file = keep_failure(tmp_path, f"r-1-{number}-train", f"{number}" * 70_000)
        os.utime(file, ns=(number, number))
    keep_failure(tmp_path, "last", "end")
    names = sorted(path.name for path in (tmp_path / "failures").iterdir())
    assert names == ["last.txt", "r-1-3-train.txt", "r-1-4-train.txt"]
    assert (tmp_path / "failures" / names[1]).stat().st_size == FAILURE_CHARS_MAX


@pytest.mark.skipif(sys.platform != "linux", reason="where the system tells of processes")
@pytest.mark.parametrize("make", MODES, indirect=True)
def test_what_the_code_has_put_into_another_group_ends_with_it(make: Make) -> None:
    word = f"6{os.getpid():07d}"
    start = f"subprocess.Popen(['sleep', '{word}'], process_group=0)"
    workers, case = make(f"import subprocess; {start}; os._exit(7)")
    assert train(workers, case, 1).code == "client-lost"
    wanted = f"sleep\0{word}\0".encode()
    assert wait_for(lambda: wanted not in command_lines())


def command_lines() -> list[bytes]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes())
    return found


def test_what_the_code_prints_goes_to_a_log_and_not_into_the_exchange(make: Make) -> None:
    workers, case = make("print('x' * 5_000_000)\nos.write(1, b'y' * 1000)\nsys.stderr.write('z')")
    assert train(workers, case, 1).state == "done"
    log = workers._folder / "workers.log"
    assert wait_for(lambda: log.exists() and log.stat().st_size >= 5_001_000)


TWICE = """
import msgspec
from hansa.params import Params, encode
from hansa.site.worker_messages import Done
said = b""
for value in (0, 42):
    body = b"".join(encode(Params.of({"delta": np.full(650, value, np.float32)})))
    frame = msgspec.msgpack.encode(Done({}, 1.0, 1, len(body)))
    said += len(frame).to_bytes(4, "little") + frame + body
for fd in range(3, 20):
    try: os.write(fd, said)
    except OSError: pass
"""


@pytest.mark.parametrize("make", MODES, indirect=True)
def test_an_answer_that_comes_twice_changes_nothing_of_the_first(make: Make) -> None:
    """The ledger names the digest of what leaves, so the file must stay what was digested."""
    workers, case = make(TWICE)
    result = train(workers, case, 1)
    train(workers, case, 2)  # the second answer has been read by now
    update = case.package.parent / "update-1"
    assert result.state == "done" and result.digest == digest_of_file(update)[0]
    assert not list(update.parent.glob("*.part"))
    assert train(workers, case, 3).state == "done"


def test_nan_passes_through_for_the_server_to_refuse(make: Make) -> None:
    workers, case = make("return {'w': params['w'] * np.float32('nan')}")
    assert train(workers, case, 1).state == "done"
    assert all(np.isnan(delta(case, 1)))


@pytest.mark.parametrize("make", MODES, indirect=True)
def test_a_task_that_does_not_end_is_ended(make: Make) -> None:
    workers, case = make("while True: pass")
    workers.examples(case.offer, case.package)  # its start may take longer than the limit
    patient = workers.settings
    workers.settings = msgspec.structs.replace(patient, limits=SiteLimits(task_s=1.0))
    result = train(workers, case, 1)
    assert result.code == "site-limit" and "1 s" in result.reason
    workers.settings = patient
    assert train(workers, case, 2).state == "done"


def test_an_update_far_larger_than_the_model_is_not_taken(make: Make) -> None:
    workers, case = make("return {'w': params['w'], 'pad': np.zeros(3_000_000)}")
    assert train(workers, case, 1).state == "failed"


def wait_for(what: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = monotonic() + seconds
    while not what() and monotonic() < deadline:
        threading.Event().wait(0.02)
    return what()


@pytest.mark.parametrize("make", MODES, indirect=True)
def test_a_cancelled_task_ends_at_once_and_only_that(make: Make) -> None:
    workers, case = make("threading.Event().wait()")
    results: list[WorkerResult] = []
    thread = threading.Thread(target=lambda: results.append(train(workers, case, 1)))
    workers.ready(case.offer, case.package)
    workers.cancel("run-1")  # there is no task yet
    workers.cancel("no-such-run")
    thread.start()
    assert wait_for(lambda: workers._slots["run-1"].busy)
    workers.cancel("run-1")
    thread.join(5)
    assert [r.code for r in results] == ["site-cancelled"]
    assert train(workers, case, 2).state == "done"


def test_closing_a_run_ends_its_task_and_its_process(make: Make) -> None:
    workers, case = make("threading.Event().wait()")
    results: list[WorkerResult] = []
    thread = threading.Thread(target=lambda: results.append(train(workers, case, 1)))
    workers.ready(case.offer, case.package)
    worker = workers._slots["run-1"].worker
    thread.start()
    assert wait_for(lambda: workers._slots["run-1"].busy)
    workers.forget("run-1")
    thread.join(5)
    assert [r.state for r in results] == ["failed"] and not worker.alive
    assert not (workers._folder / "states" / "run-1").exists()


def test_runs_do_not_wait_for_each_other(make: Make) -> None:
    workers, case = make("threading.Event().wait()")
    other = msgspec.structs.replace(case.offer, run="run-2")
    thread = threading.Thread(target=lambda: train(workers, case, 1))
    thread.start()
    assert wait_for(lambda: "run-1" in workers._slots and workers._slots["run-1"].busy)
    update = case.package.parent / "other"
    assert workers.train(other, case.package, 2, case.message, update).state == "done"
    assert thread.is_alive()
    workers.cancel("run-1")
    thread.join(5)


def test_several_tasks_of_one_run_take_turns(make: Make) -> None:
    workers, case = make("pass")
    results: dict[int, WorkerResult] = {}

    def one(number: int) -> None:
        results[number] = train(workers, case, number)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(2, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [results[n].state for n in range(2, 8)] == ["done"] * 6


def test_other_code_than_the_identity_names_is_not_run(make: Make, tmp_path: Path) -> None:
    workers, case = make("pass")
    marker = tmp_path / "ran"
    other = msgspec.structs.replace(case.offer, identity="blake3:" + "1" * 64)
    result = workers.train(other, case.package, 1, case.message, marker)
    assert (result.state, result.code) == ("failed", "run-changed")
    with pytest.raises(SiteError) as raised:
        workers.examples(other, case.package)
    assert raised.value.code == "run-changed"
    plan = msgspec.structs.replace(case.offer, plan=case.offer.plan | {"seed": 4})
    assert workers.ready(plan, case.package).code == "run-changed"


def test_a_plan_that_makes_no_sense_is_a_result_too(make: Make) -> None:
    workers, case = make("pass")
    for plan in ({"data": 3}, {"rounds": "many"}, {"data": {"set": 5}}, {"data": {"set": "\0"}}):
        offer = msgspec.structs.replace(case.offer, plan=plan)
        assert workers.ready(offer, case.package).state == "failed"


def test_a_message_that_is_damaged_is_a_result_too(make: Make, tmp_path: Path) -> None:
    workers, case = make("pass")
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"x" * 100)
    result = workers.train(case.offer, case.package, 1, damaged, tmp_path / "up")
    assert result.state == "failed" and result.code.startswith("params-")
    assert workers.train(case.offer, case.package, 1, tmp_path / "no", tmp_path / "up").code


def test_a_question_that_is_none_is_a_result_too(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code and server together must not end the agent with an error that nobody expects."""

    class Liar:
        alive = True

        def ask(self, request: Any, *, seconds: float, files: Files | None = None) -> Answer:
            if isinstance(request, Setup):
                return Answer(Ready(3))
            assert files is not None
            for file in (files.update, files.state):
                file.write_bytes(b"".join(encode(packed(None, {}))))
            return Answer(Done({}, update=1, state=1))

        def close(self) -> None:
            pass

    workers, case = make("pass")
    monkeypatch.setattr(workers, "start_worker", lambda *_: Liar())
    ask, up = Ask(1, str(case.message), "rows", 0), tmp_path / "up"
    result = workers.answer(case.offer, case.package, ask, answer=up, limit=10**6)
    assert (result.state, result.code) == ("failed", "task-answer")
    assert result.reason.startswith("What the server asked cannot be read: its facts are missing")
    assert not up.exists()


def test_without_a_sandbox_a_site_that_requires_one_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hansa.site.workers, "trouble", lambda: "bwrap: no /tmp/x/secret")
    case = make_case(function_package(tmp_path / "code", "pass"))
    for wish, state in (("required", "failed"), ("preferred", "done")):
        workers = make_workers(tmp_path / wish, {}, sandbox=wish)
        result = workers.ready(case.offer, case.package)
        assert result.state == state
        assert result.code == ("site-no-sandbox" if state == "failed" else "")
        assert ("bwrap: no ..." in result.reason) == (state == "failed")
        assert "secret" not in result.reason, "a path of the machine leaves it"
        workers.close_all()
    workers = make_workers(tmp_path / "no-policy", {})
    workers.settings = msgspec.structs.replace(workers.settings, policy=None)
    assert workers.ready(case.offer, case.package).code == "site-no-sandbox"
    workers.close_all()


def test_only_allowed_data_that_is_there_is_shown(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("a,label\n1,0\n2,1\n3,1\n")
    plan = '[data]\nset = "{}"\ntarget = "label"\nsplit = {{ scheme = "iid", clients = 1 }}\n'
    data = {
        "mine": DataSource(path=str(tmp_path / "table.csv")),
        "gone": DataSource(path=str(tmp_path / "secret" / "gone.csv")),
        "damaged": DataSource(path=str(tmp_path / "damaged.npz")),
    }
    (tmp_path / "damaged.npz").write_bytes(b"PK damaged")
    package = tmp_path / "code"
    package.mkdir()
    (package / "plan.toml").write_text(plan.format(tmp_path / "table.csv"))
    case = make_case(package)
    for mode in MODES:
        workers = make_workers(tmp_path / mode, data, sandbox=mode)
        for name, code in (
            ("mine", "run-changed"), ("gone", "site-data"), ("other", "site-data"),
            ("damaged", "run-changed"),
        ):  # fmt: skip
            changed = case.offer.plan | {"data": case.offer.plan["data"] | {"set": name}}
            offer = msgspec.structs.replace(case.offer, plan=changed)
            result = workers.ready(offer, package)
            assert (result.state, result.code) == ("failed", code)
            assert str(tmp_path) not in result.reason
        workers.close_all()


def test_a_policy_that_allows_other_data_only_refuses(tmp_path: Path) -> None:
    data = {name: DataSource(path=str(tmp_path)) for name in ("mine", "yours")}
    case = make_case(function_package(tmp_path / "code", "pass"))
    workers = make_workers(tmp_path / "site", data, sandbox="none")
    policy = Policy(sandbox="none", data=("yours",))
    workers.settings = msgspec.structs.replace(workers.settings, policy=policy)
    plan = case.offer.plan | {"data": case.offer.plan["data"] | {"set": "mine"}}
    assert workers.ready(msgspec.structs.replace(case.offer, plan=plan), case.package).code == (
        "site-data"
    )
    assert list(workers._data(case.offer)) == ["yours"]
    workers.close_all()


def test_all_declared_data_are_private_to_the_sandbox_and_not_only_the_plans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(hansa.site.workers, "trouble", lambda: None)
    monkeypatch.setattr(
        hansa.site.workers, "sandbox_command", lambda argv, **given: seen.update(given) or ["true"]
    )
    data = {name: DataSource(path=str(tmp_path / name)) for name in ("mine", "yours", "gone")}
    for name in ("mine", "yours"):
        (tmp_path / name).mkdir()
    case = make_case(function_package(tmp_path / "code", "pass"))
    workers = make_workers(tmp_path / "site", data)
    policy = Policy(data=("yours",))
    workers.settings = msgspec.structs.replace(workers.settings, policy=policy)
    workers._prepare(case.offer, case.package)
    assert seen["private"] == [tmp_path / "mine", tmp_path / "yours"]
    assert seen["hidden"] == [tmp_path / "site"] and "/data/yours" in seen["readable"]
    workers.close_all()


def test_the_log_begins_anew_when_it_is_long(tmp_path: Path) -> None:
    log = Log(tmp_path / "workers.log")
    for _ in range(25):
        log.write(b"x" * 2**20)
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 2 and max(sizes) <= WORKER_LOG_BYTES_MAX + 2**20


AGENT = """
import sys, threading
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from site_cases import function_package, make_case, make_workers
here = Path(sys.argv[2])
case = make_case(function_package(here / "code", sys.argv[4]))
workers = make_workers(here / "site", {}, sandbox=sys.argv[3])
workers.ready(case.offer, case.package)
print(workers._slots["run-1"].worker.pid, flush=True)
workers.train(case.offer, case.package, 1, case.message, here / "update")
"""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("first", ["while True: pass", "threading.Event().wait()"])
def test_no_worker_outlives_a_site_that_is_killed(tmp_path: Path, mode: str, first: str) -> None:
    words = [sys.executable, "-c", textwrap.dedent(AGENT), str(Path(__file__).parent)]
    agent = subprocess.Popen([*words, str(tmp_path), mode, first], stdout=subprocess.PIPE)
    assert agent.stdout is not None
    pid = int(agent.stdout.readline())
    threading.Event().wait(0.3)  # in the middle of its task
    agent.send_signal(signal.SIGKILL)
    agent.wait()
    agent.stdout.close()

    def gone() -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        # Nobody may be there to wait for it.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"

    assert wait_for(gone)
