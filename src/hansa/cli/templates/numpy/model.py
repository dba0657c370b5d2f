"""Softmax regression in plain NumPy.  Change it to your own model; three functions are needed."""

import numpy as np


def init(rng, sample):
    """Return the seed model; `sample` is one row of training data, for its shape and classes."""
    features, classes = sample.x.shape[1], len(sample.classes)
    return {
        "weight": rng.normal(0, 0.01, (features, classes)).astype(np.float32),
        "bias": np.zeros(classes, np.float32),
    }


def loss(params, x, y):
    """Return the mean cross-entropy of a batch, and its gradient by name."""
    log_p = log_softmax(x @ params["weight"] + params["bias"])
    rows = np.arange(len(y))
    error = np.exp(log_p)
    error[rows, y] -= 1
    gradient = {"weight": x.T @ error / len(y), "bias": error.mean(axis=0)}
    return -log_p[rows, y].mean(), gradient


def metrics(params, x, y):
    """Return one value per example; Hansa averages them exactly over all clients."""
    log_p = log_softmax(x @ params["weight"] + params["bias"])
    return {"loss": -log_p[np.arange(len(y)), y], "accuracy": log_p.argmax(axis=1) == y}


def predict(params, x):
    """Return probabilities of classes; asked for metrics by name: evaluate.metrics = ["f1"]."""
    return np.exp(log_softmax(x @ params["weight"] + params["bias"]))


def log_softmax(logits):
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
