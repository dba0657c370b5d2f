"""A combiner in the midst of a server: partial sums by hand, and what must not be let in.

Method: a server in this process; the partial sums are folded here in plain Python integers, from
the law `rint(x * (w * 2^k))` and from nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from fractions import Fraction
from math import ldexp
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from in_process import (
    SEED,
    InProcess,
    Reply,
    Site,
    delivery,
    digest_of,
    done,
    in_process,
    joined,
)
from league import D, N, expected, refused

from hansa.errors import RequestRefused
from hansa.params import Params
from hansa.protocol.messages import (
    BlobRef,
    Partial,
    Poll,
    PollAnswer,
    Standing,
    Standings,
    Task,
    Unable,
)
from hansa.server import relays


class Combiner:
    """A combiner that does by hand what its process does by itself."""

    def __init__(self, server: InProcess, name: str, sites: list[str]) -> None:
        self.server, self.name, self.sites = server, name, sites
        self.member = server.join(name, "combiner")

    def ask(self, method: str, target: str, message: Any = None, **named: Any) -> Reply:
        return self.server.ask(self.member, method, target, message, **named)

    def poll(self, *runs: str) -> PollAnswer:
        poll = Poll(runs=tuple(runs), wait=False, sites=tuple(self.sites), version="1")
        return self.ask("POST", "/v1/poll", poll).read(PollAnswer)  # type: ignore[no-any-return]

    def ready(self, run: str) -> None:
        self.poll()
        said = {s: Standing(state="ready", examples=N[s]) for s in self.sites}
        answer = self.ask("POST", f"/v1/runs/{run}/standings", Standings(sites=said))
        assert answer.status == 200

    def task(self, run: str, number: int = 1) -> Task:
        def given() -> Task | None:
            tasks = self.poll(run).tasks
            return next((t for t in tasks if t.key.round == number and t.key.run == run), None)

        found = self.server.until(given, f"{self.name} gets round {number}")
        assert isinstance(found, Task)
        return found

    def send(self, task: Task, content: bytes, partial: Partial) -> Reply:
        ref = BlobRef(digest=digest_of(content), size=len(content))
        place = f"/v1/updates/{ref.digest}?run={task.key.run}&round={task.key.round}"
        sent = self.ask("PUT", place, body=content)
        if sent.status != 200:
            return sent
        return self.report(task, msgspec.structs.replace(partial, update=ref))

    def report(self, task: Task, partial: Partial) -> Reply:
        key = task.key
        where = f"/v1/runs/{key.run}/rounds/{key.round}/{key.phase}/partial"
        return self.ask("POST", where, partial)


def folded(task: Task, names: list[str], *, bound: float = 2.0**20, scale: int = 1) -> bytes:
    """Return a partial sum, by the law; `scale` makes a wrong one."""
    assert task.fold is not None
    limit = task.fold.weight_limit
    k = 62 - _log2(limit) - _log2(bound)
    total = [sum(round(ldexp(D[n][i] * N[n], k)) for n in names) * scale for i in range(3)]
    weight = sum((Fraction(N[n]) for n in names), Fraction(0))
    spec = {"vectors": {"delta": [3, "float32", bound]}, "weight_limit": limit}
    metadata = {
        "spec": json.dumps(spec),
        "clients": json.dumps(sorted(names)),
        "weight": f"{weight.numerator}/{weight.denominator}",
    }
    return joined(Params.of({"delta": np.array(total, np.int64)}, metadata=metadata))


def _log2(value: float) -> int:
    exponent = 0
    while 2.0**exponent < value:
        exponent += 1
    return exponent


def said(names: list[str], problems: Mapping[str, Unable] | None = None) -> Partial:
    metrics = {n: {"loss": (-1.5 * N[n], float(N[n]))} for n in names}
    return Partial(metrics=metrics, problems=dict(problems or {}), weight=99.0)


class Tiers:
    """North and south behind a combiner, west on its own; updates have a closed form."""

    def __init__(self, server: InProcess) -> None:
        self.server = server
        self.ada = server.join("ada", "submitter")
        self.tier = Combiner(server, "tier", ["north", "south"])
        self.west = Site(server, "west")

    def begin(self, **plan: Any) -> str:
        self.tier.poll()
        self.west.poll()
        run = self.server.submit(self.ada, **({"bound": 2.0**20} | plan))
        self.tier.ready(run)
        self.west.ready(run, N["west"])
        return run

    def send_west(self, run: str) -> None:
        assert self.west.send(self.west.task(run).key, D["west"], N["west"]).status == 200


@pytest.fixture
def tiers(tmp_path: Path) -> Iterator[Tiers]:
    with in_process(tmp_path, heartbeat_s=30.0) as server:
        yield Tiers(server)


BOTH = ["north", "south"]


def test_a_partial_sum_is_merged_with_its_weights(tiers: Tiers) -> None:
    run = tiers.begin()
    task = tiers.tier.task(run)
    assert task.fold is not None and task.fold.clients == BOTH
    assert task.fold.weight_limit == 8.0 and task.fold.most == {"north": 1.0, "south": 3.0}
    answer = tiers.tier.send(task, folded(task, BOTH), said(BOTH))
    assert answer.status == 200
    tiers.send_west(run)
    assert tiers.server.ended(run).state == "finished"
    assert np.array_equal(tiers.server.model(run, 1), expected(*D, seed=SEED))
    (merged,) = tiers.server.events(run, "merged")
    assert (merged["combiner"], merged["clients"], merged["weight"]) == ("tier", BOTH, 4.0)
    committed = tiers.server.events(run, "committed")[-1]
    assert committed["row"]["clients"]["accepted"] == 3


def test_a_combiner_brings_no_result_as_if_it_were_a_site(tiers: Tiers) -> None:
    """Review: its refusal as one that was not asked freed the room of its own merged sum."""
    run = tiers.begin()
    task = tiers.tier.task(run)
    content = folded(task, BOTH)
    target, headers = delivery(task.key, content, done(content, 4.0))
    answer = tiers.tier.ask("PUT", target, body=content, headers=headers)
    assert refused(answer) == (403, "identity-role")
    assert tiers.tier.send(task, content, said(BOTH)).status == 200
    tiers.send_west(run)
    assert tiers.server.ended(run).state == "finished"


def test_what_a_stranger_to_a_round_sends_frees_no_room_in_its_sum(tiers: Tiers) -> None:
    run = tiers.begin()
    task = tiers.tier.task(run)
    assert tiers.tier.send(task, folded(task, BOTH), said(BOTH)).status == 200
    exchange = tiers.server.state.hub.exchange(run, 1, "train")
    assert exchange is not None
    with pytest.raises(RequestRefused, match="update-not-asked"):
        exchange.answer("tier", done(b"", 4.0))
    assert exchange._sum._weights == {"tier": 4}  # type: ignore[union-attr]


def test_a_partial_sum_is_counted_once_however_often_it_comes(tiers: Tiers) -> None:
    run = tiers.begin()
    task = tiers.tier.task(run)
    content = folded(task, BOTH)
    first = tiers.tier.send(task, content, said(BOTH))
    again = tiers.tier.report(
        task,
        msgspec.structs.replace(
            said(BOTH), update=BlobRef(digest=digest_of(content), size=len(content))
        ),
    )
    assert first.body == again.body
    tiers.send_west(run)
    tiers.server.ended(run)
    assert np.array_equal(tiers.server.model(run, 1), expected(*D))
    assert len(tiers.server.events(run, "merged")) == 1


def test_a_partial_sum_that_counted_is_merged_again_after_a_restart(tiers: Tiers) -> None:
    run = tiers.begin()
    task = tiers.tier.task(run)
    assert tiers.tier.send(task, folded(task, BOTH), said(BOTH)).status == 200
    tiers.server.restart()
    tiers.tier.poll(run)
    tiers.send_west(run)
    assert tiers.server.ended(run).state == "finished"
    assert np.array_equal(tiers.server.model(run, 1), expected(*D))


@pytest.mark.parametrize("names", [BOTH, ["north"]])
def test_a_sum_in_place_of_a_lost_one_counts_after_another_crash(
    tiers: Tiers, names: list[str]
) -> None:
    """The combiner has the receipt of its second sum, and is away from then on."""
    run = tiers.begin()
    task = tiers.tier.task(run)
    wrong = folded(task, BOTH, scale=2)
    assert tiers.tier.send(task, wrong, said(BOTH)).status == 200
    tiers.server.leave()
    for path in (tiers.server.folder / "updates").rglob("*"):
        if path.is_file():
            path.unlink()
    tiers.server.start()
    task = tiers.tier.task(run)
    gone = {name: Unable(code="client-failed") for name in BOTH if name not in names}
    assert tiers.tier.send(task, folded(task, names), said(names, gone)).status == 200
    tiers.server.restart()
    tiers.tier.poll(run)
    tiers.server.until(lambda: tiers.server.state.hub.exchange(run, 1, "train"), "it is open")
    tiers.server.lose("tier", *BOTH)
    tiers.send_west(run)
    assert tiers.server.ended(run).state == "finished"
    assert np.array_equal(tiers.server.model(run, 1), expected(*names, "west"))


def test_a_sum_that_is_lost_everywhere_comes_again_from_those_who_still_can(tiers: Tiers) -> None:
    """South was in the lost sum and cannot train again: north's counts, and the round ends."""
    run = tiers.begin()
    task = tiers.tier.task(run)
    assert tiers.tier.send(task, folded(task, BOTH), said(BOTH)).status == 200
    tiers.server.leave()
    for path in (tiers.server.state.folder / "updates").rglob("*"):
        if path.is_file():
            path.unlink()
    tiers.server.start()
    task = tiers.tier.task(run)
    assert task.attempt == 2
    gone = {"south": Unable(code="client-failed", reason="no data any more")}
    again = tiers.tier.send(task, folded(task, ["north"]), said(["north"], gone))
    assert again.status == 200
    tiers.send_west(run)
    assert tiers.server.ended(run).state == "finished"
    assert np.array_equal(tiers.server.model(run, 1), expected("north", "west"))


