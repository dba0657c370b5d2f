"""From a FEDn compute package to a Hansa project, in which the package lies unchanged."""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from hansa.compat.fedn.formats import FORMS, read_model
from hansa.compat.fedn.reading import DESCRIPTION, FednPackage, read_package
from hansa.compat.fedn.served import CLASS, FUNCTIONS
from hansa.compat.laying_out import lay_out
from hansa.errors import PlanError
from hansa.limits import BLOB_BYTES_MAX, SPLIT_FEATURES, SPLIT_FEATURES_MAX
from hansa.params import Params
from hansa.plan import PLAN_FILE
from hansa.store.files import save_params
from hansa.text import plan_name, toml

TOP = "package"
SEED_FILE = "seed.safetensors"
REQUIREMENTS = "requirements.txt"
LABELS = "labels"
"""Who holds the labels of split learning, unless it is said."""

_SERVER_FILE, _FUNCTIONS_FILE = "server.py", "server_functions.py"
_CALL = ("python", "-m", "hansa.compat.fedn.call")
_PLACES = {
    "train": ("--data", "{data}", "--model", "{model_in}", "--out", "{update_out}",
              "--result", "{result_out}"),
    "validate": ("--data", "{data}", "--model", "{model_in}", "--result", "{result_out}"),
    "predict": ("--data", "{data}", "--model", "{model_in}", "--out", "{predictions_out}"),
    "init": ("--out", "{model_out}"),
    "forward": ("--data", "{data}", "--out", "{update_out}", "--state", "{state}"),
    "backward": ("--data", "{data}", "--model", "{model_in}", "--state", "{state}"),
}  # fmt: skip
_HEAD = ("python", "-m", "hansa.compat.fedn.head")


class Import(NamedTuple):
    """What was asked for on the command line."""

    source: Path
    target: Path | None = None
    seed_model: Path | None = None
    init: str | None = None  # a line that builds the seed model
    helper: str | None = None
    data: str = "data"
    env: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    startup: bool = True
    environment: bool = True
    server_functions: Path | None = None  # with FEDn's class ServerFunctions
    labels: str = LABELS  # of split learning: the client who holds the labels
    features: int = SPLIT_FEATURES  # of split learning: columns of all embeddings, at most
    begins: bool = True  # the project itself says with which model


class Written(NamedTuple):
    """A project that was made."""

    folder: Path
    facts: list[tuple[str, str]]


def import_package(asked: Import) -> Written:
    """Write a Hansa project around a FEDn package.

    Raises:
      PlanError: import-refused, something has no counterpart; project-exists.
      PackageError: the archive cannot be taken.
      LearnerError: the seed model's file is none of the helper's.
    """
    package = read_package(asked.source, asked.helper)
    if asked.init is not None:
        package = package._replace(lines={**package.lines, "init": asked.init})
    name = _plan_name(asked.source, package)
    target = asked.target or Path(f"{name}-hansa")
    if target.exists() or target.is_symlink():
        raise PlanError(
            "project-exists",
            f"{target} is there already. Nothing was written.",
            "Choose another folder with --to.",
        )
    _check_pairs(asked)
    _check_seed(asked, package)
    _check_split(asked, package)
    seed = None if asked.seed_model is None else _seed(asked.seed_model, package)
    needs = _requirements(package) if asked.environment else None
    functions = _functions(asked.server_functions)
    code = {f"{TOP}/{inside}": content for inside, content in package.files.items()}
    texts = {PLAN_FILE: plan_text(name, package, asked), "README.md": _readme(name, asked)}
    if asked.server_functions is not None:
        code[_FUNCTIONS_FILE] = asked.server_functions.read_bytes()
        texts[_SERVER_FILE] = server_text(functions)
    if needs is not None:
        texts[REQUIREMENTS] = needs
    facts = list(_facts(package, asked, seed))

    def save_seed(folder: Path) -> None:
        if seed is not None:
            save_params(folder / SEED_FILE, seed)

    lay_out(target, code, texts, more=save_seed)
    return Written(target, facts)


