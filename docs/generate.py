"""Write the pages that are made from the code, so that they cannot lie.

    python docs/generate.py            write them
    python docs/generate.py --check    exit with 1 if one is not what the code says

Made are the references of the command line, the console, the plan, the modules of optimizers and
the errors, the page on how a round goes, and the head of each error page; below its head an error
page is written by hand.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np

from hansa import errors
from hansa.aggregators import AGGREGATORS
from hansa.algorithms import ALGORITHMS
from hansa.cli.main import VERBS, cli
from hansa.console.parsing import usage as console_usage
from hansa.console.verbs import ALIASES, SCOPES, in_scope
from hansa.console.verbs import VERBS as CONSOLE_VERBS
from hansa.data import Scheme
from hansa.optimizers import MODULES, Need
from hansa.optimizers.named import OPTIMIZERS
from hansa.plan.explain import meanings
from hansa.plan.schema import Change, Named, Plan
from hansa.rounds import round as machine
from hansa.seeds import Key
from hansa.transforms import TRANSFORMS
from hansa.workflows import WORKFLOWS

DOCS = Path(__file__).resolve().parent
NOTICE = "<!-- Made by docs/generate.py; change the code, not this page. -->"
HEAD_ENDS = "<!-- Above is made by docs/generate.py; below is written by hand. -->"
SHARED = {
    "--runs": "folder of runs; by default `runs` in the current folder",
    "--json": "print JSON, for programs",
    "--folder": "folder of the site, or of the server; by default the current folder",
}
ENVIRONMENT = {
    "HANSA_RUNS": "folder of runs, where `--runs` is not given",
    "HANSA_SITE": "folder of a site, where `--folder` is not given",
    "HANSA_SERVER": "folder of a server, where `--folder` is not given",
    "HANSA_HOME": "folder of your memberships, by default `~/.config/hansa`",
    "HANSA_DATA": "folder in which to look for MNIST, before `~/.cache/hansa`",
    "HANSA_REDIS": 'Redis that keeps models of plans with `keep.store = "redis"`',
    "HANSA_SUBMITTERS": "of one's own FEDn script: whose runs it takes unasked, as in anna,ben",
    "HANSA_DEVICE": "device for PyTorch, such as `cuda:1`; by default a GPU if there is one",
    "HANSA_THREADS": "threads of one client's PyTorch code; by default 1",
    "HANSA_FAILPOINT": "for tests: a point at which the process dies as if it were killed",
    "HANSA_DEBUG": "set to 1, an unexpected error shows its whole traceback",
}
PAGES = {
    "cli-files": "Commands that write files",
    "cli-federation": "Commands with a federation",
    "cli-site": "hansa site",
    "cli-server": "hansa server",
    "cli-combiner": "hansa combiner",
}
"""Pages of commands beside the first, and their titles."""
ELSEWHERE = {
    **{name: "cli-files" for name in ("import", "split", "export", "models", "predict", "package")},
    **{name: "cli-federation" for name in ("join", "log", "stop", "console", "poc")},
    **{name: f"cli-{name}" for name in ("site", "server", "combiner")},
}
"""Commands that are told on one of those pages."""
FAR = (
    "blob",
    "console",
    "identity",
    "invite",
    "member",
    "package",
    "server",
    "site",
    "too",
    "update",
)
"""Groups of error codes of a federation and of updates; they have a page of their own."""
TO_WRITE = "\n## What it means\n\n## What to do\n"


def main(words: list[str]) -> int:
    """Write the pages, or with `--check` only compare them; return the exit status."""
    stale = [(path, text) for path, text in pages() if _read(path) != text]
    for path, text in stale:
        if "--check" in words:
            print(f"{path.relative_to(DOCS.parent)} is stale")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
    for path in without_code():
        print(f"{path.relative_to(DOCS.parent)} is about a code that does not exist")
    if "--check" in words and (stale or without_code()):
        print("Bring the pages up to date with: python docs/generate.py")
        return 1
    return 0


def pages() -> Iterator[tuple[Path, str]]:
    """Yield every made page and what it should hold."""
    yield DOCS / "reference" / "cli.md", _page(cli_lines())
    for page in PAGES:
        if any(ELSEWHERE.get(name) == page for name in VERBS):
            yield DOCS / "reference" / f"{page}.md", _page(group_lines(page))
    yield DOCS / "reference" / "console.md", _page(console_lines())
    yield DOCS / "reference" / "plan.md", _page(plan_lines())
    yield DOCS / "reference" / "optimizers.md", _page(optimizer_lines())
    yield DOCS / "reference" / "errors.md", _page(errors_lines())
    yield DOCS / "reference" / "errors-federation.md", _page(far_errors_lines())
    yield DOCS / "explain" / "round.md", _page(round_lines())
    for code in errors.CODES:
        path = DOCS / "errors" / f"{code}.md"
        yield path, error_page(code, _read(path))


def without_code() -> list[Path]:
    """Return the error pages whose code is gone."""
    return [p for p in sorted((DOCS / "errors").glob("*.md")) if p.stem not in errors.CODES]


# ---------------------------------------------------------------- the command line


def cli_lines() -> Iterator[str]:
    """Yield the reference of every verb and option."""
    yield "# Command line"
    yield ""
    yield "Every command also knows `--help`. Exit status: 0 done, 1 an error with a"
    yield "[code](errors.md), 2 wrongly typed, 130 interrupted."
    yield from ["", "| option of several commands | |", "|---|---|"]
    yield from (f"| `{name}` | {told} |" for name, told in SHARED.items())
    yield from ["", "| environment variable | |", "|---|---|"]
    yield from (f"| `{name}` | {told} |" for name, told in ENVIRONMENT.items())
    for name in VERBS:
        if name not in ELSEWHERE:
            yield from _verb_lines(name, _command(name))
    yield from ["", "## Other commands", "", "| command | |", "|---|---|"]
    for name, verb in VERBS.items():
        if page := ELSEWHERE.get(name):
            yield f"| [hansa {name}]({page}.md) | {_cell(verb.summary)} |"


def group_lines(page: str) -> Iterator[str]:
    """Yield the reference of the commands of one page."""
    names = [name for name in VERBS if ELSEWHERE.get(name) == page]
    yield f"# {PAGES[page]}"
    yield from ["", *([VERBS[names[0]].summary] if len(names) == 1 else [])]
    yield "What holds for all commands is told [there](cli.md)."
    for name in names:
        yield from _verb_lines(name, _command(name))


def _command(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli, info_name="hansa"), name)
    assert command is not None
    return command


def _verb_lines(name: str, command: click.Command) -> Iterator[str]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for inner in command.list_commands(context):
            child = command.get_command(context, inner)
            assert child is not None
            yield from _verb_lines(f"{name} {inner}", child)
        return
    told, examples = _help(command)
    usage = " ".join(command.collect_usage_pieces(click.Context(command)))
    yield from ["", f"## hansa {name}", "", told]
    bare = re.sub(r"\[\S*\]", "", usage).strip()
    shown = [e for e in examples if e != f"hansa {name} {bare}".strip()]
    yield from ["", "```text", f"hansa {name} {usage}", *shown, "```"]
    options = [o for o in command.params if isinstance(o, click.Option)]
    shared = ", ".join(f"`{o.opts[0]}`" for o in options if o.opts[0] in SHARED)
    rows = [_option_row(o) for o in options if o.opts[0] not in SHARED]
    if not rows:
        yield from ["", f"Options: {shared}."] if shared else []
        return
    also = f", beside {shared}" if shared else ""
    yield from ["", f"| option{also} | | default |", "|---|---|---|", *rows]


_EXAMPLES = re.compile(r"(?:\x08|\\b)\n\s*Examples?:\n")


def _help(command: click.Command) -> tuple[str, list[str]]:
    """Return a command's text and its example lines."""
    told, *examples = _EXAMPLES.split(inspect.cleandoc(command.help or ""))
    lines = [line.strip() for text in examples for line in text.strip().splitlines()]
    return told.strip(), lines


