"""What a server makes of the answers to a named task: reports, and perhaps a new global model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from hansa.aggregators import AggregationSpec, Contribution, VectorSpec, admit, mean
from hansa.aggregators.fixed_point import ceil_log2
from hansa.errors import HansaError, RunError, UpdateRefused
from hansa.limits import FACTS_BYTES_MAX
from hansa.params import Params
from hansa.params.model import ModelLayout
from hansa.rounds import BUFFERS, largest_parameter
from hansa.rounds.questions import Answer, packed, unpacked
from hansa.workflows.outcome import Outcome, Process, Turn
from hansa.workflows.statistics import statistics


def collect(answers: Mapping[str, Answer], turn: Turn) -> Outcome:
    """Report every client's facts as they are."""
    return Outcome({name: answer.facts for name, answer in answers.items()})


def mean_model(answers: Mapping[str, Answer], turn: Turn) -> Outcome:
    """Make the weighted mean of the clients' tensors the global model, exact in any order.

    A client's weight is its fact `weight`, or else 1.
    """
    model, refused, weights = exact_mean(answers, turn.layout)
    return Outcome({"weights": weights}, model, refused=refused)


def first_model(answers: Mapping[str, Answer], turn: Turn) -> Outcome:
    """Make the tensors of the first client by name, whose tensors can be used, the global model."""
    refused: dict[str, HansaError] = {}
    for name in sorted(answers):
        outcome = mean_model({name: answers[name]}, turn)
        refused.update(outcome.refused)
        if outcome.model is not None:
            return outcome._replace(refused=refused)
    return Outcome({}, refused=refused)


def exact_mean(
    answers: Mapping[str, Answer], layout: ModelLayout
) -> tuple[Params | None, dict[str, HansaError], dict[str, float]]:
    """Return the weighted mean of tensors shaped like the model, what did not count, and weights.

    Source: McMahan et al. 2017, Alg. 1: sum n_i x_i / sum n_i, accumulated in fixed point (law L3).
    """
    refused: dict[str, HansaError] = {}
    found: dict[str, Contribution] = {}
    for name, answer in answers.items():
        try:
            found[name] = _contribution(name, answer, layout)
        except UpdateRefused as refusal:
            refused[name] = refusal
    if not found:
        return None, refused, {}
    exact = sum((Fraction(c.weight) for c in found.values()), Fraction(0))
    limit = float(exact)
    if exact > limit:  # as with fractions, whose sum must not be beyond its limit
        limit = math.nextafter(limit, math.inf)
    first = next(iter(found.values())).vectors
    bounds = {
        key: max(float(np.max(np.abs(c.vectors[key]), initial=0.0)) for c in found.values())
        for key in first
    }
    spec = AggregationSpec(
        {
            key: VectorSpec(vector.size, vector.dtype.name, 2.0 ** ceil_log2(max(bounds[key], 1.0)))
            for key, vector in first.items()
        },
        limit,
    )
    acc = mean.zero(spec)
    for name, contribution in found.items():
        try:
            admitted = admit(contribution, spec)
        except UpdateRefused as refusal:  # beside the others its weight is next to nothing
            refused[name] = refusal
        else:
            acc = mean.add(acc, admitted)
    vectors = mean.finish(acc).vectors
    model = layout.join(vectors["x"], layout.rounded(vectors.get(BUFFERS, np.empty(0))))
    return model, refused, {n: c.weight for n, c in found.items() if n not in refused}


def _contribution(name: str, answer: Answer, layout: ModelLayout) -> Contribution:
    """Return one client's tensors and weight.

    Raises:
      UpdateRefused: they cannot be averaged.
    """
    weight = answer.facts.get("weight", 1)
    if type(weight) not in (int, float) or not 2.0**-53 <= weight < 2.0**53:
        raise _refused(name, "update-weight", f"has the weight {weight!r:.80}")
    if answer.params is None or answer.params.layout != layout.layout:
        raise _refused(name, "update-names", "has other tensors than the model")
    x, buffers = layout.split(answer.params)
    for vector in (x, buffers):
        if not math.isfinite(float(np.sum(np.abs(vector), dtype=np.float64))):
            raise _refused(name, "update-not-finite", "holds NaN, infinity or values beyond all")
    try:
        largest_parameter(x)
    except RunError as error:
        raise _refused(name, "update-out-of-bound", f"is too large: {error.happened}") from None
    vectors = {"x": np.asarray(x), BUFFERS: buffers} if len(buffers) else {"x": np.asarray(x)}
    return Contribution(name, vectors, float(weight))


def _refused(name: str, code: str, what: str) -> UpdateRefused:
    return UpdateRefused(
        code,
        f"The answer of {name} {what}. It was not counted.",
        "Return the model's own tensors, and a positive weight.",
    )


def check_report(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report as it is read back.

    Raises:
      RunError: task-answer, it is no JSON, or larger than a row may be.
    """
    try:
        facts = packed(None, report)
    except ValueError as error:
        raise RunError(
            "task-answer",
            f"What was made of the answers cannot be kept: {error}. The run has failed.",
            f"Report less: an object of JSON of up to {FACTS_BYTES_MAX >> 20} MiB.",
        ) from None
    return unpacked(facts).facts


PROCESSES: dict[str, Process] = {
    "collect": collect,
    "mean": mean_model,
    "statistics": statistics,
}
"""What `process = "..."` of the workflow may name."""
