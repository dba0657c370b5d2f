"""From a FLARE app to a Hansa project: what is taken from where, and the files of it.

Nothing of the app is executed, and nothing that exists is written over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, NamedTuple

from hansa.code import read_code
from hansa.compat.laying_out import (
    Written,
    lay_out,
    line,
    new_folder,
    not_code,
    python,
)
from hansa.compat.nvflare.reading import (
    CLIENT,
    META,
    SERVER,
    App,
    ClientApp,
    read_app,
    refused,
    rows,
)
from hansa.compat.nvflare.server_side import ServerSide, component, is_own, server_side
from hansa.compat.nvflare.shim import does_nothing
from hansa.plan import PLAN_FILE
from hansa.text import plan_name, toml

_MODULES = ("model.py", "hansa_model.py")  # the second where the app has the first
_FUNCTIONS = ("server.py", "hansa_server.py")  # the same
_LEFT = (SERVER, CLIENT, META, "log.config", "README.md", "LICENSE", "requirements.txt")
_BOUND = 1e30  # a robust aggregator is there for such values; nothing is summed before it
_FILE = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*\.npy")


class _Found(NamedTuple):
    """All that was read."""

    app: App
    server: ServerSide
    parts: list[dict[str, Any]]  # of each app that clients run: what `FlareApp` is told
    idle: list[str]  # components that do nothing here
    absent: list[str]  # classes at clients that nobody has brought
    clients: int | list[str]  # of a simulation
    module: str
    functions: str  # file of server functions, if the app brings what runs at the server
    folder: str  # of the server's app, in the project

    @property
    def simulated(self) -> int:
        """How many clients a simulation has."""
        return self.clients if isinstance(self.clients, int) else len(self.clients)


def import_app(source: Path, target: Path | None = None, clients: int | None = None) -> Written:
    """Write a Hansa project beside a FLARE app, or a job folder with the apps of its sites.

    Raises:
      PlanError: import-refused, something has no counterpart; project-exists.
      LearnerError: there is too much code.
    """
    app = read_app(source)
    target = new_folder(source.resolve(), target)
    code, folders = _code(app)
    found = _read(app, clients, code, folders)
    texts = {
        PLAN_FILE: plan_text(found),
        found.module: module_text(found),
        "README.md": readme_text(found),
    }
    if found.server.served:
        texts[found.functions] = functions_text(found)
    lay_out(target, code, texts)
    several = len(folders) > 1
    left = [
        f"{at.name}/{name}" if several else name
        for at in folders
        for name in not_code(at, target, _LEFT)
    ]
    return Written(target, list(_facts(found)), left)


def _code(app: App) -> tuple[dict[str, bytes], dict[Path, str]]:
    """Return the modules of all apps by where they will lie, and the folder of each app's.

    Apps with the same modules share them, and a process.  Others do not: two apps may each have a
    module of one name.
    """
    codes = {at: read_code(at) for at in (*(one.folder for one in app.clients), app.folder)}
    first: dict[Path, Path] = {}  # of each app the first that has the same code
    for at in sorted(codes, key=lambda at: not codes[at]):  # what has none lies with any
        like = (one for one in first.values() if codes[one] == codes[at] or not codes[at])
        first[at] = next(like, at)
    kinds = set(first.values())
    folders = {at: f"apps/{first[at].name}" if len(kinds) > 1 else "" for at in codes}
    code = {
        f"{folders[at]}/{name}".lstrip("/"): content
        for at in kinds
        for name, content in codes[at].items()
    }
    return dict(sorted(code.items())), folders


def _free(app: App, code: Mapping[str, bytes], names: tuple[str, ...]) -> str:
    """Return the first of the names that no file of the app has."""
    for name in names:
        if name not in code:
            return name
    raise refused(f"{app.folder} has files {' and '.join(names)}, which would be written.")


def _check_served(app: App, server: ServerSide, code: Mapping[str, bytes], folder: str) -> None:
    """Refuse an aggregator or generator whose module the app does not bring."""
    for what, part in server.served.items():
        if _is_absent(part["path"], code, folder):
            raise refused(
                f"The {what} {part['path']} is not in the code of {app.folder}.",
                "Put its module into custom/.",
            )


def _is_absent(path: str, code: Mapping[str, bytes], folder: str) -> bool:
    """Return whether a class is neither FLARE's nor in the code of the app in a folder."""
    file = path.rpartition(".")[0].replace(".", "/")
    ends = [f"{at}{file}{end}" for at in ("custom/", "") for end in (".py", "/__init__.py")]
    return is_own(path) and not any(f"{folder}/{end}".lstrip("/") in code for end in ends)


