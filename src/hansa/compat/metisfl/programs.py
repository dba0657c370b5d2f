"""The programs and the README that come out of a federation environment."""

from __future__ import annotations

from collections.abc import Sequence

from hansa.compat.metisfl.config import ServerParams
from hansa.compat.metisfl.plan_text import Wanted

README = """# From {path}

Write `learner.py` with a class derived from `hansa.compat.metisfl.Learner`; `hansa run` finds it
beside the YAML file, and here if you have not named this folder yourself. `hansa run` with that
file does all that follows for the learners of this machine, with a `controller.py` and a
`driver.py` that it makes of the file at another place. To run those that lie here, and what you
have changed in them, start each in a terminal of its own:

    python controller.py
    python learner.py -l 1      # and so on, one for each learner
    python driver.py

Learners: {names}.

`plan.toml` is to look at. The driver makes the plan anew of what `controller.py` and `driver.py`
say; to change it, change those.

## Taken over

| key | value |
|---|---|
{taken}
| `Controller.GRPCServer`, `Learners[].GRPCServer` | in `controller.py` and `driver.py` |

## Not taken over

Hansa starts nothing on other machines. No password or key was copied.

{left}
"""

_CONTROLLER = '''"""The controller; written by Hansa from a federation environment."""

from hansa.compat.metisfl import Controller, ControllerConfig, ModelStoreConfig, ServerParams

controller_params = {controller}
controller = Controller(
    server_params=controller_params,
    controller_config={config},
    model_store_config={store},
)

if __name__ == "__main__":
    controller.start()
'''

_DRIVER = '''"""The driver; written by Hansa from a federation environment."""

import sys

from controller import controller_params

from hansa.compat.metisfl import DriverSession, ServerParams, TerminationSignals

learners = [
{learners}
]
max_learners = len(learners)


def get_learner_server_params(learner_index, max_learners=max_learners):
    return learners[learner_index]


if __name__ == "__main__":
    session = DriverSession(
        controller=controller_params,
        learners=learners,
        termination_signals={signals},
        train_params={params!r},
    )
    session.run(new="--new" in sys.argv)
'''


def controller_text(controller: ServerParams, wanted: Wanted) -> str:
    """Return controller.py."""
    return _CONTROLLER.format(
        controller=_address(controller), config=repr(wanted.config), store=repr(wanted.store)
    )


def driver_text(learners: Sequence[ServerParams], wanted: Wanted) -> str:
    """Return driver.py."""
    lines = "\n".join(f"    {_address(params)}," for params in learners)
    return _DRIVER.format(learners=lines, signals=repr(wanted.signals), params=dict(wanted.params))


def _address(params: ServerParams) -> str:
    return f"ServerParams(hostname={params.hostname!r}, port={params.port})"
