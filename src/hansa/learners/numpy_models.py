"""Two models in plain NumPy: softmax regression and a multi-layer perceptron.

They are what `hansa hello` trains, so that a first federated run needs no ML framework.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hansa.errors import LearnerError

Tensors = Mapping[str, np.ndarray]


class Perceptron:
    """Fully connected layers with ReLU between them and softmax cross-entropy at the end.

    Without hidden layers this is softmax (multinomial logistic) regression.

    Args:
      hidden: widths of the hidden layers.
    """

    def __init__(self, hidden: Sequence[int] = ()) -> None:
        self._hidden = tuple(hidden)

    def init(self, rng: np.random.Generator, sample: Any) -> dict[str, np.ndarray]:
        """Return seed weights for the sample's shape: He et al. 2015 normal, zero biases."""
        if sample is None:
            raise LearnerError(
                "learner-data",
                "The built-in softmax and mlp models take their size from some data.",
                "Give a model to start from, or write init() so that it needs no sample.",
            )
        if sample.classes is None:
            raise LearnerError(
                "learner-data",
                "The built-in softmax and mlp models tell classes apart; this target is a number.",
                "Use a target column of labels, or a model of your own: hansa init my-study",
            )
        inputs = math.prod(sample.x.shape[1:])
        sizes = (inputs, *self._hidden, len(sample.classes))
        tensors: dict[str, np.ndarray] = {}
        for layer, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
            last = layer == len(sizes) - 2
            # A zero last layer starts every run at the same, known loss: log(classes).
            scale = 0.0 if last else math.sqrt(2 / n_in)
            tensors[f"layer{layer}.weight"] = np.asarray(
                rng.standard_normal((n_in, n_out)) * scale, np.float32
            )
            tensors[f"layer{layer}.bias"] = np.zeros(n_out, np.float32)
        return tensors

    def loss(self, params: Tensors, x: np.ndarray, y: np.ndarray) -> tuple[float, Tensors]:
        """Return the mean cross-entropy and its gradient."""
        activations = self._forward(params, x)
        log_p = _log_softmax(activations[-1])
        rows = np.arange(len(y))
        delta = np.exp(log_p)
        delta[rows, y] -= 1
        delta /= len(y)
        gradient: dict[str, np.ndarray] = {}
        for layer in reversed(range(len(self._hidden) + 1)):
            below = activations[layer]
            gradient[f"layer{layer}.weight"] = below.T @ delta
            gradient[f"layer{layer}.bias"] = delta.sum(axis=0)
            if layer:
                delta = (delta @ params[f"layer{layer}.weight"].T) * (below > 0)
        return float(-log_p[rows, y].mean()), gradient

    measures = frozenset({"loss", "accuracy"})
    """Names of `metrics`."""

    def metrics(self, params: Tensors, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
        """Return loss and accuracy of each example."""
        log_p = _log_softmax(self._forward(params, x)[-1])
        rows = np.arange(len(y))
        return {"loss": -log_p[rows, y], "accuracy": log_p.argmax(axis=1) == y}

    def predict(self, params: Tensors, x: np.ndarray) -> np.ndarray:
        """Return the probability of each class, [n, classes]."""
        p: np.ndarray = np.exp(_log_softmax(self._forward(params, x)[-1]))
        return p

    def _forward(self, params: Tensors, x: np.ndarray) -> list[np.ndarray]:
        """Return the input, every hidden activation, and the logits."""
        activations = [np.asarray(x.reshape(len(x), -1), np.float32)]
        for layer in range(len(self._hidden) + 1):
            logits = activations[-1] @ params[f"layer{layer}.weight"]
            logits += params[f"layer{layer}.bias"]
            if layer < len(self._hidden):
                np.maximum(logits, 0, out=logits)
            activations.append(logits)
        return activations


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    normalised: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normalised
