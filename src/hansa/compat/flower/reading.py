"""What a Flower project's pyproject.toml says."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hansa.errors import PlanError
from hansa.limits import PROJECT_FILE_BYTES_MAX

PROJECT_FILE = "pyproject.toml"
CLIENTS = 10
"""Simulated clients where a project does not say how many."""


class FlowerProject(NamedTuple):
    """A Flower project as its files describe it."""

    folder: Path
    name: str
    client: str  # module:object
    server: str | None  # module:object
    run_config: dict[str, Any]
    clients: int | None  # simulated ones


def read_project(folder: Path, client: str | None = None) -> FlowerProject:
    """Read a project's description.

    Args:
      folder: of the project.
      client: module:object of the client app, in place of what the file says.

    Raises:
      PlanError: import-refused, there is no description of a client app.
    """
    path = folder / PROJECT_FILE
    table = _table(path)
    flower = table.get("tool", {}).get("flwr", {}) or table.get("flower", {})
    app = flower.get("app") or flower
    components = app.get("components", {})
    client = client or components.get("clientapp")
    if not isinstance(client, str):
        raise PlanError(
            "import-refused",
            f"{path} names no client app under [tool.flwr.app.components]. Nothing was written.",
            "Say where it is: --client client_app:app, or --client client.py for a script that "
            "calls start_client.",
        )
    config = app.get("config", {})
    return FlowerProject(
        folder,
        str(table.get("project", {}).get("name") or folder.resolve().name),
        client,
        components.get("serverapp"),
        dict(_flat(config)) if isinstance(config, Mapping) else {},
        _clients(flower.get("federations", {})),
    )


def module_file(folder: Path, reference: str) -> Path | None:
    """Return the file of "module:object", or None where there is none."""
    if reference.endswith(".py"):
        path = folder / reference
        return path if path.is_file() else None
    parts = reference.partition(":")[0].split(".")
    for path in (
        folder.joinpath(*parts).with_suffix(".py"),
        folder.joinpath(*parts, "__init__.py"),
    ):
        if path.is_file():
            return path
    return None


def _table(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > PROJECT_FILE_BYTES_MAX:
            raise _unreadable(path, f"it has more than {PROJECT_FILE_BYTES_MAX >> 20} MiB")
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, str(error)) from None


def _unreadable(path: Path, why: str) -> PlanError:
    return PlanError(
        "import-refused",
        f"{path} cannot be read: {why}. Nothing was written.",
        "Correct the file.",
    )


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield values by dotted key, as run_config has them."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _clients(federations: Any) -> int | None:
    """Return the number of simulated clients of the default federation, or of the first."""
    if not isinstance(federations, Mapping):
        return None
    named = [federations.get(str(federations.get("default"))), *federations.values()]
    for federation in named:
        options = federation.get("options", {}) if isinstance(federation, Mapping) else {}
        number = options.get("num-supernodes") if isinstance(options, Mapping) else None
        if isinstance(number, int) and number > 0:
            return number
    return None
