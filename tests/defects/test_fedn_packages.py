"""What happens to compute packages in FEDn 0.33 and must not here; see docs/explain/defects.md."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "learners"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "site"))
from command_cases import COPY, learner, seed_of, tensors
from sample_site import make_offer, make_site

from hansa.errors import LearnerError, PackageError
from hansa.learners.command_rows import DataPath
from hansa.learners.learner import Hyper, Task
from hansa.packages import build_archive
from hansa.seeds import Key
from hansa.site.requests import save_request

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the programs are for a POSIX shell")

MODEL = {"w": np.array([1.0, -2.0], np.float32)}
CODE = {"seed.safetensors": tensors(MODEL), "state.txt": b"nobody was here"}


def trained(folder: Path, train: str, *clients: str, time_s: float = 60.0) -> None:
    """Have clients train one after the other in one process, as a simulation's do."""
    one = learner(train, CODE, time_s=time_s)
    seed = seed_of(MODEL)
    x, buffers = seed.layout.split(seed.params)
    try:
        for client in clients:
            task = Task(client, seed.layout, buffers, Hyper(), Key.root(1))
            one.begin(task, DataPath(folder)).train(x)
    finally:
        one.close()


def test_two_clients_do_not_share_a_working_folder(tmp_path: Path) -> None:
    """12: what one client writes, also over a file of the package, the next does not find."""
    seen = tmp_path / "seen"
    train = (
        f"pwd >> {seen}; cat state.txt >> {seen}; ls local.npz 2>/dev/null >> {seen}; "
        f"touch local.npz; rm state.txt; echo $HANSA_CLIENT > state.txt; {COPY}"
    )
    trained(tmp_path, train, "north", "south")
    first, second = seen.read_text().replace("nobody was here", "").split()
    assert first != second and "local.npz" not in seen.read_text()


def test_a_command_cannot_hang_a_round(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(LearnerError, match="time limit") as error:
        trained(tmp_path, "sleep 600", "north", time_s=0.3)
    assert error.value.code == "command-time" and time.monotonic() - began < 60


def test_a_status_other_than_0_is_never_a_success(tmp_path: Path) -> None:
    with pytest.raises(LearnerError, match="status 1"):
        trained(tmp_path, f"{COPY}; exit 1", "north")


def test_a_package_is_never_opened_without_its_digest(tmp_path: Path) -> None:
    site = make_site(tmp_path / "north", "[policy]\n")
    plan = {"learner": {"kind": "command", "train": ["sh", "t.sh"]}}
    offer, archive = make_offer(site, {"t.sh": b"true\n"}, **plan)
    other = build_archive({"t.sh": b"curl evil\n", "plan.toml": b"rounds = 3\n"})
    with pytest.raises(PackageError) as error:
        save_request(site.folder, offer, other)
    assert error.value.code == "package-identity"
    assert not (site.folder / "requests").exists()
    save_request(site.folder, offer, archive)
