"""What a client reaches without the federation: the baseline that a federated model must beat."""

from __future__ import annotations

from typing import Any

import numpy as np

from hansa.algorithms import Vectors, fed_avg
from hansa.client import Client
from hansa.learners.learner import evaluate
from hansa.metrics import Metrics
from hansa.plan import hyper_at
from hansa.project import Project
from hansa.rounds import BUFFERS
from hansa.seeds import Key
from hansa.simulation.population import Population
from hansa.transforms import chain


def train_alone(project: Project, population: Population, name: str) -> Metrics:
    """Train one client on its own data for as many rounds as the plan has, and test it.

    The same seed model, learner, hyper-parameters and local steps as in the federation; only the
    others are missing.  Returns metrics on the population's test part.
    """
    plan, learner = project.plan, project.learner
    root = Key.root(plan.seed)
    seed = learner.init(population.sample(), root.child("model"))
    client = Client(plan, fed_avg(), chain(), learner, seed.layout, project.method.chain)
    data: Any = population.data(name).train
    x, buffers = seed.layout.split(seed.params)
    x = np.array(x)
    for number in range(1, plan.rounds + 1):
        message = Vectors({"x": x, BUFFERS: buffers})
        key = root.child("client", number, name)
        hyper = hyper_at(plan, number)
        update, _ = client.train(message, data, None, name=name, hyper=hyper, key=key)
        x = x + update.vectors["delta"]
        buffers = update.vectors.get(BUFFERS, buffers)
    return evaluate(learner, seed.layout.join(x, buffers), population.test)
