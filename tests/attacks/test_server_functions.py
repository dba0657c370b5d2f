"""A submitter's server functions try to harm the operator's machine, its secrets, or its run.

Each attack raises `blocked` or `ESCAPED`; the same is done without a sandbox where that does no
harm, so that it is known that it would succeed.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import hansa.hosting.process
from hansa.errors import RunError
from hansa.functions import Place
from hansa.functions.messages import Call
from hansa.functions.place import Functions
from hansa.hosting.confined import Limits
from hansa.hosting.process import Log
from hansa.limits import FUNCTION_PROCESSES_MAX, WORKER_LOG_BYTES_MAX
from hansa.plan import read_plan

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")

PREAMBLE = """
import os, socket, sys
import numpy as np
def tried(*attempts):
    for attempt in attempts:
        try:
            found = attempt()
        except Exception:
            continue
        if found:
            raise RuntimeError("ESCAPED: " + repr(found)[:80])
    raise RuntimeError("blocked")
"""

ATTACKS = {
    "opens a socket": """
def select(clients):
    tried(lambda: socket.create_connection(("127.0.0.1", {port}), 2),
          lambda: socket.create_connection(("{address}", {port}), 2))
""",
    "reads the database": """
def select(clients):
    tried(*[lambda p=p: open(p, "rb").read(9) for p in (
        "{server}/hansa.db", "{server}/server.toml", "/proc/1/root{server}/hansa.db",
        "/proc/1/cwd/hansa.db", "/hansa/package/../../hansa.db")], lambda: os.listdir("{server}"))
""",
    "writes a file of the machine": """
def select(clients):
    tried(lambda: open("{server}/hansa.db", "ab").write(b"x"),
          lambda: open("/hansa/package/server.py", "ab").write(b"x"))
""",
    "reads the operator's environment": """
def select(clients):
    tried(lambda: os.environ.get("HANSA_SECRET"),
          lambda: b"HANSA_SECRET" in open("/proc/1/environ", "rb").read())
""",
}  # fmt: skip
HARMLESS = ("opens a socket", "reads the database", "reads the operator's environment")


@pytest.fixture
def server(tmp_path: Path) -> Path:
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "hansa.db").write_bytes(b"the journal")
    (folder / "server.toml").write_bytes(b"port = 1")
    return folder


def called(code: str, server: Path, *, confined: bool = True, seconds: float = 20.0) -> None:
    plan = read_plan({"server_functions": {"file": "server.py", "time_s": seconds}}).plan
    limits = Limits(1024, None, FUNCTION_PROCESSES_MAX) if confined else Limits()
    files = {"server.py": (PREAMBLE + code).encode()}
    log = Log(server / "functions.log")
    functions = Functions(plan, Place(files, confined, (server,), limits, log), 16)
    try:
        functions.call(Call("select", 1, ["north"]), {"memory/0": np.ones(3)})
    finally:
        functions.close()


def failure(code: str, server: Path, **how: float) -> RunError:
    with pytest.raises(RunError) as caught:
        called(code, server, **how)  # type: ignore[arg-type]
    return caught.value


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield int(listening.getsockname()[1])


@pytest.mark.parametrize("name", ATTACKS)
def test_the_sandbox_holds(
    name: str, server: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HANSA_SECRET", "the operator's")
    code = ATTACKS[name]
    for word, value in (("server", server), ("port", port), ("address", "127.0.1.1")):
        code = code.replace(f"{{{word}}}", str(value))
    assert "blocked" in failure(code, server).happened
    assert (server / "hansa.db").read_bytes() == b"the journal"
    if name in HARMLESS:
        assert "ESCAPED" in failure(code, server, confined=False).happened


def test_one_that_loops_for_ever_is_ended(server: Path) -> None:
    error = failure("def select(clients):\n    while True: pass", server, seconds=3.0)
    assert error.code == "function-time"


def test_one_that_loops_while_it_is_imported_is_ended(server: Path) -> None:
    error = failure("while True: pass\ndef select(clients): pass", server, seconds=3.0)
    assert error.code == "function-time"


def test_one_that_takes_all_memory_dies_alone(server: Path) -> None:
    error = failure("def select(clients): return np.ones(2**40)", server)
    assert error.code == "function-failed" and "MemoryError" in error.happened


def test_one_that_does_not_read_is_ended(server: Path) -> None:
    """It stands still, and is sent more than a pipe holds: nobody waits for ever to write."""
    plan = read_plan({"server_functions": {"file": "server.py", "time_s": 3.0}}).plan
    functions = Functions(plan, Place({"server.py": b"def select(clients): return clients"}), 16)
    functions.call(Call("select", 1, ["north"]), {})
    process = functions._process
    assert process is not None
    os.killpg(process.pid, signal.SIGSTOP)
    with pytest.raises(RunError) as caught:
        functions.call(Call("select", 2, ["north"]), {"memory/0": np.ones(2**22)})
    assert caught.value.code == "function-time"
    functions.close()


def test_a_fork_bomb_stays_small(server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hansa.hosting.process, "WORKER_PROCESSES_MAX", 100)
    code = """
def select(clients):
    import time
    for number in range(3000):
        try:
            if os.fork() == 0: time.sleep(60)
        except OSError: tried()
    raise RuntimeError("ESCAPED")
"""
    happened = failure(code, server).happened
    assert "more than 100 processes" in happened or "blocked" in happened


def test_a_flood_of_print_fills_no_disk(server: Path) -> None:
    code = "def select(clients):\n    for _ in range(400): print('x' * 2**17)\n    return 1 / 0"
    failure(code, server)
    kept = sum(path.stat().st_size for path in server.glob("functions.log*"))
    assert kept <= 2 * WORKER_LOG_BYTES_MAX + 2**20


def test_a_lie_in_the_protocol_is_no_answer(server: Path) -> None:
    """It writes to the pipe itself: a frame that says a terabyte follows, or rubbish."""
    for lie in ('b"\\xff" * 64', '(2**30).to_bytes(4, "little")'):
        code = f"""
def select(clients):
    for number in range(3, 20):
        try: os.write(number, {lie})
        except OSError: pass
    return clients
"""
        error = failure(code, server, seconds=5.0)
        assert error.code in ("function-failed", "function-time")


def test_what_it_starts_ends_with_it(server: Path) -> None:
    before = threading.active_count()
    called("def select(clients):\n    os.system('sleep 300 &')\n    return clients", server)
    assert threading.active_count() <= before + 2
