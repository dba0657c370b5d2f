"""The initiator's part: data/client-0/mnist.npz, data/client-1/mnist.npz ..., and seed.npz.

    python prepare_data.py 2

Nothing is downloaded; see `hansa split` for where MNIST is looked for.
"""

import sys
from pathlib import Path

import numpy as np

from hansa.data import load
from hansa.errors import DataError

sys.path.insert(0, str(Path(__file__).parent / "client"))
from models.mnist_model import create_seed_model

try:
    images = load("mnist")
except DataError:
    images = load("mnist5k")
x, y = np.asarray(images.x), np.asarray(images.y)
x = (x if x.max() > 1 else x * 255).astype(np.uint8)
order = np.random.default_rng(7).permutation(len(y))
for number, part in enumerate(np.array_split(order, int(sys.argv[1]))):
    folder = Path("data") / f"client-{number}"
    folder.mkdir(parents=True, exist_ok=True)
    train, test = np.split(part, [len(part) * 4 // 5])
    arrays = {"x_train": x[train], "y_train": y[train], "x_test": x[test], "y_test": y[test]}
    np.savez(folder / "mnist.npz", **arrays)
    print(f"{folder / 'mnist.npz'}: {len(train)} images to learn from, {len(test)} to test on")
weights = create_seed_model().get_weights()
np.savez("seed.npz", **{str(at): array for at, array in enumerate(weights)})
print(f"seed.npz: {len(weights)} arrays")
