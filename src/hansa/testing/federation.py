"""What a workflow may rely on, wherever its clients are: the laws of federation handles.

    @contextmanager
    def opened(case, folder):
        ...                    # over a folder that was used before, go on with what lies there
        yield handle           # of `hansa.workflows.Federation`
        ...

    check_federation(opened, folder)

A `Case` is a small federation whose clients are plain functions.  A simulation takes its `project`
and `population`.  A deployed handle gets a stand-in for each of `case.clients`, which asks for
tasks as a site does and answers with what `case.train`, `case.evaluate` and `case.answer` return,
or with a failure where they raise; `case.train` is told the `steps` of the task.

Some clients raise `Interruption` in the midst of an exchange.  It stands for the death of the
process that holds the handle: the exchange must end by raising `interrupted`, after which the
handle is left, and opened again over the same folder.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hansa.algorithms import Vectors
from hansa.errors import RunError
from hansa.params import Params, encode
from hansa.rounds import BUFFERS, Terms
from hansa.testing.case import EXAMPLES, STEPS, VALIDATION, Array, Case, Interruption
from hansa.testing.laws import law
from hansa.testing.overlapping import check_overlap
from hansa.workflows import (
    Answered,
    Commit,
    Federation,
    GlobalState,
    Progress,
    Trained,
    drive,
    to_files,
)

Opened = Callable[[Case, Path], AbstractContextManager[Federation]]
"""Opens the handle for a case; over a used folder it goes on from what was committed there."""


class _Trial(NamedTuple):
    """The handle under test."""

    opened: Opened
    folder: Path
    interrupted: type[BaseException]

    def within(self, name: str) -> Path:
        path = self.folder / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def require(self, holds: bool, sentence: str, *, hint: str) -> None:
        law(holds, "The federation handle", sentence, hint=hint)

    def trained(self, name: str, case: Case, cohort: Sequence[str], terms: Terms) -> Trained:
        """Train a cohort in the first round."""
        with self.opened(case, self.within(name)) as handle:
            state = handle.resume().state
            return drive(_training(handle, state, cohort, terms=terms))

    def require_mean(self, trained: Trained, counted: Iterable[str]) -> None:
        """Require that an aggregate is the mean of some clients' updates in the first round."""
        names = sorted(counted)
        found = trained.aggregate
        self.require(
            found is not None
            and found.clients == len(names)
            and found.weight == sum(EXAMPLES[name] for name in names)
            and sorted(trained.metrics) == names,
            f"a round counts {found and found.clients} clients of weight {found and found.weight} "
            f"and has metrics of {sorted(trained.metrics)}, instead of {', '.join(names)}",
            hint="Fold each admitted update once, with its weight, and keep the metrics beside.",
        )
        assert found is not None
        delta, n = _mean(names)
        self.require(
            np.allclose(found.vectors["delta"], delta, rtol=3e-7, atol=1e-7)
            and np.array_equal(found.vectors[BUFFERS], [n]),
            f"the aggregate of {', '.join(names)} is {dict(found.vectors)} instead of delta "
            f"{delta} and buffers [{n}]",
            hint="Send the state's own model and buffers, and pass the aggregate on unchanged but "
            "for `hansa.workflows.rounded`.",
        )


def check_federation(
    opened: Opened, folder: Path, *, interrupted: type[BaseException] = Interruption
) -> None:
    """Raise LawBroken if a handle breaks a law.

    The laws: the roster is all clients, the same each time it is asked for; a round is the exact
    mean of the cohort's updates, of no other clients; one that fails or sends what cannot be
    summed becomes a problem and stops nobody; a goal ends a round with as many; what was committed
    is there again, to the bit; an exchange that was interrupted, and a whole run that was, come to
    the same bytes, with every built-in workflow; clients without validation data do not count in an
    evaluation; clients take the steps that they were asked for; a model that was kept is recalled;
    a named task is answered by those asked, each its own question, once for a name and step;
    where rounds overlap, each update is used once, and is of the model that its client was given.

    Args:
      opened: opens the handle for a case.
      folder: an empty one; each law takes a folder in it.
      interrupted: what an exchange raises after a client has raised `Interruption`.

    Raises:
      LawBroken: which law, and what to look for.
    """
    trial = _Trial(opened, folder, interrupted)
    for check in LAWS:
        check(trial)


