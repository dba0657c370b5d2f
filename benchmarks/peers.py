"""The same trivial job with Hansa and with Flower's simulation, in turn on one machine.

The peer lives in an environment of its own, made once with

    python3 -m venv DIR
    DIR/bin/pip install 'flwr[simulation]'

Flower runs through `run_simulation` with its default resources for a client: its lightest way
from a shell, without the extra server processes that its command line starts. Hansa writes its
run folder and its report, as always.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import projects
from benchmarks.measure import HANSA, Cost

FLOWER_JOB = """
import sys

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

CLIENTS, ROUNDS, SIZE = (int(word) for word in sys.argv[1:])
client, server = ClientApp(), ServerApp()


@client.train()
def train(message, context):
    (w,) = message.content["arrays"].to_numpy_ndarrays()
    w += np.float32(0.001)
    metrics = MetricRecord({"loss": 1.0, "num-examples": 8})
    content = RecordDict({"arrays": ArrayRecord([w]), "metrics": metrics})
    return Message(content=content, reply_to=message)


@server.main()
def main(grid, context):
    everyone = {"min_train_nodes": CLIENTS, "min_available_nodes": CLIENTS}
    averaging = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, **everyone)
    start = ArrayRecord([np.zeros(SIZE, np.float32)])
    result = averaging.start(grid, start, num_rounds=ROUNDS)
    (w,) = result.arrays.to_numpy_ndarrays()
    if not (w.shape == (SIZE,) and np.allclose(w, 0.001 * ROUNDS)):
        raise RuntimeError("the averaged model is wrong")


run_simulation(server_app=server, client_app=client, num_supernodes=CLIENTS)
"""
VERSIONS = "from importlib.metadata import version as v; print(v('flwr'), v('ray'), v('numpy'))"
INLINE, FLOWER, PROCESSES = "Hansa, inline", "Flower", "Hansa, processes"
PAIRS = 3
TICK_S = 0.1


class Job(NamedTuple):
    """The size of a job, in the order of the Flower script's arguments."""

    clients: int
    rounds: int
    size: int


MAIN = Job(clients=10, rounds=5, size=1_000_000)
FEW = Job(clients=10, rounds=5, size=10)
MANY = Job(clients=400, rounds=5, size=10)


def compare(environment: Path) -> int:
    """Print the table; the status only says whether every run gave the right model."""
    python = environment.absolute() / "bin" / "python"
    if not python.exists():
        print(f"There is no {python}; benchmarks/peers.py says how to make the environment.")
        return 2
    asked = subprocess.run([python, "-c", VERSIONS], capture_output=True, text=True, check=True)
    flower, ray, numpy = asked.stdout.split()
    print(f"Flower {flower} with Ray {ray} and NumPy {numpy}; Hansa with NumPy {np.__version__}")
    loads: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = _Bench(python, Path(folder))
        bench.turn(MAIN)  # warms the file cache
        whole, each = [], []
        for _ in range(PAIRS):
            loads.append(os.getloadavg()[0])
            whole.append(bench.turn(MAIN))
            few, many = bench.turn(FEW), bench.turn(MANY)
            each.append({name: _per_client(few[name], many[name]) for name in few})
    _print(whole, each)
    told = f"{min(loads):.1f} to {max(loads):.1f} on {os.cpu_count()} cores"
    print(f"\n{PAIRS} turns, medians; load average over a minute before each turn: {told}")
    return 0


