"""What a FLARE app's own aggregator and shareable generator derive from, and FLARE's usual ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from hansa.compat.nvflare.client_api import FLModel, ParamsType
from hansa.compat.nvflare.components import FLComponent, FLContext
from hansa.compat.nvflare.exchange import (
    DXO,
    ModelLearnable,
    ModelLearnableKey,
    Shareable,
    from_shareable,
    model_learnable_to_dxo,
)
from hansa.compat.nvflare.names import AppConstants, DataKind, MetaKey, ReservedKey

_KINDS = {ParamsType.FULL: DataKind.WEIGHTS, ParamsType.DIFF: DataKind.WEIGHT_DIFF}


class Aggregator(FLComponent, ABC):
    """Takes one result after the other, and makes one of them."""

    def reset(self, fl_ctx: FLContext) -> None:
        """Forget a round; user code does."""

    @abstractmethod
    def accept(self, shareable: Shareable, fl_ctx: FLContext) -> bool:
        """Return whether a client's result is taken; user code does."""

    @abstractmethod
    def aggregate(self, fl_ctx: FLContext) -> Shareable:
        """Return what the results of a round give; user code does."""


class ModelAggregator(Aggregator):
    """An aggregator of FLModels."""

    def __init__(self) -> None:
        super().__init__()
        self.fl_ctx: Any = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Remember the context."""
        self.fl_ctx = fl_ctx

    @abstractmethod
    def accept_model(self, model: FLModel) -> None:
        """Take a client's model; user code does."""

    @abstractmethod
    def aggregate_model(self) -> FLModel:
        """Return what the models of a round give; user code does."""

    def reset_stats(self) -> None:
        """Forget a round; user code does."""

    def accept(self, shareable: Shareable, fl_ctx: FLContext) -> bool:
        """Take a client's result as an FLModel."""
        self.fl_ctx = fl_ctx
        dxo = from_shareable(shareable)
        meta = dict(dxo.meta)
        metrics = meta.pop(MetaKey.INITIAL_METRICS, None)
        meta["client_name"] = shareable.get_peer_prop(ReservedKey.IDENTITY_NAME, "")
        self.accept_model(
            FLModel(
                ParamsType.DIFF if dxo.data_kind == DataKind.WEIGHT_DIFF else ParamsType.FULL,
                dxo.data,
                metrics=metrics,
                current_round=shareable.get_header(AppConstants.CURRENT_ROUND),
                total_rounds=shareable.get_header(AppConstants.NUM_ROUNDS),
                meta=meta,
            )
        )
        return True

    def aggregate(self, fl_ctx: FLContext) -> Shareable:
        """Return the FLModel that the models of a round give."""
        self.fl_ctx = fl_ctx
        made = self.aggregate_model()
        meta = dict(made.meta)
        if made.metrics is not None:
            meta[MetaKey.INITIAL_METRICS] = made.metrics
        return DXO(_KINDS[made.params_type], made.params, meta).to_shareable()

    def reset(self, fl_ctx: FLContext) -> None:
        """Forget a round."""
        self.fl_ctx = fl_ctx
        self.reset_stats()

    def info(self, message: str) -> None:
        """Write to the log."""
        self.log_info(self.fl_ctx, message)

    def warning(self, message: str) -> None:
        """Write to the log."""
        self.log_warning(self.fl_ctx, message)

    def error(self, message: str) -> None:
        """Write to the log."""
        self.log_error(self.fl_ctx, message)

    def exception(self, message: str) -> None:
        """Write to the log, with the traceback."""
        self.log_exception(self.fl_ctx, message)


