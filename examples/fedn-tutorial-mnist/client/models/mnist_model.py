"""The model: one hidden layer, in NumPy; weights are a list of arrays, as Keras has them."""

import numpy as np


def create_seed_model(pixels=784, units=32, classes=10):
    """Return a model with random weights."""
    rng = np.random.default_rng(2021)
    first = rng.normal(0, np.sqrt(2 / pixels), (pixels, units))
    second = rng.normal(0, np.sqrt(2 / units), (units, classes))
    return Model([first, np.zeros(units), second, np.zeros(classes)])


class Model:
    """Has the methods of Keras that train.py and validate.py call."""

    def __init__(self, weights):
        self.set_weights(weights)

    def get_weights(self):
        """Return the arrays."""
        return self.weights

    def set_weights(self, weights):
        """Take arrays over."""
        self.weights = [np.array(array, np.float32) for array in weights]

    def predict(self, x):
        """Return the outputs of both layers; the second's are probabilities."""
        w1, b1, w2, b2 = self.weights
        hidden = np.maximum(x @ w1 + b1, 0)
        scores = hidden @ w2 + b2
        raised = np.exp(scores - scores.max(axis=1, keepdims=True))
        return hidden, raised / raised.sum(axis=1, keepdims=True)

    def fit(self, x, y, batch_size, epochs, rate=0.1):
        """Descend on batches in their order."""
        for _ in range(epochs):
            for at in range(0, len(x), batch_size):
                self._step(x[at : at + batch_size], y[at : at + batch_size], rate)

    def evaluate(self, x, y):
        """Return loss and accuracy."""
        _, likely = self.predict(x)
        loss = -np.log(likely[np.arange(len(y)), y] + 1e-9).mean()
        return float(loss), float((likely.argmax(axis=1) == y).mean())

    def _step(self, x, y, rate):
        hidden, error = self.predict(x)
        error[np.arange(len(y)), y] -= 1
        error /= len(y)
        back = (error @ self.weights[2].T) * (hidden > 0)
        slopes = (x.T @ back, back.sum(axis=0), hidden.T @ error, error.sum(axis=0))
        self.weights = [
            weight - rate * slope for weight, slope in zip(self.weights, slopes, strict=True)
        ]
