"""SCAFFOLD: control variates against client drift.  Karimireddy et al. 2020, Alg. 1, option II.

Every local step uses g - c_i + c.  After K steps of plain SGD the client's control variate is
the mean gradient it saw, c_i+ = c_i - c + (x_0 - x_K) / (K * lr), which costs no extra pass.
The server moves by the mean of the deltas and c by |S|/N times the mean of c_i+ - c_i: `share`
is the |S|/N of the clients whose updates were really accepted.
"""

from __future__ import annotations

from hansa.algorithms.algorithm import Algorithm, Capability, Vector, Vectors, Work
from hansa.ranges import positive
from hansa.seeds import Key


def scaffold(lr: float = 1.0) -> Algorithm:
    """Build SCAFFOLD with client state c_i, kept at the client between its rounds.

    Clients weigh equally, as in the paper.  With c = mean of all c_i, the corrections of local
    steps cancel at the optimum only if c moves by the plain sum of the cohort's c_i+ - c_i over N;
    |S|/N times a weighted mean is another sum unless every client takes part, and the method then
    ends elsewhere.

    Args:
      lr: server learning rate, eta_g of the paper.

    Raises:
      PlanError: a setting is out of range.
    """
    positive("scaffold", lr=lr)

    def init(x: Vector) -> Vectors:
        return Vectors(x=x, c=0 * x)

    def broadcast(state: Vectors) -> Vectors:
        return Vectors(x=state.x, c=state.c)

    def client(work: Work, message: Vectors, mine: Vectors, key: Key) -> tuple[Vectors, Vectors]:
        x0, c, ci = message.x, message.c, mine.c
        x = work.train(x0, lambda x, g: g + (c - ci))
        ci_new = ci - c + (x0 - x) / (work.steps * work.lr)
        return Vectors(delta=x - x0, dc=ci_new - ci), Vectors(c=ci_new)

    def server(state: Vectors, mean: Vectors, share: float) -> Vectors:
        return Vectors(x=state.x + lr * mean.delta, c=state.c + share * mean.dc)

    return Algorithm(
        "scaffold",
        client=client,
        server=server,
        init=init,
        broadcast=broadcast,
        client_init=lambda x: Vectors(c=0 * x),
        sends=("delta", "dc"),
        needs=frozenset({Capability.CORRECT, Capability.PLAIN_SGD}),
        needs_mean=True,
        uniform=True,
    )