class _Bench:
    def __init__(self, python: Path, folder: Path) -> None:
        self.python, self.folder = str(python), folder
        self.script = folder / "flower.py"
        self.script.write_text(FLOWER_JOB)
        quiet = {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
        homes = {"FLWR_HOME": str(folder / "flwr"), "RAY_TMPDIR": str(folder)}
        self.variables = {**os.environ, **quiet, **homes}

    def turn(self, job: Job) -> dict[str, Cost]:
        """Run the job once with each, and check what Hansa has learned."""
        home = self.folder / f"{job.clients}x{job.size}"
        project = projects.write(home, **job._asdict())
        hansa = [HANSA, "run", "--new", "--engine"]
        commands = {
            INLINE: [*hansa, "inline"],
            FLOWER: [self.python, str(self.script), *map(str, job)],
            PROCESSES: [*hansa, "processes"],
        }
        costs = {name: _watched(words, project, self.variables) for name, words in commands.items()}
        _check(project, job)
        return costs


def _check(project: Path, job: Job) -> None:
    from hansa.store.files import load_params

    for path in (project / "runs").glob("*/models/*.safetensors"):
        w = load_params(path)["w"]
        if not (w.shape == (job.size,) and np.allclose(w, 0.001 * job.rounds)):
            raise RuntimeError(f"the averaged model in {path} is wrong")


def _watched(command: Sequence[str], cwd: Path, variables: dict[str, str]) -> Cost:
    """Run a command; its cost is what it accounts for, or what was seen of its tree if more.

    Ray's processes are not waited for by the one that starts them, so that nobody is charged
    for them: a thread looks at the tree meanwhile. Both numbers are lower bounds.
    """
    seen: dict[int, tuple[float, float]] = {}
    done = threading.Event()
    with tempfile.TemporaryFile() as log:
        began = time.monotonic()
        process = subprocess.Popen(command, cwd=cwd, env=variables, stdout=log, stderr=log)
        looker = threading.Thread(target=_look, args=(process.pid, seen, done))
        looker.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
        done.set()
        looker.join()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            told = log.read().decode(errors="replace")[-2000:]
            raise RuntimeError(f"{' '.join(command)} failed: {told}")
    cpu = sum(cpu_s for cpu_s, _ in seen.values())
    peak = max((peak_mb for _, peak_mb in seen.values()), default=0.0)
    accounted = usage.ru_utime + usage.ru_stime
    return Cost(wall, max(accounted, cpu), max(usage.ru_maxrss / 1024, peak))


def _look(root: int, seen: dict[int, tuple[float, float]], done: threading.Event) -> None:
    """Note CPU seconds and peak memory of a process and its descendants until told to stop."""
    seen[root] = (0.0, 0.0)
    ticks = os.sysconf("SC_CLK_TCK")
    while not done.wait(TICK_S):
        for stat in sorted(Path("/proc").glob("[0-9]*/stat"), key=lambda p: int(p.parent.name)):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
                pid = int(stat.parent.name)
                if pid not in seen and int(fields[1]) not in seen:
                    continue
                lines = (stat.parent / "status").read_text().splitlines()
            except OSError:  # the process has ended
                continue
            used = (int(fields[11]) + int(fields[12])) / ticks
            high = [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")]
            seen[pid] = (used, max([seen.get(pid, (0.0, 0.0))[1], *high]))


def _per_client(few: Cost, many: Cost) -> Cost:
    """Return milliseconds a simulated client in a round, from the difference of two jobs."""
    visits = (MANY.clients - FEW.clients) * MANY.rounds
    wall, cpu = many.wall_s - few.wall_s, many.cpu_s - few.cpu_s
    return Cost(wall / visits * 1000, cpu / visits * 1000, many.peak_mb)


def _print(whole: list[dict[str, Cost]], each: list[dict[str, Cost]]) -> None:
    names = (INLINE, PROCESSES, FLOWER)
    print(f"\n| | {' | '.join(names)} | Flower / Hansa inline | Flower / Hansa processes |")
    print("|---|---|---|---|---|---|")
    job = f"{MAIN.clients} clients x {MAIN.rounds} rounds, {MAIN.size:,} float32"
    visit = f"a client in a round, from {FEW.clients} and {MANY.clients} clients, {FEW.size} floats"
    rows = [
        (f"{job}: wall", whole, 0, "{:.2f} s"),
        ("the same: CPU", whole, 1, "{:.2f} s"),
        ("the same: peak of the largest process", whole, 2, "{:.0f} MB"),
        (f"{visit}: wall", each, 0, "{:.2f} ms"),
        ("the same: CPU", each, 1, "{:.2f} ms"),
    ]
    for what, turns, column, form in rows:
        cells = [form.format(statistics.median(t[n][column] for t in turns)) for n in names]
        for ours in (INLINE, PROCESSES):
            ratio = statistics.median(t[FLOWER][column] / t[ours][column] for t in turns)
            cells.append(f"{ratio:.1f}x")
        print(f"| {what} | {' | '.join(cells)} |")
