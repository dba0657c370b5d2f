"""The YAML federation environment of MetisFL's older generation, as a project and a README.

Nothing of it is executed.  What has no counterpart is named in the README, or refused.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hansa.compat.laying_out import whole
from hansa.compat.metisfl.config import (
    ControllerConfig,
    ModelStoreConfig,
    ServerParams,
    TerminationSignals,
    check_config,
    check_signals,
)
from hansa.compat.metisfl.environment_keys import sentence_of
from hansa.compat.metisfl.place import learner_name
from hansa.compat.metisfl.plan_text import Parameter, Wanted, plan_text, settings_of
from hansa.compat.metisfl.programs import README, controller_text, driver_text
from hansa.compat.metisfl.project import write_project
from hansa.errors import PlanError
from hansa.limits import ENVIRONMENT_BYTES_MAX, MEMBERS_NAMED_MAX
from hansa.text import clean


class Environment(NamedTuple):
    """What a file says, in Hansa's terms."""

    wanted: Wanted
    controller: ServerParams
    learners: list[ServerParams]
    taken: list[tuple[str, str]]  # key of the file, what became of it
    left: list[str]  # keys of the file that mean nothing here
    around: list[dict[str, str]]  # environment variables of each learner's process


def import_folder(path: Path) -> Path:
    """Return the folder that an environment is imported to where nobody names another."""
    return path.with_name(f"{path.stem}-hansa")


def import_environment(path: Path, target: Path) -> Environment:
    """Write a project from a federation environment.

    Args:
      path: of the YAML file.
      target: folder to write; must not exist.

    Raises:
      PlanError: import-refused, the file cannot be read or is no environment; project-exists;
        plan-impossible or plan-bad-value, it asks for what Hansa does not do.
    """
    if target.exists():
        raise PlanError(
            "project-exists",
            f"{target} exists already. Nothing was written.",
            "Name another folder with --to.",
        )
    environment = read_environment(path)
    with whole(target) as folder:
        write_project(folder, plan_text(environment.wanted), settings_of(environment.wanted))
        write_programs(environment, folder)
        (folder / "README.md").write_text(_readme(path, environment), encoding="utf-8")
    return environment


