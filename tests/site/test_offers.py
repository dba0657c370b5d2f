"""The owner's word on runs: a denial is felt at once, and an approval for so many rounds holds."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sample_site import make_offer, make_site
from test_tasks import OPEN, Life, Table, encoded, ref

from hansa.errors import ServerError
from hansa.limits import STARTS_AT_ONCE_MAX
from hansa.protocol.messages import BlobRef, Offer, Task, TaskKey
from hansa.site.requests import approve, deny


class Owner:
    """A site whose agent is at work on several runs, and its owner."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.table = Table(make_site(folder, OPEN), monkeypatch)
        self.server, self.workers = self.table.server, self.table.workers
        self.folder = self.table.site.folder
        self.life = Life(self.table, monkeypatch)
        self.archives: dict[str, bytes] = {}
        monkeypatch.setattr("hansa.site.offers.download", self.package)
        self.looked_at: list[str] = []
        self.let_go: dict[str, threading.Event] = {}
        self.began: dict[str, threading.Event] = {}
        self.examples, self.train = self.workers.examples, self.workers.train
        monkeypatch.setattr(self.workers, "examples", self.examples_of)
        monkeypatch.setattr(self.workers, "train", self.train_in)
        self.life.agent.start()

    def package(self, connection: Any, blob: BlobRef, target: Path, **_: Any) -> None:
        target.write_bytes(self.archives[blob.digest])

    def examples_of(self, offer: Offer, package: Path) -> int:
        self.looked_at.append(offer.run)
        self.held(f"look at {offer.run}")
        return self.examples(offer, package)

    def train_in(self, offer: Offer, *args: Any, **facts: Any) -> Any:
        self.held(f"train {offer.run}")
        return self.train(offer, *args, **facts)

    def hold(self, what: str) -> None:
        """Let something begin, and not go on."""
        self.began[what], self.let_go[what] = threading.Event(), threading.Event()

    def held(self, what: str) -> None:
        if what in self.began:
            self.began[what].set()
            assert self.let_go[what].wait(20)

    def approve(self, offer: Offer, *, rounds: int | None = None) -> None:
        approve(self.folder, offer.identity, until=None, max_rounds=rounds, by="kim")

    def deny(self, offer: Offer) -> None:
        deny(self.folder, offer.identity, reason="No.", by="kim")

    def offered(self, *runs: str, rounds: int | None = None, **plan: Any) -> list[Offer]:
        """Let runs of one plan ask, once it is approved."""
        made = [make_offer(self.table.site, run=run, **plan) for run in runs]
        self.archives |= {offer.package.digest: archive for offer, archive in made}
        self.approve(made[0][0], rounds=rounds)
        offers = [offer for offer, _ in made]
        self.life.say(offers=offers)
        return offers

    def ready(self, *runs: str, **facts: Any) -> list[Offer]:
        before = len(self.server.standings)
        offers = self.offered(*runs, **facts)
        self.life.until(lambda: len(self.server.standings) == before + len(runs))
        assert {s.state for s in self.server.standings[before:]} == {"ready"}
        return offers

    def ask(self, *runs: str, number: int = 1) -> None:
        """Ask for a round of some runs."""
        data = encoded(float(number))
        self.table.blobs[ref(data).digest] = data
        keys = [TaskKey(run=run, round=number, phase="train") for run in runs]
        self.life.say(tasks=[Task(key=key, message=ref(data)) for key in keys])

    def reasons(self, count: int) -> list[str]:
        """Return why there were no updates, once there are so many answers."""
        self.life.until(lambda: len(self.server.results) == count)
        return [r.reason for _, r in self.server.results if r.state == "failed"]


@pytest.fixture
def owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Owner]:
    owner = Owner(tmp_path / "north", monkeypatch)
    yield owner
    for event in owner.let_go.values():
        event.set()
    owner.life.agent.close()


DENIED = "The site's owner has denied it: No."


def test_a_denial_that_comes_while_its_run_is_looked_at_is_not_lost(owner: Owner) -> None:
    owner.hold("look at study-1")
    [offer] = owner.offered("study-1")
    assert owner.began["look at study-1"].wait(20)
    owner.deny(offer)
    assert owner.life.agent._offers.look_again()
    assert owner.workers.cancelled == ["study-1"], "its code is let run on"
    owner.let_go["look at study-1"].set()
    owner.life.until(lambda: owner.server.standings)
    owner.ask("study-1")
    assert owner.reasons(1) == [DENIED]
    assert [s.reason for s in owner.server.standings] == [DENIED]
    assert not owner.workers.trained


