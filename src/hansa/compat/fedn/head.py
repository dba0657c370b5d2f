"""The head of FEDn's split learning: one linear layer, a sigmoid, and binary cross-entropy.

    python -m hansa.compat.fedn.head seed --features 12 --out {model_out}
    python -m hansa.compat.fedn.head head --data {data} --model {model_in} ...

FEDn has it at its combiner, with the labels; here it runs where their holder is, and the server,
which has the weights, takes the step.  Embeddings are joined in the order of the clients' names.
Columns of the weights beyond those of the embeddings are zero, have no gradient and stay zero.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hansa.errors import HansaError, LearnerError
from hansa.limits import BLOB_BYTES_MAX, SPLIT_FEATURES_MAX
from hansa.params import Params
from hansa.params.npz import NotAnArchive, read_npz
from hansa.store.files import load_params, save_params
from hansa.text import clean

_REFUSED = 65  # status of a command whose files were wrong, as sysexits.h has it
_LABELS = {"train": "y_train", "validation": "y_test"}


class Headed(NamedTuple):
    """What the head makes of a batch."""

    gradients: dict[str, np.ndarray]  # weight [1, W], bias [1], gradient/CLIENT as its embedding
    loss: float
    accuracy: float


def headed(
    weight: np.ndarray, bias: np.ndarray, embeddings: Mapping[str, np.ndarray], y: np.ndarray
) -> Headed:
    """Return the mean binary cross-entropy of sigmoid(z w + b), and its gradients.

    Args:
      weight: [1, W]; the first columns are those of the embeddings.
      bias: [1].
      embeddings: by client, each [n, ...].
      y: labels [n], each 0 or 1.

    Raises:
      LearnerError: command-result, shapes or labels do not fit.
    """
    names, rows = sorted(embeddings), len(y)
    flat = [embeddings[name].reshape(len(embeddings[name]), -1) for name in names]
    z = np.concatenate(flat, axis=1).astype(np.float64)
    if len(z) != rows or not rows:
        raise _bad(f"{len(z)} rows were embedded, and there are {rows} labels of this part.")
    if z.shape[1] > weight.shape[1]:
        what = f"The embeddings have {z.shape[1]} columns together; the head has {weight.shape[1]}."
        raise _bad(what, "Import the package with --features COLUMNS.")
    if not np.isin(y, (0, 1)).all():
        raise _bad("The labels are not 0 and 1 alone.")
    w = weight[0, : z.shape[1]].astype(np.float64)
    logits = z @ w + float(bias[0])
    p = 0.5 * (1 + np.tanh(0.5 * logits))  # the sigmoid, without overflow
    error = (p - y) / rows
    whole = np.zeros(weight.shape)
    whole[0, : z.shape[1]] = z.T @ error
    made = {"weight": whole, "bias": np.array([error.sum()])}
    start = 0
    for name, part in zip(names, flat, strict=True):
        back = np.outer(error, w[start : start + part.shape[1]])
        like = embeddings[name]
        made[f"gradient/{name}"] = back.reshape(like.shape).astype(like.dtype)
        start += part.shape[1]
    loss = float(np.mean(np.logaddexp(0, logits) - y * logits))
    return Headed(made, loss, float(np.mean((p > 0.5) == y)))


def main(words: Sequence[str] | None = None) -> None:
    """Make the first weights, or do one batch."""
    parser = argparse.ArgumentParser(prog="hansa.compat.fedn.head")
    parser.add_argument("task", choices=["seed", "head"])
    parser.add_argument("--features", type=int, help="columns of all embeddings, at most")
    parser.add_argument("--data", type=Path, help="file with the labels, or its folder")
    parser.add_argument("--model", type=Path, help="weights and embeddings")
    parser.add_argument("--settings", type=Path, help="what is asked")
    parser.add_argument("--out", type=Path, required=True, help="where to write tensors")
    parser.add_argument("--result", type=Path, help="where to write loss and accuracy")
    asked = parser.parse_args(words)
    try:
        (_seed if asked.task == "seed" else _head)(asked)
    except HansaError as error:
        print(error.sentences, file=sys.stderr)
        sys.exit(_REFUSED)


def _seed(asked: argparse.Namespace) -> None:
    """Write zeros: of one layer alone any start is as good, and none needs a seed."""
    if not 1 <= asked.features <= SPLIT_FEATURES_MAX:
        raise _bad(f"A head of {asked.features} columns cannot be made.")
    weight, bias = np.zeros((1, asked.features), np.float32), np.zeros(1, np.float32)
    save_params(asked.out, Params.of({"head/weight": weight, "head/bias": bias}))


def _head(asked: argparse.Namespace) -> None:
    given = load_params(asked.model)
    start = "embedding/"
    embeddings = {n.removeprefix(start): a for n, a in given.items() if n.startswith(start)}
    part = json.loads(asked.settings.read_bytes())["settings"]["part"]
    y = labels_of(asked.data, part)
    if y is None:  # nothing to measure with
        kept = {n: np.zeros_like(a) for n, a in given.items() if not n.startswith(start)}
        save_params(asked.out, Params.of(kept))
        return
    made = headed(given["weight"], given["bias"], embeddings, y)
    save_params(asked.out, Params.of(made.gradients))
    facts: dict[str, Any] = {"loss": made.loss, "accuracy": made.accuracy}
    asked.result.write_text(json.dumps(facts), encoding="utf-8")


def labels_of(path: Path, part: str) -> np.ndarray | None:
    """Return the labels [n] of a part of the rows: y_train, or y_test if there is one.

    Args:
      path: an .npz file, or a folder with one.
      part: train or validation.

    Raises:
      LearnerError: command-result, there is no such file.
    """
    found = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    if len(found) != 1 or found[0].stat().st_size > BLOB_BYTES_MAX:
        raise _bad("There is no one .npz file with the labels.")
    try:
        arrays = read_npz(found[0].read_bytes(), most=BLOB_BYTES_MAX)
    except NotAnArchive as fault:
        raise _bad(f"The file of the labels {clean(str(fault))}.") from None
    name = _LABELS.get(part, "")
    if name not in arrays:
        if part != "train":
            return None
        raise _bad(f"The file of the labels has {', '.join(map(clean, arrays))}, and no {name}.")
    return np.ravel(arrays[name]).astype(np.float64)


_NPZ = 'Write it with: numpy.savez("labels.npz", y_train=..., y_test=...), each 0 or 1.'


def _bad(what: str, hint: str = _NPZ) -> LearnerError:
    return LearnerError("command-result", what, hint)


if __name__ == "__main__":
    main()
