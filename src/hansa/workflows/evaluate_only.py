"""Every client evaluates the seed model, once, and nothing is trained.

It says how a model that comes with the project does on each client's data, before anybody decides
to train it further.

Source: NVFlare's broadcast-and-process and global model evaluation.  Ours differs: what clients
return are metrics, and nothing else.
"""

from __future__ import annotations

from hansa.algorithms import Algorithm
from hansa.errors import PlanError, RunError
from hansa.metrics import Metrics
from hansa.plan import Method, Plan
from hansa.workflows.federation import Commit, Federation, Trained
from hansa.workflows.stopping import Progress, advance
from hansa.workflows.synchronous import evaluate_into, reasons, row_of
from hansa.workflows.workflow import Workflow

_NOTHING = Trained(None, {}, [], bytes_down=0, bytes_up=0, asked=0)


async def evaluate_only(federation: Federation, plan: Plan, algorithm: Algorithm) -> Progress:
    """Evaluate the seed model in one round, which is committed with the model as it is.

    Raises:
      RunError: fewer clients evaluated than the plan's minimum.
    """
    commit = federation.resume()
    progress = Progress(**commit.progress)
    if progress.ended is not None:
        return progress
    began, roster = federation.elapsed(), await federation.roster(1)
    row = row_of(1, [], _NOTHING)
    measured: dict[str, Metrics] = {}
    problems = await evaluate_into(
        federation, plan, row, state=commit.state, roster=roster, latest=measured
    )
    clients = sum(bool(metrics) for metrics in measured.values())
    if clients < plan.cohort.minimum:
        raise RunError(
            "run-too-few",
            f"{clients} clients have evaluated and the plan's minimum is {plan.cohort.minimum}: "
            f"{reasons(problems)}. The run has failed.",
            "Correct the cause, or lower cohort.minimum, and run again.",
        )
    asked = min(plan.evaluate.clients, len(roster))
    row["clients"] |= {"asked": asked, "accepted": clients, "failed": len(problems)}
    row["seconds"] = federation.elapsed() - began
    progress = advance(progress, row, plan.stop, rounds=1, minutes=0.0)
    progress = progress._replace(ended=f"the seed model was evaluated at {clients} clients")
    await federation.commit(Commit(1, commit.state, row, progress._asdict()), problems)
    return progress


def check(plan: Plan, method: Method) -> None:
    """Refuse an evaluation by fewer clients than must evaluate."""
    if plan.evaluate.clients < plan.cohort.minimum:
        raise PlanError(
            "plan-impossible",
            f"evaluate_only asks evaluate.clients = {plan.evaluate.clients} clients, and "
            f"cohort.minimum is {plan.cohort.minimum}. Nothing was started.",
            "Set evaluate.clients to how many clients shall evaluate at most.",
        )


EVALUATE_ONLY = Workflow("evaluate_only", evaluate_only, check)
