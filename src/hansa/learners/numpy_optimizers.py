"""Local optimizers on one flat NumPy vector, in place.

`sgd` agrees with torch.optim.SGD (momentum, weight decay added to the gradient), `adam` with
torch.optim.Adam (bias-corrected; Kingma and Ba 2015, Alg. 1).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Step = Callable[[np.ndarray, np.ndarray], None]
"""`step(x, g)`: move `x` in place, given the gradient at `x`."""


def sgd(lr: float, *, momentum: float = 0.0, weight_decay: float = 0.0) -> Step:
    """Build v <- momentum * v + g, x <- x - lr * v."""
    velocity: np.ndarray | None = None

    def step(x: np.ndarray, g: np.ndarray) -> None:
        nonlocal velocity
        if weight_decay:
            g = g + weight_decay * x
        if momentum:
            velocity = g.copy() if velocity is None else momentum * velocity + g
            g = velocity
        x -= lr * g

    return step


def adam(
    lr: float,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> Step:
    """Build Adam; weight decay is added to the gradient, as in the paper's L2 form."""
    m: np.ndarray | float = 0.0
    v: np.ndarray | float = 0.0
    t = 0

    def step(x: np.ndarray, g: np.ndarray) -> None:
        nonlocal m, v, t
        if weight_decay:
            g = g + weight_decay * x
        t += 1
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        x -= lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)

    return step


OPTIMIZERS: dict[str, Callable[..., Step]] = {"sgd": sgd, "adam": adam}
"""What the plan's optimizer may name."""
