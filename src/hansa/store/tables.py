"""The tables of a server's database.

Times of things that happened are text in ISO 8601, as `hansa.clock.now` gives them; times that
something ends are numbers, seconds since the epoch, because they are compared.
"""

from __future__ import annotations

from sqlalchemy import Column, Float, Index, Integer, MetaData, Table, Text, UniqueConstraint

SCHEMA_VERSION = 1
"""Raised with every change to a table; a database of a newer release is refused."""

metadata = MetaData()

members = Table(
    "members",
    metadata,
    Column("name", Text, primary_key=True),
    Column("kind", Text, nullable=False),  # site or person
    Column("role", Text, nullable=False),
    Column("org", Text, nullable=False, default=""),
    Column("public_key", Text, nullable=False),  # base64url
    Column("fingerprint", Text, nullable=False, unique=True),
    Column("joined_at", Text, nullable=False),
    Column("revoked_at", Text),
)

invites = Table(
    "invites",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("org", Text, nullable=False, default=""),
    Column("expires_at", Float, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("redeemed_at", Text),
    Column("created_by", Text, nullable=False),
    Column("created_at", Text, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("expires_at", Float),
    Column("revoked_at", Text),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("object", Text, nullable=False, default=""),
    Column("outcome", Text, nullable=False),
    Column("detail", Text, nullable=False, default=""),
    sqlite_autoincrement=True,  # a number is never given twice, even after rows are removed
)

runs = Table(
    "runs",
    metadata,
    Column("run", Text, primary_key=True),
    Column("submission_id", Text, nullable=False, unique=True),
    Column("submitter", Text, nullable=False),
    Column("submission", Text, nullable=False),  # JSON
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False, default=""),
    Column("created_at", Text, nullable=False),
    Column("ended_at", Text),
)

events = Table(
    "events",
    metadata,
    Column("run", Text, primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("at", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("data", Text, nullable=False),  # JSON
)

trail = Table(
    "trail",
    metadata,
    Column("run", Text, primary_key=True),
    Column("round", Integer, primary_key=True),
    Column("digest", Text, nullable=False),
    Index("models_by_digest", "digest"),  # equal runs share files
)

standings = Table(
    "standings",
    metadata,
    Column("run", Text, primary_key=True),
    Column("site", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False, default=""),
    Column("examples", Integer, nullable=False, default=0),
    Column("at", Text, nullable=False),
)

receipts = Table(
    "receipts",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("run", Text, nullable=False),
    Column("round", Integer, nullable=False),
    Column("phase", Text, nullable=False),
    Column("client", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("size", Integer, nullable=False),
    Column("weight", Float, nullable=False, default=0.0),
    Column("data", Text, nullable=False),  # JSON
    Column("at", Text, nullable=False),
    UniqueConstraint("run", "round", "phase", "client"),  # counted once (law L4)
    Index("receipts_of_a_client", "client", "id"),
    sqlite_autoincrement=True,
)
