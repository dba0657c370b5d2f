"""What a FLARE app folder says, or a job folder with one app in it."""

from __future__ import annotations

import configparser
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hansa.code import read_code
from hansa.errors import PlanError
from hansa.limits import PROJECT_FILE_BYTES_MAX

SERVER, CLIENT = "config_fed_server.json", "config_fed_client.json"
META = "meta.json"
_LEVELS = {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}


class App(NamedTuple):
    """A FLARE app as its files describe it."""

    name: str
    folder: Path  # with config/ and custom/ in it
    server_folder: Path  # of the server's part; in most apps the same
    server: dict[str, Any]
    client: dict[str, Any]
    log_levels: dict[str, str]  # of resources/log.config
    meta: dict[str, Any]  # of a job folder; empty for an app folder


def read_app(folder: Path) -> App:
    """Read an app folder, or a job folder with one app; nothing of it is executed.

    Raises:
      PlanError: import-refused, there is no app, or a file cannot be read.
    """
    if not folder.is_dir():
        raise refused(f"There is no folder {folder}.", "Name a FLARE app.")
    folder = folder.resolve()
    meta = _read(folder / META) if (folder / META).is_file() else {}
    app, other = _apps(folder, meta) if meta and not _config(folder, SERVER) else (folder, folder)
    found = {name: _config(at, name) for name, at in ((SERVER, other), (CLIENT, app))}
    for name, path in found.items():
        if path is None:
            raise refused(
                f"{other if name == SERVER else app} has no {name}, neither in config/ nor beside "
                "it.",
                "Name the folder of an app; configurations other than JSON are not read.",
            )
    server, client = (_resolved(_read(path)) for path in found.values() if path is not None)
    name = str(meta.get("name") or folder.name)
    levels = _log_levels(app / "resources" / "log.config")
    return App(name, app, other, server, client, levels, meta)


def refused(why: str, hint: str = "See docs/howto/coming-from-nvflare.md for what is taken over."
            ) -> PlanError:  # fmt: skip
    """Return the error for what has no counterpart."""
    return PlanError("import-refused", f"{why} Nothing was written.", hint)


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


def _apps(folder: Path, meta: Mapping[str, Any]) -> tuple[Path, Path]:
    """Return the app that a job deploys to clients, and the one that it deploys to the server.

    Raises:
      PlanError: import-refused, its clients run different apps, or one is not there.
    """
    deployed = meta.get("deploy_map") or {"app": ["@ALL"]}
    if not isinstance(deployed, dict):
        raise refused(f"The deploy_map of {folder.name} is no object.", "Correct it.")
    names = [str(name) for name, sites in deployed.items() if sites]
    for name in names:
        if Path(name).name != name or name == ".." or not (folder / name).is_dir():
            raise refused(f"The job {folder.name} deploys {name!r}, which is not there.")
    if len(names) == 1:
        return folder / names[0], folder / names[0]
    servers = [name for name in names if _sites(deployed[name]) == ["server"]]
    clients = [name for name in names if name not in servers]
    same = {repr(_content(folder / name)) for name in clients}
    if len(servers) != 1 or len(same) != 1:
        raise refused(
            f"The job {folder.name} deploys {len(names)} apps: {', '.join(names)}. All clients of "
            "a Hansa run have one app, and the server has one.",
            "Make the clients' apps alike, and let the code ask get_identity_name() who it is.",
        )
    return folder / clients[0], folder / servers[0]


def _sites(deployed: Any) -> list[str]:
    return [str(site.get("sites")) if isinstance(site, dict) else str(site) for site in deployed]


def _content(app: Path) -> tuple[Any, dict[str, bytes]]:
    """Return what an app's clients run, to be compared with another's."""
    path = _config(app, CLIENT)
    return (_read(path) if path is not None else None), read_code(app)


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
