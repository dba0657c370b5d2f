"""A user's process that is the worker of its site: it outlives whatever the user's code raises."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hansa.compat.fedn import FednClient
from hansa.compat.hand_over import HandOver
from hansa.compat.own_process import InProcess, OwnProcess, TaskThread
from hansa.hosting.confined import Limits
from hansa.hosting.process import Lost
from hansa.site.policy import Policy
from hansa.site.settings import SiteSettings, load_settings, write_settings
from hansa.site.worker_messages import Failed, Setup


class Raising:
    """Stands for user code that is reached while a task is done."""

    whose = submit = ""

    def is_ours(self, code: Any) -> bool:
        raise asyncio.CancelledError("rows")


def setup(folder: Path) -> Setup:
    return Setup(Limits(64, None, None), str(folder), {}, "i", "north", {}, "", (), ())


def test_a_callback_that_raises_no_exception_ends_its_task_alone(tmp_path: Path) -> None:
    """asyncio's CancelledError is none; the thread that does all tasks ended with it."""
    worker = InProcess(TaskThread(), Raising())  # type: ignore[arg-type]
    for _ in range(2):
        reply = worker.ask(setup(tmp_path), seconds=20).reply
        assert isinstance(reply, Failed) and "CancelledError: rows" in reply.message


def test_a_task_behind_one_that_hangs_is_told_so(tmp_path: Path) -> None:
    thread, ended = TaskThread(), threading.Event()
    thread.put(lambda: (ended.wait(), None)[1])
    with pytest.raises(Lost) as caught:
        InProcess(thread, Raising()).ask(setup(tmp_path), seconds=0)  # type: ignore[arg-type]
    assert "did not begin" in str(caught.value) and "Start the process again" in str(caught.value)
    ended.set()


def test_what_a_script_says_of_its_site_leaves_the_sandbox_of_its_policy(tmp_path: Path) -> None:
    """The same folder may be a site's that runs code of others, by `hansa site start`."""
    client = FednClient()
    client._submitters = ("ada",)
    write_settings(tmp_path, SiteSettings(name="north", policy=Policy(submitters=("bob",))))
    client._settle(tmp_path)
    policy = load_settings(tmp_path).policy
    assert policy is not None and (policy.submitters, policy.sandbox) == (("ada",), "required")


@pytest.mark.parametrize("sandbox", ["required", "preferred", "none"])
def test_a_policy_of_sandboxes_is_for_code_that_others_bring(tmp_path: Path, sandbox: Any) -> None:
    settings = SiteSettings(name="north", policy=Policy(sandbox=sandbox))
    hand_over = HandOver("", msgspec.Struct, "FednClient", "")
    assert not OwnProcess(tmp_path, settings, hand_over=hand_over)._sandboxed()
