"""Run a paper's experiment and compare with what is expected.

    python papers/run.py fedavg-2017 --quick
    python papers/run.py fedavg-2017 --engine processes

Prints one table row: the paper's number, ours, the expected range, and a verdict; exits with 1
when ours lies outside of the range.  A run that was interrupted continues.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import hansa

HERE = Path(__file__).resolve().parent


def main(words: list[str]) -> int:
    """Run one paper in its full or quick form."""
    names = sorted(p.parent.name for p in HERE.glob("*/expected.json"))
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("paper", choices=names)
    parser.add_argument("--quick", action="store_true", help="the form that CI runs")
    parser.add_argument("--engine", choices=["inline", "processes"], default="inline")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    chosen = parser.parse_args(words)
    expected = json.loads((HERE / chosen.paper / "expected.json").read_text(encoding="utf-8"))
    form = expected["quick" if chosen.quick else "full"]
    try:
        result = hansa.run(
            HERE / chosen.paper,
            engine=chosen.engine,
            runs=chosen.runs,
            sets=form["sets"],
            show=True,
        )
    except hansa.HansaError as error:
        print(error, file=sys.stderr)
        return 1
    ours = measure(result, form["measure"])
    low, high = form["expected"]
    holds = ours is not None and low <= ours <= high
    print(
        "\n| paper | what | paper's value | ours | expected | verdict |\n|---|---|---|---|---|---|"
    )
    verdict = "reproduced" if holds else "NOT reproduced"
    print(
        f"| {chosen.paper} | {form['measure']} | {form['paper_value'] or '-'} | {ours} "
        f"| {low} to {high} | {verdict} |"
    )
    return 0 if holds else 1


def measure(result: hansa.Result, what: str) -> Any:
    """Return the number that a paper's claim is about."""
    accuracies = [row["test_accuracy"] for row in result.metrics]
    if what == "accuracy":
        return accuracies[-1]
    target = 0.99
    return next((row["round"] for row in result.metrics if row["test_accuracy"] >= target), None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
