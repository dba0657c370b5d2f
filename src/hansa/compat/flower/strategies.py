"""Which algorithm and aggregator of ours does what a Flower server class of that name does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from hansa.errors import PlanError


class Option(NamedTuple):
    """One option of ours: under which names Flower has it, and its default there."""

    theirs: tuple[str, ...]
    default: Any
    older: Any = None  # the default in flwr.server.strategy, where it is another


class Counterpart(NamedTuple):
    """What to write into a plan."""

    algorithm: str
    aggregator: str = "mean"
    options: Mapping[str, Option] = {}
    rule: Mapping[str, Option] = {}
    sends: Mapping[str, Option] = {}
    note: str = ""


_LR = Option(("eta",), 0.1)
_TAU = Option(("tau",), 1e-3, 1e-9)
_BETAS = {"beta1": Option(("beta_1",), 0.9), "beta2": Option(("beta_2",), 0.99)}
_FAULTY = Option(("num_malicious_nodes", "num_malicious_clients"), 0)
_MOMENTS = "second moments start at tau^2 as in the paper, not at 0"

COUNTERPARTS: Mapping[str, Counterpart] = {
    "FedAvg": Counterpart("fed_avg"),
    "FedProx": Counterpart(
        "fed_avg",
        sends={"proximal-mu": Option(("proximal_mu",), 0.0)},
        note="the client's own code adds the proximal term; it is sent proximal-mu",
    ),
    "FedAvgM": Counterpart(
        "fed_avg_m",
        options={
            "lr": Option(("server_learning_rate",), 1.0),
            "momentum": Option(("server_momentum",), 0.0),
        },
    ),
    "FedAdagrad": Counterpart(
        "fed_adagrad",
        options={"lr": _LR, "tau": _TAU},
        note=_MOMENTS,
    ),
    "FedAdam": Counterpart(
        "fed_adam",
        options={"lr": _LR, **_BETAS, "tau": _TAU},
        note=f"{_MOMENTS}, and no bias is corrected",
    ),
    "FedYogi": Counterpart(
        "fed_yogi",
        options={"lr": Option(("eta",), 0.01), **_BETAS, "tau": Option(("tau",), 1e-3)},
        note=_MOMENTS,
    ),
    "FedMedian": Counterpart("fed_avg", "median"),
    "FedTrimmedAvg": Counterpart(
        "fed_avg", "trimmed_mean", rule={"fraction": Option(("beta",), 0.2)}
    ),
    "Krum": Counterpart("fed_avg", "krum", rule={"byzantine": _FAULTY}),
    "MultiKrum": Counterpart(
        "fed_avg",
        "multi_krum",
        rule={"byzantine": _FAULTY, "keep": Option(("num_nodes_to_select",), 1)},
        note="those that are kept count alike, as in the paper",
    ),
    "FaultTolerantFedAvg": Counterpart(
        "fed_avg", note="cohort.minimum is the updates that a round needs"
    ),
}
"""By the name of Flower's class."""

_ASKING = (
    *("fraction_train", "fraction_evaluate"),
    *("min_train_nodes", "min_evaluate_nodes", "min_available_nodes"),
)
_OLDER = (
    *("fraction_fit", "fraction_evaluate"),
    *("min_fit_clients", "min_evaluate_clients", "min_available_clients"),
)
_RECORDS = (
    *("weighted_by_key", "arrayrecord_key", "configrecord_key"),
    *("train_metrics_aggr_fn", "evaluate_metrics_aggr_fn"),
)
_BETWEEN = {
    "Krum": ("num_malicious_nodes",),
    "MultiKrum": ("num_malicious_nodes", "num_nodes_to_select"),
}
_LAST = {
    "FedProx": ("proximal_mu",),
    "FedAvgM": ("server_learning_rate", "server_momentum"),
    "FedTrimmedAvg": ("beta",),
}
_BY_NAME_ALONE = ("FedAdagrad", "FedAdam", "FedYogi")


