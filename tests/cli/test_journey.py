"""What a new user types, in an empty folder, in order."""

from __future__ import annotations

import errno
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def test_hello_shows_a_federated_model_that_beats_the_best_single_client(
    hansa_cli: Any, home: Path
) -> None:
    text = hansa_cli("hello")
    assert "together" in text
    record = json.loads(hansa_cli("show", "--json"))
    together = record["rounds"][-1]["test"]["accuracy"]["mean"]
    assert together > 0.85
    assert together > record["baseline"]["value"] + 0.05
    assert (home / "runs" / "hello-1" / "report.html").is_file()


def test_init_run_show_compare_reproduce_export(hansa_cli: Any, home: Path) -> None:
    hansa_cli("init", "study")
    assert sorted(p.name for p in (home / "study").iterdir()) == [
        "README.md",
        "model.py",
        "plan.toml",
    ]
    first = hansa_cli("run", "study", "--rounds", "3")
    assert "Finished: all 3 rounds are done" in first
    hansa_cli("run", "study", "--rounds", "3", "--set", "algorithm=scaffold", "--clients", "4")
    compared = hansa_cli("compare")
    assert "scaffold" in compared and "data.split.clients" in compared
    assert (home / "runs" / "compare.html").is_file()
    assert "Reproduced" in hansa_cli("reproduce", "study-1")
    hansa_cli("export", "study-1", "--to", "npz", "-o", "m.npz")
    with np.load(home / "m.npz") as arrays:
        assert arrays["weight"].shape == (64, 10)
    assert "study-2" in hansa_cli("ls")
    explained = hansa_cli("config", "explain", "study", "--set", "rounds=3")
    assert "(--set)" in explained and "learner.optimizer.lr" in explained


