"""Members of a federation: invited by name, let in once with a key of their own, revoked.

All functions wait for the database; a route calls them in a thread.  Each deed and its line in
the audit trail are one transaction.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, get_args

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.engine import Row

from hansa.clock import date_of, in_days, now, wall
from hansa.errors import HansaError, IdentityError
from hansa.failpoints import hit
from hansa.identity import (
    ROLES,
    Role,
    enrolment_text,
    from_text,
    key_fingerprint,
    new_token,
    to_text,
    token_hash,
    verify,
)
from hansa.limits import ENROL_AGAIN_S, INVITE_S, INVITE_S_MAX
from hansa.protocol.messages import Enrolment
from hansa.server.audit import record
from hansa.server.settings import operated_by
from hansa.server.sources import Guesses
from hansa.store import tables
from hansa.store.database import Database

if TYPE_CHECKING:
    from hansa.identity import Authority

Kind = Literal["site", "combiner", "person"]

KINDS: tuple[Kind, ...] = get_args(Kind)

MEMBERS = tables.members
INVITES = tables.invites

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def kind_of(role: str) -> Kind:
    """Return what kind of member has a role."""
    return cast(Kind, role) if role in ("site", "combiner") else "person"


class Member(NamedTuple):
    """A member as the database has it."""

    name: str
    kind: Kind
    role: Role
    org: str
    public: bytes  # 32 bytes
    fingerprint: str
    joined_at: str
    revoked_at: str | None  # None: it is one

    @property
    def active(self) -> bool:
        """Whether it may do anything."""
        return self.revoked_at is None


def create_invite(
    db: Database,
    name: str,
    *,
    kind: str,
    role: str,
    org: str = "",
    expires_s: float = INVITE_S,
    by: str,
    at: float,
) -> str:
    """Return the one-time token that lets a new member in; only its hash is kept.

    A revoked member may be invited again, also with another key: so one that has lost its key
    comes back under its name.

    Args:
      db: the database.
      name: of the new member; what it calls itself does not matter.
      kind: `site` or `person`.
      role: what it may do.
      org: whose it is, for people.
      expires_s: seconds that the invitation holds.
      by: who invites.
      at: wall seconds now.

    Raises:
      IdentityError: member-invalid; member-exists, the name belongs to an active member.
      ServerError: as `Database.write`.
    """
    _check_new(name, kind, role, expires_s)
    token = new_token()

    def invite(connection: Connection) -> None:
        member = _by_name(connection, name)
        if member is not None and member.active:
            raise _taken(f"{name} is a member already", name, _commands(db))
        connection.execute(
            insert(INVITES).values(
                hash=token_hash(token),
                name=name,
                kind=kind,
                role=role,
                org=org,
                expires_at=at + expires_s,
                attempts=0,
                created_by=by,
                created_at=now(),
            )
        )
        detail = f"{kind}, {role}, until {_iso(at + expires_s)}"
        record(connection, by, "member.invite", object=name, detail=detail)

    db.write(invite)
    return token


def redeem(
    db: Database,
    authority: Authority,
    enrolment: Enrolment,
    *,
    at: float,
    source: str,
    guesses: Guesses,
) -> tuple[Member, str]:
    """Let a member in and return it with its certificate.

    The same key may redeem its token again for a while, which changes nothing: the answer may have
    been lost.

    Args:
      db: the database.
      authority: signs the certificate.
      enrolment: token, key, and proof that the sender has the key's other half.
      at: wall seconds now.
      source: address it came from.
      guesses: wrong ones so far.

    Raises:
      IdentityError: invite-locked, the source guessed too often; identity-signature;
        invite-refused, the token is unknown, used, too old or of the other kind; member-exists.
      ServerError: as `Database.write`.
    """
    guesses.check(source)
    try:
        public = from_text(enrolment.public_key)
        verify(public, from_text(enrolment.proof), enrolment_text(enrolment.token))
    except IdentityError as error:
        _refused(db, error, source=source, locks=guesses.wrong(source))
        raise
    hit("before_member_recorded")
    found = db.write(
        lambda c: _let_in(c, enrolment, public, at, source=source, commands=_commands(db))
    )
    if found is None:
        refusal = _no_invite("no invitation has this token")
        _refused(db, refusal, source=source, locks=guesses.wrong(source))
        raise refusal
    if isinstance(found, HansaError):
        # One that lets nobody in any more is as bad as a guess, each time that it is shown.
        if not isinstance(found, _OtherKindError) and guesses.wrong(source):
            db.write(lambda c: _record_lock(c, source))
        raise found
    hit("after_member_recorded")
    return found, authority.issue_member(found.name, found.role, public, at=at)


def _let_in(
    connection: Connection,
    enrolment: Enrolment,
    public: bytes,
    at: float,
    *,
    source: str,
    commands: str,
) -> Member | IdentityError | None:
    """Do `redeem` in one transaction; a refusal is returned, so that what is written stays.

    None: there is no such invitation.
    """
    made = INVITES.c.hash == token_hash(enrolment.token)
    row = connection.execute(select(INVITES).where(made)).first()
    if row is None:
        return None
    connection.execute(update(INVITES).where(made).values(attempts=row.attempts + 1))
    member = _by_name(connection, row.name)
    again = row.redeemed_at is not None
    refusal: IdentityError | None = None
    if at >= row.expires_at + (ENROL_AGAIN_S if again else 0):
        refusal = _no_invite(f"the invitation of {row.name} ended at {_iso(row.expires_at)}")
    elif enrolment.kind not in (None, row.kind):
        refusal = _other_kind(row.name, row.kind)
    elif again and not (member is not None and member.active and member.public == public):
        refusal = _no_invite(f"the invitation of {row.name} was used at {row.redeemed_at}")
    elif not again and member is not None and member.active:
        refusal = _taken(
            f"{row.name} has become a member by another invitation", row.name, commands
        )
    elif not again:
        other = _by_fingerprint(connection, key_fingerprint(public))
        if other is not None and other.name != row.name:
            refusal = _taken("the key belongs to another member", row.name, commands)
    if refusal is not None:
        _record_refusal(connection, refusal, name=row.name, source=source)
        return refusal
    if not again:
        member = _enter(connection, row, public, known=member is not None)
        connection.execute(update(INVITES).where(made).values(redeemed_at=now()))
    assert member is not None
    detail = f"key {member.fingerprint}, from {source}" + (", answered again" if again else "")
    record(connection, member.name, "member.join", object=member.name, detail=detail)
    return member


def _enter(connection: Connection, invite: Row[tuple[object, ...]], public: bytes, *,
           known: bool) -> Member:  # fmt: skip
    """Write the new member, or the new key of one that was revoked."""
    values = {
        "kind": invite.kind,
        "role": invite.role,
        "org": invite.org,
        "public_key": to_text(public),
        "fingerprint": key_fingerprint(public),
        "joined_at": now(),
        "revoked_at": None,
    }
    if known:
        connection.execute(update(MEMBERS).where(MEMBERS.c.name == invite.name).values(**values))
    else:
        connection.execute(insert(MEMBERS).values(name=invite.name, **values))
    member = _by_name(connection, invite.name)
    assert member is not None
    return member


def renew(db: Database, authority: Authority, name: str, *, at: float) -> tuple[Member, str]:
    """Return a member with a new certificate over the key it has.

    Raises:
      IdentityError: identity-member, it is none or no longer one.
      ServerError: as `Database.write`.
    """

    def find(connection: Connection) -> Member | None:
        member = _by_name(connection, name)
        if member is not None and member.active:
            record(connection, name, "member.renew", object=name)
            return member
        return None

    member = db.write(find)
    if member is None:
        raise not_a_member(name)
    return member, authority.issue_member(member.name, member.role, member.public, at=at)


def revoke(db: Database, name: str, *, by: str, at: float | None = None) -> Member:
    """End a membership and all invitations under its name; twice is as good as once.

    Args:
      db: the database.
      name: of the member.
      by: who revokes it.
      at: wall seconds; now if None.

    Raises:
      IdentityError: member-missing, there was never such a member.
      ServerError: as `Database.write`.
    """
    ended = _iso(wall() if at is None else at)

    def end(connection: Connection) -> Member | None:
        if _by_name(connection, name) is None:
            return None
        active = (MEMBERS.c.name == name) & MEMBERS.c.revoked_at.is_(None)
        connection.execute(update(MEMBERS).where(active).values(revoked_at=ended))
        open_ = (INVITES.c.name == name) & INVITES.c.redeemed_at.is_(None)
        connection.execute(update(INVITES).where(open_).values(expires_at=0.0))
        record(connection, by, "member.revoke", object=name)
        return _by_name(connection, name)

    member = db.write(end)
    if member is None:
        raise IdentityError(
            "member-missing",
            f"No member is called {name!r}; nothing was changed.",
            f"List the members with: {_commands(db)} members",
        )
    return member


def found_admin(db: Database, authority: Authority, name: str, public: bytes, *, at: float) -> str:
    """Make the first admin of a new server and return its certificate; again, the same one.

    Raises:
      IdentityError: member-invalid; member-exists, the name belongs to another key.
      ServerError: as `Database.write`.
    """
    _check_new(name, "person", "admin", INVITE_S)

    def enter(connection: Connection) -> None:
        known = _by_name(connection, name)
        if known is not None and known.public != public:
            raise _taken(f"{name} is a member already", name, _commands(db))
        if known is None:
            row = {"kind": "person", "role": "admin", "org": "", "public_key": to_text(public)}
            row |= {"fingerprint": key_fingerprint(public), "joined_at": now()}
            connection.execute(insert(MEMBERS).values(name=name, **row))
            record(connection, "operator", "server.found", object=name)

    db.write(enter)
    return authority.issue_member(name, "admin", public, at=at)


def members(db: Database) -> list[dict[str, Any]]:
    """Return all members by name, revoked ones included, each as people are shown it.

    Raises:
      ServerError: as `Database.read`.
    """
    shown = [column for column in MEMBERS.c if column.name != "public_key"]
    query = select(*shown).order_by(MEMBERS.c.name)
    return db.read(lambda connection: [dict(row._mapping) for row in connection.execute(query)])


def active_names(db: Database, names: Collection[str]) -> set[str]:
    """Return those of some names that belong to active members.

    Raises:
      ServerError: as `Database.read`.
    """
    query = select(MEMBERS.c.name).where(
        MEMBERS.c.name.in_(list(names)), MEMBERS.c.revoked_at.is_(None)
    )
    return db.read(lambda connection: set(connection.execute(query).scalars()))


def combiners(db: Database) -> list[str]:
    """Return the names of the active members that are combiners, sorted.

    Raises:
      ServerError: as `Database.read`.
    """
    query = select(MEMBERS.c.name).where(
        MEMBERS.c.role == "combiner", MEMBERS.c.revoked_at.is_(None)
    )
    return db.read(lambda connection: sorted(connection.execute(query).scalars()))


def revoked(db: Database) -> set[tuple[str, str, str]]:
    """Return name, key's fingerprint and time of every membership that has ended.

    Raises:
      ServerError: as `Database.read`.
    """
    query = select(MEMBERS.c.name, MEMBERS.c.fingerprint, MEMBERS.c.revoked_at).where(
        MEMBERS.c.revoked_at.is_not(None)
    )
    return db.read(lambda connection: {(n, f, at) for n, f, at in connection.execute(query)})


def member_by_name(db: Database, name: str) -> Member | None:
    """Return the member of a name, which may be revoked.

    Raises:
      ServerError: as `Database.read`.
    """
    return db.read(lambda connection: _by_name(connection, name))


def member_by_fingerprint(db: Database, fingerprint: str) -> Member | None:
    """Return the member with a key, which may be revoked.

    Raises:
      ServerError: as `Database.read`.
    """
    return db.read(lambda connection: _by_fingerprint(connection, fingerprint))


def not_a_member(name: str) -> IdentityError:
    """Return the refusal of somebody who is no member, or no longer one."""
    return IdentityError(
        "identity-member",
        f"{name} is not a member of this federation, or no longer one.",
        "Ask the operator of the federation for an invitation.",
    )


def _by_name(connection: Connection, name: str) -> Member | None:
    row = connection.execute(select(MEMBERS).where(MEMBERS.c.name == name)).first()
    return None if row is None else _member(row)


def _by_fingerprint(connection: Connection, fingerprint: str) -> Member | None:
    found = select(MEMBERS).where(MEMBERS.c.fingerprint == fingerprint)
    row = connection.execute(found).first()
    return None if row is None else _member(row)


def _member(row: Row[tuple[object, ...]]) -> Member:
    return Member(
        row.name,
        cast(Kind, sys.intern(row.kind)),
        cast(Role, sys.intern(row.role)),
        row.org,
        from_text(row.public_key),
        row.fingerprint,
        row.joined_at,
        row.revoked_at,
    )


def check_name(name: str) -> None:
    """Refuse a name that no member can have.

    Raises:
      IdentityError: member-invalid.
    """
    if not _NAME.fullmatch(name):
        raise _impossible(
            f"{name[:64]!r} is no name",
            "Names have up to 64 small letters, digits, dots, dashes and underscores,"
            " and begin with a letter or digit.",
        )


def _check_new(name: str, kind: str, role: str, expires_s: float) -> None:
    """Refuse a member that cannot be."""
    check_name(name)
    if kind not in KINDS or role not in ROLES or kind != kind_of(role):
        raise _impossible(
            f"a {kind} cannot have the role {role!r}",
            "Sites have the role site, combiners theirs; people are viewer, submitter or admin.",
        )
    if not 0 < expires_s <= INVITE_S_MAX:
        raise _impossible(
            f"an invitation cannot hold {in_days(expires_s)}; at most {in_days(INVITE_S_MAX)}",
            "Choose a shorter time, such as --expires 24h.",
        )


def _impossible(what: str, hint: str) -> IdentityError:
    return IdentityError("member-invalid", f"Nobody was invited: {what}.", hint)


def _commands(db: Database) -> str:
    return operated_by(db.path.parent)


def _taken(what: str, name: str, commands: str) -> IdentityError:
    return IdentityError(
        "member-exists",
        f"Nothing was changed: {what}.",
        "To let it in again with another key, revoke it and invite it again:"
        f" {commands} revoke {name}",
    )


def _no_invite(why: str) -> IdentityError:
    return IdentityError(
        "invite-refused",
        f"The invitation was refused: {why}.",
        "Ask the operator of the federation for a new one.",
    )


class _OtherKindError(IdentityError):
    """A good invitation was shown at the wrong door, which is no guess."""


def _other_kind(name: str, kind: Kind) -> IdentityError:
    what, verb = {
        "site": ("site", "hansa site join"),
        "combiner": ("combiner", "hansa combiner init --join"),
        "person": ("person", "hansa join"),
    }[kind]
    return _OtherKindError(
        "invite-refused",
        f"The invitation of {name} is for a {what}, and was not used up.",
        f"Type the same line with: {verb}",
    )


def _iso(seconds: float) -> str:
    return date_of(seconds).isoformat()


def _record_refusal(connection: Connection, refusal: HansaError, *, name: str, source: str) -> None:
    detail = f"{refusal.code}, from {source}"
    record(connection, "stranger", "member.join", object=name, outcome="refused", detail=detail)


def _refused(db: Database, refusal: HansaError, *, source: str, locks: bool) -> None:
    """Write down an enrolment of nobody knows whom."""

    def write(connection: Connection) -> None:
        _record_refusal(connection, refusal, name="", source=source)
        if locks:
            _record_lock(connection, source)

    db.write(write)


def _record_lock(connection: Connection, source: str) -> None:
    record(connection, "stranger", "member.lock", object=source, outcome="refused")
