"""A learner in plain NumPy: one part of 1,797 digits that come with Hansa, and one hidden layer.

The tutorial's learner with another framework: the same four methods, the same command line.
"""

import argparse
from typing import Any

import numpy as np
from controller import controller_params
from driver import MAX_LEARNERS, get_learner_server_params

from hansa.compat.metisfl import ClientParams, Learner, app, iid_partition
from hansa.data import load

Arrays = list[np.ndarray]


def load_data() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return pixels from 0 to 1 and labels: 1,500 to learn from, the others to test on."""
    digits = load("digits")
    x, y = np.reshape(digits.x, (len(digits.y), -1)).astype(np.float32), np.asarray(digits.y)
    x /= x.max()
    return (x[:1500], y[:1500]), (x[1500:], y[1500:])


def get_model(inputs: int = 64, units: int = 32, classes: int = 10) -> Arrays:
    """Return the weights and biases of both layers."""
    rng = np.random.default_rng(2023)
    sizes = [(inputs, units), (units, classes)]
    drawn = [rng.normal(0, np.sqrt(2 / size[0]), size).astype(np.float32) for size in sizes]
    return [drawn[0], np.zeros(units, np.float32), drawn[1], np.zeros(classes, np.float32)]


class NumpyLearner(Learner):
    """Trains by stochastic gradient descent."""

    def __init__(
        self, x_train: np.ndarray, y_train: np.ndarray, x_test: np.ndarray, y_test: np.ndarray
    ) -> None:
        self.weights = get_model()
        self.x_train, self.y_train = x_train, y_train
        self.x_test, self.y_test = x_test, y_test

    def get_weights(self) -> Arrays:
        """Return the model's weights."""
        return self.weights

    def set_weights(self, parameters: Arrays) -> None:
        """Take weights over into the model."""
        self.weights = [array.copy() for array in parameters]

    def train(self, parameters: Arrays, config: dict[str, Any]) -> Any:
        """Train from these weights."""
        self.set_weights(parameters)
        rng, losses = np.random.default_rng(7), []
        size, rate = config.get("batch_size", 64), 0.2
        for _ in range(config.get("epochs", 3)):
            order = rng.permutation(len(self.x_train))
            for at in range(0, len(order), size):
                rows = order[at : at + size]
                self._step(self.x_train[rows], self.y_train[rows], rate)
            losses.append(self._measured(self.x_train, self.y_train)["loss"])
        metadata = {"num_training_examples": len(self.x_train)}
        return self.get_weights(), {"loss": losses}, metadata

    def evaluate(self, parameters: Arrays, config: dict[str, Any]) -> dict[str, Any]:
        """Return loss and accuracy on the test part."""
        self.set_weights(parameters)
        return self._measured(self.x_test, self.y_test)

    def _forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        w1, b1, w2, b2 = self.weights
        hidden = np.maximum(x @ w1 + b1, 0)
        scores = hidden @ w2 + b2
        raised = np.exp(scores - scores.max(axis=1, keepdims=True))
        return hidden, raised / raised.sum(axis=1, keepdims=True)

    def _step(self, x: np.ndarray, y: np.ndarray, rate: float) -> None:
        hidden, likely = self._forward(x)
        likely[np.arange(len(y)), y] -= 1
        error = likely / len(y)
        back = (error @ self.weights[2].T) * (hidden > 0)
        for weight, slope in zip(
            self.weights, (x.T @ back, back.sum(0), hidden.T @ error, error.sum(0)), strict=True
        ):
            weight -= rate * slope

    def _measured(self, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
        likely = self._forward(x)[1]
        loss = -np.log(likely[np.arange(len(y)), y] + 1e-9).mean()
        return {"accuracy": float((likely.argmax(1) == y).mean()), "loss": float(loss)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    ids = range(1, MAX_LEARNERS + 1)
    parser.add_argument("-l", "--learner", type=int, choices=ids, required=True)
    index = parser.parse_args().learner - 1
    (x_train, y_train), (x_test, y_test) = load_data()
    x_chunks, y_chunks = iid_partition(x_train, y_train, num_partitions=MAX_LEARNERS, seed=1990)
    digits = np.bincount(y_chunks[index]).tolist()
    # In one piece: other learners write to the same terminal.
    print(f"examples of each digit: {digits}\n", end="", flush=True)
    learner = NumpyLearner(x_chunks[index], y_chunks[index], x_test, y_test)
    client_params = ClientParams(hostname=controller_params.hostname, port=controller_params.port)
    app(learner, get_learner_server_params(index), client_params)
