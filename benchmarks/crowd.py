"""A crowd of sites in one process: each with a key, a TLS connection and a session of its own.

    python -m benchmarks.crowd MEMBERS URL AUTHORITY START RAMP_S IDLE_S

MEMBERS is a JSON file of {"key", "certificate", "address"}; each site connects from its own
address of loopback, for the server counts what strangers ask by address.  At START, seconds of the
monotonic clock, they connect, all at once or one after the other in RAMP_S seconds: a session, then
a poll.  Then each polls on, as an agent that has nothing to do, until IDLE_S seconds after the last
one has come.  The answer is one line of JSON.

The client is asyncio by hand, because one process must be a thousand sites.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import ssl
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.stand_in import end_with_input
from hansa.identity import MemberKey, Prover
from hansa.protocol.messages import Poll, PollAnswer, SessionAnswer, SessionRequest

PATIENCE_S = 45.0
"""Seconds after the ramp at which those that have been served are looked at without the others."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Crowd:
    """What the sites of a process have in common, and what they have seen."""

    def __init__(self, url: str, context: ssl.SSLContext, *, start: float) -> None:
        self._place, self._context = urlsplit(url), context
        self._start = start
        self.over = False
        self.served: list[float] = []  # seconds from the start to each site's first poll's answer
        self.statuses: Counter[int] = Counter()
        self.failures: Counter[str] = Counter()
        self.polls = 0

    async def be(self, member: dict[str, str], later_s: float) -> None:
        """Be one site, which tries again as an agent does."""
        await asyncio.sleep(max(0.0, self._start + later_s - time.monotonic()))
        tries = 0
        while True:
            try:
                streams = await asyncio.open_connection(
                    self._place.hostname,
                    self._place.port,
                    ssl=self._context,
                    local_addr=(member["address"], 0),
                    limit=2**14,
                )
                await self._live(member, streams)
                return
            except (OSError, EOFError, asyncio.IncompleteReadError) as error:
                self.failures[type(error).__name__] += 1
                tries += 1
                await asyncio.sleep(random.uniform(0, min(10.0, 0.5 * 2**tries)))

    async def _live(self, member: dict[str, str], streams: Streams) -> None:
        key = MemberKey(Ed25519PrivateKey.from_private_bytes(base64.b64decode(member["key"])))
        asked = msgspec.json.encode(SessionRequest(certificate=member["certificate"]))
        session = msgspec.json.decode(
            await self._ask(streams, "/v1/sessions", asked), type=SessionAnswer
        )
        prover = Prover(key, session.session)
        await self._poll(streams, prover, wait=False)
        self.served.append(time.monotonic() - self._start)
        while not self.over:
            await self._poll(streams, prover, wait=True)
        streams[1].close()

    async def _poll(self, streams: Streams, prover: Prover, *, wait: bool) -> None:
        body = msgspec.json.encode(Poll(version="crowd", wait=wait))
        proof = prover.header("POST", "/v1/poll", blake3(body).hexdigest())
        answer = await self._ask(streams, "/v1/poll", body, proof=proof)
        self.polls += 1
        again = msgspec.json.decode(answer, type=PollAnswer).again_s
        if again and wait:
            await asyncio.sleep(again)

    async def _ask(self, streams: Streams, path: str, body: bytes, proof: str = "") -> bytes:
        """Send a request until it is not refused for coming too often; return its answer."""
        reader, writer = streams
        proven = f"Hansa-Proof: {proof}\r\n" if proof else ""
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{proven}"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        while True:
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            lines = answer.decode("latin-1").split("\r\n")
            fields = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
            content = await reader.readexactly(int(fields.get("content-length", 0)))
            status = int(lines[0].split()[1])
            self.statuses[status] += 1
            if status == 200:
                return content
            if status != 429:
                raise OSError(f"{status} {content[:200]!r}")
            await asyncio.sleep(float(fields.get("retry-after", 1)) * random.uniform(1, 2))


async def main(
    members: Path, url: str, authority: Path, start: float, ramp_s: float, idle_s: float
) -> None:
    """Be all these sites."""
    context = ssl.create_default_context(cafile=str(authority))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    crowd = Crowd(url, context, start=start)
    everybody = json.loads(members.read_text())
    step = ramp_s / len(everybody)
    tasks = [asyncio.create_task(crowd.be(m, n * step)) for n, m in enumerate(everybody)]
    crowd.over = idle_s == 0.0
    # A line when all have been served, so that the server's memory is read while all are there.
    until = start + ramp_s + PATIENCE_S
    while len(crowd.served) < len(everybody) and (idle_s == 0.0 or time.monotonic() < until):
        for task in tasks:
            if task.done():
                task.result()  # one that failed ends all
        await asyncio.sleep(0.25)
    present = len(crowd.served)
    print("served", flush=True)
    await asyncio.sleep(idle_s)
    crowd.over = True
    await asyncio.gather(*tasks)
    found: dict[str, Any] = {
        "served": crowd.served,
        "present": present,
        "statuses": crowd.statuses,
        "failures": crowd.failures,
        "polls": crowd.polls,
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    end_with_input()  # or it would try for ever, when whoever measures is gone
    _members, _url, _authority, *_seconds = sys.argv[1:]
    asyncio.run(main(Path(_members), _url, Path(_authority), *map(float, _seconds)))
