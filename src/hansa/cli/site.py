"""`hansa site`: all that a data owner does; each command is imported when it is called."""

from __future__ import annotations

from hansa.cli.lazy import LazyGroup, Verb
from hansa.cli.options import folder_of

VERBS = {
    "join": Verb("site_join", "Join a federation with the line that its operator sent."),
    "data": Verb("site_data", "Declare data by name, and look at what is declared."),
    "policy": Verb("site_policy", "Show or edit what may run here."),
    "start": Verb("site_agent:start", "Start this site's agent; it only connects outward."),
    "status": Verb("site_agent:status", "Tell whether the agent runs, and what waits for you."),
    "requests": Verb("site_requests:requests", "List plans that ask to run here."),
    "review": Verb("site_review", "Read a request: code, plan, data, and what would leave."),
    "approve": Verb("site_requests:approve", "Allow one plan with exactly this code."),
    "deny": Verb("site_requests:deny", "Refuse one plan, whatever the policy says."),
    "ledger": Verb("site_ledger", "List everything that has left this site."),
    "stop": Verb("site_agent:stop", "End the agent, or kill it at once."),
}
"""Every command of a site, in the order in which a data owner meets them."""

command = LazyGroup(
    verbs=VERBS,
    help="Hold a data owner's part of a federation: join, decide, see what left.",
    epilog="Start with: hansa site join INVITE",
)
"""The group itself."""

folder_option = folder_of("site", "HANSA_SITE")
"""`--folder DIR`: which site."""
