"""A session of FEDn as a run: its parameters in a plan's words, and the run handed over."""

from __future__ import annotations

import inspect
import tempfile
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from hansa.compat.fedn.desk import Desk, SessionNote, State
from hansa.compat.fedn.formats import FORMS, read_model
from hansa.compat.fedn.present import HAND_OVER, Settings
from hansa.compat.fedn.reading import read_package
from hansa.compat.fedn.writing import LABELS, Import, import_package
from hansa.compat.hand_over import MODULE
from hansa.errors import PlanError
from hansa.identity import Membership
from hansa.limits import BLOB_BYTES_MAX, SPLIT_FEATURES
from hansa.project import open_project
from hansa.remote.submit import submit
from hansa.remote.trail import start_at
from hansa.runs.start import Start
from hansa.text import plan_name

_OPTIMIZERS = {"adam": "fed_adam", "yogi": "fed_yogi", "adagrad": "fed_adagrad"}
_LOCAL = f"""name = "session"
weighting = "user"  # by each client's num_examples

[learner]
kind = "function"
module = "{MODULE}"  # hands over to each client's own process

[data]
validation = 0  # a client validates on rows of its own
"""
_ALLOWED = """\
from fedn.common.log_config import logger
from fedn.network.combiner.hooks.allowed_import import (
    Dict, List, ServerFunctionsBase, Tuple, api_client, np, random,
)
"""
"""The names that FEDn gives to the class of a session."""
_KWARGS = {"serveropt", "learning_rate", "beta1", "beta2", "tau"}


class Wanted(NamedTuple):
    """The parameters of a session, with FEDn's defaults."""

    name: str = ""
    aggregator: str = "fedavg"
    aggregator_kwargs: Mapping[str, Any] | None = None
    model_id: str | None = None
    round_timeout: float = 180
    rounds: int = 5
    buffer_size: int = -1
    validate: bool = True
    helper: str | None = None
    min_clients: int = 1
    client_ids: str | list[str] | None = None
    server_functions: Any = None
    package: Literal["local", "remote"] | None = None
    labels: str | None = None  # of a session of split learning: the client who holds them
    features: int = SPLIT_FEATURES  # of such a session: columns of all embeddings, at most
    uploaded: str = ""  # id of its compute package; by default the active one


def going_on(desk: Desk, session: str, **more: Any) -> Wanted:
    """Return the parameters of a session that goes on: those it was begun with, and `more`.

    Raises:
      PlanError: import-refused, it was not begun from here.
    """
    note = desk.state.begun.get(session)
    if note is None:
        raise refused(
            f"note here of how {session!r:.80} was begun",
            "Start another from its model, with all parameters: "
            "client.start_session(name=..., model_id=...)",
        )
    begun = {field: getattr(note, field) for field in note.__struct_fields__}
    return Wanted(session, **{**begun, **more})


def plan_changes(wanted: Wanted) -> dict[str, Any]:
    """Return what a session's parameters change in the plan of its package.

    Every model is kept, as FEDn keeps them.

    Raises:
      PlanError: import-refused, a parameter has no counterpart here.

    >>> plan_changes(Wanted("my session", rounds=3))["name"]
    'my-session'
    """
    if wanted.buffer_size > 0:
        raise refused(
            f"round_buffer_size {wanted.buffer_size}: a round that ends early",
            "Import the package with hansa import fedn, and set cohort.count and cohort.over: a "
            "round then ends once as many have answered as were wanted.",
        )
    ids = wanted.client_ids
    names = ids.split(",") if isinstance(ids, str) else list(ids or ())
    names += [wanted.labels] if names and wanted.labels is not None else []
    cohort = {
        "minimum": wanted.min_clients + (wanted.labels is not None),
        "deadline_s": float(wanted.round_timeout),
        **({"where": {"name": [name.strip() for name in names]}} if names else {}),
    }
    changes = {
        "name": plan_name(wanted.name, otherwise="session"),
        "rounds": wanted.rounds,
        "cohort": cohort,
        "keep": {"every": 1},
    }
    kwargs = dict(wanted.aggregator_kwargs or {})
    if wanted.labels is None:
        changes["algorithm"] = _algorithm(wanted.aggregator, kwargs)
        changes["evaluate"] = {"reports": True} if wanted.validate else {"clients": 0}
    elif wanted.aggregator != "splitlearningagg" or kwargs:
        raise refused(
            f"aggregator {wanted.aggregator!r:.60} of split learning with {sorted(kwargs)}",
            "Leave it out: splitlearningagg is here; others are set in the plan of a package: "
            "hansa import fedn, then algorithm.",
        )
    elif not wanted.validate:
        split = {"name": "split", "labels": wanted.labels, "parts": "clients"}
        changes["workflow"] = {**split, "measure": "nothing"}
    return changes


def start(membership: Membership, desk: Desk, wanted: Wanted) -> str:
    """Hand a session over as a run, and return the run's name at the server.

    It is a run of the active package; or, with `package` "local" or where none is active, one that
    trains in the processes of `FednClient`.

    Raises:
      PlanError: there is no package or model to run, or a parameter has no counterpart.
      HansaError: it cannot be handed over; the message says why.
    """
    state = desk.state
    if wanted.package not in (None, "local", "remote"):
        raise refused(f"package {wanted.package!r:.60}", 'Valid: "local", "remote".')
    local = wanted.package == "local" or (wanted.package is None and not state.package)
    local = local and wanted.labels is None
    if wanted.labels is not None and wanted.model_id:
        raise refused(
            f"split session that goes on from {wanted.model_id!r:.60}",
            "Its clients' parts stayed with the session that made them; start anew, with rounds "
            "enough.",
        )
    model = "" if wanted.labels is not None else wanted.model_id or state.model
    begin = _begin(membership, desk, model)
    with tempfile.TemporaryDirectory(prefix="hansa-session-") as place:
        target = Path(place) / "project"
        changes = plan_changes(wanted)
        if local:
            _write_local(target, wanted, begin)
        else:
            changes |= _write_remote(target, desk, wanted)
        project = open_project(target, changes=changes)
        runs = desk.folder / "runs"
        folder = submit(project, membership, runs=runs, start=begin, new=True)
    run = str((folder.remote or {})["run"])
    desk.add_run(wanted.name or run, run, _note(wanted, state, local=local))
    return run


