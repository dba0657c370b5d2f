"""One whole simulated run, on both engines, with clients that behave and clients that do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from projects import final_model, make_project, simulate

from hansa.errors import HansaError, PlanError, RunError
from hansa.project import open_project
from hansa.simulation import Simulation, continue_run, open_run

VALUES = np.array([1.5, -4.0, 0.25, 8.0, -0.5])
SIZES = np.array([3, 1, 7, 2, 5])


def weighted(values: np.ndarray, sizes: np.ndarray, rounds: int) -> float:
    return rounds * 0.5 * float((values * sizes).sum() / sizes.sum())


@pytest.mark.parametrize("engine", ["inline", "processes"])
def test_the_model_is_the_weighted_mean_of_what_clients_did(tmp_path: Path, engine: str) -> None:
    run = simulate(make_project(tmp_path), engine=engine)
    model = final_model(run)
    expected = weighted(VALUES, SIZES, rounds=3)
    np.testing.assert_allclose(model["w"], expected * np.array([1, 2, 3]), rtol=1e-6)


def test_clients_of_names_are_chosen_and_needed_by_them(tmp_path: Path) -> None:
    """Of three named sites two are asked: (3 * 1.5 + 2 * 8) / 5 a round, halved by the rate."""
    folder = make_project(tmp_path, rounds=1)
    module = (folder / "model.py").read_text()
    (folder / "model.py").write_text(module.replace('"client-0"', '"north"').replace(
        '"client-3"', '"south.2"'))  # fmt: skip
    named = ('data.clients=["client-1", "north", "south.2"]', 'cohort.mandatory=["south.2"]')
    run = simulate(folder, *named, 'cohort.where={name = ["north", "south.2"]}')
    expected = weighted(VALUES[[0, 3]], SIZES[[0, 3]], rounds=1)
    np.testing.assert_allclose(final_model(run)["w"], expected * np.array([1, 2, 3]), rtol=1e-6)
    with pytest.raises(PlanError, match="there is no such client"):
        simulate(folder, 'data.clients=["north"]', 'cohort.mandatory=["client-3"]')


def test_an_integer_counter_is_averaged_by_weight_and_rounded_each_round(tmp_path: Path) -> None:
    model = final_model(simulate(make_project(tmp_path, rounds=2)))
    step = float((SIZES * SIZES).sum() / SIZES.sum())  # each client adds its size
    assert model["n"].dtype == np.int64
    assert model["n"] == round(round(step) + step)


@pytest.mark.parametrize(
    "rule", ["mean", "median", '{ name = "norm_bounded_mean", norm_limit = 2.0 }']
)
def test_every_engine_and_number_of_workers_gives_the_same_bytes(tmp_path: Path, rule: str) -> None:
    digests = set()
    for name, engine, workers in [("a", "inline", 1), ("b", "processes", 1), ("c", "processes", 3)]:
        project = make_project(tmp_path / name)
        set_rule = f"aggregator={rule}" if "{" in rule else f'aggregator="{rule}"'
        run = simulate(project, set_rule, engine=engine, workers=workers)
        digests.add(run.commits()[-1]["model"])
    assert len(digests) == 1


def test_the_median_of_clients_ignores_their_weights(tmp_path: Path) -> None:
    model = final_model(simulate(make_project(tmp_path, rounds=1), 'aggregator="median"'))
    np.testing.assert_allclose(model["w"], 0.5 * np.median(VALUES) * np.array([1, 2, 3]))


RAISE = 'if data[0] == "client-3": raise ValueError("the disk of client-3 is broken")'


@pytest.mark.parametrize("engine", ["inline", "processes"])
def test_a_raising_client_fails_alone_and_its_traceback_is_kept(
    tmp_path: Path, engine: str
) -> None:
    run = simulate(make_project(tmp_path, train=RAISE, rounds=2), engine=engine)
    others = np.arange(5) != 3
    expected = weighted(VALUES[others], SIZES[others], rounds=2)
    np.testing.assert_allclose(final_model(run)["w"][0], expected, rtol=1e-6)
    problems = [e for e in run.log.events if e["kind"] == "problem"]
    assert [p["client"] for p in problems] == ["client-3", "client-3"]
    assert problems[0]["what"] == "failed"
    assert "the disk of client-3 is broken" in (run.path / problems[0]["file"]).read_text()
    assert run.rows()[0]["clients"] == {"asked": 5, "accepted": 4, "failed": 1, "refused": 0}


def test_a_round_below_the_minimum_fails_the_run_and_says_who_was_missing(tmp_path: Path) -> None:
    folder = make_project(tmp_path, train=RAISE, more="[cohort]\nminimum = 5")
    with pytest.raises(RunError, match=r"4 updates.*minimum is 5.*client-3.*disk") as error:
        simulate(folder)
    assert error.value.code == "run-too-few"


def test_a_run_whose_clients_all_fail_has_failed_for_good(tmp_path: Path) -> None:
    folder = make_project(tmp_path, train='raise OSError("no scanner attached")')
    with pytest.raises(RunError, match="no scanner attached") as error:
        simulate(folder)
    assert error.value.code == "run-all-failed"
    from hansa.runs import find_run

    run = find_run(folder / "runs", None)
    assert run.state == "failed"
    assert run.log.last("ended")["code"] == "run-all-failed"
    with pytest.raises(RunError):  # a new run is made; the failed one stays as it is
        simulate(folder)
    assert len(list((folder / "runs").glob("steps-*"))) == 2


@pytest.mark.parametrize(
    ("train", "code"),
    [
        ('if data[0] == "client-2": params["w"][1] = np.nan', "update-not-finite"),
        ('if data[0] == "client-2": params["w"][1] = np.inf', "update-not-finite"),
        ('if data[0] == "client-2": params["w"][1] = 1e9', "update-out-of-bound"),
    ],
)
def test_a_poisonous_update_is_refused_by_name_and_the_round_goes_on(
    tmp_path: Path, train: str, code: str
) -> None:
    run = simulate(make_project(tmp_path, train=train, rounds=1))
    problem = run.log.last("problem")
    assert (problem["client"], problem["what"], problem["code"]) == ("client-2", "refused", code)
    others = np.arange(5) != 2
    expected = weighted(VALUES[others], SIZES[others], rounds=1)
    np.testing.assert_allclose(final_model(run)["w"][0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ("return None", "NoneType"),
        ('return {"w": params["w"]}', "n as nothing"),
        ('return {"w": params["w"].astype(np.float64), "n": params["n"]}', "F64"),
        ('return {"w": params["w"][:2], "n": params["n"]}', r"\[2\]"),
        ('return params, {"loss": "low"}', "not a number"),
    ],
)
def test_training_that_returns_something_else_is_told_what(
    tmp_path: Path, returned: str, words: str
) -> None:
    with pytest.raises(RunError, match=words):
        simulate(make_project(tmp_path, train=returned))


DIE_ONCE = """
flag = HERE / "died"
if data[0] == "client-3" and not flag.exists():
    flag.touch()
    os._exit(9)