def test_the_minimum_counts_clients_at_the_end_of_the_round(tiers: Tiers) -> None:
    """FEDn 5: a combiner and a site can answer; three clients were wanted: it is not committed."""
    run = tiers.begin(cohort={"minimum": 3})
    task = tiers.tier.task(run)
    lost = {"south": Unable(code="client-silent", reason="not heard of")}
    assert tiers.tier.send(task, folded(task, ["north"]), said(["north"], lost)).status == 200
    facts = tiers.server.ended(run)
    assert (facts.state, "run-too-few" in facts.reason) == ("failed", True)


def test_a_client_that_failed_behind_a_combiner_is_named(tiers: Tiers) -> None:
    run = tiers.begin()
    task = tiers.tier.task(run)
    lost = {"south": Unable(code="client-failed", reason="ValueError: no rows")}
    assert tiers.tier.send(task, folded(task, ["north"]), said(["north"], lost)).status == 200
    tiers.send_west(run)
    tiers.server.ended(run)
    assert np.array_equal(tiers.server.model(run, 1), expected("north", "west"))
    (problem,) = tiers.server.events(run, "problem")
    assert (problem["client"], problem["code"]) == ("south", "client-failed")
    assert problem["message"] == "ValueError: no rows"


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ("members", "others than its report says"),
        ("damaged", ""),
        ("overflow", "cannot come to"),
    ],
)
def test_a_partial_sum_that_cannot_be_is_refused_whole(tiers: Tiers, wrong: str, what: str) -> None:
    """`update-partial`; its clients are told as refused, and the others' round goes on."""
    run = tiers.begin()
    task = tiers.tier.task(run)
    content = {
        "members": lambda: folded(task, ["north"]),
        "damaged": lambda: folded(task, BOTH)[:-8],
        "overflow": lambda: folded(task, BOTH, scale=2**18),
    }[wrong]()
    answer = tiers.tier.send(task, content, said(BOTH))
    assert answer.code == "update-partial"
    assert what in answer.message
    tiers.send_west(run)
    assert tiers.server.ended(run).state == "finished"
    assert np.array_equal(tiers.server.model(run, 1), expected("west"))


