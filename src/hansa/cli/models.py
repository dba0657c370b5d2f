"""`hansa models`: the trail of committed models, each with what it was made from."""

from __future__ import annotations

from hansa.cli.lazy import LazyGroup, Verb

VERBS = {
    "ls": Verb("models_look:ls", "List models: round, value, and whether they were kept."),
    "show": Verb("models_look:show", "Show one model: its tensors, its parent, what it reached."),
    "ancestors": Verb("models_look:ancestors", "List what a model was made from, across runs."),
    "descendants": Verb("models_look:descendants", "List what was made from a model."),
    "leaves": Verb("models_look:leaves", "List the models that nothing was made from."),
}
"""Every command about models, in the order in which a person meets them."""

command = LazyGroup(
    verbs=VERBS,
    help="Look at the trail of committed models, here or at a federation's server.",
    epilog="To a file: hansa export RUN:ROUND. To go on from one: hansa run --from RUN:ROUND",
)
"""The group itself."""
