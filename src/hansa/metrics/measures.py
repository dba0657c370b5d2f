"""Metrics that are no means: each is a function of sums that add up over clients.

A client reports sums as pairs (total, weight) under names such as `confusion/2/7`; the server adds
them and computes the metric once, so it is that of all clients' examples together, and not a mean
of the clients' values.  No example's score or label leaves a client.

    confusion/T/P   total: examples of class T predicted as P; weight: examples of class T
    roc/C/B         total: examples of class C whose score for C lies in bin B; weight: all examples
                    whose score for C does.  Bins divide [0, 1] equally; two classes send C = 1
    r2/errors, r2/targets, r2/squares   sums of (y - p)^2, y and y^2 over examples
    log_loss, mse, mae                  means already

Class-wise measures follow scikit-learn's definitions with zero_division=0; the macro mean is over
the classes that occur, as a true or as a predicted one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import numpy as np

from hansa.errors import LearnerError
from hansa.limits import METRIC_CLASSES_MAX, METRICS_MAX
from hansa.metrics.mean import Mean, Metrics


class Asked(NamedTuple):
    """What a plan's [evaluate] table asks for."""

    metrics: tuple[str, ...] = ()  # names in `MEASURES`
    roc_bins: int = 64  # of each class' scores


NONE_ASKED = Asked()


class Predicted(NamedTuple):
    """What a model says of some examples, beside the truth."""

    scores: np.ndarray  # [n, classes], or [n] of the second of two classes; numbers: [n] or [n, 1]
    targets: np.ndarray  # [n], class labels from 0 up, or numbers
    are_probabilities: bool = True  # False: larger is likelier, and 0 is even


class Value(NamedTuple):
    """One metric and how many examples it stands for."""

    value: float
    weight: float


class Measure(NamedTuple):
    """A metric that a plan may ask for."""

    of: Literal["classes", "numbers"]
    kind: str  # of the sums that it needs
    shown: Callable[[Metrics, int], dict[str, Value]]  # from sums and the number of bins


def sums(asked: Asked, predicted: Predicted) -> dict[str, Mean]:
    """Return what a client reports for the metrics that are asked for; add over batches.

    A score that is not finite makes every sum NaN, and so the metrics.

    Raises:
      LearnerError: predictions and targets do not fit together or to the metrics, or there are
        more classes than sums can be sent for (learner-metrics).
    """
    kinds = {MEASURES[name].kind for name in asked.metrics}
    if not kinds:
        return {}
    if MEASURES[asked.metrics[0]].of == "numbers":
        found = _of_numbers(kinds, predicted)
    else:
        found = _of_classes(kinds, predicted, asked.roc_bins)
    check_number(found)
    if np.isfinite(predicted.scores).all():
        return found
    return dict.fromkeys(found, Mean(math.nan, math.nan))


def check_number(found: Metrics) -> None:
    """Refuse more metrics and sums than one result can carry.

    Raises:
      LearnerError: there are too many (learner-metrics).
    """
    if len(found) > METRICS_MAX:
        raise _unfit(
            f"The plan's metrics take {len(found)} sums; up to {METRICS_MAX} can be sent.",
            "Lower evaluate.roc_bins, or ask for fewer metrics.",
        )


def shown(asked: Asked, found: Metrics) -> dict[str, Value]:
    """Return the metrics that are asked for from sums; none where the sums are not there."""
    values: dict[str, Value] = {}
    for name in asked.metrics:
        measure = MEASURES[name]
        if any(_kind(sum_name) == measure.kind for sum_name in found):
            values |= measure.shown(found, asked.roc_bins)
    return values


def is_sum(asked: Asked, name: str) -> bool:
    """Return whether a reported name is a sum behind a metric that is asked for."""
    return any(_kind(name) == MEASURES[metric].kind for metric in asked.metrics)


def _kind(name: str) -> str:
    return name.partition("/")[0]


# ---------------------------------------------------------------- at a client


def _of_classes(kinds: set[str], predicted: Predicted, bins: int) -> dict[str, Mean]:
    scores, targets = _class_scores(predicted)
    n, classes = scores.shape
    found: dict[str, Mean] = {}
    if "confusion" in kinds:
        if classes > METRIC_CLASSES_MAX:
            raise _unfit(
                f"A confusion matrix of {classes} classes has {classes**2} sums; up to "
                f"{METRIC_CLASSES_MAX} classes can be sent.",
                'Ask for roc_auc or log_loss, or let metrics() return "accuracy".',
            )
        cells = np.bincount(targets * classes + scores.argmax(axis=1), minlength=classes**2)
        matrix = cells.reshape(classes, classes)
        for (true, said), count in np.ndenumerate(matrix):
            found[f"confusion/{true}/{said}"] = Mean(float(count), float(matrix[true].sum()))
    if "roc" in kinds:
        found |= _histograms(_in_unit(predicted, scores, "roc_auc"), targets, bins)
    if "log_loss" in kinds:
        p = _in_unit(predicted, scores, "log_loss")[np.arange(n), targets]
        lost = -np.log(np.maximum(p.astype(np.float64), np.finfo(np.float64).eps))
        found["log_loss"] = Mean(float(lost.sum()), float(n))
    return found


