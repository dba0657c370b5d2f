"""What a FLARE app's server side says, in Hansa's words; what has none is refused."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from hansa.compat.nvflare.reading import App, arguments, path_of, refused, rows
from hansa.compat.nvflare.shim import NAME, is_there, place_of

TRAINING = ("ScatterAndGather", "FedAvg", "CyclicController")
INITIAL = "InitializeGlobalWeights"
WORKFLOWS = (INITIAL, *TRAINING, "CrossSiteModelEval", "GlobalModelEval")
AGGREGATORS = ("InTimeAccumulateWeightedAggregator", "AccumulateWeightedAggregator")
AGGREGATOR_ARGUMENTS = (
    *("aggregation_weights", "expected_data_kind"),
    *("exclude_vars", "weigh_by_local_iter"),
)
ORDERS = {"FIXED": "fixed", "RANDOM": "random"}
"""Whose turn comes next in a cyclic workflow: Hansa's word for FLARE's."""
GENERATORS = ("FullModelShareableGenerator",)


class ServerSide(NamedTuple):
    """What the plan is made of."""

    workflow: str  # synchronous or cyclic
    source: str  # FLARE's name of it
    rounds: int
    start_round: int
    minimum: int
    deadline_s: float | None
    waits_s: float  # for others, once the minimum has answered
    persistor: dict[str, Any]
    aggregator: str  # FLARE's name
    expects: str  # kind of a result
    weights: dict[str, float]
    train_task: str
    validate_task: str
    cross_site: str | None  # FLARE's name of an evaluation after the training
    order: str = "fixed"  # of turns, in a cyclic workflow
    initial_task: str = ""  # whose results are the first model
    initial_site: str = ""  # the one client that gives it
    served: Mapping[str, dict[str, Any]] = MappingProxyType(
        {}
    )  # what runs at the server: aggregator and generator


def server_side(app: App) -> ServerSide:
    """Return what an app's server side says.

    Raises:
      PlanError: import-refused, it has something without a counterpart.
    """
    components = {str(row.get("id")): row for row in rows(app.server, "components")}
    found = rows(app.server, "workflows")
    kinds = [_known(row, WORKFLOWS, "workflow") for row in found]
    initial = ("", "")
    if kinds[:1] == [INITIAL]:
        initial, found, kinds = _initial(arguments(found[0])), found[1:], kinds[1:]
    training = [k for k in kinds if k in TRAINING]
    after = [k for k in kinds if k not in training]
    if len(training) != 1 or kinds[:1] != training or len(after) > 1:
        raise refused(
            f"The app's workflows are {', '.join(kinds) or 'none'}; one that trains comes first or "
            f"after {INITIAL}, and one that evaluates may follow."
        )
    given = arguments(found[0])
    cyclic, plain = training == ["CyclicController"], training == ["FedAvg"]
    told = arguments(found[1]) if after else {}
    if cyclic and after:
        raise refused("After a cyclic workflow there is no cross-site evaluation.")
    served = _served(
        _makers(components, given, training[0]), "" if not cyclic and not after else kinds[-1]
    )
    persistor = _component(components, given, "persistor_id", "persistor")
    weights: dict[str, float] = {}
    if plain:
        aggregator, expects, weights = _of_fed_avg(given, served)
    elif cyclic:
        aggregator, expects = "", "WEIGHTS"
    elif served and is_own(served["aggregator"]["path"]):
        aggregator, expects = served["aggregator"]["path"], ""
    else:
        aggregator, expects, weights = _aggregator(components, given)
    return ServerSide(
        workflow="cyclic" if cyclic else "synchronous",
        source=training[0],
        rounds=_count(given, "num_rounds", 5),
        start_round=_count(given, "start_round", 0, at_least=0),
        minimum=1 if cyclic else _count(given, "num_clients" if plain else "min_clients", 1),
        deadline_s=_seconds(given, "train_timeout", 0) or None,
        waits_s=_seconds(given, "wait_time_after_min_received", 0 if plain else 10),
        persistor=_there(_with_model(persistor, components)),
        aggregator=aggregator,
        expects=expects,
        weights={} if served else weights,  # its aggregator weighs, and gets steps
        train_task=str(given.get("train_task_name") or given.get("task_name") or "train"),
        validate_task=str(told.get("validation_task_name") or "validate"),
        cross_site=after[0] if after else None,
        order=_order(given) if cyclic else "fixed",
        initial_task=initial[0],
        initial_site=initial[1],
        served=served,
    )


def is_own(path: str) -> bool:
    """Return whether a path is that of an app's own class."""
    return "." in path and not path.startswith(f"{NAME}.")


