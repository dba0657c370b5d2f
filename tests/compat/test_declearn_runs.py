"""Set-ups of declearn in a run, from `hansa import declearn` to the model; the oracles are its
update rules in NumPy, and scikit-learn's own steps."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from declearn_setups import CONFIG, LINEAR, ROWS, SKLEARN, change_rows, rows_of, write_setup
from projects import final_model, simulate

from hansa.cli.import_declearn import declearn as command
from hansa.compat.declearn.models import SklearnSGDModel
from hansa.compat.declearn.writing import import_setup
from hansa.dev import Rehearsal
from hansa.errors import LearnerError, RunError

MULTI = CONFIG.replace('"mse"', '["multi-classif", { labels = [0, 1, 2] }]')
PLAIN = MULTI.replace(CONFIG[CONFIG.index("lrate = 0.1") : CONFIG.index("[run]")], "lrate = 0.1\n")


def batches(rows: int) -> list[slice]:
    """Return a round's batches: two epochs without what is left of them, five steps at most."""
    return [slice(i, i + 2) for _ in range(2) for i in range(0, rows - rows % 2, 2)][:5]


@pytest.mark.torch
def test_two_rounds_of_a_torch_model_are_those_of_declearns_rules(tmp_path: Path) -> None:
    """Goal: x - (lrate u + w_decay x) at both sides, weighted by steps; modules begin anew."""
    pytest.importorskip("torch")
    run = simulate(import_setup(write_setup(tmp_path / "linear")).folder)
    model, kept = np.array([0.5, -1.0, 2.0, -0.25]), np.zeros(4)
    for _ in range(2):
        moved, weights = [], []
        for client in ROWS:
            x, v = model.copy(), np.zeros(4)
            arrays = rows_of(client)
            for part in batches(ROWS[client]):
                a = np.c_[arrays["train_data"][part], np.ones(2)].astype(float)
                g = 2 * a.T @ (a @ x - arrays["train_target"][part, 0]) / 2
                g = g + 2 * 0.05 * x + 0.01 * np.sign(x)
                v = 0.5 * v + g
                u = 0.5 * v + g
                u *= min(1, 2 / np.linalg.norm(u))
                x = x - 0.1 * u - 0.01 * x
            moved.append(model - x)
            weights.append(len(batches(ROWS[client])))
        kept = 0.25 * kept + 0.75 * np.average(moved, axis=0, weights=weights)
        model = model - 0.5 * kept - 0.02 * model
    assert weights == [5, 4, 4]
    found = final_model(run)
    assert found["weight"].dtype == np.float32
    np.testing.assert_allclose(np.r_[found["weight"][0], found["bias"]], model, rtol=2e-5)


def test_two_rounds_of_a_linear_classifier_are_those_of_scikit_learns_steps(
    tmp_path: Path,
) -> None:
    """Goal: the mean over a batch of what one `partial_fit` of rate 1 takes from the weights."""
    sgd = pytest.importorskip("sklearn.linear_model").SGDClassifier
    source = write_setup(tmp_path / "classes", SKLEARN, PLAIN, labels=3)
    run = simulate(import_setup(source).folder)
    model = np.zeros((3, 4))
    for _ in range(2):
        moved, weights = [], []
        for client in ROWS:
            w, arrays = model.copy(), rows_of(client, labels=3)
            for part in batches(ROWS[client]):
                taken = []
                for a, b in zip(
                    arrays["train_data"][part], arrays["train_target"][part], strict=True
                ):
                    one = sgd(loss="log_loss", alpha=0.01, eta0=1.0, learning_rate="constant")
                    one.partial_fit(np.zeros((1, 3)), [0], classes=[0, 1, 2])
                    one.coef_, one.intercept_ = w[:, :3].copy(), w[:, 3].copy()
                    one.partial_fit(a[None].astype(float), [b])
                    taken.append(w - np.c_[one.coef_, one.intercept_])
                w = w - 0.1 * np.mean(taken, axis=0)
            moved.append(w)
            weights.append(len(batches(ROWS[client])))
        model = np.average(moved, axis=0, weights=weights)
    found = final_model(run)
    np.testing.assert_allclose(np.c_[found["coef"], found["intercept"]], model, rtol=1e-6)
    assert "accuracy" in str(run.path.joinpath("metrics.jsonl").read_text())