def _option_row(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in sorted(option.opts, key=len, reverse=True))
    text, _, told = (option.help or "").partition("  [default: ")
    default = told.rstrip("]")
    if option.show_default and not option.is_flag:
        default = str(option.default)
    shown = f"`{default}`" if default else ""
    return f"| {names}{_value(option)} | {_cell(text)} | {shown} |"


def _value(option: click.Option) -> str:
    """Return what an option takes."""
    if option.is_flag:
        return ""
    if isinstance(option.type, click.Choice):
        return " " + ", ".join(f"`{choice}`" for choice in option.type.choices)
    words = {click.IntRange: "N", type(click.INT): "N", type(click.FLOAT): "X", click.Path: "PATH"}
    word = option.metavar or words.get(type(option.type), "TEXT")
    return " " + f"`{word}`".replace("|", r"\|")


# ---------------------------------------------------------------- the console


def console_lines() -> Iterator[str]:
    """Yield every verb of the console, and what to do instead of those that are not done."""
    yield "# Verbs of the console"
    yield ""
    yield "What `hansa console` understands; see [how it is used](../howto/console.md). Words in"
    yield "brackets may be left out. Quotes and `#` work as in a shell."
    for scope, told in SCOPES.items():
        yield from ["", f"## {told}", "", "| verb | |", "|---|---|"]
        for name, verb in in_scope(scope):
            if verb.done:
                yield f"| `{_cell(console_usage(name))}` | {_cell(verb.told)} |"
    yield from ["", "## Known, and not done", "", "| verb | instead |", "|---|---|"]
    yield from (f"| `{n}` | {_cell(v.instead)} |" for n, v in CONSOLE_VERBS.items() if not v.done)
    yield from ["", "## Other names", "", "| typed | means |", "|---|---|"]
    yield from (f"| `{name}` | `{verb}` |" for name, verb in ALIASES.items())