"""


def test_a_dead_worker_is_replaced_and_nothing_it_folded_is_lost_or_doubled(tmp_path: Path) -> None:
    undisturbed = simulate(make_project(tmp_path / "a"), engine="processes", workers=1)
    disturbed = simulate(
        make_project(tmp_path / "b", train=DIE_ONCE), engine="processes", workers=1
    )
    assert (tmp_path / "b" / "died").exists()
    assert disturbed.commits()[-1]["model"] == undisturbed.commits()[-1]["model"]
    assert not [e for e in disturbed.log.events if e["kind"] == "problem"]


def test_a_client_that_kills_two_workers_is_a_failed_client(tmp_path: Path) -> None:
    train = 'if data[0] == "client-1": os._exit(9)'
    run = simulate(make_project(tmp_path, train=train, rounds=1), engine="processes", workers=2)
    assert run.log.last("problem")["code"] == "client-lost"
    assert run.rows()[0]["clients"]["accepted"] == 4


def test_what_user_code_prints_does_not_disturb_the_engine(tmp_path: Path) -> None:
    train = 'print("hello from", data[0]); os.write(1, b"raw bytes\\n")'
    run = simulate(make_project(tmp_path, train=train, rounds=1), engine="processes", workers=2)
    assert run.state == "finished"
    assert "hello from" in (run.path / "workers.log").read_text()


def test_evaluation_at_clients_is_pooled_with_their_weights_and_spread_is_kept(
    tmp_path: Path,
) -> None:
    run = simulate(make_project(tmp_path, rounds=1))
    summary = run.rows()[0]["validation"]["first"]
    w0 = float(final_model(run)["w"][0])
    # each client evaluates on one example: its size plus the first weight
    assert summary["by_client"]["client-2"] == pytest.approx(w0 + 7)
    assert summary["mean"] == pytest.approx(w0 + SIZES.mean())
    assert (summary["min"], summary["max"]) == (
        pytest.approx(w0 + 1),
        pytest.approx(w0 + 7),
    )


def test_a_part_of_the_clients_is_sampled_anew_each_round_from_the_seed(tmp_path: Path) -> None:
    sets = ("cohort.count=2", "rounds=6")
    first = simulate(make_project(tmp_path / "a"), *sets)
    again = simulate(make_project(tmp_path / "b"), *sets)
    other = simulate(make_project(tmp_path / "c"), *sets, "seed=4")
    cohorts = [tuple(row["train"]["loss"]["by_client"]) for row in first.rows()]
    assert all(len(c) == 2 for c in cohorts)
    assert len(set(cohorts)) > 1
    assert cohorts == [tuple(row["train"]["loss"]["by_client"]) for row in again.rows()]
    assert first.commits()[-1]["model"] == again.commits()[-1]["model"]
    assert first.commits()[-1]["model"] != other.commits()[-1]["model"]


def test_more_clients_wanted_than_there_are_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(PlanError) as error:
        simulate(make_project(tmp_path, more="[cohort]\nminimum = 6"))
    assert error.value.code == "plan-impossible"
    assert not (tmp_path / "runs").exists()


def test_the_processes_engine_refuses_code_that_is_not_in_files(home: Path) -> None:
    import hansa

    with pytest.raises(PlanError) as error:
        hansa.run(
            learner=hansa.numpy_learner(), data=hansa.split("digits", clients=3), engine="processes"
        )
    assert error.value.code == "engine-needs-project"


def test_a_module_that_cannot_be_imported_in_a_worker_is_a_clear_error(tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    text = (folder / "model.py").read_text()
    (folder / "model.py").write_text(
        "import sys\nif 'hansa.simulation.worker' in sys.argv[0] or 'worker' in sys.argv[0]:"
        "\n    raise RuntimeError('no licence on this core')\n" + text
    )
    with pytest.raises(HansaError, match="no licence"):
        simulate(folder, engine="processes")


DIE_LATE = """
flag = HERE / "died"
if data[0] == "client-1" and ctx.round == 3 and not flag.exists():
    flag.touch()
    os._exit(9)
