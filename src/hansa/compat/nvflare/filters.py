"""FLARE's own filters that Hansa has: they change the DXO of a task or of a result.

Those of the server's side run at the client too, after the client's own: a filter looks at one
result at a time, so what is aggregated is the same, and less of it travels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hansa.compat.nvflare.components import Filter, FLContext
from hansa.compat.nvflare.exchange import DXO, Shareable, from_shareable
from hansa.compat.nvflare.names import DataKind, MetaKey
from hansa.seeds import Key
from hansa.transforms.percentile import largest
from hansa.transforms.sparse_vector import sparse

KEY = "__hansa_key__"
"""Property of a context under which a client's and task's key is found."""

_MODEL = (DataKind.WEIGHTS, DataKind.WEIGHT_DIFF)


class DXOFilter(Filter):
    """A filter that looks at data of some kinds; own ones override `process_dxo`.

    Args:
      supported_data_kinds: that exist for it; None for all.
      data_kinds_to_filter: which of them it changes; None for all that it supports.
    """

    def __init__(
        self,
        supported_data_kinds: Sequence[str] | None = None,
        data_kinds_to_filter: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.data_kinds = data_kinds_to_filter or supported_data_kinds

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """Return the Shareable with its DXO changed."""
        try:
            dxo = from_shareable(shareable)
        except ValueError:
            return shareable
        if self.data_kinds and dxo.data_kind not in self.data_kinds:
            return shareable
        made = self.process_dxo(dxo, shareable, fl_ctx)
        return shareable if made is None else made.update_shareable(shareable)

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO | None:
        """Return the changed DXO, or None for none; user code does."""
        return None


class ExcludeVars(DXOFilter):
    """Leaves variables out: they stay as the server has sent them.

    Args:
      exclude_vars: names, or one regular expression that a name holds.
      data_kinds: that it changes.
    """

    def __init__(self, exclude_vars: Any = None, data_kinds: Sequence[str] | None = None) -> None:
        super().__init__(_MODEL, data_kinds)
        names = exclude_vars if isinstance(exclude_vars, list) else []
        pattern = exclude_vars if isinstance(exclude_vars, str) and exclude_vars else None
        if not (exclude_vars is None or isinstance(exclude_vars, str | list)):
            raise TypeError("exclude_vars is a list of names, or a regular expression")
        self._names, self._pattern = set(names), re.compile(pattern) if pattern else None

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO:
        """Return the DXO without the variables."""
        kept = {name: v for name, v in dxo.data.items() if not self._is_out(name)}
        return DXO(dxo.data_kind, kept, dxo.meta)

    def _is_out(self, name: str) -> bool:
        return name in self._names or bool(self._pattern and self._pattern.search(name))


class PercentilePrivacy(DXOFilter):
    """Sets the smallest changes to 0 and cuts the others off; see `hansa.transforms.percentile`.

    Args:
      percentile: below which changes of a step are set to 0.
      gamma: the largest change of a step.
      data_kinds: that it changes.
    """

    def __init__(
        self, percentile: float = 10, gamma: float = 0.01, data_kinds: Sequence[str] | None = None
    ) -> None:
        super().__init__((DataKind.WEIGHT_DIFF,), data_kinds)
        if not 0 <= percentile <= 100 or not gamma > 0:
            raise ValueError(
                f"percentile is 0 to 100 and gamma positive, not {percentile}, {gamma}"
            )
        self._percentile, self._gamma = percentile, gamma

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO:
        """Return the DXO with the smallest changes set to 0."""
        steps = float(dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND, 1) or 1)
        made = largest(_floats(dxo), self._percentile, self._gamma, steps=steps)
        return DXO(dxo.data_kind, _as_they_were(made, dxo), dxo.meta)


class SVTPrivacy(DXOFilter):
    """Lets a share of the changes leave, with noise; see `hansa.transforms.sparse_vector`.

    The noise is drawn from the run's seed, so a run is reproducible, and who knows the plan knows
    it.  A site's own filter, in its policy, draws in secret.

    Args:
      fraction: of the changes that leave at most.
      epsilon: of the threshold.
      noise_var: of what leaves.
      gamma: to which changes are clipped.
      tau: the threshold.
      data_kinds: that it changes.
    """

    def __init__(
        self,
        fraction: float = 0.1,
        epsilon: float = 0.1,
        noise_var: float = 0.1,
        gamma: float = 1e-5,
        tau: float = 1e-6,
        data_kinds: Sequence[str] | None = None,
    ) -> None:
        super().__init__((DataKind.WEIGHT_DIFF,), data_kinds)
        if not (0 < fraction <= 1 and min(epsilon, noise_var, gamma) > 0):
            raise ValueError("fraction is up to 1, and epsilon, noise_var and gamma are positive")
        self._told = (fraction, (epsilon, noise_var))
        self._bounds = {"bound": gamma, "threshold": tau}

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO:
        """Return the DXO with what leaves, and noise on it."""
        key = fl_ctx.get_prop(KEY) or Key.root(0)
        rng = key.child("SVTPrivacy").generator()
        fraction, epsilons = self._told
        made = sparse(_floats(dxo), rng, fraction, epsilons, **self._bounds)
        return DXO(dxo.data_kind, _as_they_were(made, dxo), dxo.meta)


def _floats(dxo: DXO) -> dict[str, np.ndarray]:
    """Return the variables; changes of counters are filtered like others, as FLARE does."""
    arrays = {name: np.asarray(value) for name, value in dxo.data.items()}
    return {n: v.astype(np.float64) if v.dtype.kind in "iub" else v for n, v in arrays.items()}


def _as_they_were(made: Mapping[str, np.ndarray], dxo: DXO) -> dict[str, np.ndarray]:
    """Return filtered variables, those of counters as whole numbers; cut, so bounds still hold."""
    whole = {name for name, value in dxo.data.items() if np.asarray(value).dtype.kind in "iub"}
    return {n: np.trunc(v).astype(np.int64) if n in whole else v for n, v in made.items()}
