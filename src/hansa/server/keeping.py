"""What stays of a run's models at its server, and for how long.

What a run needs is a blob that the trail names: the seed, the last, the best, each n-th, and the
newest few.  Where the plan wants more, or the models of its sites, they go to a lineage: files
below `lineage/RUN` in the server's folder, or the operator's Redis.  These are for the operator;
no route gives a site's model away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hansa.errors import HansaError, ParamsError
from hansa.params.model import ModelLayout
from hansa.plan import Plan
from hansa.plan.schema import KeepPlan
from hansa.rounds import BUFFERS
from hansa.runs.lineage import is_wanted, redis_address
from hansa.server.round_files import Stores
from hansa.store.files import load_params
from hansa.store.lineage import DiskLineage, Lineage, Owned
from hansa.store.redis_lineage import RedisLineage
from hansa.transforms import Transform
from hansa.workflows import Commit, GlobalState
from hansa.workflows.state_files import own_model

LINEAGES = "lineage"
"""The folder of a server's lineages."""


class Lineages(NamedTuple):
    """Where a server keeps what its runs' plans want beside the trail."""

    folder: Path
    redis: str = ""  # address that the operator has set
    name: str = ""  # of the federation

    def check(self, keep: KeepPlan) -> None:
        """Refuse a plan whose place this server does not have.

        Raises:
          StoreError: store-redis.
        """
        if is_wanted(keep) and keep.store == "redis":
            redis_address(self.redis)

    def of(self, run: str, keep: KeepPlan) -> Lineage | None:
        """Return a run's lineage; None if its plan wants none.

        Raises:
          StoreError: store-redis, it does not answer.
        """
        if not is_wanted(keep):
            return None
        if keep.store == "redis":
            return RedisLineage(redis_address(self.redis), f"hansa|{self.name}|{run}")
        return DiskLineage(self.folder / run)


class Keeping:
    """What stays of one run.

    Args:
      run: its name.
      plan: its plan.
      stores: the server's files.
      layout: of the model.
      transform: as the plan has it; its decoding is the server's half.
    """

    def __init__(
        self, run: str, plan: Plan, stores: Stores, *, layout: ModelLayout, transform: Transform
    ) -> None:
        self._run, self._keep, self._stores = run, plan.keep, stores
        self._layout, self._transform = layout, transform
        self._place: Lineage | None = None

    @property
    def _lineage(self) -> Lineage | None:
        if self._place is None and self._stores.lineages is not None:
            self._place = self._stores.lineages.of(self._run, self._keep)
        return self._place

    def stays(self, commit: Commit) -> Callable[[int], bool]:
        """Return which rounds' models stay in the trail once a round is committed."""
        best, last = commit.progress.get("best_round", 0), commit.round
        every = self._keep.every
        newest = self._keep.lineage if self._keep.store == "disk" else 1

        def keep(number: int) -> bool:
            young = number > last - newest if newest else True
            return number in (0, best, last) or young or bool(every and number % every == 0)

        return keep

    def add_global(self, commit: Commit) -> None:
        """Keep a global model in the lineage, before its commit; the trail has it besides.

        Raises:
          StoreError: the place does not answer.
        """
        if self._keep.store != "disk" and (lineage := self._lineage) is not None:
            model = self._layout.join(commit.state.algorithm.x, commit.state.buffers)
            lineage.add(commit.round, [("", model)], newest=self._keep.lineage)

    def add_clients(self, number: int, state: GlobalState, digests: Mapping[str, str]) -> None:
        """Keep the models of the sites whose updates count, if the plan wants that.

        Args:
          number: of the round.
          state: what the round began with.
          digests: of the updates, by site.

        Raises:
          StoreError: the place does not answer.
        """
        newest = self._keep.clients
        if newest is None or (lineage := self._lineage) is None:
            return
        lineage.add(number, self._models(number, state, digests), newest=newest)

    def _models(
        self, number: int, state: GlobalState, digests: Mapping[str, str]
    ) -> Iterator[Owned]:
        for site, digest in sorted(digests.items()):
            store = self._stores.updates.of(self._run, number, site)
            try:
                vectors = dict(load_params(store.path(digest)).to_dict())
            except (ParamsError, HansaError):
                continue  # counted before a crash that has taken its file
            buffers = vectors.pop(BUFFERS, None)
            update = dict(self._transform.decode(vectors))
            if buffers is not None:
                update[BUFFERS] = buffers
            x = np.asarray(state.algorithm.x)
            yield site, own_model(self._layout, x, state.buffers, update)