def _absent(parts: list[dict[str, Any]], code: Mapping[str, bytes]) -> list[str]:
    """Return the classes at clients that no app brings and that are not installed here."""
    found: dict[str, None] = {}
    for part in parts:
        filters = [f for key in ("data_filters", "result_filters") for r in part[key]
                   for f in r["filters"]]  # fmt: skip
        made = [row["executor"] for row in part["executors"]] + part["components"] + filters
        paths = [one["path"] for one in made]
        found |= dict.fromkeys(p for p in paths if _is_absent(p, code, part["folder"]))
    return [path for path in found if PathFinder.find_spec(path.partition(".")[0]) is None]


def _read(
    app: App, clients: int | None, code: Mapping[str, bytes], folders: Mapping[Path, str]
) -> _Found:
    module, functions = _free(app, code, _MODULES), _free(app, code, _FUNCTIONS)
    server = server_side(app)
    if app.sites:  # of more than all, FLARE's workflows take all
        server = server._replace(minimum=min(server.minimum, len(app.sites)))
    _check_served(app, server, code, folders[app.folder])
    idle: list[str] = []
    parts: list[dict[str, Any]] = []
    for one in app.clients:
        part = _part(app, one, server, idle) | {"folder": folders[one.folder]}
        like = next((p for p in parts if {**p, "sites": 0} == {**part, "sites": 0}), None)
        if like is None:
            parts.append(part)
        else:
            like["sites"] = sorted([*like["sites"], *part["sites"]])
    if server.cross_site and not any(_does(part, server.validate_task) for part in parts):
        raise refused(f"No executor of {CLIENT} does the task {server.validate_task!r}.")
    _check_sites(app, server, clients)
    simulated = _simulated(app, clients or max(server.minimum, 2))
    at = folders[app.folder]
    absent = _absent(parts, code)
    return _Found(app, server, parts, idle, absent, simulated, module, functions, at)


def _part(app: App, one: ClientApp, server: ServerSide, idle: list[str]) -> dict[str, Any]:
    """Return what one app's clients are made of; what does nothing here is added to `idle`."""
    components = []
    for part in rows(one.config, "components"):
        if does_nothing(path := str(part.get("path"))):
            idle += [path] if path not in idle else []
        else:
            components.append(component(part))
    executors = []
    for row in rows(one.config, "executors"):
        if not isinstance(row.get("executor"), dict) or not isinstance(row.get("tasks"), list):
            raise refused(f"An executor of {CLIENT} has no tasks, or no executor.", "Correct it.")
        executors.append({"tasks": row["tasks"], "executor": component(row["executor"])})
    made = {
        "sites": list(one.sites),
        "executors": executors,
        "components": components,
        # In the order in which FLARE applies them: the sender's first.
        "data_filters": _filters(app.server, "task_data_filters")
        + _filters(one.config, "task_data_filters"),
        "result_filters": _filters(one.config, "task_result_filters")
        + _filters(app.server, "task_result_filters"),
    }
    asked = [server.train_task]
    if not server.initial_site or server.initial_site in (one.sites or (server.initial_site,)):
        asked.append(server.initial_task)
    for task in filter(None, asked):
        if not _does(made, task):
            at = f" of {one.folder.name}" if len(app.clients) > 1 else ""
            raise refused(f"No executor of {CLIENT}{at} does the task {task!r}.")
    return made


def _does(part: Mapping[str, Any], task: str) -> bool:
    return any(task in row["tasks"] or "*" in row["tasks"] for row in part["executors"])


def _check_sites(app: App, server: ServerSide, clients: int | None) -> None:
    """Refuse what does not fit the sites that a job names."""
    if not app.sites:
        return
    named = f"the deploy_map of {META} names {', '.join(app.sites)}"
    if clients is not None and clients != len(app.sites):
        raise refused(f"--clients asks for {clients} clients, and {named}.", "Leave it out.")
    if server.initial_site and server.initial_site not in app.sites:
        raise refused(f"{server.initial_site} shall give the first model, and {named}.")


def _simulated(app: App, count: int) -> int | list[str]:
    """Return a simulation's clients: names where a job gives some, as sites are called."""
    if app.sites:
        return [site.lower() for site in app.sites]
    if not app.needed:
        return count
    names = [name.lower() for name in app.needed]
    others = (f"site-{number + 1}" for number in range(count))
    more = [name for name in others if name not in names]
    return sorted([*names, *more[: max(count - len(names), 0)]])


