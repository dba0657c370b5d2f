"""From a Flower project to a Hansa project: what is taken from where, and the files of it.

Nothing of the Flower project is executed, and nothing that exists is written over.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hansa.code import read_code
from hansa.compat.flower.asking import ARGUMENTS, Asking
from hansa.compat.flower.reading import (
    CLIENTS,
    PROJECT_FILE,
    FlowerProject,
    module_file,
    read_project,
)
from hansa.compat.flower.seed_code import FUNCTION, seed_code
from hansa.compat.flower.server_code import ServerCode, Settings, Strategy
from hansa.compat.flower.strategies import Chosen, counterpart, options_of, refused
from hansa.compat.laying_out import (
    Written,
    lay_out,
    line,
    new_folder,
    not_code,
    python,
)
from hansa.errors import PlanError
from hansa.plan import PLAN_FILE
from hansa.text import clean, plan_name, toml

SEED_FILE = "hansa_seed.py"
_MODULES = ("model.py", "hansa_model.py")  # the second where the project has the first
_ROUNDS = ("num-server-rounds", "num_server_rounds", "num-rounds", "num_rounds")
_FIELDS = {  # keys of run_config that the plan decides: the field of the round's context
    "epochs": ("local-epochs", "local_epochs", "epochs", "num-epochs", "num_epochs"),
    "lr": ("learning-rate", "learning_rate", "lr"),
    "batch_size": ("batch-size", "batch_size"),
}
_ABOUT = re.compile(r"--.*(partition|node|client|cid).*", re.IGNORECASE)  # options of a script
_WHICH = re.compile(
    r"--(.+[-_])?(cid|(partition|node|client)([-_]?(id|idx|index|number|num|no))?)", re.IGNORECASE
)
_MANY = re.compile(
    r"--(num|n|nr|total|number[-_]of)[-_]?(total[-_])?(super)?(partition|node|client)s?"
    r"|--(partitions|nodes|clients)",
    re.IGNORECASE,
)
_KEYS = {  # arguments of the server class: the options of FlowerApp
    "weighted_by_key": "weighted_by",
    "arrayrecord_key": "arrays_in",
    "configrecord_key": "config_in",
}
_ELSEWHERE = (  # read where the settings and the seed model are; Flower itself reads no eta_l
    *("on_fit_config_fn", "on_evaluate_config_fn", "initial_parameters", "initial_arrays"),
    "eta_l",
)
_LEFT = (PROJECT_FILE, "README.md", "LICENSE", ".gitignore", "requirements.txt")


class Import(NamedTuple):
    """What was asked for on the command line."""

    source: Path
    target: Path | None = None
    client: str | None = None
    model: str | None = None
    strategy: str | None = None
    clients: int | None = None
    arguments: str | None = None  # of a script


class _Found(NamedTuple):
    """All that was read."""

    project: FlowerProject
    strategy: Strategy | None  # None where the command line or nothing names one
    chosen: Chosen
    train: Settings
    evaluate: Settings
    model: str | None
    seed: str | None  # text of the file that makes the seed model
    rounds: tuple[int, str]  # with where it was taken from
    where: Mapping[str, str]  # what -> where it was taken from
    module: str
    left: list[str]  # arguments of the server class that nothing stands for, and of which class
    arguments: str | None  # of a script


def import_project(asked: Import) -> Written:
    """Write a Hansa project beside a Flower project.

    Raises:
      PlanError: import-refused, something has no counterpart; project-exists.
      LearnerError: there is too much code.
    """
    source = asked.source.resolve()
    if not source.is_dir():
        raise PlanError(
            "import-refused", f"There is no folder {asked.source}.", "Name a Flower project."
        )
    target = new_folder(source, asked.target)
    code = read_code(source)
    found = _read(asked, source, code)
    texts = {PLAN_FILE: plan_text(found), found.module: module_text(found)}
    texts["README.md"] = readme_text(found)
    if found.seed is not None:
        texts[SEED_FILE] = found.seed
    lay_out(target, code, texts)
    return Written(target, list(_facts(found)), list(not_code(source, target, _LEFT)))


def _read(asked: Import, source: Path, code: Mapping[str, bytes]) -> _Found:
    project = read_project(source, asked.client)
    if module_file(source, project.client) is None:
        raise PlanError(
            "import-refused",
            f"{source} has no file for the client app {project.client!r}. Nothing was written.",
            "Name it with --client, for example: --client client_app:app",
        )
    if SEED_FILE in code or all(name in code for name in _MODULES):
        taken = SEED_FILE if SEED_FILE in code else _MODULES[1]
        raise refused(f"{source} has a file {taken}, which would be written.")
    where: dict[str, str] = {}
    server = _server(source, project)
    strategy = None if server is None else _strategy(server[0], server[1], asked.strategy)
    chosen = _chosen(asked, strategy, where, server)
    left = [] if server is None else _left(*server, strategy)
    train = evaluate = Settings({}, {}, [])
    if server is not None:
        train, evaluate = server[0].settings(train=True), server[0].settings(train=False)
    model, seed = asked.model, None
    made = seed_code(server[0]) if server is not None and model is None else None
    if made is not None and server is not None:
        model, seed = f"{Path(SEED_FILE).stem}:{FUNCTION}", made.text
        where["model"] = f"{server[1]}, line {made.line}"
    elif model is not None:
        where["model"] = "--model"
    if model is None and not _gives_parameters(code):
        raise PlanError(
            "import-refused",
            "No client of the project has get_parameters, and the lines that make the initial "
            "arrays could not be taken out of the server app. Nothing was written.",
            "Write a function that returns the model, its state_dict or a list of arrays, and name "
            "it: --model my_package.task:make_model",
        )
    if asked.clients is not None:
        project = project._replace(clients=asked.clients)
        where["clients"] = "--clients"
    module = next(name for name in _MODULES if name not in code)
    rounds = _rounds(project.run_config, server)
    script = asked.arguments if asked.arguments is not None else _script_arguments(project)
    return _Found(
        project, strategy, chosen, train, evaluate, model, seed, rounds, where, module, left, script
    )


def _rounds(config: Mapping[str, Any], server: tuple[ServerCode, str] | None) -> tuple[int, str]:
    """Return how many rounds, as the server app says it, or else the project's file."""
    told = None if server is None else server[0].rounds()
    if told is not None and server is not None:
        count, place = told
        return count, place if place.endswith(PROJECT_FILE) else f"{server[1]}, {place}"
    key = next((key for key in _ROUNDS if isinstance(config.get(key), int)), None)
    return (max(config[key], 1) if key else 3), _key(key)


