"""The decision about a run: closed wherever there is any doubt."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.protocol.messages import BlobRef, Offer
from hansa.site.policy import Approval, Decision, Policy, decide

A, B = f"blake3:{'a' * 64}", f"blake3:{'b' * 64}"


def offer(identity: str = A, submitter: str = "anna", plan: Any = None) -> Offer:
    return Offer(
        run="study-1",
        identity=identity,
        plan={"name": "study", "rounds": 3, "data": {"set": "cohort"}} if plan is None else plan,
        package=BlobRef(digest=B, size=1),
        tensors=[],
        buffers=[],
        submitter=submitter,
        certificate="",
        signature="",
    )


def word(verdict: Any = "approved", identity: str = A, **facts: Any) -> Approval:
    return Approval(identity=identity, verdict=verdict, by="owner", at="2026-01-01", **facts)


def decided(
    policy: Policy | None, *words: Approval, key: str = "k1", at: float = 0.0, **facts: Any
) -> Decision:
    more = {k: facts.pop(k) for k in ("declared", "rounds_done") if k in facts}
    return decide(offer(**facts), policy, words, submitter_fingerprint=key, at=at, **more)


POLICIES = st.builds(
    Policy,
    submitters=st.none()
    | st.lists(st.sampled_from(["anna", "ben", "anna#k1", "anna#k2", "ben#k1"])).map(tuple),
    approve=st.sampled_from(["ask", "submitters"]),
    packages=st.lists(st.sampled_from([A, B])).map(tuple),
    data=st.none() | st.lists(st.sampled_from(["cohort", "other"])).map(tuple),
    sandbox=st.sampled_from(["required", "preferred", "none"]),
    max_rounds=st.none() | st.integers(1, 5),
)
TIMES = st.floats(allow_nan=True)
WORDS = st.lists(
    st.builds(
        Approval,
        identity=st.sampled_from([A, B]),
        verdict=st.sampled_from(["approved", "denied"]),
        by=st.just("owner"),
        at=st.just("2026-01-01"),
        until=st.none() | TIMES,
        max_rounds=st.none() | st.integers(0, 5),
    ),
    max_size=5,
)
PLANS = st.sampled_from(
    [
        {"rounds": 3, "data": {"set": "cohort"}},
        {"rounds": 3, "data": {"set": None}},
        {"rounds": 9, "data": {"set": "cohort"}},
        {"rounds": 3},
        {"data": 5},
        {"rounds": True, "data": {"set": ["cohort"]}},
        {},
    ]
)


@given(WORDS, PLANS, TIMES, st.sampled_from(["k1", ""]))
def test_without_a_policy_nothing_ever_runs(
    words: list[Approval], plan: Any, at: float, key: str
) -> None:
    found = decide(offer(plan=plan), None, words, submitter_fingerprint=key, at=at)
    assert found.state == "refuse"
    assert "policy" in found.reason


@given(POLICIES, WORDS, PLANS, TIMES, st.sampled_from(["k1", "k2", ""]), st.integers(0, 6))
def test_nothing_runs_without_a_reason_that_the_owner_gave(
    policy: Policy, words: list[Approval], plan: Any, at: float, key: str, done: int
) -> None:
    """An oracle of its own: lists what must hold for a run, in the owner's words."""
    asked = offer(plan=plan)
    found = decide(
        asked, policy, words, submitter_fingerprint=key, at=at, rounds_done=done,
        declared={"cohort"},
    )  # fmt: skip
    if found.state != "run":
        return
    mine = [w for w in words if w.identity == A]
    assert not mine or mine[-1].verdict == "approved"
    if policy.submitters is not None:
        assert "anna" in policy.submitters or f"anna#{key}" in policy.submitters
    if policy.max_rounds is not None:
        assert plan["rounds"] <= policy.max_rounds and plan["rounds"] is not True
    data = plan["data"]["set"]
    assert data in (None, "cohort")
    assert policy.data is None or data in policy.data
    if A in policy.packages or (policy.approve == "submitters" and policy.submitters):
        return
    assert mine
    until, most = mine[-1].until, mine[-1].max_rounds
    assert until is None or at < until
    assert most is None or done < most


@given(POLICIES, TIMES)
def test_what_was_denied_stays_denied(policy: Policy, at: float) -> None:
    assert decided(policy, word(), word("denied"), at=at).state == "refuse"


def test_an_approval_is_bound_to_its_identity() -> None:
    assert decided(Policy(), word(identity=A)).state == "run"
    assert decided(Policy(), word(identity=B)).state == "ask"


