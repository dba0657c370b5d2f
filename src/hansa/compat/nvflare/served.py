"""A FLARE app's own aggregator and shareable generator, unmodified, as a server function.

`hansa import nvflare` writes a server.py that makes a `FlareServer`; it runs in the process of the
run's server functions alone, where the module name `nvflare` is ours.  What the two components have
in their attributes is what they remember from round to round.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hansa.compat.attributes import Attributes
from hansa.compat.nvflare.aggregating import Aggregator, ModelAggregator, ShareableGenerator
from hansa.compat.nvflare.components import FLContext
from hansa.compat.nvflare.engine import Engine, build
from hansa.compat.nvflare.exchange import (
    DXO,
    ModelLearnableKey,
    Shareable,
    from_shareable,
    make_model_learnable,
)
from hansa.compat.nvflare.hosting import set_up_logging
from hansa.compat.nvflare.names import (
    AppConstants,
    AppEventType,
    DataKind,
    EventType,
    FLContextKey,
    MetaKey,
    ReservedHeaderKey,
    ReservedKey,
    ReturnCode,
)
from hansa.compat.nvflare.shim import install
from hansa.compat.nvflare.wire import site_of
from hansa.compat.stand_in import NotExecuted
from hansa.errors import LearnerError
from hansa.learners.generators import seeded
from hansa.seeds import Key

_IMPORT_KEY = Key.root(0).child("import")  # the same in every process
_SYSTEM_HEADERS = {
    ReservedHeaderKey.CONTENT_TYPE,
    ReservedHeaderKey.RC,
    AppConstants.CURRENT_ROUND,
    AppConstants.NUM_ROUNDS,
}
_Model = Mapping[str, np.ndarray]


class FlareServer:
    """The server's side of a FLARE app, as far as it makes one model of many.

    Args:
      file: `__file__` of the caller; the app's custom/ lies in its folder.
      folder: in which it lies below that, if the job has several.
      sites: names of clients that have capital letters in the app.
      aggregator: path and args.
      generator: path and args.
      rounds: in all.
      start_round: what the first round is called.
      log_levels: of loggers by name; "root" is that of all others.

    Raises:
      LearnerError: a component is none of its kind, or made of what is not stood in for.
    """

    def __init__(
        self,
        file: str,
        *,
        aggregator: Mapping[str, Any],
        generator: Mapping[str, Any],
        folder: str = "",
        sites: Sequence[str] = (),
        rounds: int = 1,
        start_round: int = 0,
        log_levels: Mapping[str, str] | None = None,
    ) -> None:
        install()
        self._folder, self._sites = Path(file).resolve().parent / folder, list(sites)
        sys.path.insert(0, str(self._folder / "custom"))
        set_up_logging(log_levels or {})
        self._rounds, self._start = rounds, start_round
        with seeded(_IMPORT_KEY):
            named = Path(file).name
            self._aggregator = _of_kind(build(aggregator, named), Aggregator)
            self._generator = _of_kind(build(generator, named), ShareableGenerator)
            engine, ctx = self._engine(0)
            engine.fire_event(EventType.START_RUN, ctx)
        self._attributes = {
            "aggregator": Attributes(self._aggregator, (FLContext, Engine)),
            "generator": Attributes(self._generator, (FLContext, Engine)),
        }

    def aggregate(
        self, round: int, model: _Model, updates: Mapping[str, Any], memory: dict[Any, Any]
    ) -> dict[str, Any]:
        """Return the model that the aggregator and the generator make of a round's results.

        Args:
          round: from 1.
          model: of the round before.
          updates: of each client its model, its steps as weight, and what else it said.
          memory: what the components' attributes were, and will be.
        """
        for name, attributes in self._attributes.items():
            attributes.remember(memory.get(name, {}))
        engine, ctx = self._engine(self._start + round - 1)
        learnable = make_model_learnable({name: array.copy() for name, array in model.items()})
        ctx.set_prop(AppConstants.GLOBAL_MODEL, learnable)
        engine.keep(ctx)
        self._fire(engine, AppEventType.ROUND_STARTED, ctx)
        if isinstance(self._aggregator, ModelAggregator):
            self._aggregator.reset(ctx)  # FedAvg does so before a round, and others after it
        self._check_sent(model, ctx)
        for client, update in updates.items():
            self._accept(engine, client, update, model)
        self._fire(engine, AppEventType.BEFORE_AGGREGATION, ctx)
        result = _require_ok(self._aggregator.aggregate(ctx), self._aggregator, "aggregate")
        ctx.set_prop(AppConstants.AGGREGATION_RESULT, result, sticky=False)
        self._fire(engine, AppEventType.AFTER_AGGREGATION, ctx)
        self._fire(engine, AppEventType.BEFORE_SHAREABLE_TO_LEARNABLE, ctx)
        made = self._generator.shareable_to_learnable(result, ctx)
        if not isinstance(made, dict) or not isinstance(made.get(ModelLearnableKey.WEIGHTS), dict):
            raise _unusable(self._generator, "shareable_to_learnable", "returned no ModelLearnable")
        ctx.set_prop(AppConstants.GLOBAL_MODEL, made)
        self._fire(engine, AppEventType.AFTER_SHAREABLE_TO_LEARNABLE, ctx)
        self._fire(engine, AppEventType.ROUND_DONE, ctx)
        self._aggregator.reset(ctx)
        memory.clear()
        memory |= {name: attributes.kept() for name, attributes in self._attributes.items()}
        return dict(made[ModelLearnableKey.WEIGHTS])

    def _engine(self, number: int) -> tuple[Engine, FLContext]:
        """Return what the components find around them in a round: nothing of a round before."""
        # A sandbox does not let the folder of the code be written to; both go with the process.
        at = self._folder if os.access(self._folder, os.W_OK) else Path(tempfile.gettempdir())
        engine = Engine("server", at / "workspace", self._folder)
        engine.add(self._aggregator, AppConstants.DEFAULT_AGGREGATOR_ID)
        engine.add(self._generator, AppConstants.DEFAULT_SHAREABLE_GENERATOR_ID)
        ctx = engine.new_context()
        ctx.set_prop(AppConstants.START_ROUND, self._start)
        ctx.set_prop(AppConstants.CURRENT_ROUND, number)
        ctx.set_prop(AppConstants.NUM_ROUNDS, self._rounds)
        ctx.set_prop(AppConstants.PHASE, AppConstants.PHASE_TRAIN)
        engine.keep(ctx)
        return engine, ctx

    def _fire(self, engine: Engine, event: str, ctx: FLContext) -> None:
        engine.fire_event(event, ctx)
        engine.keep(ctx)
        if engine.panic:
            raise RuntimeError(f"the app's server side panicked: {engine.panic}")

    def _accept(self, engine: Engine, client: str, update: Any, model: _Model) -> None:
        """Give the aggregator one client's result; one that it rejects is named in the log."""
        client, _, late = client.partition("@")  # of a late update, its round follows
        site, ctx = site_of(client, self._sites), engine.new_context()
        number = ctx.get_prop(AppConstants.CURRENT_ROUND)
        of_round = self._start + int(late) - 1 if late.isdecimal() else number
        result = _result(update, model)
        result.add_cookie(AppConstants.CONTRIBUTION_ROUND, of_round)
        peer = FLContext()
        peer.set_prop(ReservedKey.IDENTITY_NAME, site, private=False)
        peer.set_prop(FLContextKey.CLIENT_NAME, site, private=False)
        peer.set_prop(ReservedKey.RUN_NUM, ctx.get_run_number(), private=False)
        result.set_peer_props(peer.get_all_public_props())
        headers = {
            ReservedHeaderKey.TASK_NAME: AppConstants.TASK_TRAIN,
            AppConstants.CURRENT_ROUND: of_round,
            AppConstants.NUM_ROUNDS: self._rounds,
            AppConstants.CONTRIBUTION_ROUND: of_round,
            AppConstants.CONTRIBUTION_CLIENT: site,
        }
        for key, value in headers.items():
            result.set_header(key, value)
        result.set_return_code(ReturnCode.OK)
        ctx.set_peer_context(peer)
        ctx.set_prop(AppConstants.CONTRIBUTION_ROUND, of_round, sticky=False)
        ctx.set_prop(AppConstants.TRAINING_RESULT, result, sticky=False)
        self._fire(engine, AppEventType.BEFORE_CONTRIBUTION_ACCEPT, ctx)
        accepted = self._aggregator.accept(result, ctx)
        if not accepted:
            logging.getLogger(type(self._aggregator).__name__).warning(
                "The contribution of %s to round %s was rejected: it is left out.", site, of_round
            )
        ctx.set_prop(AppConstants.AGGREGATION_ACCEPTED, accepted, sticky=False)
        self._fire(engine, AppEventType.AFTER_CONTRIBUTION_ACCEPT, ctx)

    def _check_sent(self, model: _Model, ctx: FLContext) -> None:
        """Refuse a generator that sends something else than the model, which clients have got.

        Raises:
          LearnerError: learner-capability.
        """
        generator = self._generator
        copied = make_model_learnable({name: array.copy() for name, array in model.items()})
        made = generator.learnable_to_shareable(copied, ctx)
        sent = _require_ok(made, generator, "learnable_to_shareable")
        dxo = from_shareable(sent)
        headers = sent.get(ReservedHeaderKey.HEADERS, {})
        more = (headers.keys() - _SYSTEM_HEADERS) | (sent.keys() - {ReservedHeaderKey.HEADERS,
                                                                    "DXO"})  # fmt: skip
        same = dxo.data_kind == DataKind.WEIGHTS and dxo.data.keys() == model.keys()
        if same and all(np.array_equal(dxo.data[n], a) for n, a in model.items()) and not more:
            return
        how = f"adds {', '.join(sorted(map(str, more)))}" if more else "changes the model"
        raise LearnerError(
            "learner-capability",
            f"learnable_to_shareable of the app's {type(generator).__name__} {how}; Hansa sends "
            "clients the model as it is.",
            "Do it in the executor, or in a filter of the task's data.",
        )


