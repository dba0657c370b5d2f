"""MetisFL's driver: waits for the learners, submits a run, follows it, and ends them all."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hansa.compat.metisfl.config import (
    ControllerConfig,
    ModelStoreConfig,
    ServerParams,
    TerminationSignals,
    check_config,
    check_signals,
)
from hansa.compat.metisfl.place import (
    Agreed,
    Place,
    learner_name,
    place_at,
    spoken,
    tell_over,
    wait_until,
)
from hansa.compat.metisfl.plan_text import Parameter, Wanted, plan_text, settings_of
from hansa.compat.metisfl.present import begin_with
from hansa.compat.metisfl.project import write_project
from hansa.compat.metisfl.results import results_of
from hansa.errors import HansaError, PlanError, RunError
from hansa.project import open_project
from hansa.remote import asking
from hansa.remote.connecting import connected
from hansa.remote.follow import follow
from hansa.remote.submit import submit
from hansa.runs import RunFolder, all_runs
from hansa.store.files import load_params, write_durably
from hansa.watch import watching

RESULTS_FILE = "results.json"
_ANEW = "hansa run ENV.yaml --new, or session.run(new=True)"


class DriverSession:
    """A driver.

    Args:
      controller: where the controller is.
      learners: the learners to wait for; the first one's weights begin.
      termination_signals: when the run ends.
      train_params: what `train` and `evaluate` are given as their configuration, such as
        {"batch_size": 64, "epochs": 3}; MetisFL has no way to say it.
      controller_config: instead of what the controller on this machine was started with.
      model_store_config: in the same way.
    """

    def __init__(
        self,
        controller: ServerParams,
        learners: Sequence[ServerParams],
        termination_signals: TerminationSignals,
        *,
        train_params: Mapping[str, Parameter] | None = None,
        controller_config: ControllerConfig | None = None,
        model_store_config: ModelStoreConfig | None = None,
    ) -> None:
        self.controller, self.learners = controller, list(learners)
        self.termination_signals = termination_signals
        self.train_params = dict(train_params or {})
        self.controller_config = controller_config
        self.model_store_config = model_store_config

    def run(self, *, new: bool = False) -> dict[str, Any]:
        """Run to the end, then end the controller and the learners on this machine.

        An unfinished run of the same settings, such as one whose driver was killed, is taken up.

        Args:
          new: start anew although there is one.

        Returns:
          What results.json in the current folder then holds; see `hansa.compat.metisfl.results`.

        Raises:
          SystemExit: there is no run, or it has failed; the sentence says why.
        """
        with spoken():
            check_signals(self.termination_signals)
            place = place_at(self.controller)
            names = [learner_name(params) for params in self.learners]
            self._wait(place, names)
            folder = self._followed(place, names, new=new)
            results = results_of(folder)
            text = json.dumps(results, indent=2) + "\n"
            write_durably(Path(RESULTS_FILE), [text.encode()])
            tell_over(place, folder.name)
            _check_ended(folder, results)
            print(f"The training logs are in {RESULTS_FILE}.")
            runs = shlex.quote(str(place.folder / "runs"))
            print(f"Times and more: hansa show {folder.name} --timing --runs {runs}")
            return results

    def _wait(self, place: Place, names: Sequence[str]) -> None:
        missing: list[str] = list(names)

        def there() -> bool:
            try:
                with connected(place.admin()) as connection:
                    members = asking.members(connection)
            except HansaError as error:
                if error.code == "server-unreachable":
                    return False
                raise
            active = {m["name"] for m in members if m["state"] == "active"}
            missing[:] = [name for name in names if name not in active]
            return not missing

        wait_until(there, f"The driver waits for {place.url} with {', '.join(names)}.")

    def _followed(self, place: Place, names: Sequence[str], *, new: bool) -> RunFolder:
        agreed = place.agreed() or Agreed(ControllerConfig(), ModelStoreConfig())
        config = self.controller_config or agreed.config
        store = self.model_store_config or agreed.store
        check_config(config, store)
        wanted = Wanted(config, store, self.termination_signals, len(names), self.train_params)
        write_project(place.folder / "project", plan_text(wanted), settings_of(wanted))
        begin_with(_first_weights(place, names))
        project = open_project(place.folder / "project")
        membership = place.admin()
        runs = place.folder / "runs"
        before = {run.name for run in all_runs(runs)}
        folder = submit(project, membership, runs=runs, new=new)
        if folder.name in before:
            print(f"Taking up {folder.name}, which had not ended.  To begin anew: {_ANEW}")
        metric = project.plan.stop.metric
        with connected(membership) as connection, watching(project.plan.rounds, metric) as view:
            follow(folder, connection, membership=membership, view=view)
        return folder


def _first_weights(place: Place, names: Sequence[str]) -> list[np.ndarray]:
    """Return the weights of the first learner that has left some here.

    Raises:
      PlanError: plan-impossible, none has.
    """
    for path in map(place.weights, names):
        if path.exists():
            return list(load_params(path).copy().to_dict().values())
    raise PlanError(
        "plan-impossible",
        f"No learner has left its weights in {place.folder / 'weights'}. Nothing was started.",
        "Copy that file from the machine of one of them: it is in the same place there.",
    )


def _check_ended(folder: RunFolder, results: dict[str, Any]) -> None:
    if folder.state != "finished":
        reason = results["ended"]["reason"] or "no reason was given"
        raise RunError(
            "run-stopped" if folder.state == "stopped" else "run-all-failed",
            f"{folder.name} has {folder.state} after round {len(folder.rows())}: {reason}",
            f"What was done until then is in {RESULTS_FILE}.",
        )