def _class_scores(predicted: Predicted) -> tuple[np.ndarray, np.ndarray]:
    scores, targets = np.asarray(predicted.scores), np.asarray(predicted.targets)
    if scores.ndim == 2 and scores.shape[1] == 1:
        scores = scores[:, 0]
    if scores.ndim == 1:  # of the second of two classes
        zero = 1 - scores if predicted.are_probabilities else -scores
        scores = np.stack([zero, scores], axis=1)
    fits = scores.ndim == 2 and targets.shape == scores.shape[:1] and targets.dtype.kind in "iub"
    if not fits:
        raise _unfit(
            f"Predictions have shape {scores.shape}, targets {targets.shape} of {targets.dtype}.",
            "Metrics of classes need scores [n, classes] and labels [n] as integers.",
        )
    targets = targets.astype(np.int64)
    if len(targets) and not 0 <= targets.min() <= targets.max() < scores.shape[1]:
        raise _unfit(
            f"There are scores for {scores.shape[1]} classes, and a label is "
            f"{int(targets.max())} or below 0.",
            "Number the classes from 0 up, and let the model have an output for each.",
        )
    return scores, targets


def _in_unit(predicted: Predicted, scores: np.ndarray, metric: str) -> np.ndarray:
    """Return scores between 0 and 1, in an order that is not changed."""
    finite = np.where(np.isfinite(scores), scores, 0)
    if predicted.are_probabilities:
        if finite.size and (finite.min() < -1e-6 or finite.max() > 1 + 1e-6):
            raise _unfit(
                f"{metric} needs scores from 0 to 1; they go from {finite.min():.4g} to "
                f"{finite.max():.4g}.",
                "Let predict() return probabilities, such as softmax of the logits.",
            )
        clipped: np.ndarray = np.clip(finite, 0, 1)
        return clipped
    if metric == "log_loss":
        raise _unfit(
            "log_loss needs probabilities, and this model has none.",
            "Ask for roc_auc, or use a model with probabilities.",
        )
    squashed: np.ndarray = 0.5 + 0.5 * np.tanh(0.5 * finite)  # the logistic function
    return squashed


def _histograms(scores: np.ndarray, targets: np.ndarray, bins: int) -> dict[str, Mean]:
    places = np.minimum((scores * bins).astype(np.int64), bins - 1)
    found: dict[str, Mean] = {}
    for c in range(scores.shape[1]):
        if scores.shape[1] == 2 and c == 0:  # it mirrors class 1
            continue
        every = np.bincount(places[:, c], minlength=bins)
        own = np.bincount(places[targets == c, c], minlength=bins)
        for b in range(bins):
            found[f"roc/{c}/{b}"] = Mean(float(own[b]), float(every[b]))
    return found


def _of_numbers(kinds: set[str], predicted: Predicted) -> dict[str, Mean]:
    scores = np.asarray(predicted.scores, np.float64)
    y = np.asarray(predicted.targets, np.float64)
    if scores.size != len(scores) or y.size != len(y) or len(y) != len(scores):
        raise _unfit(
            f"Predictions have shape {scores.shape} and targets {y.shape}.",
            "Metrics of numbers need one prediction and one target for each example.",
        )
    y = y.reshape(-1)
    error, n = y - scores.reshape(-1), float(len(y))
    found: dict[str, Mean] = {}
    if "mse" in kinds:
        found["mse"] = Mean(math.fsum(error**2), n)
    if "mae" in kinds:
        found["mae"] = Mean(math.fsum(np.abs(error)), n)
    if "r2" in kinds:
        found["r2/errors"] = Mean(math.fsum(error**2), n)
        found["r2/targets"] = Mean(math.fsum(y), n)
        found["r2/squares"] = Mean(math.fsum(y**2), n)
    return found


def _unfit(happened: str, hint: str) -> LearnerError:
    return LearnerError("learner-metrics", happened, hint)


# ---------------------------------------------------------------- at the server


def confusion(found: Metrics) -> np.ndarray:
    """Return the confusion matrix [true, predicted] of sums; NaN if one of them is not finite."""
    matrix = _cells(found, "confusion", (METRIC_CLASSES_MAX, METRIC_CLASSES_MAX))[..., 0]
    named = [int(part) for name in found for part in _place(name, "confusion")]
    classes = min(max(named, default=-1) + 1, METRIC_CLASSES_MAX)
    return matrix[:classes, :classes]


def _cells(found: Metrics, kind: str, shape: tuple[int, int]) -> np.ndarray:
    """Return totals and weights of `kind/i/j` as [i, j, 2]; what lies outside does not count."""
    cells = np.zeros((*shape, 2))
    for name, mean in found.items():
        place = _place(name, kind)
        if place and place[0] < shape[0] and place[1] < shape[1]:
            cells[place] = mean
    return cells if np.isfinite(cells).all() else np.full_like(cells, math.nan)


def _place(name: str, kind: str) -> tuple[int, ...]:
    """Return i and j of a name `kind/i/j`, or nothing; who reports it may name it anyhow."""
    head, *rest = name.split("/")
    fits = head == kind and len(rest) == 2 and all(map(_is_index, rest))
    return tuple(int(r) for r in rest) if fits else ()