def _makers(
    components: Mapping[str, dict[str, Any]], given: Mapping[str, Any], workflow: str
) -> dict[str, dict[str, Any]]:
    """Return what makes a model of a workflow's results: aggregator and generator, if it has."""
    if workflow == "FedAvg":  # which adds differences and replaces weights by itself
        described = given.get("aggregator")
        full = {"path": place_of(GENERATORS[0])}
        if isinstance(described, str) and described in components:
            described = components[described]
        return {"aggregator": described, "generator": full} if isinstance(described, dict) else {}
    generator = _component(components, given, "shareable_generator_id", "shareable_generator")
    if workflow == "CyclicController":
        return {"generator": generator}
    found = _component(components, given, "aggregator_id", "aggregator")
    return {"aggregator": found, "generator": generator}


def _served(makers: Mapping[str, dict[str, Any]], beside: str) -> dict[str, dict[str, Any]]:
    """Return aggregator and generator, if one of them is the app's own: both run at the server.

    Args:
      makers: their descriptions.
      beside: the workflow with which they cannot be the app's own; "" if there is none.
    """
    own = [what for what, part in makers.items() if is_own(path_of(part))]
    if own and beside:
        raise refused(
            f"The app has an {own[0]} of its own, {path_of(makers[own[0]])}, and the workflow "
            f"{beside}; both together are not taken over."
        )
    names = {"aggregator": AGGREGATORS, "generator": GENERATORS}
    if own:
        return {what: _at_server(part, names[what], what) for what, part in makers.items()}
    if "generator" in makers:
        _known(makers["generator"], GENERATORS, "shareable generator")
    return {}


def _at_server(described: dict[str, Any], names: tuple[str, ...], what: str) -> dict[str, Any]:
    """Return what a component is made of at the server: the app's own class, or a stand-in."""
    path = path_of(described)
    if not is_own(path):
        name = _known(described, names, what)
        if name in AGGREGATORS:
            _check_weighted(name, arguments(described))
        path = place_of(name) or path
    return {"path": path, "args": arguments(described)}


def _initial(given: Mapping[str, Any]) -> tuple[str, str]:
    """Return the task whose result is a first model, and the one client that does it."""
    method, client = given.get("weight_method", "first"), given.get("weight_client_name") or ""
    if method not in ("first", "client") or (method == "client" and not isinstance(client, str)):
        raise refused(f"{INITIAL} has the weight_method {method!r}.", 'It is "first" or "client".')
    if method == "client" and not client:
        raise refused(f"{INITIAL} takes a client's weights and names no weight_client_name.")
    return str(given.get("task_name") or "get_weights"), client if method == "client" else ""


def _aggregator(
    components: Mapping[str, dict[str, Any]], given: Mapping[str, Any]
) -> tuple[str, str, dict[str, float]]:
    described = _component(components, given, "aggregator_id", "aggregator")
    name = _known(described, AGGREGATORS, "aggregator")
    told = arguments(described)
    _check_weighted(name, told)
    expects = told.get("expected_data_kind", "WEIGHT_DIFF")
    if expects not in ("WEIGHTS", "WEIGHT_DIFF"):
        raise refused(f"{name} expects {expects!r}; WEIGHTS or WEIGHT_DIFF are taken over.")
    return name, expects, _weights(told, name)


