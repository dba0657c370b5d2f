"""Models in Redis, for runs that keep more of them than a disk should hold.

    KEY|owners          the set of owners
    KEY|index|OWNER     a sorted set of the rounds that are here, by round
    KEY|model|N|OWNER   a hash of pieces "0", "1" ...; joined they are a safetensors file

A commit takes one transaction however many tensors and owners there are, and a second one where
something is dropped.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from hansa.errors import StoreError
from hansa.limits import LINEAGE_BATCH_BYTES, LINEAGE_PIECE_BYTES, REDIS_WAIT_S
from hansa.params import Params, decode, encode
from hansa.store.lineage import Owned

REDIS_URL = "HANSA_REDIS"
"""Environment variable with the address of the Redis, as in redis://:PASSWORD@HOST:6379/0."""


def redis_library() -> Any:
    """Return the client library of Redis.

    Raises:
      StoreError: store-redis, it is missing.
    """
    try:
        return importlib.import_module("redis")
    except ImportError as error:
        raise StoreError(
            "store-redis",
            f"Keeping models in Redis takes its client library, and that is missing: {error}. "
            "Nothing was started.",
            'Install it with: pip install "hansa[redis]"',
        ) from None


class RedisLineage:
    """Models of one run in a Redis.

    Args:
      url: redis://, rediss:// (over TLS) or unix://; its password is in no message.
      key: begins every key of the run; no other run has it.

    Raises:
      StoreError: store-redis, the client library is missing, or nobody answers at the address.
    """

    def __init__(self, url: str, key: str) -> None:
        self._key, self._place = key, _place(url)
        redis = redis_library()
        self._error: type[Exception] = redis.exceptions.RedisError
        with self._told():
            self._redis: Any = redis.Redis.from_url(
                url,
                protocol=2,  # which servers of all ages speak
                socket_timeout=REDIS_WAIT_S,
                socket_connect_timeout=REDIS_WAIT_S,
            )
            self._redis.ping()

    def add(self, number: int, models: Iterable[Owned], *, newest: int) -> None:
        """Write models in few batches, and drop older ones; see `Lineage`."""
        batch: list[Owned] = []
        for owner, model in models:
            batch.append((owner, model))
            if sum(waiting.nbytes for _, waiting in batch) >= LINEAGE_BATCH_BYTES:
                self._add(number, batch, newest)
                batch = []
        if batch:
            self._add(number, batch, newest)

    def get(self, owner: str, number: int) -> Params | None:
        """Return a model; None if it is not here.

        Raises:
          StoreError: nobody answers.
          ParamsError: what is here is no file of tensors.
        """
        with self._told():
            pieces = self._redis.hgetall(self._model(owner, number))
        if not pieces:
            return None
        content = b"".join(pieces[index] for index in sorted(pieces, key=int))
        return decode(memoryview(content), source=f"round {number} at {self._place}")

    def numbers(self, owner: str) -> list[int]:
        """Return the rounds, oldest first.

        Raises:
          StoreError: nobody answers.
        """
        with self._told():
            return [int(number) for number in self._redis.zrange(self._index(owner), 0, -1)]

    def _add(self, number: int, batch: Sequence[Owned], newest: int) -> None:
        with self._told():
            pipe = self._redis.pipeline(transaction=True)
            for owner, model in batch:
                pipe.delete(self._model(owner, number))
                pipe.hset(self._model(owner, number), mapping=dict(_pieces(model)))
                pipe.zadd(self._index(owner), {str(number): number})
            pipe.sadd(f"{self._key}|owners", *(owner for owner, _ in batch))
            if newest:
                for owner, _ in batch:
                    pipe.zrange(self._index(owner), 0, -(newest + 1))
            answers = pipe.execute()
            old = answers[-len(batch) :] if newest else []
            if any(old):
                pipe = self._redis.pipeline(transaction=True)
                for (owner, _), numbers in zip(batch, old, strict=True):
                    for gone in map(int, numbers):
                        pipe.zrem(self._index(owner), str(gone))
                        pipe.delete(self._model(owner, gone))
                pipe.execute()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (self._error, OSError, ValueError) as error:
            told = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise StoreError(
                "store-redis",
                f"The Redis at {self._place}, which keeps models of this run, does not do what "
                f"it is asked: {told}.",
                f"Start it, or correct its address in {REDIS_URL} or server.toml; the run goes on "
                "from its last committed round.",
            ) from None

    def _index(self, owner: str) -> str:
        return f"{self._key}|index|{owner}"

    def _model(self, owner: str, number: int) -> str:
        return f"{self._key}|model|{number}|{owner}"


def _pieces(model: Params) -> Iterator[tuple[str, bytes | memoryview]]:
    """Give a model's file in pieces: Redis takes up to 512 MB for a value."""
    header, body = encode(model)
    view = memoryview(body).cast("B")
    yield "0", header
    for index, start in enumerate(range(0, len(view), LINEAGE_PIECE_BYTES)):
        yield str(index + 1), view[start : start + LINEAGE_PIECE_BYTES]


def _place(url: str) -> str:
    """Return an address without its password."""
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:200]
    except ValueError:
        return "that address"