LOSSES = (
    "hinge", "log_loss", "modified_huber", "squared_hinge", "perceptron", "squared_error", "huber",
    "epsilon_insensitive", "squared_epsilon_insensitive",
)  # fmt: skip
KINDS = [
    *product(["classifier"], LOSSES, ["l2", "elasticnet"]),
    *product(["regressor"], (LOSSES[5], *LOSSES[6:]), [None, "l1"]),
]


@pytest.mark.parametrize(("kind", "loss", "penalty"), KINDS)
def test_a_linear_models_gradient_is_that_of_scikit_learns_steps(
    kind: str, loss: str, penalty: str | None
) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    of = linear.SGDClassifier if kind == "classifier" else linear.SGDRegressor
    options = {"loss": loss, "penalty": penalty, "alpha": 0.1, "l1_ratio": 0.3, "epsilon": 0.2}
    draw = np.random.default_rng(5)
    x, w, b = draw.standard_normal((20, 4)) - 0.3, draw.standard_normal(4), np.array([0.7])
    y = draw.integers(0, 2, 20) if kind == "classifier" else draw.standard_normal(20) - 1
    taken = []
    for row, target in zip(x, y, strict=True):
        one = of(**options, eta0=1.0, learning_rate="constant")
        more = {"classes": [0, 1]} if kind == "classifier" else {}
        one.partial_fit(np.zeros((1, 4)), [target], **more)
        one.coef_, one.intercept_ = w.reshape(one.coef_.shape).copy(), b.copy()
        one.partial_fit(row[None], [target])
        taken.append(np.r_[w - one.coef_.ravel(), b - one.intercept_])
    model = SklearnSGDModel.from_parameters(kind, **options)
    model.initialize([4], 2 if kind == "classifier" else 0)
    model.load({"coef": w.reshape(model.trained["coef"].shape), "intercept": b})
    found, _ = model.gradient(x, y)
    np.testing.assert_allclose(
        np.r_[found["coef"].ravel(), found["intercept"]], np.mean(taken, axis=0), atol=1e-12
    )


def test_engines_and_a_rehearsed_federation_give_the_same_bytes(tmp_path: Path) -> None:
    source = write_setup(tmp_path / "classes", SKLEARN, PLAIN, labels=3)
    runs = []
    for engine in ("inline", "processes"):
        done = CliRunner().invoke(command, [str(source), "-o", str(tmp_path / engine)])
        assert done.exit_code == 0, done.output
        runs.append(simulate(tmp_path / engine, engine=engine))
    folder = import_setup(source, tmp_path / "rehearsed-project").folder
    with Rehearsal(tmp_path / "rehearsed", folder) as rehearsal:
        runs.append(rehearsal.run())
    assert len({run.commits()[-1]["model"] for run in runs}) == 1


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (SKLEARN.replace("model =", "other ="), "model of model.py is nothing"),
        (SKLEARN + "\nclass Mine(SklearnSGDModel):\n    pass\n\nmodel = Mine.from_parameters("
         "'classifier')\n", "of type Mine"),
        ("from declearn.model.tensorflow import TensorflowModel\nmodel = TensorflowModel(1)",
         "makes a TensorflowModel"),
        ("import declearn.dataset", "that Hansa does not stand in for"),
        (SKLEARN.replace("log_loss", "log"), "line 4 raised ValueError"),
    ],
)  # fmt: skip
def test_a_model_file_that_cannot_be_used_is_told_in_a_sentence(
    tmp_path: Path, model: str, said: str
) -> None:
    made = import_setup(write_setup(tmp_path / "odd", model, PLAIN, labels=3)).folder
    with pytest.raises((LearnerError, RunError)) as raised:
        simulate(made)
    assert said in str(raised.value) and "Traceback" not in str(raised.value)


