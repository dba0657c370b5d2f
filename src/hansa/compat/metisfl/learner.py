"""What a user of MetisFL derives from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any


class Learner(ABC):
    """What a user derives from: the model and the data of one learner.

    Weights are lists of arrays, always in the same order and of the same shapes.
    """

    @abstractmethod
    def get_weights(self) -> list[Any]:
        """Return the model's weights."""

    @abstractmethod
    def set_weights(self, parameters: list[Any]) -> Any:
        """Take weights over into the model."""

    @abstractmethod
    def train(self, parameters: list[Any], config: dict[str, Any]) -> Any:
        """Train from these weights; return `(weights, metrics)` or `(weights, metrics, metadata)`.

        Args:
          parameters: to start from.
          config: what the driver was given as `train_params`, and `num_local_updates` where the
            scheduler says how many steps to take.
        """

    @abstractmethod
    def evaluate(self, parameters: list[Any], config: dict[str, Any]) -> dict[str, Any]:
        """Return metrics of these weights."""
