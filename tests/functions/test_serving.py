"""Goal: server functions do what they say, in closed form, and a run with them keeps the laws.

Method: clients that move to the mean of their own rows, by hand in NumPy beside it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from projects import run, run_interrupted
from served_projects import VALUES, model, written

from hansa.errors import LearnerError, PlanError, RunError
from hansa.functions.serving import told
from hansa.learners.learner import Hyper
from hansa.plan import read_plan
from hansa.project import open_project

HALVES = """
import numpy as np
def select(round, clients, memory):
    memory.setdefault("asked", []).append(round)
    return clients[: 2 + round % 2]
def settings(round, clients):
    return {"rate": 1.0 / round, "lr": 0.25}
def aggregate(round, model, updates, memory):
    # Least weight counts most, and last round's step counts half again.
    weights = {c: 1.0 / u.weight for c, u in updates.items()}
    mean = sum(w * updates[c].model["w"] for c, w in weights.items()) / sum(weights.values())
    step = (mean - model["w"]) + 0.5 * memory.get("step", np.zeros(2))
    memory["step"] = step
    return {"w": model["w"] + step}
"""


def by_hand() -> np.ndarray:
    w, before = np.array([0.5, -1.0]), np.zeros(2)
    for number in (1, 2, 3):
        asked = list(VALUES)[: 2 + number % 2]
        rate = 0.25 / number
        weights = np.array([1.0 / VALUES[c][1] for c in asked])
        trained = np.array([w + rate * (VALUES[c][0] - w) for c in asked])
        before = (weights @ trained / weights.sum() - w) + 0.5 * before
        w = w + before
    return w


def test_selection_settings_and_aggregation_are_those_of_the_project(tmp_path: Path) -> None:
    made = run(written(tmp_path / "p", HALVES), tmp_path / "runs")
    np.testing.assert_allclose(model(made), by_hand(), rtol=2e-6)
    rows = made.rows()
    assert [row["clients"]["asked"] for row in rows] == [3, 2, 3]
    assert [row["server_functions"]["settings"]["rate"] for row in rows] == [1, 0.5, 1 / 3]
    assert rows[0]["train"]["lr"]["mean"] == 0.25  # lr takes effect without the code's help


def test_the_same_functions_give_the_same_bytes_in_every_engine(tmp_path: Path) -> None:
    folder = written(tmp_path / "p", HALVES)
    digests = {
        run(folder, tmp_path / engine, engine=engine).commits()[-1]["model"]
        for engine in ("inline", "processes")
    }
    assert len(digests) == 1


def test_an_interrupted_run_ends_with_the_bytes_of_one_that_was_not(tmp_path: Path) -> None:
    """What functions remember is part of the commit: here the step before, and a list."""
    folder = written(tmp_path / "p", HALVES)
    whole = run(folder, tmp_path / "whole").commits()[-1]["model"]
    made = run_interrupted(folder, tmp_path / "runs", "commit", call=2)
    assert made.commits()[-1]["model"] == whole


def test_a_random_selection_is_that_of_the_seed(tmp_path: Path) -> None:
    code = (
        "import random\n"
        "def select(clients, rng):\n"
        "    return [*rng.choice(clients, 1), random.choice(clients)]\n"
    )
    folder = written(tmp_path / "p", code)
    first, again = (run(folder, tmp_path / name) for name in ("a", "b"))
    other = run(folder, tmp_path / "c", "seed=12")
    assert first.commits()[-1]["model"] == again.commits()[-1]["model"]
    assert first.commits()[-1]["model"] != other.commits()[-1]["model"]


BAD = {
    "raises": ("def select(clients):\n    return clients[9]", "line 2, raised IndexError"),
    "chooses a stranger": ('def select(clients): return ["eve"]', "'eve', who is not there"),
    "chooses nobody": ("def select(clients): return []", "chose 0 clients, and a round needs 1"),
    "settings are no dict": ("def settings(): return 3", "no dict"),
    "NaN in settings": ('def settings(): return {"x": float("nan")}', "NaN"),
    "asks for what is not there": ("def settings(modle): return {}", "asks for 'modle'"),
    "bytes in settings": ('def settings(): return {"x": b"y"}', "JSON"),
    "a date in settings": (
        "from datetime import datetime, timezone\n"
        "def settings(): return {'x': datetime.now(timezone.utc)}",
        "JSON",
    ),
    "values beyond float32": (
        'def aggregate(model): return {"w": model["w"].astype("f8") * 1e300}',
        "float32",
    ),
    "NaN": ('def aggregate(model): return {"w": model["w"] * float("nan")}', "NaN or infinity"),
    "wrong shape": ('def aggregate(model): return {"w": model["w"][:1]}', "shape [1]"),
    "wrong names": ('def aggregate(model): return {"v": model["w"]}', "tensor 'v'"),
    "no arrays": ("def aggregate(model): return None", "NoneType"),
    "text": ('def aggregate(model): return {"w": ["a", "b"]}', "failed"),
    "exits": ("import os\ndef select(clients): os._exit(3)", "status 3"),
    "leaves": ("def select(clients): raise SystemExit(0)", "SystemExit"),
    "imports what is not there": ("import nothing_such\ndef select(clients): pass", "nothing_such"),
    "remembers an object": (
        "def select(clients, memory):\n    memory['x'] = object()\n    return clients",
        "of type object",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_function_that_fails_ends_the_run_and_says_why(tmp_path: Path, name: str) -> None:
    code, told = BAD[name]
    folder = written(tmp_path / "p", code)
    with pytest.raises(RunError) as caught:
        run(folder, tmp_path / "runs", "rounds=1")
    assert caught.value.code == "function-failed"
    assert told in caught.value.happened and "server.py" in caught.value.happened


def test_a_function_that_hangs_is_ended(tmp_path: Path) -> None:
    folder = written(tmp_path / "p", "def select(clients):\n    while True: pass")
    with pytest.raises(RunError) as caught:
        run(folder, tmp_path / "runs", "rounds=1", "server_functions.time_s=3")
    assert caught.value.code == "function-time" and "select()" in caught.value.happened


@pytest.mark.parametrize("name", ["raises", "NaN", "settings are no dict"])
def test_a_failing_function_gives_way_only_if_the_plan_says_so(tmp_path: Path, name: str) -> None:
    """The round then is, to the byte, that of a plan without the function; and its row says so."""
    folder = written(tmp_path / "p", BAD[name][0])
    made = run(folder, tmp_path / "runs", "server_functions.failing=default", "rounds=2")
    plain = written(tmp_path / "plain", "def settings(): return {}")
    expected = run(plain, tmp_path / "plain-runs", "rounds=2")
    assert made.commits()[-1]["model"] == expected.commits()[-1]["model"]
    failed = made.rows()[-1]["server_functions"]["failed"]
    assert len(failed) == 1 and BAD[name][1] in next(iter(failed.values()))


def test_a_plan_says_the_file_alone_or_in_a_table() -> None:
    assert read_plan({"server_functions": "server.py"}).plan.server_functions.file == "server.py"
    changed = read_plan({"server_functions": {"time_s": 2.0}}, ["server_functions=other.py"]).plan
    assert (changed.server_functions.file, changed.server_functions.time_s) == ("other.py", 2.0)


IMPOSSIBLE = {
    "no file": ('file = "gone.py"', "no such file", ""),
    "a path": ('file = "../server.py"', "name of a .py file", ""),
    "too long": ('file = "server.py"\ntime_s = 1e9', "at most 600", ""),
    "cyclic": ('file = "server.py"', "the workflow cyclic", 'workflow = "cyclic"'),
    "scaffold": ('file = "server.py"', "needs the mean", 'algorithm = "scaffold"'),
    "steps": ('file = "server.py"', "local steps, which settings", 'weighting = "steps"'),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_cannot_work_is_refused_before_anything_runs(tmp_path: Path, name: str) -> None:
    table, told, top = IMPOSSIBLE[name]
    learner = '[learner]\nkind = "numpy"\n[data]\nset = "digits"\n[data.split]\nscheme = "iid"\n'
    plan = f"{top}\n[server_functions]\n{table}\n{learner}clients = 2\n"
    code = "def aggregate(model): return model\ndef settings(): return {}"
    with pytest.raises(PlanError, match=told):
        open_project(written(tmp_path / "p", code, plan))


@pytest.mark.parametrize("code", ["x = 1", "def (", "class select: pass", ""])
def test_a_file_without_a_function_is_refused(tmp_path: Path, code: str) -> None:
    with pytest.raises(PlanError, match=r"server\.py"):
        open_project(written(tmp_path / "p", code))


def test_a_plan_without_server_functions_starts_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("hansa.functions.place.Room")
    folder = written(tmp_path / "p", "")
    text = (folder / "plan.toml").read_text().replace('[server_functions]\nfile = "server.py"', "")
    (folder / "plan.toml").write_text(text)
    assert run(folder, tmp_path / "runs", "rounds=1").state == "finished"


@pytest.mark.parametrize("value", [0, -1, 0.5, "many", True, float("inf")])
def test_a_setting_that_training_cannot_have_fails_the_client(value: object) -> None:
    with pytest.raises(LearnerError) as caught:
        Hyper().told({"epochs": value})
    assert caught.value.code == "learner-settings"
    told = Hyper(steps=3).told({"epochs": 2, "lr": 0.5, "mine": value})
    assert (told.epochs, told.steps, told.lr, told.settings["mine"]) == (2, None, 0.5, value)


def test_data_owners_are_told_that_updates_are_seen_one_by_one() -> None:
    assert told(read_plan({}).plan) == ""
    sentence = told(read_plan({"server_functions": "server.py"}).plan)
    assert "server.py" in sentence and "each site's update by itself" in sentence


def test_what_is_remembered_and_told_is_the_same_before_and_after_it_was_written(
    tmp_path: Path,
) -> None:
    """Infinity in a memory, and names of settings that are no text, as JSON would change them."""
    code = (
        "def select(clients, memory):\n"
        "    best = memory.get('best', float('inf'))\n"
        "    memory['best'], memory['odd'] = best, float('nan')\n"
        "    return clients\n"
        "def settings(memory):\n"
        "    return {1: memory['best'] > 1e300, 'odd': memory['odd'] != memory['odd']}\n"
    )
    folder = written(tmp_path / "p", code)
    made = run_interrupted(folder, tmp_path / "runs", "commit", call=2)
    told = [row["server_functions"]["settings"] for row in made.rows()]
    assert told == [{"1": True, "odd": True}] * 3


def test_what_functions_remember_does_not_grow_from_round_to_round(tmp_path: Path) -> None:
    """What may come back is measured by the model alone, and not by what came back before."""
    code = (
        "import numpy as np\n"
        "def select(round, clients, memory):\n"
        "    memory['x'] = np.zeros(8**round * 2**14)\n"
        "    return clients\n"
    )
    with pytest.raises(RunError) as caught:
        run(written(tmp_path / "p", code), tmp_path / "runs", "rounds=3")
    assert caught.value.code == "function-failed"