def _server(source: Path, project: FlowerProject) -> tuple[ServerCode, str] | None:
    """Return the server file's syntax and its name, if there is one."""
    path = module_file(source, project.server) if project.server else None
    if path is None:
        guesses = (source / name for name in ("server_app.py", "server.py", "main.py", "sim.py"))
        path = next((guess for guess in guesses if guess.is_file()), None)
    if path is None:
        return None
    package = ".".join(path.relative_to(source).parent.parts)
    try:
        return ServerCode(path, package, project.run_config), path.name
    except (SyntaxError, ValueError, RecursionError) as error:
        raise refused(f"{path} cannot be read as Python: {error}.") from None


def _strategy(server: ServerCode, name: str, wanted: str | None) -> Strategy | None:
    """Return the one server class of a file, or the one use of that which is wanted.

    Raises:
      PlanError: it uses several, or one of the project's own.
    """
    found = server.strategies()
    if wanted is not None:
        found = [strategy for strategy in found if strategy.name == wanted]
        return found[0] if len(found) == 1 else None
    names = {strategy.name for strategy in found}
    if len(names) > 1:
        used = ", ".join(f"{s.name} (line {s.line})" for s in found)
        raise refused(f"{name} uses more than one of Flower's server classes: {used}.")
    if found and found[0].own is not None:
        raise refused(
            f"{name}, line {found[0].line}: {found[0].own} is the project's own server class, "
            f"which derives from {found[0].name}; what it changes would not be done."
        )
    return found[0] if found else None


def _left(server: ServerCode, name: str, strategy: Strategy | None) -> list[str]:
    """Return the arguments that nothing of the new project stands for, of the class or of all.

    Raises:
      PlanError: one that decides what is trained is not known.
    """
    if strategy is None:  # another one was named on the command line
        return [
            f"{argument} of {other.own or other.name}"
            for other in server.strategies()
            for argument in (*other.arguments, *other.unknown)
        ]
    read = {*options_of(strategy.name), *ARGUMENTS, *_KEYS}
    nameless = [n for n in strategy.unknown if n.startswith(("*", "argument "))]
    hidden = [n for n in strategy.unknown if n in read or (n in nameless and not strategy.own)]
    if hidden:
        raise PlanError(
            "import-refused",
            f"{name}, line {strategy.line}: what {strategy.own or strategy.name} is given as "
            f"{', '.join(hidden)} is not known without running the code, and it may decide what "
            "is trained. Nothing was written.",
            "Write it into that line by name and as a plain value, for example fraction_train=0.5.",
        )
    silent = {*read, *_ELSEWHERE}
    given = {n: v for n, v in strategy.arguments.items() if v is not None}
    left = [argument for argument in (*given, *strategy.unknown) if argument not in silent]
    return [f"{argument} of {strategy.own or strategy.name}" for argument in left]


