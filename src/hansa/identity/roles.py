"""What a member may do."""

from __future__ import annotations

from typing import Literal, get_args

Role = Literal["site", "combiner", "viewer", "submitter", "admin"]
"""`site`: takes part in runs.  `combiner`: does so for sites of its own.  `viewer`: looks at them.
`submitter`: also starts runs and stops its own.  `admin`: also stops any, invites and revokes."""

ROLES: tuple[Role, ...] = get_args(Role)