def _roster(trial: _Trial) -> None:
    case = Case()
    with trial.opened(case, trial.within("roster")) as handle:
        first = list(drive(handle.roster(1)))
        again = list(drive(handle.roster(1)))
    trial.require(
        sorted(first) == sorted(case.clients) and first == again,
        f"the roster is {first}, and then {again}",
        hint="Return every client that can be asked, once, in one order.",
    )


def _begins(trial: _Trial) -> None:
    case = Case()
    with trial.opened(case, trial.within("begins")) as handle:
        commit = handle.resume()
        tested = drive(handle.test(1, commit.state))
    model, _ = to_files(case.seed.layout, commit.state)
    trial.require(
        commit.round == 0 and encode(model) == encode(case.seed.params),
        f"a new run resumes from round {commit.round} with the model {model.copy().to_dict()}",
        hint="Commit the seed model as round 0.",
    )
    trial.require(
        not tested,
        f"test() measures {dict(tested)} without data of the server's own",
        hint="Return nothing where the server has no data.",
    )


def _exact_mean(trial: _Trial) -> None:
    case = Case()
    trained = trial.trained("mean", case, case.clients, Terms())
    trial.require_mean(trained, case.clients)
    loss = {name: (mean.total, mean.weight) for name, mean in _metric(trained, "loss").items()}
    expected = {name: ((0.5 + rows) * rows, float(rows)) for name, rows in EXAMPLES.items()}
    trial.require(
        loss == expected and not trained.problems,
        f"the clients measured {loss} and had the problems {list(trained.problems)}",
        hint="Pass on every client's totals and weights as they are.",
    )
    trial.require(
        trained.bytes_down > 0 and trained.bytes_up > 0,
        "a round in which models travelled says that no bytes did",
        hint="Count the encoded message for each client asked, and each update.",
    )


def _cohort_only(trial: _Trial) -> None:
    case, cohort = Case(), ("client-1", "client-4")
    trained = trial.trained("cohort", case, cohort, Terms())
    trial.require_mean(trained, cohort)
    trial.require(
        {name for name, _ in case.asked} == set(cohort),
        f"{sorted({name for name, _ in case.asked})} trained; {', '.join(cohort)} were asked",
        hint="Give tasks to the cohort alone.",
    )


def _failures(trial: _Trial) -> None:
    case = Case({("client-2", 1): "raise", ("client-4", 1): "nan"})
    trained = trial.trained("failures", case, case.clients, Terms())
    trial.require_mean(trained, ("client-0", "client-1", "client-3"))
    found = [(p.round, p.client, p.kind, p.code, bool(p.message)) for p in trained.problems]
    trial.require(
        found
        == [
            (1, "client-2", "failed", "client-failed", True),
            (1, "client-4", "refused", "update-not-finite", True),
        ],
        f"a client that raised and one that sent NaN are told as {found}",
        hint="Return one Problem for each, by name: failed or refused, with its code and message.",
    )


def _nobody(trial: _Trial) -> None:
    case = Case({(name, 1): "raise" for name in STEPS})
    trained = trial.trained("nobody", case, case.clients, Terms())
    trial.require(
        trained.aggregate is None and [p.client for p in trained.problems] == sorted(case.clients),
        f"a round in which all failed comes to {trained.aggregate} with "
        f"{len(trained.problems)} problems",
        hint="Return an aggregate of None; the workflow says that the run has failed.",
    )


def _goal(trial: _Trial) -> None:
    case = Case()
    trained = trial.trained("goal", case, case.clients, Terms(1, goal=3))
    trial.require(
        len(trained.metrics) == 3,
        f"a round whose goal is 3 answers counts {sorted(trained.metrics)}",
        hint="Close at the answer that reaches the goal.",
    )
    trial.require_mean(trained, trained.metrics)


def _commits(trial: _Trial) -> None:
    case = Case()
    folder = trial.within("commits")
    progress = Progress(best=0.5, best_round=1)._asdict()
    x = np.array([0.1, -7.25, 1e-3], np.float32)
    state = GlobalState(Vectors(x=x, v=-3 * x / 7), np.array([11.0]))
    row = {"round": 1, "clients": {"asked": 5, "accepted": 5, "failed": 0, "refused": 0}}
    with trial.opened(case, folder) as handle:
        begun = handle.resume()
        drive(_training(handle, begun.state, case.clients, terms=Terms()))
        before = handle.elapsed()
        drive(handle.commit(Commit(1, state, row, progress), []))
    with trial.opened(case, folder) as handle:
        found, after = handle.resume(), handle.elapsed()
    trial.require(
        _image(found.state) == _image(state),
        f"the state {state} is {found.state} when it is read back",
        hint="Use `hansa.workflows.to_files` and `from_files`, and keep both files.",
    )
    trial.require(
        (found.round, found.row, found.progress) == (1, row, progress),
        f"a commit is read back as round {found.round}, {found.row}, {found.progress}",
        hint="Keep round, row and progress with the state.",
    )
    trial.require(
        after >= before > 0,
        f"{before} seconds of work are {after} after the handle was opened again",
        hint="Keep the seconds of work with each commit.",
    )


