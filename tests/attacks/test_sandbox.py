"""A run's code tries to get out of its sandbox, in each way that its author could think of.

Each attack says `blocked` or `ESCAPED` in what it raises.  The same attacks are made without a
sandbox where that does no harm, so that it is known that they would succeed.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from site_cases import Case, function_package, make_case, make_workers

import hansa.hosting.process
import hansa.hosting.sandbox
import hansa.site.workers
from hansa.clock import monotonic
from hansa.hosting.sandbox import trouble
from hansa.limits import WORKER_LOG_BYTES_MAX
from hansa.site.settings import DataSource, SiteLimits
from hansa.site.workers import WorkerResult, Workers

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")

PREAMBLE = """
import ctypes, mmap, socket, stat, time
from pathlib import Path

def verdict(escaped):
    raise RuntimeError(f"ESCAPED: {escaped}"[:900] if escaped else "blocked")

def tried(*attempts):
    escaped = []
    for number, attempt in enumerate(attempts):
        try:
            found = attempt()
        except Exception:
            continue
        if found:
            escaped.append((number, repr(found)[:100]))
    verdict(escaped)
"""

ATTACKS = {
    "reads files outside": """
tried(*[lambda p=p: open(p, "rb").read(20) for p in (
    "{site}/key.pem", "{site}/site.toml", "/etc/shadow", "/etc/passwd", "/etc/hostname",
    "{secret}", "/proc/1/root{secret}", "/proc/self/root{secret}", "/proc/1/cwd/key.pem",
    "/hansa/package/../../key.pem", "/data/../key.pem", "/sys/kernel/uevent_seqnum",
)], lambda: os.listdir("{home}"), lambda: os.listdir("{site}"), lambda: os.listdir("/home"))
""",
    "reaches the network": """
def connect(family, address):
    with socket.socket(family) as s:
        s.settimeout(2)
        s.connect(address)
        return s.recv(10)
tried(lambda: connect(socket.AF_INET, ("127.0.0.1", {port})),
      lambda: connect(socket.AF_UNIX, "\\0hansa-attack-{port}"),
      lambda: connect(socket.AF_UNIX, "{site}/socket"))
""",
    "reads secrets of the environment": """
seen = repr(dict(os.environ))
for path in Path("/proc").glob("[0-9]*/environ"):
    try: seen += path.read_text()
    except OSError: pass
verdict("hunter2" in seen and seen)
""",
    "signals and traces the agent": """
libc = ctypes.CDLL(None, use_errno=True)
tried(lambda: os.kill({agent}, 0) or "alive",
      lambda: os.kill(os.getppid() or {agent}, 0) or (os.getppid() == {agent} and "parent"),
      lambda: libc.ptrace(16, {agent}, 0, 0) == 0 or None,
      lambda: open("/proc/{agent}/mem", "rb") and "memory",
      lambda: open("/proc/{agent}/cmdline", "rb").read(20))
""",
    "looks at other processes": """
lines = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline")]
verdict([line for line in lines if line.hex() == "{words}"])
""",
    "writes everywhere": """
def write(folder):
    path = os.path.join(folder, "planted")
    with open(path, "w") as file:
        file.write("planted")
    return path
tried(*[lambda p=p: write(p) for p in (
    "/", "/data", "/hansa", "/hansa/package", "/hansa/in", "/hansa/states", "/usr", "/etc", "/dev",
    "{site}", sys.prefix, sys.base_prefix, os.path.dirname(np.__file__), "/proc/self", "/var/tmp")],
    lambda: open("/proc/sys/kernel/core_pattern", "r+").read(),
    lambda: open("/proc/sysrq-trigger", "w") and "sysrq",
    lambda: open("/hansa/package/model.py", "a") and "code")
""",
    "changes the data": """
data = "/data/rows.csv"
tried(lambda: open(data, "r+b") and "opened", lambda: os.remove(data) or 1,
      lambda: os.rename(data, "/data/x") or 1, lambda: os.chmod(data, 0o777) or 1,
      lambda: os.truncate(data, 0) or 1, lambda: os.utime(data, (0, 0)) or 1)
""",
    "links its way out": """
def through(link, target):
    os.symlink(target, link)
    return open(link + "/key.pem", "rb").read() if os.path.isdir(link) else open(link, "rb").read()
