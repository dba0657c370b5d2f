"""What a FLARE app folder says, or a job folder with the apps of its sites."""

from __future__ import annotations

import configparser
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hansa.errors import PlanError
from hansa.limits import PROJECT_FILE_BYTES_MAX

SERVER, CLIENT = "config_fed_server.json", "config_fed_client.json"
META = "meta.json"
_SERVER, _ALL = "server", "@ALL"
_SITE = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")  # as in `hansa.protocol.messages`
_LEVELS = {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}


class ClientApp(NamedTuple):
    """An app as the clients run it that it is deployed to."""

    folder: Path  # with config/ and custom/ in it
    sites: tuple[str, ...]  # sorted; empty for all
    config: dict[str, Any]


class App(NamedTuple):
    """A FLARE app as its files describe it, or a job: its server's app and those of its clients."""

    name: str
    folder: Path  # of the server's app; in most jobs that of all
    server: dict[str, Any]
    clients: tuple[ClientApp, ...]
    log_levels: dict[str, str]  # of resources/log.config
    meta: dict[str, Any]  # of a job folder; empty for an app folder

    @property
    def needed(self) -> list[str]:
        """The clients that no round can do without."""
        return sorted(self.meta.get("mandatory_clients") or [])

    @property
    def sites(self) -> tuple[str, ...]:
        """The clients' names, where a job gives them."""
        return tuple(sorted(site for app in self.clients for site in app.sites))


def read_app(folder: Path) -> App:
    """Read an app folder, or a job folder; nothing of it is executed.

    Raises:
      PlanError: import-refused, there is no app, or a file cannot be read.
    """
    if not folder.is_dir():
        raise refused(f"There is no folder {folder}.", "Name a FLARE app.")
    folder = folder.resolve()
    meta = _read(folder / META) if (folder / META).is_file() else {}
    at, clients = folder, {folder: tuple[str, ...]()}
    if meta and not _config(folder, SERVER):
        at, clients = _deployed(folder, meta)
    apps = [ClientApp(app, sites, _part(app, CLIENT)) for app, sites in clients.items()]
    levels: dict[str, str] = {}
    for app in (*clients, at):
        levels |= _log_levels(app / "resources" / "log.config")
    name = str(meta.get("name") or folder.name)
    return App(name, at, _part(at, SERVER), tuple(apps), levels, meta)


def _part(app: Path, name: str) -> dict[str, Any]:
    path = _config(app, name)
    if path is None:
        raise refused(
            f"{app} has no {name}, neither in config/ nor beside it.",
            "Name the folder of an app; configurations other than JSON are not read.",
        )
    return _resolved(_read(path))


def refused(why: str, hint: str = "See docs/howto/coming-from-nvflare.md for what is taken over."
            ) -> PlanError:  # fmt: skip
    """Return the error for what has no counterpart."""
    return PlanError("import-refused", f"{why} Nothing was written.", hint)


def is_site(name: str) -> bool:
    """Return whether a site can be called so, but for capital letters, which it cannot have."""
    return bool(_SITE.fullmatch(name.lower()))


