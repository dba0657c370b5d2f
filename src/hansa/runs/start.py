"""The model that a run starts from, where it is given: one of the trail, or a file."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from hansa.errors import ParamsError, PlanError, RunError
from hansa.learners.learner import Seed, seed_of
from hansa.limits import BLOB_BYTES_MAX
from hansa.params import Params
from hansa.params.npz import NotAnArchive, read_npz
from hansa.runs.folder import RunFolder, find_run
from hansa.runs.trail import Trail, models_of, not_kept
from hansa.store.files import load_params


class Start(NamedTuple):
    """A model to start from."""

    params: Params  # in memory of their own
    origin: str  # RUN:ROUND, or the file's name; kept with the run


def read_start(text: str, runs: Path) -> Start:
    """Return the tensors of a file, or of a model in a folder of runs.

    Args:
      text: path of a safetensors or .npz file, or RUN, RUN:ROUND, RUN:best; RUN may be a path.
      runs: folder of runs.

    Raises:
      RunError: there is neither such a file nor such a run, or the model was not kept.
      ParamsError: the file is not one of tensors.
    """
    path = Path(text)
    if path.is_file():
        return Start(read_tensors(path), path.name)
    name, _, which = text.partition(":")
    try:
        folder = find_run(runs, name)
    except RunError as error:
        if error.code != "run-not-found":
            raise
        told = f"{text!r} is neither a file of tensors nor a model of a run. {error.happened}"
        raise RunError(error.code, told, error.hint) from None
    model = Trail(models_of(folder)).find(f"{folder.name}:{which}" if which else folder.name)
    return Start(load_params(kept_file(folder, model.round)).copy(), model.name)


def kept_file(folder: RunFolder, number: int) -> Path:
    """Return the file of a round's model, checked against the commit.

    Raises:
      RunError: model-missing, it was not kept or is still at the server; run-damaged.
    """
    model = next(m for m in models_of(folder) if m.round == number)
    path = folder.model_path(number)
    if not path.is_file():
        if not model.kept:
            raise not_kept(model)
        raise RunError(
            "model-missing",
            f"The model {model.name} is at the server and not here.",
            f"Bring it here with: hansa run --resume {folder.name}",
        )
    folder.check_model(number)
    return path


def read_tensors(path: Path) -> Params:
    """Return the tensors of a safetensors file, or of an .npz archive of arrays of numbers.

    Raises:
      ParamsError: the file is not one of tensors.
    """
    if path.suffix != ".npz":
        try:
            return load_params(path).copy()
        except ParamsError as error:
            raise ParamsError(
                error.code,
                f"The file {path} is no safetensors file, or a damaged one. It was not used. "
                f"{error.happened}",
                "Give RUN, RUN:ROUND, or a file as hansa export writes it: .safetensors or .npz.",
            ) from None
    try:
        size = path.stat().st_size
        if size > BLOB_BYTES_MAX:
            raise NotAnArchive(f"has {size:,} bytes, more than the {BLOB_BYTES_MAX:,} taken")
        return read_npz(path.read_bytes(), most=BLOB_BYTES_MAX)
    except NotAnArchive as fault:
        raise ParamsError(
            "params-not-an-array",
            f"The file {path} {fault}. It was not used.",
            "Save it with numpy.savez of arrays of numbers, or with: hansa export --to npz",
        ) from None


def as_seed(start: Start, own: Seed) -> Seed:
    """Return a given model as the seed of a project whose own seed model is `own`.

    Raises:
      PlanError: plan-impossible, the project's model has other tensors.
    """
    if own.params.keys() == start.params.keys():  # an archive may have another order
        start = start._replace(params=Params.of({name: start.params[name] for name in own.params}))
    if own.layout.layout != start.params.layout:
        raise PlanError(
            "plan-impossible",
            f"The tensors of {start.origin} are not those of the project's model: "
            f"{_difference(start.params, own.params)}. Nothing was started.",
            "Give a model of a run of this project; see its tensors with: hansa models show",
        )
    return seed_of(start.params, own.layout.buffers.names, own.layout.constants.names)


def begins_with(folder: RunFolder, start: Start) -> bool:
    """Return whether a run has begun with a given model."""
    same: bool = start.params.digest() == folder.about["seed_model"]["digest"]
    return same


def _difference(given: Params, own: Params) -> str:
    """Say in a few words how two sets of tensors differ."""
    there = {s.name: f"{s.dtype} {list(s.shape)}" for s in given.layout.specs}
    here = {s.name: f"{s.dtype} {list(s.shape)}" for s in own.layout.specs}
    for name in [*here, *there]:
        if there.get(name) != here.get(name):
            told = f"{there.get(name, 'none')} and not {here.get(name, 'none')}"
            return f"{name[:80]!r} is {told}"
    return "they differ"
