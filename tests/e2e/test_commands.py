"""A federation whose code is a command: the model of the simulation, and failures that say why."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from federations import FAST, check_books, digest, eventually, project, workers

from hansa.dev import Rehearsal
from hansa.params import Params
from hansa.site.settings import SiteLimits
from hansa.store.files import save_params

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the programs are for a POSIX shell")

PLAN = """
name = "commands"
rounds = 2
seed = 3
[learner]
kind = "command"
train = ["sh", "train.sh"]
validate = ["sh", "-c", 'echo "{\\"metrics\\": {\\"loss\\": 1}}" > "$HANSA_RESULT_OUT"']
init = ["cp", "seed.safetensors", "{model_out}"]
rows = "csv"
[data]
set = "digits"
split = { scheme = "iid", clients = 3 }
[stop]
metric = "loss"
"""

PERL = r"""
open(my $m, "<:raw", $ENV{HANSA_MODEL_IN}) or die; local $/; my $raw = <$m>;
my $at = 8 + unpack("Q<", $raw);
srand($ENV{HANSA_SEED});
my @w = map { $_ + rand() - $ENV{HANSA_EXAMPLES} / 1000 } unpack("f<*", substr($raw, $at));
open(my $o, ">:raw", $ENV{HANSA_UPDATE_OUT}) or die;
print $o substr($raw, 0, $at), pack("f<*", @w);
"""

TRAIN = {
    "well": "perl train.pl",
    "an exit": 'test $HANSA_CLIENT = client-1 && { echo "no dongle" >&2; exit 7; }; perl train.pl',
    "a hang": "test $HANSA_CLIENT = client-1 && exec sleep 600; perl train.pl",
    "a flood": "test $HANSA_CLIENT = client-1 && exec yes; perl train.pl",
}
TOLD = {"an exit": "no dongle", "a hang": "2 s, its time limit", "a flood": "2 s, its time limit"}


@pytest.mark.skipif(shutil.which("perl") is None, reason="there is no perl")
def test_a_federation_of_commands_gives_the_model_of_the_simulation(tmp_path: Path) -> None:
    study = project(tmp_path / "study", PLAN)
    w = np.array([0.5, -2.0, 3.25], np.float32)
    save_params(study / "seed.safetensors", Params.of({"w": w}))
    (study / "train.pl").write_text(PERL)
    (study / "train.sh").write_text(TRAIN["well"])
    sets = ["learner.files=['train.pl']"]
    limits = SiteLimits(task_s=60.0)
    with Rehearsal(tmp_path / "r", study, sets=sets, settings=FAST, limits=limits) as rehearsal:
        folder = rehearsal.submit()
        assert rehearsal.follow(folder) == "finished"
        assert [row["clients"]["accepted"] for row in folder.rows()] == [3, 3]
        assert digest(folder) == digest(rehearsal.simulate())
        check_books(rehearsal, folder)
        for mischief, words in TOLD.items():
            (study / "train.sh").write_text(TRAIN[mischief])
            folder = rehearsal.submit(sets=["learner.time_s=2.0", "rounds=1"])
            assert rehearsal.follow(folder) == "finished"
            assert [row["clients"]["accepted"] for row in folder.rows()] == [2]
            told = rehearsal.command("log", folder.name, "--runs", str(rehearsal.runs)).stdout
            assert any("client-1" in line and words in line for line in told.splitlines()), told
        eventually(lambda: not workers(rehearsal), what="a worker stays after its run")