def _filters(side: dict[str, Any], key: str) -> list[dict[str, Any]]:
    return [
        {"tasks": row.get("tasks", []), "filters": [component(f) for f in rows(row, "filters")]}
        for row in rows(side, key)
    ]


def plan_text(found: _Found) -> str:
    """Return plan.toml, with a word on each line about where it was taken from."""
    server = found.server
    turns = found.simulated if server.workflow == "cyclic" else 1
    of_rounds = f"num_rounds in {SERVER}"
    named = ": site-1, site-2 ..." if isinstance(found.clients, int) else ""
    if turns > 1:
        of_rounds += f", times {turns} clients: each one's turn is a round"
    lines = [
        f"# What will run, taken from the FLARE app {_plain(found.app.name)}.",
        "# Every key is explained by: hansa config explain",
        f"name = {toml(plan_name(found.app.name))}",
        line("rounds", server.rounds * turns, of_rounds),
        line("workflow", _workflow(server), _workflow_said(server)),
        line("algorithm", "fed_avg", "FullModelShareableGenerator"),
    ]
    if server.initial_task:
        said = server.initial_site or "whoever answers, the first by name"
        lines.append(line("initial", "first", f"InitializeGlobalWeights: {said}"))
    if server.workflow != "cyclic" and not server.served:
        lines.append(line("aggregator", "mean", server.aggregator))
    if server.served:
        said = "what makes a model of the results: " + " and ".join(_own(server))
        lines.append(line("server_functions", found.functions, said))
        lines.append(line("bound", _BOUND, "of what is summed; here the aggregator judges values"))
    lines += [
        line("weighting", "user", "aggregation_weights x NUM_STEPS_CURRENT_ROUND, or 1"),
        "",
        "[learner]",
        line("kind", "function"),
        line("module", found.module),
        "",
        "[data]",
        line("clients", found.clients, f"of a simulation{named}"),
        "",
        "[cohort]",
        line("minimum", server.minimum, f"min_clients in {SERVER}"),
    ]  # fmt: skip
    if found.app.sites:
        lines.append(line("where", {"name": found.clients}, f"deploy_map in {META}"))
    if found.app.needed:
        needed = [name.lower() for name in found.app.needed]
        lines.append(line("mandatory", needed, f"mandatory_clients in {META}"))
    if server.deadline_s:
        lines.append(line("deadline_s", server.deadline_s, "train_timeout"))
    if server.waits_s:
        lines.append(line("grace_s", server.waits_s, "wait_time_after_min_received"))
    if server.cross_site:
        why = "all rounds but the last train only; then come the models"
        lines += ["", "[evaluate]", line("every", max(server.rounds, 1), why)]
    else:
        lines += ["", "[evaluate]", line("clients", 0, "no workflow of the app validates")]
    if (file := _saved(server)) is not None:
        lines += ["", "[keep]", line("as_numpy", file, "what the persistor saves, every round")]
    return "\n".join([*lines, ""])


def _workflow(server: ServerSide) -> Any:
    if server.workflow == "cyclic":
        order = {"order": server.order} if server.order != "fixed" else {}
        return {"name": "cyclic", "cycles": server.rounds, **order}
    if server.cross_site is None:
        return "synchronous"
    if server.cross_site == "CrossSiteModelEval":
        return {"name": "cross_site_evaluation", "own_models": True}
    return "cross_site_evaluation"


def _workflow_said(server: ServerSide) -> str:
    return f"{server.source}, then {server.cross_site}" if server.cross_site else server.source


def _saved(server: ServerSide) -> str | None:
    """Return the file that an NPModelPersistor saves, below the run's folder."""
    if not server.persistor["path"].endswith(".NPModelPersistor"):
        return None
    told = server.persistor["args"]
    file = f"{told.get('model_dir', 'models')}/{told.get('model_name', 'server.npy')}"
    return file if _FILE.fullmatch(file) else None