def test_a_changed_code_copy_is_not_reproduced_silently(hansa_cli: Any, home: Path) -> None:
    hansa_cli("init", "study")
    hansa_cli("run", "study", "--rounds", "1")
    copy = home / "runs" / "study-1" / "code" / "model.py"
    copy.write_text(copy.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")
    assert "run-damaged" in hansa_cli("reproduce", "study-1", status=1)


def test_json_is_one_object_a_line_and_errors_are_json_too(hansa_cli: Any) -> None:
    hansa_cli("init", "study")
    lines = hansa_cli("run", "study", "--rounds", "2", "--json").splitlines()
    rounds = [json.loads(line) for line in lines]
    assert [r["round"] for r in rounds[:2]] == [1, 2]
    assert rounds[2]["state"] == "finished"
    error = json.loads(hansa_cli("run", "study", "--set", "rouns=2", "--json", status=1))
    assert error["error"]["code"] == "plan-unknown-key"
    assert "rounds" in error["error"]["hint"]


def test_split_writes_client_folders_that_a_plan_can_use(hansa_cli: Any, home: Path) -> None:
    text = hansa_cli("split", "digits", "--scheme", "dirichlet", "--clients", "4", "-o", "parts")
    assert "1,797 examples" in text
    assert (home / "parts" / "split.svg").read_text(encoding="utf-8").startswith("<svg")
    hansa_cli("init", "study")
    sets = ['data.set="parts"', 'data.split={scheme="files"}', "cohort.minimum=4", "rounds=2"]
    words = [word for text in sets for word in ("--set", text)]
    hansa_cli("run", "study", *words)
    record = json.loads(hansa_cli("show", "--json"))
    assert record["rounds"][-1]["clients"]["accepted"] == 4
    valid = sum(len(np.load(p)["y"]) for p in (home / "parts").glob("*/valid.npz"))
    assert record["rounds"][-1]["validation"]["accuracy"]["weight"] == valid


def test_a_split_is_as_its_options_say_by_whichever_of_them(hansa_cli: Any) -> None:
    def clients(*words: str) -> int:
        return len(json.loads(hansa_cli("split", "digits", "--json", *words))["clients"])

    assert clients("-o", "a") == 3
    assert clients("-o", "b", "--set", "clients=5") == 5
    assert clients("-o", "c", "--clients", "4", "--set", "clients=5") == 4
    assert clients("-o", "d", "--set", "scheme=dirichlet", "--set", "alpha=9") == 3
    hansa_cli("split", "digits", "--set", "scheme=natural", "--clients", "4", status=2)


def test_ctrl_c_says_how_to_go_on(
    hansa_cli: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hansa.watch import PlainLines

    hansa_cli("init", "study")
    real = PlainLines.committed

    def interrupt(self: Any, row: Any, problems: Any) -> None:
        real(self, row, problems)
        if row["round"] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PlainLines, "committed", interrupt)
        text = hansa_cli("run", "study", "--rounds", "4", status=130)
    assert "Interrupted after round 2" in text
    assert "stopped" in hansa_cli("ls")
    told = hansa_cli("run", "study", "--resume", "study-1", status=2)
    assert "study would not be read" in told and "hansa run --resume study-1" in told
    assert "Continuing study-1 after round 2" in hansa_cli("run", "study", "--rounds", "4")


def test_show_tells_what_clients_have_answered(hansa_cli: Any, home: Path) -> None:
    hansa_cli("init", "study")
    model = home / "study" / "model.py"
    model.write_text(
        model.read_text() + "\n\nimport hansa\n\n\n@hansa.task('rows')\n"
        "def rows(params, data, ctx):\n    return {'rows': data.train.examples}\n"
    )
    workflow = 'workflow={name="broadcast_and_process",task="rows"}'
    hansa_cli("run", "study", "--rounds", "1", "--set", workflow)
    text = hansa_cli("show")
    rows = [int(n) for n in re.findall(r'"rows": (\d+)', text)]
    held = [sum(n) for n in json.loads(hansa_cli("show", "--json"))["partition"]["counts"]]
    assert "answers of round 1" in text and len(rows) == 10
    assert all(0 < train <= all_of_it for train, all_of_it in zip(rows, held, strict=True))
    assert len(set(rows)) > 1


def test_another_model_from_the_same_plan_is_an_error(hansa_cli: Any, home: Path) -> None:
    hansa_cli("init", "study")
    hansa_cli("run", "study", "--rounds", "1")
    log = home / "runs" / "study-1" / "events.jsonl"
    record = json.loads(hansa_cli("show", "--json"))
    digest = record["model_digest"]
    log.write_text(log.read_text().replace(digest, "blake3:" + "0" * 64))
    text = hansa_cli("reproduce", "study-1", status=1)
    assert "run-not-reproduced" in text and digest in text


def test_a_run_without_a_round_has_no_model_to_export(
    hansa_cli: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hansa.simulation.runner import Runner

    def interrupt(self: Any, name: str) -> None:
        raise KeyboardInterrupt

    hansa_cli("init", "study")
    with monkeypatch.context() as patch:
        patch.setattr(Runner, "train", interrupt)
        assert "after round 0" in hansa_cli("run", "study", status=130)
    assert "run-not-finished" in hansa_cli("export", status=1)
    assert "run-not-finished" in hansa_cli("reproduce", status=1)


def test_a_run_is_continued_by_name_with_its_own_plan(
    hansa_cli: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hansa.watch import PlainLines

    def interrupt(self: Any, row: Any, problems: Any) -> None:
        raise KeyboardInterrupt

    hansa_cli("init", "study")
    with monkeypatch.context() as patch:
        patch.setattr(PlainLines, "committed", interrupt)
        hansa_cli("run", "study", "--rounds", "3", status=130)
    assert "hansa run --resume study-1" in hansa_cli("run", "study", "--rounds", "2")
    (home / "study" / "model.py").write_text("changed = True", encoding="utf-8")
    assert "Continuing study-1 after round 1" in hansa_cli("run", "--resume", "study-1")
    assert "run-ended" in hansa_cli("run", "--resume", "study-1", status=1)
    assert "[usage]" in hansa_cli("run", "--resume", "study-1", "--rounds", "9", status=2)


def test_a_robust_rule_that_needs_more_clients_is_refused_first(hansa_cli: Any) -> None:
    hansa_cli("init", "study")
    rule = 'aggregator={name="krum",byzantine=4}'
    text = hansa_cli("run", "study", "--set", rule, status=1)
    assert "needs 11 updates" in text and "plan-impossible" in text


def test_a_run_made_in_python_says_that_it_cannot_be_reproduced(hansa_cli: Any) -> None:
    import hansa

    hansa.run(learner=hansa.numpy_learner("mlp"), data=hansa.split("digits", clients=2), rounds=1)
    assert "made from Python values" in hansa_cli("reproduce", status=1)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_run_that_may_only_be_read_is_shown(
    hansa_cli: Any, home: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    hansa_cli("init", "study")
    hansa_cli("run", "study", "--rounds", "1")

    def refused(*_: Any) -> None:
        raise OSError(number, "no", "runs/study-1/report.html")

    monkeypatch.setattr("hansa.runs.record.write_durably", refused)
    text = hansa_cli("show")
    assert "study-1: finished" in text and "not written: you may not write there" in text


NOTING = """
import numpy as np

log = open(f"log-{__import__('os').getpid()}.txt", "w")


def data(client):
    return {"train": [client], "validation": [client]}


def init(rng, sample):
    return {"w": np.zeros(2, np.float32)}


def train(params, data, ctx):
    log.write("trained\\n")
    return params, {}
"""


@pytest.mark.parametrize("engine", ["inline", "processes"])
def test_what_code_writes_into_a_file_it_never_closes_is_in_it_at_the_end(
    home: Path, engine: str
) -> None:
    """As with plain python: processes that ended without a search for garbage lost it."""
    learner = 'learner = { kind = "function", module = "model.py" }'
    plan = f'name = "noting"\nrounds = 2\n{learner}\ndata = {{ clients = 3 }}\n'
    (home / "plan.toml").write_text(plan, encoding="utf-8")
    (home / "model.py").write_text(NOTING, encoding="utf-8")
    words = [sys.executable, "-m", "hansa", "run", ".", "--engine", engine]
    subprocess.run(words, check=True, cwd=home)
    logs = [path.read_text(encoding="utf-8") for path in home.rglob("log-*.txt")]
    assert sum(text.count("trained\n") for text in logs) == 6
