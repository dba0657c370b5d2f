"""Named points at which a test can make a process die as by `kill -9`; nothing otherwise.

`HANSA_FAILPOINT=after_update_recorded:3` kills the process when it passes that point the third
time.  Every durable step has a point before and one after it, so that a test can go through all.
"""

from __future__ import annotations

import os
import signal
import sys

FAILPOINTS: dict[str, str] = {}
"""Every point with what has just been done, or is about to be; filled below."""

_armed, _, _count = os.environ.get("HANSA_FAILPOINT", "").partition(":")
_left = int(_count) if _count.isdecimal() else 1


def hit(name: str) -> None:
    """Pass a point; the process ends here if a test has armed it."""
    global _left
    assert name in FAILPOINTS, f"unregistered failpoint {name!r}"
    if name != _armed:
        return
    _left -= 1
    if _left == 0:
        sys.stderr.write(f"failpoint {name}\n")
        sys.stderr.flush()
        if os.name == "nt":
            os._exit(137)
        os.kill(os.getpid(), signal.SIGKILL)


FAILPOINTS |= {
    # server: blobs and updates
    "before_blob_renamed": "the bytes of a blob are in a temporary file",
    "after_blob_renamed": "a blob has its final name",
    "before_chunk_recorded": "a chunk is written, and not yet marked as there",
    "after_chunk_recorded": "a chunk is marked as there",
    # server: runs
    "before_run_recorded": "a submission is checked, and not yet recorded",
    "after_run_recorded": "a submission is recorded, and not yet answered",
    "before_round_opened": "a cohort is chosen, and the round not yet recorded",
    "after_round_opened": "a round is recorded, and its tasks not yet given out",
    "before_update_recorded": "an update is checked, and not yet recorded",
    "after_update_recorded": "an update is recorded, and its receipt not yet sent",
    "after_update_folded": "an update is recorded and in the sum",
    "before_round_closed": "the last update is in, and the closing not yet recorded",
    "after_round_closed": "the closing is recorded, and the sum not yet finished",
    "before_model_written": "a new model exists in memory alone",
    "after_model_written": "a new model is a durable file, and not yet committed",
    "after_round_committed": "a round is committed, and its updates not yet removed",
    "after_updates_removed": "a round's updates are removed",
    "before_run_ended": "the last round is committed, and the run not yet ended",
    "after_run_ended": "a run has ended",
    # server: members
    "before_member_recorded": "an invitation is checked, and the member not yet recorded",
    "after_member_recorded": "a member is recorded, and its certificate not yet sent",
    # site
    "site_before_poll": "a site is about to ask for work",
    "site_after_task_received": "a site has a task, and has done nothing about it",
    "site_after_message_fetched": "the round's message is in the site's cache",
    "site_before_update_kept": "the worker has answered, and the outbox does not know it",
    "site_after_update_kept": "the update is in the outbox, and nothing has left",
    "site_before_ledger_written": "an update is about to leave",
    "site_after_ledger_written": "the ledger knows of the update, and nothing has left",
    "site_after_chunk_sent": "one chunk has left",
    "site_after_update_sent": "the whole update has left, and no receipt has come",
    "site_after_receipt": "the receipt has come, and the ledger does not know it",
    "site_after_receipt_kept": "the ledger knows the receipt",
    # a submitter's command line
    "submit_after_folder_made": "the run folder is there, and nothing has been sent",
    "submit_after_uploaded": "package and seed model are at the server, and the run is not",
    "submit_after_accepted": "the server has the run, and the run folder does not know it",
    "follow_after_events_kept": "events are in the log, and their models not yet here",
    "follow_after_models_kept": "the models of these events are here",
}
