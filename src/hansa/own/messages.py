"""What a run and the process of its own parts say to each other.

A frame, then as many bytes of arrays as its `size` says; see `hansa.hosting.wire`.  Who is asked
answers before anything else is asked, but for a workflow: while it waits for what it wants of its
federation, the server may ask the process for other parts.

    server                              process
    Setup                      ---->
                               <----    Ready
    Call(run)                  ---->
                               <----    Wanted(train)
    Call(broadcast)            ---->
                               <----    Returned
    Given                      ---->    the workflow goes on
                               <----    Returned
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from hansa.hosting.confined import Limits

Part = Literal["init", "broadcast", "server", "aggregate", "decode", "run"]
"""What a process is asked for: halves of the algorithm, the rule, the transforms, the workflow."""


class _Frame(msgspec.Struct, frozen=True, tag_field="kind", tag=str.lower):
    """One frame."""


class Setup(_Frame, frozen=True):
    """First: whose code."""

    limits: Limits
    folder: str  # of the project's code
    shown: str  # folder of the files that are shown
    plan: dict[str, Any]
    tensors: list[tuple[str, str, list[int]]]
    buffers: list[str]
    constants: list[str]  # whose values come with it, if a workflow is among the parts
    size: int = 0


class Call(_Frame, frozen=True):
    """Call a part."""

    part: Part
    value: Any = None
    size: int = 0


class Given(_Frame, frozen=True):
    """What a workflow wanted."""

    value: Any = None
    size: int = 0


class Denied(_Frame, frozen=True):
    """Why a workflow does not get what it wanted: a HansaError."""

    code: str
    happened: str
    hint: str
    size: int = 0


class Facts(msgspec.Struct, frozen=True):
    """What a server must know of the parts before it calls any."""

    algorithm: str  # its name
    sends: list[str]
    needs_mean: bool
    uniform: bool
    local_steps: bool
    aggregator: str
    linear: bool
    needs: int
    transform: str
    workflow: str
    tells: str
    timed: bool
    spread: float
    raced: bool


class Ready(_Frame, frozen=True):
    """The parts have been made."""

    facts: Facts
    size: int = 0


class Returned(_Frame, frozen=True):
    """What a part returned."""

    value: Any = None
    size: int = 0


class Wanted(_Frame, frozen=True):
    """What a workflow wants of its federation."""

    method: str
    value: Any = None
    size: int = 0


class Raised(_Frame, frozen=True):
    """What the code raised: the code of a HansaError or nothing, sentences, and its traceback."""

    code: str
    what: str
    hint: str
    trace: str
    size: int = 0


Request = Setup | Call | Given | Denied
Reply = Ready | Returned | Wanted | Raised
