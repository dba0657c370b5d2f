"""A person's side of a federation: hand a project over, follow its run, bring the results back."""

from hansa.remote.connecting import connected, membership_at
from hansa.remote.fetch import fetch_models
from hansa.remote.follow import follow
from hansa.remote.submit import ENGINE, hand_over, submit
from hansa.remote.words import sentence

__all__ = [
    "ENGINE",
    "connected",
    "fetch_models",
    "follow",
    "hand_over",
    "membership_at",
    "sentence",
    "submit",
]
