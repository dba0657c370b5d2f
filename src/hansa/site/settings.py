"""A site's settings: site.toml, written by its owner, read with no key left unread."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import msgspec
from msgspec import Meta

from hansa.errors import SiteError
from hansa.protocol.messages import Attributes, Name, Slots
from hansa.site.policy import Policy
from hansa.store.files import write_durably
from hansa.text import clean, nearest, toml, toml_key, unknown_key, unknown_word

SITE_FILE = "site.toml"

UNCHANGED = "Nothing was changed: the settings stay as they were."
"""What holds after settings that were only proposed cannot be used."""

_NOTHING_RUNS = "Nothing runs at this site until then."

DATA_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
DataName = Annotated[str, Meta(pattern=DATA_NAME.pattern)]
"""A plan asks for data by this name: `data.set` of the plan."""


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of site.toml."""


class DataSource(_Table, frozen=True):
    """One [data.NAME]: where data lies that a plan may ask for by its name."""

    path: str
    """.csv or .npz file, or folder with train.npz and valid.npz; relative to the site's folder"""
    target: str | None = None
    """column of a CSV file that is to be predicted"""
    group: str | None = None
    """column of a CSV file that says whose row it is"""
    classes: tuple[str, ...] = ()
    """names of all classes where a CSV file's target is text: in the order of the plan's
    data.classes, or else in alphabetical order"""


class SiteLimits(_Table, frozen=True):
    """The table [limits]: what one run's code may use here."""

    memory_mb: Annotated[int, Meta(ge=64)] = 8_192
    """MiB of memory of the process that trains"""
    task_s: Annotated[float, Meta(gt=0)] = 3_600.0
    """seconds that one round's training may take; then it is ended"""
    cpu_s: Annotated[int, Meta(ge=1)] | None = None
    """seconds of processor time of a run's process; by default not limited"""


class SiteSettings(_Table, frozen=True):
    """All of site.toml."""

    name: Name
    """the site's name in its federation, as in the invitation"""
    attributes: Attributes = {}
    """what the site says of itself, text by name, for plans that choose sites by it; each member of
    the federation may read it"""
    data: dict[DataName, DataSource] = {}
    policy: Policy | None = None
    limits: SiteLimits = SiteLimits()
    resources: Slots = {}
    """how many of each named thing runs may take here, such as { gpu = 2 }"""


