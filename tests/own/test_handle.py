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
import pytest
from handles import deployed, simulated

from hansa.errors import RunError
from hansa.own.answering import Answering
from hansa.own.handle import RemoteFederation
from hansa.own.values import as_kind, plain
from hansa.own.wants import WANTS
from hansa.params import Params, decode, encode
from hansa.rounds import Terms
from hansa.server.exchange import Interrupted
from hansa.testing import check_federation
from hansa.testing.case import Case
from hansa.workflows import AtWork, Commit, Federation, GlobalState, drive


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


def refused(handle: RemoteFederation, ask: Callable[[RemoteFederation, Commit], Any]) -> str:
    commit = handle.resume()
    with pytest.raises(RunError) as caught:
        found = ask(handle, commit)
        if hasattr(found, "send"):
            drive(found)
    assert caught.value.code == "function-failed"
    return caught.value.happened


def other(state: GlobalState, x: Any) -> GlobalState:
    return state._replace(algorithm=type(state.algorithm)(state.algorithm, x=x))


def row(**values: Any) -> dict[str, Any]:
    return {"round": 1, **values}


ONE = {"x": np.ones(1, np.float32)}

ASKED: dict[str, tuple[Callable[[RemoteFederation, Commit], Any], str]] = {
    "a round to come": (lambda h, c: h.train(2, c.state, ["a"], terms=Terms()), "round 2"),
    "strangers": (lambda h, c: h.train(1, c.state, ["nobody"], terms=Terms()), "not there"),
    "one twice": (lambda h, c: h.evaluate(1, c.state, [*(n := _one(h)), *n]), "twice"),
    "steps of others": (
        lambda h, c: h.train(1, c.state, _one(h), terms=Terms(), steps={"nobody": 3}),
        "not in the cohort",
    ),
    "no steps": (
        lambda h, c: h.train(1, c.state, _one(h), terms=Terms(), steps={_one(h)[0]: 0}),
        "nobody can take",
    ),
    "a goal below nothing": (
        lambda h, c: h.train(1, c.state, _one(h), terms=Terms(goal=-1)),
        "cannot be",
    ),
    "settings without end": (
        lambda h, c: h.train(1, c.state, _one(h), terms=Terms(), settings={"x": "y" * 2**18}),
        "characters",
    ),
    "another model": (lambda h, c: h.evaluate(1, other(c.state, np.ones(1)), []), "other tensors"),
    "other buffers": (
        lambda h, c: h.evaluate(1, c.state._replace(buffers=np.ones(9)), []),
        "another model",
    ),
    "a model of NaN": (
        lambda h, c: h.commit(
            c._replace(round=1, state=other(c.state, c.state.algorithm.x * np.float32("nan"))), []
        ),
        "",
    ),
    "a row of another round": (
        lambda h, c: h.commit(c._replace(round=1, row=row(round=2)), []),
        "row",
    ),
    "a row that nobody can read": (
        lambda h, c: h.commit(c._replace(round=1, row=row(clients=[1])), []),
        "nobody can read",
    ),
    "a row without counts, by that name": (
        lambda h, c: h.commit(c._replace(round=1, row=row(clients=None)), []),
        "nobody can read",
    ),
    "a progress of its own kind": (
        lambda h, c: h.commit(c._replace(round=1, row=row(), progress={"mine": 1}), []),
        "nobody can read",
    ),
    "a best round to come": (
        lambda h, c: h.commit(c._replace(round=1, row=row(), progress={"best_round": 9}), []),
        "another round",
    ),
    "what was not held": (
        lambda h, c: h.commit(c._replace(round=1, row=row(), holds=frozenset({("a", 1)})), []),
        "not held",
    ),
    "vectors that were not held": (lambda h, c: h.held("a", 7), "not held"),
    "vectors of strangers": (lambda h, c: h.hold("x" * 5001, 1, ONE), "who is not there"),
    "vectors before there is a roster": (lambda h, c: h.hold("client-1", 1, ONE), "not there"),
    "vectors of a round to come": (lambda h, c: h.hold(_one(h)[0], 2, ONE), "round 2"),
    "vectors of no round": (lambda h, c: h.hold(_one(h)[0], -7, ONE), "round -7"),
    "vectors of many models": (
        lambda h, c: h.hold(_one(h)[0], 1, {"x": np.zeros(5_000_000)}),
        "40,000,000 bytes",
    ),
    "more vectors than clients": (
        lambda h, c: [h.hold(one, 1, ONE) for one in 2 * drive(h.roster(1))],
        "more clients",
    ),
    "a model that was not kept": (lambda h, c: h.recall(5), "not kept"),
    "rounds to come at work": (
        lambda h, c: h.arrivals(1, c.state, [], at_work={"a": AtWork(9)}, count=1),
        "have not been",
    ),
    "nothing to wait for": (
        lambda h, c: h.arrivals(1, c.state, _one(h), at_work={}, count=0),
        "0 updates",
    ),
    "numbers for words": (lambda h, c: h.roster("one"), "another kind"),  # type: ignore[arg-type]
    "another method": (lambda h, c: h._want("stop", ()), "no such method"),
    "a private one": (lambda h, c: h._want("check_round", (1,)), "no such method"),
}


def _one(handle: RemoteFederation) -> list[str]:
    return list(drive(handle.roster(1)))[:1]


@pytest.mark.parametrize("what", ASKED)
def test_what_no_workflow_may_have_is_denied(tmp_path: Path, what: str) -> None:
    """By the deployed handle, which has only seen trusted callers before."""
    ask, words = ASKED[what]
    with deployed(Case(), tmp_path) as real:
        if what == "a model of NaN":
            with pytest.raises(RunError, match="diverged"):
                handle = remote(real)
                commit = handle.resume()
                drive(ask(handle, commit))
            return
        assert words in refused(remote(real), ask)


def test_training_twice_in_a_round_is_denied(tmp_path: Path) -> None:
    with deployed(Case(), tmp_path) as real:
        handle = remote(real)
        commit = handle.resume()
        roster = list(drive(handle.roster(1)))
        drive(handle.train(1, commit.state, roster, terms=Terms()))
        with pytest.raises(RunError, match="to train twice in round 1"):
            drive(handle.train(1, commit.state, roster, terms=Terms()))
