"""Slots of a site: no two runs have the same one, and a process is told which are its own."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import msgspec
import pytest
from site_cases import Case, function_package, make_case, make_workers

from hansa.errors import SiteError
from hansa.site.settings import SiteSettings, parse_settings, settings_text
from hansa.site.slots import SlotDesk, lacking, slot_environment
from hansa.site.workers import Workers

ONE, TWO = {"gpu": 1}, {"gpu": 2}


def take(desk: SlotDesk, run: str, asks=ONE, has=TWO, *, idle=(), seconds=0.0, over=False):
    return desk.take(
        run, asks, has, idle=lambda r: r in idle, over=lambda: over, patience_s=seconds
    )


def test_each_run_has_numbers_of_its_own_and_keeps_them() -> None:
    desk = SlotDesk()
    assert take(desk, "a") == {"gpu": (0,)}
    assert take(desk, "b") == {"gpu": (1,)}
    assert take(desk, "a") == {"gpu": (0,)}
    desk.give_back("a")
    assert take(desk, "c") == {"gpu": (0,)}


def test_a_third_run_takes_the_slot_of_one_that_does_nothing() -> None:
    desk = SlotDesk()
    take(desk, "a"), take(desk, "b")
    assert take(desk, "c", idle=["b"]) == {"gpu": (1,)}


def test_where_all_are_used_it_is_waited_for_and_then_refused() -> None:
    desk = SlotDesk()
    take(desk, "a", TWO)
    with pytest.raises(SiteError, match=r"needs 1 gpu; this site has 2 gpu, and lends it to a\."):
        take(desk, "b", seconds=0.01)
    threading.Timer(0.05, desk.give_back, ["a"]).start()
    assert take(desk, "b", seconds=60.0) == {"gpu": (0,)}


def test_more_than_the_site_has_is_refused_at_once() -> None:
    with pytest.raises(SiteError, match="needs 2 gpu; this site has 1 gpu"):
        take(SlotDesk(), "a", TWO, ONE, seconds=600.0)
    assert lacking({"gpu": 1, "fpga": 2}, ONE) == (
        "The plan asks for 2 fpga, 1 gpu, and this site has 1 gpu."
    )


def test_the_numbers_count_among_the_cards_that_the_owner_has_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    said = {"HANSA_SLOTS_GPU": "0,2", "CUDA_VISIBLE_DEVICES": "0,2"}
    assert slot_environment({"gpu": (0, 2)}) == said
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-7f,3")
    assert slot_environment({"gpu": (0, 2)})["CUDA_VISIBLE_DEVICES"] == "5,3"
    assert slot_environment({"big-ram": (1,)}) == {"HANSA_SLOTS_BIG_RAM": "1"}


def test_settings_say_what_there_is_and_keep_it_when_they_are_written_anew() -> None:
    settings = parse_settings('name = "north"\n[resources]\ngpu = 2\n')
    assert settings.resources == TWO
    assert parse_settings(settings_text(settings)) == settings
    for wrong in ("gpu = 0", "gpu = 1.5", '"GPU!" = 1', "gpu = 100000"):
        with pytest.raises(SiteError) as error:
            parse_settings(f'name = "north"\n[resources]\n{wrong}\n')
        assert error.value.code == "site-settings"


@pytest.fixture
def made(tmp_path: Path):
    """Workers of a site with one card; code that says which card it sees."""
    top = "resources = { gpu = 1 }"
    code = "params = {'w': params['w'] + 10 * float(os.environ['CUDA_VISIBLE_DEVICES'])}"
    case = make_case(function_package(tmp_path / "code", code, top=top))
    workers = make_workers(tmp_path / "site", {}, sandbox="none")
    workers.settings = msgspec.structs.replace(workers.settings, resources=ONE)
    yield workers, case
    workers.close_all()


def train(workers: Workers, case: Case, run: str):
    offer = msgspec.structs.replace(case.offer, run=run)
    update = case.package.parent / f"update-{run}"
    return workers.train(offer, case.package, 1, case.message, update)


@pytest.mark.skipif(sys.platform == "win32", reason="processes of POSIX")
def test_two_runs_share_one_card_one_after_the_other_and_see_its_number(made) -> None:
    workers, case = made
    assert train(workers, case, "first").state == "done"
    first = workers._slots["first"].worker
    assert train(workers, case, "second").state == "done"
    assert workers._slots["first"].worker is None, "it did nothing, and its process has ended"
    assert first is not None and not first.alive
    assert train(workers, case, "first").state == "done", "and it comes again"


@pytest.mark.skipif(sys.platform == "win32", reason="processes of POSIX")
def test_a_run_that_was_put_to_rest_counts_its_examples_without_the_card(
    made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had started again with the number of a card that was lent to another run by then."""
    workers, case = made
    told = []
    start = workers.start_worker

    def noted(command, folder, more):
        told.append(more.get("CUDA_VISIBLE_DEVICES"))
        return start(command, folder, more)

    monkeypatch.setattr(workers, "start_worker", noted)
    for run in ("first", "second"):
        assert train(workers, case, run).state == "done"
    offer = msgspec.structs.replace(case.offer, run="first")
    assert workers.ready(offer, case.package).state == "done"
    assert told == ["0", "0", ""]


@pytest.mark.skipif(sys.platform == "win32", reason="processes of POSIX")
def test_a_site_without_the_card_answers_and_goes_on(made) -> None:
    workers, case = made
    workers.settings = SiteSettings(name="client-0", policy=workers.settings.policy)
    result = train(workers, case, "first")
    assert (result.state, result.code) == ("failed", "site-busy")