def load_settings(folder: Path) -> SiteSettings:
    """Read the settings of a site's folder.

    Raises:
      SiteError: site-missing, it is no site's folder; site-settings, the file cannot be used.
    """
    path = folder / SITE_FILE
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        raise SiteError(
            "site-missing",
            f"There is no site here: no file {path}.",
            "Go to the site's folder, name it with --folder, or join with: hansa site join INVITE",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        what = f"{path} cannot be read: {error}. {_NOTHING_RUNS}"
        raise _unusable(what, "Check the file.") from None
    return parse_settings(text, origin=str(path))


def parse_settings(
    text: str, *, origin: str = SITE_FILE, consequence: str = _NOTHING_RUNS
) -> SiteSettings:
    """Read settings from text.

    Args:
      text: TOML.
      origin: where it comes from, for messages.
      consequence: sentence that says what holds if the text cannot be used.

    Raises:
      SiteError: site-settings, with what is wrong and the nearest valid word.
    """
    try:
        return _parsed(text, origin)
    except SiteError as error:
        raise _unusable(f"{error.happened} {consequence}", error.hint) from None


def _parsed(text: str, origin: str) -> SiteSettings:
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unusable(f"{origin} is not valid TOML: {error}.", "Correct that line.") from None
    try:
        settings = msgspec.convert(table, SiteSettings)
    except msgspec.ValidationError as error:
        raise _explained(str(error), table, origin) from None
    policy = settings.policy
    if policy is not None and policy.approve == "submitters" and not policy.submitters:
        raise _unusable(
            f'{origin}: approve = "submitters" names nobody whose plans run without being asked.',
            'Name them: submitters = ["anna"]; or say approve = "ask".',
        )
    if policy is not None and policy.filters:
        from hansa.site.outgoing import build_filters  # with NumPy

        try:
            build_filters(policy.filters)
        except SiteError as error:
            raise _unusable(f"{origin}: {error.happened}", error.hint) from None
    for name in (policy.data or ()) if policy else ():
        if name not in settings.data:
            raise _unusable(
                f"{origin}: the policy allows the data {clean(name)!r}, which is not declared.",
                nearest(name, settings.data) if settings.data else "hansa site data add PATH --as "
                + clean(name),
            )  # fmt: skip
    return settings


def write_settings(folder: Path, settings: SiteSettings) -> None:
    """Write site.toml anew from values; comments of an older one are lost."""
    write_durably(folder / SITE_FILE, [settings_text(settings).encode()])


def settings_text(settings: SiteSettings) -> str:
    """Return settings as TOML, without what has its default."""
    lines = [f"name = {toml(settings.name)}"]
    if settings.attributes:
        said = (f"{toml_key(name)} = {toml(value)}" for name, value in settings.attributes.items())
        lines += ["", "[attributes]", *said]
    for name, source in settings.data.items():
        lines += ["", *data_lines(name, source)]
    for title, part in (("limits", settings.limits), ("policy", settings.policy)):
        if part is not None and (title == "policy" or part != SiteLimits()):
            lines += ["", f"[{title}]", *_key_lines(part)]
    if settings.resources:
        given = sorted(settings.resources.items())
        lines += ["", "[resources]", *(f"{name} = {count}" for name, count in given)]
    return "\n".join(lines) + "\n"


def nothing_at(folder: Path, settings: SiteSettings, plan: Mapping[str, Any]) -> str:
    """Return a sentence if nothing lies where the data are declared that a plan asks for."""
    table = plan.get("data")
    source = settings.data.get(str(table.get("set"))) if isinstance(table, Mapping) else None
    path = None if source is None else (folder / source.path).resolve()
    if table is None or path is None or path.exists():
        return ""
    return (
        f"The data {clean(str(table['set']))!r} are declared in {SITE_FILE}, and there is nothing "
        f"at {path}: a run could not begin here."
    )


def data_lines(name: str, source: DataSource) -> list[str]:
    """Return the table that declares data."""
    return [f"[data.{toml_key(name)}]", *_key_lines(source)]


def _key_lines(part: msgspec.Struct) -> list[str]:
    values = msgspec.structs.asdict(part)
    return [f"{key} = {toml(value)}" for key, value in values.items() if value not in (None, ())]


_AT = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_KEY_AT = re.compile(r" - at `key` in `\$\.?(?P<path>[^`]*)`$")
_KINDS: Mapping[str, type[msgspec.Struct]] = {
    "": SiteSettings,
    "data[...]": DataSource,
    "policy": Policy,
    "limits": SiteLimits,
}


def _explained(text: str, table: Mapping[str, Any], origin: str) -> SiteError:
    """Turn msgspec's message into ours, with the nearest valid key."""
    at = _AT.search(text) or _KEY_AT.search(text)
    path = at["path"] if at else ""
    reason = text[: at.start()] if at else text
    if "matching regex" in reason:
        reason = (
            "a name has up to 64 letters, digits, . _ - and begins with a letter or a digit; those "
            "of members and resources are in lower case"
        )
    where = path.replace("[...]", ".NAME") or "top level"
    if (key := unknown_key(reason)) is not None and path in _KINDS:
        return _unusable(
            f"{origin}, {where}: there is no key {clean(key)!r}.",
            nearest(key, [f.name for f in msgspec.structs.fields(_KINDS[path])]),
        )
    hint = "Correct it; the file site.toml that `hansa site join` writes explains each key."
    if (word := unknown_word(reason)) is not None and (words := _words_at(path)):
        hint = nearest(word, words)
    return _unusable(f"{origin}, {where}: {clean(reason[:1].lower() + reason[1:], 400)}.", hint)


def _words_at(path: str) -> tuple[str, ...]:
    """Return the words that a key takes; none if it takes others."""
    parent, _, key = path.rpartition(".")
    return get_args(get_type_hints(_KINDS[parent]).get(key)) if parent in _KINDS else ()


def _unusable(happened: str, hint: str) -> SiteError:
    return SiteError("site-settings", happened, hint)