def _check_weighted(name: str, told: Mapping[str, Any]) -> None:
    """Refuse arguments of a weighted mean that nothing here does."""
    if odd := [key for key in told if key not in AGGREGATOR_ARGUMENTS]:
        raise refused(
            f"{name} has the argument {odd[0]}, which is not known.",
            f"Known are {', '.join(AGGREGATOR_ARGUMENTS)}.",
        )
    if told.get("exclude_vars"):
        raise refused(f"{name} leaves variables out (exclude_vars), which has no counterpart.")
    if not told.get("weigh_by_local_iter", True):
        raise refused(
            f"{name} has weigh_by_local_iter = false: it divides by weights what clients have "
            "weighted already, which has no counterpart.",
            "Let clients send plain values, and leave it out.",
        )


def _order(given: Mapping[str, Any]) -> str:
    """Return in which order the clients of a cyclic workflow have their turns."""
    order = given.get("order", "FIXED")
    if order not in ORDERS:
        raise refused(
            f"CyclicController has the order {order!r:.60}; taken over are {', '.join(ORDERS)}.",
            "RANDOM draws the order of each cycle anew.",
        )
    return ORDERS[order]


def _of_fed_avg(
    given: Mapping[str, Any], served: Mapping[str, Any]
) -> tuple[str, str, dict[str, float]]:
    """Return what the workflow FedAvg, which aggregates by itself, says of that."""
    for key in ("aggregator", "aggregator_id", "exclude_vars", "stop_cond", "fedprox_mu", "model"):
        if given.get(key) and not (served and key == "aggregator"):
            raise refused(f"The workflow FedAvg has {key}, which is not taken over.")
    return "FedAvg", "", _weights(given, "FedAvg")


def _weights(told: Mapping[str, Any], name: str) -> dict[str, float]:
    weights = told.get("aggregation_weights") or {}
    if not isinstance(weights, dict) or not all(_is_weight(w) for w in weights.values()):
        raise refused(f"aggregation_weights of {name} are not positive numbers by client.")
    return {str(site): float(weight) for site, weight in weights.items()}


def _is_weight(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 2**31


def _component(
    components: Mapping[str, dict[str, Any]], given: Mapping[str, Any], key: str, default: str
) -> dict[str, Any]:
    wanted = given.get(key) or default
    if not isinstance(wanted, str) or wanted not in components:
        raise refused(f"The app's workflow names the component {wanted!r}, which is not there.")
    return components[wanted]


def _known(described: Mapping[str, Any], names: tuple[str, ...], what: str) -> str:
    """Return the class name of one of FLARE's own components."""
    path = path_of(described)
    name = path.rpartition(".")[2]
    if name not in names or is_own(path):
        own = "the app's own" if is_own(path) else "not known"
        raise refused(f"The {what} {path} is {own}; taken over are {', '.join(names)}.")
    return name


def _with_model(
    described: dict[str, Any], components: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    """Return a persistor whose argument `model` is a description and not a component's id."""
    told = arguments(described)
    model = told.get("model")
    if not isinstance(model, str) or model not in components:
        return described
    return {**described, "args": {**told, "model": _there(components[model])}}


def _there(described: dict[str, Any]) -> dict[str, Any]:
    """Return a component's description, if its class is the app's own or stood in for."""
    path = path_of(described)
    if "." not in path:
        path = place_of(path) or path
    if "." not in path or (path.startswith(f"{NAME}.") and not is_there(path)):
        raise refused(f"Hansa has no stand-in for {path}.")
    return {"path": path, "args": arguments(described)}


def component(described: dict[str, Any]) -> dict[str, Any]:
    """Return a client's component for `FlareApp`, with its id.

    Raises:
      PlanError: import-refused, it is FLARE's, and not stood in for.
    """
    named = {"id": described["id"]} if "id" in described else {}
    return named | _there(described)


def _count(given: Mapping[str, Any], key: str, default: int, *, at_least: int = 1) -> int:
    value = _seconds(given, key, default)
    if value != int(value) or value < at_least:
        raise refused(f"{key} of the app's workflow is {value:g}.", "Give a whole number.")
    return int(value)


def _seconds(given: Mapping[str, Any], key: str, default: float) -> float:
    value = given.get(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise refused(f"{key} of the app's workflow is {value!r:.80}.", "Correct it.")
    return float(value)
