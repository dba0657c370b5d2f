"""Every key of a plan has a meaning, in words of one line."""

from __future__ import annotations

import msgspec

from hansa.plan import Plan, flatten, read_plan
from hansa.plan.explain import meanings


def test_every_key_and_table_of_a_plan_has_a_meaning() -> None:
    told = meanings()
    whole = msgspec.to_builtins(read_plan({"learner": {"change": [{"round": 1}]}}).plan)
    keys = set(flatten(whole)) | {f.name for f in msgspec.structs.fields(Plan)}
    keys |= {f"learner.change.{key}" for key in whole["learner"]["change"][0]}
    assert keys <= set(told)
    assert {key for key in told if not told[key].strip()} == set()
    assert not any("\n" in text or text != text.strip() for text in told.values())


def test_meanings_are_those_of_the_schema() -> None:
    told = meanings()
    assert told["learner.optimizer.beta2"] == "decay of the second moment, of adam and adamw"
    assert told["learner.change.lr"] == "local learning rate; the schedule goes on from it"
    assert told["learner"] == "What is trained, and how, at each client."
    assert told["learner.optimizer"].startswith("local optimizer: {")
    assert told["learner.schedule.name"].endswith("cosine: to 0 over all rounds")


def test_no_key_is_told_that_a_plan_does_not_have() -> None:
    def exists(key: str) -> bool:
        kind, names = Plan, key.split(".")
        for name in names:
            fields = {f.name: f.type for f in msgspec.structs.fields(kind)}
            if name not in fields:
                return False
            kind = next(iter(getattr(fields[name], "__args__", ())), fields[name])
        return True

    assert [key for key in meanings() if not exists(key)] == []