def _chosen(
    asked: Import,
    strategy: Strategy | None,
    where: dict[str, str],
    server: tuple[ServerCode, str] | None,
) -> Chosen:
    if asked.strategy is not None:
        where["strategy"] = f"--as {asked.strategy}"
        if strategy is None:
            return counterpart(asked.strategy, {}, older=False)
        where["strategy"] += f", with what line {strategy.line} gives it"
        return counterpart(asked.strategy, strategy.arguments, older=strategy.older)
    if strategy is None:
        if server is not None:
            raise refused(f"{server[1]} uses none of Flower's server classes that Hansa knows.")
        where["strategy"] = "no server app was found; FedAvg is Flower's default"
        return counterpart("FedAvg", {}, older=False)
    assert server is not None  # a server class stands in a file
    where["strategy"] = f"{strategy.name} in {server[1]}, line {strategy.line}"
    return counterpart(strategy.name, strategy.arguments, older=strategy.older)


def plan_text(found: _Found) -> str:
    """Return plan.toml, with a word on each line about where it was taken from."""
    project, config = found.project, found.project.run_config
    lines = [
        f"# What will run, taken from the Flower project {plan_name(project.name)}.",
        "# Every key is explained by: hansa config explain",
        f"name = {toml(plan_name(project.name))}",
        line("rounds", *found.rounds),
        line("algorithm", _named(found.chosen.counterpart.algorithm, found.chosen.options),
              _said(found)),
    ]  # fmt: skip
    if found.chosen.counterpart.aggregator != "mean":
        rule = _named(found.chosen.counterpart.aggregator, found.chosen.rule)
        lines.append(line("aggregator", rule, "the same class"))
    lines += [
        line("weighting", "user", "an update weighs the examples that its client says"),
        "",
        "[learner]",
        line("kind", "function"),
        line("module", found.module),
        *_learner_lines(config),
        "",
        "[data]",
        line("clients", _clients(found), found.where.get("clients", _from_federation(found))),
        *Asking(found.strategy, config, _clients(found)).lines(),
    ]
    if (metric := _metric(found)) is not None:
        lines += ["", "[stop]", line("metric", metric, "named in the client's code")]
    return "\n".join([*lines, ""])


def _learner_lines(config: Mapping[str, Any]) -> Iterator[str]:
    keys = _plan_keys(config)
    for field, key in keys.items():
        value, comment = config[key], _key(key)
        if field == "lr":
            yield f"optimizer = {{ lr = {value} }}  # {comment}"
        else:
            yield line(field, value, comment)


def module_text(found: _Found) -> str:
    """Return the module that hands the client side to Hansa."""
    project = found.project
    sends = dict(found.chosen.sends)
    if sends:  # under the spelling of each generation
        sends |= {name.replace("-", "_"): value for name, value in sends.items()}
    train = {**sends, **found.train.values}
    from_plan = {key: field for field, key in _plan_keys(project.run_config).items()}
    followed = {n: k for n, k in found.train.keys.items() if k in from_plan}
    from_plan |= {name: from_plan[key] for name, key in followed.items()}
    options = [f"client={python(project.client)}", f"clients={_clients(found)}"]
    options += [f"model={python(found.model)}"] if found.model else []
    if found.arguments is not None:
        options.append(f"arguments={python(found.arguments)}")
    told = {
        "run_config": project.run_config,
        "train_config": train,
        "evaluate_config": found.evaluate.values,
        "from_plan": from_plan,
    }
    options += [f"{name}={python(value)}" for name, value in told.items() if value]
    given = found.strategy.arguments if found.strategy else {}
    options += [f"{ours}={python(given[key])}" for key, ours in _KEYS.items() if key in given]
    name = plan_name(project.name)  # safe to write into code
    lines = [
        f'"""The client side of the Flower project {name}, unchanged, as a learner."""',
        "",
        "from hansa.compat.flower import FlowerApp",
        "",
    ]
    for kind, settings in (("train", found.train), ("evaluate", found.evaluate)):
        if settings.unknown:
            names = ", ".join(clean(name) for name in settings.unknown)
            lines.append(
                f"# Not known without running the server app; add to {kind}_config: {names}"
            )
    rows = "".join(f"    {option},\n" for option in options)
    lines += [f"flower = FlowerApp(\n    __file__,\n{rows})"]
    lines += ["data, init, train, evaluate, close = flower.functions()", ""]
    return "\n".join(lines)