def _of_kind(component: Any, kind: type[Any]) -> Any:
    if isinstance(component, kind):
        for name, value in vars(component).items():
            if isinstance(value, NotExecuted):
                raise LearnerError(
                    "learner-capability",
                    f"{type(component).__name__}.{name} is made of a part of FLARE's server that "
                    "Hansa does not stand in for.",
                    "See docs/howto/coming-from-nvflare.md for what there is.",
                )
        return component
    raise LearnerError(
        "learner-incomplete",
        f"{type(component).__name__} of the app is no {kind.__name__} that Hansa stands in for.",
        f"Derive it from {kind.__name__}; see docs/howto/coming-from-nvflare.md.",
    )


def _require_ok(result: Any, component: Any, method: str) -> Shareable:
    """Return what a component gave.

    Raises:
      LearnerError: it is no Shareable, or says that something went wrong.
    """
    if not isinstance(result, Shareable):
        raise _unusable(component, method, f"returned {type(result).__name__}, and no Shareable")
    if (code := result.get_return_code()) != ReturnCode.OK:
        raise _unusable(component, method, f"answered with {code}")
    return result


def _unusable(component: Any, method: str, what: str) -> LearnerError:
    return LearnerError(
        "learner-incomplete",
        f"{method} of the app's {type(component).__name__} {what}.",
        "Let it return what FLARE expects, or raise what is wrong.",
    )


def _result(update: Any, model: _Model) -> Shareable:
    """Return a client's update as its executor has sent it: whole weights, or a difference."""
    said = dict(update.metrics)
    steps = int(update.weight) if update.weight == int(update.weight) else update.weight
    weights = {name: np.array(array) for name, array in update.model.items()}
    kind = DataKind.WEIGHTS
    if said.pop(DataKind.WEIGHT_DIFF, 0):
        kind = DataKind.WEIGHT_DIFF
        weights = {name: np.asarray(array - model[name]) for name, array in weights.items()}
    meta: dict[str, Any] = {MetaKey.NUM_STEPS_CURRENT_ROUND: steps, **said}
    if said and MetaKey.INITIAL_METRICS not in said:
        meta[MetaKey.INITIAL_METRICS] = said
    return DXO(kind, weights, meta).to_shareable()
