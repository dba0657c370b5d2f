"""A model out of Hansa: as safetensors, NumPy's npz, or a torch state_dict."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from hansa.errors import LearnerError, PlanError
from hansa.params import Params
from hansa.params.npz import plain, write_npz
from hansa.store.files import load_params, save_params, write_durably


def export_model(model: Path, output: Path, *, kind: str) -> str:
    """Write a model file in another format; return the Python line that loads it.

    Args:
      model: file of the model trail.
      output: file to write.
      kind: "safetensors", "npz" or "torch".

    Raises:
      LearnerError: torch is asked for and not installed.
      OSError: the file cannot be written.
    """
    params = load_params(model)
    if kind == "safetensors":
        save_params(output, params)
        return f'params = hansa.load_model("{output}")'
    if kind == "npz":
        write_durably(output, [write_npz(params)])
        return f'arrays = numpy.load("{output}")'
    write_durably(output, [_torch(params)])
    return f'net.load_state_dict(torch.load("{output}"))'


def write_numpy(output: Path, params: Params) -> None:
    """Write a model of one tensor as .npy, or any as .npz; never a pickle.

    Raises:
      PlanError: the file is a .npy, and the model has not exactly one tensor.
      OSError: the file cannot be written.
    """
    if output.suffix == ".npz":
        write_durably(output, [write_npz(params)])
        return
    arrays = list(params.to_dict().values())
    if len(arrays) != 1:
        raise PlanError(
            "plan-impossible",
            f"The plan's keep.as_numpy is {output.name}, and the model has {len(arrays)} tensors.",
            "Let it end in .npz, which holds them all.",
        )
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, plain(arrays[0]), allow_pickle=False)
    write_durably(output, [buffer.getvalue()])


def _torch(params: Params) -> bytes:
    try:
        import torch
    except ModuleNotFoundError:
        raise LearnerError(
            "learner-missing-package",
            "Exporting to torch needs PyTorch, which is not installed.",
            "Install it with: pip install torch, or use --to safetensors.",
        ) from None
    from hansa.learners.torch import state_dict

    buffer = io.BytesIO()
    # Views of one buffer become tensors of their own: torch saves whole storages.
    torch.save({name: t.clone() for name, t in state_dict(params).items()}, buffer)
    return buffer.getvalue()
