"""Goal: clients that keep their parts train the joint model, and no crash brings parts apart.

Method: NumPy on all columns together, as for parts that are in the model.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from own_parts import MODEL, PLAN, kept, parts, start
from projects import run, run_interrupted
from split_projects import COLUMNS, jointly, written

from hansa.errors import RunError, SiteError
from hansa.params import Params
from hansa.runs import RunFolder
from hansa.store.addresses import digest_of_file
from hansa.store.task_states import TaskStates


def check(made: RunFolder, model: dict[str, np.ndarray]) -> None:
    expected, loss = jointly(start())
    for name in ("v", "b"):
        np.testing.assert_allclose(model[f"head/{name}"], expected[f"head/{name}"], rtol=1e-9)
    found = parts(made)
    assert found.keys() == COLUMNS.keys()
    for client in COLUMNS:
        assert not np.allclose(start()[f"{client}/w"], found[client]["w"], atol=1e-3)
        np.testing.assert_allclose(found[client]["w"], expected[f"{client}/w"], rtol=1e-9)
    assert made.rows()[-1]["validation"]["loss"]["mean"] == pytest.approx(loss, rel=1e-9)


@pytest.mark.parametrize("engine", ["inline", "processes"])
def test_it_is_the_joint_model_trained_in_one_place(tmp_path: Path, engine: str) -> None:
    made = run(written(tmp_path / "p", MODEL, PLAN), tmp_path / "runs", engine=engine)
    model = made.load(made.commits()[-1])[0].to_dict()
    check(made, model)
    assert model.keys() == {"head/v", "head/b"}
    assert parts(made)["client-2"].keys() == {"w", "steps"}
    assert parts(made)["client-2"]["steps"] == 12


@pytest.mark.parametrize("call", [2, 17, 20, 23, 41])
def test_an_interrupted_run_ends_with_the_same_bytes_of_all_parts(
    tmp_path: Path, call: int
) -> None:
    """Interrupted between any two tasks: parts of clients must not be a batch ahead."""
    folder = written(tmp_path / "p", MODEL, PLAN)
    whole = run(folder, tmp_path / "whole")
    made = run_interrupted(folder, tmp_path / "runs", "ask", call=call)
    assert made.commits()[-1]["model"] == whole.commits()[-1]["model"]
    assert kept(made) == kept(whole)


def test_a_state_that_is_damaged_is_not_gone_on_with(tmp_path: Path) -> None:
    folder = written(tmp_path / "p", MODEL, PLAN)
    made = run(folder, tmp_path / "runs", "rounds=1")
    states = TaskStates(made.path / "clients" / "tasks")
    digest = kept(made)["client-1"]
    place = next((made.path / "clients" / "tasks").rglob(f"*{digest[7:]}.safetensors"))
    content = bytearray(place.read_bytes())
    content[-1] ^= 1
    place.write_bytes(content)
    with pytest.raises(SiteError, match="client-1") as caught:
        states.load("client-1", digest)
    assert caught.value.code == "site-damaged"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("return None, {}", 'return {"w": dw}, {}', "keeps its own part"),
        ('{"head/v"', '{"client-1/w": np.zeros(2), "head/v"', "a part of client-1"),
        ('ctx.state["x"] = x', 'ctx.state["x"] = np.zeros(2**24)', "bytes of state"),
    ],
)
def test_what_is_no_split_model_ends_the_run(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in MODEL
    folder = written(tmp_path / "p", MODEL.replace(old, new), PLAN)
    with pytest.raises(RunError, match=told):
        run(folder, tmp_path / "runs", "rounds=1")


def test_only_the_states_that_may_be_asked_for_stay(tmp_path: Path) -> None:
    """That of the commit, that of the task under way, and the one that it left."""
    states = TaskStates(tmp_path)

    def left(number: int, begun: str, value: float) -> str:
        states.save("a", number, Params.of({"w": np.array(value)}), begun=begun)
        found = [digest_of_file(file)[0] for file in tmp_path.rglob("*.safetensors")]
        return next(d for d in found if states.load("a", d)["w"] == value)  # type: ignore[index]

    one = left(1, "", 1.0)
    two = left(1, one, 2.0)
    left(2, two, 3.5)  # an attempt that a crash has ended
    three = left(2, two, 3.0)
    four = left(2, three, 4.0)
    five = left(2, four, 5.0)
    kept = {path.name.split(".")[1] for path in tmp_path.rglob("*.safetensors")}
    assert kept == {digest[7:] for digest in (two, four, five)}
    again = left(2, two, 3.0)  # the round is repeated from its commit
    assert again == three and states.load("a", two)["w"] == 2.0  # type: ignore[index]
    with pytest.raises(SiteError):
        states.load("a", one)
    assert states.load("b", "") is None
    for number in (3, 4, 5):
        again = left(number, again, 3.0)  # nothing changes
    assert sorted(path.name.split(".")[0] for path in tmp_path.rglob("*.safetensors")) == ["4", "5"]
