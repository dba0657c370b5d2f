"""What a data owner looks at before deciding: code, plan, data asked for, and what would leave.

Nothing of the package is imported or run for it.
"""

from __future__ import annotations

import ast
import difflib
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from hansa.errors import HansaError
from hansa.functions.serving import told
from hansa.limits import DIFF_LINES_MAX, FACTS_BYTES_MAX
from hansa.own.naming import told as own_told
from hansa.params.dtypes import FLOATS
from hansa.plan import Plan, flatten, read_plan
from hansa.plan.build import Method, build_method
from hansa.plan.schema import COMMANDS
from hansa.protocol.messages import Offer
from hansa.seeds import Key
from hansa.site.policy import fewer_told
from hansa.site.requests import Request, find_request, list_requests, read_approvals, word_on
from hansa.site.settings import load_settings, nothing_at
from hansa.site.slots import asked_for, in_words
from hansa.text import clean
from hansa.workflows import build_workflow


class FileChange(NamedTuple):
    """One file of the code beside the last approved one."""

    name: str
    change: Literal["new", "changed", "same", "removed"]
    size: int  # bytes
    diff: list[str]  # lines that begin with " ", "-", "+" or "@@"; harmless to a terminal


class PlanChange(NamedTuple):
    """One value of the plan that differs."""

    key: str
    before: str
    now: str


class Leaving(NamedTuple):
    """One part of what would leave the site."""

    what: str
    shape: str
    size: int | None  # bytes a round; None: not known before it runs


class Review(NamedTuple):
    """All there is to see of a request."""

    request: Request
    previous: str | None  # identity of the last approved request of the same plan name
    files: list[FileChange]
    plan: list[PlanChange]
    imports: dict[str, list[str]]  # "project", "python" and "other" -> names of modules
    data: str  # what is asked for, in words
    leaving: list[Leaving]
    warnings: list[str]


def review(folder: Path, identity: str) -> Review:
    """Gather what its owner needs in order to decide about a request.

    Args:
      folder: of the site.
      identity: of the request, or the start of it.

    Raises:
      SiteError: there is no such request, or the site's records are damaged.
    """
    request = find_request(folder, identity)
    code = _kept(request)
    previous = _last_approved(folder, request)
    before = _kept(previous) if previous else {}
    imports, warnings = _imports(code)
    leaving, more = _leaving(request.offer)
    return Review(
        request,
        previous.identity if previous else None,
        list(_file_changes(before, code)),
        _plan_changes(previous.offer.plan, request.offer.plan) if previous else [],
        imports,
        _data_asked(request.offer.plan),
        leaving,
        [
            *_nothing_there(folder, request.offer.plan),
            *_too_few_rounds(folder, request),
            *_commands(request.offer.plan),
            *_slots(request.offer.plan),
            *warnings,
            *more,
        ],
    )


def _nothing_there(folder: Path, plan: dict[str, Any]) -> list[str]:
    """Return what the owner must mend before any run of a plan can begin here."""
    told = nothing_at(folder, load_settings(folder), plan)
    return [told] if told else []


def _too_few_rounds(folder: Path, request: Request) -> list[str]:
    """Return what comes of an approval that a plan has more rounds than."""
    word = word_on(read_approvals(folder), request.identity)
    told = fewer_told(word.max_rounds, request.offer.plan.get("rounds")) if word else ""
    return [f"You approved fewer rounds than it has. {told}"] if told else []


def _commands(plan: dict[str, Any]) -> list[str]:
    """Return the programs that a plan starts, in words."""
    learner = plan.get("learner")
    if not isinstance(learner, dict) or learner.get("kind") != "command":
        return []
    named = learner.get("tasks")
    given = {task: learner.get(task) for task in COMMANDS}
    if isinstance(named, dict):
        given |= {f"answer {clean(str(task), 80)}": words for task, words in named.items()}
    return [
        f"To {task}, it starts: {clean(line := shlex.join(map(str, words)), len(line))}"
        for task, words in given.items()
        if isinstance(words, list | tuple) and words
    ]


def _slots(plan: dict[str, Any]) -> list[str]:
    """Return what a plan takes from other runs of the site, in words."""
    asks = asked_for(plan)
    return [f"While it is at work no other run has: {clean(in_words(asks))}"] if asks else []


def _kept(request: Request) -> dict[str, bytes]:
    """Return all that was unpacked, in whatever language."""
    found = (path for path in request.code.rglob("*") if path.is_file())
    files = {path.relative_to(request.code).as_posix(): path for path in found}
    return {name: files[name].read_bytes() for name in sorted(files)}


