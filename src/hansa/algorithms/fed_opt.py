"""FedOpt: the server's step is an optimizer's, a chain of modules.  Reddi et al. 2021, Alg. 1.

The mean client delta is a pseudo-gradient, x <- x + lr * chain(delta).  FedAvgM, FedAdagrad,
FedAdam and FedYogi are chains of one module.
"""

from __future__ import annotations

import numpy as np

from hansa.algorithms.algorithm import Algorithm, Vector, Vectors
from hansa.algorithms.fed_avg import train_locally
from hansa.errors import PlanError
from hansa.optimizers import Module, Need, Point, adagrad, adam, yogi
from hansa.optimizers import chain as joined
from hansa.optimizers import momentum as heavy_ball
from hansa.ranges import decay, positive
from hansa.seeds import Key

_KNOWN = frozenset({Need.PARAMS, Need.COUNT, Need.KEY})
"""What a chain may look at here."""

_UNSEEDED = Key.root(0).child("server")


def fed_opt(
    chain: tuple[Module, ...] = (),
    lr: float = 1.0,
    regularizers: tuple[Module, ...] = (),
    key: Key = _UNSEEDED,
) -> Algorithm:
    """Build FedAvg with any chain of modules as the server's optimizer.

    The chain's state is kept from round to round, and its steps and rounds are those of the run.

    Args:
      chain: modules in order; none is FedAvg.
      lr: server learning rate, behind the chain.
      regularizers: penalties of the global model, before the chain.
      key: of what the chain draws at random; a plan gives its seed's.

    Raises:
      PlanError: a setting is out of range, or a module cannot work at the server.
    """
    positive("fed_opt", lr=lr)
    module = joined(*regularizers, *chain)
    for part in (*regularizers, *chain):
        if part.needs - _KNOWN:
            raise PlanError(
                "plan-impossible",
                f"{part.name} looks at {_WORDS[min(part.needs - _KNOWN)]}, which a server's "
                "optimizer does not know. Nothing was started.",
                "Use it in learner.optimizer.chain, or another module, such as clip_global.",
            )
    counts = bool(module.needs & {Need.COUNT, Need.KEY})

    def init(x: Vector) -> Vectors:
        state = Vectors(x=x, **module.init(x))
        return Vectors(state, t=np.zeros((), np.int64)) if counts else state

    def server(state: Vectors, mean: Vectors, share: float) -> Vectors:
        kept = {name: vector for name, vector in state.items() if name not in ("x", "t")}
        t = int(state.t) + 1 if counts else 1
        # A delta points where x goes, a gradient where it comes from: seen from -x, the step
        # x + lr * u goes down along u, so that penalties of -x have the right sign too.
        mirrored = -state.x if Need.PARAMS in module.needs else None
        at = Point(mirrored, step=t, round=t, key=key.child(t))
        u, after = module.update(mean.delta, kept, at)
        stepped = Vectors(x=state.x + (u if lr == 1.0 else lr * u), **after)
        return Vectors(stepped, t=np.array(t, np.int64)) if counts else stepped

    return Algorithm("fed_opt", client=train_locally, server=server, init=init)


_WORDS = {
    Need.START: "the model that a client started its round from",
    Need.TENSORS: "where tensors begin",
}


def fed_avg_m(lr: float = 1.0, momentum: float = 0.9) -> Algorithm:
    """Build FedAvgM, v <- momentum * v + mean(delta), x <- x + lr * v.  Hsu, Qi and Brown 2019.

    Args:
      lr: server learning rate.
      momentum: beta of the paper's section 4.2, in [0, 1).

    Raises:
      PlanError: a setting is out of range.
    """
    decay("fed_avg_m", momentum=momentum)
    return _named("fed_avg_m", heavy_ball(momentum), lr)


def fed_adagrad(lr: float = 0.1, beta1: float = 0.0, tau: float = 1e-3) -> Algorithm:
    """Build FedAdagrad, v <- v + d^2, x <- x + lr * m / (sqrt(v) + tau).  Reddi et al. 2021.

    As in Alg. 2 there is no bias correction, and v starts at tau^2 (it asks for v >= tau^2).

    Args:
      lr: server learning rate, eta of the paper.
      beta1: decay of the first moment; the paper uses 0 for FedAdagrad.
      tau: degree of adaptivity; smaller is more adaptive.

    Raises:
      PlanError: a setting is out of range.
    """
    _check("fed_adagrad", tau=tau, beta1=beta1)
    return _named("fed_adagrad", adagrad(eps=tau, beta1=beta1, initial=tau**2), lr)


def fed_adam(
    lr: float = 0.01, beta1: float = 0.9, beta2: float = 0.99, tau: float = 1e-3
) -> Algorithm:
    """Build FedAdam, v <- beta2 * v + (1 - beta2) * d^2; arguments as in `fed_adagrad`."""
    _check("fed_adam", tau=tau, beta1=beta1, beta2=beta2)
    return _named("fed_adam", adam(beta1, beta2, tau, False, initial=tau**2), lr)


def fed_yogi(
    lr: float = 0.01, beta1: float = 0.9, beta2: float = 0.99, tau: float = 1e-3
) -> Algorithm:
    """Build FedYogi, v <- v - (1 - beta2) * d^2 * sign(v - d^2); arguments as in `fed_adagrad`."""
    _check("fed_yogi", tau=tau, beta1=beta1, beta2=beta2)
    return _named("fed_yogi", yogi(beta1, beta2, tau, initial=tau**2), lr)


def _named(name: str, module: Module, lr: float) -> Algorithm:
    positive(name, lr=lr)
    return fed_opt((module,), lr)._replace(name=name)


def _check(name: str, *, tau: float, **decays: float) -> None:
    positive(name, tau=tau)  # 0 divides by 0 where nothing has moved yet
    decay(name, **decays)
