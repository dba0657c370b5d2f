"""The audit trail: who did what to whom, and whether it was let.  It never holds a secret."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, insert, select

from hansa.clock import now
from hansa.limits import AUDIT_PAGE
from hansa.store import tables
from hansa.store.database import Database
from hansa.text import TEXT_CHARS, clean

TRAIL = tables.audit

TWICE = "member.twice"
"""The action of a line that says: two agents use a member's key at once."""


def record(
    connection: Connection,
    who: str,
    action: str,
    *,
    object: str = "",
    outcome: str = "done",
    detail: str = "",
) -> None:
    """Add a line within a transaction, so that it is there exactly if the deed is.

    Args:
      connection: of `Database.write`.
      who: did it: a member's name, `operator` at the server's own command line, or `stranger`.
      action: what, such as `member.revoke`.
      object: to what: a name, never a token, key or body.
      outcome: `done`, `refused`, or a code.
      detail: for people; never a secret either.
    """
    connection.execute(
        insert(TRAIL).values(
            at=now(),
            who=_line(who),
            action=_line(action),
            object=_line(object),
            outcome=_line(outcome),
            detail=_line(detail),
        )
    )


def write_audit(
    db: Database,
    who: str,
    action: str,
    *,
    object: str = "",
    outcome: str = "done",
    detail: str = "",
) -> None:
    """Add a line on its own; arguments as in `record`.

    Raises:
      ServerError: as `Database.write`.
    """
    db.write(lambda c: record(c, who, action, object=object, outcome=outcome, detail=detail))


def audit(db: Database, after: int = 0, *, limit: int = AUDIT_PAGE) -> list[dict[str, Any]]:
    """Return the lines after one, oldest first, at most `limit` of them.

    Each has id, which grows and is never given twice; at; who; action; object; outcome; detail.

    Raises:
      ServerError: as `Database.read`.
    """
    query = select(TRAIL).where(TRAIL.c.id > after).order_by(TRAIL.c.id).limit(limit)
    return db.read(lambda connection: [dict(row._mapping) for row in connection.execute(query)])


def newest(db: Database, count: int, *, action: str | None = None) -> list[dict[str, Any]]:
    """Return the last lines, oldest first, each as in `audit`.

    Args:
      db: the database.
      count: of lines, at most.
      action: of the lines; None: any.

    Raises:
      ServerError: as `Database.read`.
    """
    query = select(TRAIL).order_by(TRAIL.c.id.desc()).limit(count)
    if action is not None:
        query = query.where(TRAIL.c.action == action)
    rows = db.read(lambda connection: [dict(row._mapping) for row in connection.execute(query)])
    return rows[::-1]


def _line(text: str) -> str:
    return clean(text, TEXT_CHARS)
