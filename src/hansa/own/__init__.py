"""A project's own algorithm, aggregator, transform and workflow at a server.

    algorithm = "momentum.py:momentum"       a plan names code of the project

At sites such code runs in the worker, as all code of a package does.  At a server it runs only if
the operator allows it, and in a process of its own: the sandbox, the limits and the pipe of server
functions.  The server has stand-ins for what lies there: values of the same kinds, whose functions
ask the process.  A workflow of the project works in the process on a handle whose calls come back
over the pipe.  In a simulation nothing of this is needed: there the code runs where the learner's
does, in the process of whoever simulates.
"""

from hansa.own.naming import Own, check_files, own_parts, told
from hansa.own.process import Model
from hansa.own.serving import with_own

__all__ = ["Model", "Own", "check_files", "own_parts", "told", "with_own"]
