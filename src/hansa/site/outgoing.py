"""A site's own filters on what leaves it: named in its policy, applied by the agent itself.

The run's code has no hand in it: the worker has written its result, and the agent changes the file
before its digest, the ledger and the server know of it.  Averaged buffers and facts are not
filtered.  Of an answer to a named task, tensors are filtered by their own names too.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hansa.errors import PlanError, SiteError, UpdateRefused
from hansa.limits import MESSAGE_CHARS_MAX
from hansa.params import Layout, Params, encode
from hansa.params.dtypes import width
from hansa.params.model import ModelLayout
from hansa.plan import build_named
from hansa.protocol.messages import Offer
from hansa.rounds import BUFFERS
from hansa.rounds.questions import FACTS, unpacked
from hansa.seeds import Key
from hansa.store.addresses import digest_of
from hansa.store.files import load_params, write_durably
from hansa.text import clean
from hansa.transforms import Transform, Wire, clip, percentile, sparse_vector
from hansa.transforms.exclude import without

_WHERE = "policy.filters"

Spans = Sequence[tuple[str, int, int]]
"""Name, start and stop of each trained tensor in a flat vector."""


Sendable = dict[str, tuple[float | None, float | None]]
"""Totals and weights of metrics; None stands for NaN and infinity."""


class Filter(NamedTuple):
    """One step of what is done to vectors before they leave."""

    apply: Callable[[Wire, Spans, Key], Wire]


def exclude(tensors: tuple[str, ...]) -> Filter:
    """Send the values of some tensors as no change.

    Args:
      tensors: names, or patterns such as "head.*".
    """
    return Filter(lambda vectors, spans, key: without(vectors, spans, tensors))


def _of(transform: Callable[..., Transform]) -> Callable[..., Filter]:
    def made(**options: Any) -> Filter:
        found = build_named(
            _WHERE, {"name": "it", **options}, {"it": transform},
            kind=Transform, import_module=_no_module,
        )  # fmt: skip
        return Filter(lambda vectors, spans, key: found.encode(vectors, key))

    return made


FILTERS: Mapping[str, Callable[..., Filter]] = {
    "exclude": exclude,
    "clip": _of(clip),
    "percentile": _of(percentile),
    "sparse_vector": _of(sparse_vector),
}
"""What `filters = [...]` of a policy may name."""


def build_filters(described: Sequence[Mapping[str, Any]]) -> list[Filter]:
    """Return the filters of a policy, in their order.

    Raises:
      SiteError: site-settings, one of them cannot be.
    """
    made = []
    for named in described:
        options = {key: value for key, value in named.items() if key != "name"}
        name = named.get("name")
        if not isinstance(name, str) or name not in FILTERS:
            raise SiteError(
                "site-settings",
                f"The policy has the filter {name!r:.80}, which does not exist.",
                f"There are: {', '.join(sorted(FILTERS))}.",
            )
        told = {"name": name, **options}
        try:
            if name == "exclude":
                given = build_named(_WHERE, told, FILTERS, kind=Filter, import_module=_no_module)
            else:
                given = FILTERS[name](**options)
            made.append(given)
        except PlanError as error:
            raise SiteError("site-settings", error.happened, error.hint) from None
    return made


def filtered(
    update: Path, filters: Sequence[Filter], offer: Offer, *, named: bool = False
) -> tuple[str, int]:
    """Change a result's file; return its digest and size.

    Args:
      update: file of the vectors of an update, or of an answer's tensors.
      filters: in their order.
      offer: the run it belongs to.
      named: it answers a named task, so its tensors have any names, and none holds buffers.

    Raises:
      SiteError: site-filter, what would leave cannot be filtered.
    """
    found = load_params(update)
    vectors = {name: v for name, v in found.to_dict().items() if named or name != BUFFERS}
    method = offer.plan.get("algorithm")
    name = method.get("name") if isinstance(method, dict) else method
    if name == "scaffold":
        raise _unfit(
            "This site's filters cannot be applied to an algorithm that keeps a state at clients. "
            "Nothing was sent."
        )
    # What has another shape is no vector of the model: a filter would let it pass as it is.
    if strange := [] if named else _strange(found.to_dict(), offer):
        raise _unfit(
            f"This site's filters cannot be applied to a vector {strange[0]!r:.80} that is not as "
            "long as the model. Nothing was sent."
        )
    # Noise must be a secret of the site's, so its key is no function of the run's seed.
    key = Key.root(int.from_bytes(os.urandom(7)))
    spans = list(_spans(offer))
    made: Wire = {name: v.copy() for name, v in vectors.items()}
    for position, step in enumerate(filters):
        try:
            made = step.apply(made, spans, key.child(position))
        except UpdateRefused as refusal:
            raise _unfit(f"This site's filter {refusal.happened}") from None
    arrays = {name: made.get(name, v) for name, v in found.to_dict().items()}
    file = encode(Params.of(arrays, found.metadata))
    digest = digest_of(*file)
    del found, vectors, arrays
    write_durably(update, file)
    return digest, sum(len(part) for part in file)


def _strange(vectors: Mapping[str, np.ndarray], offer: Offer) -> list[str]:
    """Return the names of vectors that are not flat and of the model's size."""
    layout = _layout(offer)
    trained = layout.trained.float_size
    averaged = sum(math.prod(spec.shape) for spec in layout.buffers.specs)
    return [
        name
        for name, vector in vectors.items()
        if vector.ndim != 1 or vector.size != (averaged if name == BUFFERS else trained)
    ]


def _layout(offer: Offer) -> ModelLayout:
    tensors = Layout.of((n, d, tuple(shape)) for n, d, shape in offer.tensors)
    return ModelLayout(tensors, offer.buffers, offer.constants)


def _unfit(happened: str) -> SiteError:
    hint = "Its owner can leave the filter out, or the plan what it cannot be applied to."
    return SiteError("site-filter", happened, hint)


def _spans(offer: Offer) -> Iterator[tuple[str, int, int]]:
    """Give where each trained tensor lies in a flat vector, in the order of `ModelLayout`."""
    trained = _layout(offer).trained
    spans = trained.float_spans()
    for spec in trained.specs:
        wide = width(spec.dtype)
        start = spans[spec.dtype][0] + (spec.start - trained.span(spec.dtype)[0]) // wide
        yield spec.name, start, start + (spec.stop - spec.start) // wide


def _no_module(name: str) -> Any:
    raise PlanError("plan-bad-value", f"A policy names no code, such as {name}.", "Name a filter.")


def sendable(metrics: Mapping[str, tuple[float, float]]) -> Sendable:
    """Return metrics as JSON can carry them: what is not finite becomes None."""
    return {
        name: (total if math.isfinite(total) else None, weight if math.isfinite(weight) else None)
        for name, (total, weight) in metrics.items()
    }


def facts_told(asked: tuple[str, int], answer: Params) -> str:
    """Return what an owner reads of the facts in an answer: their names and their JSON's size."""
    names = ", ".join(sorted(unpacked(answer).facts)) or "none"
    size = len(answer.metadata[FACTS].encode())
    return clean(f"task {asked[0]}, facts ({size} bytes): {names}", MESSAGE_CHARS_MAX)
