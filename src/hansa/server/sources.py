"""What one address may do before anybody has proven who asks: so often, and so many guesses.

Tables are bounded: the address not heard of for longest is forgotten first.
"""

from __future__ import annotations

import ipaddress
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from hansa.clock import monotonic
from hansa.errors import IdentityError, ServerError
from hansa.limits import (
    INVITE_GUESSES,
    INVITE_LOCK_S,
    OPEN_BURST,
    OPEN_RATE,
    SOURCES_MAX,
)

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

V = TypeVar("V")


def source_of(request: HTTPConnection) -> str:
    """Return the address that a request comes from; of IPv6 its network of 64 bits.

    One customer usually has such a network whole, and would otherwise be 2^64 strangers.
    """
    address = _address(request)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(address), 64), strict=False))
    return "unknown" if address is None else str(address)


def from_this_machine(request: HTTPConnection) -> bool:
    """Say whether a request comes from the server's own machine, as the socket tells."""
    address = _address(request)
    return address is not None and address.is_loopback


def _address(request: HTTPConnection) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


class _Table(Generic[V]):
    """The newest `limit` sources with something about each."""

    def __init__(self, limit: int) -> None:
        self._rows: OrderedDict[str, V] = OrderedDict()
        self._limit = limit

    def get(self, source: str) -> V | None:
        return self._rows.get(source)

    def put(self, source: str, value: V) -> None:
        self._rows[source] = value
        self._rows.move_to_end(source)
        if len(self._rows) > self._limit:
            self._rows.popitem(last=False)

    def __len__(self) -> int:
        return len(self._rows)


class Rates:
    """A bucket of tokens for each source: `burst` at once, `rate` a second in the long run."""

    def __init__(
        self,
        clock: Callable[[], float] = monotonic,
        *,
        rate: float = OPEN_RATE,
        burst: int = OPEN_BURST,
        sources: int = SOURCES_MAX,
    ) -> None:
        self._clock = clock
        self._rate = rate
        self._burst = burst
        self._lock = threading.Lock()
        self._table: _Table[tuple[float, float]] = _Table(sources)  # tokens, seconds

    def take(self, source: str) -> None:
        """Count a request.

        Raises:
          ServerError: too-many-requests, there were too many; this one is not counted.
        """
        now = self._clock()
        with self._lock:
            tokens, since = self._table.get(source) or (float(self._burst), now)
            tokens = min(self._burst, tokens + (now - since) * self._rate)
            self._table.put(source, (tokens - 1 if tokens >= 1 else tokens, now))
        if tokens < 1:
            raise ServerError(
                "too-many-requests",
                f"{source} asks more than {self._rate:g} times a second; nothing was done.",
                "Wait a second, and then a little longer each time.",
            )


class Guesses:
    """Wrong invitations of each source; after too many it is not listened to for a while.

    The lock is the source's alone: a stranger who guesses locks himself out and nobody else.
    While it holds, a right invitation from there is refused as well, or the lock would be none.
    """

    def __init__(
        self, clock: Callable[[], float] = monotonic, *, sources: int = SOURCES_MAX
    ) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._table: _Table[tuple[int, float]] = _Table(sources)  # guesses, seconds of the first

    def check(self, source: str) -> None:
        """Return if the source may try.

        Raises:
          IdentityError: invite-locked.
        """
        with self._lock:
            count, _ = self._recent(source)
        if count >= INVITE_GUESSES:
            raise IdentityError(
                "invite-locked",
                f"{INVITE_GUESSES} invitations from {source} were wrong;"
                f" none from there is looked at for {INVITE_LOCK_S:g} s.",
                "Wait a minute, then paste the invitation whole.",
            )

    def wrong(self, source: str) -> bool:
        """Count a wrong one; return whether this one locks the source out."""
        with self._lock:
            count, first = self._recent(source)
            count += 1
            # The minute of a lock begins with the guess that closed it.
            self._table.put(source, (count, self._clock() if count == INVITE_GUESSES else first))
        return count == INVITE_GUESSES

    def _recent(self, source: str) -> tuple[int, float]:
        now = self._clock()
        count, first = self._table.get(source) or (0, now)
        return (0, now) if now - first >= INVITE_LOCK_S else (count, first)