def write_programs(environment: Environment, folder: Path) -> None:
    """Write controller.py and driver.py into a folder, over those that are there."""
    wanted = environment.wanted
    texts = {
        "controller.py": controller_text(environment.controller, wanted),
        "driver.py": driver_text(environment.learners, wanted),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def read_environment(path: Path) -> Environment:
    """Return what a federation environment says.

    Raises:
      PlanError: as `import_environment`.
    """
    table = _Reading(_loaded(path), path)
    config = _config(table)
    _refuse_encryption(table)
    store = _store(table)
    signals = _signals(table)
    controller, learners = _hosts(table)
    around = [_around(table, index) for index in range(len(learners))]
    check_config(config, store)
    check_signals(signals)
    wanted = Wanted(config, store, signals, len(learners), _params(table))
    return Environment(wanted, controller, learners, table.taken, table.left(), around)


class _Reading:
    """A file's table, and which of its keys have been read."""

    def __init__(self, table: Mapping[str, Any], path: Path) -> None:
        self.table, self.path = table, path
        self.taken: list[tuple[str, str]] = []

    def get(self, key: str) -> Any:
        """Return the value at a dotted key, None where there is none."""
        value: Any = self.table
        for part in re.findall(r"[^.\[\]]+", key):
            if isinstance(value, list):
                value = value[int(part)]
            else:
                value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None and not isinstance(value, Mapping | list):
            self.taken.append((key, clean(str(value), 200)))
        return value

    def number(self, key: str) -> float | None:
        """Return a number, None where there is none.

        Raises:
          PlanError: it is something else.
        """
        value = self.get(key)
        if value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53:
            return value  # which NaN is not
        raise refused(f"{key} of {self.path} is {value!r:.80}, and must be a number.")

    def whole(self, key: str) -> int | None:
        """Return a whole number, None where there is none.

        Raises:
          PlanError: it is something else.
        """
        value = self.number(key)
        if value is None or value == int(value):
            return None if value is None else int(value)
        raise refused(f"{key} of {self.path} is {value}, and must be a whole number.")

    def left(self) -> list[str]:
        """Return the keys that nobody has asked for."""
        read = {key for key, _ in self.taken}
        return [key for key in _keys(self.table) if key not in read]


def _signals(table: _Reading) -> TerminationSignals:
    """Return when a run ends.

    Raises:
      PlanError: import-refused, a score is of no metric.
    """
    score = table.number("TerminationSignals.MetricCutoffScore")
    metric = _text(table, "EvaluationMetric", default="")
    if score is not None and not metric:
        raise refused(
            f"TerminationSignals.MetricCutoffScore of {table.path} is {score}, and there is no "
            "EvaluationMetric that it is of.",
            "Add EvaluationMetric with a name that evaluate() of the learner returns, or take the "
            "score out.",
        )
    return TerminationSignals(
        table.whole("TerminationSignals.FederationRounds"),
        table.number("TerminationSignals.ExecutionCutoffTimeMins"),
        metric or None,
        score,
    )


def _config(table: _Reading) -> ControllerConfig:
    rule = "GlobalModelConfig.AggregationRule"
    ratio = table.number("GlobalModelConfig.ParticipationRatio")
    specifics = f"{rule}.RuleSpecifications"
    scaling = _text(table, "GlobalModelConfig.ScalingFactor", default="") or _text(
        table, f"{specifics}.ScalingFactor", default="NumTrainingExamples"
    )
    stride = table.whole("GlobalModelConfig.StrideLength")
    stride = stride or table.whole(f"{specifics}.StrideLength")
    protocol = "CommunicationProtocol"
    multiple = table.number(f"{protocol}.SemiSyncLambda") or table.number(
        f"{protocol}.Specifications.SemiSyncLambda"
    )
    return ControllerConfig(
        aggregation_rule=_text(table, rule, "Name", default="FedAvg"),
        scheduler=_text(table, protocol, "Name", default="Synchronous"),
        scaling_factor=scaling,
        participation_ratio=1.0 if ratio is None else float(ratio),
        stride_length=stride,
        semi_sync_lambda=multiple,
        semi_sync_recompute_num_updates=bool(table.get(f"{protocol}.SemiSyncRecompute")),
    )


def _store(table: _Reading) -> ModelStoreConfig:
    """Return which models stay.

    Raises:
      PlanError: import-refused, the eviction policy is none of MetisFL's.
    """
    part = "ModelStoreConfig"
    policy = _text(table, f"{part}.EvictionPolicy", "Name", default="")
    if policy not in ("", "NoEviction", "LineageLengthEviction"):
        raise refused(
            f"{part}.EvictionPolicy of {table.path} is {policy!r:.80}; MetisFL has NoEviction and "
            "LineageLengthEviction."
        )
    length = None
    if policy != "NoEviction":
        length = table.whole(f"{part}.LineageLength")
        length = length or table.whole(f"{part}.EvictionPolicy.LineageLength")
    host = table.get(f"{part}.ModelStoreHostname")
    return ModelStoreConfig(
        _text(table, f"{part}.ModelStore", "Name", default="InMemory"),
        length or 0,
        None if host is None else str(host),
        table.whole(f"{part}.ModelStorePort"),
    )


def _refuse_encryption(table: _Reading) -> None:
    """Refuse an environment whose updates were encrypted: here the server would see them.

    Raises:
      PlanError: plan-impossible.
    """
    for part in ("EncryptionScheme", "HomomorphicEncryption"):
        scheme = _text(table, part, "Name", default="")
        if scheme and scheme.lower() != "none":
            raise PlanError(
                "plan-impossible",
                f"{part} of {table.path} is {clean(scheme, 40)}: Hansa does not encrypt updates "
                "homomorphically; they travel over TLS, and the server sees them. Nothing was "
                "written.",
                f"Take {part} out of the file if the server may see each learner's update.",
            )


_LOCAL = {
    "BatchSize": "batch_size",
    "LocalEpochs": "epochs",
    "ValidationPercentage": "validation_percentage",
}


def _params(table: _Reading) -> dict[str, Parameter]:
    """Return what learners are told of local training, as the configuration that `train` gets."""
    found: dict[str, Parameter] = {}
    for key, name in _LOCAL.items():
        share = name == "validation_percentage"
        value = (table.number if share else table.whole)(f"LocalModelConfig.{key}")
        if value is not None:
            found[name] = float(value) if share else value
    for part, inner in (("Optimizer", "Name"), ("OptimizerConfig", "OptimizerName")):
        if optimizer := _text(table, f"LocalModelConfig.{part}", inner, default=""):
            found["optimizer"] = optimizer
        for above in (f"{part}Params", f"{part}.OptimizerParams", f"{part}.Params"):
            options: Any = table.get(f"LocalModelConfig.{above}")
            for key in list(options)[:MEMBERS_NAMED_MAX] if isinstance(options, Mapping) else ():
                value = table.get(f"LocalModelConfig.{above}.{key}")
                if isinstance(value, bool | int | float | str):
                    found[_snake(str(key))] = value
    return found


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", clean(name, 80)).lower()


def _around(table: _Reading, index: int) -> dict[str, str]:
    """Return environment variables of a learner's process: its devices and its data."""
    where = f"Learners[{index}]"
    found: dict[str, str] = {}
    devices = table.get(f"{where}.CudaDevices")
    if devices is not None:
        listed = devices if isinstance(devices, list) else [devices]
        found["CUDA_VISIBLE_DEVICES"] = ",".join(clean(str(device), 80) for device in listed)
        table.taken.append((f"{where}.CudaDevices", found["CUDA_VISIBLE_DEVICES"]))
    for part in ("Train", "Validation", "Test"):
        for key in (f"DatasetConfigs.{part}DatasetPath", f"DatasetConfigs.{part}.DatasetPath"):
            path = table.get(f"{where}.{key}")
            if isinstance(path, str) and path:
                found[f"HANSA_DATA_{part.upper()}"] = path
    return found


def _text(table: _Reading, key: str, inner: str | None = None, *, default: str) -> str:
    """Return a word, which newer files write as a table with a name."""
    value = table.get(key)
    if inner and isinstance(value, Mapping):
        value = table.get(f"{key}.{inner}")
    if value is not None and not isinstance(value, str):
        raise refused(f"{key} of {table.path} is {value!r:.80}, and must be a word.")
    return value or default


def _hosts(table: _Reading) -> tuple[ServerParams, list[ServerParams]]:
    learners = table.table.get("Learners")
    if not isinstance(learners, list) or not 0 < len(learners) <= MEMBERS_NAMED_MAX:
        raise refused(f"{table.path} lists no learners under Learners.")
    hosts = [_host(learner, f"Learners[{i}]", table) for i, learner in enumerate(learners)]
    if len({learner_name(host) for host in hosts}) < len(hosts):
        raise refused(f"Two learners of {table.path} have the same host and port.")
    return _host(table.table.get("Controller"), "Controller", table), hosts


def _host(part: Any, where: str, table: _Reading) -> ServerParams:
    """Return where a part of the federation listens; some files name the host at its login."""
    server = (
        part.get("GRPCServer") or part.get("GRPCServicer") if isinstance(part, Mapping) else None
    )
    if not isinstance(server, Mapping):
        raise refused(f"{where} of {table.path} has no GRPCServer with Hostname and Port.")
    login = part.get("ConnectionConfigs") or part.get("ConnectionConfig")
    inherited = login.get("Hostname") if isinstance(login, Mapping) else None
    host, port = server.get("Hostname", inherited), server.get("Port")
    if not isinstance(host, str) or type(port) is not int or not 0 < port < 65536:
        raise refused(f"{where}.GRPCServer of {table.path} needs a Hostname and a Port.")
    return ServerParams(host, port)


def _loaded(path: Path) -> Mapping[str, Any]:
    try:
        yaml: Any = importlib.import_module("yaml")
    except ModuleNotFoundError:
        raise refused(
            f"Reading {path} takes PyYAML, which is not installed.", "pip install pyyaml"
        ) from None
    try:
        with open(path, "rb") as file:
            content = file.read(ENVIRONMENT_BYTES_MAX + 1)
        if len(content) > ENVIRONMENT_BYTES_MAX:
            raise refused(f"{path} has more than {ENVIRONMENT_BYTES_MAX} bytes.")
        table = yaml.safe_load(content)
    except (OSError, UnicodeDecodeError, RecursionError, ValueError, yaml.YAMLError) as error:
        raise refused(f"{path} cannot be read: {error!s:.300}.") from None
    table = table.get("FederationEnvironment", table) if isinstance(table, Mapping) else None
    if not isinstance(table, Mapping):
        raise refused(f"{path} is no federation environment.")
    return table


def _keys(table: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for name, value in list(table.items())[:MEMBERS_NAMED_MAX]:
        key = f"{above}{clean(str(name), 80)}"
        if name in ("GRPCServer", "GRPCServicer"):
            continue  # every host has one, and it is read
        if isinstance(value, Mapping) and above.count(".") < 4:  # aliases may nest without end
            yield from _keys(value, f"{key}.")
        elif key == "Learners" and isinstance(value, list):
            for index, learner in enumerate(value[:MEMBERS_NAMED_MAX]):
                if isinstance(learner, Mapping):
                    yield from _keys(learner, f"Learners[{index}].")
        else:
            yield key


def _readme(path: Path, environment: Environment) -> str:
    names = ", ".join(learner_name(params) for params in environment.learners)
    taken = "\n".join(f"| `{key}` | {json.dumps(value)} |" for key, value in environment.taken)
    left = "\n".join(f"- {line}" for line in left_lines(environment)) or "- nothing"
    return README.format(path=path.name, names=names, taken=taken, left=left)


def left_lines(environment: Environment) -> list[str]:
    """Return for each sentence the keys that it is about; those of many hosts are told once."""
    told: dict[str, dict[str, None]] = {}
    for key in environment.left:
        short = re.sub(r"\[\d+\]", "[]", key)
        told.setdefault(sentence_of(key), {})[f"`{short}`"] = None
    return [f"{', '.join(keys)}: {sentence}" for sentence, keys in told.items()]


def refused(happened: str, hint: str = "Correct the file.") -> PlanError:
    """Return the error for a file that cannot be imported."""
    return PlanError("import-refused", f"{happened} Nothing was written.", hint)
