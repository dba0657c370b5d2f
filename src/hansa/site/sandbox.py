"""What a site's owner is told of the sandbox in which code runs."""

from __future__ import annotations

from hansa.hosting.sandbox import trouble
from hansa.site.policy import Policy


def sandbox_told(policy: Policy | None) -> str:
    """Say to a site's owner in what code runs under a policy, or why it cannot."""
    wish = Policy().sandbox if policy is None else policy.sandbox
    if wish == "none":
        return "none, as the policy says: code runs with the rights of the agent"
    why = trouble()
    if why is None:
        return "bubblewrap"
    if wish == "preferred":
        return f"NONE: {why} (policy preferred: code runs with the rights of the agent)"
    return (
        f"NONE: {why} (policy required: nothing runs; install bubblewrap and let it make "
        "namespaces, then start the agent again)"
    )
