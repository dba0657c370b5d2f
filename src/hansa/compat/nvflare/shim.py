"""What stands in for the module `nvflare` in the process that runs a FLARE app's client code.

`install` is called by that process alone (`hansa.compat.nvflare.worker`); how it works stands in
`hansa.compat.stand_in`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from hansa.compat import stand_in
from hansa.compat.nvflare import (
    aggregating,
    client_api,
    components,
    exchange,
    filters,
    names,
    np_examples,
    torch_names,
)

NAME = "nvflare"
VERSION = "0+hansa"
SERVER = (
    "nvflare.apis.analytix",
    "nvflare.apis.controller_spec",
    "nvflare.apis.impl",
    "nvflare.apis.server_engine_spec",
    "nvflare.app_common.abstract.formatter",
    "nvflare.app_common.abstract.model_locator",
    "nvflare.app_common.aggregators",
    "nvflare.app_common.handlers",
    "nvflare.app_common.shareablegenerators",
    "nvflare.app_common.tracking",
    "nvflare.app_common.widgets",
    "nvflare.app_common.workflows",
    "nvflare.client.tracking",
    "nvflare.widgets",
)
"""Names that can be imported, called and derived from, and do nothing."""


def secure_format_exception(e: BaseException, *args: Any, **options: Any) -> str:
    """Return an exception as one line."""
    return f"{type(e).__name__}: {e}"


def _of(module: ModuleType, *wanted: str) -> dict[str, Any]:
    return {name: getattr(module, name) for name in wanted}


_CONSTANTS = _of(
    names, "ReturnCode", "ReservedKey", "FLContextKey", "EventScope", "ReservedHeaderKey"
)  # fmt: skip
_MODEL = _of(
    exchange, "ModelLearnable", "ModelLearnableKey", "make_model_learnable",
    "validate_model_learnable", "model_learnable_to_dxo",
)  # fmt: skip
_APP = _of(
    names, "AppConstants", "ModelName", "ValidateType", "EnvironmentKey",
    "DefaultCheckpointFileName", "AlgorithmConstants",
)  # fmt: skip
_WEIGHTED = dict.fromkeys(
    ("InTimeAccumulateWeightedAggregator", "AccumulateWeightedAggregator"),
    aggregating.WeightedAggregator,
)
_FULL_MODEL = _of(aggregating, "FullModelShareableGenerator")
_FORMAT = _of(torch_names, "PTModelPersistenceFormatManager")
_PERSISTOR = _of(torch_names, "PTFileModelPersistor")

_MODEL_OF_SCRIPTS = _of(client_api, "FLModel", "ParamsType")
_CLIENT = {
    **_MODEL_OF_SCRIPTS,
    **_of(
        client_api, "init", "receive", "send", "is_running", "is_train", "is_evaluate",
        "is_submit_model", "get_task_name", "get_site_name", "get_job_id", "system_info",
        "get_config", "train", "evaluate",
    ),
    **{name: client_api.do_nothing for name in ("log", "shutdown", "clear")},
}  # fmt: skip
_SCRIPTS = {"InProcessClientAPIExecutor": client_api.ScriptExecutor,
            "ClientAPIExecutor": client_api.ScriptExecutor,
            "PTInProcessClientAPIExecutor": client_api.TorchScriptExecutor}  # fmt: skip

PARTS: Mapping[str, Mapping[str, Any]] = {
    "nvflare": {"__version__": VERSION},
    "nvflare.apis": {},
    "nvflare.apis.dxo": {**_of(exchange, "DXO", "from_shareable", "from_bytes"),
                         **_of(names, "DataKind", "MetaKey")},
    "nvflare.apis.event_type": _of(names, "EventType"),
    "nvflare.apis.executor": _of(components, "Executor"),
    "nvflare.apis.filter": _of(components, "Filter"),
    "nvflare.apis.fl_component": _of(components, "FLComponent"),
    "nvflare.apis.fl_constant": _CONSTANTS,
    "nvflare.apis.fl_context": _of(components, "FLContext"),
    "nvflare.apis.shareable": {**_of(exchange, "Shareable", "make_reply"),
                               **_of(names, "ReservedHeaderKey", "ReturnCode")},
    "nvflare.apis.signal": _of(components, "Signal"),
    "nvflare.apis.workspace": _of(components, "Workspace"),
    "nvflare.app_common": {},
    "nvflare.app_common.abstract.fl_model": _MODEL_OF_SCRIPTS,
    "nvflare.app_common.executors.client_api_executor": _SCRIPTS,
    "nvflare.app_common.executors.in_process_client_api_executor": _SCRIPTS,
    "nvflare.app_opt.pt.in_process_client_api_executor": _SCRIPTS,
    "nvflare.client": _CLIENT,
    "nvflare.client.api": _CLIENT,
    "nvflare.app_common.abstract": {},
    "nvflare.app_common.abstract.learnable": _of(exchange, "Learnable"),
    "nvflare.app_common.abstract.learnable_persistor": _of(components, "LearnablePersistor"),
    "nvflare.app_common.abstract.learner_spec": _of(components, "Learner"),
    "nvflare.app_common.abstract.model": _MODEL,
    "nvflare.app_common.abstract.model_persistor": _of(components, "ModelPersistor"),
    "nvflare.app_common.abstract.aggregator": _of(aggregating, "Aggregator"),
    "nvflare.app_common.abstract.shareable_generator": _of(aggregating, "ShareableGenerator"),
    "nvflare.app_common.aggregators": _WEIGHTED,
    "nvflare.app_common.aggregators.accumulate_model_aggregator": _WEIGHTED,
    "nvflare.app_common.aggregators.intime_accumulate_model_aggregator": _WEIGHTED,
    "nvflare.app_common.aggregators.model_aggregator": _of(aggregating, "ModelAggregator"),
    "nvflare.app_common.aggregators.weighted_aggregation_helper": _of(
        aggregating, "WeightedAggregationHelper"
    ),
    "nvflare.app_common.shareablegenerators": _FULL_MODEL,
    "nvflare.app_common.shareablegenerators.full_model_shareable_generator": _FULL_MODEL,
    "nvflare.app_common.app_constant": _APP,
    "nvflare.app_common.app_event_type": _of(names, "AppEventType"),
    "nvflare.app_common.executors": {},
    "nvflare.app_common.executors.learner_executor": _of(components, "LearnerExecutor"),
    "nvflare.apis.dxo_filter": _of(filters, "DXOFilter"),
    "nvflare.app_common.filters": _of(filters, "ExcludeVars", "PercentilePrivacy", "SVTPrivacy"),
    "nvflare.app_common.filters.exclude_vars": _of(filters, "ExcludeVars"),
    "nvflare.app_common.filters.percentile_privacy": _of(filters, "PercentilePrivacy"),
    "nvflare.app_common.filters.svt_privacy": _of(filters, "SVTPrivacy"),
    "nvflare.app_common.np": {},
    "nvflare.app_common.np.constants": _of(names, "NPConstants"),
    "nvflare.app_common.np.np_model_persistor": _of(np_examples, "NPModelPersistor"),
    "nvflare.app_common.np.np_trainer": _of(np_examples, "NPTrainer"),
    "nvflare.app_common.np.np_validator": _of(np_examples, "NPValidator"),
    "nvflare.app_common.pt": {},
    "nvflare.app_common.pt.pt_fed_utils": _FORMAT,
    "nvflare.app_common.pt.pt_file_model_persistor": _PERSISTOR,
    "nvflare.app_opt": {},
    "nvflare.app_opt.pt": _PERSISTOR,
    "nvflare.app_opt.pt.file_model_persistor": _PERSISTOR,
    "nvflare.app_opt.pt.model_persistence_format_manager": _FORMAT,
    "nvflare.security": {},
    "nvflare.security.logging": {"secure_format_exception": secure_format_exception},
}  # fmt: skip
"""Every module of the client's side and what is in it."""


def place_of(name: str) -> str | None:
    """Return the dotted path of a component that a configuration names without one."""
    return next((f"{part}.{name}" for part in PARTS if name in PARTS[part]), None)


def is_there(path: str) -> bool:
    """Return whether a dotted path of FLARE's own has something behind it here."""
    module, _, name = path.rpartition(".")
    return name in PARTS.get(module, {})


def does_nothing(path: str) -> bool:
    """Return whether a dotted path of FLARE's own names something that can be left out."""
    return path.startswith(tuple(f"{part}." for part in SERVER))


def install() -> None:
    """Let `nvflare` mean this, in this process, from now on.

    Raises:
      LearnerError: the real one has been imported already.
    """
    stand_in.install(NAME, PARTS, SERVER)
