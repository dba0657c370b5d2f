"""Softmax regression as a program of its own; it knows nothing of Hansa but files and variables."""

import json
import os
import sys

import numpy as np


def read(path):
    """Return the tensors of a safetensors file, all float32: a header in JSON, then the numbers."""
    with open(path, "rb") as file:
        raw = file.read()
    size = int.from_bytes(raw[:8], "little")
    header, body = json.loads(raw[8 : 8 + size]), raw[8 + size :]
    header.pop("__metadata__", None)
    found = {}
    for name, about in header.items():
        start, stop = about["data_offsets"]
        found[name] = np.frombuffer(body[start:stop], "<f4").reshape(about["shape"]).copy()
    return found


def write(path, tensors):
    header, body = {}, b""
    for name, value in tensors.items():
        data = value.astype("<f4").tobytes()
        offsets = [len(body), len(body) + len(data)]
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": offsets}
        body += data
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text + body)


def say(**facts):
    with open(os.environ["HANSA_RESULT_OUT"], "w") as file:
        json.dump(facts, file)


def probabilities(model, x):
    logits = x @ model["weight"] + model["bias"]
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def init(model_out):
    rng = np.random.default_rng(int(os.environ["HANSA_SEED"]))
    write(model_out, {"weight": rng.normal(0, 0.01, (64, 10)), "bias": np.zeros(10)})


def train(model_in, data, update_out):
    model, rows = read(model_in), np.load(data)
    x, y = rows["x"], rows["y"]
    with open(os.environ["HANSA_SETTINGS"]) as file:
        settings = json.load(file)
    rng = np.random.default_rng(settings["seed"])
    for _ in range(settings["epochs"]):
        order = rng.permutation(len(y))
        size = settings["batch_size"] or len(y)
        for batch in np.split(order, range(size, len(y), size)):
            error = probabilities(model, x[batch])
            error[np.arange(len(batch)), y[batch]] -= 1
            model["weight"] -= settings["lr"] * x[batch].T @ error / len(batch)
            model["bias"] -= settings["lr"] * error.mean(axis=0)
    write(update_out, model)
    p = probabilities(model, x)[np.arange(len(y)), y]
    say(metrics={"loss": float(-np.log(np.maximum(p, 1e-12)).mean())})


def validate(model_in, data):
    model, rows = read(model_in), np.load(data)
    p, y = probabilities(model, rows["x"]), rows["y"]
    loss = -np.log(np.maximum(p[np.arange(len(y)), y], 1e-12)).mean()
    say(metrics={"loss": float(loss), "accuracy": float((p.argmax(axis=1) == y).mean())})


if __name__ == "__main__":
    task, *files = sys.argv[1:]
    {"init": init, "train": train, "validate": validate}[task](*files)
