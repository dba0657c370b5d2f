import numpy as np
import pytest

from hansa.algorithms import fed_avg
from hansa.data import Dataset
from hansa.errors import LearnerError
from hansa.learners import Hyper
from hansa.learners.batches import batches
from hansa.seeds import Key

pytest.importorskip("sklearn")
from sklearn.linear_model import (
    Lasso,
    LinearRegression,
    LogisticRegression,
    Perceptron,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.naive_bayes import MultinomialNB
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC, LinearSVC

from hansa.learners.sklearn import SklearnLearner

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def constant():
    return SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.05, shuffle=False)


def regression(examples=40, seed=0):
    rng = Key.root(seed).generator()
    x = rng.standard_normal((examples, 4)) * 2 - 0.5
    return Dataset.of(x, x @ [1.5, -2.0, 0.3, 0.0] - 3 + 0.1 * rng.standard_normal(examples))


def without(data, label):
    return data.take(np.flatnonzero(data.y != label))


def two_classes(blobs):
    data = blobs(40)
    return data._replace(y=(data.y == 1).astype(np.int64), classes=("no", "yes"))


def trained(learner, data, start, hyper=None, **options):
    seed = learner.init(data, Key.root(1))
    work, x = start(learner, seed, data, hyper, **options)
    return seed.layout.join(work.train(x), work.buffers), work


CLASSIFIERS = [
    SGDClassifier,
    constant,
    Perceptron,
    MLPClassifier,
    LogisticRegression,
    LinearSVC,
    RidgeClassifier,
]
REGRESSORS = [SGDRegressor, MLPRegressor, LinearRegression, Ridge, Lasso]


@pytest.mark.parametrize("model", CLASSIFIERS)
def test_classifiers_of_clients_without_a_class_have_the_shape_of_all(model, blobs, start):
    learner, data = SklearnLearner(model), blobs(60)
    whole = learner.init(data, Key.root(1)).layout
    for part in (data, without(data, 0), without(without(data, 0), 2)):
        model_after, _ = trained(learner, part, start, Hyper(epochs=3))
        assert model_after.layout == whole.layout
        assert set(model_after.layout.dtypes) == {"F64"}
    accuracy = learner.evaluate(trained(learner, data, start, Hyper(epochs=30))[0], data)
    assert accuracy["accuracy"].value > 0.75
    assert accuracy["accuracy"].weight == 60


@pytest.mark.parametrize("model", [SGDClassifier, LogisticRegression, LinearSVC, MLPClassifier])
def test_two_classes_have_one_row_of_coefficients(model, blobs, start):
    data = two_classes(blobs)
    learner = SklearnLearner(model)
    for part in (data, without(data, 1)):
        after, _ = trained(learner, part, start, Hyper(epochs=3))
        last = "coefs_.1" if model is MLPClassifier else "coef_"
        assert after[last].shape[0 if last == "coef_" else 1] == 1
    assert 0 <= learner.evaluate(after, data)["accuracy"].value <= 1


@pytest.mark.parametrize("model", REGRESSORS)
def test_regressors_learn_and_report_errors_that_add_up(model, start):
    learner, data = SklearnLearner(model), regression()
    seed = learner.init(data, Key.root(1))
    after, _ = trained(learner, data, start, Hyper(epochs=40, batch_size=4))
    totals, before = learner.evaluate(after, data), learner.evaluate(seed.params, data)
    assert totals["squared_error"].total < before["squared_error"].total / 3
    assert totals["absolute_error"].weight == 40
    parts = [learner.evaluate(after, data.take(rows)) for rows in (range(7), range(7, 40))]
    assert sum(p["squared_error"].total for p in parts) == pytest.approx(
        totals["squared_error"].total
    )


