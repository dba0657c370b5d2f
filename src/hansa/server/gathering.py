"""Why a run waits for sites, in words."""

from __future__ import annotations

from hansa.protocol.messages import Standing


def why_waiting(
    ready: list[str], present: set[str], said: dict[str, Standing], *, minimum: int
) -> str:
    """Say in one sentence why a run has not begun."""
    asked = [s for s, w in said.items() if w.state == "waiting"]
    refused = [s for s, w in said.items() if w.state == "refused"]
    away = [s for s, w in said.items() if w.state == "ready" and s not in present]
    parts = [f"{len(ready)} of {minimum} sites that it needs are ready"]
    parts += [f"{', '.join(sorted(asked))} must approve it"] if asked else []
    parts += [f"{', '.join(sorted(refused))} refused it"] if refused else []
    parts += [f"{', '.join(sorted(away))} is not heard of"] if away else []
    parts += ["no site is connected"] if not present else []
    return "; ".join(parts)