class WeightedAggregationHelper:
    """Weighted means by name, over those that gave the name.

    Without `weigh_by_local_iter` the values are weighted already: their sum is divided by the
    weights all the same.
    """

    def __init__(self, exclude_vars: Any = None, weigh_by_local_iter: bool = True) -> None:
        if exclude_vars:
            raise ValueError("exclude_vars is not stood in for")
        self._weighs = weigh_by_local_iter
        self.reset_stats()

    def reset_stats(self) -> None:
        """Begin anew."""
        self.total: dict[str, Any] = {}
        self.counts: dict[str, float] = {}
        self.history: list[dict[str, Any]] = []

    def add(self, data: Any, weight: Any, contributor_name: Any, contribution_round: Any) -> None:
        """Add what one client gives."""
        factor = weight if self._weighs else 1.0
        for name, value in data.items():
            self.total[name] = self.total.get(name, 0.0) + np.asarray(value, np.float64) * factor
            self.counts[name] = self.counts.get(name, 0.0) + weight
        said = {"contributor_name": contributor_name, "round": contribution_round, "weight": weight}
        self.history.append(said)

    def get_result(self) -> dict[str, Any]:
        """Return the means, of nothing if nobody gave anything, and begin anew."""
        if not all(count > 0 for count in self.counts.values()):
            raise ValueError("no client gave anything with a weight above 0")
        means = {name: total / self.counts[name] for name, total in self.total.items()}
        self.reset_stats()
        return means

    def get_history(self) -> list[dict[str, Any]]:
        """Return who gave something, in which round and with which weight."""
        return self.history

    def get_len(self) -> int:
        """Return how many have given something."""
        return len(self.history)


class WeightedAggregator(Aggregator):
    """The mean of the results, weighted by aggregation_weights times NUM_STEPS_CURRENT_ROUND."""

    def __init__(
        self,
        exclude_vars: Any = None,
        aggregation_weights: Mapping[str, float] | None = None,
        expected_data_kind: Any = DataKind.WEIGHT_DIFF,
        weigh_by_local_iter: bool = True,
    ) -> None:
        super().__init__()
        if expected_data_kind not in _KINDS.values():
            raise ValueError("other kinds than WEIGHTS and WEIGHT_DIFF are not stood in for")
        # Classes that derive from this look here, where FLARE has both by the name of a DXO.
        self._single_dxo_key = key = ""
        self.aggregation_weights = {key: dict(aggregation_weights or {})}
        self.expected_data_kind = {key: expected_data_kind}
        self._sums = WeightedAggregationHelper(exclude_vars, weigh_by_local_iter)

    def accept(self, shareable: Shareable, fl_ctx: FLContext) -> bool:
        """Add a client's result."""
        dxo = from_shareable(shareable)
        if dxo.data_kind != self.expected_data_kind[self._single_dxo_key]:
            return False
        name = shareable.get_peer_prop(ReservedKey.IDENTITY_NAME, "")
        steps = dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND, 1.0)
        number = shareable.get_header(AppConstants.CONTRIBUTION_ROUND)
        weight = self.aggregation_weights[self._single_dxo_key].get(name, 1.0)
        self._sums.add(dxo.data, weight * steps, name, number)
        return True

    def aggregate(self, fl_ctx: FLContext) -> Shareable:
        """Return the mean, and begin anew."""
        return DXO(
            self.expected_data_kind[self._single_dxo_key], self._sums.get_result()
        ).to_shareable()

    def reset(self, fl_ctx: FLContext) -> None:
        """Begin anew."""
        self._sums.reset_stats()


class ShareableGenerator(FLComponent, ABC):
    """Makes what is sent of what is learnt, and what is learnt of what was aggregated."""

    @abstractmethod
    def learnable_to_shareable(self, model: Any, fl_ctx: FLContext) -> Shareable:
        """Return what clients get; user code does."""

    @abstractmethod
    def shareable_to_learnable(self, shareable: Shareable, fl_ctx: FLContext) -> Any:
        """Return the new model; user code does."""


class FullModelShareableGenerator(ShareableGenerator):
    """WEIGHTS replace the model, WEIGHT_DIFF is added to it."""

    def learnable_to_shareable(self, model: Any, fl_ctx: FLContext) -> Shareable:
        """Return the model."""
        return model_learnable_to_dxo(model).to_shareable()

    def shareable_to_learnable(self, shareable: Shareable, fl_ctx: FLContext) -> ModelLearnable:
        """Return the new model."""
        model: ModelLearnable = fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)
        dxo, weights = from_shareable(shareable), model[ModelLearnableKey.WEIGHTS]
        if dxo.data_kind == DataKind.WEIGHT_DIFF:
            for name, value in dxo.data.items():
                weights[name] = weights[name] + value
        elif dxo.data_kind != DataKind.WEIGHTS:
            raise ValueError(f"the aggregator gave {dxo.data_kind}, and no weights")
        elif dxo.data:
            model[ModelLearnableKey.WEIGHTS] = dxo.data
        model[ModelLearnableKey.META] = dxo.get_meta_props()
        return model