def test_a_partial_sum_of_an_earlier_round_is_not_merged_into_the_next(tiers: Tiers) -> None:
    """FEDn 4."""
    run = tiers.begin(cohort={"grace_s": 1.0}, rounds=2)
    task = tiers.tier.task(run)
    tiers.send_west(run)
    second = tiers.tier.task(run, 2)
    late = tiers.tier.report(task, said(BOTH))
    assert refused(late) == (409, "update-late")
    assert tiers.tier.send(second, folded(second, BOTH), said(BOTH)).status == 200


def test_a_combiner_speaks_for_nobody_else(tiers: Tiers) -> None:
    """Neither for a member of the server, whose name it may not take, nor for strangers."""
    tiers.tier.sites = [*BOTH, "west"]
    assert tiers.tier.poll().taken == ["west"]
    run = tiers.begin()
    task = tiers.tier.task(run)
    assert task.fold is not None and task.fold.clients == BOTH
    partial = Partial(metrics={"west": {"loss": (9.0, 9.0)}})
    assert refused(tiers.tier.report(task, partial)) == (409, "update-not-asked")
    other = Combiner(tiers.server, "other", ["north"])
    assert other.poll().taken == ["north"]
    assert other.poll(run).tasks == []


def test_a_combiner_that_makes_names_up_fills_no_table(
    tiers: Tiers, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiers.begin()
    kept = tiers.server.state.journal.standings(run)
    monkeypatch.setattr(relays, "RELAYED_STANDINGS_MAX", len(kept))
    tiers.tier.sites = ["made-up"]
    tiers.tier.poll()
    word = Standings(sites={"made-up": Standing(state="ready", examples=3)})
    answer = tiers.tier.ask("POST", f"/v1/runs/{run}/standings", word)
    assert refused(answer) == (422, "request-message")
    assert tiers.server.state.journal.standings(run) == kept


def test_a_client_that_comes_by_itself_meanwhile_costs_the_others_nothing(tiers: Tiers) -> None:
    """The combiner still tells of it; that word is not its any more, and the sum counts."""
    run = tiers.begin()
    task = tiers.tier.task(run)
    south = Site(tiers.server, "south")
    south.poll()
    gone = {"south": Unable(code="client-silent")}
    assert tiers.tier.send(task, folded(task, ["north"]), said(["north"], gone)).status == 200
    assert south.send(south.task(run).key, D["south"], N["south"]).status == 200
    tiers.send_west(run)
    assert tiers.server.ended(run).state == "finished"
    assert np.array_equal(tiers.server.model(run, 1), expected(*D))


def test_a_combiner_that_is_silent_takes_its_clients_along_and_nobody_else(tiers: Tiers) -> None:
    """FEDn 7: who is silent is not waited for."""
    run = tiers.begin(cohort={"minimum": 1})
    tiers.tier.task(run)
    tiers.send_west(run)
    tiers.server.lose("tier", "north", "south")
    assert tiers.server.ended(run).state == "finished"
    assert np.array_equal(tiers.server.model(run, 1), expected("west"))
    silent = {p["client"] for p in tiers.server.events(run, "problem")}
    assert silent == set(BOTH)


def test_the_list_of_sites_says_who_is_behind_a_combiner(tiers: Tiers) -> None:
    tiers.tier.poll()
    facts = {m["name"]: m for m in tiers.server.state.member_facts()}
    assert {n: facts[n]["via"] for n in BOTH} == dict.fromkeys(BOTH, "tier")
    assert facts["tier"]["state"] == facts["north"]["state"] == "active"
    tiers.tier.sites = ["north"]
    tiers.tier.poll()
    facts = {m["name"]: m for m in tiers.server.state.member_facts()}
    assert facts["south"]["state"] == "silent"


@pytest.mark.parametrize(
    ("plan", "word"),
    [
        ({"aggregator": "median"}, "median"),
        ({"aggregator": {"name": "krum", "byzantine": 0}}, "krum"),
        ({"algorithm": "scaffold"}, "scaffold"),
        ({"workflow": "cyclic"}, "cyclic"),
        ({"cohort": {"over": 1.5, "fraction": 0.5}}, "cohort.over"),
        ({"cohort": {"late": "discount"}}, "cohort.late"),
    ],
)
def test_a_plan_that_cannot_work_through_a_combiner_is_refused(
    tiers: Tiers, plan: dict[str, Any], word: str
) -> None:
    submission, package, model = tiers.server.submission(tiers.ada, **plan)
    tiers.server.upload(tiers.ada, package, model)
    answer = tiers.server.ask(tiers.ada, "POST", "/v1/runs", submission)
    assert answer.code == "plan-impossible"
    message = answer.message
    assert word in message and "tier" in message


@pytest.mark.parametrize(("minimum", "needed"), [(3, 2), (2, 1), (1, 0)])
def test_a_combiner_is_told_how_many_of_its_clients_the_round_needs(
    tiers: Tiers, minimum: int, needed: int
) -> None:
    """It waits for lost ones as the server would: as long as the minimum needs them."""
    task = tiers.tier.task(tiers.begin(cohort={"minimum": minimum}))
    assert task.fold is not None and task.fold.minimum == needed


def test_a_combiner_that_never_answers_does_not_hold_a_round_past_its_deadline(
    tiers: Tiers,
) -> None:
    """FEDn 3: the server waited without limit until all combiners had reported."""
    run = tiers.begin(cohort={"deadline_s": 2.0})
    task = tiers.tier.task(run)
    tiers.send_west(run)
    assert tiers.server.ended(run).state == "finished"
    assert np.array_equal(tiers.server.model(run, 1), expected("west"))
    assert refused(tiers.tier.report(task, said(BOTH))) == (409, "update-late")


def test_a_client_that_is_away_when_the_server_is_back_still_belongs_to_its_combiner(
    tiers: Tiers,
) -> None:
    """The round was opened with it; its combiner waits for it, and nobody says that it failed."""
    run = tiers.begin(cohort={"minimum": 3})
    tiers.tier.task(run)
    tiers.server.restart()
    tiers.tier.sites = ["north"]
    task = tiers.tier.task(run)
    assert task.fold is not None
    assert (task.fold.clients, task.fold.minimum) == (BOTH, 2)


def test_a_partial_sum_whose_receipt_is_on_its_way_is_sent_again_and_no_other_is(
    tiers: Tiers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the end of an exchange and the write of its receipts nothing is refused for good."""
    run = tiers.begin(rounds=2)
    task = tiers.tier.task(run)
    content = folded(task, BOTH)
    assert tiers.tier.send(task, content, said(BOTH)).status == 200
    tiers.send_west(run)
    tiers.tier.task(run, 2)
    ref = BlobRef(digest=digest_of(content), size=len(content))
    again = msgspec.structs.replace(said(BOTH), update=ref)
    other = Combiner(tiers.server, "other", ["east"])
    other.poll()
    hub, journal = tiers.server.state.hub, tiers.server.state.journal
    assert hub.is_settling(run, 1, "train", "tier") and hub.is_settling(run, 1, "train", "west")
    assert not hub.is_settling(run, 1, "train", "other")
    assert not hub.is_settling(run, 2, "train", "tier")
    with monkeypatch.context() as patch:
        patch.setattr(journal, "receipt", lambda *_, **__: None)  # as if not written yet
        early = tiers.tier.report(task, again)
        assert (early.status, early.code) == (503, "round-not-open")
        stranger = other.report(task, again)
        assert (stranger.status, stranger.code) == (409, "update-late")
    assert tiers.tier.report(task, again).status == 200
    changed = tiers.tier.report(task, said(["north"]))
    assert (changed.status, changed.code) == (409, "update-conflict")
    tiers.server.state.runs.stop(run, "ada")
    tiers.server.until(lambda: not tiers.server.state.runs._threads)
    assert not hub.is_settling(run, 1, "train", "tier")  # nothing counts after the end
