"""Runs as they could have happened, for the tests of pages and for looking at them.

`python tests/web/sample_runs.py FOLDER` writes one page per sample.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from hansa.seeds import Key

PLAN = {
    "name": "digits",
    "rounds": 10,
    "seed": 7,
    "algorithm": "fed_avg",
    "aggregator": "mean",
    "weighting": "examples",
    "transforms": [{"name": "clip", "norm": 1.0}, "cast"],
    "learner": {
        "kind": "numpy",
        "module": None,
        "model": "mlp",
        "hidden": [64],
        "epochs": 2,
        "batch_size": 32,
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": None},
        "schedule": {"name": "constant", "every": 10, "gamma": 0.5},
        "change": [],
    },
    "data": {
        "set": "digits",
        "target": None,
        "split": {"scheme": "dirichlet", "alpha": 0.3, "clients": 5},
        "test": 0.2,
        "validation": 0.1,
    },
    "cohort": {"fraction": 1.0, "count": None, "minimum": 1},
    "evaluate": {"every": 1, "clients": 100},
    "stop": {"metric": "accuracy", "target": None, "patience": None, "minutes": None},
    "keep": {"every": 10},
}


def digest(*of: Any) -> str:
    return "blake3:" + Key.root(0).child(*map(str, of)).material.hex() * 2


def summary(by_client: dict[str, float], weight: float) -> dict[str, Any]:
    known = [v for v in by_client.values() if math.isfinite(v)]
    cut = [float(v) for v in np.quantile(known, [0, 0.25, 0.5, 0.75, 1])] if known else [None] * 5
    lost = len(known) < len(by_client)
    named = dict(zip(["min", "q25", "median", "q75", "max"], cut, strict=True))
    values = {c: (v if math.isfinite(v) else None) for c, v in by_client.items()}
    mean = None if lost else float(np.mean(known))
    return {"mean": mean, "weight": weight, **named, "by_client": values}


def one_round(
    at: int, names: list[str], talent: Any, noise: Any, *, speed: float
) -> dict[str, Any]:
    progress = 1 - math.exp(-speed * at)
    best = 0.965
    reached = {
        c: float(np.clip(0.1 + (best - 0.1) * progress + t * (1.2 - progress) + n, 0.02, 1.0))
        for c, t, n in zip(names, talent, noise, strict=True)
    }
    loss = {c: 2.3 * (1 - a) ** 0.9 + 0.04 for c, a in reached.items()}
    trained = {c: min(1.0, a + 0.03 * progress) for c, a in reached.items()}
    held_out = float(np.mean(list(reached.values()))) - 0.004
    size = 38_472
    return {
        "round": at,
        "seconds": 0.31 + 0.25 * abs(float(noise[0])) * 10 + (0.4 if at == 1 else 0),
        "clients": {"asked": len(names), "accepted": len(names), "failed": 0, "refused": 0},
        "bytes": {"down": size * len(names), "up": size * len(names) // 2},
        "train": {
            "loss": summary({c: v * 0.8 for c, v in loss.items()}, 1100),
            "accuracy": summary(trained, 1100),
        },
        "validation": {"loss": summary(loss, 140), "accuracy": summary(reached, 140)},
        "test": {
            "loss": summary({"server": 2.3 * (1 - held_out) ** 0.9 + 0.05}, 360),
            "accuracy": summary({"server": held_out}, 360),
        },
        "digest": digest("round", at),
    }


def run(
    name: str = "digits-3",
    *,
    clients: int = 5,
    rounds: int = 10,
    seed: int = 7,
    speed: float = 0.45,
) -> dict[str, Any]:
    draw = Key.root(seed).child("sample").generator()
    names = [f"client-{i:0{len(str(clients - 1))}d}" for i in range(clients)]
    talent = draw.normal(0, 0.06, clients)
    done = [
        one_round(at, names, talent, draw.normal(0, 0.008, clients), speed=speed)
        for at in range(1, rounds + 1)
    ]
    counts = np.maximum(
        0, draw.dirichlet([0.3] * 10, clients) * 290 * (0.4 + draw.random((clients, 1)))
    ).astype(int)
    plan = {**PLAN, "rounds": rounds, "seed": seed}
    plan["data"] = {
        **PLAN["data"],
        "split": {"scheme": "dirichlet", "alpha": 0.3, "clients": clients},
    }
    best = max(done, key=lambda r: r["test"]["accuracy"]["mean"], default=None)
    return {
        "run": name,
        "state": "finished",
        "reason": f"All {rounds} rounds of the plan are done.",
        "started": "2026-11-22T09:41:07+00:00",
        "seconds": sum(r["seconds"] for r in done) + 0.6,
        "plan": plan,
        "plan_digest": digest("plan", seed),
        "sources": {
            "name": "plan.toml",
            "rounds": "plan.toml",
            "seed": "--set",
            "learner.model": "plan.toml",
            "learner.epochs": "plan.toml",
            "learner.optimizer.lr": "--set",
            "data.set": "plan.toml",
            "data.split.scheme": "plan.toml",
            "data.split.alpha": "--set",
            "data.split.clients": "--set",
        },
        "environment": {
            "hansa": "0.1.0",
            "python": "3.11.7",
            "numpy": "2.4.6",
            "platform": "Linux-6.1-x86_64-glibc2.36",
            "cpu": "2 cores",
        },
        "engine": "processes (2 workers)",
        "model_digest": digest("model", name),
        "best": {
            "round": best["round"],
            "metric": "accuracy",
            "value": best["test"]["accuracy"]["mean"],
        }
        if best
        else None,
        "rounds": done,
        "problems": [],
        "partition": {
            "scheme": "dirichlet(alpha=0.3)",
            "clients": names,
            "classes": [str(i) for i in range(10)],
            "counts": counts.tolist(),
        },
        "baseline": None,
    }


def hello() -> dict[str, Any]:
    record = run()
    alone = {
        c: v
        for c, v in zip(
            record["partition"]["clients"], [0.622, 0.871, 0.544, 0.715, 0.391], strict=True
        )
    }
    record["baseline"] = {
        "name": "best single client",
        "metric": "accuracy",
        "value": 0.871,
        "by_client": alone,
    }
    return record


def problem(at: int, client: str, code: str, message: str) -> dict[str, Any]:
    refused = code.startswith("update-")
    return {
        "round": at,
        "client": client,
        "kind": "refused" if refused else "failed",
        "code": code,
        "message": message,
        "file": None if refused else f"failures/round-{at}-{client}.txt",
    }


def failed() -> dict[str, Any]:
    record = run("cnn-north-2", rounds=6, clients=8, seed=3)
    record |= {
        "state": "failed",
        "reason": "Round 7 failed: 1 of 8 clients answered and the plan asks for at least 4 "
        '(cohort.minimum); 5 of the failures say "CUDA out of memory".',
        "model_digest": digest("model"),
    }
    record["plan"] |= {"rounds": 20}
    lost = dict.fromkeys(record["partition"]["clients"], math.nan)
    for row in record["rounds"][3:]:
        row["clients"] |= {"accepted": 5, "failed": 2, "refused": 1}
        row["train"]["loss"] = summary(lost, 100)
    memory = "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB (7.79 GiB in all)"
    nan = "The update holds NaN in 3 of 6 tensors, first in conv1.weight. It was not counted."
    for at in (4, 5, 6, 7):
        record["problems"] += [
            problem(at, "client-2", "client-failed", memory),
            problem(at, "client-5", "client-failed", memory),
            problem(at, "client-7", "update-not-finite", nan),
        ]
    return record


def running() -> dict[str, Any]:
    record = run("digits-4", rounds=4, seed=9)
    record |= {"state": "running", "reason": "", "model_digest": digest("model", 4)}
    record["plan"] |= {"rounds": 30}
    for row in record["rounds"]:
        if row["round"] % 2:
            row["validation"], row["test"] = {}, {}
    return record


def stopped() -> dict[str, Any]:
    record = run("mnist-1", rounds=7, clients=10, seed=5)
    record |= {
        "state": "stopped",
        "reason": "You pressed Ctrl-C in round 8. Everything up to round 7 is committed.",
    }
    record["plan"] |= {"rounds": 20}
    return record


def empty() -> dict[str, Any]:
    return {"run": "study-1", "state": "running"}


def large() -> dict[str, Any]:
    record = run("fleet-1", clients=100, rounds=100, seed=11, speed=0.05)
    message = "The worker process ended with signal 9; the machine may be out of memory."
    for row in record["rounds"]:
        if row["round"] % 9 == 0:
            row["clients"] |= {"accepted": 96, "failed": 3, "refused": 1}
            for client in ("client-03", "client-47", "client-71"):
                record["problems"].append(problem(row["round"], client, "client-lost", message))
    return record


def regression() -> dict[str, Any]:
    record = run("house-prices-1", clients=12, rounds=1, seed=4)
    record["partition"] |= {
        "classes": [],
        "scheme": "quantity(skew=1.5)",
        "counts": [[int(900 / (i + 1))] for i in range(12)],
    }
    for row in record["rounds"]:
        for part in ("train", "validation", "test"):
            row[part] = {"mse": row[part]["loss"]}
    record["best"] = {
        "round": 1,
        "metric": "mse",
        "value": record["rounds"][0]["test"]["mse"]["mean"],
    }
    return record


def hostile() -> dict[str, Any]:
    record = run("<script>alert(1)</script>\"'\u202egnp.exe", clients=3, rounds=3)
    bad = "</style></svg><img src=x onerror=alert(2)>\u202e\x00\x1b[31m\ud800" + "A" * 10_000
    names = {f"client-{i}": f"{i}{bad}" for i in range(3)}
    record |= {
        "state": "failed",
        "reason": bad,
        "engine": bad,
        "started": bad,
        "model_digest": bad,
        "plan_digest": bad,
    }
    record["plan"][bad] = {bad: bad}
    record["sources"] = {f"{bad}.{bad}": bad}
    record["environment"] = {bad: bad}
    record["best"] = {"round": 3, "metric": bad, "value": 0.5}
    record["baseline"] = {
        "name": bad,
        "metric": bad,
        "value": 0.4,
        "by_client": {names[c]: 0.3 for c in names},
    }
    record["partition"] |= {
        "scheme": bad,
        "clients": list(names.values()),
        "classes": [bad + str(i) for i in range(10)],
    }
    for row in record["rounds"]:
        row["digest"] = bad
        for part in ("train", "validation", "test"):
            found = row[part]["accuracy"]
            found["by_client"] = {names.get(c, bad): v for c, v in found["by_client"].items()}
            row[part] = {bad: found}
    record["problems"] = [
        {"round": 1, "client": bad, "kind": "refused", "code": bad, "message": bad, "file": bad}
    ]
    return record


def seeds_and_settings() -> list[dict[str, Any]]:
    records = []
    for lr, speed in ((0.1, 0.45), (0.03, 0.25), (0.3, 0.5)):
        for seed in (1, 2, 3):
            record = run(f"digits-{len(records) + 1}", seed=seed, rounds=12, speed=speed)
            learner = {**PLAN["learner"], "optimizer": {**PLAN["learner"]["optimizer"], "lr": lr}}
            record["plan"] |= {"learner": learner}
            records.append(record)
    return records


REPORTS = {
    "hello": hello, "failed": failed, "running": running, "stopped": stopped, "empty": empty,
    "large": large, "regression": regression, "hostile": hostile,
}  # fmt: skip


def main(folder: str) -> None:
    from hansa.web.report import render_compare, render_report

    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    pages = {name: render_report(make()) for name, make in REPORTS.items()}
    pages["compare"] = render_compare(seeds_and_settings())
    pages["compare-not"] = render_compare([run(), regression()])
    pages["compare-none"] = render_compare([])
    for name, page in pages.items():
        (target / f"{name}.html").write_text(page, encoding="utf-8")
        print(name, len(page.encode()))


if __name__ == "__main__":
    main(sys.argv[1])
