"""What stands in for the module `declearn` in the process that runs a model file.

`install` is called by that process alone (`hansa.compat.declearn.worker`); how it works stands in
`hansa.compat.stand_in`.  It has what a quickrun model file imports: models, and little more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hansa.compat import stand_in
from hansa.compat.declearn.models import Model, SklearnSGDModel, TorchModel, not_here

NAME = "declearn"


def set_device_policy(gpu: bool, idx: int | None = None) -> None:
    """Do nothing: quickrun has models on the CPU, whatever their file says."""


PARTS: Mapping[str, Mapping[str, Any]] = {
    "declearn": {"__version__": "0+hansa"},
    "declearn.utils": {"set_device_policy": set_device_policy},
    "declearn.model": {},
    "declearn.model.api": {"Model": Model},
    "declearn.model.torch": {"TorchModel": TorchModel},
    "declearn.model.sklearn": {"SklearnSGDModel": SklearnSGDModel},
    "declearn.model.tensorflow": {"TensorflowModel": not_here("TensorflowModel")},
    "declearn.model.haiku": {"HaikuModel": not_here("HaikuModel")},
}
"""Every module and what is in it."""


def install() -> None:
    """Let `declearn` mean this, in this process, from now on.

    Raises:
      LearnerError: the real one has been imported already.
    """
    stand_in.install(NAME, PARTS)
