"""Looks a server over: what is wrong, what soon will be, and the command that helps.

Each check is a function of the opened server that gives findings; it changes nothing.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from hansa.clock import seconds_of, wall
from hansa.errors import HansaError
from hansa.holding import is_held
from hansa.identity import load_key
from hansa.limits import (
    CLOCK_SKEW_S,
    DOCTOR_BACKUP_DAYS,
    DOCTOR_FAILED_DAYS,
    DOCTOR_FREE_BYTES,
    DOCTOR_TLS_DAYS,
    DOCTOR_TWICE_MAX,
)
from hansa.protocol.messages import ENDED
from hansa.server.audit import TWICE, newest
from hansa.server.claims import UNSUBMITTED_FOLDER, claims_in
from hansa.server.journal import Journal
from hansa.server.opening import BACKED_UP, SECRET, Opened
from hansa.server.round_files import Updates
from hansa.server.settings import operated_by
from hansa.server.upkeep import left_over, wanted_blobs
from hansa.store.blobs import BlobStore
from hansa.web.words import byte_size

Grade = Literal["bad", "warn", "good"]

GRADES: tuple[Grade, ...] = ("bad", "warn", "good")
"""In the order in which a person should read them."""

DAY_S = 86_400.0


class Finding(NamedTuple):
    """What a check has found."""

    grade: Grade
    about: str  # one or two words
    told: str
    command: str = ""  # what to type next


class Checkup(NamedTuple):
    """What all checks look at."""

    server: Opened
    journal: Journal
    blobs: BlobStore
    at: float  # wall seconds
    served: bool
    bytes_read: bool  # whether the bytes of models are compared with their digests
    where: str  # the option that names the folder in a command


def examine(server: Opened, *, quick: bool = False, where: str = "", at: float | None = None
            ) -> list[Finding]:  # fmt: skip
    """Return all findings, the bad ones first.

    Args:
      server: running or not.
      quick: do not read the bytes of models.
      where: option that names the folder in commands, with a space before it.
      at: wall seconds; now if None.
    """
    checkup = Checkup(
        server,
        Journal(server.database, lambda _: None),
        BlobStore(server.folder / "blobs", durable=True),
        wall() if at is None else at,
        is_held(server.folder),
        not quick,
        where,
    )
    found: list[Finding] = []
    for about, check in CHECKS.items():
        try:
            found += check(checkup)
        except (HansaError, OSError) as error:
            found.append(Finding("bad", about, f"could not be looked at: {error}"))
    return sorted(found, key=lambda finding: GRADES.index(finding.grade))


def _service(checkup: Checkup) -> Iterator[Finding]:
    settings = checkup.server.settings
    if checkup.served:
        yield Finding("good", "server", f"runs here, for {settings.url}")
    else:
        command = f"{operated_by(checkup.server.folder)} start{checkup.where}"
        yield Finding("warn", "server", "does not run from this folder", command)


def _clock(checkup: Checkup) -> Iterator[Finding]:
    """Compare the clock with the times of what has happened already."""
    folder = checkup.server.folder
    authority = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    times = [line["at"] for line in newest(checkup.server.database, 1)]
    known = [authority.not_valid_before_utc.timestamp(), *map(seconds_of, times)]
    behind = max(known) - checkup.at
    if behind > CLOCK_SKEW_S:
        told = f"is {behind:.0f} s behind the newest thing that this server has written down"
        yield Finding("bad", "clock", told, "timedatectl set-ntp true")
    else:
        yield Finding("good", "clock", "is not behind what was written down")


def _disk(checkup: Checkup) -> Iterator[Finding]:
    use = shutil.disk_usage(checkup.server.folder)
    told = f"{byte_size(use.free)} of {byte_size(use.total)} are free"
    command = f"hansa server runs{checkup.where}"
    if use.free < DOCTOR_FREE_BYTES / 10:
        yield Finding("bad", "disk", told, command)
    elif use.free < DOCTOR_FREE_BYTES:
        yield Finding("warn", "disk", told, command)
    else:
        yield Finding("good", "disk", told)


def _certificates(checkup: Checkup) -> Iterator[Finding]:
    folder, at = checkup.server.folder, checkup.at
    authority = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    years = (authority.not_valid_after_utc.timestamp() - at) / DAY_S / 365
    yield Finding("good" if years > 1 else "bad", "authority", f"holds for {years:.1f} years")
    if not checkup.server.settings.tls:
        told = "is ended by a proxy on this machine; its certificate is not looked at"
        yield Finding("good", "TLS", told)
        return
    try:
        leaf = x509.load_pem_x509_certificates((folder / "tls.pem").read_bytes())[0]
        leaf.verify_directly_issued_by(authority)
    except (OSError, ValueError, TypeError, IndexError, InvalidSignature) as error:
        why = str(error) or "it is not of this authority"
        yield Finding("bad", "TLS", f"the certificate cannot be used: {why}", _restart(checkup))
        return
    days = (leaf.not_valid_after_utc.timestamp() - at) / DAY_S
    told = f"the certificate holds for {days:.0f} days"
    if days <= 0:
        yield Finding("bad", "TLS", told, _restart(checkup))
    elif days < DOCTOR_TLS_DAYS:
        yield Finding("warn", "TLS", f"{told}; a start renews it", _restart(checkup))
    else:
        yield Finding("good", "TLS", told)


def _keys(checkup: Checkup) -> Iterator[Finding]:
    folder = checkup.server.folder
    load_key(folder / "receipt-key.pem")
    for name in SECRET:
        mode = (folder / name).stat().st_mode & 0o077
        if mode:
            path = folder / name
            yield Finding("bad", "keys", f"others may read {path}", f"chmod 600 {path}")
            return
    yield Finding("good", "keys", "are there, and only this user may read them")


def _database(checkup: Checkup) -> Iterator[Finding]:
    path = checkup.server.database.path
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)
        try:
            found = [row[0] for row in connection.execute("PRAGMA integrity_check(5)")]
        finally:
            connection.close()
    except sqlite3.Error as error:
        found = [str(error)]
    if found == ["ok"]:
        yield Finding("good", "database", f"is sound, {byte_size(path.stat().st_size)}")
    else:
        told = f"is damaged: {'; '.join(map(str, found))[:200]}"
        yield Finding("bad", "database", told, "stop the server, and start its last backup")


def _models(checkup: Checkup) -> Iterator[Finding]:
    wanted = wanted_blobs(checkup.server.database)
    whole = checkup.blobs.intact if checkup.bytes_read else checkup.blobs.has
    sound = {digest: whole(digest) for digest in {w.digest for w in wanted}}
    broken = [w for w in wanted if not sound[w.digest]]
    for item in broken[:10]:
        state = "is damaged" if checkup.blobs.has(item.digest) else "is missing"
        told = f"{item.what} of {item.run} {state}: {item.digest[:19]}"
        name = item.digest.removeprefix("blake3:")
        command = f"cp BACKUP/blobs/{name} {checkup.server.folder / 'blobs'}"
        yield Finding("bad", "models", told, command)
    if len(broken) > 10:
        yield Finding("bad", "models", f"and {len(broken) - 10} more of them")
    if not broken:
        how = "are there, byte for byte" if checkup.bytes_read else "are there"
        yield Finding("good", "models", f"{len(sound)} packages and models {how}; 0 are missing")


def _orphans(checkup: Checkup) -> Iterator[Finding]:
    folder = checkup.server.folder
    blobs = {w.digest for w in wanted_blobs(checkup.server.database)}
    groups = {
        "blobs": left_over(checkup.blobs, blobs),
        "updates": _updates_left_over(folder, checkup.journal),
    }
    for what, paths in groups.items():
        size = sum(path.stat().st_size for path in paths if path.exists())
        told = f"{len(paths)} files that nothing refers to, {byte_size(size)}"
        command = f"{operated_by(folder)} doctor --clean{checkup.where}"
        if paths and what == "blobs" and checkup.served:
            yield Finding("good", what, f"{told}; the server removes them within an hour")
        elif paths:
            yield Finding("warn", what, told, command)
        else:
            yield Finding("good", what, "hold nothing that is left over")


def _uploads(checkup: Checkup) -> Iterator[Finding]:
    """Tell what people have uploaded and not submitted, and who has the most of it."""
    of: Counter[str] = Counter()
    for claim in claims_in(checkup.server.folder / UNSUBMITTED_FOLDER):
        of[claim.owner] += claim.size
    told = f"{byte_size(of.total())} are uploaded and not submitted"
    if of:
        owner, size = of.most_common(1)[0]
        told += f"; most by {owner}, {byte_size(size)}"
    yield Finding("good", "uploads", told)


def _backups(checkup: Checkup) -> Iterator[Finding]:
    lines = newest(checkup.server.database, 1, action=BACKED_UP)
    command = f"{operated_by(checkup.server.folder)} backup DIR{checkup.where}"
    if not lines:
        yield Finding("warn", "backup", "none was made yet", command)
        return
    days = (checkup.at - seconds_of(lines[0]["at"])) / DAY_S
    told = f"the last one is {days:.1f} days old, in {lines[0]['object']}"
    old = days > DOCTOR_BACKUP_DAYS
    yield Finding("bad" if old else "good", "backup", told, command if old else "")


def _runs(checkup: Checkup) -> Iterator[Finding]:
    since = checkup.at - DOCTOR_FAILED_DAYS * DAY_S
    rows = checkup.journal.runs()
    failed = [r for r in rows if r.state == "failed" and r.ended_at]
    failed = [r for r in failed if seconds_of(r.ended_at) >= since]
    stuck = [r for r in rows if r.state == "waiting"]
    command = f"hansa server runs{checkup.where}"
    for row in failed:
        yield Finding("warn", "runs", f"{row.run} failed: {row.reason[:200]}", command)
    for row in stuck:
        why = row.reason or "it has not begun"
        yield Finding("warn", "runs", f"{row.run} waits: {why[:200]}", command)
    if not failed and not stuck:
        going = sum(row.state not in ENDED for row in rows)
        yield Finding("good", "runs", f"{going} at work, and none has failed lately")


def _twice(checkup: Checkup) -> Iterator[Finding]:
    """Tell of members whose key two agents have used at once."""
    since = checkup.at - DOCTOR_FAILED_DAYS * DAY_S
    lines = newest(checkup.server.database, DOCTOR_TWICE_MAX, action=TWICE)
    last = {line["who"]: line["at"] for line in lines if seconds_of(line["at"]) >= since}
    for who, at in sorted(last.items()):
        told = f"two agents used the key of {who} at once, at {at}: was its folder copied?"
        command = f"hansa server revoke {who}{checkup.where}"
        yield Finding(
            "warn", "agents", f"{told} Stop one, or revoke it if that was not you", command
        )
    if not last:
        yield Finding("good", "agents", "no key was lately used by two at once")


CHECKS: dict[str, Callable[[Checkup], Iterator[Finding]]] = {
    "server": _service,
    "clock": _clock,
    "disk": _disk,
    "certificates": _certificates,
    "keys": _keys,
    "database": _database,
    "models": _models,
    "left-over files": _orphans,
    "uploads": _uploads,
    "backup": _backups,
    "agents": _twice,
    "runs": _runs,
}


def clean_up(server: Opened) -> tuple[int, int]:
    """Remove files that nothing refers to; the server must not run.

    Returns:
      how many, and how many bytes.

    Raises:
      ServerError: server-busy, a process serves from the folder.
    """
    from hansa.server.state import held

    with held(server.folder):
        journal = Journal(server.database, lambda _: None)
        blobs = BlobStore(server.folder / "blobs", durable=True)
        paths = left_over(blobs, {w.digest for w in wanted_blobs(server.database)})
        paths += _updates_left_over(server.folder, journal)
        size = sum(path.stat().st_size for path in paths)
        for path in paths:
            path.unlink()
    return len(paths), size


def _updates_left_over(folder: Path, journal: Journal) -> list[Path]:
    wanted = journal.open_updates()
    stores = Updates(folder / "updates").stores()
    return [path for store in stores for path in left_over(store, wanted)]


def _restart(checkup: Checkup) -> str:
    operated = operated_by(checkup.server.folder)
    return f"{operated} start{checkup.where}, once the one that runs has been stopped"