# ---------------------------------------------------------------- the plan


def plan_lines() -> Iterator[str]:
    """Yield the reference of every key of a plan."""
    told = meanings()
    yield "# Plan"
    yield ""
    yield "A plan is the file `plan.toml` of a project. Every key has a default, so a plan names"
    yield "only what differs. `hansa config explain` prints the same for your own plan, with the"
    yield "value of each key and where it came from. `--set KEY=VALUE` changes any key for a run."
    yield from _table_lines("The top of the file", Plan, "", told=told)
    yield from _table_lines("[[learner.change]]", Change, "learner.change.", told=told)
    yield from ["", "## [data.split]", "", "One of these schemes; see"]
    yield '[split data](../howto/split-data.md). For example `{ scheme = "iid", clients = 10 }`.'
    yield from ["", "| scheme | | options |", "|---|---|---|"]
    for scheme in typing.get_args(Scheme):
        yield _scheme_row(scheme)
    for title, table in [
        ("workflow", WORKFLOWS),
        ("algorithm", ALGORITHMS),
        ("aggregator", AGGREGATORS),
        ("transforms", TRANSFORMS),
    ]:
        yield from ["", f"## {title}", "", "| name | | options |", "|---|---|---|"]
        for name, value in table.items():
            yield _factory_row(title, name, value)


def _table_lines(title: str, kind: Any, prefix: str, *, told: Mapping[str, str]) -> Iterator[str]:
    """Yield the keys of one table, then its inner tables."""
    inner = []
    yield from ["", f"## {title}", "", "| key | | default | meaning |", "|---|---|---|---|"]
    for field in msgspec.structs.fields(kind):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            inner.append(field)
            continue
        default = "" if field.required else _toml(field.default)
        meaning = _cell(told[prefix + field.name])
        yield f"| `{field.name}` | {_type(field.type)} | {default} | {meaning} |"
    for field in inner:
        name = prefix + field.name
        yield from _table_lines(f"[{name}]", field.type, f"{name}.", told=told)


def _type(kind: Any) -> str:
    """Return a type in a reader's words."""
    if kind == Named:
        return "name, or table with a name"
    if kind == Scheme | None:
        return "table"
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return ", ".join(f"`{a}`" for a in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(a) for a in arguments if a is not type(None))
    if origin is tuple:
        return "list" if arguments[0] in (Change, Named) else f"list of {_type(arguments[0])}s"
    if origin is dict:
        inner = _type(arguments[1])
        return f"table of lists{inner[4:]}" if inner.startswith("list") else f"table of {inner}s"
    names = {int: "whole number", float: "number", str: "text", bool: "`true` or `false`"}
    return names[kind]


