"""Write each client's part of a dataset into a folder of its own.

    out/split.json              what was split, how, and the rows per class of each client
    out/client-0/train.npz      x, y and the names of the classes
    out/client-0/valid.npz      likewise, where a validation part was asked for

The folder appears complete or not at all.
"""

from __future__ import annotations

import filecmp
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from blake3 import blake3

from hansa.data.dataset import Array, Dataset, held_out
from hansa.data.partitioner import Partition
from hansa.errors import DataError
from hansa.seeds import Key

FOLDER_CHARS_MAX = 64
"""Characters of a client's folder name; some systems stop at 255 bytes for a whole path."""

_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


class SplitSummary(NamedTuple):
    """What was written.

    folder: the folder of the split
    clients: each client's sub-folder, in the partition's order
    train, valid: shape [clients], rows in each part
    counts: shape [clients, classes], rows of both parts per class; one column for regression
    classes: the names of the columns; None for regression
    unchanged: the folder already held this very split, and was left as it was
    """

    folder: Path
    clients: tuple[str, ...]
    train: Array
    valid: Array
    counts: Array
    classes: tuple[str, ...] | None
    unchanged: bool


def write_split(
    dataset: Dataset,
    partition: Partition,
    out: Path,
    *,
    validation: float,
    key: Key,
    seed: int | None = None,
) -> SplitSummary:
    """Write every client's training and validation rows below `out`.

    Args:
      dataset: what the partition was made of.
      partition: who gets which rows.
      out: a folder that does not exist, is empty, or holds this very split already.
      validation: fraction of each client's rows to put into valid.npz, stratified by label;
        every client keeps at least one row for training.  0 writes no valid.npz.
      key: chooses the validation rows.
      seed: noted in split.json, for people.

    Raises:
      DataError: `validation` is out of range, or `out` holds something else.

    """
    if not 0 <= validation < 1:
        raise DataError(
            "data-option",
            f"Cannot put {validation!r} of each client's rows into a validation part.",
            "Give a fraction from 0 up to, but not including, 1.",
        )
    if len(partition.order) != dataset.examples:
        raise DataError(
            "data-mismatch",
            f"The partition is one of {len(partition.order)} rows; "
            f"{dataset.name} has {dataset.examples}.",
            "Split the dataset that was partitioned.",
        )
    out = out.resolve()
    try:
        _check_target(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".split-", dir=out.parent) as work:
            fresh = Path(work) / "split"
            summary = _write(dataset, partition, fresh, validation=validation, key=key, seed=seed)
            return summary._replace(folder=out, unchanged=_settle(fresh, out))
    except OSError as error:
        raise DataError(
            "data-unwritable",
            f"The split could not be written to {out}: {error}.",
            "Choose a folder that you may write to, on a disk with space.",
        ) from error


def folder_names(names: Iterable[str]) -> list[str]:
    """Turn clients' names, which are data, into folder names that are safe on every system.

    A name that is safe already is kept; another loses its odd characters and gains a digest.

    >>> folder_names(["north", "../etc", "Con"])
    ['north', 'etc-2c0722ec', 'client-Con-7ac47653']
    """
    used = {"split.json"}
    folders = []
    for name in names:
        safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:FOLDER_CHARS_MAX].strip("._-")
        if not safe or _RESERVED.fullmatch(safe):
            safe = f"client-{safe}"
        if safe != name or safe.casefold() in used:
            safe = f"{safe}-{blake3(name.encode(errors='replace')).hexdigest(4)}"
        while safe.casefold() in used:
            safe += "_"
        used.add(safe.casefold())
        folders.append(safe)
    return folders


def _write(
    dataset: Dataset,
    partition: Partition,
    folder: Path,
    *,
    validation: float,
    key: Key,
    seed: int | None,
) -> SplitSummary:
    clients = folder_names(partition.names)
    valid = np.zeros(len(partition), np.int64)
    for i, client in enumerate(clients):
        own = dataset.take(partition.indices(i))
        child = key.child("validation", i)
        held = held_out(own.labels, own.examples, fraction=validation, key=child)
        valid[i] = np.count_nonzero(held)
        (folder / client).mkdir(parents=True)
        save_part(folder / client / "train.npz", own.take(np.flatnonzero(~held)))
        if valid[i]:
            save_part(folder / client / "valid.npz", own.take(np.flatnonzero(held)))
    classes = None if dataset.labels is None else dataset.classes
    counts = partition.sizes[:, None]
    if classes is not None:
        counts = partition.counts(dataset.y, len(classes))
    train = partition.sizes - valid
    summary = SplitSummary(folder, tuple(clients), train, valid, counts, classes, False)
    about = {"seed": seed, "key": key.material.hex(), "validation": validation}
    (folder / "split.json").write_bytes(_describe(summary, dataset.name, partition, about=about))
    return summary


def save_part(path: Path, part: Dataset) -> None:
    """Write rows to a .npz file, with the names of all classes."""
    if part.classes is None:
        np.savez(path, x=part.x, y=part.y)
    else:
        np.savez(path, x=part.x, y=part.y, classes=np.array(part.classes, dtype=str))


def _describe(
    summary: SplitSummary, data: str, partition: Partition, *, about: dict[str, Any]
) -> bytes:
    clients = [
        {"name": name, "folder": folder, "train": train, "valid": valid, "counts": counts}
        for name, folder, train, valid, counts in zip(
            partition.names,
            summary.clients,
            summary.train.tolist(),
            summary.valid.tolist(),
            summary.counts.tolist(),
            strict=True,
        )
    ]
    document = {"data": data, "scheme": partition.scheme, **about}
    document |= {"classes": summary.classes, "clients": clients}
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def _check_target(out: Path) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise _occupied(out, "is a file")
    held = sorted(path.name for path in out.iterdir())
    if held and "split.json" not in held:
        raise _occupied(out, f"holds {held[0]!r} and is not an earlier split")


def _settle(fresh: Path, out: Path) -> bool:
    """Move the new split into place, or say True if the same split is there already."""
    if out.exists() and any(out.iterdir()):
        _check_same(fresh, out)
        return True
    if out.exists():
        out.rmdir()
    fresh.rename(out)
    return False


def _check_same(fresh: Path, out: Path) -> None:
    files = {path.relative_to(fresh) for path in fresh.rglob("*") if path.is_file()}
    for name in sorted(files):
        if not (out / name).is_file() or not filecmp.cmp(fresh / name, out / name, shallow=False):
            raise _occupied(out, f"holds another split; {name.as_posix()} differs")
    for path in out.rglob("*.npz"):
        if path.relative_to(out) not in files:
            raise _occupied(out, f"also holds {path.relative_to(out).as_posix()}")


def _occupied(out: Path, how: str) -> DataError:
    return DataError(
        "data-folder-not-empty",
        f"The folder {out} {how}. Nothing was changed.",
        "Choose another folder, or remove this one.",
    )
