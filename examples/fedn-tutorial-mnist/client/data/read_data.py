"""Reads a client's own file."""

import numpy as np


def read_data(path, nr_examples, trainset=True):
    """Return images from 0 to 1 as rows, labels, and the number of classes."""
    part = "train" if trainset else "test"
    with np.load(path, allow_pickle=False) as pack:
        x, y = pack[f"x_{part}"], pack[f"y_{part}"]
    rows = np.random.default_rng(5).permutation(len(y))[:nr_examples]
    return x[rows].reshape(len(rows), -1).astype(np.float32) / 255, y[rows], 10