def _check_pairs(asked: Import) -> None:
    for option, values in (("--env", asked.env), ("--setting", asked.settings)):
        for value in values:
            if not re.match(r"[A-Za-z_]\w*=", value):
                raise PlanError(
                    "import-refused",
                    f"{option} {value!r:.80} is not NAME=VALUE. Nothing was written.",
                    'For example: --env "ENTRYPOINT_OPTS=--data_path={data}/mnist.pt"',
                )


def _check_seed(asked: Import, package: FednPackage) -> None:
    made = package.splits or asked.seed_model is not None or "init" in package.lines
    if asked.begins and not made:
        raise PlanError(
            "import-refused",
            f"{asked.source} has no entry point that builds a seed model, so no run could begin. "
            "Nothing was written.",
            "Bring one with --seed-model FILE, or give the line that builds one with --init LINE.",
        )


def _check_split(asked: Import, package: FednPackage) -> None:
    given = asked.seed_model, asked.init, asked.server_functions
    if package.splits and any(option is not None for option in given):
        raise PlanError(
            "import-refused",
            "A package of split learning has neither a seed model nor server functions. Nothing "
            "was written.",
            "Leave out --seed-model, --init and --server-functions.",
        )
    if not 1 <= asked.features <= SPLIT_FEATURES_MAX:
        raise PlanError(
            "import-refused",
            f"--features {asked.features} is not between 1 and {SPLIT_FEATURES_MAX:,}. Nothing was "
            "written.",
            "Give the columns of all clients' embeddings together.",
        )


def _seed(path: Path, package: FednPackage) -> Params:
    if not path.is_file():
        raise PlanError("import-refused", f"There is no file {path}.", "Name the seed model.")
    if path.stat().st_size > BLOB_BYTES_MAX:
        what = f"{path} has more than {BLOB_BYTES_MAX >> 30} GiB. Nothing was written."
        raise PlanError("import-refused", what, "Name the seed model.")
    return read_model(path.read_bytes(), FORMS[package.helper], most=BLOB_BYTES_MAX)


def _functions(path: Path | None) -> list[str]:
    """Return which of Hansa's server functions a file of FEDn's can be; nothing is executed."""
    if path is None:
        return []
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        raise PlanError(
            "import-refused", f"{path} cannot be read: {error}. Nothing was written.", "Correct it."
        ) from None
    made = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == CLASS]
    defined = {n.name for kind in made for n in kind.body if isinstance(n, ast.FunctionDef)}
    found = [name for name, methods in FUNCTIONS.items() if defined & {*methods}]
    if not found:
        raise PlanError(
            "import-refused",
            f"{path} has no class {CLASS} with a function of FEDn's. Nothing was written.",
            "Name the file that is given to start_session(server_functions=...).",
        )
    return found


_ARGUMENTS = {
    "select": "clients, memory",
    "settings": "model, memory",
    "aggregate": "model, updates, memory",
}


def server_text(functions: Sequence[str]) -> str:
    """Return a server.py that hands Hansa's calls on to FEDn's class."""
    text = f'''"""FEDn's {CLASS} in {_FUNCTIONS_FILE}, unchanged, as Hansa's server functions."""

from pathlib import Path

from hansa.compat.fedn.served import Served

_served = Served(Path(__file__).with_name("{_FUNCTIONS_FILE}"))
'''
    for name in functions:
        arguments = _ARGUMENTS[name]
        text += f"\n\ndef {name}({arguments}):\n    return _served.{name}({arguments})\n"
    return text


def _requirements(package: FednPackage) -> str | None:
    """Return the list of an environment of its own; None where it needs none."""
    if not package.needs:
        return None
    lines = [f"# From {package.environment}; `fedn` is Hansa's stand-in, which needs NumPy."]
    named = {re.split(r"[^\w.-]", need, maxsplit=1)[0].lower() for need in package.needs}
    lines += [] if "numpy" in named else ["numpy"]
    return "\n".join([*lines, *package.needs, ""])