"""


def test_a_worker_that_dies_in_a_late_round_is_replaced_too(tmp_path: Path) -> None:
    undisturbed = simulate(make_project(tmp_path / "a", rounds=4))
    late = make_project(tmp_path / "b", train=DIE_LATE, rounds=4)
    disturbed = simulate(late, engine="processes", workers=2)
    assert (late / "died").exists()
    assert disturbed.commits()[-1]["model"] == undisturbed.commits()[-1]["model"]


@pytest.mark.parametrize("engine", ["inline", "processes"])
@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("raise SystemExit(3)", "SystemExit"),
        ('raise ValueError("no file " + os.fsdecode(b"\\\\xff.nii"))', "no file"),
        ('raise ValueError("x" * 3_000_000)', "xxxx"),
    ],
)
def test_whatever_a_client_raises_is_its_own_problem(
    tmp_path: Path, engine: str, statement: str, words: str
) -> None:
    train = f'if data[0] == "client-4": {statement}'
    run = simulate(make_project(tmp_path, train=train, rounds=1), engine=engine)
    problem = run.log.last("problem")
    assert (problem["client"], problem["what"]) == ("client-4", "failed")
    assert words in problem["message"] and len(problem["message"]) <= 2_000
    assert run.state == "finished"


def test_a_failed_run_tells_of_every_client_that_failed_in_its_last_round(tmp_path: Path) -> None:
    folder = make_project(tmp_path, train='raise OSError("no scanner attached")')
    with pytest.raises(RunError, match=r"client-0.*and 2 more.*failures/round-000001-train"):
        simulate(folder)
    from hansa.runs import find_run
    from hansa.runs.record import run_record

    run = find_run(folder / "runs", None)
    problems = run_record(run)["problems"]
    assert [p["client"] for p in problems] == [f"client-{i}" for i in range(5)]
    assert all((run.path / p["file"]).is_file() for p in problems)


WIDE = """
import numpy as np
from hansa.algorithms import Vectors, fed_avg