def _interrupted_exchange(trial: _Trial) -> None:
    plain = trial.trained("undisturbed", Case(), tuple(STEPS), Terms())
    case, folder = Case({("client-2", 1): "interrupt"}), trial.within("interrupted")
    _interrupt(trial, case, folder, _first_round)
    case.faults.clear()
    with trial.opened(case, folder) as handle:
        commit = handle.resume()
        again = drive(_training(handle, commit.state, case.clients, terms=Terms()))
    trial.require(
        commit.round == 0 and _outcome(again) == _outcome(plain),
        f"an exchange that was interrupted is resumed in round {commit.round} and comes to "
        f"{again.aggregate} instead of {plain.aggregate}",
        hint="Count what had arrived once, and ask the rest again for the same round.",
    )


INTERRUPTED: tuple[tuple[int, dict[str, Any]], ...] = (
    (2, {}),
    (3, {"workflow": {"name": "semi_synchronous", "multiple": 5.0}, "weighting": "steps"}),
    (4, {"workflow": {"name": "cyclic", "order": "random"}, "algorithm": "fed_avg", "rounds": 6}),
    (6, {"workflow": {"name": "cross_site_evaluation", "own_models": True}}),
    (3, {"workflow": {"name": "asynchronous", "buffer": 4}, "algorithm": "fed_avg"}),
)
"""In which round a run is interrupted, and what its plan says besides the case's own."""


def _interrupted_run(trial: _Trial) -> None:
    for number, plan in INTERRUPTED:
        _interrupted_in(trial, number, plan)


def _interrupted_in(trial: _Trial, number: int, plan: dict[str, Any]) -> None:
    plain = Case(plan=plan)
    name = plain.project.workflow.name
    with trial.opened(plain, trial.within(f"whole-{name}")) as handle:
        _whole_run(handle, plain)
        expected = handle.resume()
    # Whoever is asked first in that round.
    case, folder = Case(plan=plan), trial.within(f"pieces-{name}")
    case.faults = {(client, number): "interrupt" for client in STEPS}
    _interrupt(trial, case, folder, _whole_run)
    case.faults.clear()
    with trial.opened(case, folder) as handle:
        begins = handle.resume().round
    with trial.opened(case, folder) as handle:
        _whole_run(handle, case)
        found = handle.resume()
    trial.require(
        begins == number - 1 and found.round == expected.round >= case.plan.rounds,
        f"a {name} run that was interrupted in round {number} goes on from round {begins} and ends "
        f"after round {found.round} of {expected.round}",
        hint="Resume from the last commit.",
    )
    trial.require(
        _image(found.state) == _image(expected.state)
        and found.progress == expected.progress
        and {**found.row, "seconds": 0} == {**expected.row, "seconds": 0}
        and case.steps == plain.steps,
        f"a {name} run that was interrupted ends in {found} instead of {expected}",
        hint="Nothing may be counted twice, or be missing, after a start.",
    )


def _steps(trial: _Trial) -> None:
    case, asked = Case(), {"client-1": 7, "client-4": 2}
    with trial.opened(case, trial.within("steps")) as handle:
        state = handle.resume().state
        work = handle.train(1, state, case.clients, terms=Terms(), steps=asked)
        drive(_after_roster(handle, work))
    found = {client: steps for (client, _), steps in case.steps.items()}
    trial.require(
        found == {client: asked.get(client) for client in case.clients},
        f"clients that were asked for the local steps {asked} take {found}",
        hint="Give each client its own steps, and leave the others to the plan.",
    )


