"""What people are told of a run that waits for sites."""

from __future__ import annotations

from collections.abc import Mapping, Set

from hansa.protocol.messages import Standing


def why_waiting(
    ready: list[str],
    present: Set[str],
    said: Mapping[str, Standing],
    fitting: Set[str],
    *,
    minimum: int,
) -> str:
    """Say in one sentence why a run has not begun."""
    others = len(present - fitting)
    asked = [s for s, w in said.items() if w.state == "waiting"]
    refused = [s for s, w in said.items() if w.state == "refused"]
    away = [s for s, w in said.items() if w.state == "ready" and s not in present]
    parts = [f"{len(ready)} of {minimum} sites that it needs are ready"]
    parts += [f"{', '.join(sorted(asked))} must approve it"] if asked else []
    parts += [f"{', '.join(sorted(refused))} refused it"] if refused else []
    parts += [f"{', '.join(sorted(away))} is not heard of"] if away else []
    parts += ["no site is connected"] if not present else []
    parts += [f"{others} of those connected do not fit cohort.where"] if others else []
    return "; ".join(parts)
