"""What a run and the process of its server functions say to each other.

A frame, then as many bytes of tensors as its `size` says; see `hansa.hosting.wire`.  Of an
aggregation the call comes first, then each update, then `Go`; other calls are answered at once.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from hansa.hosting.confined import Limits

Function = Literal["select", "settings", "aggregate"]

FUNCTIONS: tuple[Function, ...] = ("select", "settings", "aggregate")
"""What a file of server functions may define."""


class _Frame(msgspec.Struct, frozen=True, tag_field="kind", tag=str.lower):
    """One frame."""


class Setup(_Frame, frozen=True):
    """First: whose functions."""

    limits: Limits
    folder: str  # of the project's code
    file: str  # in it
    seed: int
    rounds: int
    size: int = 0


class Call(_Frame, frozen=True):
    """Call a function; its arrays are the model's, and those of its memory."""

    function: Function
    round: int
    clients: list[str] = []  # of `select`: who is there; of `settings`: who is asked
    memory: Any = None
    size: int = 0


class One(_Frame, frozen=True):
    """One client's update, for `aggregate`; its arrays are the client's model."""

    client: str
    weight: float
    metrics: dict[str, float]
    size: int = 0


class Go(_Frame, frozen=True):
    """All updates have been sent."""

    size: int = 0


class Ready(_Frame, frozen=True):
    """The file has been imported."""

    size: int = 0


class Returned(_Frame, frozen=True):
    """What a function returned; arrays are those of the model, and of its memory."""

    value: Any = None
    memory: Any = None
    size: int = 0


class Raised(_Frame, frozen=True):
    """What the code raised, in a sentence, and its traceback."""

    what: str
    trace: str
    size: int = 0


Request = Setup | Call | One | Go
Reply = Ready | Returned | Raised

MODEL, KEPT = "model/", "memory/"
"""How names of arrays begin, by what they belong to."""
