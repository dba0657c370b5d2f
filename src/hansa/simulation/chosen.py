"""Those clients of a simulation that fit the plan's cohort.where; the others are never asked."""

from __future__ import annotations

from typing import Any

from hansa.errors import PlanError
from hansa.learners.learner import ClientData
from hansa.plan import Plan
from hansa.plan.criteria import fits
from hansa.simulation.population import Population


def chosen(population: Population, plan: Plan) -> Population:
    """Return a population without those that do not fit; all of it where the plan asks nothing.

    Raises:
      PlanError: plan-impossible, nobody fits.
    """
    where, attributes = plan.cohort.where, plan.data.attributes
    if not where:
        return population
    names = [name for name in population.names if fits(name, attributes.get(name, {}), where)]
    if not names:
        said = "; ".join(f"{name}: {facts}" for name, facts in list(attributes.items())[:5])
        raise PlanError(
            "plan-impossible",
            f"No simulated client fits the plan's cohort.where {dict(where)}; data.attributes "
            f"says {said or 'nothing'}. Nothing was started.",
            'Say what each is, as in [data.attributes]: client-0 = { region = "eu" }',
        )
    return Chosen(population, names)


class Chosen:
    """Some clients of a population.

    Args:
      population: all of them.
      names: of those that are asked.
    """

    def __init__(self, population: Population, names: list[str]) -> None:
        self._population, self.names = population, names
        self.test = population.test
        whole = population.examples
        self.examples = None if whole is None else sum(map(self._count, names))

    def data(self, name: str) -> ClientData:
        """Return one client's data."""
        return self._population.data(name)

    def sample(self) -> Any:
        """Return some training data, for its shapes and classes."""
        return self._population.sample()

    def table(self) -> dict[str, Any] | None:
        """Return label counts of all clients for the report."""
        return self._population.table()

    def fingerprint(self) -> str | None:
        """Return the digest of all data: who is chosen stands in the plan."""
        return self._population.fingerprint()

    def _count(self, name: str) -> int:
        """Return a client's rows, those for validation too, as a site tells them."""
        data = self._population.data(name)
        parts = (data.train, data.validation)
        return sum(part.examples for part in parts if part is not None)
