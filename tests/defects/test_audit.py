"""What an audit of the four contracts found without a test of its own.

Method: small simulations with closed forms, and real processes where one is killed; see
docs/explain/defects.md for the list.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from projects import final_model, make_project, simulate

from hansa.compat.nvflare.writing import import_app
from hansa.plan import schema
from hansa.project import open_project
from hansa.server.settings import ServerSettings
from hansa.simulation import Simulation, Unwatched, continue_run, open_run
from hansa.site.policy import Policy
from hansa.site.settings import DataSource, SiteLimits, SiteSettings

sys.path.insert(0, str(Path(__file__).parents[1] / "compat"))

from flare_apps import TRAINER, write_app

SOURCE = Path(__file__).resolve().parents[2] / "src" / "hansa"
PARTS = [
    part
    for part in vars(schema).values()
    if isinstance(part, type) and issubclass(part, msgspec.Struct) and part.__struct_fields__
]


@pytest.mark.parametrize(
    "part",
    [*PARTS, ServerSettings, SiteSettings, SiteLimits, DataSource, Policy],
    ids=lambda part: part.__name__,
)
def test_no_key_is_taken_and_never_read(part: type[msgspec.Struct]) -> None:
    """FEDn stores requested_clients and parses --trainer; MetisFL takes participation_ratio."""
    home = Path(sys.modules[part.__module__].__file__ or "")
    text = "\n".join(p.read_text() for p in SOURCE.rglob("*.py") if p != home)
    unread = [
        field
        for field in part.__struct_fields__
        if not re.search(rf"\.{field}\b|\"{field}\"", text)
        and len(re.findall(rf"\.{field}\b", home.read_text())) == 0
    ]
    assert not unread


def test_a_server_optimizer_keeps_its_momentum_when_a_run_goes_on(tmp_path: Path) -> None:
    """FEDn's fedopt begins with no momentum in each session."""
    adam = 'algorithm={ name = "fed_adam", lr = 0.1 }'
    whole = final_model(simulate(make_project(tmp_path / "a", rounds=4), adam))
    cut = make_project(tmp_path / "b", rounds=4)

    class Impatient(Unwatched):
        def committed(self, row: dict[str, Any], problems: Any) -> None:
            if row["round"] == 2:
                raise KeyboardInterrupt

    project, simulation = open_project(cut, [adam]), Simulation(cut / "runs", "inline", 1)
    run, population = open_run(project, simulation)
    with pytest.raises(KeyboardInterrupt):
        continue_run(run, project, population, simulation=simulation, watcher=Impatient())
    np.testing.assert_array_equal(final_model(simulate(cut, adam))["w"], whole["w"])


def test_whole_numbers_are_not_cut_in_each_product(tmp_path: Path) -> None:
    """MetisFL casts x p to the tensor's integer before it adds: here 3 instead of 88 / 18."""
    run = simulate(make_project(tmp_path / "a", rounds=1))
    assert final_model(run)["n"] == round((9 + 1 + 49 + 4 + 25) / 18)


def test_the_metrics_of_a_round_are_of_the_model_that_it_made(tmp_path: Path) -> None:
    """MetisFL evaluates the model of before with each update that comes."""
    run = simulate(make_project(tmp_path / "a", rounds=1))
    told = run.rows()[0]["validation"]["first"]["by_client"]
    first = float(final_model(run)["w"][0])
    assert first != 0.0
    assert told["client-2"] == pytest.approx(first + 7) and told["client-1"] == first + 1


def test_a_run_ends_with_the_round_that_reaches_its_target(tmp_path: Path) -> None:
    """MetisFL's driver looks every 15 s; extra rounds run unseen."""
    # 0.4375 a round, and 3.6 of the clients' sizes in the mean: 4.9 is passed in the third.
    sets = ("stop.target=4.9", "stop.lower_is_better=false")
    run = simulate(make_project(tmp_path / "a", rounds=50), *sets)
    assert len(run.rows()) == 3


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found in /proc")
def test_a_clients_process_does_not_survive_the_death_of_its_run(tmp_path: Path) -> None:
    """Clients of NVFlare's Flower jobs live on after an abort (#3822)."""
    began = tmp_path / "began"
    work = f"open({str(began)!r}, 'w').write(f'{{os.getpid()}} {{tempfile.gettempdir()}}')"
    code = "import tempfile, threading\n" + TRAINER.replace(
        "dxo.data[KEY] += self._delta", f"{work}; threading.Event().wait(600)"
    )
    folder = import_app(write_app(tmp_path / "app", code)).folder
    run = subprocess.Popen([sys.executable, "-P", "-m", "hansa", "run", str(folder)], cwd=tmp_path)
    try:
        eventually(lambda: began.exists() and " " in began.read_text(), seconds=120)
        number, place = began.read_text().split(" ", 1)
        assert Path(place).is_dir() and Path(f"/proc/{number}").exists()
        run.send_signal(signal.SIGKILL)
        run.wait(60)
        eventually(lambda: _gone(number) and not Path(place).exists(), seconds=60)
    finally:
        run.kill()


def eventually(reached: Callable[[], bool], *, seconds: float) -> None:
    until, pause = time.monotonic() + seconds, threading.Event()
    while not reached():
        assert time.monotonic() < until, "it did not come"
        pause.wait(0.05)


def _gone(number: str) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{number}/status").read_text()
    except OSError:
        return not os.path.exists(f"/proc/{number}")