def _is_index(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 5


def _by_class(which: str, matrix: np.ndarray) -> np.ndarray:
    """Return one value for each class; NaN for a class that does not occur."""
    hit, said, true = np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1)
    up, down = {
        "precision": (hit, said),
        "recall": (hit, true),
        "f1": (2 * hit, said + true),
    }[which]
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.where(down == 0, 0.0, up / down)
    values[said + true == 0] = math.nan
    return values


def _classwise(which: str, how: str, found: Metrics, bins: int) -> dict[str, Value]:
    matrix = confusion(found)
    values, true, n = _by_class(which, matrix), matrix.sum(axis=1), float(matrix.sum())
    if how == "per_class":
        return {f"{which}/{c}": Value(float(v), float(true[c])) for c, v in enumerate(values)}
    if how == "weighted":
        counted = true > 0
        value = float(values[counted] @ true[counted]) / n if n else math.nan
        return {f"{which}_weighted": Value(value if n == n else math.nan, n)}
    return {which: Value(_mean(values), n)}


def _accuracy(found: Metrics, bins: int) -> dict[str, Value]:
    matrix = confusion(found)
    n = float(matrix.sum())
    return {"accuracy": Value(float(np.trace(matrix)) / n if n else math.nan, n)}


def _no_value(found: Metrics, bins: int) -> dict[str, Value]:
    """Return nothing: a matrix is no number, and stands in a row of its own."""
    return {}


def _roc(how: str, found: Metrics, bins: int) -> dict[str, Value]:
    """Return areas under ROC curves, Hanley and McNeil 1982: P(score of own > score of other).

    Pairs whose scores share a bin count one half, as ties do.  In truth each of them counts 0, 1/2
    or 1, so the area of the scores themselves differs by at most half the share of such pairs.
    """
    cells = _cells(found, "roc", (max(METRICS_MAX // bins, 2), bins))
    own, other = cells[..., 0], cells[..., 1] - cells[..., 0]
    pairs = own.sum(axis=1) * other.sum(axis=1)
    below = np.cumsum(other, axis=1) - other
    with np.errstate(invalid="ignore", divide="ignore"):
        half = 0.5 * (own * other).sum(axis=1) / pairs
        area = (own * below).sum(axis=1) / pairs + half
    weights = cells[..., 1].sum(axis=1)
    if how == "per_class":
        named = {place[0] for name in found if (place := _place(name, "roc"))}
        return {
            f"roc_auc/{c}": Value(float(area[c]), float(weights[c]))
            for c in sorted(named)
            if c < len(area)
        }
    n = float(weights.max())
    return {"roc_auc": Value(_mean(area), n), "roc_auc_error": Value(_mean(half), n)}


R2_DIGITS = 1_000
"""Times that targets' spread must exceed what rounding may make of it: three digits."""


def _r2(found: Metrics, bins: int) -> dict[str, Value]:
    """Return 1 - sum (y - p)^2 / sum (y - mean y)^2; NaN where all targets are one number."""
    none = Mean(math.nan, math.nan)
    errors, targets, squares = (
        found.get(f"r2/{part}", none) for part in ("errors", "targets", "squares")
    )
    if not all(map(math.isfinite, (*errors, *targets, *squares))) or not targets.weight:
        return {"r2": Value(math.nan, errors.weight)}
    spread = squares.total - targets.total**2 / targets.weight
    # Each of the two sums of n terms may be off by about log2(n) units in its last place, and their
    # difference by as much; it must have some digits beyond that.
    unit = np.finfo(np.float64).eps * abs(squares.total)
    known = spread > R2_DIGITS * (2 + math.log2(max(2.0, targets.weight))) * unit
    return {"r2": Value(1 - errors.total / spread if known else math.nan, errors.weight)}


def _as_it_is(name: str, found: Metrics, bins: int) -> dict[str, Value]:
    mean = found.get(name, Mean(math.nan, math.nan))
    return {name: Value(mean.value, mean.weight)}


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan


def _table() -> Mapping[str, Measure]:
    table = {
        "accuracy": Measure("classes", "confusion", _accuracy),
        "confusion": Measure("classes", "confusion", _no_value),
        "log_loss": Measure("classes", "log_loss", functools.partial(_as_it_is, "log_loss")),
        "roc_auc": Measure("classes", "roc", functools.partial(_roc, "macro")),
        "roc_auc_per_class": Measure("classes", "roc", functools.partial(_roc, "per_class")),
        "mse": Measure("numbers", "mse", functools.partial(_as_it_is, "mse")),
        "mae": Measure("numbers", "mae", functools.partial(_as_it_is, "mae")),
        "r2": Measure("numbers", "r2", _r2),
    }
    for which in ("precision", "recall", "f1"):
        for how in ("", "_weighted", "_per_class"):
            compute = functools.partial(_classwise, which, how.removeprefix("_"))
            table[which + how] = Measure("classes", "confusion", compute)
    return table


MEASURES: Mapping[str, Measure] = _table()
"""Metrics that a plan may ask for, by name."""