def test_training_is_partial_fit_in_our_order(blobs, start):
    data, hyper = blobs(30), Hyper(epochs=2, batch_size=7)
    after, work = trained(SklearnLearner(constant), data, start, hyper)
    alone = constant()
    for rows in batches(30, hyper, Key.root(5).child("train")):
        alone.partial_fit(data.x[rows].astype(float), data.y[rows], classes=np.arange(3))
    np.testing.assert_allclose(after["coef_"], alone.coef_, rtol=1e-12)
    np.testing.assert_allclose(after["intercept_"], alone.intercept_, rtol=1e-12)
    assert after["t_"] == alone.t_ == 61
    assert work.steps == 10


def test_the_schedule_of_the_learning_rate_goes_on_in_the_next_round(blobs, start):
    learner, data = SklearnLearner(lambda: SGDClassifier(shuffle=False)), blobs(30)
    hyper = Hyper(batch_size=None)
    first, work = trained(learner, data, start, hyper)
    x, buffers = learner.init(data, Key.root(1)).layout.split(first)
    seed = learner.init(data, Key.root(1))._replace(params=first)
    work, _ = start(learner, seed, data, hyper)
    second = seed.layout.join(work.train(x), work.buffers)
    alone = SGDClassifier(shuffle=False)
    for _ in range(2):
        alone.partial_fit(data.x.astype(float), data.y, classes=np.arange(3))
    np.testing.assert_allclose(second["coef_"], alone.coef_, rtol=1e-12)
    assert buffers.tolist() == [31]


@pytest.mark.parametrize(
    "solver",
    [
        {"solver": "adam"},
        {"solver": "sgd", "learning_rate": "adaptive", "n_iter_no_change": 1, "tol": 0.0},
    ],
)
def test_an_mlp_starts_from_its_own_layers_and_a_new_optimizer(solver, blobs, start):
    def make():
        return MLPClassifier((5,), shuffle=False, learning_rate_init=0.01, **solver)

    data = blobs(30)
    learner = SklearnLearner(make)
    seed = learner.init(data, Key.root(1))
    assert list(seed.params) == [
        "coefs_.0",
        "coefs_.1",
        "intercepts_.0",
        "intercepts_.1",
        "t_",
    ]
    assert 0.1 < np.abs(seed.params["coefs_.0"]).max() < 1  # Glorot's range, sqrt(2 / 9)
    assert (
        seed.params
        == learner.init(data, Key.root(1)).params
        != learner.init(data, Key.root(2)).params
    )
    hyper = Hyper(batch_size=None, epochs=6)
    alone = make()
    alone.partial_fit(data.x.astype(float), data.y, classes=np.arange(3))
    vars(alone).pop("_optimizer")
    alone.t_, alone.best_loss_ = 0, np.inf
    alone.coefs_ = [np.array(seed.params[f"coefs_.{i}"]) for i in range(2)]
    alone.intercepts_ = [np.array(seed.params[f"intercepts_.{i}"]) for i in range(2)]
    for _ in range(6):
        alone.partial_fit(data.x.astype(float), data.y)
    for _ in range(2):
        after, _ = trained(learner, data, start, hyper)
        np.testing.assert_allclose(after["coefs_.0"], alone.coefs_[0], rtol=1e-9)
        np.testing.assert_allclose(after["intercepts_.1"], alone.intercepts_[1], rtol=1e-9)
    assert after["t_"] == 180


def test_linear_models_without_partial_fit_are_solved_and_averaged(federate):
    parts = [regression(30, seed=1), regression(10, seed=2)]
    x = federate(SklearnLearner(LinearRegression), fed_avg(), parts, Hyper(), rounds=2)
    solved = [np.linalg.lstsq(np.c_[p.x, np.ones(len(p.x))], p.y, rcond=None)[0] for p in parts]
    np.testing.assert_allclose(x, np.average(solved, axis=0, weights=[30, 10]), rtol=1e-9)