def plan_text(name: str, package: FednPackage, asked: Import) -> str:
    """Return plan.toml, in which the package's own command lines can be read."""
    said = DESCRIPTION if package.described else "the names of its files"
    lines = [
        f"# What will run, made of a FEDn compute package and {said}.",
        "# Every key is explained by: hansa config explain",
        f"name = {toml(name)}",
        "rounds = 5  # of a session in FEDn",
        *([f"server_functions = {toml(_SERVER_FILE)}"] if asked.server_functions else []),
        *(_split_lines(asked) if package.splits else []),
        "",
        "[learner]",
        'kind = "command"',
        'rows = "path"  # the package reads its client\'s own files',
        *(f"{task} = {_words(package, asked, task)}" for task in _tasks(package, asked)),
        f"files = [{toml(TOP)}]",
    ]  # fmt: skip
    if asked.environment and package.needs:
        lines.append(f"requirements = {toml(REQUIREMENTS)}  # from {package.environment}")
    if package.splits:
        lines += ["", "[learner.tasks]", *_split_tasks(package, asked)]
    lines += ["", "[data]", f"set = {toml(asked.data)}  # one file or folder a client"]
    if package.splits:
        lines += ["", "[stop]", 'metric = "loss"']
    elif (metric := _metric(package)) is not None:
        lines += ["", "[stop]", f"metric = {toml(metric)}  # named in the package's code"]
    return "\n".join([*lines, ""])


def _tasks(package: FednPackage, asked: Import) -> list[str]:
    """Return the commands that are no named tasks."""
    if package.splits:
        return ["init"]
    given = {"init"} if asked.seed_model is not None else set()
    return [
        t for t in ("train", "validate", "init", "predict") if t in package.lines.keys() | given
    ]


def _split_lines(asked: Import) -> list[str]:
    """Return who joins the embeddings, and how the head learns: with torch's Adam, as in FEDn."""
    labels = toml(asked.labels)
    return [
        f'workflow = {{ name = "split", labels = {labels}, parts = "clients" }}',
        'algorithm = { name = "fed_opt", chain = ["adam"], lr = 0.01 }  # of the head',
        "",
        "[cohort]",
        "minimum = 2  # raise it to all clients with a part, and the holder of the labels",
        f"mandatory = [{labels}]",
    ]


def _split_tasks(package: FednPackage, asked: Import) -> list[str]:
    head = [[*_HEAD, "head"], ["--data", "{data}"], ["--model", "{model_in}"],
            ["--settings", "{settings}"], ["--out", "{update_out}"],
            ["--result", "{result_out}"]]  # fmt: skip
    own = [f"{task} = {_words(package, asked, task)}" for task in ("forward", "backward")]
    return [*own, f"head = {_list(head)}"]


def _words(package: FednPackage, asked: Import, task: str) -> str:
    """Return one command of the plan, an argument with its value on each line."""
    if task == "init" and package.splits:
        features = ["--features", f"{asked.features}"]
        return _list([[*_HEAD, "seed"], features, ["--out", "{model_out}"]])
    if task == "init" and asked.seed_model is not None:
        return _list([[*_CALL, "seed"], ["--model", SEED_FILE], ["--out", "{model_out}"]])
    pairs = [[*_CALL, task], ["--folder", posixpath.join(TOP, package.folder).rstrip("/")]]
    if task != "init" and asked.startup and "startup" in package.lines:
        pairs.append(["--startup", package.lines["startup"]])
    pairs.append(["--run", package.lines[task]])
    pairs.append(["--helper", package.helper])
    places = _PLACES[task]
    pairs += [list(places[at : at + 2]) for at in range(0, len(places), 2)]
    if task != "init":
        given = {value.partition("=")[0] for value in asked.env}
        env = [] if "FEDN_DATA_PATH" in given else ["FEDN_DATA_PATH={data}"]
        pairs += [["--env", value] for value in (*env, *asked.env)]
        pairs += [["--setting", value] for value in asked.settings]
    else:
        pairs += [["--env", value] for value in asked.env if "{data}" not in value]
    # Words that begin with a dash belong to the option before them: --run "-x" is not meant.
    return _list(pairs)


