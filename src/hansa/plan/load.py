"""Reading a plan: from TOML and `--set`, into types, or into an error that says what to type."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from hansa.data import Scheme
from hansa.errors import HansaError, PlanError
from hansa.plan.plain import plain
from hansa.plan.schema import DataPlan, Plan
from hansa.text import nearest, quoted, toml, unknown_key, unknown_word

PLAN_FILE = "plan.toml"
IN_PYTHON = "hansa.run"
"""The source of a value that a Python call gave."""


class LoadedPlan(NamedTuple):
    """A plan and where its values came from."""

    plan: Plan
    sources: dict[str, str]  # dotted key -> "plan.toml", "hansa.run", "--set"; others: defaults


def load_plan(
    path: Path, sets: Iterable[str] = (), *, changes: Mapping[str, Any] | None = None
) -> LoadedPlan:
    """Read a plan file, with changes on top; see `read_plan`.

    Raises:
      PlanError: no such file, not TOML, an unknown key, a wrong type or an impossible value.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        why = f": a project is a folder, and {path.parent} a file" if path.parent.is_file() else ""
        raise PlanError(
            "plan-not-found",
            f"There is no plan at {path}{why}.",
            "Make a project with: hansa init my-study",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError("plan-syntax", f"{path} cannot be read: {error}.", "Check it.") from None
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also numbers and nesting beyond Python's limits
        raise PlanError(
            "plan-syntax", f"{path} is not valid TOML: {error}.", "Correct that line."
        ) from None
    return read_plan(table, sets, origin=path.name, changes=changes)


def with_clients(data: DataPlan, count: int) -> str:
    """Return the change of a plan that makes so many simulated clients, or leaves so many named.

    Raises:
      PlanError: plan-impossible, fewer are named.

    >>> with_clients(DataPlan(set="digits"), 3), with_clients(DataPlan(clients=("a", "b")), 1)
    ('data.split.clients=3', 'data.clients=["a"]')
    """
    if data.set is not None:
        return f"data.split.clients={count}"
    if isinstance(data.clients, int):
        return f"data.clients={count}"
    if count > len(data.clients):
        raise PlanError(
            "plan-impossible",
            f"The plan names {len(data.clients)} clients, {', '.join(data.clients)}; {count} are "
            "asked for. Nothing was started.",
            "Ask for fewer, or name more in data.clients.",
        )
    return f"data.clients={toml(data.clients[:count])}"


def read_plan(
    table: Mapping[str, Any],
    sets: Iterable[str] = (),
    *,
    origin: str = PLAN_FILE,
    changes: Mapping[str, Any] | None = None,
) -> LoadedPlan:
    """Turn a table into a plan.

    Args:
      table: what the plan file says.
      sets: `dotted.key=value` texts, values in TOML; they come last.
      origin: where the table came from.
      changes: tables of values that replace single ones of `table`; a table with a name or scheme
        is one value and replaces the whole of another.

    Raises:
      PlanError: an unknown key, a wrong type, or a `set` that is not of that form.
      DataError: a data split that is out of range.

    >>> read_plan({"rounds": 3}, ["learner.epochs=2"]).plan.learner.epochs
    2
    >>> read_plan({"rounds": 3, "seed": 1}, changes={"rounds": 5}).plan.rounds
    5
    """
    merged: dict[str, Any] = plain(table)
    if isinstance(file := merged.get("server_functions"), str):
        merged["server_functions"] = {"file": file}
    sources = {key: origin for key in flatten(merged)}
    for key, value in _values(plain(changes or {})):
        _change(merged, sources, key=key, value=value, source=IN_PYTHON)
    for text in sets:
        key, value = parse_set(text)
        _change(merged, sources, key=key, value=plain(value, key), source="--set")
    try:
        plan = msgspec.convert(merged, Plan)
    except msgspec.ValidationError as error:
        raise _plan_error(str(error), merged) from None
    if plan.data.set is not None and sources.get("data.clients") == "--set":
        raise PlanError(
            "plan-impossible",
            "--set data.clients= would change nothing: it counts clients whose data the project's "
            f"own code gives, and the plan takes them from {plan.data.set}. Nothing was started.",
            "Set how many share that out: --set data.split.clients=...",
        )
    if plan.workflow in ("evaluate_only", {"name": "evaluate_only"}):  # nobody waits for a second
        plan = msgspec.structs.replace(plan, rounds=1)
    return LoadedPlan(plan, sources)


def _values(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys with the values that replace one of the plan's each."""
    for key, value in table.items():
        if isinstance(value, dict) and not value.keys() & {"name", "scheme"}:
            yield from _values(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


_NAMED_TABLES = ("learner.optimizer", "learner.schedule")


def _change(
    merged: dict[str, Any], sources: dict[str, str], *, key: str, value: Any, source: str
) -> None:
    if key in _NAMED_TABLES and isinstance(value, str):
        key += ".name"  # the options stay: a learning rate is not the optimizer's own
    if key == "server_functions" and isinstance(value, str):
        key += ".file"
    if key == "data.split" and isinstance(value, str):
        key += ".scheme"
    if key == "data.split.scheme":
        _drop_options_of_another(merged, sources, scheme=value, source=source)
    _put(merged, key, value, source=source)
    for stale in [k for k in sources if k == key or k.startswith(key + ".")]:
        del sources[stale]
    sources |= {k: source for k in flatten({key: value})}


def _drop_options_of_another(
    merged: dict[str, Any], sources: dict[str, str], *, scheme: object, source: str
) -> None:
    """Leave out what a plan says of the scheme that it had: nobody who sets another one means it.

    An option that was set in the same way is meant, and refused if the new scheme has none.
    """
    data = merged.get("data")
    split = data.get("split") if isinstance(data, dict) else None
    kind = next((kind for kind in _structs(Scheme) if _tag(kind) == scheme), None)
    if not isinstance(split, dict) or kind is None:
        return
    for option in split.keys() - {*kind.__struct_fields__, "scheme"}:
        if sources.get(f"data.split.{option}") != source:
            del split[option]
            sources.pop(f"data.split.{option}", None)


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested tables as `{"dotted.key": value}`.

    >>> flatten({"learner": {"epochs": 2}, "seed": 1})
    {'learner.epochs': 2, 'seed': 1}
    """
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def parse_set(text: str) -> tuple[str, Any]:
    """Return the key and the TOML value of a `key=value` text; a bare word is a string."""
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_][\w]*(\.[A-Za-z_]\w*)*", key.strip()):
        raise PlanError(
            "plan-syntax",
            f"--set {text!r} is not of the form key=value.",
            "For example: --set data.split.alpha=0.1",
        )
    try:
        table = tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError:
        table = {}
    except (ValueError, RecursionError) as error:
        raise PlanError(
            "plan-syntax", f"The value of --set {key}= cannot be read: {error}.", "Check it."
        ) from None
    # A bare word is a string, and so is text whose second line would be another key.
    return key.strip(), table["value"] if len(table) == 1 else value.strip()


def _put(table: dict[str, Any], dotted: str, value: Any, *, source: str) -> None:
    *path, last = dotted.split(".")
    for depth, key in enumerate(path, start=1):
        inner = table.get(key, {})
        # A name alone, as in algorithm = "fed_prox", becomes a table when an option is set.
        table[key] = {"name": inner} if isinstance(inner, str) else inner
        table = table[key]
        if not isinstance(table, dict):
            whole = ".".join(path[:depth])
            raise PlanError(
                "plan-wrong-type",
                f"{source} {dotted}: the plan's {whole} is {quoted(table)}, which is no table. "
                "Nothing was started.",
                f"Set the whole of it: {'--set ' if source == '--set' else ''}{whole}=...",
            )
    table[last] = value


_AT = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_LACKS = re.compile(r"^Object missing required field `(?P<field>[^`]*)`$")


def _plan_error(text: str, table: Mapping[str, Any]) -> HansaError:
    """Turn msgspec's message into ours, with the dotted key and the nearest valid one."""
    at = _AT.search(text)
    path = at["path"] if at else ""
    reason = text[: at.start()] if at else text
    if (unknown := unknown_key(reason)) is not None:
        key = f"{path}.{unknown}" if path else unknown
        scheme = _scheme_told(path, table)
        elsewhere = scheme and any(unknown in k.__struct_fields__ for k in _leaves(Scheme))
        whose = f", which {scheme} does not take" if elsewhere else " that does not exist"
        return PlanError(
            "plan-unknown-key",
            f"The plan has a key {key!r}{whose}. Nothing was started.",
            nearest(unknown, _words_at(path, table)),
        )
    if lacks := _LACKS.search(reason):
        key = f"{path}.{lacks['field']}" if path else lacks["field"]
        return PlanError(
            "plan-wrong-type",
            f"The plan's {path or 'top level'} is not usable: it lacks {lacks['field']}, which "
            f"{_scheme_told(path, table) or 'it'} needs. Nothing was started.",
            f"Add it to the plan, or with: --set {key}=...",
        )
    hint = "See what each key takes with: hansa config explain --defaults"
    word, words = unknown_word(reason), _words_at(path, table)
    if word is not None and words:
        hint = nearest(word, words)
    return PlanError(
        "plan-wrong-type",
        f"The plan's {path or 'top level'} is not usable: {_plain(reason)}. Nothing was started.",
        hint,
    )


_IN_PLAIN_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}


def _plain(reason: str) -> str:
    """Say msgspec's reason with the words of TOML instead of Python's.

    >>> _plain("Expected `int | null`, got `str`")
    'expected a whole number or nothing, got text'
    """

    def words(kinds: re.Match[str]) -> str:
        return " or ".join(_IN_PLAIN_WORDS.get(kind, kind) for kind in kinds[1].split(" | "))

    return re.sub(r"`([^`]*)`", words, reason[:1].lower() + reason[1:])


def _words_at(path: str, table: Mapping[str, Any]) -> list[str]:
    """Return what is valid at a dotted path: keys at `data.split`, words at `learner.kind`."""
    kind: Any = Plan
    value: Any = table
    for step in [s for s in re.split(r"\.|\[[^]]*\]", path) if s]:
        if not _structs(kind):
            return []
        struct = _struct_of(kind, value)
        if step == struct.__struct_config__.tag_field:
            return [_tag(k) for k in _structs(kind)]
        kind = {f.name: f.type for f in msgspec.structs.fields(struct)}.get(step)
        value = value.get(step, {}) if isinstance(value, Mapping) else {}
    if not _structs(kind):
        return [word for word in _leaves(kind) if isinstance(word, str)]
    struct = _struct_of(kind, value)
    keys = [f.encode_name for f in msgspec.structs.fields(struct)]
    tag = struct.__struct_config__.tag_field
    return keys + ([tag] if tag else [])


def _scheme_told(path: str, table: Mapping[str, Any]) -> str:
    """Return the scheme of the split in words, where that is what a path names; else nothing."""
    if path != "data.split":  # the only table whose keys depend on one of them
        return ""
    scheme = table["data"]["split"].get("scheme")
    return f"scheme {scheme!r}" if isinstance(scheme, str) else ""


def _tag(struct: Any) -> Any:
    return struct.__struct_config__.tag


def _structs(kind: Any) -> list[Any]:
    return [k for k in _leaves(kind) if isinstance(k, type) and issubclass(k, msgspec.Struct)]


def _struct_of(kind: Any, value: Any) -> Any:
    """Return the one struct type inside a union or a tuple that the value's tag selects."""
    structs = _structs(kind)
    for struct in structs:
        config = struct.__struct_config__
        tag = value.get(config.tag_field) if isinstance(value, Mapping) else None
        if config.tag_field and tag == config.tag:
            return struct
    return structs[0]


def _leaves(kind: Any) -> list[Any]:
    arguments = getattr(kind, "__args__", ())
    return [leaf for a in arguments for leaf in _leaves(a)] if arguments else [kind]
