"""A site's folder as a member of a small federation, and offers as a server would make them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from blake3 import blake3

from hansa.code import identity
from hansa.identity import (
    Authority,
    MemberKey,
    Membership,
    create_authority,
    new_key,
    save_key,
    save_membership,
    submission_text,
    to_text,
)
from hansa.packages import build_archive
from hansa.plan import read_plan
from hansa.protocol.messages import BlobRef, Offer
from hansa.site.requests import Request, save_request

CODE = {"model.py": b"import numpy as np\n\n\ndef init(key):\n    return {}\n"}


class Sample(NamedTuple):
    """A site and the federation around it."""

    folder: Path
    authority: Authority
    receipts: MemberKey  # signs the server's receipts
    anna: MemberKey  # a submitter


def make_site(folder: Path, text: str = "") -> Sample:
    """Make a site named north, without a policy unless `text` has one."""
    server = folder.with_name("server")
    server.mkdir()
    folder.mkdir()
    authority = create_authority(server, federation="Sample")
    key, receipts = new_key(), new_key()
    save_key(folder / "key.pem", key)
    membership = Membership(
        folder,
        "https://hansa.test:443",
        "north",
        "site",
        authority.pem,
        to_text(receipts.public),
        "Sample",
    )
    save_membership(membership, authority.issue_member("north", "site", key.public))
    (folder / "site.toml").write_text(f'name = "north"\n{text}')
    return Sample(folder, authority, receipts, new_key())


def make_offer(
    site: Sample,
    code: Mapping[str, bytes] | None = None,
    *,
    run: str = "study-1",
    submitter: str = "anna",
    role: Any = "submitter",
    tensors: list[tuple[str, str, list[int]]] | None = None,
    buffers: list[str] | None = None,
    constants: list[str] | None = None,
    **plan: Any,
) -> tuple[Offer, bytes]:
    """Return an offer and its package, signed by the site's sample submitter."""
    code = dict(sorted((CODE if code is None else code).items()))
    table = {"name": "study", "rounds": 3, "data": {"set": "cohort"}, **plan}
    whole = read_plan(table).plan
    archive = build_archive({**code, "plan.toml": b"rounds = 3\n"})
    digest, named = f"blake3:{blake3(archive).hexdigest()}", identity(whole, code)
    offer = Offer(
        run=run,
        identity=named,
        plan=msgspec.to_builtins(whole),
        package=BlobRef(digest=digest, size=len(archive)),
        tensors=tensors or [("w", "F32", [64, 10]), ("b", "F32", [10])],
        buffers=buffers or [],
        constants=constants or [],
        submitter=submitter,
        certificate=site.authority.issue_member(submitter, role, site.anna.public),
        signature=to_text(site.anna.sign(submission_text(named, digest))),
        purpose="Find out whether it works.",
    )
    return offer, archive


def ask(site: Sample, code: Mapping[str, bytes] | None = None, **facts: Any) -> Request:
    """Let an offer arrive."""
    return save_request(site.folder, *make_offer(site, code, **facts))