def test_logistic_regression_starts_at_the_global_model(blobs, start):
    learner = SklearnLearner(lambda: LogisticRegression(max_iter=1))
    data = blobs(40)
    first, work = trained(learner, data, start)
    seed = learner.init(data, Key.root(1))
    work, _ = start(learner, seed, data)
    second = work.train(seed.layout.split(first)[0])
    assert work.steps == 1
    losses = [
        learner.evaluate(seed.layout.join(x, work.buffers), data)["loss"].value
        for x in (seed.layout.split(first)[0], second)
    ]
    assert losses[1] < losses[0] - 0.01


def test_a_class_that_is_not_there_hardly_matters(blobs, start):
    data = without(blobs(60), 0)
    after, _ = trained(SklearnLearner(lambda: LogisticRegression(tol=1e-8)), data, start)
    alone = LogisticRegression(tol=1e-8, max_iter=500).fit(data.x, data.y)
    scores = data.x.astype(float) @ after["coef_"].T + after["intercept_"]
    assert (scores.argmax(1) == alone.predict(data.x)).all()
    assert (scores[:, 0] < scores[:, 1:].max(1)).all()


def test_log_loss_is_measured_where_there_are_probabilities(blobs, start):
    data = blobs(30)
    learner = SklearnLearner(constant)
    after, _ = trained(learner, data, start)
    alone = constant().partial_fit(data.x.astype(float), data.y, classes=np.arange(3))
    alone.coef_, alone.intercept_ = np.array(after["coef_"]), np.array(after["intercept_"])
    p = alone.predict_proba(data.x.astype(float))[np.arange(30), data.y]
    assert learner.evaluate(after, data)["loss"].total == pytest.approx(-np.log(p).sum())
    assert "loss" not in SklearnLearner(LinearSVC).evaluate(
        SklearnLearner(LinearSVC).init(data, Key.root(0)).params, data
    )


def test_the_model_may_ask_for_the_rounds_hyper_parameters(blobs, start):
    rates = []

    def model(hyper):
        rates.append(hyper.lr)
        return SGDClassifier(learning_rate="constant", eta0=hyper.lr)

    learner = SklearnLearner(model)
    assert learner.takes_hyper
    trained(learner, blobs(20), start, Hyper(lr=0.7))
    assert rates[-1] == 0.7
    assert not SklearnLearner(SGDClassifier).takes_hyper


def test_shuffling_depends_on_the_key_alone(blobs, start):
    learner = SklearnLearner(SGDClassifier)
    results = []
    for key in (5, 5, 6):
        np.random.seed(len(results))
        results.append(trained(learner, blobs(40), start, Hyper(batch_size=None), key=key)[0])
    assert results[0] == results[1] != results[2]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (MultinomialNB, "neither coef_ and intercept_"),
        (lambda: make_pipeline(SGDClassifier()), "neither coef_ and intercept_"),
        (SVC, "neither coef_ and intercept_"),
        (lambda: SVC(kernel="linear"), "cannot be set up"),
        (lambda: SGDClassifier(average=True), "averaged model"),
        (lambda: SGDClassifier(loss="none"), "cannot be set up"),
    ],
)
def test_other_estimators_are_refused_by_name(model, said, blobs):
    with pytest.raises(LearnerError, match="learner-model") as error:
        SklearnLearner(model).init(blobs(20), Key.root(0))
    assert said in str(error.value)


def test_data_that_does_not_fit_is_refused(blobs):
    with pytest.raises(LearnerError, match="learner-data"):
        SklearnLearner(SGDClassifier).init(regression(), Key.root(0))
    with pytest.raises(LearnerError, match="learner-data"):
        SklearnLearner(SGDClassifier).examples([1, 2])


def test_only_training_is_offered(blobs, start):
    learner = SklearnLearner(SGDClassifier)
    work, x = start(learner, learner.init(blobs(8), Key.root(1)), blobs(8))
    assert learner.capabilities == frozenset()
    assert (work.weight, work.metrics, work.lift(x) is x, work.lower(x) is x) == (None, {}, 1, 1)
    for ask in (work.gradient, work.full_gradient):
        with pytest.raises(LearnerError, match="learner-capability"):
            ask(x)
