"""FEDn packages of split learning run unchanged, and their parts outlive a crash.

Method: the joint model trained in one place, in NumPy.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from fedn_packages import columns, joint, split_package, write
from projects import run

from hansa.compat.fedn.head import headed, labels_of
from hansa.compat.fedn.reading import read_package
from hansa.compat.fedn.writing import Import, import_package
from hansa.errors import LearnerError, PlanError, RunError
from hansa.runs import RunFolder
from hansa.store.task_states import TaskStates

pytestmark = pytest.mark.skipif(os.name == "nt", reason="packages are lines for a POSIX shell")

PLAIN = ('algorithm="fed_avg"', "learner.optimizer.lr=0.5", "cohort.minimum=3")
"""The head by plain SGD, for which the oracle is shortest."""


def imported(tmp_path: Path, **asked) -> Path:
    data = str(columns(tmp_path / "sites"))
    return import_package(
        Import(split_package(tmp_path / "client"), tmp_path / "mine", data=data, **asked)
    ).folder


def own_files(made: RunFolder, client: str) -> dict[str, bytes]:
    digests = made.commits()[-1]["progress"]["memory"]["states"]
    state = TaskStates(made.path / "clients" / "tasks").load(client, digests[client])
    assert state is not None
    prefix = "package/client/"
    return {name.removeprefix(prefix): array.tobytes() for name, array in state.items()}


def test_a_package_of_split_learning_trains_the_joint_model(tmp_path):
    made = run(imported(tmp_path), tmp_path / "runs", "rounds=4", *PLAIN)
    expected = joint(4, 0.5)
    model, _ = made.load(made.commits()[-1])
    assert model["head/weight"].shape == (1, 1024)
    np.testing.assert_allclose(model["head/weight"][0, :4], expected["v"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model["head/bias"], expected["b"], rtol=1e-4, atol=1e-6)
    assert not model["head/weight"][0, 4:].any()
    for client in ("bank", "shop"):
        files = own_files(made, client)
        own = {f"local_models/{client}.npz", f"embeddings/{client}.npz", "logs/starts.txt"}
        assert files.keys() == own, "what came with the package is no state"
        with np.load(io.BytesIO(files[f"local_models/{client}.npz"])) as found:
            w = found["w"]
        assert not np.allclose(w, joint(0, 0.5)[client], atol=1e-2)
        np.testing.assert_allclose(w, expected[client], rtol=1e-4, atol=1e-6)
        assert files["logs/starts.txt"] == b"x" * 8, "forward and backward of four rounds"
    loss = made.rows()[-1]["validation"]["loss"]["mean"]
    assert loss == pytest.approx(float(expected["loss"]), rel=1e-4)


def test_the_head_learns_by_adam_as_fedn_s_does(tmp_path):
    """After one step all of Adam's are of the size of its rate, whatever the gradient's."""
    # A path of the package's own does not hide our fedn.
    folder = imported(tmp_path, features=4, env=("PYTHONPATH=nowhere",))
    made = run(folder, tmp_path / "runs", "rounds=1")
    model, _ = made.load(made.commits()[-1])
    np.testing.assert_allclose(np.abs(model["head/weight"]), 0.01, rtol=1e-3)
    signs = np.sign(joint(1, 0.5)["v"])
    np.testing.assert_array_equal(np.sign(model["head/weight"][0]), signs)


def test_the_head_is_the_gradient_of_its_loss():
    rng = np.random.default_rng(0)
    z = {"b": rng.normal(size=(5, 2)), "a": rng.normal(size=(5, 1, 1))}
    y, w, b = np.array([0, 1, 1, 0, 1.0]), rng.normal(size=(1, 6)), np.array([0.3])
    made = headed(w, b, z, y)
    assert made.gradients["weight"].shape == (1, 6) and not made.gradients["weight"][0, 3:].any()
    for name, array in (("weight", w), ("bias", b), ("gradient/a", z["a"]), ("gradient/b", z["b"])):
        found = np.zeros_like(array)
        for at in np.ndindex(array.shape):
            kept = array[at]
            array[at] = kept + 1e-6
            more = headed(w, b, z, y).loss
            array[at] = kept - 1e-6
            found[at] = (more - headed(w, b, z, y).loss) / 2e-6
            array[at] = kept
        np.testing.assert_allclose(made.gradients[name], found, atol=1e-8)
    far = headed(1e6 * w, b, z, y)
    assert np.isfinite(far.loss) and all(np.isfinite(a).all() for a in far.gradients.values())


def test_what_the_head_cannot_join_is_said(tmp_path):
    z, y = {"a": np.ones((2, 3))}, np.array([0.0, 1])
    with pytest.raises(LearnerError, match="3 columns together; the head has 2"):
        headed(np.zeros((1, 2)), np.zeros(1), z, y)
    with pytest.raises(LearnerError, match="2 rows were embedded, and there are 3"):
        headed(np.zeros((1, 3)), np.zeros(1), z, np.zeros(3))
    with pytest.raises(LearnerError, match="not 0 and 1"):
        headed(np.zeros((1, 3)), np.zeros(1), z, np.array([1.0, 2]))
    pickled = tmp_path / "labels.pt"
    pickled.write_bytes(b"PK\x03\x04")
    with pytest.raises(LearnerError, match=r"numpy\.savez"):
        labels_of(pickled, "train")
    np.savez(tmp_path / "labels.npz", y_train=[[0], [1]])
    assert labels_of(tmp_path, "train").tolist() == [0, 1] and labels_of(tmp_path, "x") is None


def test_a_package_that_trains_may_have_more_entry_points(tmp_path):
    both = "entry_points:\n  train: {command: t}\n  forward: {command: f}\n  hello: {command: x}\n"
    found = read_package(write(tmp_path / "client", **{"fedn.yaml": both}))
    assert not found.splits and found.left == ("forward", "hello")
    with pytest.raises(PlanError, match="neither a seed model"):
        import_package(Import(split_package(tmp_path / "s"), tmp_path / "x", init="python i.py"))


def test_no_client_gets_another_client_s_gradient(tmp_path):
    """FEDn sends the gradients of all to all; each picks its own."""
    folder = imported(tmp_path)
    file = folder / "package" / "client" / "backward.py"
    own = "print(sorted(np.load(gradients).files)); raise SystemExit(client)\n"
    file.write_text(file.read_text().replace("dz = get_helper", f"{own}dz = get_helper"))
    with pytest.raises(RunError, match=r"\['bank'\].*bank"):
        run(folder, tmp_path / "runs", "rounds=1", *PLAIN)


def test_a_part_that_fails_ends_the_run_with_its_last_words(tmp_path):
    folder = imported(tmp_path)
    file = folder / "package" / "client" / "backward.py"
    file.write_text("raise SystemExit('no disk')")
    with pytest.raises(RunError, match=r"did not answer backward.*no disk"):
        run(folder, tmp_path / "runs", "rounds=1", *PLAIN)
