"""Measure the budgets of the design and print them as a table.

python -m benchmarks            all that needs no network
python -m benchmarks startup    one of: startup, hello, simulation, clients, memory, mean, tail,
                                desk
python -m benchmarks install    package count and size, in a fresh environment (needs pip)
python -m benchmarks peers DIR  Flower's simulation on the same job, from DIR/bin/python
python -m benchmarks federation [NAME ...] [--peers DIR] [--json FILE]
                                a deployed federation: noop, dev, big, tail, restart, storm, idle
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import numpy as np

from benchmarks import projects
from benchmarks.desk import desk
from benchmarks.measure import BIN, HANSA, PYTHON, Row, best_of, cost, once, pairs

ROOT = Path(__file__).resolve().parent.parent
MILLION = 1_000_000


def startup(_: Path) -> list[Row]:
    """Measure CPU seconds of the command line and of the import, above NumPy's own."""
    help_s = cost([HANSA, "--help"], runs=9).cpu_s
    both = pairs([PYTHON, "-c", "import hansa, numpy"], [PYTHON, "-c", "import numpy"], runs=15)
    above = statistics.median(a.cpu_s - b.cpu_s for a, b in both)
    return [
        Row("hansa --help, CPU", "<= 0.15 s", f"{help_s:.3f} s", help_s <= 0.15),
        Row("import hansa above import numpy, CPU", "<= 0.05 s", f"{above:.3f} s", above <= 0.05),
    ]


def hello(folder: Path) -> list[Row]:
    """Measure the first command that a person types."""
    wall = cost([HANSA, "hello"], runs=3, cwd=folder).wall_s
    return [Row("hansa hello", "<= 10 s", f"{wall:.2f} s", wall <= 10)]


def simulation(folder: Path) -> list[Row]:
    """Measure ten clients, five rounds, a million parameters, from the shell."""
    project = projects.write(folder / "shell", clients=10, rounds=5, size=MILLION)
    wall = cost([HANSA, "run", "--new"], runs=5, cwd=project).wall_s
    what = "10 clients x 5 rounds, 1 M float32, from the shell"
    return [Row(what, "<= 1 s", f"{wall:.2f} s", wall <= 1)]


def clients(folder: Path) -> list[Row]:
    """Measure what one more client costs: the difference between many and few."""
    few = projects.write(folder / "few", clients=10, rounds=10, size=10)
    many = projects.write(folder / "many", clients=1000, rounds=10, size=10)
    costs = pairs(
        [HANSA, "run", str(many), "--new"], [HANSA, "run", str(few), "--new"], runs=3, cwd=folder
    )
    each = statistics.median((a.wall_s - b.wall_s) / (990 * 10) for a, b in costs) * 1000
    return [Row("framework time a simulated client", "<= 1 ms", f"{each:.2f} ms", each <= 1)]


def memory(folder: Path) -> list[Row]:
    """Measure peak memory with many clients against few, with a model that would show."""
    rows = []
    for engine in ("inline", "processes"):
        peaks = []
        for count in (10, 1000):
            project = projects.write(
                folder / f"{engine}{count}", clients=count, rounds=1, size=MILLION
            )
            command = [HANSA, "run", str(project), "--new", "--engine", engine]
            peaks.append(once(command, folder).peak_mb)
        ratio = peaks[1] / peaks[0]
        told = f"{peaks[0]:.0f} -> {peaks[1]:.0f} MB ({ratio:.2f}x)"
        rows.append(
            Row(f"peak memory, 10 -> 1,000 clients, {engine}", "<= 1.10x", told, ratio <= 1.1)
        )
    return rows


def mean(_: Path) -> list[Row]:
    """Compare the exact weighted mean with what memory alone allows for the same traffic."""
    from hansa.aggregators import AggregationSpec, Contribution, VectorSpec
    from hansa.aggregators import mean as aggregator

    size = 10 * MILLION
    x = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    total, wide = np.zeros(size, np.float32), np.zeros(size, np.int64)
    spec = AggregationSpec({"delta": VectorSpec(size, "float32", 64.0)}, 2.0**20)
    acc = aggregator.zero(spec)
    names = iter(range(1000))

    def fold() -> None:
        aggregator.add(acc, Contribution(str(next(names)), {"delta": x}, 3.0))

    def axpy() -> None:
        np.add(total, x, out=total)

    def traffic() -> None:
        np.add(wide, 1, out=wide)  # reads and writes the accumulator
        x.sum()  # reads the update

    exact, plain, bound = best_of(fold), best_of(axpy), best_of(traffic)
    told = f"{exact * 1e3:.1f} ms; {bound / exact:.0%} of the memory limit ({bound * 1e3:.1f} ms); "
    told += f"float32 add {plain * 1e3:.1f} ms"
    return [
        Row("exact weighted mean, one fold of 10 M float32", ">= 80%", told, bound / exact >= 0.8)
    ]


