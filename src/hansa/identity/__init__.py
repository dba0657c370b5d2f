"""Who is who: keys, the federation's certificates, invitations, and proofs of requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hansa.identity.home import (
    Membership,
    find_membership,
    load_membership,
    membership_folder,
    save_certificate,
    save_membership,
)
from hansa.identity.invites import Invite, new_token, parse_invite, token_hash
from hansa.identity.keys import (
    MemberKey,
    from_text,
    key_fingerprint,
    load_key,
    new_key,
    own_key,
    save_key,
    to_text,
    verify,
)
from hansa.identity.proof import Prover, enrolment_text, proof_text, submission_text
from hansa.identity.receipts import check_receipt, receipt_text, sign_receipt
from hansa.identity.roles import ROLES, Role
from hansa.identity.sessions import Proof, Sessions

if TYPE_CHECKING:
    from hansa.identity.authority import (
        Authority,
        MemberCertificate,
        authority_fingerprint,
        check_authority,
        check_certificate,
        create_authority,
        load_authority,
        renewal_due,
    )

__all__ = [
    "ROLES",
    "Authority",
    "Invite",
    "MemberCertificate",
    "MemberKey",
    "Membership",
    "Proof",
    "Prover",
    "Role",
    "Sessions",
    "authority_fingerprint",
    "check_authority",
    "check_certificate",
    "check_receipt",
    "create_authority",
    "enrolment_text",
    "find_membership",
    "from_text",
    "key_fingerprint",
    "load_authority",
    "load_key",
    "load_membership",
    "membership_folder",
    "new_key",
    "new_token",
    "own_key",
    "parse_invite",
    "proof_text",
    "receipt_text",
    "renewal_due",
    "save_certificate",
    "save_key",
    "save_membership",
    "sign_receipt",
    "submission_text",
    "to_text",
    "token_hash",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Load what handles certificates when it is first asked for: X.509 is slow to import."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hansa.identity import authority

    return getattr(authority, name)
