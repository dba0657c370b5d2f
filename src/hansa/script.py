"""Federate a training script that already exists: three lines change, the rest stays as it is.

    net = Net()
    loader = DataLoader(as_tensors(hansa.local_data()), batch_size=32, shuffle=True)
    for task in hansa.tasks(net.state_dict()):                                   # 1
        net.load_state_dict(task.params)                                         # 2
        running_loss = train(net, loader)                                        #   unchanged
        task.send(net.state_dict(), examples=len(loader.dataset), loss=running_loss)    # 3

`python train.py` still trains, for one round and on its own.  In a run, every client has its own
copy of the script, waiting between its rounds, so what the script keeps (an optimizer's momentum,
a learning-rate schedule) lives on.  That state is the script's alone: it is lost when the run is
interrupted, when a client meets another worker process, and when more than `limits.SCRIPTS_MAX`
clients wait at once.  Where results must be the same to the last bit after a crash, make the
optimizer inside the loop.  When the run ends the loop ends, and the script's last lines run.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hansa.learners.script_task import Evaluate, ScriptTask, here, script_error

__all__ = ["ScriptTask", "local_client", "local_data", "tasks"]


def tasks(initial: Any = None, *, evaluate: Evaluate | None = None) -> Iterator[ScriptTask]:
    """Yield this client's tasks; outside of a run, one task with the given model.

    Args:
      initial: the seed model: a state_dict, or a dict or list of arrays.
      evaluate: `evaluate(params, data)` returns means over the data, such as {"accuracy": 0.9};
        the data is some client's validation part, or the server's test part.

    Raises:
      LearnerError: there is no initial model, or the script does not keep to the exchange.
    """
    if initial is None:
        raise script_error(
            "The script called tasks() without its seed model.",
            "Pass the model's tensors: for task in hansa.tasks(net.state_dict()):",
        )
    if here.channel is None:
        yield ScriptTask(initial)
    else:
        yield from here.channel.tasks(initial, evaluate)


def local_data() -> Any:
    """Return this client's training part.

    Outside of a run it is all of the data set that the `plan.toml` beside the script names.

    Raises:
      LearnerError: there is neither a run nor such a plan.
      HansaError: the plan or its data cannot be read.
    """
    if here.channel is not None:
        return here.channel.data
    from hansa.data import load
    from hansa.plan.load import PLAN_FILE, load_plan

    script = getattr(sys.modules["__main__"], "__file__", None)
    path = Path(script or ".").resolve().parent / PLAN_FILE
    plan = load_plan(path).plan.data if path.is_file() else None
    if plan is None or plan.set is None:
        raise script_error(
            f"The script asks for local data, but no run has started it, and {path} names no data.",
            'Add data.set to the plan, such as set = "digits", or start the script with: hansa run',
        )
    return load(plan.set, target=plan.target, group=plan.group, classes=plan.classes)


def local_client() -> str:
    """Return the name of the client that this script works for; "local" outside of a run."""
    return "local" if here.channel is None else here.channel.client