def tail(_: Path) -> list[Row]:
    """Measure what is left to do after the last update, for cohorts of 10 and 200."""
    from hansa.aggregators import AggregationSpec, Contribution, VectorSpec
    from hansa.aggregators import mean as aggregator

    size = 10 * MILLION
    x = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    spec = AggregationSpec({"delta": VectorSpec(size, "float32", 64.0)}, 2.0**20)
    times = []
    for cohort in (10, 200):
        acc = aggregator.zero(spec)
        for client in range(cohort):
            acc = aggregator.add(acc, Contribution(str(client), {"delta": x}, 3.0))
        dumped = aggregator.dump(acc)  # finishing uses a sum up
        sums = [aggregator.load(spec, dumped) for _ in range(3)]
        times.append(best_of(lambda sums=sums: aggregator.finish(sums.pop()), runs=len(sums)))
    ratio = times[1] / times[0]
    told = f"{times[0] * 1e3:.0f} -> {times[1] * 1e3:.0f} ms ({ratio:.2f}x)"
    return [Row("tail after the last update, 10 -> 200 clients", "flat", told, 0.8 <= ratio <= 1.2)]


def install(folder: Path) -> list[Row]:
    """Install the core into a fresh environment, alone and with what the server will need."""
    planned = ["starlette", "granian", "sqlalchemy", "cryptography", "urllib3"]
    rows = []
    for name, extra in (("core", []), ("core and the server's planned packages", planned)):
        home = folder / f"env-{len(extra)}"
        venv.create(home, with_pip=True)
        python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
        before = _size(home)
        quiet = ["-m", "pip", "install", "--quiet", "--no-compile", str(ROOT), *extra]
        subprocess.run([python, *quiet], check=True, stderr=subprocess.DEVNULL)
        listed = subprocess.run(
            [python, "-m", "pip", "list", "--format=freeze"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        count = len([p for p in listed if not p.startswith(("pip=", "setuptools="))])
        size = (_size(home) - before) / 1e6
        told = f"{count} packages, {size:.0f} MB"
        rows.append(Row(f"install: {name}", "<= 30, <= 140 MB", told, count <= 30 and size <= 140))
    return rows


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink())


ALL = [startup, hello, simulation, clients, memory, mean, tail, desk]


def main(words: list[str]) -> int:
    """Run the chosen measurements; the status says whether every budget holds."""
    # What is installed has its bytecode; commands that had to compile Hansa each time would pay for
    # a setting of this shell.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if words[:1] == ["peers"]:
        from benchmarks.peers import compare

        return compare(Path(words[1]))
    if words[:1] == ["federation"]:
        return federation(words[1:])
    chosen = [f for f in [*ALL, install] if f.__name__ in words] or ALL
    _print_head()
    holds = True
    with tempfile.TemporaryDirectory() as folder:
        for measurement in chosen:
            holds &= _print_rows(measurement(Path(folder)))
    return 0 if holds else 1


def federation(words: list[str]) -> int:
    """Run the chosen measurements of a deployed federation; see `benchmarks.federation`."""
    from benchmarks import federation as deployed
    from benchmarks import restarts, storm

    known = [deployed.noop, deployed.dev, deployed.big, deployed.tail, restarts.restart]
    named = {f.__name__: f for f in [*known, storm.storm, storm.idle]}
    parser = argparse.ArgumentParser(prog="benchmarks federation")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(named))
    parser.add_argument("--peers", type=Path, help="an environment that has Flower")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    asked = parser.parse_args(words)
    unknown = set(asked.names) - named.keys()
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    _print_head()
    holds, found = True, {}
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.names or named:
            load = os.getloadavg()[0]
            figures = named[name](Path(folder), deployed.Settings(peers=asked.peers))
            holds &= _print_rows(figures.rows)
            found[name] = {"load": load, **figures.values}
            if asked.json is not None:
                asked.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if holds else 1


def _print_head() -> None:
    print(f"{platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}, {BIN}")
    print("| what | budget | measured | |\n|---|---|---|---|", flush=True)


def _print_rows(rows: list[Row]) -> bool:
    """Print lines of the table; return whether all budgets hold."""
    for row in rows:
        mark = "yes" if row.holds else "NO"
        print(f"| {row.what} | {row.budget} | {row.measured} | {mark} |", flush=True)
    return all(row.holds for row in rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
