"""MetisFL's configuration classes, with its field names; nothing is checked until it is used.

Source: the fields and defaults of MetisFL's `common.types`.
"""

from __future__ import annotations

from dataclasses import dataclass

from hansa.errors import PlanError

NO_ROUNDS_LIMIT = 100_000
"""Rounds of a plan whose termination signals name none."""


@dataclass(frozen=True)
class ServerParams:
    """Where a controller listens; of a learner it is the name alone, for nobody dials it.

    Args:
      hostname: that the others know it by.
      port: from 1 to 65535.
      root_certificate: not used; Hansa makes its own authority.
      server_certificate: not used.
      private_key: not used.
    """

    hostname: str
    port: int
    root_certificate: str | None = None
    server_certificate: str | None = None
    private_key: str | None = None


@dataclass(frozen=True)
class ClientParams:
    """Where a learner finds its controller.

    Args:
      hostname: of the controller.
      port: of the controller.
      root_certificate: not used; an invitation says which authority to believe.
    """

    hostname: str
    port: int
    root_certificate: str | None = None


@dataclass(frozen=True)
class ControllerConfig:
    """How the controller trains the shared model.

    Args:
      aggregation_rule: FedAvg, FedStride or FedRec, which give the same model: of one round the
        mean of its updates, and with Asynchronous the mean of every learner's latest model.
      scheduler: Synchronous, SemiSynchronous or Asynchronous.
      scaling_factor: NumTrainingExamples, NumCompletedBatches or NumParticipants.
      participation_ratio: share of the learners that are asked in a round.
      stride_length: not used; Hansa folds each update as it comes, and keeps none.
      semi_sync_lambda: passes that the slowest learner makes in a round.
      semi_sync_recompute_num_updates: measure the learners' speed in every round.
      communication_protocol: scheduler, by its name in another generation.
    """

    aggregation_rule: str = "FedAvg"
    scheduler: str = "Synchronous"
    scaling_factor: str = "NumTrainingExamples"
    participation_ratio: float = 1.0
    stride_length: int | None = None
    semi_sync_lambda: float | None = None
    semi_sync_recompute_num_updates: bool | None = None
    communication_protocol: str | None = None

    def __post_init__(self) -> None:
        if self.communication_protocol is not None:
            object.__setattr__(self, "scheduler", self.communication_protocol)


GlobalTrainConfig = ControllerConfig
"""Its name in another generation."""


@dataclass(frozen=True)
class ModelStoreConfig:
    """Which models stay.

    Args:
      model_store: InMemory, whose models are files of the server here, or Redis.
      lineage_length: so many of the newest models stay; in Redis each learner's, too; 0: all.
      model_store_hostname: of the Redis.
      model_store_port: of the Redis.
    """

    model_store: str = "InMemory"
    lineage_length: int = 0
    model_store_hostname: str | None = None
    model_store_port: int | None = None

    @property
    def redis(self) -> str:
        """Address of the Redis; empty without one."""
        if self.model_store != "Redis":
            return ""
        host, port = self.model_store_hostname or "127.0.0.1", self.model_store_port or 6379
        return f"redis://{host}:{port}/0"


@dataclass(frozen=True)
class TerminationSignals:
    """When a run ends; any of them is enough.

    Args:
      federation_rounds: rounds at most.
      execution_cutoff_time_mins: minutes of work.
      evaluation_metric: of what `evaluate` returns.
      evaluation_metric_cutoff_score: value of it that ends the run.
    """

    federation_rounds: int | None = None
    execution_cutoff_time_mins: float | None = None
    evaluation_metric: str | None = None
    evaluation_metric_cutoff_score: float | None = None


TerminationSingals = TerminationSignals
"""As MetisFL spells it."""

RULES = ("FedAvg", "FedStride", "FedRec")
SCHEDULERS = ("Synchronous", "SemiSynchronous", "Asynchronous")
SCALING = ("NumTrainingExamples", "NumCompletedBatches", "NumParticipants")


def check_config(config: ControllerConfig, store: ModelStoreConfig) -> None:
    """Refuse what Hansa does not do, before anything is started.

    Raises:
      PlanError: plan-bad-value, a word that is none of MetisFL's, or a number that cannot be;
        plan-impossible, a part of MetisFL that is not there.
    """
    _known("aggregation_rule", config.aggregation_rule, RULES, _RULES)
    _known("scheduler", config.scheduler, SCHEDULERS, {})
    _known("scaling_factor", config.scaling_factor, SCALING, {})
    _known("model_store", store.model_store, ("InMemory", "Redis"), {})
    if not 0 < config.participation_ratio <= 1:
        raise _bad("participation_ratio", config.participation_ratio, "above 0 and at most 1")
    if config.semi_sync_lambda is not None and not config.semi_sync_lambda > 0:
        raise _bad("semi_sync_lambda", config.semi_sync_lambda, "above 0")
    if type(store.lineage_length) is not int or store.lineage_length < 0:
        raise _bad("lineage_length", store.lineage_length, "a whole number, not negative")


def check_signals(signals: TerminationSignals) -> None:
    """Refuse termination signals that never come, or cannot be.

    Raises:
      PlanError: plan-bad-value.
    """
    rounds, minutes = signals.federation_rounds, signals.execution_cutoff_time_mins
    metric, score = signals.evaluation_metric, signals.evaluation_metric_cutoff_score
    if rounds is None and minutes is None and score is None:
        raise _bad("termination_signals", "none", "rounds, minutes, or a metric and its score")
    if rounds is not None and (type(rounds) is not int or rounds < 1):
        raise _bad("federation_rounds", rounds, "a whole number from 1")
    if minutes is not None and not minutes > 0:
        raise _bad("execution_cutoff_time_mins", minutes, "above 0")
    if score is not None and not metric:
        raise _bad("evaluation_metric", metric, "the name of the metric that has the score")


_RULES = {
    "SecAgg": "Hansa does not encrypt updates; they travel over TLS, and the server sees them",
}


def _known(key: str, value: str, known: tuple[str, ...], absent: dict[str, str]) -> None:
    if value in absent:
        raise PlanError(
            "plan-impossible",
            f"{key} is {value}: {absent[value]}. Nothing was started.",
            f"Choose one of: {', '.join(known)}.",
        )
    if value not in known:
        raise _bad(key, value, f"one of {', '.join(known)}")


def _bad(key: str, value: object, wanted: str) -> PlanError:
    return PlanError(
        "plan-bad-value",
        f"{key} is {value!r:.80}; it must be {wanted}. Nothing was started.",
        "Correct that value.",
    )