def rows(table: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Return a list of objects in a configuration.

    Raises:
      PlanError: it is something else.
    """
    value = table.get(key) or []
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise refused(f"{key} of the app's configuration is no list of objects.", "Correct it.")
    return value


def path_of(described: Mapping[str, Any]) -> str:
    """Return the dotted path, or the short name, of a component."""
    found = described.get("path") or described.get("class_path") or described.get("name")
    if not isinstance(found, str):
        raise refused(f"A component of the app has neither path nor name: {dict(described)!r:.100}")
    return found


def arguments(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return a component's arguments."""
    found = described.get("args") or {}
    if not isinstance(found, dict):
        raise refused(f"The arguments of {path_of(described)} are no object.", "Correct them.")
    return found


def _deployed(folder: Path, meta: Mapping[str, Any]) -> tuple[Path, dict[Path, tuple[str, ...]]]:
    """Return the app that a job deploys to the server, and its clients' apps with their sites.

    Raises:
      PlanError: import-refused, an app is not there, or a site has none or several.
    """
    job, told = folder.name, meta.get("deploy_map")
    given = told or {"app": [_ALL]}
    if not isinstance(given, dict):
        raise refused(f"The deploy_map of {job} is no object.", "Correct it.")
    if not told and not (folder / "app").is_dir():
        raise refused(
            f"The deploy_map of {job} is empty, and there is no folder app for all sites.",
            'Name sites behind each app: {"app_server": ["server"], "app_1": ["site-1"]}.',
        )
    apps = {str(app): _sites(job, sites) for app, sites in given.items()}
    apps = {app: sites for app, sites in apps.items() if sites}
    for app in apps:
        if Path(app).name != app or app == ".." or not (folder / app).is_dir():
            raise refused(f"The job {job} deploys {app!r}, which is not there.")
    counts = Counter(site.lower() for sites in apps.values() for site in sites)
    if twice := [site for site, times in counts.items() if times > 1]:
        raise refused(
            f"The deploy_map of {job} names {', '.join(twice)} more than once.",
            "A site runs one app: name it once.",
        )
    clients = {folder / app: [s for s in sites if s != _SERVER] for app, sites in apps.items()}
    clients = {app: sites for app, sites in clients.items() if sites}
    servers = [app for app, sites in apps.items() if _SERVER in sites]
    servers += [app for app, sites in apps.items() if _ALL in sites]
    if not servers or not clients:
        raise refused(
            f"The deploy_map of {job} has no app for {'clients' if servers else 'the server'}.",
            'Name sites behind each app: {"app_server": ["server"], "app_1": ["site-1"]}.',
        )
    if _ALL.lower() in counts and len(counts.keys() - {_SERVER}) > 1:
        raise refused(
            f"The deploy_map of {job} names {_ALL} and other sites as well.",
            "Name either all sites, or each by itself.",
        )
    named = {app: tuple(sorted(set(sites) - {_ALL})) for app, sites in clients.items()}
    _check_needs(job, meta, [site for sites in named.values() for site in sites])
    return folder / servers[0], named


def _sites(job: str, told: Any) -> list[str]:
    """Return the sites of one app; but for capital letters, a Hansa site can be called so."""
    found: list[str] = []
    for one in told if isinstance(told, list) else [told]:
        inner = (one.get("sites") or one.get("targets")) if isinstance(one, dict) else [one]
        for site in inner if isinstance(inner, list) else [inner]:
            if not isinstance(site, str) or not (site.upper() == _ALL or is_site(site)):
                raise refused(
                    f"The deploy_map of {job} names {site!r:.100}: no site can be called so.",
                    "A name is up to 64 letters, digits, '.', '_' and '-', as in site-1.",
                )
            found.append(_ALL if site.upper() == _ALL else site)
    return found


def _check_needs(job: str, meta: Mapping[str, Any], sites: list[str]) -> None:
    """Refuse a job that needs more clients than it has, or others.

    Raises:
      PlanError: import-refused.
    """
    least, needed = meta.get("min_clients"), meta.get("mandatory_clients") or []
    if sites and isinstance(least, int) and least > len(sites):
        raise refused(
            f"The job {job} has min_clients {least}, and its deploy_map names {len(sites)}: "
            f"{', '.join(sites)}.",
            "Correct one of the two in meta.json.",
        )
    if not isinstance(needed, list) or not all(isinstance(n, str) and is_site(n) for n in needed):
        raise refused(f"The mandatory_clients of {job} are no list of names.", "Correct them.")
    if odd := [name for name in needed if sites and name not in sites]:
        raise refused(
            f"The job {job} has mandatory_clients that no app is deployed to: {', '.join(odd)}.",
            "Name them in the deploy_map.",
        )


def _config(app: Path, name: str) -> Path | None:
    return next((p for p in (app / "config" / name, app / name) if p.is_file()), None)


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > PROJECT_FILE_BYTES_MAX:
            raise ValueError(f"it has more than {PROJECT_FILE_BYTES_MAX >> 20} MiB")
        text = path.read_text(encoding="utf-8-sig")
        table = json.loads(text, parse_constant=_no_number)
        json.dumps(table, ensure_ascii=False).encode()  # half a character is found here
    except (OSError, ValueError, RecursionError) as error:
        raise refused(f"{path} cannot be read: {error}.", "Correct the file.") from None
    if not isinstance(table, dict):
        raise refused(f"{path} holds no object.", "Correct the file.")
    return table


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _resolved(table: dict[str, Any]) -> dict[str, Any]:
    """Put values of the first level in place of "{name}", as FLARE does."""
    named = {key: v for key, v in table.items() if isinstance(v, str | int | float)}

    def resolve(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: resolve(item) for key, item in value.items()}
        if isinstance(value, list):
            return [resolve(item) for item in value]
        if isinstance(value, str) and value[:1] == "{" and value[-1:] == "}":
            return named.get(value[1:-1], value)
        return value

    try:
        found: dict[str, Any] = resolve(table)
    except RecursionError:
        raise refused("The app's configuration is nested too deeply.", "Correct it.") from None
    return found


def _log_levels(path: Path) -> dict[str, str]:
    """Return levels of loggers; handlers and formats are not taken over.

    `logging.config.fileConfig` evaluates text of the file, so it is not used.
    """
    if not path.is_file():
        return {}
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, configparser.Error) as error:
        raise refused(f"{path} cannot be read: {error}.", "Correct the file.") from None
    levels = {}
    for section in parser.sections():
        level = parser[section].get("level", "").upper()
        if section.startswith("logger_") and level in _LEVELS:
            short = section.removeprefix("logger_")
            levels[parser[section].get("qualname", short) if short != "root" else short] = level
    return levels
