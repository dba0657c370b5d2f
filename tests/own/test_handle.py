"""Goal: a workflow's handle in its process keeps the laws of the handles that it stands for.

Method: the conformance suite, on a handle whose every call becomes bytes and is read back, over
the simulated and over the deployed handle; then what no workflow in that process may have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from handles import deployed, simulated

from hansa.own.answering import Answering
from hansa.own.handle import RemoteFederation
from hansa.own.values import as_kind, plain
from hansa.own.wants import WANTS
from hansa.params import Params, decode, encode
from hansa.server.exchange import Interrupted
from hansa.testing import check_federation
from hansa.testing.case import Case
from hansa.workflows import Federation, drive


def travelled(value: Any) -> tuple[Any, dict[str, np.ndarray]]:
    told, arrays = plain(value)
    whole = b"".join(encode(Params.of(arrays)))
    back = decode(bytearray(whole)).to_dict() if arrays else {}
    return msgspec.msgpack.decode(msgspec.msgpack.encode(told)), back


def remote(real: Federation) -> RemoteFederation:
    answering = Answering(real, lambda clients: None)

    def want(method: str, arguments: Any) -> Any:
        found = drive(answering.answer(method, *travelled(arguments)))
        return as_kind(*travelled(found), WANTS[method].gives)

    return RemoteFederation(real.layout, want)


def over(
    opened: Callable[[Case, Path], AbstractContextManager[Any]],
) -> Callable[[Case, Path], AbstractContextManager[RemoteFederation]]:
    @contextmanager
    def both(case: Case, folder: Path) -> Iterator[RemoteFederation]:
        with opened(case, folder) as real:
            yield remote(real)

    return both


def test_it_keeps_every_law_over_a_simulation(tmp_path: Path) -> None:
    check_federation(over(simulated), tmp_path)


def test_it_keeps_every_law_over_a_federation(tmp_path: Path) -> None:
    check_federation(over(deployed), tmp_path, interrupted=Interrupted)
