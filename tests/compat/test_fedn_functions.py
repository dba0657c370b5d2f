"""FEDn's class ServerFunctions runs unmodified, in closed form, and remembers what it did."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from fedn_packages import WITH_OPTIONS, package, rows
from projects import run

from hansa.cli.predict import command as predict_command
from hansa.compat.fedn.writing import Import, import_package
from hansa.errors import PlanError, RunError

pytestmark = pytest.mark.skipif(os.name == "nt", reason="packages are lines for a POSIX shell")

HEAD = """\
from fedn.common.log_config import logger
from fedn.network.combiner.hooks.allowed_import import (
    Dict, List, ServerFunctionsBase, Tuple, api_client, np, random,
)


class ServerFunctions(ServerFunctionsBase):
    def __init__(self) -> None:
        self.round = 0
        self.seen = set()
        self.logger = logger  # which no commit could hold, and __init__ makes again

"""
WHOLE = (
    HEAD
    + """\
    def client_selection(self, client_ids: List[str]) -> List:
        try:
            api_client.get_current_attributes(client_ids)
        except Exception as error:
            logger.warning(str(error))
        return random.sample(client_ids, len(client_ids))

    def client_settings(self, global_model: List[np.ndarray]) -> Dict:
        self.round += 1
        return {"rate": 0.5 ** self.round}

    def aggregate(
        self, previous_global: List[np.ndarray],
        client_updates: Dict[str, Tuple[List[np.ndarray], dict]],
    ) -> List[np.ndarray]:
        self.seen |= set(client_updates)
        total = sum(said["num_examples"] for _, said in client_updates.values())
        assert all(said["rate"] == 0.5 ** self.round for _, said in client_updates.values())
        mean = [np.zeros_like(array) for array in previous_global]
        for arrays, said in client_updates.values():
            for place, array in enumerate(arrays):
                mean[place] = mean[place] + array * (said["num_examples"] / total)
        return mean
"""
)
INCREMENTAL = (
    HEAD
    + """\
    def incremental_aggregate(self, client_id, model, client_metadata, previous_global):
        if not hasattr(self, "sum") or self.sum is None:
            self.sum, self.count = [np.zeros_like(a) for a in model], 0
        self.sum = [a + b for a, b in zip(self.sum, model)]
        self.count += 1

    def get_incremental_aggregate_model(self):
        made, self.sum = [array / self.count for array in self.sum], None
        return made
"""
)


def imported(tmp_path: Path, text: str) -> Path:
    source = package(tmp_path / "client")
    functions = tmp_path / "functions.py"
    functions.write_text(text)
    asked = Import(
        source,
        tmp_path / "mine",
        data=str(rows(tmp_path / "sites")),
        env=WITH_OPTIONS,
        server_functions=functions,
    )
    return import_package(asked).folder


def test_selection_settings_and_aggregate_are_fedns(tmp_path: Path) -> None:
    folder = imported(tmp_path, WHOLE)
    assert (folder / "server_functions.py").read_text() == WHOLE
    made = run(folder, tmp_path / "runs", "rounds=2")
    model, _ = made.load(made.commits()[-1])
    # From 1 and -2 half the way to -5, then a quarter of the rest.
    expected = np.array([[-2.0, -3.5]]) + 0.25 * (-5 - np.array([[-2.0, -3.5]]))
    np.testing.assert_allclose(model["0"], expected, rtol=1e-6)
    assert made.rows()[1]["server_functions"]["settings"] == {"rate": 0.25}
    assert "sites" not in json.dumps(made.rows()[1]["server_functions"])


def test_each_client_predicts_after_a_run_with_server_functions(tmp_path: Path) -> None:
    made = run(imported(tmp_path, WHOLE), tmp_path / "runs", "rounds=1")
    words = [f"{made.name}:1", "--runs", str(tmp_path / "runs"), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(predict_command, words)
    assert done.exit_code == 0, done.output or done.exception
    assert {path.stem for path in (tmp_path / "out").iterdir()} == {"north", "south"}


def test_the_incremental_form_gets_every_update_once(tmp_path: Path) -> None:
    made = run(imported(tmp_path, INCREMENTAL), tmp_path / "runs", "rounds=1")
    model, _ = made.load(made.commits()[-1])
    assert model["0"].tolist() == [[-2.0, -2.0]]  # the plain mean of 4 and -8


def test_a_function_that_gives_nothing_ends_the_run(tmp_path: Path) -> None:
    """FEDn retires it without a word, and goes on with its own."""
    folder = imported(tmp_path, HEAD + "    def client_settings(self, global_model): pass\n")
    with pytest.raises(RunError, match="no dict"):
        run(folder, tmp_path / "runs", "rounds=1")


@pytest.mark.parametrize("text", ["class Other: pass", HEAD, "def ("])
def test_a_file_without_the_class_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(PlanError) as caught:
        imported(tmp_path, text)
    assert caught.value.code == "import-refused" and not (tmp_path / "mine").exists()