def _toml(value: Any) -> str:
    if value is None or value is msgspec.NODEFAULT:
        return ""
    if isinstance(value, tuple):
        return f"`{list(value)}`"
    if value == {}:
        return "`{}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _scheme_row(scheme: type[msgspec.Struct]) -> str:
    options = [
        f"`{f.name}`" + ("" if f.required else f" = {_plain(f.default)}")
        for f in msgspec.structs.fields(scheme)
    ]
    what = inspect.getdoc(scheme) or ""
    return f"| `{scheme.__name__.lower()}` | {_first(what)} | {', '.join(options)} |"


def _factory_row(title: str, name: str, value: Any) -> str:
    """Return the row of a factory with options, or of a value, which has none."""
    if not inspect.isfunction(value):
        what = sys.modules[f"hansa.{title}s.{name}"].__doc__ or ""
        return f"| `{name}` | {_first(what)} | |"
    options = [
        f"`{p.name}`" + ("" if p.default is p.empty else f" = {_plain(p.default)}")
        for p in inspect.signature(value).parameters.values()
        if typing.get_type_hints(value).get(p.name) is not Key  # the run gives it, no plan
    ]
    what = re.sub(r"^Build ", "", inspect.getdoc(value) or "")
    return f"| `{name}` | {_first(what)} | {', '.join(options)} |"


def _plain(value: Any) -> str:
    """Return a default as a plan would hold it."""
    if isinstance(value, tuple):
        return str(list(value))
    return str(value).lower() if isinstance(value, bool) else f"{value}"


# ---------------------------------------------------------------- the modules of optimizers


MODULE_GROUPS = {
    "sgd": "Plain steps",
    "averages": "Momentum and averages",
    "adaptive": "Adaptive steps",
    "bounds": "Clipping and noise",
    "regularizers": "Penalties and decay",
    "schedules": "Schedules",
}
"""Files of `hansa.optimizers` with modules, and what a reader calls them."""


def optimizer_lines() -> Iterator[str]:
    """Yield the reference of every module of a chain, file by file."""
    yield from ["# Modules of optimizers", ""]
    yield "What `learner.optimizer.chain`, `learner.optimizer.regularizers` and the same options of"
    yield '`algorithm = { name = "fed_opt" }` may name; how to choose is told'
    yield "[there](../howto/choose-an-optimizer.md). `g` or `u` is the direction that a module is"
    yield "given, `x` the parameters; a step is `x <- x - lr * u` with what the last one returns."
    for file, title in MODULE_GROUPS.items():
        module = sys.modules[f"hansa.optimizers.{file}"]
        told = " ".join((module.__doc__ or "").split("\n\n", 1)[-1].split())
        yield from ["", f"## {title}", ""]
        if "\n\n" in (module.__doc__ or ""):
            yield from [_quoted(told), ""]
        yield "| name | | options | at the server | state |"
        yield "|---|---|---|---|---|"
        for name, factory in MODULES.items():
            if factory.__module__ == module.__name__:
                yield _module_row(name, factory)
    yield from ["", "State is how many copies of the model a module keeps between steps.", ""]
    yield from ["## Optimizers by name", ""]
    yield "What `learner.optimizer.name` may be; each is only a chain."
    yield from ["", "| name | chain | options |", "|---|---|---|"]
    yield from (_factory_row("optimizer", name, made) for name, made in OPTIMIZERS.items())


def _module_row(name: str, factory: Any) -> str:
    needed = {"length": 2, "at": (1,), "factors": (1.0,)}
    parameters = inspect.signature(factory).parameters
    made = factory(
        **{p: needed[p] for p in parameters if parameters[p].default is inspect.Parameter.empty}
    )
    before, _, after = (inspect.getdoc(factory) or "").partition("\nArgs:\n")
    told = dict(re.findall(r"^  (\w+): (.+?\.)$", after.partition("\nRaises:")[0], re.M | re.S))
    options = [
        f"`{p.name}`{'' if p.default is p.empty else f' = {_plain(p.default)}'}:"
        f" {_cell(told[p.name]).rstrip('.')}"
        for p in parameters.values()
    ]
    server = "no" if made.needs & {Need.START, Need.TENSORS} else "yes"
    what = _quoted(re.sub(r"^Build ", "", before.strip()))
    kept = len(made.init(np.zeros(1)))
    return f"| `{name}` | {what} | {'; '.join(options)} | {server} | {kept} |"


