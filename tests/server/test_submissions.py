"""Goal: the door for runs: what cannot run, or is not what was signed, is never recorded (L11).

Method: a submission that is sound but for one thing, through the real route; nothing may be left.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from in_process import InProcess, digest_of, in_process, joined
from league import League, refused

from hansa.clock import wall
from hansa.identity import new_key, submission_text, to_text
from hansa.packages import build_archive
from hansa.params import Params
from hansa.protocol.messages import BlobRef, Submission


@pytest.fixture(scope="module")
def league(tmp_path_factory: pytest.TempPathFactory) -> Iterator[League]:
    with in_process(tmp_path_factory.mktemp("door")) as server:
        yield League(server)


def sent(league: League, submission: Submission) -> tuple[int, str]:
    return refused(league.server.ask(league.ada, "POST", "/v1/runs", submission))


def sound(league: League, **plan: Any) -> Submission:
    submission, package, start = league.server.submission(league.ada, **plan)
    league.server.upload(league.ada, package, start)
    return submission


def with_plan(submission: Submission, **values: Any) -> Submission:
    return msgspec.structs.replace(submission, plan={**submission.plan, **values})


def nothing_is_recorded(server: InProcess) -> bool:
    return server.state.journal.runs() == []


PLANS = {
    "project code as the method": ({"algorithm": "mine.py:method"}, "function-refused"),
    "project code as the aggregator": ({"aggregator": "mine.py:rule"}, "function-refused"),
    "project code as a transform": ({"transforms": ["mine.py:change"]}, "function-refused"),
    "a learner of a notebook": ({"learner": {"kind": "python"}}, "plan-impossible"),
    "an unknown method": ({"algorithm": "fed_magic"}, "plan-unknown-name"),
    "no rounds": ({"rounds": 0}, "plan-bad-value"),
    "rounds in words": ({"rounds": "ten"}, "plan-bad-value"),
    "minimum beyond the cohort": ({"cohort": {"count": 1, "minimum": 2}}, "plan-bad-value"),
    "a name with a slash": ({"name": "../../etc"}, "plan-bad-value"),
    "late with a rule that is no sum": (
        {"aggregator": "median", "cohort": {"late": "discount"}},
        "plan-impossible",
    ),
    "more than a mebibyte": ({"data": {"set": "x" * 2**20}}, "plan-bad-value"),
}


@pytest.mark.parametrize("case", PLANS)
def test_a_plan_that_cannot_run_here_is_refused(league: League, case: str) -> None:
    values, code = PLANS[case]
    status = 403 if code == "function-refused" else 422
    assert sent(league, with_plan(sound(league), **values)) == (status, code)
    assert nothing_is_recorded(league.server)


def test_a_plan_of_another_identity_than_the_signed_one_is_refused(league: League) -> None:
    """One more round than was signed and than data owners will approve."""
    changed = with_plan(sound(league), rounds=100)
    assert sent(league, changed) == (422, "package-identity")
    assert nothing_is_recorded(league.server)


def test_another_package_than_the_signed_one_is_refused(league: League) -> None:
    submission = sound(league)
    other = build_archive({"model.py": b"import socket\n"})
    league.server.upload(league.ada, other)
    ref = BlobRef(digest=digest_of(other), size=len(other))
    swapped = msgspec.structs.replace(submission, package=ref)
    assert sent(league, swapped) == (401, "identity-signature")
    text = submission_text(submission.identity, ref.digest)
    signed = msgspec.structs.replace(swapped, signature=to_text(league.ada.key.sign(text)))
    assert sent(league, signed) == (422, "package-identity")
    assert nothing_is_recorded(league.server)


def test_a_package_that_is_none_is_refused(league: League) -> None:
    submission = sound(league)
    content = b"PK\3\4 but not further"
    league.server.upload(league.ada, content)
    ref = BlobRef(digest=digest_of(content), size=len(content))
    text = submission_text(submission.identity, ref.digest)
    bad = msgspec.structs.replace(
        submission, package=ref, signature=to_text(league.ada.key.sign(text))
    )
    assert sent(league, bad) == (422, "package-archive")
    assert nothing_is_recorded(league.server)


@pytest.mark.parametrize("part", ["package", "seed_model"])
def test_what_was_not_uploaded_is_asked_for(league: League, part: str) -> None:
    ref = BlobRef(digest=digest_of(b"nobody has this"), size=5)
    submission = msgspec.structs.replace(sound(league), **{part: ref})
    text = submission_text(submission.identity, submission.package.digest)
    signed = msgspec.structs.replace(submission, signature=to_text(league.ada.key.sign(text)))
    assert sent(league, signed) == (404, "blob-missing")
    assert nothing_is_recorded(league.server)


@pytest.mark.parametrize("signature", ["", "x", "A" * 86, "é" * 20, "A" * 100_000])
def test_a_signature_that_is_none_is_refused(league: League, signature: str) -> None:
    bad = msgspec.structs.replace(sound(league), signature=signature)
    assert sent(league, bad) == (401, "identity-signature")
    assert nothing_is_recorded(league.server)


def test_a_signature_by_another_key_or_under_a_foreign_certificate_is_refused(
    league: League,
) -> None:
    submission = sound(league)
    text = submission_text(submission.identity, submission.package.digest)
    other = msgspec.structs.replace(submission, signature=to_text(new_key().sign(text)))
    assert sent(league, other) == (401, "identity-signature")
    bob = league.server.join("bob", "submitter")
    under_bob = msgspec.structs.replace(
        submission, certificate=bob.certificate, signature=to_text(bob.key.sign(text))
    )
    assert sent(league, under_bob) == (401, "identity-signature")
    none = msgspec.structs.replace(submission, certificate="-----BEGIN NOTHING-----")
    assert sent(league, none) == (401, "identity-certificate")
    assert nothing_is_recorded(league.server)


def test_an_expired_certificate_signs_no_run(
    league: League, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hansa.server import people

    submission = sound(league)
    monkeypatch.setattr(people, "wall", lambda: wall() + 25 * 3600)
    assert sent(league, submission) == (401, "identity-expired")


SEEDS = {
    "nan": (np.array([1.0, np.nan, 2.0], np.float32), 409, "run-diverged"),
    "infinity": (np.array([1.0, -np.inf, 2.0], np.float32), 409, "run-diverged"),
}


@pytest.mark.parametrize("case", SEEDS)
def test_a_seed_model_that_is_not_finite_is_refused(league: League, case: str) -> None:
    model, status, code = SEEDS[case]
    assert sent(league, sound(league, model=model)) == (status, code)
    assert nothing_is_recorded(league.server)


def test_a_seed_model_without_what_is_declared_constant_is_refused(league: League) -> None:
    submission = msgspec.structs.replace(sound(league), constants=["frozen"])
    assert sent(league, submission) == (409, "run-damaged")
    assert nothing_is_recorded(league.server)


def test_a_seed_model_of_other_tensors_is_refused(league: League) -> None:
    submission = sound(league)
    content = joined(Params.of({"v": np.zeros(3, np.float32)}))
    league.server.upload(league.ada, content, b"no tensors at all")
    for bad, status in ((content, 409), (b"no tensors at all", 422)):
        ref = BlobRef(digest=digest_of(bad), size=len(bad))
        answer = sent(league, msgspec.structs.replace(submission, seed_model=ref))
        assert answer[0] == status, answer
    assert nothing_is_recorded(league.server)


@pytest.mark.parametrize(
    "tensors",
    [
        [["w", "F32", [2]]],
        [["w", "F32", [-3]]],
        [["w", "F32", [2**62, 2**62]]],
        [["w", "object", [3]]],
        [["w", "F32", [3]], ["w", "F32", [3]]],
        [],
    ],
)
def test_tensors_that_are_not_the_seed_models_are_refused(league: League, tensors: Any) -> None:
    submission = msgspec.to_builtins(sound(league)) | {"tensors": tensors}
    answer = league.server.ask(league.ada, "POST", "/v1/runs", submission)
    assert answer.status in (409, 422), answer
    assert nothing_is_recorded(league.server)


@pytest.mark.parametrize("size", [0, 1, 2**63, 2**64])
@pytest.mark.parametrize("part", ["package", "seed_model"])
def test_a_size_that_is_not_the_blobs_is_refused(league: League, part: str, size: int) -> None:
    """Sites fetch as many bytes as they are told."""
    submission = sound(league)
    ref = BlobRef(digest=getattr(submission, part).digest, size=size)
    answer = sent(league, msgspec.structs.replace(submission, **{part: ref}))
    assert answer == (422, "blob-digest")
    assert nothing_is_recorded(league.server)