@pytest.mark.parametrize(
    ("at", "state"), [(9.99, "run"), (10.0, "ask"), (11.0, "ask"), (math.nan, "ask")]
)
def test_an_approval_ends_at_its_time(at: float, state: str) -> None:
    assert decided(Policy(), word(until=10.0), at=at).state == state


@pytest.mark.parametrize(("done", "state"), [(0, "run"), (1, "run"), (2, "ask"), (3, "ask")])
def test_an_approval_ends_after_its_rounds(done: int, state: str) -> None:
    assert decided(Policy(), word(max_rounds=2), rounds_done=done).state == state


def test_the_last_word_holds() -> None:
    assert decided(Policy(), word("denied"), word()).state == "run"
    assert decided(Policy(), word(until=5.0), word(), at=9.0).state == "run"
    assert decided(Policy(), word(), word(until=5.0), at=9.0).state == "ask"


@pytest.mark.parametrize(
    "policy",
    [Policy(submitters=("anna",), approve="submitters"), Policy(packages=(A,))],
    ids=["submitters", "packages"],
)
def test_an_owners_word_on_a_plan_goes_before_what_a_policy_lets_run_unasked(
    policy: Policy,
) -> None:
    """`approve --max-rounds` said that the site would stop after so many, and it did not."""
    assert decided(policy, word(max_rounds=2), rounds_done=1).state == "run"
    assert decided(policy, word(max_rounds=2), rounds_done=2).state == "ask"
    assert decided(policy, word(until=10.0), at=11.0).state == "ask"
    assert decided(policy, word(max_rounds=2), word(), rounds_done=2).state == "run"


@pytest.mark.parametrize(
    ("submitters", "key", "state"),
    [
        (None, "k1", "run"),
        ((), "k1", "refuse"),
        (("anna",), "k9", "run"),
        (("ben",), "k1", "refuse"),
        (("anna#k1",), "k1", "run"),
        (("anna#k1",), "k2", "refuse"),
        (("anna#k1",), "K1", "refuse"),
        (("anna#k1",), "", "refuse"),
        (("ben#k1",), "k1", "refuse"),
        (("ann",), "k1", "refuse"),
    ],
)
def test_a_submitter_with_a_fingerprint_needs_that_key(
    submitters: Any, key: str, state: str
) -> None:
    assert decided(Policy(submitters=submitters), word(), key=key).state == state


def test_what_named_people_submit_runs_unasked_if_the_policy_says_so() -> None:
    policy = Policy(submitters=("anna",), approve="submitters")
    assert decided(policy).state == "run"
    assert decided(policy, submitter="ben").state == "refuse"
    assert decided(policy, word("denied")).state == "refuse"
    assert decided(Policy(approve="submitters")).state == "ask"  # names nobody


def test_a_named_package_runs_unasked_but_for_the_rest_of_the_policy() -> None:
    assert decided(Policy(packages=(A,))).state == "run"
    assert decided(Policy(packages=(B,))).state == "ask"
    assert decided(Policy(packages=(A,), submitters=("ben",))).state == "refuse"
    assert decided(Policy(packages=(A,), max_rounds=2)).state == "refuse"


@pytest.mark.parametrize("rounds", [None, "3", 3.0, True, 0, -1, 4])
def test_a_plan_of_more_rounds_or_of_no_number_is_refused(rounds: Any) -> None:
    plan = {"rounds": rounds, "data": {"set": "cohort"}}
    assert decided(Policy(max_rounds=3), word(), plan=plan).state == "refuse"


@pytest.mark.parametrize(
    ("data", "allowed", "declared", "state"),
    [
        ("cohort", None, None, "run"),
        ("cohort", None, {"cohort"}, "run"),
        ("other", None, {"cohort"}, "refuse"),
        ("digits", None, {"cohort"}, "refuse"),
        (None, None, {"cohort"}, "run"),
        (None, ("cohort",), {"cohort"}, "refuse"),
        ("cohort", ("cohort",), {"cohort", "other"}, "run"),
        ("other", ("cohort",), {"cohort", "other"}, "refuse"),
        ("cohort", (), {"cohort"}, "refuse"),
    ],
)
def test_only_data_that_is_allowed_and_declared_is_used(
    data: Any, allowed: Any, declared: Any, state: str
) -> None:
    plan = {"rounds": 3, "data": {"set": data}}
    found = decided(Policy(data=allowed), word(), plan=plan, declared=declared)
    assert found.state == state


def test_reasons_are_sentences_for_people() -> None:
    found = decided(Policy(), word("denied", reason="No images here."))
    assert found.reason == "The site's owner has denied it: No images here."
    assert "1970-01-01" in decided(Policy(), word(until=10.0), at=11.0).reason