def _quoted(text: str) -> str:
    """Return text whose formulas Markdown leaves alone."""
    parts = _cell(text).split("`")
    parts[::2] = [part.replace("*", "\\*").replace("_", "\\_") for part in parts[::2]]
    return "`".join(parts)


# ---------------------------------------------------------------- the errors


def errors_lines() -> Iterator[str]:
    """Yield the list of every error code."""
    tree = inspect.getdoc(errors) or ""
    drawn = [line[4:] for line in tree.splitlines() if line.startswith("    ")]
    yield from [
        "# Errors",
        "",
        "An error says what happened, what was done about it and what to do",
    ]
    yield "next. It ends with a code, and each code has a page. With `--json` the same arrives as"
    yield '`{"error": {"code": ..., "message": ..., "hint": ..., "doc": ...}}`.'
    yield from ["", "In Python all are exceptions below `hansa.HansaError`, with the attributes"]
    yield from ["`code`, `happened` and `hint`:", "", "```text", *drawn, "```"]
    yield from [
        "",
        "Codes of updates and of a federation are [here](errors-federation.md).",
    ]
    yield from _code_lines(far=False)


def far_errors_lines() -> Iterator[str]:
    """Yield the list of the error codes of a federation and of updates."""
    yield from ["# Errors of a federation", ""]
    yield "What a server, a site or a member may be told, and what may be wrong with an update."
    yield "All other codes are [here](errors.md)."
    yield from _code_lines(far=True)


def _code_lines(*, far: bool) -> Iterator[str]:
    before = ""
    for code, meaning in sorted(errors.CODES.items()):
        group = code.partition("-")[0]
        if (group in FAR) is not far:
            continue
        if group != before:
            yield from ["", f"## {group}", "", "| code | |", "|---|---|"]
        before = group
        yield f"| [{code}](../errors/{code}.md) | {_cell(meaning)} |"


def error_page(code: str, existing: str) -> str:
    """Return an error's page: a fresh head over what was written by hand."""
    by_hand = existing.partition(HEAD_ENDS)[2] or TO_WRITE
    meaning = errors.CODES[code]
    return f"# {code}\n\n**{meaning[:1].upper()}{meaning[1:]}.**\n\n{HEAD_ENDS}{by_hand}"


# ---------------------------------------------------------------- the round


def round_lines() -> Iterator[str]:
    """Yield how a round goes: the machine's own words, and its table."""
    theory = (machine.__doc__ or "").partition("-------\n")[2].partition("    >>> ")[0]
    yield from ["# How a round goes", "", "What counts in a round is decided by one pure function,"]
    yield from ["`hansa.rounds.round.step`; this is what it says of itself.", ""]
    for paragraph in theory.strip("\n").split("\n\n"):
        drawn = paragraph.startswith("    ")
        yield from (["```text", inspect.cleandoc(paragraph), "```"] if drawn else [paragraph])
        yield ""
    yield "## Every transition"
    for status in machine.Status:
        yield from ["", f"In a round that is {status}:", ""]
        yield from [
            "| a client that is | brings | and then is | answered by |",
            "|---|---|---|---|",
        ]
        for (during, who, heard), found in machine.TABLE.items():
            if during is status:
                then = found.status or "not asked"
                yield f"| {who or 'not asked'} | {heard} | {then} | {_round_reply(found.reply)} |"


def _round_reply(reply: str | None) -> str:
    """Return a reply in words, with its page if it is an error."""
    words = {None: "", "count": "a receipt: it counts", "repeat": "the same receipt"}
    return words.get(reply, f"[{reply}](../errors/{reply}.md)")


# ---------------------------------------------------------------- text


def _page(lines: Iterable[str]) -> str:
    title, *rest = lines
    return "\n".join([title, "", NOTICE, *rest]) + "\n"


def _first(text: str) -> str:
    """Return the first sentence, or as far as the list that a colon opens."""
    paragraph = " ".join(inspect.cleandoc(text).split("\n\n")[0].split())
    return _cell(re.split(r"(?<=[a-z0-9)])\.(?:\s|$)", paragraph)[0].rstrip("."))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|").replace("<", "&lt;")


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
