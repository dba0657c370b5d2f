"""Where a simulated run keeps the models that its plan wants beside those it needs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from blake3 import blake3

from hansa.errors import StoreError
from hansa.plan.schema import KeepPlan
from hansa.runs.folder import RunFolder
from hansa.store.files import save_params
from hansa.store.lineage import DiskLineage, Lineage, MemoryLineage
from hansa.store.redis_lineage import REDIS_URL, RedisLineage, redis_library


def is_wanted(keep: KeepPlan) -> bool:
    """Return whether a plan keeps models anywhere but in the trail on disk."""
    return keep.clients is not None or (keep.store != "disk" and keep.lineage != 1)


def open_lineage(keep: KeepPlan, folder: Path, key: str) -> Lineage | None:
    """Return the place that a plan names; None if it keeps nothing there.

    Args:
      keep: of the plan.
      folder: of the run.
      key: as `lineage_key` has made it.

    Raises:
      StoreError: store-redis, there is none, or it does not answer.
    """
    if not is_wanted(keep):
        return None
    match keep.store:
        case "memory":
            return MemoryLineage()
        case "redis":
            return RedisLineage(redis_address(), key)
    return DiskLineage(folder / "lineage")


def lineage_key(about: Mapping[str, Any]) -> str:
    """Return what begins a run's keys in Redis; its folder may be moved."""
    known = f"{about['run']}|{about['identity']}|{about['created']}"
    return f"hansa|{about['run']}-{blake3(known.encode()).hexdigest()[:12]}"


def redis_address(said: str = "") -> str:
    """Return the address of the Redis: the environment's, or else what was said.

    Raises:
      StoreError: store-redis, there is none, or the client library is missing.
    """
    if url := os.environ.get(REDIS_URL, "") or said:
        redis_library()
        return url
    raise StoreError(
        "store-redis",
        'The plan says keep.store = "redis", and no Redis is named here. Nothing was started.',
        f'Set {REDIS_URL}=redis://HOST:6379/0, or redis in server.toml; or keep.store = "disk".',
    )


def fetch_model(folder: RunFolder, number: int) -> bool:
    """Bring a model of a simulated run from Redis into its folder; return whether it was there.

    Raises:
      StoreError: store-redis.
    """
    keep = msgspec.convert(folder.plan()["keep"], KeepPlan)
    if keep.store != "redis" or folder.remote is not None:
        return False
    lineage = open_lineage(keep, folder.path, lineage_key(folder.about))
    model = None if lineage is None else lineage.get("", number)
    if model is None:
        return False
    save_params(folder.model_path(number), model)
    return True