def test_a_denial_waits_for_no_other_run(owner: Owner) -> None:
    """A thread that looks at runs may be held up for as long as a task may take."""
    [denied] = owner.ready("study-1")
    owner.hold("train study-1")
    owner.ask("study-1")
    assert owner.began["train study-1"].wait(20)
    owner.hold("look at other-1")
    owner.offered("other-1", seed=5)
    assert owner.began["look at other-1"].wait(20)
    owner.deny(denied)
    assert owner.life.agent._offers.look_again()
    assert owner.workers.cancelled == ["study-1"]
    owner.let_go["train study-1"].set()
    assert owner.reasons(1) == [DENIED], "what was trained before has left"
    owner.ask("study-1", number=2)
    assert owner.reasons(2) == [DENIED] * 2
    assert not owner.server.uploads
    owner.let_go["look at other-1"].set()
    owner.life.until(lambda: len(owner.server.standings) == 3)
    assert {s.state for s in owner.server.standings[1:]} == {"ready", "refused"}


def test_the_word_on_a_run_waits_for_no_other_runs_slow_start(owner: Owner) -> None:
    owner.hold("look at slow-1")
    owner.offered("slow-1", seed=5)
    assert owner.began["look at slow-1"].wait(20)
    owner.ready("study-1")
    owner.ask("study-1")
    owner.life.until(lambda: owner.server.receipts, "a task waits for another run's start")
    owner.let_go["look at slow-1"].set()
    owner.life.until(lambda: len(owner.server.standings) == 2)
    assert [s.state for s in owner.server.standings] == ["ready", "ready"]


def test_no_more_runs_are_started_at_a_time_than_the_limit_says(owner: Owner) -> None:
    runs = [f"study-{n}" for n in range(STARTS_AT_ONCE_MAX + 2)]
    for run in runs:
        owner.hold(f"look at {run}")
    owner.offered(*runs)
    owner.life.until(lambda: len(owner.looked_at) == STARTS_AT_ONCE_MAX)
    assert not any(owner.began[f"look at {run}"].wait(0.1) for run in runs[STARTS_AT_ONCE_MAX:])
    for run in runs:
        owner.let_go[f"look at {run}"].set()
    owner.life.until(lambda: len(owner.server.standings) == len(runs))
    assert sorted(owner.looked_at) == runs, "each once"


