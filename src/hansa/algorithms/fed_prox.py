"""FedProx: local training with a pull towards the global model.  Li et al. 2020, Alg. 2."""

from __future__ import annotations

from hansa.algorithms.algorithm import Algorithm, Capability, Vectors, Work
from hansa.algorithms.fed_avg import fed_avg
from hansa.ranges import not_negative
from hansa.seeds import Key


def fed_prox(mu: float = 0.01) -> Algorithm:
    """Build FedProx: clients minimise f_i(x) + mu/2 * |x - x_0|^2, so g <- g + mu * (x - x_0).

    Args:
      mu: strength of the proximal term, >= 0; 0 is FedAvg.

    Raises:
      PlanError: a setting is out of range.
    """
    not_negative("fed_prox", mu=mu)

    def client(work: Work, message: Vectors, mine: Vectors, key: Key) -> tuple[Vectors, Vectors]:
        x0 = message.x
        x = work.train(x0, lambda x, g: g + mu * (x - x0))
        return Vectors(delta=x - x0), mine

    return fed_avg()._replace(name="fed_prox", client=client, needs=frozenset({Capability.CORRECT}))
