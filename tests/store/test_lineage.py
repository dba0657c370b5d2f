"""Places that keep models: the same suite in memory, on disk, and in Redis over a real socket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_redis import FakeRedis

from hansa.errors import StoreError
from hansa.params import Params
from hansa.store import redis_lineage
from hansa.store.lineage import DiskLineage, Lineage, MemoryLineage
from hansa.store.redis_lineage import RedisLineage


def model(number: float, owner: str = "") -> Params:
    """Return a model that no other round or owner has; signed, two dtypes, a tensor of nothing."""
    w = np.float32([[number, -1.5], [len(owner), 0.25 - number]])
    return Params.of({"w": w, "n": np.int64([int(number) - 7]), "none": np.zeros(0, np.float32)})


@pytest.fixture
def redis() -> Iterator[FakeRedis]:
    pytest.importorskip("redis")
    server = FakeRedis()
    yield server
    server.stop()


@pytest.fixture(params=["memory", "disk", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Lineage]:
    if request.param == "redis":
        server = request.getfixturevalue("redis")
        return lambda: RedisLineage(server.url, "hansa|run-1")
    if request.param == "disk":
        return lambda: DiskLineage(tmp_path / "lineage")
    return MemoryLineage


def test_the_newest_of_each_owner_stay_and_come_back_as_they_were(
    place: Callable[[], Lineage],
) -> None:
    lineage = place()
    for number in (1, 2, 9, 10, 11):  # 9 before 10: numbers are no text
        owned = [(owner, model(number, owner)) for owner in ("", "north", "süd/../x|y")]
        lineage.add(number, owned, newest=3)
    lineage.add(12, [("north", model(12, "north"))], newest=3)
    assert lineage.numbers("") == [9, 10, 11] and lineage.numbers("north") == [10, 11, 12]
    for owner in ("", "süd/../x|y"):
        found = lineage.get(owner, 10)
        assert found is not None and found.digest() == model(10, owner).digest()
    assert lineage.get("north", 9) is None and lineage.get("nobody", 10) is None
    assert lineage.numbers("nobody") == []


def test_nothing_goes_with_no_limit_and_what_comes_again_replaces(
    place: Callable[[], Lineage],
) -> None:
    lineage = place()
    for number in (1, 2, 3, 2):
        lineage.add(number, [("", model(number * 10))], newest=0)
    lineage.add(2, [("", model(-5))], newest=0)  # after a crash before the commit
    assert lineage.numbers("") == [1, 2, 3]
    found = lineage.get("", 2)
    assert found is not None and found.digest() == model(-5).digest()


def test_a_lineage_of_one_keeps_the_last(place: Callable[[], Lineage]) -> None:
    lineage = place()
    for number in (1, 2):
        lineage.add(number, [("", model(number))], newest=1)
    assert lineage.numbers("") == [2] and lineage.get("", 2) is not None


def test_disk_and_redis_outlive_the_process(tmp_path: Path, redis: FakeRedis) -> None:
    places: list[Callable[[], Lineage]] = [
        lambda: DiskLineage(tmp_path),
        lambda: RedisLineage(redis.url, "hansa|run-1"),
    ]
    for make in places:
        make().add(3, [("a", model(3))], newest=2)
        found = make().get("a", 3)
        assert found is not None and found.digest() == model(3).digest()


def test_runs_do_not_see_each_other(redis: FakeRedis) -> None:
    RedisLineage(redis.url, "hansa|run-1").add(3, [("", model(3))], newest=1)
    assert RedisLineage(redis.url, "hansa|run-2").numbers("") == []


def test_a_large_model_travels_in_pieces_and_few_batches(
    redis: FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_lineage, "LINEAGE_PIECE_BYTES", 1000)
    monkeypatch.setattr(redis_lineage, "LINEAGE_BATCH_BYTES", 9_500)
    large = Params.of({"w": np.arange(1_100, dtype=np.float32) - 550})  # 4,400 bytes, 12 pieces
    lineage = RedisLineage(redis.url, "k")
    lineage.add(1, ((name, large) for name in "abcde"), newest=2)
    assert redis.transactions == 2  # two of them are below a batch, three are not
    assert max(len(piece) for table in redis.hashes.values() for piece in table.values()) <= 1000
    found = lineage.get("e", 1)
    assert found is not None and found.digest() == large.digest()


def test_a_redis_that_is_away_is_told_without_its_password(redis: FakeRedis) -> None:
    lineage = RedisLineage(redis.url, "k")
    redis.stop()
    lineage._redis.connection_pool.disconnect()
    with pytest.raises(StoreError) as raised:
        lineage.add(1, [("", model(1))], newest=1)
    assert raised.value.code == "store-redis" and "secret" not in str(raised.value)
    assert "127.0.0.1" in str(raised.value)
    for url in (redis.url, "redis://h:port", "ftp://h"):
        with pytest.raises(StoreError, match="store-redis"):
            RedisLineage(url, "k")


def test_without_the_client_library_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(StoreError, match=r"hansa\[redis\]"):
        RedisLineage("redis://127.0.0.1:1/0", "k")


def test_a_file_that_is_none_of_ours_is_no_round(tmp_path: Path) -> None:
    lineage = DiskLineage(tmp_path)
    lineage.add(3, [("", Params.of({"w": np.float32([1.5, -2.0])}))], newest=0)
    (tmp_path / "global" / "round-x.safetensors").write_bytes(b"")
    (tmp_path / "global" / "round-000004.safetensors.bak").write_bytes(b"")
    assert lineage.numbers("") == [3]
