"""What a project's process and the one that runs its FLARE clients ask and answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

Kind = Literal["seed", "train", "evaluate", "ask"]

_SIMULATED = "client-"  # and a number: names of simulated clients


def site_of(client: str, sites: Iterable[str] = ()) -> str:
    """Return a client's name as the app knows it: a simulated client-0 is site-1, as in FLARE.

    Args:
      client: its name in the run.
      sites: names that the app gives, which may have capital letters.
    """
    for site in sites:
        if site.lower() == client:
            return site
    number = client.removeprefix(_SIMULATED)
    if client.startswith(_SIMULATED) and number.isdecimal():
        return f"site-{int(number) + 1}"
    return client


class Parts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one app's clients are made of, as in config_fed_client.json."""

    executors: list[dict[str, Any]] = []
    components: list[dict[str, Any]] = []
    data_filters: list[dict[str, Any]] = []
    result_filters: list[dict[str, Any]] = []
    sites: list[str] = []  # the clients that it is deployed to; empty for all
    folder: str = ""  # of its code, below the project's; custom/ lies in it


class Setup(msgspec.Struct, tag="setup", frozen=True):
    """Whose code is to be run."""

    folder: str  # of the code
    digest: bytes  # of it
    file: str  # of the project, which says all this
    apps: list[Parts]  # whose code it is
    persistor: dict[str, Any]  # path and args
    tasks: dict[str, str]  # of "train" and "evaluate": the task's name in the app
    expects: str  # kind of a result
    rounds: int
    start_round: int
    log_levels: dict[str, str]
    says_more: bool = False  # of a result, besides its steps: its kind and its meta's numbers


class Task(msgspec.Struct, tag="task", frozen=True):
    """What one client is to do; the model follows."""

    kind: Kind
    site: str  # the client's name, as the app knows it
    round: int  # as the app counts it
    key: bytes
    size: int
    name: str = ""  # of "ask": the task's name in the app
    settings: dict[str, Any] = {}  # of "ask"


class Answer(msgspec.Struct, tag="answer", frozen=True):
    """What a client has done; its arrays follow."""

    size: int
    metrics: dict[str, float] = {}
    steps: float = 1.0  # NUM_STEPS_CURRENT_ROUND
    facts: dict[str, Any] = {}  # of "ask": what the result says besides arrays