tried(lambda: through("/tmp/a", "{site}"), lambda: through("/tmp/b", "/proc/1/root{site}"),
      lambda: os.symlink("{secret}", "/hansa/in/1-train.safetensors") or 1,
      lambda: os.symlink("{secret}", "/hansa/states/x") or 1,
      lambda: os.link("/data/rows.csv", "/hansa/states/x") or 1)
""",
    "becomes somebody else": """
libc = ctypes.CDLL(None, use_errno=True)
ok = lambda status: None if status else "allowed"
tried(lambda: ok(libc.unshare(0x10000000)), lambda: ok(libc.unshare(0x00020000)),
      lambda: os.setuid(0) or "root", lambda: ok(libc.mount(b"none", b"/tmp", b"tmpfs", 0, None)),
      lambda: ok(libc.umount2(b"/data/rows.csv", 2)), lambda: os.chroot("/tmp") or "chroot",
      lambda: os.mknod("/tmp/disk", stat.S_IFBLK | 0o600, os.makedev(254, 0)) or "device")
""",
}  # fmt: skip
"""What ends in a verdict; {..} are filled in."""

HARMLESS = (
    "reads files outside",
    "reaches the network",
    "looks at other processes",
)
"""Which are also made without a sandbox, to know that they are attacks."""


class Place(NamedTuple):
    """Where attacks happen."""

    site: Path
    facts: dict[str, Any]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    assert trouble() is None, "bubblewrap is installed and does not work here"
    tmp_path = tmp_path_factory.mktemp("attacks")
    site, secret, home = tmp_path / "site", tmp_path / "secret", tmp_path / "home"
    for folder in (site, home):
        folder.mkdir()
    (site / "key.pem").write_text("the site's key")
    (site / "site.toml").write_text("name")
    secret.write_text("of another user")
    (home / "mail").write_text("private")
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    with (
        pytest.MonkeyPatch.context() as patch,
        socket.socket() as tcp,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        patch.setenv("DATABASE_PASSWORD", "hunter2")
        tcp.bind(("127.0.0.1", 0))
        port = tcp.getsockname()[1]
        unix.bind(f"\0hansa-attack-{port}")
        for listener in (tcp, unix):
            listener.listen()
            threading.Thread(target=greet, args=(listener,), daemon=True).start()
        words = Path("/proc/self/cmdline").read_bytes().hex()
        facts = {"site": site, "secret": secret, "home": home, "port": port}
        facts |= {"agent": os.getpid(), "words": words}
        yield Place(site, facts)


def greet(listener: socket.socket) -> None:
    try:
        while True:
            connection, _ = listener.accept()
            connection.sendall(b"welcome")
            connection.close()
    except OSError:
        return


def armed(place: Place, name: str, attacks: list[str]) -> Case:
    """Return a run whose round 1 is harmless, and every later one the next of some attacks."""
    folder = place.site.parent / name
    case = make_case(function_package(folder, "pass"))
    text = PREAMBLE + (folder / "model.py").read_text()
    for number, code in enumerate(attacks, start=2):
        for fact, value in place.facts.items():
            code = code.replace(f"{{{fact}}}", str(value))
        body = code.strip().replace("\n", "\n    ")
        text += f"\n\ndef attack_{number}(ctx):\n    {body}\n"
    text += "\n\nharmless = train\n\n\ndef train(params, data, ctx):\n"
    text += "    globals().get(f'attack_{ctx.round}', id)(ctx)\n"
    text += "    return harmless(params, data, ctx)\n"
    (folder / "model.py").write_text(text)
    case = make_case(folder)
    return case._replace(offer=msgspec.structs.replace(case.offer, run=name))


def opened(place: Place, *, sandbox: str = "required", **limits: Any) -> Workers:
    data = {"rows": DataSource(path=str(place.site.parent / "rows.csv"))}
    chosen = SiteLimits(**({"task_s": 20.0} | limits))
    return make_workers(place.site, data, sandbox=sandbox, limits=chosen)


@pytest.fixture(scope="module", params=["required", "none"])
def verdicts(place: Place, request: pytest.FixtureRequest) -> Iterator[dict[str, WorkerResult]]:
    """Return what came of all attacks that end in a verdict, by sandbox and name."""
    names = list(ATTACKS) if request.param == "required" else list(HARMLESS)
    case = armed(place, f"run-{request.param}", [ATTACKS[name] for name in names])
    workers = opened(place, sandbox=request.param)
    results = {name: run(workers, case, number) for number, name in enumerate(names, start=2)}
    assert_lives(workers, case)
    yield results | {"sandbox": request.param}  # type: ignore[dict-item]


def attack(place: Place, code: str, **limits: Any) -> tuple[WorkerResult, Workers, Case]:
    case = armed(place, f"run-{len(list(place.site.parent.iterdir()))}", [code])
    workers = opened(place, **limits)
    return run(workers, case, 2), workers, case


def run(workers: Workers, case: Case, number: int) -> WorkerResult:
    update = case.package.parent / f"{case.package.name}-update-{number}"
    return workers.train(case.offer, case.package, number, case.message, update)


def assert_lives(workers: Workers, case: Case) -> None:
    assert run(workers, case, 1).state == "done"
    workers.close_all()


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_blocked_and_succeeds_where_there_is_no_sandbox(
    place: Place, verdicts: dict[str, Any], name: str
) -> None:
    if verdicts["sandbox"] == "required":
        assert verdicts[name].reason == "RuntimeError: blocked"
        assert (place.site.parent / "rows.csv").read_text() == "a,b\n1,2\n"
        assert (place.site / "key.pem").read_text() == "the site's key"
    elif name in HARMLESS:
        assert "ESCAPED" in verdicts[name].reason


def test_a_fork_bomb_stays_small(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (hansa.site.workers, hansa.hosting.process):
        monkeypatch.setattr(module, "WORKER_PROCESSES_MAX", 100)
    before = processes()
    code = """
