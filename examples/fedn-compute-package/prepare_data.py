"""Deal MNIST to clients: data/clients/1/mnist.pt, data/clients/2/mnist.pt ...

    python prepare_data.py 2

Nothing is downloaded; see `hansa split` for where MNIST is looked for.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from hansa.data import load
from hansa.errors import DataError

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("clients", type=int, nargs="?", default=2)
given = parser.parse_args()

try:
    images = load("mnist")
except DataError:
    images = load("mnist5k")
x, y = np.asarray(images.x).reshape(-1, 28, 28), np.asarray(images.y)
if x.max() <= 1:
    x = x * 255
order = np.random.default_rng(7).permutation(len(y))
for number, part in enumerate(np.array_split(order, given.clients), 1):
    pixels, labels = x[part].astype(np.uint8), y[part].astype(np.int64)
    folder = Path("data/clients") / str(number)
    folder.mkdir(parents=True, exist_ok=True)
    cut = len(labels) * 4 // 5
    rows = {"train": slice(cut), "test": slice(cut, None)}
    tensors = {f"x_{name}": torch.tensor(pixels[at]) for name, at in rows.items()}
    tensors |= {f"y_{name}": torch.tensor(labels[at]) for name, at in rows.items()}
    torch.save(tensors, folder / "mnist.pt")
    print(f"{folder / 'mnist.pt'}: {cut} images to learn from, {len(labels) - cut} to test on")