def _last_approved(folder: Path, request: Request) -> Request | None:
    """Return the request of the same plan name whose approval came last, other than this one."""
    approvals = read_approvals(folder)
    name = request.offer.plan.get("name")
    others = {
        other.identity: other
        for other in list_requests(folder)
        if other.identity != request.identity and other.offer.plan.get("name") == name
    }
    for approval in reversed(approvals):
        last = word_on(approvals, approval.identity)
        if approval.identity in others and last is not None and last.verdict == "approved":
            return others[approval.identity]
    return None


def _file_changes(before: Mapping[str, bytes], now: Mapping[str, bytes]) -> Iterator[FileChange]:
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if new is None:
            yield FileChange(name, "removed", 0, _diff(old or b"", b""))
        elif old is None:
            yield FileChange(name, "new", len(new), _diff(b"", new))
        else:
            change: Literal["same", "changed"] = "same" if old == new else "changed"
            yield FileChange(name, change, len(new), [] if old == new else _diff(old, new))


def _diff(before: bytes, now: bytes) -> list[str]:
    """Return a unified diff of two texts without its head."""
    a, b = _lines(before), _lines(now)
    if not a or not b or len(a) + len(b) > DIFF_LINES_MAX:
        return [f"-{line}" for line in a] + [f"+{line}" for line in b]
    return list(difflib.unified_diff(a, b, lineterm="", n=3))[2:]


def _lines(content: bytes) -> list[str]:
    r"""Return lines as Python divides them: at \n, \r and \r\n, and at nothing else.

    What some viewer takes for the end of a line, and Python does not, would make code look like a
    comment, or a comment like code.
    """
    text = content.decode("utf-8", "backslashreplace").replace("\r\n", "\n").replace("\r", "\n")
    return [spelt_out(line) for line in text.removesuffix("\n").split("\n")] if text else []


def spelt_out(line: str) -> str:
    r"""Return a line of code whose invisible characters are written as escapes.

    Marks that change the direction of text can make code read as something that it is not.

    >>> spelt_out("if a:\u202e # b")
    'if a:\\u202e # b'
    """
    if line.isascii() and line.isprintable():
        return line
    return "".join(
        char if char in " \t" or clean(char) == char else f"\\u{ord(char):04x}" for char in line
    )