def test_runs_that_ask_at_once_fetch_a_package_that_they_share_once(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[Path] = []

    def package(connection: Any, blob: BlobRef, target: Path, **facts: Any) -> None:
        fetched.append(target)
        threading.Event().wait(0.2)  # in which the other threads would begin, too
        owner.package(connection, blob, target, **facts)

    monkeypatch.setattr("hansa.site.offers.download", package)
    owner.ready("study-1", "study-2", "study-3")
    assert len(fetched) == 1


def test_a_denial_ends_every_start_of_its_plan_and_no_other(owner: Owner) -> None:
    for run in ("study-1", "study-2", "other-1"):
        owner.hold(f"look at {run}")
    [denied, _] = owner.offered("study-1", "study-2")
    owner.offered("other-1", seed=5)
    owner.life.until(lambda: len(owner.looked_at) == 3)
    owner.deny(denied)
    assert owner.life.agent._offers.look_again()
    assert sorted(owner.workers.cancelled) == ["study-1", "study-2"]


def test_a_denial_holds_from_the_next_task_on_though_nobody_has_looked(owner: Owner) -> None:
    [offer] = owner.ready("study-1")
    owner.ask("study-1")
    owner.life.until(lambda: owner.server.receipts)
    owner.deny(offer)
    owner.ask("study-1", number=2)
    assert owner.reasons(2) == [DENIED]
    owner.life.until(lambda: owner.server.standings[-1].reason == DENIED)
    assert owner.workers.trained == [1]


def test_a_denial_while_the_message_is_fetched_keeps_its_task_from_beginning(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    [offer] = owner.ready("study-1")

    def slow(connection: Any, blob: BlobRef, target: Path, **_: Any) -> list[str]:
        owner.deny(offer)
        return owner.table.download(connection, blob, target)

    monkeypatch.setattr("hansa.site.tasks.download", slow)
    owner.ask("study-1")
    assert owner.reasons(1) == [DENIED]
    assert not owner.workers.trained


def test_a_denial_keeps_back_what_waits_for_a_server_that_is_away(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    [offer] = owner.ready("study-1")
    tries = []

    def away(*args: Any, **facts: Any) -> None:
        tries.append(args)
        owner.deny(offer)
        raise ServerError("server-unreachable", "It is away.", "Wait.")

    monkeypatch.setattr("hansa.site.tasks.deliver", away)
    owner.ask("study-1")
    assert owner.reasons(1) == [DENIED]
    assert len(tries) == 1 and not owner.server.receipts


def test_a_run_that_goes_on_is_looked_at_without_its_worker(owner: Owner) -> None:
    """A worker may be busy for as long as a task takes, and all other runs would wait for it."""
    owner.ready("study-1")
    site = owner.folder / "site.toml"
    site.write_text(site.read_text() + "max_rounds = 100\n")
    assert owner.life.agent._offers.look_again()
    owner.ready("other-1", seed=5)  # has been looked at after the first
    assert owner.looked_at == ["study-1", "other-1"]
    site.write_text(site.read_text().replace("100", "1"))
    assert owner.life.agent._offers.look_again()
    owner.life.until(lambda: len(owner.server.standings) == 4)
    assert {s.state for s in owner.server.standings[2:]} == {"refused"}


def test_what_was_denied_and_is_approved_goes_on(owner: Owner) -> None:
    [offer] = owner.ready("study-1")
    for say, state in ((owner.deny, "refused"), (owner.approve, "ready")):
        say(offer)
        assert owner.life.agent._offers.look_again()
        owner.life.until(lambda state=state: owner.server.standings[-1].state == state)
    owner.ask("study-1")
    owner.life.until(lambda: owner.server.receipts)


def test_an_approval_for_some_rounds_holds_for_runs_that_go_on_beside_each_other(
    owner: Owner,
) -> None:
    runs = [f"study-{n}" for n in range(1, 6)]
    owner.ready(*runs, rounds=2)
    for run in runs:
        owner.hold(f"train {run}")
    owner.ask(*runs)
    told = (
        "The owner's approval was for 2 rounds, all done or begun, and the plan has 3. The site "
        "takes part again once its owner approves the plan anew."
    )
    assert owner.reasons(3) == [told] * 3
    for run in runs:
        owner.let_go[f"train {run}"].set()
    assert len(owner.reasons(5)) == 3
    owner.life.until(lambda: len(owner.server.receipts) == 2)


def test_a_round_that_came_to_nothing_may_be_taken_by_another_run(owner: Owner) -> None:
    owner.ready("study-1", "study-2", rounds=1)
    owner.hold("train study-1")
    owner.ask("study-1")
    assert owner.began["train study-1"].wait(20)
    owner.ask("study-2")
    assert len(owner.reasons(1)) == 1
    assert {s.state for s in owner.server.standings} == {"ready"}, "a round may still be had"
    owner.workers.dying = 2
    owner.let_go["train study-1"].set()
    assert len(owner.reasons(2)) == 2
    owner.ask("study-2", number=2)
    owner.life.until(lambda: owner.server.receipts)
    owner.ask("study-1", number=2)
    owner.life.until(lambda: owner.server.standings[-1].state == "waiting")
    assert len(owner.reasons(3)) == 2, "how it stands is told by its standing alone"


@pytest.mark.parametrize("why", ["rounds", "site.toml", "approvals.jsonl"])
def test_what_waits_for_its_owner_is_done_once_the_owner_has_decided(
    owner: Owner, why: str
) -> None:
    """It was told as a failure, which ended a run that could not be without this site."""
    [offer] = owner.ready("study-1", rounds=1 if why == "rounds" else None)
    owner.ask("study-1")
    owner.life.until(lambda: owner.server.receipts)
    file = owner.folder / why
    whole = "" if why == "rounds" else file.read_text()
    if whole:
        file.write_text(whole + "x y\nz\n")
    owner.ask("study-1", number=2)
    owner.life.until(lambda: owner.server.standings[-1].state == "waiting")
    assert len(owner.reasons(1)) == 0 and len(owner.workers.trained) == 1
    if whole:
        file.write_text(whole)
    else:
        owner.approve(offer, rounds=5)
    assert owner.life.agent._offers.look_again()
    owner.life.until(lambda: owner.server.standings[-1].state == "ready")
    owner.ask("study-1", number=2)  # as a server does that does not see it held any more
    owner.life.until(lambda: len(owner.server.receipts) == 2)


@pytest.mark.parametrize("withheld", ["before it is begun", "while it is worked on"])
def test_a_task_that_is_withheld_is_given_back_once_the_run_goes_on(
    owner: Owner, withheld: str
) -> None:
    owner.ready("study-1")
    key = TaskKey(run="study-1", round=1, phase="train")
    site = owner.folder / "site.toml"
    whole = site.read_text()
    if withheld == "while it is worked on":
        owner.hold("train study-1")
        owner.ask("study-1")
        assert owner.began["train study-1"].wait(20)
        site.write_text("nonsense")
        owner.let_go.pop("train study-1").set()
        del owner.began["train study-1"]
    else:
        site.write_text("nonsense")
        owner.ask("study-1")
    owner.life.until(lambda: owner.server.standings[-1].state == "waiting")
    holding = owner.life.agent._holding
    owner.life.until(lambda: key in holding and holding[key].over)
    site.write_text(whole)
    assert owner.life.agent._offers.look_again()
    owner.life.until(lambda: owner.server.standings[-1].state == "ready")
    owner.life.until(lambda: key not in holding, "it is held for good")
    assert not owner.server.results and not owner.server.uploads


def test_the_last_round_is_finished_though_the_owner_changes_something(owner: Owner) -> None:
    owner.ready("study-1", rounds=1)
    owner.hold("train study-1")
    owner.ask("study-1")
    assert owner.began["train study-1"].wait(20)
    site = owner.folder / "site.toml"
    site.write_text(site.read_text() + "max_rounds = 100\n")
    assert owner.life.agent._offers.look_again()
    owner.let_go["train study-1"].set()
    owner.life.until(lambda: owner.server.receipts)
    assert not owner.workers.cancelled