def test_a_batch_larger_than_a_clients_rows_is_told(tmp_path: Path) -> None:
    made = import_setup(write_setup(tmp_path / "few", SKLEARN, PLAIN, labels=3)).folder
    with pytest.raises(RunError, match="drop_remainder"):
        simulate(made, "learner.batch_size=8")


def test_a_run_stops_when_the_loss_gets_no_better(tmp_path: Path) -> None:
    """The rate is far too high, so that the loss grows from the first round on."""
    config = PLAIN.replace("lrate = 0.1", "lrate = 6.0").replace("rounds = 2", "rounds = 9")
    config += "\n[run.early_stop]\npatience = 2\n"
    run = simulate(import_setup(write_setup(tmp_path / "up", SKLEARN, config, labels=3)).folder)
    assert len(validation(run, "loss")) == 3


def test_weights_of_classes_are_refused_and_not_left_out(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    model = (
        "from sklearn.linear_model import SGDClassifier\n"
        "from declearn.model.sklearn import SklearnSGDModel\n"
        "model = SklearnSGDModel(SGDClassifier(class_weight={0: 3.0}))\n"
    )
    made = import_setup(write_setup(tmp_path / "odd", model, PLAIN, labels=3)).folder
    with pytest.raises(LearnerError, match="class_weight"):
        simulate(made)


REAL = """lrate = 0.1
w_decay = 0.01
regularizers = [["ridge", { alpha = 0.05 }], "lasso"]
modules = [["l2-global-clipping", { max_norm = 0.5 }]]
[optim.server_opt]
lrate = 0.5
w_decay = 0.02
modules = [["momentum", { beta = 0.25, nesterov = true }]]
"""


def test_two_rounds_have_the_losses_that_declearn_itself_gave(tmp_path: Path) -> None:
    """Version 2.9.1, run once on this very set-up: the lines of its metrics.csv."""
    config = PLAIN.replace("lrate = 0.1\n", REAL)
    run = simulate(import_setup(write_setup(tmp_path / "real", SKLEARN, config, labels=3)).folder)
    rows = [json.loads(row) for row in (run.path / "metrics.jsonl").read_text().splitlines()]
    losses = [row["validation"]["loss"]["mean"] for row in rows]
    np.testing.assert_allclose(losses, [2.060840511845048, 2.0453624505697503], rtol=1e-9)
    assert [row["validation"]["accuracy"]["mean"] for row in rows] == [4 / 9, 4 / 9]


@pytest.mark.torch
def test_first_weights_are_drawn_from_the_plans_seed(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    model = LINEAR[: LINEAR.index("with ")] + "model = TorchModel(module, torch.nn.MSELoss())\n"
    made = import_setup(write_setup(tmp_path / "drawn", model)).folder
    first = [
        final_model(simulate(made, "rounds=1", "learner.optimizer.lr=1e-9", f"seed={seed}"))
        for seed in (1, 1, 2)
    ]
    assert np.array_equal(first[0]["weight"], first[1]["weight"])
    assert np.abs(first[0]["weight"] - first[2]["weight"]).max() > 0.01


@pytest.mark.parametrize(
    ("limits", "weights"),
    [
        ("n_epoch = 1", [3, 2, 2]),
        ("n_epoch = 1\ndrop_remainder = false", [4, 3, 2]),
        ("n_epoch = nan\nn_steps = 9", [9, 9, 9]),
        ("n_epoch = 9\nn_steps = 4\nshuffle = true", [4, 4, 4]),
    ],
)
def test_the_first_limit_ends_a_round(tmp_path: Path, limits: str, weights: list[int]) -> None:
    """A client's weight is its number of steps."""
    config = PLAIN.replace("n_epoch = 2\nn_steps = 5", limits)
    made = import_setup(write_setup(tmp_path / "few", SKLEARN, config, labels=3)).folder
    rows = (simulate(made).path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["train"]["loss"]["weight"] for row in rows] == [sum(weights)] * 2


REAL_TORCH = """lrate = 0.1
w_decay = 0.01
regularizers = [["ridge", { alpha = 0.05 }], "lasso", "fedprox"]
modules = [["l2-clipping", { max_norm = 0.5 }]]
[optim.server_opt]
lrate = 0.5
modules = ["yogi", ["adam", { beta_1 = 0.5 }]]
"""


@pytest.mark.torch
def test_four_rounds_of_a_torch_model_have_the_losses_that_declearn_itself_gave(
    tmp_path: Path,
) -> None:
    """Version 2.9.1 again; in float32."""
    pytest.importorskip("torch")
    old = CONFIG[CONFIG.index("lrate = 0.1") : CONFIG.index("[run]")]
    config = CONFIG.replace(old, REAL_TORCH).replace("rounds = 2", "rounds = 4")
    run = simulate(import_setup(write_setup(tmp_path / "real", config=config)).folder)
    rows = [json.loads(row) for row in (run.path / "metrics.jsonl").read_text().splitlines()]
    given = [1.5304872459835477, 3.802907387415568, 6.911971198187934, 7.52222384346856]
    for name in ("loss", "mse"):
        found = [row["validation"][name]["mean"] for row in rows]
        np.testing.assert_allclose(found, given, rtol=1e-5)


def validation(run: Any, name: str) -> list[float]:
    """Return a metric of each round."""
    rows = (run.path / "metrics.jsonl").read_text().splitlines()
    return [json.loads(row)["validation"][name]["mean"] for row in rows]


LOGITS = LINEAR.replace("MSELoss", "BCEWithLogitsLoss")
TWO = PLAIN.replace('["multi-classif", { labels = [0, 1, 2] }]', '"binary-classif", "binary-roc"')


@pytest.mark.torch
@pytest.mark.parametrize("shape", [(-1, 1), (-1,)])
def test_a_column_of_two_classes_is_measured_where_its_logits_meet(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    """Its loss wants such targets as numbers; as metrics they are classes."""
    pytest.importorskip("torch")
    model = LOGITS if len(shape) == 2 else LOGITS.replace(
        "model = TorchModel(module,", "flat = torch.nn.Sequential(module, torch.nn.Flatten(0))\n"
        "model = TorchModel(flat,")  # fmt: skip
    source = write_setup(tmp_path / "two", model, TWO.replace("lrate = 0.1", "lrate = 1e-9"))
    change_rows(source, lambda x, y, c: (x, (y > 0).astype(np.float32).reshape(shape)))
    run = simulate(import_setup(source).folder)
    arrays = [rows_of(client) for client in ROWS]
    logits = np.concatenate([a["valid_data"] @ [0.5, -1.0, 2.0] - 0.25 for a in arrays])
    truth = np.concatenate([a["valid_target"][:, 0] > 0 for a in arrays])
    assert validation(run, "accuracy") == [np.mean((logits > 0) == truth)] * 2
    ranks = np.mean(logits[truth][:, None] > logits[~truth])
    assert abs(validation(run, "roc_auc")[0] - ranks) <= 0.2
    assert len(validation(run, "loss")) == 2


@pytest.mark.torch
def test_the_loss_of_several_outputs_is_their_sum_as_declearn_gives_it(tmp_path: Path) -> None:
    """declearn adds a row's losses up where it evaluates, and steps on their mean."""
    pytest.importorskip("torch")
    model = LINEAR.replace("[[0.5, -1.0, 2.0]]", "[[0.5, -1.0, 2.0], [1.0, 0.0, -3.0]]")
    config = PLAIN.replace('["multi-classif", { labels = [0, 1, 2] }]', "")
    source = write_setup(tmp_path / "several", model.replace("(3, 1)", "(3, 2)"),
                         config.replace("lrate = 0.1", "lrate = 1e-9"))  # fmt: skip
    change_rows(source, lambda x, y, c: (x, np.c_[y, 2 - y]))
    run = simulate(import_setup(source).folder)
    errors = []
    for client in ROWS:
        x, y = (rows_of(client)[f"valid_{what}"] for what in ("data", "target"))
        said = x @ np.array([[0.5, -1.0, 2.0], [1.0, 0.0, -3.0]]).T - 0.25
        errors.append(((said - np.c_[y, 2 - y]) ** 2).sum(axis=1))
    np.testing.assert_allclose(validation(run, "loss"), np.concatenate(errors).mean(), rtol=1e-5)