for _ in range(3000):
    try:
        if os.fork() == 0: time.sleep(60)
    except OSError: verdict(None)
verdict("3000 processes")
"""
    result, workers, case = attack(place, code)
    assert result.code == "site-limit" or result.reason == "RuntimeError: blocked"
    assert run(workers, case, 1).state == "done"  # also when all that was left is still there
    workers.close_all()
    deadline = monotonic() + 5
    while processes() > before + 20 and monotonic() < deadline:
        threading.Event().wait(0.05)
    assert processes() <= before + 20


def processes() -> int:
    return sum(name.isdecimal() for name in os.listdir("/proc"))


def test_the_disk_cannot_be_filled(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hansa.hosting.sandbox, "WORKER_TEMPORARY_BYTES_MAX", 4 * 2**20)
    code = """
written = 0
for folder in ("/tmp", "/dev/shm", "/dev", "/run", "/var/tmp", "/hansa/in", "/hansa/states"):
    try:
        with open(folder + "/fill", "wb") as file:
            for _ in range(64):
                file.write(bytes(2**20)); file.flush()
                written += 1
    except OSError: pass
verdict(None if written <= 8 else written)
"""
    result, workers, case = attack(place, code)
    assert result.reason == "RuntimeError: blocked"
    assert not list(place.site.parent.rglob("fill"))
    assert_lives(workers, case)


def test_memory_is_limited(place: Place) -> None:
    code = """
held = []
try:
    for _ in range(40): held.append(bytearray(64 * 2**20))
except MemoryError: held.clear(); verdict(None)
verdict("2.5 GiB")
"""
    result, workers, case = attack(place, code, memory_mb=1024)
    assert result.reason == "RuntimeError: blocked"
    assert_lives(workers, case)


def test_printing_without_end_fills_no_disk(place: Place) -> None:
    code = "for _ in range(60): os.write(1, b'x' * 2**20)"
    result, workers, case = attack(place, code)
    assert result.state == "done"
    assert_lives(workers, case)
    size = sum(path.stat().st_size for path in place.site.glob("workers.log*"))
    assert 2**20 < size <= 2 * WORKER_LOG_BYTES_MAX + 2**20


def test_a_hang_that_ignores_signals_ends_in_time(place: Place) -> None:
    code = """
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
if os.fork() == 0: os.setsid()
while True: pass
"""
    before = monotonic()
    result, workers, case = attack(place, code, task_s=1.5)
    assert result.code == "site-limit" and monotonic() - before < 10
    assert_lives(workers, case)