def _note(wanted: Wanted, state: State, *, local: bool) -> SessionNote:
    """Return what a session that goes on needs to know of how it was begun."""
    given = wanted.server_functions
    return SessionNote(
        aggregator=wanted.aggregator,
        aggregator_kwargs=dict(wanted.aggregator_kwargs or {}),
        validate=wanted.validate,
        helper=wanted.helper,
        min_clients=wanted.min_clients,
        client_ids=wanted.client_ids,
        server_functions=None if given is None else _class_text(given),
        package="local" if local else "remote",
        uploaded="" if local else wanted.uploaded or state.package,
        labels=wanted.labels,
        features=wanted.features,
    )


def _write_local(target: Path, wanted: Wanted, begin: Start | None) -> None:
    """Write a project whose learner is each client's own process."""
    helper = wanted.helper or "numpyhelper"
    if wanted.server_functions is not None:
        raise refused(
            "session of server_functions without a compute package",
            "Clients in their own processes take no run that brings code. Choose them with "
            "client_ids, or upload a package: client.set_active_package(path, helper)",
        )
    if begin is None:
        raise refused(
            "a session without a compute package and without a seed model",
            "Clients in their own processes make none: client.set_active_model(path); or upload a "
            "package: client.set_active_package(path, helper)",
        )
    if helper not in FORMS:
        raise refused(f"helper {helper!r:.60}", f"Valid: {', '.join(FORMS)}.")
    HAND_OVER.write(target, _LOCAL, Settings(helper))


def _write_remote(target: Path, desk: Desk, wanted: Wanted) -> dict[str, Any]:
    """Write the project of the active package, and return what its plan lacks besides."""
    note = desk.state.packages.get(wanted.uploaded or desk.state.package)
    if note is None:
        raise refused(
            "a session without a compute package",
            "Upload one first: client.set_active_package(path, helper)",
        )
    helper = wanted.helper or note.helper
    functions = None
    if wanted.server_functions is not None:
        functions = target.with_name("server_functions.py")
        text = f"{_ALLOWED}\n\n{_class_text(wanted.server_functions)}"
        functions.write_text(text, encoding="utf-8")
    asked = Import(
        desk.package_file(note),
        target,
        helper=helper,
        data=note.data,
        env=note.env,
        settings=note.settings,
        environment=note.environment,
        server_functions=functions,
        labels=wanted.labels or LABELS,
        features=wanted.features,
        begins=False,  # its start does
    )
    package = read_package(asked.source, helper)
    if package.splits != (wanted.labels is not None):
        verb = "start_splitlearning_session" if package.splits else "start_session"
        what = f"such session of the package {note.file_name}"
        raise refused(what, f"Start it with: client.{verb}(...)")
    import_package(asked)
    validates = "validate" in package.lines or package.splits
    return {} if validates else {"evaluate": {"clients": 0}}


def _class_text(given: Any) -> str:
    """Return the text of a session's server functions: as FEDn takes them, the class alone.

    Raises:
      PlanError: import-refused, it is no class whose lines can be read.
    """
    if isinstance(given, str):  # of a session that goes on
        return given
    try:
        return textwrap.dedent(inspect.getsource(given))
    except (OSError, TypeError):
        raise refused(
            f"text of the server_functions {given!r:.60}",
            "Give a class ServerFunctions that stands in a file.",
        ) from None


def refused(what: str, hint: str) -> PlanError:
    """Return the error for what has no counterpart here."""
    return PlanError("import-refused", f"There is no {what}. Nothing was done.", hint)


def _begin(membership: Membership, desk: Desk, model: str) -> Start | None:
    """Return the model to start from; None: the package's own line makes it."""
    state = desk.state
    if not model:
        return None
    if model in state.seeds:
        note = state.seeds[model]
        content = desk.seed_file(model).read_bytes()
        params = read_model(content, FORMS[note.helper], most=BLOB_BYTES_MAX)
        return Start(params.copy(), note.file_name)
    text = state.sessions[model][-1] if model in state.sessions else model
    return start_at(membership, text, desk.folder / "runs")


def _algorithm(aggregator: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    if aggregator == "fedavg" and not kwargs:
        return {"name": "fed_avg"}
    kind = _OPTIMIZERS.get(str(kwargs.get("serveropt", "adam")))
    if aggregator != "fedopt" or kind is None or kwargs.keys() - _KWARGS:
        raise refused(
            f"aggregator {aggregator!r:.60} with {sorted(kwargs)}",
            "FEDn's fedavg and fedopt (serveropt adam, yogi or adagrad) are here; others of "
            "Hansa's are set in the plan: hansa import fedn, then algorithm and aggregator.",
        )
    options = {
        "lr": kwargs.get("learning_rate", 1e-3),
        "beta1": kwargs.get("beta1", 0.9),
        "tau": kwargs.get("tau", 1e-4),
    }
    if kind != "fed_adagrad":
        options["beta2"] = kwargs.get("beta2", 0.99)
    return {"name": kind, **options}