def _list(pairs: list[list[str]]) -> str:
    return "[\n" + "".join(f"  {', '.join(map(toml, pair))},\n" for pair in pairs) + "]"


def _metric(package: FednPackage) -> str | None:
    """Return the metric to look at: the first usual one that the package's code names."""
    code = b"\n".join(c for f, c in package.files.items() if f.endswith(".py"))
    for name in ("test_accuracy", "validation_accuracy", "accuracy", "test_loss", "loss"):
        if re.search(rb"[\"']" + name.encode() + rb"[\"']", code):
            return name
    return None


def _facts(package: FednPackage, asked: Import, seed: Params | None) -> Iterator[tuple[str, str]]:
    inside = [f for f in package.files]
    files = f"{len(inside)} file{'s' * (len(inside) != 1)}"
    yield "package", f"{files}, unchanged, in {posixpath.join(TOP, package.folder)}"
    if not package.described:
        yield "lines", f"there is no {DESCRIPTION}: train.py and validate.py, as FEDn did once"
    for task in ("forward", "backward") if package.splits else ("train", "validate", "predict"):
        yield task, package.lines.get(task, "none")
    if "startup" in package.lines:
        when = "before each command; --no-startup leaves it out" if asked.startup else "left out"
        yield "startup", f"{package.lines['startup']}: {when}"
    if asked.server_functions is not None:
        named = ", ".join(_functions(asked.server_functions))
        yield "server", f"{_FUNCTIONS_FILE}, unchanged: {named}"
    if package.splits:
        yield "head", f"Hansa's, at the client {asked.labels}, who holds the labels"
    elif seed is not None:
        yield "seed model", f"{asked.seed_model}: {len(seed)} tensors, {seed.nbytes:,} bytes"
    else:
        yield "seed model", package.lines.get("init", "none")
    yield "helper", f"{package.helper}: {FORMS[package.helper]} files"
    if package.environment and asked.environment and package.needs:
        yield "environment", f"{REQUIREMENTS}, from {package.environment}, without fedn"
    elif package.environment:
        yield "environment", "that of Hansa"
    if package.left:
        yield "left out", f"{', '.join(package.left)}: nothing here calls them"
    for word in _absent(package):
        yield "not here", f"{word}, which its lines name; add it to the package"


def _absent(package: FednPackage) -> list[str]:
    """Return the Python files that lines of a package name and that it does not hold."""
    words = dict.fromkeys(word for line in package.lines.values() for word in line.split())
    there = {posixpath.normpath(posixpath.relpath(f, package.folder or ".")) for f in package.files}
    files = [word for word in words if re.fullmatch(r"[\w.-][\w./-]*\.py", word)]
    return [word for word in files if posixpath.normpath(word) not in there]


def _readme(name: str, asked: Import) -> str:
    return f"""# {name}

Made by `hansa import fedn` from {asked.source.name}. The package is in `{TOP}`, unchanged; its own
command lines stand in `plan.toml`. Put one file or folder a client into `{asked.data}`, or correct
`data.set`.

    hansa package run train      # one client's part, alone
    hansa run                    # in simulation
    hansa run --on SERVER        # at the sites of a federation
"""


def _plan_name(source: Path, package: FednPackage) -> str:
    name = package.name
    if source.is_dir() and name == "client":  # in FEDn's examples it always is
        name = source.resolve().parent.name or name
    return plan_name(name, otherwise="package")
