"""A multi-layer perceptron for MNIST in plain NumPy; put any model of your own here."""

from types import SimpleNamespace

import numpy as np

from hansa.learners import Perceptron

NET = Perceptron(hidden=(64,))
IMAGE = SimpleNamespace(x=np.zeros((1, 28, 28), np.float32), classes=range(10))


def init(rng, sample):
    """Return the seed model; no data is needed for it, so the submitter may have none."""
    return NET.init(rng, IMAGE)


loss, metrics, predict = NET.loss, NET.metrics, NET.predict