def module_text(found: _Found) -> str:
    """Return the module that hands the client side to Hansa."""
    server, several = found.server, bool(found.app.sites or found.parts[0]["folder"])
    told: dict[str, Any] = {
        **({"apps": found.parts} if several else found.parts[0]),
        "persistor": server.persistor,
        "persistor_folder": found.folder,
        "train_task": server.train_task if server.train_task != "train" else None,
        "validate_task": server.validate_task if server.validate_task != "validate" else None,
        "expects": server.expects,
        "weights": server.weights,
        "rounds": server.rounds,
        "start_round": server.start_round,
        "turns": found.simulated if server.workflow == "cyclic" else None,
        "log_levels": found.app.log_levels,
        "initial_task": server.initial_task,
        "initial_site": server.initial_site,
        "own_server": bool(server.served),
    }
    options = "".join(
        f"    {name}={_lines(value) if name == 'apps' else python(value)},\n"
        for name, value in told.items()
        if value or name == "expects"
    )
    return (
        f'"""The client side of the FLARE app {_plain(found.app.name)}, unchanged."""\n'
        "\n"
        "from hansa.compat.nvflare import FlareApp\n"
        "\n"
        f"flare = FlareApp(\n    __file__,\n{options})\n"
        "data, init, train, evaluate, close = flare.functions()\n"
        "tasks = flare.tasks()\n"
    )


def _lines(parts: list[dict[str, Any]]) -> str:
    """Return apps as Python writes them, a line each."""
    filled = [{name: value for name, value in part.items() if value} for part in parts]
    return f"[\n{''.join(f'        {python(part)},{chr(10)}' for part in filled)}    ]"


def functions_text(found: _Found) -> str:
    """Return the server functions that hand the results to the app's own components."""
    server = found.server
    told: dict[str, Any] = {
        **server.served,
        "folder": found.folder,
        "sites": [site for site in found.app.sites if site != site.lower()],
        "rounds": server.rounds,
        "start_round": server.start_round,
        "log_levels": found.app.log_levels,
    }
    options = "".join(f"    {name}={python(value)},\n" for name, value in told.items() if value)
    return (
        f'"""The server side of the FLARE app {_plain(found.app.name)}, unchanged."""\n'
        "\n"
        "from hansa.compat.nvflare.served import FlareServer\n"
        "\n"
        f"flare = FlareServer(\n    __file__,\n{options})\n"
        "aggregate = flare.aggregate\n"
    )


def _own(server: ServerSide) -> list[str]:
    """Return the paths of what runs at the server and is the app's own."""
    return [part["path"] for part in server.served.values() if is_own(part["path"])]


def _plain(name: str) -> str:
    return "".join(c for c in name if c.isalnum() or c in " -_.")


def readme_text(found: _Found) -> str:
    """Return the README."""
    told = "\n".join(f"    {what:<12} {taken}" for what, taken in _facts(found))
    return (
        f"# {found.app.name}\n\n"
        f"Made from a FLARE app: `{PLAN_FILE}` says what will run, `{found.module}` names the "
        "executors.\nAll other Python files are the app's, unchanged.\n\n"
        "    hansa run                    # simulate it on this machine\n"
        "    hansa dev                    # rehearse it: a server and sites as processes\n"
        "    hansa run --on ADDRESS       # run it on a federation's sites\n\n"
        f"Taken over:\n\n{told}\n\n"
        "Executors run in a process of their own, in which `nvflare` is Hansa's stand-in,\n"
        "whether FLARE is installed or not. Of the server's side nothing is executed but the\n"
        "persistor's load_model, which makes the seed model, and what is named above.\n"
    )


def _facts(found: _Found) -> Iterator[tuple[str, str]]:
    server = found.server
    for part in found.parts:
        at = f" at {', '.join(part['sites'])}" if part["sites"] else ""
        for row in part["executors"]:
            tasks = ", ".join(map(str, row["tasks"]))
            yield "executor", f"{row['executor']['path']}: {tasks}{at}"
    yield "workflow", f"{toml(_workflow(server))}: {_workflow_said(server)}"
    yield "rounds", f"{server.rounds}: num_rounds"
    yield (
        "clients",
        f"{found.simulated} simulated, at least {server.minimum} in a round: min_clients",
    )
    for path in _own(server):
        yield "at a server", f"{path}, in a sandbox"
    yield "seed model", f"{server.persistor['path']}"
    if (file := _saved(server)) is not None:
        yield "saved", f"{file} in the run's folder"
    if server.source == "ScatterAndGather":
        yield (
            "waited",
            f"{server.waits_s:g} s after min_clients, and not when all have answered",
        )
    for path in found.idle:
        yield "does nothing", path
    for path in found.absent:
        yield "not here", f"{path}: put its module into custom/, or install it at every client"
