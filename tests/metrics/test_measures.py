"""A metric of a federation is the metric of all examples together, whatever client has which.

Oracle: scikit-learn on the pooled predictions.  Data: unbalanced, a class that nobody has, one
that is only predicted, clients with one class, and a client alone.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from hansa.errors import LearnerError
from hansa.limits import METRIC_CLASSES_MAX, METRICS_MAX
from hansa.metrics import MEASURES, Asked, Mean, Predicted, confusions, summarise_all, sums

sklearn_metrics = pytest.importorskip("sklearn.metrics")

CLASSES = 5  # 0 is rare, 3 is only ever predicted, 4 does not occur
OF_CLASSES = tuple(name for name, m in MEASURES.items() if m.of == "classes")
OF_NUMBERS = tuple(name for name, m in MEASURES.items() if m.of == "numbers")


def labelled(seed: int, n: int = 240, classes: int = CLASSES) -> Predicted:
    rng = np.random.default_rng(seed)
    share = np.array([0.05, 0.5, 0.45, 0.0, 0.0])[:classes]
    y = rng.choice(classes, n, p=share / share.sum())
    logits = rng.standard_normal((n, classes)) + 1.4 * np.eye(classes)[y]
    if classes == CLASSES:
        logits[:, 4] = -40.0
    p = np.exp(logits)
    return Predicted(p / p.sum(axis=1, keepdims=True), y)


def divided(everything: Predicted, clients: int) -> list[Predicted]:
    """Deal examples by class, so that clients differ as much as they can; sizes are uneven."""
    order = np.argsort(everything.targets, kind="stable")
    n = len(order)
    cuts = [n * (i * i) // (clients * clients) for i in range(1, clients)]
    return [
        Predicted(everything.scores[rows], everything.targets[rows])
        for rows in np.split(order, cuts)
    ]


def federated(asked: Asked, parts: list[Predicted]) -> dict:
    reports = {f"site-{i}": sums(asked, part) for i, part in enumerate(parts)}
    return summarise_all(reports, asked)


def ties_count_half(scores: np.ndarray, own: np.ndarray) -> float:
    """Mann-Whitney over every pair."""
    pairs = scores[own][:, None] - scores[~own][None, :]
    return float(((pairs > 0) + 0.5 * (pairs == 0)).mean())


@pytest.mark.parametrize("clients", [1, 3, 8])
@pytest.mark.parametrize("seed", range(3))
def test_classwise_metrics_are_scikit_learns_on_the_pooled_predictions(seed, clients) -> None:
    everything = labelled(seed)
    y, said = everything.targets, everything.scores.argmax(axis=1)
    found = federated(Asked(OF_CLASSES), divided(everything, clients))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for which in ("precision", "recall", "f1"):
            score = getattr(sklearn_metrics, f"{which}_score")
            for name, average in ((which, "macro"), (f"{which}_weighted", "weighted")):
                expected = score(y, said, average=average, zero_division=0)
                assert found[name]["mean"] == pytest.approx(expected, rel=1e-12)
            by_class = score(y, said, labels=range(CLASSES), average=None, zero_division=0)
            shown = [found[f"{which}/{c}"]["mean"] for c in range(CLASSES)]
            assert shown[:4] == pytest.approx(list(by_class[:4]), rel=1e-12)
            assert shown[4] is None  # nobody has it, and nobody says it
    assert found["accuracy"]["mean"] == sklearn_metrics.accuracy_score(y, said)
    assert found["accuracy"]["weight"] == 240
    expected = sklearn_metrics.log_loss(y, everything.scores, labels=range(CLASSES))
    assert found["log_loss"]["mean"] == pytest.approx(expected, rel=1e-12)


def test_the_mean_of_the_clients_values_would_be_another_number() -> None:
    parts = divided(labelled(1), 4)
    found = federated(Asked(("f1", "roc_auc")), parts)
    for name in ("f1", "roc_auc"):
        own = [v for v in found[name]["by_client"].values() if v is not None]
        assert abs(found[name]["mean"] - np.mean(own)) > 0.05


def test_a_confusion_matrix_is_scikit_learns_and_stands_apart() -> None:
    asked, everything = Asked(("confusion",)), labelled(2)
    reports = {str(i): sums(asked, part) for i, part in enumerate(divided(everything, 3))}
    said = everything.scores.argmax(axis=1)
    expected = sklearn_metrics.confusion_matrix(everything.targets, said, labels=range(CLASSES))
    assert confusions(reports, asked) == expected.tolist()
    assert summarise_all(reports, asked) == {}
    assert confusions(reports, Asked(("f1",))) is None
    true = np.bincount(everything.targets, minlength=CLASSES)
    assert sum(report["confusion/1/2"].weight for report in reports.values()) == true[1]


@pytest.mark.parametrize("classes", [2, CLASSES])
@pytest.mark.parametrize("bins", [2, 7, 64])
def test_an_area_is_that_of_the_scores_on_the_grid_and_its_error_is_bounded(classes, bins) -> None:
    everything = labelled(4, classes=classes)
    asked = Asked(("roc_auc", "roc_auc_per_class"), bins)
    found = federated(asked, divided(everything, 5))
    occurring = [1] if classes == 2 else [0, 1, 2]
    binned, exact = [], []
    for c in occurring:
        own, scores = everything.targets == c, everything.scores[:, c]
        on_grid = np.minimum(np.floor(scores * bins), bins - 1)
        binned.append(ties_count_half(on_grid, own))
        exact.append(sklearn_metrics.roc_auc_score(own, scores))
        assert found[f"roc_auc/{c}"]["mean"] == pytest.approx(binned[-1], abs=1e-14)
    assert found["roc_auc"]["mean"] == pytest.approx(np.mean(binned), abs=1e-14)
    error = found["roc_auc_error"]["mean"]
    assert abs(found["roc_auc"]["mean"] - np.mean(exact)) <= error + 1e-12
    assert 0 < error < 0.5


def test_margins_of_a_model_without_probabilities_are_ranked_alike() -> None:
    rng = np.random.default_rng(5)
    y = (rng.random(300) < 0.2).astype(int)
    margins = 0.8 * rng.standard_normal(300) + y
    asked = Asked(("roc_auc", "f1"), 400)
    found = summarise_all({"one": sums(asked, Predicted(margins, y, False))}, asked)
    exact = sklearn_metrics.roc_auc_score(y, margins)
    assert found["roc_auc"]["mean"] == pytest.approx(exact, abs=found["roc_auc_error"]["mean"])
    expected = sklearn_metrics.f1_score(y, margins > 0, average="macro")
    assert found["f1"]["mean"] == pytest.approx(expected)
    with pytest.raises(LearnerError, match="probabilities"):
        sums(Asked(("log_loss",)), Predicted(margins, y, False))


@pytest.mark.parametrize("clients", [1, 4])
def test_metrics_of_numbers_are_scikit_learns_on_the_pooled_predictions(clients) -> None:
    rng = np.random.default_rng(6)
    y = np.sort(rng.standard_normal(90) * 3 - 40)  # sorted: each client has its own level
    p = y + rng.standard_normal(90) - 0.2
    parts = [
        Predicted(a, b)
        for a, b in zip(np.array_split(p, clients), np.array_split(y, clients), strict=True)
    ]
    found = federated(Asked(OF_NUMBERS), parts)
    assert found["r2"]["mean"] == pytest.approx(sklearn_metrics.r2_score(y, p), rel=1e-9)
    assert found["mse"]["mean"] == pytest.approx(sklearn_metrics.mean_squared_error(y, p))
    assert found["mae"]["mean"] == pytest.approx(sklearn_metrics.mean_absolute_error(y, p))
    assert set(found) == {"r2", "mse", "mae"}


def test_what_is_not_defined_is_null_and_never_a_flattering_number() -> None:
    one = Predicted(np.array([0.2, 0.9]), np.array([1, 1]))
    found = federated(Asked(("roc_auc", "f1")), [one])
    assert found["roc_auc"]["mean"] is None  # there is nothing to tell class 1 from
    same = Predicted(np.array([2.0, 3.0]), np.array([1e8 + 0.5, 1e8 + 0.5]))
    assert federated(Asked(("r2",)), [same])["r2"]["mean"] is None
    diverged = Predicted(np.full((3, 2), math.nan), np.array([0, 0, 1]))
    asked = Asked(("accuracy", "f1", "roc_auc", "log_loss", "confusion"))
    found = federated(asked, [diverged, one])
    assert all(found[n]["mean"] is None for n in ("accuracy", "f1", "roc_auc", "log_loss"))
    reports = {"a": sums(asked, diverged)}
    assert confusions(reports, asked) is None


def test_batches_and_clients_add_up_alike() -> None:
    asked, everything = Asked(OF_CLASSES), labelled(7)
    whole = sums(asked, everything)
    parts = [sums(asked, part) for part in divided(everything, 6)]
    for name, mean in whole.items():
        if name != "log_loss":
            assert sum(p[name].total for p in parts) == mean.total
        assert sum(p[name].weight for p in parts) == mean.weight


@pytest.mark.parametrize(
    ("predicted", "asked", "says"),
    [
        (Predicted(np.ones((2, 3)), np.array([0, 3])), Asked(("f1",)), "3 classes"),
        (Predicted(np.ones((2, 3)), np.array([0, -1])), Asked(("f1",)), "below 0"),
        (Predicted(np.ones((2, 3)), np.array([0.0, 1.0])), Asked(("f1",)), "float64"),
        (Predicted(np.ones((2, 3)), np.array([0, 1, 1])), Asked(("f1",)), "shape"),
        (Predicted(np.ones((2, 3)) * 4, np.array([0, 1])), Asked(("roc_auc",)), "from 0 to 1"),
        (Predicted(np.ones((2, 3)), np.ones((2, 3))), Asked(("r2",)), "one prediction"),
        (Predicted(np.eye(32), np.arange(32)), Asked(("f1",)), "31 classes"),
        (Predicted(np.eye(32), np.arange(32)), Asked(("roc_auc",)), "2048 sums"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_a_sentence(predicted, asked, says) -> None:
    with pytest.raises(LearnerError, match=says) as caught:
        sums(asked, predicted)
    assert caught.value.code == "learner-metrics"


def test_names_that_a_hostile_site_makes_up_take_no_memory_and_change_nothing() -> None:
    asked = Asked(("f1", "roc_auc", "confusion"))
    honest = {"a": sums(asked, labelled(8))}
    evil = {
        "confusion/999999999/0": Mean(5.0, 1.0),
        f"confusion/{METRIC_CLASSES_MAX}/0": Mean(5.0, 1.0),
        "confusion/-1/0": Mean(5.0, 1.0),
        "confusion/1/2/3": Mean(5.0, 1.0),
        "confusion/٣/0": Mean(0.0, 0.0),
        "roc/1/64": Mean(5.0, 5.0),
        f"roc/{METRICS_MAX}/0": Mean(5.0, 5.0),
        "roc/x/y": Mean(5.0, 5.0),
    }
    both = summarise_all(honest | {"evil": evil}, asked)
    alone = summarise_all(honest, asked)
    for name in ("f1", "roc_auc"):
        assert both[name]["mean"] == alone[name]["mean"]
    assert len(confusions(honest | {"evil": evil}, asked) or []) <= METRIC_CLASSES_MAX


def test_a_site_that_reports_nothing_that_was_asked_is_left_out() -> None:
    asked = Asked(("f1",))
    reports = {"a": sums(asked, labelled(9)), "b": {"loss": Mean(2.0, 4.0)}, "c": {}}
    found = summarise_all(reports, asked)
    assert set(found) == {"f1", "loss"}
    assert set(found["f1"]["by_client"]) == {"a"}
    assert summarise_all({"b": {"loss": Mean(2.0, 4.0)}}, asked).keys() == {"loss"}


@pytest.mark.parametrize(("noise", "known"), [(1.0, True), (0.05, True), (0.01, False)])
def test_r2_is_told_with_three_digits_or_not_at_all(noise: float, known: bool) -> None:
    """Targets far from zero and close together: the spread is a difference of two large sums."""
    rng = np.random.default_rng(0)
    y = 1e4 + noise * rng.normal(size=20_000)
    p = y + 0.5 * noise * rng.normal(size=y.size)
    totals = {"errors": ((y - p) ** 2).sum(), "targets": y.sum(), "squares": (y**2).sum()}
    found = {f"r2/{name}": Mean(float(total), float(y.size)) for name, total in totals.items()}
    value = MEASURES["r2"].shown(found, 1)["r2"].value
    true = 1 - ((y - p) ** 2).sum() / ((y - y.mean()) ** 2).sum()  # two passes lose no digits
    assert value == pytest.approx(true, abs=5e-4) if known else np.isnan(value)


def test_a_client_whose_examples_leave_a_metric_undefined_is_not_in_its_spread() -> None:
    """One class alone has no area, and that of no numbers is none: the first is no failure."""
    asked = Asked(("roc_auc", "log_loss", "f1_per_class"))
    scores = {"both": [0.9, 0.1, 0.6, 0.2], "one": [0.7, 0.4], "diverged": [math.nan, 0.5]}
    targets = {"both": [1, 0, 0, 1], "one": [0, 0], "diverged": [1, 0]}
    reports = {c: sums(asked, Predicted(np.array(scores[c]), np.array(targets[c]))) for c in scores}
    found = summarise_all(reports, asked)
    # Of the four pairs of "both", 0.2 and 0.6 alone lie the wrong way round.
    assert found["roc_auc"]["by_client"] == {"both": 0.75, "diverged": None}
    assert found["roc_auc"]["mean"] is None
    assert found["f1/1"]["by_client"] == {"both": 0.5, "one": 0.0, "diverged": None}
    assert found["log_loss"]["by_client"].keys() == scores.keys()
    del reports["diverged"]
    found = summarise_all(reports, asked)
    assert found["roc_auc"]["by_client"] == {"both": 0.75}
    # Together there are four more pairs: 0.9 above both, 0.2 below both.
    assert found["roc_auc"]["mean"] == (3 + 2) / 8
    alone = summarise_all({"one": reports["one"]}, asked)
    assert (alone["roc_auc"]["mean"], alone["roc_auc"]["by_client"]) == (None, {})


def test_an_error_that_is_no_number_is_no_undefined_one() -> None:
    asked = Asked(("mse", "r2"))
    lost = Predicted(np.array([1.0, -2.0]), np.array([math.nan, 3.0]))
    flat = Predicted(np.array([1.0, -2.0]), np.array([-0.5, -0.5]))  # has an error, and no r2
    found = summarise_all({"lost": sums(asked, lost), "flat": sums(asked, flat)}, asked)
    assert found["mse"]["by_client"] == {"flat": 2.25, "lost": None}
    assert found["r2"]["by_client"] == {"lost": None}
