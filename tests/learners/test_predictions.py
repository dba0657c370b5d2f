"""Every learner that can predict gives the same metrics for the same scores.

Oracle: scikit-learn on predictions that are made outside of the learner.
"""

from __future__ import annotations

import numpy as np
import pytest

from hansa.errors import LearnerError
from hansa.learners import FunctionLearner, NumPyLearner, Perceptron
from hansa.learners.learner import evaluate
from hansa.metrics import Asked, summarise_all
from hansa.params import Params
from hansa.seeds import Key

sklearn_metrics = pytest.importorskip("sklearn.metrics")

ASKED = Asked(("accuracy", "f1", "log_loss", "roc_auc"), 100)


def parts(data):
    n = data.examples
    return [
        data.take(range(n // 5)),
        data.take(range(n // 5, n // 5 + 1)),
        data.take(range(n // 5 + 1, n)),
    ]


def model(data):
    rng = Key.root(3).generator()
    w = rng.standard_normal((4, 3)).astype(np.float32)
    return Params.of({"layer0.weight": w, "layer0.bias": np.array([0.5, -0.25, 0.0], np.float32)})


def softmax(logits):
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def check(learner, params, data, p):
    reports = {str(i): evaluate(learner, params, part, ASKED) for i, part in enumerate(parts(data))}
    found = {name: summary["mean"] for name, summary in summarise_all(reports, ASKED).items()}
    said = p.argmax(axis=1)
    assert found["accuracy"] == sklearn_metrics.accuracy_score(data.y, said)
    assert found["f1"] == pytest.approx(sklearn_metrics.f1_score(data.y, said, average="macro"))
    assert found["log_loss"] == pytest.approx(sklearn_metrics.log_loss(data.y, p), rel=1e-6)
    exact = sklearn_metrics.roc_auc_score(data.y, p, multi_class="ovr")
    assert abs(found["roc_auc"] - exact) <= found["roc_auc_error"] + 1e-12
    return found


def test_numpy(blobs):
    data = blobs(150)
    params = model(data)
    p = softmax(data.x @ params["layer0.weight"] + params["layer0.bias"]).astype(np.float64)
    found = check(NumPyLearner(Perceptron()), params, data, p / p.sum(axis=1, keepdims=True))
    assert found["loss"] == pytest.approx(found["log_loss"], rel=1e-6)  # its own metric stays


def test_functions(blobs):
    data = blobs(150)

    def predict(params, rows):
        return softmax(rows.x @ params["layer0.weight"] + params["layer0.bias"]), rows.y

    learner = FunctionLearner(lambda rng, s: {}, lambda p, d, c: p, predict=predict)
    p = np.asarray(predict(model(data), data)[0], np.float64)
    check(learner, model(data), data, p / p.sum(axis=1, keepdims=True))
    bad = FunctionLearner(lambda rng, s: {}, lambda p, d, c: p, predict=lambda p, d: d.y)
    with pytest.raises(LearnerError, match="ndarray"):
        evaluate(bad, model(data), data, ASKED)


@pytest.mark.torch
def test_torch(blobs):
    torch = pytest.importorskip("torch")
    from hansa.learners.torch import TorchLearner

    def predict(net, batch):
        x, y = batch
        return net(x).softmax(1), y

    learner = TorchLearner(
        lambda: torch.nn.Linear(4, 3), lambda net, b: net(b[0]).sum(), predict=predict
    )
    data = blobs(150)
    params = learner.init(data, Key.root(1)).params
    p = softmax((data.x @ params["weight"].T + params["bias"]).astype(np.float64))
    check(learner, params, data, p)


def test_sklearn(blobs):
    from sklearn.linear_model import SGDClassifier, SGDRegressor

    from hansa.learners.sklearn import SklearnLearner

    data = blobs(150)
    learner = SklearnLearner(lambda: SGDClassifier(loss="log_loss"))
    seed = learner.init(data, Key.root(1))
    own = SGDClassifier(loss="log_loss", random_state=0).fit(data.x.astype(float), data.y)
    params = Params.of({"coef_": own.coef_, "intercept_": own.intercept_, "t_": np.array(1.0)})
    assert params.layout == seed.layout.layout
    check(learner, params, data, own.predict_proba(data.x.astype(float)))
    hinge = SklearnLearner(SGDClassifier)
    found = summarise_all({"a": evaluate(hinge, params, data, Asked(("roc_auc", "f1")))}, ASKED)
    scores = own.decision_function(data.x.astype(float))
    exact = np.mean([sklearn_metrics.roc_auc_score(data.y == c, scores[:, c]) for c in range(3)])
    assert abs(found["roc_auc"]["mean"] - exact) <= found["roc_auc_error"]["mean"]
    with pytest.raises(LearnerError, match="log_loss"):
        evaluate(hinge, params, data, ASKED)
    numbers = data._replace(y=data.x @ [1.5, -2.0, 0.3, 0.0], classes=None)
    line = SklearnLearner(SGDRegressor)
    fit = SGDRegressor(random_state=0).fit(numbers.x, numbers.y)
    params = Params.of({"coef_": fit.coef_, "intercept_": fit.intercept_, "t_": np.array(1.0)})
    asked = Asked(("r2", "mse", "mae"))
    both = {str(i): evaluate(line, params, part, asked) for i, part in enumerate(parts(numbers))}
    r2 = sklearn_metrics.r2_score(numbers.y, fit.predict(numbers.x.astype(float)))
    assert summarise_all(both, asked)["r2"]["mean"] == pytest.approx(r2, rel=1e-9)


def test_more_sums_than_a_result_carries_are_refused_with_the_learners_own(blobs):
    data = blobs(30)
    evaluate(NumPyLearner(Perceptron()), model(data), data, Asked(("roc_auc",), 332))
    with pytest.raises(LearnerError, match="1001 sums"):
        evaluate(NumPyLearner(Perceptron()), model(data), data, Asked(("roc_auc",), 333))
