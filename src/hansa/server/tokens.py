"""Bearer tokens for programs that can only look: dashboards, scrapers, scripts.

Whoever has one may read what a viewer may read, and nothing else.  Only hashes are kept.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from sqlalchemy import Connection, insert, select, update

from hansa.clock import in_days, now
from hansa.errors import IdentityError
from hansa.identity import Role, to_text, token_hash
from hansa.limits import TOKEN_S_MAX
from hansa.server.audit import record
from hansa.store import tables
from hansa.store.database import Database

TOKENS = tables.tokens

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_TOKEN = re.compile(r"hansa_[A-Za-z0-9_-]{43}")


class Token(NamedTuple):
    """A token as the database has it: all but the token."""

    name: str
    role: Role
    created_at: str
    expires_at: float | None  # wall seconds
    revoked_at: str | None


def create_token(
    db: Database, name: str, *, by: str, at: float, expires_s: float = TOKEN_S_MAX
) -> str:
    """Return a new token, which is shown this once.

    Args:
      db: the database.
      name: what it is for.
      by: who makes it.
      at: wall seconds now.
      expires_s: seconds that it holds.

    Raises:
      IdentityError: member-invalid.
      ServerError: as `Database.write`.
    """
    if not _NAME.fullmatch(name) or not 0 < expires_s <= TOKEN_S_MAX:
        raise IdentityError(
            "member-invalid",
            f"No token was made: {name[:64]!r} for {in_days(expires_s)} is not possible.",
            f"Names are as those of members; a token holds at most {in_days(TOKEN_S_MAX)}.",
        )
    token = f"hansa_{to_text(os.urandom(32))}"

    def write(connection: Connection) -> None:
        connection.execute(
            insert(TOKENS).values(
                hash=token_hash(token),
                name=name,
                role="viewer",
                created_at=now(),
                expires_at=at + expires_s,
            )
        )
        record(connection, by, "token.create", object=name)

    db.write(write)
    return token


def token_member(db: Database, token: str, *, at: float) -> Token | None:
    """Return what a token is, if it holds.

    Raises:
      ServerError: as `Database.read`.
    """
    return token_by_hash(db, token_hash(token), at=at) if _TOKEN.fullmatch(token) else None


def token_by_hash(db: Database, hashed: str, *, at: float) -> Token | None:
    """Return what the token with this hash is, if it holds.

    Raises:
      ServerError: as `Database.read`.
    """
    query = select(TOKENS).where(TOKENS.c.hash == hashed)
    row = db.read(lambda connection: connection.execute(query).first())
    if row is None or row.revoked_at is not None:
        return None
    if row.expires_at is not None and at >= row.expires_at:
        return None
    # Whatever the table says: a bearer token never does more than look.
    return Token(row.name, "viewer", row.created_at, row.expires_at, None)


def tokens(db: Database) -> list[Token]:
    """Return all tokens, oldest first.

    Raises:
      ServerError: as `Database.read`.
    """
    query = select(TOKENS).order_by(TOKENS.c.created_at, TOKENS.c.name)
    rows = db.read(lambda connection: connection.execute(query).all())
    return [Token(r.name, "viewer", r.created_at, r.expires_at, r.revoked_at) for r in rows]


def revoke_token(db: Database, name: str, *, by: str) -> int:
    """End all tokens of a name and return how many there were.

    Raises:
      IdentityError: member-missing, there was none.
      ServerError: as `Database.write`.
    """

    def end(connection: Connection) -> int:
        named = (TOKENS.c.name == name) & TOKENS.c.revoked_at.is_(None)
        count = connection.execute(update(TOKENS).where(named).values(revoked_at=now())).rowcount
        if count:
            record(connection, by, "token.revoke", object=name)
        return count

    count = db.write(end)
    if not count:
        raise IdentityError(
            "member-missing",
            f"No token in use is called {name!r}; nothing was changed.",
            "List them with: hansa server members",
        )
    return count
