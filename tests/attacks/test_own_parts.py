"""A submitter's own parts try to harm the operator's machine, its secrets, or other people's runs.

The process is a server's own: the same sandbox, limits and pipe as in a run.
"""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import numpy as np
import pytest

from hansa.aggregators import Contribution
from hansa.algorithms import Vectors
from hansa.errors import RunError
from hansa.own import Model, own_parts
from hansa.own.process import Parts
from hansa.plan import Plan, read_plan
from hansa.server.submissions import FUNCTIONS_FOLDER, Serving

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")

ALGORITHM = """
import os, socket
from hansa.algorithms import Algorithm, Vectors
def tried(*attempts):
    for attempt in attempts:
        try:
            found = attempt()
        except Exception:
            continue
        if found:
            raise RuntimeError("ESCAPED: " + repr(found)[:80])
    raise RuntimeError("blocked")
def server(state, mean, share):
    tried({attempts})
mine = Algorithm("mine", client=None, server=server)
"""

ATTACKS = {
    "opens a socket": 'lambda: socket.create_connection(("127.0.0.1", {port}), 2)',
    "reads the journal": 'lambda: open("{server}/hansa.db", "rb").read(9), '
    'lambda: os.listdir("{server}"), lambda: open("/proc/1/root{server}/hansa.db").read()',
    "reads another run's updates": 'lambda: os.listdir("{server}/spill/other"), '
    'lambda: os.listdir("{server}/functions")',
    "writes to its own package": 'lambda: open("/hansa/package/mine.py", "a").write("x")',
    "writes to what it is shown": 'lambda: open("/hansa/shown/x", "w").write("x")',
    "reads the operator's environment": 'lambda: os.environ.get("HANSA_SECRET"), '
    'lambda: b"HANSA_SECRET" in open("/proc/1/environ", "rb").read()',
}

PLAN: Plan = read_plan({"algorithm": "mine.py:mine"}).plan
MODEL = Model([("w", "F32", [3])], [])


@pytest.fixture
def server(tmp_path: Path) -> Path:
    folder = tmp_path / "server"
    (folder / "spill" / "other").mkdir(parents=True)
    (folder / FUNCTIONS_FOLDER).mkdir()
    (folder / "spill" / "other" / "update").write_bytes(b"not yours")
    (folder / "hansa.db").write_bytes(b"the journal")
    return folder


def parts(server: Path, code: str) -> Parts:
    place = Serving("sandboxed", 1024, server).place({"mine.py": code.encode()})
    return Parts(PLAN, own_parts(PLAN), place, MODEL)


@pytest.mark.parametrize("what", ATTACKS)
def test_the_sandbox_holds(server: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setenv("HANSA_SECRET", "the operator's")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = str(listening.getsockname()[1])
        attempts = ATTACKS[what].replace("{server}", str(server)).replace("{port}", port)
        made = parts(server, ALGORITHM.replace("{attempts}", attempts))
        made.start()
        state = Vectors(x=np.ones(3, "f4"))
        with pytest.raises(RunError, match="blocked"):
            made.call("server", (state, Vectors(delta=state.x), 1.0), Vectors)
        made.close()
    assert not list((server / FUNCTIONS_FOLDER).iterdir())


def test_more_than_a_run_may_have_is_not_taken(server: Path) -> None:
    """A state of a hundred megabytes where the model has twelve bytes: the pipe is closed on it."""
    code = ALGORITHM.replace("{attempts}", "").replace(
        "    tried()", "    import numpy as np\n    return Vectors(x=state.x, m=np.ones(2**24))"
    )
    made = parts(server, code)
    made.start()
    state = Vectors(x=np.ones(3, "f4"))
    with pytest.raises(RunError) as caught:
        made.call("server", (state, Vectors(delta=state.x), 1.0), Vectors)
    assert caught.value.code == "function-failed"
    with pytest.raises(RunError) as again:  # nothing can be asked of it any more
        made.call("init", state.x, Vectors)
    assert again.value is caught.value
    made.close()


def test_updates_are_shown_under_names_of_the_servers(server: Path) -> None:
    """A site's name is no path, whatever it is."""
    made = parts(server, ALGORITHM.replace("{attempts}", ""))
    made.start()
    told = made.show([Contribution("../../hansa.db", {"delta": np.ones(3, "f4")}, 1.0)])
    assert [(client, weight) for client, _, weight in told] == [("../../hansa.db", 1.0)]
    assert "/" not in told[0][1] and (server / "hansa.db").read_bytes() == b"the journal"
    made.hide()
    made.close()
