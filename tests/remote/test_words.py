"""What events say in plain words is what is known, and no more."""

from __future__ import annotations

import pytest

from hansa.remote.words import sentence


@pytest.mark.parametrize(
    ("examples", "told"),
    [
        (1, "north takes part with 1 example"),
        (1200, "north takes part with 1,200 examples"),
        (0, "north takes part; its data are read and counted by the run's code alone"),
    ],
)
def test_a_site_takes_part_with_what_it_has_counted(examples: int, told: str) -> None:
    event = {"kind": "standing", "site": "north", "state": "ready", "examples": examples}
    assert sentence(event) == told