def _recalled(trial: _Trial) -> None:
    case = Case()
    with trial.opened(case, trial.within("recalled")) as handle:
        state = handle.resume().state
        for number in (1, 2):
            x = np.array([number, -number / 3, 0.1], np.float32)
            state = GlobalState(Vectors({**state.algorithm, "x": x}), np.array([number + 5.0]))
            progress = Progress(best=0.5, best_round=1)._asdict()
            row: dict[str, Any] = {"round": number, "clients": {}, "bytes": {}, "seconds": 0.0}
            drive(handle.commit(Commit(number, state, row, progress), []))
        found = handle.recall(1)
    expected = np.array([1, -1 / 3, 0.1], np.float32)
    trial.require(
        np.array_equal(found.algorithm.x, expected) and found.buffers.tolist() == [6.0],
        f"the best model, of round 1, is recalled as {found} instead of {expected}",
        hint="Keep the best model, and read it back with its buffers.",
    )


def _evaluation(trial: _Trial) -> None:
    case = Case()
    with trial.opened(case, trial.within("evaluation")) as handle:
        state = handle.resume().state
        drive(_training(handle, state, case.clients, terms=Terms()))
        evaluated = drive(handle.evaluate(1, state, case.clients))
        nobody = drive(handle.evaluate(1, state, []))
    found = {name: (m["first"].total, m["first"].weight) for name, m in evaluated.metrics.items()}
    expected = {name: ((0.5 + STEPS[name][0]) * n, float(n)) for name, n in VALIDATION.items()}
    trial.require(
        found == expected and not evaluated.problems,
        f"an evaluation measures {found} instead of {expected}",
        hint="Leave out clients that have nothing to evaluate on; they have no problem.",
    )
    trial.require(
        not nobody.metrics and not nobody.problems,
        "an evaluation of nobody measures something",
        hint="Return at once where nobody is asked.",
    )


def _named_task(trial: _Trial) -> None:
    case, folder = Case(), trial.within("asked")
    own = {name: _question(5.0 - rows) for name, rows in EXAMPLES.items()}
    with trial.opened(case, folder) as handle:
        one = drive(_asking(handle, case.clients, message=_question(0.75), factor=-1.5))
        two = drive(_asking(handle, case.clients[1:3], message=own, factor=2.0, step=1))
        none = drive(_asking(handle, case.clients[3:], message=None, factor=0.5, step=2))
        nobody = drive(_asking(handle, (), message=None, factor=0.5, step=3))
        refused = _is_refused(handle, case.clients)
    expected = {
        name: (-1.5 * 0.75 + np.array(STEPS[name]), EXAMPLES[name], 1.5 * STEPS[name][1])
        for name in case.clients
    }
    found = {
        name: (a.params["v"], a.facts["rows"], a.facts["first"])
        for name, a in one.answers.items()
        if a.params is not None
    }
    trial.require(
        list(found) == sorted(expected)
        and all(
            np.array_equal(found[name][0], vector) and found[name][1:] == facts
            for name, (vector, *others) in expected.items()
            for facts in [tuple(others)]
        )
        and not one.problems,
        f"a named task is answered with {found} instead of {expected}",
        hint="Pass on tensors and facts as the client's code returned them, sorted by name.",
    )
    trial.require(
        {name: a.params["v"].tolist() for name, a in two.answers.items() if a.params}
        == {
            name: (2.0 * (5.0 - EXAMPLES[name]) + np.array(STEPS[name])).tolist()
            for name in case.clients[1:3]
        },
        f"clients that are asked each its own question answer {two.answers}",
        hint="Give each client its own message, and ask nobody else.",
    )
    trial.require(
        sorted(none.answers) == sorted(case.clients[3:])
        and all(a.params is None for a in none.answers.values())
        and not nobody.answers
        and refused,
        f"questions without tensors are answered by {sorted(none.answers)}, one to nobody by "
        f"{sorted(nobody.answers)}, and one of a step that was asked before is "
        f"{'refused' if refused else 'answered'}",
        hint="Send facts without tensors; refuse a second question of one name and step.",
    )


def _named_task_fails(trial: _Trial) -> None:
    case = Case({("client-1", 1): "raise"})
    with trial.opened(case, trial.within("asked-fails")) as handle:
        found = drive(_asking(handle, case.clients, message=None, factor=1.0))
    told = [(p.round, p.client, p.kind, p.code) for p in found.problems]
    trial.require(
        told == [(1, "client-1", "failed", "client-failed")]
        and sorted(found.answers) == [n for n in sorted(case.clients) if n != "client-1"],
        f"a client that raises in a named task is told as {told}, and {sorted(found.answers)} "
        "answer",
        hint="Return one Problem for it, and the answers of the others.",
    )


