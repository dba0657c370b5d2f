"""Who is in a partial aggregate, and with which weight in total: both exact and order-free."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from hansa.aggregators.aggregator import AggregationSpec
from hansa.errors import AggregationError, UpdateRefused


@dataclass(slots=True)
class Members:
    """Clients of one accumulator and the exact sum of their weights.

    Weights are float64 numbers, so their sum is a fraction without any rounding, and a set of
    contributions that exceeds the limit exceeds it in every order.
    """

    spec: AggregationSpec
    clients: set[str] = field(default_factory=set)
    weight: Fraction = Fraction(0)

    def join(self, client: str, weight: float) -> None:
        """Count one client, or raise as `unite` does and stay as before."""
        self.unite(Members(self.spec, {client}, Fraction(weight)))

    def unite(self, other: Members) -> None:
        """Count the members of another accumulator, or raise and stay as before.

        Raises:
          UpdateRefused: a client is in both (update-duplicate).
          AggregationError: the weights add up to more than the limit (aggregation-weight-limit),
            or the other was folded for another round (aggregation-bad-partial).

        """
        if other.spec != self.spec:
            raise bad_partial("other vectors, bounds or weight limit than this round")
        twice = other.clients & self.clients
        if twice:
            raise UpdateRefused(
                "update-duplicate",
                f"Client {min(twice)!r} is already counted in this round; the second update "
                "(or the partial sum that holds it) was not added.",
                "Nothing is lost: send each update once, and merge each partial sum once.",
            )
        weight = self.weight + other.weight
        if weight > Fraction(float(self.spec.weight_limit)):
            raise AggregationError(
                "aggregation-weight-limit",
                f"The weights of this round would add up to {float(weight):g}, beyond the limit "
                f"of {self.spec.weight_limit:g} that the round opened with; nothing was added.",
                "Set weight_limit in the plan to the most that the weights of one round can add up "
                "to, or send smaller weights.",
            )
        self.clients |= other.clients
        self.weight = weight

    def require_any(self) -> None:
        """Raise AggregationError (aggregation-empty) if nobody is in."""
        if not self.clients:
            raise AggregationError(
                "aggregation-empty",
                "There is no update to aggregate: no client's update was accepted in this round.",
                "See why each client failed or was refused, then run the round again.",
            )

    def dump(self) -> dict[str, str]:
        """Return the same as text, equal for equal members."""
        return {
            "spec": _text(self.spec),
            "clients": json.dumps(sorted(self.clients)),
            "weight": f"{self.weight.numerator}/{self.weight.denominator}",
        }

    def load(self, text: Mapping[str, str]) -> None:
        """Count the members that `dump` wrote.

        Raises:
          AggregationError: dumped under another spec, or damaged (aggregation-bad-partial).

        """
        if text.get("spec") != _text(self.spec):
            raise bad_partial("other vectors, bounds or weight limit than this round")
        try:
            clients = json.loads(text["clients"])
            # Not Fraction(text): "1e999999999" would take all memory.
            numerator, denominator = map(int, text["weight"].split("/"))
            weight = Fraction(numerator, denominator)
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as reason:
            raise bad_partial(f"a damaged list of members ({reason})") from None
        whole = isinstance(clients, list) and all(isinstance(client, str) for client in clients)
        if not whole or len(set(clients)) < len(clients) or (weight > 0) != bool(clients):
            raise bad_partial("a list of members that does not fit its weight")
        self.unite(Members(self.spec, set(clients), weight))


def bad_partial(what: str) -> AggregationError:
    """Return the error for a partial aggregate that has something it should not have."""
    return AggregationError(
        "aggregation-bad-partial",
        f"A partial aggregate has {what}; it was not used.",
        "Fold the updates of a round in every process under the same plan and version.",
    )


def _text(spec: AggregationSpec) -> str:
    vectors = {
        name: [int(v.size), v.dtype, v.bound if v.bound is None else float(v.bound)]
        for name, v in spec.vectors.items()
    }
    return json.dumps({"vectors": vectors, "weight_limit": float(spec.weight_limit)})