def _plan_changes(before: dict[str, Any], now: dict[str, Any]) -> list[PlanChange]:
    old, new = flatten(before), flatten(now)
    return [
        PlanChange(clean(key), clean(old.get(key, "nothing")), clean(new.get(key, "nothing")))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


_LOADERS = {"exec", "eval", "compile", "__import__", "import_module"}


def _imports(code: Mapping[str, bytes]) -> tuple[dict[str, list[str]], list[str]]:
    """Return the modules that code imports by name, and what such a list cannot show."""
    own = {part for name in code for part in name.removesuffix(".py").split("/")}
    found: set[str] = set()
    warnings: list[str] = []
    for name, content in code.items():
        if not name.endswith(".py"):
            warnings.append(f"{clean(name)} {_language(content)}")
            continue
        try:
            tree = ast.parse(content)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            warnings.append(f"{clean(name)} is not valid Python; its imports are not known.")
            continue
        for node in ast.walk(tree):
            found |= set(_imported(node))
            if loads := _loads(node):
                line = getattr(node, "lineno", 0)
                warnings.append(
                    f"{clean(name)}, line {line}: {loads} can run code that is not listed here."
                )
    kinds: dict[str, list[str]] = {"project": [], "python": [], "other": []}
    for module in sorted(found):
        top = module.partition(".")[0]
        kind = "project" if top in own else "other"
        kinds["python" if top in sys.stdlib_module_names and top not in own else kind].append(
            clean(module)
        )
    return kinds, warnings


def _language(content: bytes) -> str:
    """Say what is known of a file that is not Python."""
    try:
        content.decode()
    except UnicodeDecodeError:
        return f"is a binary file of {len(content):,} bytes, which nobody can review."
    return "is not Python; what it starts and reads is told by nothing but itself."


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield node.module


def _loads(node: ast.AST) -> str | None:
    """Return the name by which this node runs text, or imports by a computed name."""
    if isinstance(node, ast.Name) and node.id in _LOADERS - {"compile"}:
        return node.id
    if isinstance(node, ast.Attribute) and node.attr in _LOADERS - {"compile", "eval"}:
        return node.attr
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "compile":
        return "compile"
    return None


def _data_asked(plan: dict[str, Any]) -> str:
    table = plan.get("data")
    name = table.get("set") if isinstance(table, dict) else None
    if name is None:
        return "whatever its function data(client) reads; see the code"
    return f"the data named {clean(name)!r}"


def _leaving(offer: Offer) -> tuple[list[Leaving], list[str]]:
    """Return what one round would send, as far as the plan says it."""
    changing = [t for t in offer.tensors if t[0] not in offer.constants]  # the rest never leaves
    held = [t[0] in offer.buffers or t[1] not in FLOATS for t in changing]
    trained = [t for t, buffer in zip(changing, held, strict=True) if not buffer]
    kept = _numbers([t for t, buffer in zip(changing, held, strict=True) if buffer])
    plan, leaving, warnings = None, [], []
    try:
        plan = read_plan(offer.plan, origin="the offer").plan
        warnings += [tell for tell in (told(plan), own_told(plan)) if tell]
        method = build_method(plan, _not_imported)
        leaving = _vectors(method, trained)
        tells = build_workflow(plan, method, _not_imported).tells
        warnings += [tells] if tells else []
        if plan.keep.clients is not None:
            warnings.append("The server keeps the model that is trained on your data alone.")
    except _OfTheProjectError as error:
        warnings.append(f"{error} is the project's own; only its code says what an update holds.")
    except HansaError as error:
        warnings.append(f"This release cannot use the plan: {clean(error.happened, 400)}")
    if not leaving:
        words = f"{_numbers(trained):,} numbers each"
        leaving = [Leaving("vectors that its own code names", words, None)]
    if kept:
        words = "buffers, which are not trained but measured on your data"
        leaving.append(Leaving(words, f"{kept:,} numbers", 8 * kept))
    counted = Leaving("number of your examples, once a run", "1 number", None)
    if plan is not None and plan.learner.rows == "path":  # only its commands read them
        counted = Leaving("number of examples and weight that its commands tell", "2 numbers", None)
    leaving.append(counted)
    leaving.append(
        Leaving("totals of metrics, after training and evaluation", _metrics(plan), None)
    )
    if plan is not None and plan.evaluate.reports:
        leaving.append(
            Leaving("what its code says of each model it validates", "any JSON", FACTS_BYTES_MAX)
        )
    leaving.append(Leaving("seconds and local steps of each task", "4 numbers", None))
    leaving.append(Leaving("if it fails: an error's code and one sentence", "text", None))
    return leaving, warnings


def _vectors(method: Method, trained: list[tuple[str, str, list[int]]]) -> list[Leaving]:
    """Return the vectors of one update, as the plan's transforms leave them."""
    numbers = _numbers(trained)
    wide = any(dtype == "F64" for _, dtype, _ in trained)
    sample = {name: np.zeros(8, "f8" if wide else "f4") for name in method.algorithm.sends}
    sent = method.transform.encode(sample, Key.root(0))
    return [
        Leaving(
            f"vector {clean(name)}, {vector.dtype}",
            f"{numbers:,} numbers",
            numbers * vector.dtype.itemsize if len(vector) == 8 else None,
        )
        for name, vector in sent.items()
    ]


def _metrics(plan: Plan | None) -> str:
    kind = plan.learner.kind if plan else "python"
    own = "loss, accuracy and the like" if kind in ("numpy", "sklearn") else "named by its code"
    if plan is None or not plan.evaluate.metrics:
        return own
    asked = ", ".join(clean(name) for name in plan.evaluate.metrics)
    return f"{own}; and counts of examples by class and score, for {asked}"


class _OfTheProjectError(Exception):
    """A method of the project's own, which is not imported here."""


def _not_imported(name: str) -> Any:
    raise _OfTheProjectError(clean(name))


def _numbers(tensors: list[tuple[str, str, list[int]]]) -> int:
    total = 0
    for _, _, shape in tensors:
        count = 1
        for length in shape:
            count *= length
        total += count
    return total


def plain(seen: Review) -> dict[str, Any]:
    """Return a review for programs."""
    offer = seen.request.offer
    return {
        "identity": seen.request.identity,
        "runs": seen.request.runs,
        "submitter": offer.submitter,
        "purpose": offer.purpose,
        "previous": seen.previous,
        "plan": offer.plan,
        "plan_changes": [c._asdict() for c in seen.plan],
        "files": [c._asdict() for c in seen.files],
        "imports": seen.imports,
        "data": seen.data,
        "model": msgspec.to_builtins(offer.tensors),
        "leaving": [part._asdict() for part in seen.leaving],
        "warnings": seen.warnings,
    }
