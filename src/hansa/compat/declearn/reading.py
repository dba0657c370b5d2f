"""What the TOML file of a declearn-quickrun set-up says; nothing of the set-up is executed."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from hansa.compat.declearn.optimizers import Steps, given, number, pair, refused, steps_of, table
from hansa.limits import METRIC_CLASSES_MAX, PROJECT_FILE_BYTES_MAX
from hansa.text import nearest

CONFIG = "config.toml"
_NETWORK = (
    "protocol", "host", "port", "certificate", "private_key", "password", "heartbeat",
    "compression", "logger", "name",
)  # fmt: skip
_BATCHES = ("batch_size", "shuffle", "drop_remainder", "poisson", "n_epoch", "n_steps", "timeout")
PARTS = ("train_data", "train_target", "valid_data", "valid_target")
_OF_CLASSES = ("accuracy", "f1_per_class", "precision_per_class", "recall_per_class", "confusion")
_METRICS = {
    "binary-classif": _OF_CLASSES,
    "multi-classif": _OF_CLASSES,
    "binary-roc": ("roc_auc",),
    "mae": ("mae",),
    "mse": ("mse",),
    "r2": ("r2",),
}
_DEFAULTS = {"binary-classif": {"thresh": 0.5, "label": 1}}
_WITHOUT = {
    "privacy": "DP-SGD is not there: clip and gaussian_noise bound and blur steps, and account "
    "for nothing.",
    "fairness": "Group fairness is not there; leave it out, and the plain average is trained.",
}


class Training(NamedTuple):
    """How a client trains in a round."""

    batch_size: int
    shuffle: bool
    drop_remainder: bool
    epochs: int | None
    steps: int | None


class Found(NamedTuple):
    """A set-up as its file describes it."""

    path: Path
    model_file: Path
    model_name: str
    data_folder: str | None  # None: beside the file, the one that begins with data
    clients: list[str] | None
    parts: dict[str, str]  # how files begin
    client: Steps
    server: Steps
    steps_weighted: bool
    rounds: int
    minimum: int
    most: int | None
    training: Training
    evaluation_batch: int
    every: int
    stop: dict[str, Any] | None
    metrics: list[str]
    classes: int | None  # at least, by the metrics; 0: targets are numbers; None: who knows
    left: list[str]  # keys that say nothing here


def read_setup(path: Path) -> Found:
    """Read a set-up's file, or config.toml of its folder.

    Raises:
      PlanError: import-refused, the file cannot be read, or something has no counterpart.
    """
    path = (path / CONFIG if path.is_dir() else path).resolve()
    told = _read(path)
    known = ("network", "data", "optim", "run", "model", "experiment")
    if "secagg" in told:
        raise refused("The set-up has [secagg]: secure aggregation is not there.", "Leave it out.")
    table(path.name, told, known)
    network = table("[network]", told.get("network", {}), _NETWORK)
    data = table("[data]", told.get("data", {}), ("data_folder", "client_names", "dataset_names"))
    model = table("[model]", told.get("model", {}), ("model_file", "model_name"))
    optim = _without("[optim]", told.get("optim", {}), ("aggregator", "client_opt", "server_opt"))
    experiment = table("[experiment]", told.get("experiment", {}), ("metrics", "checkpoint"))
    run = _without("[run]", told.get("run", {}), ("rounds", "register", "training", "evaluate",
                                                  "early_stop"))  # fmt: skip
    training = _training(run.get("training", {}))
    evaluation = _evaluation(run.get("evaluate", {}), training)
    register = _register(run.get("register", {}))
    metrics, classes = _metrics(experiment.get("metrics") or [])
    names = table("[data] dataset_names", data.get("dataset_names") or {p: p for p in PARTS}, PARTS)
    left = [f"network.{key}" for key in network]
    left += ["run.register.timeout"] if "timeout" in register else []
    return Found(
        path=path,
        model_file=located(
            path, model.get("model_file") or str(path.parent / "model.py"), "[model] model_file"
        ),
        model_name=_text("[model] model_name", model.get("model_name", "model")),
        data_folder=data.get("data_folder") or None,
        clients=_texts("[data] client_names", data.get("client_names")),
        parts={part: _text(f"[data] dataset_names.{part}", names.get(part)) for part in PARTS},
        client=steps_of("[optim] client_opt", optim.get("client_opt")),
        server=steps_of("[optim] server_opt", optim.get("server_opt", 1.0), server=True),
        steps_weighted=_aggregator(optim.get("aggregator", "averaging")),
        rounds=number("[run] rounds", run.get("rounds"), whole=True, least=1),
        minimum=register.get("min_clients", 1),
        most=register.get("max_clients"),
        training=training,
        evaluation_batch=evaluation["batch_size"],
        every=evaluation["frequency"],
        stop=_stop(run["early_stop"]) if "early_stop" in run else None,
        metrics=metrics,
        classes=classes,
        left=left + (["experiment.checkpoint"] if "checkpoint" in experiment else []),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > PROJECT_FILE_BYTES_MAX:
            raise ValueError(f"it has more than {PROJECT_FILE_BYTES_MAX >> 20} MiB")
        return tomllib.loads(path.read_text(encoding="utf-8-sig"), parse_float=_float)
    except (OSError, ValueError, RecursionError) as error:
        raise refused(f"{path} cannot be read: {error}.", "Name a set-up's TOML file.") from None


def _float(text: str) -> float | None:
    return None if text == "nan" else float(text)  # declearn's way to write None


def _without(where: str, value: Any, known: tuple[str, ...]) -> dict[str, Any]:
    """Return a table, having refused what Hansa does not do."""
    for key, hint in _WITHOUT.items():
        if isinstance(value, dict) and key in value:
            raise refused(f"{where} has {key}, which has no counterpart.", hint)
    return table(where, value, known)


def located(path: Path, named: Any, where: str) -> Path:
    """Return a file or folder that the set-up names: from here, as for declearn, or beside it."""
    name = Path(_text(where, named))
    for place in (Path.cwd(), path.parent):
        if (place / name).exists():
            return (place / name).resolve()
    raise refused(
        f"{where} is {str(name)!r}, which is neither here nor beside {path.name}.",
        "Correct it, or give --data FOLDER." if "data" in where else "Correct it.",
    )


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise refused(f"{where} {given(value)}, and no text.", "Correct it.")
    return value


def _texts(where: str, value: Any) -> list[str] | None:
    if value is None or value == []:
        return None
    if not isinstance(value, list):
        raise refused(f"{where} is {value!r:.60}, and no list.", "Correct it.")
    return [_text(where, one) for one in value]


def _flag(where: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise refused(f"{where} is {value!r:.60}.", "Write true or false.")
    return value


def _batching(where: str, told: dict[str, Any]) -> None:
    for key, why in (
        ("timeout", "it would make a run depend on how fast a machine is; use n_steps"),
        ("poisson", "batches have one size here; leave it out"),
    ):
        if told.get(key):
            raise refused(f"{where} has {key}, which has no counterpart.", f"Of rows and steps, "
                          f"{why}.")  # fmt: skip


def _training(value: Any) -> Training:
    where = "[run.training]"
    told = table(where, value, _BATCHES)
    _batching(where, told)
    epochs = told.get("n_epoch", 1)
    steps = told.get("n_steps")
    if epochs is None and steps is None:
        raise refused(f"{where} limits neither n_epoch nor n_steps.", "Set one of them.")
    return Training(
        number(f"{where} batch_size", told.get("batch_size"), whole=True, least=1),
        _flag(f"{where} shuffle", told.get("shuffle", False)),
        _flag(f"{where} drop_remainder", told.get("drop_remainder", True)),
        None if epochs is None else number(f"{where} n_epoch", epochs, whole=True, least=1),
        None if steps is None else number(f"{where} n_steps", steps, whole=True, least=1),
    )


def _evaluation(value: Any, training: Training) -> dict[str, int]:
    where = "[run.evaluate]"
    told = table(where, value, (*_BATCHES, "frequency"))
    _batching(where, told)
    for key in ("n_steps", "drop_remainder"):
        if told.get(key):
            raise refused(f"{where} has {key}; all rows are evaluated here.", "Leave it out.")
    return {
        key: number(f"{where} {key}", told.get(key, otherwise), whole=True, least=1)
        for key, otherwise in (("batch_size", training.batch_size), ("frequency", 1))
    }


def _register(value: Any) -> dict[str, int]:
    where = "[run.register]"
    told = {"min_clients": value} if isinstance(value, int) else value
    told = table(where, told, ("min_clients", "max_clients", "timeout"))
    return {
        key: number(f"{where} {key}", v, whole=True, least=1)
        for key, v in told.items()
        if v is not None
    }


def _aggregator(value: Any) -> bool:
    """Return whether updates weigh their steps."""
    told = {"name": value} if isinstance(value, str) else value
    told = dict(table("[optim] aggregator", told, ("name", "group", "config", "steps_weighted")))
    told |= table("[optim] aggregator.config", told.pop("config", {}), ("steps_weighted",))
    name = told.get("name")
    if name in ("gradient-masked-averaging", "sum"):
        raise refused(
            f"[optim] aggregator is {name!r}, which has no counterpart.",
            "Use averaging, or write an aggregator: docs/howto/robust-aggregation.md has others.",
        )
    if name != "averaging":
        known = ("averaging", "gradient-masked-averaging", "sum")
        raise refused(f"[optim] aggregator is {name!r:.60}.", nearest(str(name), known))
    return _flag("[optim] aggregator.steps_weighted", told.get("steps_weighted", True))


def _stop(value: Any) -> dict[str, Any]:
    where = "[run.early_stop]"
    told = table(where, value, ("tolerance", "patience", "decrease", "relative"))
    for key in ("tolerance", "relative"):
        if told.get(key):
            raise refused(f"{where} has {key}: any better value counts here.", "Leave it out.")
    return {
        "metric": "loss",
        "patience": number(f"{where} patience", told.get("patience", 1), whole=True, least=1),
        "lower_is_better": _flag(f"{where} decrease", told.get("decrease", True)),
    }


def _metrics(value: Any) -> tuple[list[str], int | None]:
    """Return metrics of Hansa's, and how many classes they take, as `Found` has it."""
    where, made = "[experiment] metrics", dict[str, None]()
    counts = set[int]()
    if not isinstance(value, list):
        raise refused(f"{where} {given(value)}, and no list.", 'Such as ["mse"].')
    for one in value:
        name, told = (one, {}) if isinstance(one, str) else pair(where, one)
        if name not in _METRICS:
            raise refused(f"{where} has {name!r:.60}.", nearest(name, _METRICS))
        told = dict(told)
        if name == "multi-classif":
            counts.add(_count(where, told.pop("labels", None)))
        else:
            counts.add(2 if name.startswith("binary") else 0)
        for key, default in _DEFAULTS.get(name, {}).items():
            if told.get(key) == default:
                del told[key]
        if told:
            key = next(iter(told))
            raise refused(f"{where}: {name} has {key}, which has no counterpart.", "Leave it out.")
        made |= dict.fromkeys(_METRICS[name])
    if 0 in counts and len(counts) > 1:
        raise refused(f"{where} are of classes and of numbers.", "Ask for those of one sort.")
    return list(made), max(counts, default=None)


def _count(where: str, labels: Any) -> int:
    """Return how many labels there are, which are whole numbers from 0 up."""
    if not isinstance(labels, list) or not labels or labels != [*range(len(labels))]:
        raise refused(f"{where}: labels are {labels!r:.80}.", "Number them from 0 up, in order.")
    if len(labels) > METRIC_CLASSES_MAX:
        raise refused(
            f"{where} has {len(labels)} classes; up to {METRIC_CLASSES_MAX} can be counted.",
            "Leave it out: the loss is measured all the same.",
        )
    return len(labels)
