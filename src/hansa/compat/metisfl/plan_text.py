"""MetisFL's configuration as a plan: each line says where its value comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from hansa.compat.metisfl.config import (
    NO_ROUNDS_LIMIT,
    ControllerConfig,
    ModelStoreConfig,
    TerminationSignals,
)
from hansa.compat.metisfl.present import Settings
from hansa.compat.metisfl.project import MODULE

Parameter = bool | int | float | str
"""A value of the configuration that `train` and `evaluate` are given."""


class Wanted(NamedTuple):
    """All that makes a plan."""

    config: ControllerConfig
    store: ModelStoreConfig
    signals: TerminationSignals
    learners: int
    params: Mapping[str, Parameter] = {}


def settings_of(wanted: Wanted) -> Settings:
    """Return what the project's module is told."""
    steps = wanted.config.scheduler == "SemiSynchronous"
    return Settings(wanted.config.scaling_factor, dict(wanted.params), steps)


def plan_text(wanted: Wanted, name: str = "metisfl") -> str:
    """Return plan.toml.

    Args:
      wanted: checked by `check_config` and `check_signals`.
      name: of the runs.
    """
    config, signals = wanted.config, wanted.signals
    ratio = config.participation_ratio
    asked = max(1, round(ratio * wanted.learners))
    alone = config.scheduler == "Asynchronous"  # each goes on by itself
    weighting = "uniform" if config.scaling_factor == "NumParticipants" else "user"
    rounds = signals.federation_rounds or NO_ROUNDS_LIMIT
    lines = [
        f"name = {json.dumps(name)}",
        _line("rounds", rounds, "federation_rounds", signals.federation_rounds),
        *_workflow(config),
        _line("weighting", weighting, "scaling_factor", config.scaling_factor),
        "",
        "[learner]",
        'kind = "function"',
        f"module = {json.dumps(MODULE)}",
        *_local(wanted.params),
        "",
        "[data]",
        "validation = 0  # a learner evaluates on rows of its own",
        "",
        "[cohort]",
        _line("fraction", ratio, "participation_ratio", ratio),
        # A learner that is lost is not waited for; with two of them lost, a round waits.
        _line("minimum", 1 if alone else max(1, asked - 1), "learners", wanted.learners),
    ]
    lines += _stop(signals)
    lines += ["", "[keep]", "every = 0", *_keep(wanted.store)]
    return "\n".join(lines) + "\n"


def _workflow(config: ControllerConfig) -> list[str]:
    rule = _line("aggregator", "mean", "aggregation_rule", config.aggregation_rule)
    if config.scheduler == "Synchronous":
        return [_line("workflow", "synchronous", "scheduler", "Synchronous"), rule]
    if config.scheduler == "Asynchronous":
        # Whichever rule is named, MetisFL's takes every learner's latest model.
        table = '{ name = "asynchronous", rule = "fed_rec" }'
        return [f"workflow = {table}  # scheduler: Asynchronous", rule]
    multiple = float(config.semi_sync_lambda or 1.0)
    measured = json.dumps(bool(config.semi_sync_recompute_num_updates))
    table = f'{{ name = "semi_synchronous", multiple = {multiple}, remeasure = {measured} }}'
    return [f"workflow = {table}  # scheduler: SemiSynchronous, semi_sync_lambda", rule]


def _local(params: Mapping[str, Parameter]) -> list[str]:
    """Return what the plan knows of local training, so that it counts steps rightly."""
    known = {"batch_size": "batch_size", "epochs": "epochs", "num_local_updates": "steps"}
    return [
        _line(key, value, "train_params", name)
        for name, key in known.items()
        if type(value := params.get(name)) is int
    ]


def _stop(signals: TerminationSignals) -> list[str]:
    lines = []
    if signals.execution_cutoff_time_mins is not None:
        minutes = float(signals.execution_cutoff_time_mins)
        lines.append(_line("minutes", minutes, "execution_cutoff_time_mins", minutes))
    metric, score = signals.evaluation_metric, signals.evaluation_metric_cutoff_score
    if metric:
        lines.append(_line("metric", metric, "evaluation_metric", metric))
        lines.append('over = "clients"  # the mean of learners\' latest values')
    if score is not None:
        lines.append(_line("target", float(score), "evaluation_metric_cutoff_score", score))
    return ["", "[stop]", *lines] if lines else []


def _keep(store: ModelStoreConfig) -> list[str]:
    """Return where models stay; in a store of their own learners' latest ones do, too."""
    length = store.lineage_length
    lines = [_line("lineage", length, "lineage_length", length)]
    if store.model_store == "Redis":
        lines.append(_line("clients", length, "lineage_length", length))
        lines.append(_line("store", "redis", "model_store", "Redis"))
    return lines


def _line(key: str, value: Parameter, source: str, said: object) -> str:
    shown = said if isinstance(said, str) and said.isidentifier() else json.dumps(said)
    return f"{key} = {json.dumps(value)}  # {source}: {shown}"
