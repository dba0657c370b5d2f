"""Server functions: a project's own choice of cohort, settings and aggregation.

    def select(round, clients, rng):          return clients to ask, out of those that are there
    def settings(round, model):               return {"lr": 0.1 / round}; what all of them are told
    def aggregate(round, model, updates):     return the new model's arrays by name

A plan names their file as `server_functions = "server.py"`; each of the three may be left out.  A
function asks for what it wants by the names of its arguments: `round`, `rounds`, `rng`, `memory`
(a dict of its own, kept with each commit), and what stands above.  The file runs in a process of
its own: with the rights of whoever simulates, and at a server in a sandbox, if its operator allows.
"""

from hansa.functions.place import Place
from hansa.functions.serving import with_functions

__all__ = ["Place", "with_functions"]