def _named_task_interrupted(trial: _Trial) -> None:
    plain = Case()
    with trial.opened(plain, trial.within("asked-whole")) as handle:
        expected = drive(_asking(handle, plain.clients, message=_question(0.75), factor=3.0))
    case, folder = Case({("client-2", 1): "interrupt"}), trial.within("asked-pieces")

    def ask(handle: Federation, case: Case) -> None:
        drive(_asking(handle, case.clients, message=_question(0.75), factor=3.0))

    _interrupt(trial, case, folder, ask)
    case.faults.clear()
    with trial.opened(case, folder) as handle:
        found = drive(_asking(handle, case.clients, message=_question(0.75), factor=3.0))
    trial.require(
        _answers(found) == _answers(expected) and not found.problems,
        f"a named task that was interrupted comes to {found} instead of {expected}",
        hint="Count what had arrived once, and ask the rest again.",
    )


def _question(value: float) -> Params:
    return Params.of({"v": np.full(3, value)})


async def _asking(
    handle: Federation,
    clients: Sequence[str],
    *,
    message: Mapping[str, Params] | Params | None,
    factor: float,
    step: int = 0,
) -> Answered:
    """Ask for the case's named task as a workflow does, which asks for the roster first."""
    handle.resume()
    await handle.roster(1)
    settings = {"factor": factor}
    return await handle.ask(1, "scaled", clients, message=message, settings=settings, step=step)


def _is_refused(handle: Federation, clients: Sequence[str]) -> bool:
    try:
        drive(handle.ask(1, "scaled", clients, settings={"factor": 1.0}))
    except RunError as error:
        return error.code == "task-question"
    return False


def _answers(found: Answered) -> dict[str, Any]:
    return {
        name: (None if a.params is None else a.params["v"].tobytes(), a.facts)
        for name, a in found.answers.items()
    }


def _overlap(trial: _Trial) -> None:
    check_overlap(trial.opened, trial.within("overlap"))


LAWS: tuple[Callable[[_Trial], None], ...] = (
    _begins,
    _roster,
    _exact_mean,
    _cohort_only,
    _failures,
    _nobody,
    _goal,
    _evaluation,
    _commits,
    _steps,
    _recalled,
    _overlap,
    _interrupted_exchange,
    _interrupted_run,
    _named_task,
    _named_task_fails,
    _named_task_interrupted,
)


async def _training(
    handle: Federation, state: GlobalState, cohort: Sequence[str], *, terms: Terms
) -> Trained:
    return await _after_roster(handle, handle.train(1, state, cohort, terms=terms))


async def _after_roster(handle: Federation, work: Awaitable[Trained]) -> Trained:
    """Train as a workflow does: it asks for the roster first."""
    await handle.roster(1)
    return await work


def _first_round(handle: Federation, case: Case) -> None:
    drive(_training(handle, handle.resume().state, case.clients, terms=Terms()))


def _whole_run(handle: Federation, case: Case) -> None:
    drive(case.project.workflow.run(handle, case.plan, case.project.method.algorithm))


def _interrupt(
    trial: _Trial, case: Case, folder: Path, work: Callable[[Federation, Case], None]
) -> None:
    """Work on a case until it is interrupted."""
    with trial.opened(case, folder) as handle:
        try:
            work(handle, case)
        except trial.interrupted:
            return
    trial.require(
        False,
        "an exchange goes on although a client's process has taken the handle down",
        hint="Let the exchange raise what `interrupted` says.",
    )


def _mean(names: Sequence[str]) -> tuple[Array, float]:
    """Return what the updates of the first round come to, in plain NumPy."""
    weights = np.array([EXAMPLES[name] for name in names], np.float64)
    seed = np.array([0.5, -1.25, 2.0])
    deltas = np.array([seed / 2 + np.array(STEPS[name]) - seed for name in names])
    counts = 4 + weights
    return weights @ deltas / weights.sum(), float(np.rint(weights @ counts / weights.sum()))


def _metric(trained: Trained, name: str) -> dict[str, Any]:
    return {client: metrics[name] for client, metrics in trained.metrics.items()}


def _image(state: GlobalState) -> dict[str, tuple[str, bytes]]:
    vectors = {**state.algorithm, BUFFERS: state.buffers}
    return {
        name: (np.asarray(v).dtype.name, np.asarray(v).tobytes()) for name, v in vectors.items()
    }


def _outcome(trained: Trained) -> tuple[Any, ...]:
    assert trained.aggregate is not None
    vectors = {name: v.tobytes() for name, v in trained.aggregate.vectors.items()}
    return vectors, trained.aggregate.weight, trained.aggregate.clients, dict(trained.metrics)
