"""The ledger: what left, in a file that shows any change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.errors import SiteError
from hansa.protocol.messages import Receipt
from hansa.site.ledger import Entry, Ledger, compare

D = f"blake3:{'d' * 64}"


def receipt(digest: str = D, *, run: str = "study-1", number: int = 1, size: int = 40) -> Receipt:
    return Receipt(
        run=run, round=number, phase="train", client="north", digest=digest, size=size, at="t"
    )


def filled(path: Path, entries: int = 3) -> Ledger:
    ledger = Ledger(path)
    for number in range(1, entries + 1):
        ledger.sent(
            "update", run="study-1", round=number, digest=f"blake3:{number:064}", size=40,
            tensors=[("delta", "F32", [10])],
        )  # fmt: skip
    return ledger


def test_what_was_sent_and_confirmed_is_read_back(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    seq = ledger.sent(
        "update", run="study-1", round=2, digest=D, size=40, tensors=[("delta", "F32", [10])],
        detail="loss",
    )  # fmt: skip
    ledger.confirmed(seq, receipt(number=2))
    sent, confirmed = Ledger(tmp_path / "ledger.jsonl").entries()
    assert (sent.seq, sent.kind, sent.run, sent.round) == (1, "update", "study-1", 2)
    assert (sent.digest, sent.size, sent.detail) == (D, 40, "loss")
    assert [(n, d, list(s)) for n, d, s in sent.tensors] == [("delta", "F32", [10])]
    assert (confirmed.kind, confirmed.of, confirmed.receipt) == ("receipt", 1, receipt(number=2))


def test_an_entry_is_in_the_file_when_sent_returns(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    for number in range(1, 4):
        assert ledger.sent("standing", size=number) == number
        assert Ledger(path).check() == number
    for line in path.read_text().splitlines():
        assert json.loads(line)["kind"] == "standing"


def test_no_ledger_is_an_empty_one(tmp_path: Path) -> None:
    assert Ledger(tmp_path / "ledger.jsonl").check() == 0
    assert not list(tmp_path.iterdir())


def test_it_goes_on_where_another_process_ended(tmp_path: Path) -> None:
    filled(tmp_path / "ledger.jsonl", 2)
    assert Ledger(tmp_path / "ledger.jsonl").sent("standing", size=1) == 3
    assert [e.seq for e in Ledger(tmp_path / "ledger.jsonl").entries()] == [1, 2, 3]


def test_a_torn_last_line_never_left_and_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    filled(path)
    whole = path.read_bytes()
    first_two = whole.index(b"\n", whole.index(b"\n") + 1) + 1
    for length in range(first_two, len(whole)):
        path.write_bytes(whole[:length])
        ledger = Ledger(path)
        assert [e.seq for e in ledger.entries()] == [1, 2]
        assert path.stat().st_size == length  # a reader cuts nothing
        assert ledger.sent("standing", size=7) == 3
        last = list(Ledger(path).entries())[-1]
        assert (last.kind, last.size) == ("standing", 7)


def test_any_changed_byte_is_reported_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    filled(path)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 0x01
        path.write_bytes(changed)
        number = next(n for n in range(1, 4) if at < sum(map(len, lines[:n])))
        if at == len(whole) - 1:  # the last line's end is gone: the same as torn
            assert Ledger(path).check() == 2
            continue
        with pytest.raises(SiteError, match=f"line {number}, ") as caught:
            Ledger(path)
        assert caught.value.code == "site-damaged"


@pytest.mark.parametrize(
    ("order", "line"), [([0, 2], 2), ([1, 2], 1), ([1, 0, 2], 1), ([0, 0, 1, 2], 2), ([0, 2, 1], 2)]
)
def test_lines_removed_repeated_or_exchanged_are_reported(
    tmp_path: Path, order: list[int], line: int
) -> None:
    path = tmp_path / "ledger.jsonl"
    filled(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[i] for i in order))
    with pytest.raises(SiteError, match=f"line {line}, "):
        Ledger(path).check()


def test_a_line_of_another_ledger_does_not_fit(tmp_path: Path) -> None:
    filled(tmp_path / "a.jsonl")
    other = Ledger(tmp_path / "b.jsonl")
    other.sent("standing", size=1)
    other.sent("standing", size=2)
    a = (tmp_path / "a.jsonl").read_bytes().splitlines(keepends=True)
    b = (tmp_path / "b.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "a.jsonl").write_bytes(a[0] + b[1] + a[2])
    with pytest.raises(SiteError, match="line 2, "):
        Ledger(tmp_path / "a.jsonl")


def test_two_writers_do_not_mix_their_lines(tmp_path: Path) -> None:
    one, other = Ledger(tmp_path / "ledger.jsonl"), Ledger(tmp_path / "ledger.jsonl")
    one.sent("standing", size=1)
    with pytest.raises(SiteError, match="site-damaged"):
        other.sent("standing", size=2)
    assert Ledger(tmp_path / "ledger.jsonl").check() == 1


def test_a_file_cut_shorter_under_a_writer_stops_it(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "ledger.jsonl")
    (tmp_path / "ledger.jsonl").write_bytes(b"")
    with pytest.raises(SiteError, match="site-damaged"):
        ledger.sent("standing", size=1)


def test_what_could_not_be_written_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = filled(tmp_path / "ledger.jsonl", 1)

    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", broken)
        with pytest.raises(OSError):
            ledger.sent("update", size=99)
    assert ledger.sent("standing", size=1) == 2
    assert [e.size for e in Ledger(tmp_path / "ledger.jsonl").entries()] == [40, 1]


def test_small_messages_are_one_line_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = [1_000.0]
    monkeypatch.setattr("hansa.site.ledger.monotonic", lambda: time[0])
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for _ in range(120):
        ledger.control(100)
        time[0] += 1.0
    ledger.control(100, 3)
    ledger.close()
    ledger.close()
    entries = list(ledger.entries())
    assert {e.kind for e in entries} == {"control"}
    assert sum(e.size for e in entries) == 121 * 100
    assert 2 <= len(entries) <= 3
    assert sum(int(e.detail.split()[0]) for e in entries) == 123


def test_small_messages_that_a_full_disk_did_not_take_are_still_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.control(100, 2)
    with monkeypatch.context() as full:
        full.setattr(Ledger, "_append", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(OSError, match="full"):
            ledger.close()
    ledger.close()
    assert [(e.size, e.detail) for e in ledger.entries()] == [(100, "2 messages")]


# ---------------------------------------------------------------- beside the server's receipts


def test_a_ledger_that_agrees_has_no_difference(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.confirmed(ledger.sent("update", run="study-1", round=1, digest=D, size=40), receipt())
    lost = f"blake3:{'e' * 64}"
    ledger.sent("update", run="study-1", round=1, digest=lost, size=40)  # refused, or lost
    ledger.control(100)
    ledger.close()
    assert compare(ledger.entries(), [receipt()]) == []


def test_an_unconfirmed_update_that_arrived_is_no_difference(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.sent("update", run="study-1", round=1, digest=D, size=40)  # killed before the receipt
    assert compare(ledger.entries(), [receipt()]) == []


def test_what_the_server_has_and_the_ledger_does_not_know_is_told(tmp_path: Path) -> None:
    (found,) = compare([], [receipt()])
    assert found[1:] == ("study-1", 1, D)
    assert "does not know that it left" in found.what


def test_a_receipt_that_the_server_denies_is_told(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.confirmed(ledger.sent("update", run="study-1", round=1, digest=D, size=40), receipt())
    (found,) = compare(ledger.entries(), [])
    assert "the server does not know it" in found.what


def test_another_size_is_told(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.sent("update", run="study-1", round=1, digest=D, size=40)
    assert compare(ledger.entries(), [receipt(size=39)]) == []  # its result message left too
    (found,) = compare(ledger.entries(), [receipt(size=41)])
    assert "41" in found.what and "40" in found.what


KEYS = st.tuples(
    st.sampled_from("ab"), st.integers(1, 3), st.sampled_from([D, f"blake3:{'e' * 64}"])
)


@given(st.sets(KEYS), st.sets(KEYS), st.sets(KEYS))
def test_the_comparison_is_that_of_sets(
    sent: set[tuple[str, int, str]],
    kept: set[tuple[str, int, str]],
    there: set[tuple[str, int, str]],
) -> None:
    def made(key: tuple[str, int, str]) -> Receipt:
        return receipt(key[2], run=key[0], number=key[1])

    entries = [
        Entry(seq=1, at="", kind="update", run=r, round=n, digest=d, size=40) for r, n, d in sent
    ] + [Entry(seq=1, at="", kind="receipt", run=k[0], round=k[1], digest=k[2], receipt=made(k))
         for k in kept]  # fmt: skip
    found = compare(entries, map(made, there))
    assert len(found) == len(there - sent) + len(kept - there)
    assert {d[1:] for d in found} == (there - sent) | (kept - there)
