"""What FLARE's PyTorch apps import: the seed model of a module, and a model's format on disk."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np

from hansa.compat.nvflare.components import FLContext, ModelPersistor
from hansa.compat.nvflare.exchange import ModelLearnable, ModelLearnableKey, make_model_learnable
from hansa.store.files import load_params


class PTFileModelPersistor(ModelPersistor):
    """Starts from a module as it is made, or from a checkpoint of it.

    Args:
      model: the module.
      source_ckpt_file_full_name: file of a state_dict, as safetensors; a relative one lies in the
        app's folder.
      exclude_vars: regular expression of names that are left out.
      options: others of FLARE's; Hansa saves models itself.
    """

    def __init__(
        self,
        model: Any = None,
        source_ckpt_file_full_name: str | None = None,
        exclude_vars: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self._model, self._source = model, source_ckpt_file_full_name
        self._excluded = re.compile(exclude_vars) if exclude_vars else None

    def load_model(self, fl_ctx: FLContext) -> ModelLearnable:
        """Return the checkpoint's or the module's state_dict as arrays."""
        if self._source:
            path = Path(fl_ctx.get_workspace().get_app_dir(), self._source)
            if path.suffix != ".safetensors":  # PyTorch's own format is a pickle (law L7)
                raise ValueError(f"{path.name} is no .safetensors file; save the state_dict as one")
            manager = PTModelPersistenceFormatManager(load_params(path).copy().to_dict())
            return manager.to_model_learnable(self._excluded)
        if not hasattr(self._model, "state_dict"):
            raise TypeError(f"the persistor's model is {type(self._model).__name__}, no module")
        manager = PTModelPersistenceFormatManager(dict(self._model.state_dict()))
        return manager.to_model_learnable(self._excluded)


class PTModelPersistenceFormatManager:
    """A state_dict with what is said of it, as FLARE's PyTorch executors save it.

    Args:
      data: a state_dict, or a dict with one under "model".
      default_train_conf: is kept beside it.
    """

    PERSISTENCE_KEY_MODEL = "model"
    PERSISTENCE_KEY_TRAIN_CONF = "train_conf"
    PERSISTENCE_KEY_META_PROPS = "meta_props"

    def __init__(self, data: dict[str, Any], default_train_conf: Any = None) -> None:
        if not isinstance(data, dict):
            raise TypeError(f"data is a dict, not {type(data).__name__}")
        whole = data if self.PERSISTENCE_KEY_MODEL in data else {self.PERSISTENCE_KEY_MODEL: data}
        self.other_props = dict(whole)
        self.var_dict = self.other_props.pop(self.PERSISTENCE_KEY_MODEL)
        self.meta = self.other_props.pop(self.PERSISTENCE_KEY_META_PROPS, None)
        kept = self.other_props.pop(self.PERSISTENCE_KEY_TRAIN_CONF, None)
        self.train_conf = kept or default_train_conf

    def to_model_learnable(self, exclude_vars: Any = None) -> ModelLearnable:
        """Return the weights as arrays, without those whose names match a pattern."""
        kept = {
            name: value
            for name, value in self.var_dict.items()
            if not (exclude_vars and exclude_vars.search(name))
        }
        return make_model_learnable(_as_arrays(kept), self.meta)

    def to_persistence_dict(self) -> dict[str, Any]:
        """Return what is saved."""
        torch = importlib.import_module("torch")
        weights = {name: torch.as_tensor(value) for name, value in self.var_dict.items()}
        beside = {
            self.PERSISTENCE_KEY_META_PROPS: self.meta,
            self.PERSISTENCE_KEY_TRAIN_CONF: self.train_conf,
        }
        kept = {key: value for key, value in beside.items() if value}
        return {self.PERSISTENCE_KEY_MODEL: weights, **kept, **self.other_props}

    def update(self, ml: ModelLearnable) -> None:
        """Take over weights that were learnt."""
        self.meta = ml.get(ModelLearnableKey.META)
        self.var_dict.update(ml.get(ModelLearnableKey.WEIGHTS, {}))


def _as_arrays(state: dict[str, Any]) -> dict[str, np.ndarray]:
    return {
        name: value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
        for name, value in state.items()
    }
