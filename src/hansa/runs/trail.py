"""The model trail: every committed global model with its parent, across runs.

A model is called RUN:ROUND.  Round 0 is the seed model; what it was taken from is recorded with the
run and followed where the two have the same digest, so the word of whoever submitted a run cannot
put a model under a parent that it does not come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hansa.errors import RunError
from hansa.protocol.messages import ModelFacts
from hansa.runs.folder import RunFolder, all_runs
from hansa.text import clean

LAST, BEST = "final", "best"
"""Words for a round: the last one committed, and that with the best value."""


class Trail:
    """Models with their parents.

    Args:
      models: run by run, each run's in the order of its rounds.

    >>> of = dict(digest="blake3:" + "0" * 64)
    >>> a = [ModelFacts(run="a-1", round=n, **of) for n in (0, 1)]
    >>> b = [ModelFacts(run="b-1", round=n, origin="a-1:1" if not n else "", **of) for n in (0, 1)]
    >>> trail = Trail([*a, *b])
    >>> [model.name for model in trail.ancestors(trail.find("b-1"))]
    ['b-1:0', 'a-1:1', 'a-1:0']
    """

    def __init__(self, models: Iterable[ModelFacts]) -> None:
        self._parents: dict[str, str] = {}
        self._models: dict[str, ModelFacts] = {}
        self._runs: dict[str, list[ModelFacts]] = {}
        for model in models:
            self._models[model.name] = model
            before = self._runs.setdefault(model.run, [])
            if before:
                self._parents[model.name] = before[-1].name
            before.append(model)
        for run in self._runs.values():
            seed = run[0]
            origin = self._models.get(seed.origin)
            if origin is not None and origin.digest == seed.digest and origin.run != seed.run:
                self._parents[seed.name] = origin.name

    @property
    def models(self) -> list[ModelFacts]:
        """All of them."""
        return list(self._models.values())

    def of_run(self, run: str) -> list[ModelFacts]:
        """Return one run's models.

        Raises:
          RunError: model-missing, there is no such run.
        """
        if run not in self._runs:
            raise self._unknown(run)
        return list(self._runs[run])

    def find(self, text: str) -> ModelFacts:
        """Return the model that a person means: RUN for its last, RUN:ROUND, RUN:best, or a digest.

        Raises:
          RunError: model-missing.
        """
        run, _, which = text.partition(":")
        if run == "blake3":
            found = [m for m in self._models.values() if m.digest.startswith(text) and which]
            if found and len({m.digest for m in found}) == 1:
                return next((m for m in found if m.kept), found[0])
            raise self._unknown(text)
        models = self.of_run(run)
        if which in ("", LAST):
            return models[-1]
        named = self._models.get(f"{run}:{int(which)}") if which.isdecimal() else None
        if which == BEST:
            named = next((m for m in reversed(models) if m.best), None)
        if named is None:
            raise self._unknown(text)
        return named

    def parent(self, model: ModelFacts) -> ModelFacts | None:
        """Return the model that another was made from; None for a seed without one."""
        return self._models.get(self._parents.get(model.name, ""))

    def ancestors(self, model: ModelFacts) -> list[ModelFacts]:
        """Return what a model was made from, the nearest first."""
        found: list[ModelFacts] = []
        seen = {model.name}
        at = self.parent(model)
        while at is not None and at.name not in seen:  # two runs may claim to begin in each other
            seen.add(at.name)
            found.append(at)
            at = self.parent(at)
        return found

    def descendants(self, model: ModelFacts) -> list[ModelFacts]:
        """Return what was made from a model, in the trail's order."""
        children: dict[str, list[str]] = {}
        for child, parent in self._parents.items():
            children.setdefault(parent, []).append(child)
        found, left = {model.name}, [model.name]
        while left:
            new = [name for name in children.get(left.pop(), ()) if name not in found]
            found.update(new)
            left += new
        return [m for m in self._models.values() if m.name in found and m.name != model.name]

    def leaves(self) -> list[ModelFacts]:
        """Return the models that nothing was made from."""
        parents = set(self._parents.values())
        return [m for m in self._models.values() if m.name not in parents]

    def _unknown(self, text: str) -> RunError:
        known = ", ".join(list(self._runs)[-8:])
        return RunError(
            "model-missing",
            f"There is no model {clean(text, 120)!r} in this trail.",
            f"Name it RUN:ROUND; runs with models: {known}." if known else "No run has a model.",
        )


def not_kept(model: ModelFacts) -> RunError:
    """Return the error for a model whose tensors are gone."""
    return RunError(
        "model-missing",
        f"The model {model.name} was committed and not kept; only its digest is known, "
        f"{model.digest[:19]}.",
        "The best, the last and every n-th stay: the plan's keep.every says n. "
        "See which there are with: hansa models ls",
    )


def local_trail(runs: Path) -> Trail:
    """Return the trail of a folder of runs."""
    return Trail(model for folder in all_runs(runs) for model in models_of(folder))


def models_of(folder: RunFolder) -> list[ModelFacts]:
    """Return the models of a run folder, oldest first."""
    commits, metric = folder.commits(), folder.plan()["stop"]["metric"]
    origin = str(folder.about["seed_model"].get("origin", ""))
    stays = {e["round"] for e in folder.kept()} if folder.remote is not None else set()
    found = []
    for event in commits:
        path = folder.model_path(event["round"])
        here = path.is_file()
        found.append(
            model_facts(
                folder.name,
                event,
                metric=metric,
                origin=origin,
                kept=here or event["round"] in stays,
                size=path.stat().st_size if here else int(event.get("model_size", 0)),
            )
        )
    return found


def model_facts(
    run: str, event: Mapping[str, Any], *, metric: str, origin: str, kept: bool, size: int
) -> ModelFacts:
    """Return a commit as a model of the trail.

    Args:
      run: name.
      event: the commit.
      metric: that the run is judged by.
      origin: of the run's seed model.
      kept: whether its tensors are still there.
      size: bytes of its file.
    """
    row = event["row"]
    measured = {**row.get("validation", {}), **row.get("test", {})}
    value = measured[metric]["mean"] if metric in measured else None
    best = event["progress"].get("best_round", 0)
    return ModelFacts(
        run=run,
        round=event["round"],
        digest=event["model"],
        size=size,
        at=event["at"],
        origin=origin if event["round"] == 0 else "",
        kept=kept,
        clients=(row.get("clients") or {}).get("accepted", 0),
        metric=metric if metric in measured else "",
        value=value,
        best=bool(event["round"]) and best == event["round"],
    )