def fed_wide():
    def server(state, mean, share):
        return Vectors(x=state.x + np.sqrt(np.float64(0.5)) * mean.delta)
    return fed_avg()._replace(name="fed_wide", server=server)
"""


def test_a_state_stays_in_its_precision_so_that_an_interruption_changes_nothing(
    tmp_path: Path,
) -> None:
    digests = []
    for name, interrupted in (("a", False), ("b", True)):
        folder = make_project(tmp_path / name, rounds=3)
        (folder / "wide.py").write_text(WIDE)
        if interrupted:
            _interrupt_after(folder, 2, "algorithm=wide.py:fed_wide")
        digests.append(simulate(folder, "algorithm=wide.py:fed_wide").commits()[-1]["model"])
    assert digests[0] == digests[1]


def _interrupt_after(folder: Path, rounds: int, *sets: str) -> None:
    """Run a project and press Ctrl-C after some rounds."""
    from hansa.simulation import Unwatched

    class Impatient(Unwatched):
        def committed(self, row: dict[str, Any], problems: Any) -> None:
            if row["round"] == rounds:
                raise KeyboardInterrupt

    project = open_project(folder, sets)
    simulation = Simulation(folder / "runs")
    run, population = open_run(project, simulation)
    with pytest.raises(KeyboardInterrupt):
        continue_run(run, project, population, simulation=simulation, watcher=Impatient())


def test_a_second_process_that_comes_late_leaves_a_finished_run_alone(tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    _interrupt_after(folder, 1)
    project, simulation = open_project(folder), Simulation(folder / "runs")
    late, population = open_run(project, simulation)  # has read the log as it is now
    finished = simulate(folder)
    content = (finished.path / "events.jsonl").read_bytes()
    with pytest.raises(RunError) as error:
        continue_run(late, project, population, simulation=simulation)
    assert error.value.code == "run-ended"
    assert (finished.path / "events.jsonl").read_bytes() == content


def test_a_run_is_not_continued_on_other_data(tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    table = tmp_path / "cases.csv"
    rows = [f"{i % 7},{i % 3},{'yes' if i % 2 else 'no'}" for i in range(60)]
    table.write_text("a,b,outcome\n" + "\n".join(rows))
    plan = (
        'name = "cases"\nrounds = 3\n[learner]\nkind = "numpy"\n[data]\n'
        f'set = "{table.as_posix()}"\ntarget = "outcome"\nsplit = {{ scheme = "iid", clients = 3 }}'
    )
    (folder / "plan.toml").write_text(plan)
    _interrupt_after(folder, 1)
    table.write_text("a,b,outcome\n" + "\n".join(rows).replace("5,", "6,"))
    with pytest.raises(RunError) as error:
        simulate(folder)
    assert error.value.code == "run-changed"


def test_code_that_changes_under_a_running_simulation_is_not_mixed_in(tmp_path: Path) -> None:
    change = (
        'if data[0] == "client-1" and ctx.round == 2:\n'
        '    (HERE / "model.py").write_text("changed = True")\n'
        "    os._exit(9)"
    )
    folder = make_project(tmp_path, train=change)
    with pytest.raises(HansaError) as error:
        simulate(folder, engine="processes", workers=1)
    assert error.value.code in ("run-changed", "learner-incomplete")