def readme_text(found: _Found) -> str:
    """Return the README."""
    seed = f"`{SEED_FILE}` makes the seed model. " if found.seed else ""
    rows = "\n".join(f"    {what:<12} {taken}" for what, taken in _facts(found))
    return (
        f"# {found.project.name}\n\n"
        f"Made from a Flower project: `{PLAN_FILE}` says what will run, `{found.module}` hands the "
        f"client app to\nHansa. {seed}All other Python files are the Flower project's, "
        "unchanged.\n\n"
        "    hansa run                    # simulate it on this machine\n"
        "    hansa dev                    # rehearse it: a server and sites as processes\n"
        "    hansa run --on ADDRESS       # run it on a federation's sites\n\n"
        f"Taken over:\n\n{rows}\n\n"
        "The server app is not executed. The client app runs in a process of its own, in which\n"
        "`flwr` is Hansa's stand-in, whether Flower is installed or not.\n"
    )


def _facts(found: _Found) -> Iterator[tuple[str, str]]:
    chosen = found.chosen.counterpart
    rule = "" if chosen.aggregator == "mean" else f" with {chosen.aggregator}"
    yield "client", f"{found.project.client}, unchanged"
    note = f"; {chosen.note}" if chosen.note else ""
    yield "algorithm", f"{chosen.algorithm}{rule}: {found.where['strategy']}{note}"
    yield "clients", f"{_clients(found)}: {found.where.get('clients', _from_federation(found))}"
    if found.model is not None:
        yield "seed model", f"{found.model}: {found.where['model']}"
    else:
        yield "seed model", "the first client's get_parameters"
    unknown = [*found.train.unknown, *found.evaluate.unknown]
    if unknown:
        yield "to add", f"{', '.join(unknown)} in {found.module}: not known without running code"
    if found.left:
        yield "to add", f"{', '.join(map(clean, found.left))}: not taken over"


def _clients(found: _Found) -> int:
    return found.project.clients or CLIENTS


def _from_federation(found: _Found) -> str:
    said = found.project.clients is not None
    return f"num-supernodes in {PROJECT_FILE}" if said else "not said; Flower's own default is 10"


def _said(found: _Found) -> str:
    note = found.chosen.counterpart.note
    return f"{found.where['strategy']}{f'; {note}' if note else ''}"


def _plan_keys(config: Mapping[str, Any]) -> dict[str, str]:
    """Return which key of run_config each field of the plan takes the place of."""
    keys = {}
    for field, names in _FIELDS.items():
        kinds: Any = (int, float) if field == "lr" else int
        for name in names:
            value = config.get(name)
            if isinstance(value, kinds) and not isinstance(value, bool) and value > 0:
                keys[field] = name
                break
    return keys


def _gives_parameters(code: Mapping[str, bytes]) -> bool:
    return any(b"def get_parameters" in content for content in code.values())


def _client_tree(project: FlowerProject) -> ast.Module:
    """Return the syntax of the client's file, or of an empty one where it has none."""
    path = module_file(project.folder, project.client)
    try:
        return ast.parse(path.read_text(encoding="utf-8-sig") if path is not None else "")
    except (SyntaxError, ValueError, RecursionError):
        return ast.Module([], [])  # running it will say what is wrong


def _script_arguments(project: FlowerProject) -> str | None:
    """Return the arguments that say which client a script is and of how many, if it takes any.

    Raises:
      PlanError: it is not clear which of its options says which client it is.
    """
    if not project.client.endswith(".py"):
        return None
    options = list(filter(_ABOUT.fullmatch, _options(_client_tree(project))))
    many = [option for option in options if _MANY.fullmatch(option)]
    which = [option for option in options if _WHICH.fullmatch(option) and option not in many]
    if options and len(which) != 1:
        none = f"none of its options {', '.join(options)} clearly says"
        several = f"each of its options {', '.join(which)} may say"
        raise PlanError(
            "import-refused",
            f"{project.client} is run once for each client, and {several if which else none} "
            "which one it is: all of them would train on the same data. Nothing was written.",
            "Name what it is given, for example: --arguments "
            f'"{(which or ["--client-id"])[0]} {{partition}}"',
        )
    words = [*(f"{option} {{partition}}" for option in which)]
    words += [f"{option} {{partitions}}" for option in many]
    return " ".join(words) or None


def _options(tree: ast.Module) -> Iterator[str]:
    """Yield the long options that a script declares, but for flags without a value."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            flag = any(keyword.arg == "action" for keyword in node.keywords)
            if node.func.attr == "add_argument" and not flag:
                names = [str(a.value) for a in node.args if isinstance(a, ast.Constant)]
                yield from [name for name in names if name.startswith("--")][:1]


def _metric(found: _Found) -> str | None:
    """Return the first metric of the client's code whose name speaks of accuracy."""
    tree = _client_tree(found.project)
    keys = [
        str(key.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant)
    ]
    found_key = next((key for key in keys if "acc" in key and "train" not in key), None)
    return None if found_key == "accuracy" else found_key


def _key(name: str | None) -> str:
    return f"{name} in {PROJECT_FILE}" if name else "not said"


def _named(name: str, options: Mapping[str, Any]) -> Any:
    return {"name": name, **options} if options else name