def by_place(name: str, *, older: bool) -> tuple[str, ...]:
    """Return the names of what a class may be given without a name, in order."""
    if name not in COUNTERPARTS or name in _BY_NAME_ALONE:
        return ()
    newer = (*_ASKING, *_BETWEEN.get(name, ()), *_RECORDS, *_LAST.get(name, ()))
    return _OLDER if older else newer


_KEEPING = ("num_clients_to_keep",)
"""With this above 0, the older Krum is Multi-Krum."""

_NO_PRIVACY = (
    "Hansa accounts for no differential privacy yet. Clipping alone is "
    'transforms = [{ name = "clip", norm = 1.0 }]'
)
_NO_TREES = "its trees are no tensors that have a mean"
WITHOUT: Mapping[str, str] = {
    "Bulyan": "the nearest rules are multi_krum and trimmed_mean",
    "QFedAvg": "no algorithm of Hansa weighs clients by their loss",
    "FedOpt": "it is the frame of FedAdam, FedYogi and FedAdagrad; name one of these",
    "FedAvgAndroid": "its clients are Android programs",
    "FedXgbBagging": _NO_TREES,
    "FedXgbCyclic": _NO_TREES,
    "FedXgbNnAvg": _NO_TREES,
    "DPFedAvgAdaptive": _NO_PRIVACY,
    "DPFedAvgFixed": _NO_PRIVACY,
    "DifferentialPrivacyClientSideAdaptiveClipping": _NO_PRIVACY,
    "DifferentialPrivacyClientSideFixedClipping": _NO_PRIVACY,
    "DifferentialPrivacyServerSideAdaptiveClipping": _NO_PRIVACY,
    "DifferentialPrivacyServerSideFixedClipping": _NO_PRIVACY,
}
"""Classes without a counterpart, and why or what is nearest."""

KNOWN = frozenset(COUNTERPARTS) | frozenset(WITHOUT)


class Chosen(NamedTuple):
    """A counterpart with its options filled in."""

    counterpart: Counterpart
    options: dict[str, Any]  # of the algorithm
    rule: dict[str, Any]  # of the aggregator
    sends: dict[str, Any]  # to clients that train


def counterpart(name: str, arguments: Mapping[str, Any], *, older: bool) -> Chosen:
    """Return what does the same as a Flower class with these arguments.

    Args:
      name: of the class.
      arguments: those whose values are known.
      older: whether it is the class of flwr.server.strategy, with other defaults.

    Raises:
      PlanError: import-refused, nothing of ours does that.
    """
    if name in WITHOUT:
        raise refused(f"Flower's {name} has no counterpart in Hansa: {WITHOUT[name]}.")
    if name not in COUNTERPARTS:
        raise refused(f"{name} is none of Flower's own: {', '.join(sorted(COUNTERPARTS))}.")
    found = COUNTERPARTS[name]
    if name == "Krum" and (keep := arguments.get(_KEEPING[0], 0)):
        found = COUNTERPARTS["MultiKrum"]
        arguments = {**arguments, "num_nodes_to_select": keep}

    def filled(options: Mapping[str, Option]) -> dict[str, Any]:
        return {ours: _value(option, arguments, older) for ours, option in options.items()}

    return Chosen(found, filled(found.options), filled(found.rule), filled(found.sends))


def options_of(name: str) -> set[str]:
    """Return the arguments of a class that a counterpart has an option for."""
    found = COUNTERPARTS[name]
    options = [*found.options.values(), *found.rule.values(), *found.sends.values()]
    keeping = _KEEPING if name == "Krum" else ()
    return {*keeping, *(theirs for option in options for theirs in option.theirs)}


def refused(happened: str) -> PlanError:
    """Return the error for something without a counterpart."""
    return PlanError(
        "import-refused",
        f"{happened} Nothing was written.",
        "Choose the nearest with --as, for example: --as FedAvg",
    )


def _value(option: Option, arguments: Mapping[str, Any], older: bool) -> Any:
    for name in option.theirs:
        if name in arguments:
            return arguments[name]
    return option.older if older and option.older is not None else option.default
