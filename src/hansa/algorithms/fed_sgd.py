"""FedSGD: one full-batch gradient per client and round.  McMahan et al. 2017, section 2."""

from __future__ import annotations

from hansa.algorithms.algorithm import Algorithm, Capability, Vectors, Work
from hansa.seeds import Key


def fed_sgd() -> Algorithm:
    """Build FedSGD, x <- x - lr * mean(grad f_i(x)); lr is the learner's learning rate."""

    def client(work: Work, message: Vectors, mine: Vectors, key: Key) -> tuple[Vectors, Vectors]:
        return Vectors(delta=-work.lr * work.full_gradient(message.x)), mine

    def server(state: Vectors, mean: Vectors, share: float) -> Vectors:
        return Vectors(x=state.x + mean.delta)

    return Algorithm(
        "fed_sgd",
        client=client,
        server=server,
        needs=frozenset({Capability.GRADIENT}),
        local_steps=False,
    )
