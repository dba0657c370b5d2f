"""Jobs whose sites have different apps: each runs its own, and who has none takes no part.

The oracles are weighted means of what each site's app does, in closed form.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flare_apps import PERSISTOR, W0, client_config, server_config, write_job
from projects import simulate

from hansa.compat.nvflare.writing import import_app
from hansa.dev import SERVER, Rehearsal
from hansa.errors import PlanError, RunError

TRAINER = """
from amount import AMOUNT, KEY, move
from nvflare.apis.dxo import DXO, MetaKey, from_shareable
from nvflare.apis.executor import Executor


class NPTrainer(Executor):
    def __init__(self, steps=1):
        super().__init__()
        self.steps = steps

    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        import late  # while another site's client may have been at work
        assert late.AMOUNT == AMOUNT
        model = from_shareable(shareable).data
        model[KEY] = move(model[KEY], self.steps)
        meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: self.steps}
        return DXO("WEIGHTS", data=model, meta=meta).to_shareable()
"""
ADDS = """
KEY, AMOUNT = "numpy_key", 1.5


def move(array, steps):
    return array + AMOUNT
"""
HALVES = """
KEY, AMOUNT = "numpy_key", 0.5


def move(array, steps):
    return array * AMOUNT
"""
MINE = {"app_server": ["server"], "app_site-1": ["site-1"], "app_site-2": ["site-2"]}


def modules(amount: str) -> dict[str, str]:
    """Return an app's custom/: modules of the same names in each app, and different content."""
    late = f"AMOUNT = {re.search('[0-9.]+$', amount.split(chr(10))[1])[0]}\n"  # type: ignore[index]
    return {"np_trainer.py": TRAINER, "amount.py": amount, "late.py": late}


def different(place: Path, **more: Any) -> Path:
    """Import a job of which one site adds 1.5 with 3 steps, and the other halves with one."""
    server = more.pop("server", None) or server_config(
        num_rounds=2, persistor="np_model_persistor.NPModelPersistor"
    )
    code = {
        "app_server": {"np_model_persistor.py": PERSISTOR, "constants.py": 'KEY = "numpy_key"\n',
                       "amount.py": "raise SystemExit('the server has another')\n"},
        "app_site-1": modules(ADDS),
        "app_site-2": modules(HALVES),
    }  # fmt: skip
    clients = {"app_site-1": client_config(steps=3), "app_site-2": client_config(steps=1)}
    deployed = more.pop("deployed", MINE)
    job = write_job(place / "job", deployed, clients, code=code, server=server, **more)
    return import_app(job).folder


def expected(rounds: int = 2) -> np.ndarray:
    """x <- (3 (x + 1.5) + x / 2) / 4."""
    x = W0.astype(np.float64)
    for _ in range(rounds):
        x = (3 * (x + 1.5) + x / 2) / 4
    return x


def saved(run: Any) -> np.ndarray:
    return np.load(run.path / "models" / "server.npy", allow_pickle=False)


def digest(run: Any) -> str:
    return str(run.commits()[-1]["model"])


def test_each_site_runs_its_own_app_though_modules_have_the_same_names(tmp_path: Path) -> None:
    """Inline and in one worker process, which serves both sites in turn; and on real sites."""
    folder = different(tmp_path)
    runs = [simulate(folder), simulate(folder, engine="processes", workers=1)]
    with Rehearsal(tmp_path / "rehearsed", folder) as place:
        assert place.names == ["site-1", "site-2"]
        runs.append(place.run())
    np.testing.assert_allclose(saved(runs[0]), expected(), rtol=1e-6)
    assert saved(runs[0]).dtype == np.float32 and len({digest(run) for run in runs}) == 1


def test_a_server_and_a_site_that_are_killed_go_on_with_their_own_apps(tmp_path: Path) -> None:
    """kill -9 of the server once one site's update is recorded, and of the other site."""
    folder = different(tmp_path)
    with Rehearsal(tmp_path / "rehearsed", folder) as place:
        place.stop(SERVER)
        place.start(SERVER, failpoint="after_update_recorded:3")
        submitted = place.submit()
        place.children[SERVER].wait(60)
        place.kill("site-2")
        place.start(SERVER)
        place.start("site-2")
        assert place.follow(submitted, seconds=100) == "finished"
        assert digest(submitted) == digest(simulate(folder))


def test_sites_of_no_app_take_no_part_and_names_may_have_capitals(tmp_path: Path) -> None:
    """Three sites are there, the first of them in no app; aggregation weights go by the names."""
    weights = {"Ward_B": 5.0}
    server = server_config(
        num_rounds=1,
        aggregator={"expected_data_kind": "WEIGHTS", "aggregation_weights": weights},
        persistor="nvflare.app_common.np.np_model_persistor.NPModelPersistor",
    )
    deployed = {"app_server": ["server"], "app_site-1": [{"sites": ["site-7"]}],
                "app_site-2": {"targets": ["Ward_B"]}, "nobody": []}  # fmt: skip
    folder = different(tmp_path, server=server, deployed=deployed, mandatory_clients=["Ward_B"])
    plan = tomllib.loads((folder / "plan.toml").read_text())
    assert plan["data"]["clients"] == plan["cohort"]["where"]["name"] == ["ward_b", "site-7"]
    assert plan["cohort"]["mandatory"] == ["ward_b"]
    runs = [simulate(folder)]
    with Rehearsal(tmp_path / "r", folder, sites=["site-1", "site-7", "ward_b"]) as place:
        runs.append(place.run())
    np.testing.assert_allclose(saved(runs[0]), (3 * (W0 + 1.5) + 5 * W0 / 2) / 8, rtol=1e-6)
    assert digest(runs[0]) == digest(runs[1])


SCALES = """
from nvflare.apis.dxo_filter import DXOFilter


class Scales(DXOFilter):
    def __init__(self, by):
        super().__init__(None, None)
        self.by = by

    def process_dxo(self, dxo, shareable, fl_ctx):
        dxo.data = {name: array * self.by for name, array in dxo.data.items()}
        return dxo
"""


def test_apps_of_the_same_code_share_a_process_and_keep_their_arguments_and_filters(
    tmp_path: Path,
) -> None:
    """As FLARE's FedJob writes it: the same modules in each app.  2.5 more; and -2 times 1 more."""
    code = modules(ADDS) | {"scales.py": SCALES, "np_trainer.py": TRAINER.replace(
        "self.steps)\n        meta", "1) - AMOUNT + self.steps\n        meta").replace(
        "CURRENT_ROUND: self.steps", "CURRENT_ROUND: 1")}  # fmt: skip
    clients = {"app_site-1": client_config(steps=2.5), "app_site-2": client_config(steps=1)}
    filters = [{"tasks": ["train"], "filters": [{"path": "scales.Scales", "args": {"by": -2.0}}]}]
    clients["app_site-2"]["task_result_filters"] = filters
    server = server_config(
        num_rounds=1, persistor="nvflare.app_common.np.np_model_persistor.NPModelPersistor"
    )
    job = write_job(tmp_path / "job", MINE, clients, server=server,
                    code=dict.fromkeys(clients, code))  # fmt: skip
    folder = import_app(job).folder
    assert (folder / "custom" / "amount.py").is_file() and not (folder / "apps").exists()
    run = simulate(folder)
    np.testing.assert_allclose(saved(run), ((W0 + 2.5) - 2 * (W0 + 1)) / 2, rtol=1e-6)


def test_apps_that_are_alike_are_one_and_an_app_may_be_deployed_to_all(tmp_path: Path) -> None:
    clients = dict.fromkeys(("app_site-1", "app_site-2"), client_config(steps=1))
    code = dict.fromkeys(clients, modules(ADDS))
    made = import_app(write_job(tmp_path / "like", MINE, clients, code=code)).folder
    assert (made / "model.py").read_text().count('"sites": ["site-1", "site-2"]') == 1
    everywhere = {"app_server": ["server"], "app_site-1": ["@all"]}
    made = import_app(write_job(tmp_path / "all", everywhere, clients, code=code,
                                mandatory_clients=["site-9"])).folder  # fmt: skip
    plan = tomllib.loads((made / "plan.toml").read_text())
    assert "where" not in plan["cohort"] and plan["cohort"]["mandatory"] == ["site-9"]
    assert plan["data"]["clients"] == ["site-1", "site-9"]


def test_a_site_that_no_app_is_for_is_told_so(tmp_path: Path) -> None:
    folder = different(tmp_path)
    with pytest.raises(RunError, match="No app of the job is deployed to site-3"):
        simulate(folder, 'data.clients=["site-1", "site-3"]', "cohort.where={}",
                 "cohort.minimum=2")  # fmt: skip


WRONG: dict[str, tuple[Any, str]] = {
    "an app that is not there": ({**MINE, "app_site-9": ["site-9"]}, "'app_site-9', which is not"),
    "a folder outside": ({**MINE, "../job/app_site-1": ["site-9"]}, "which is not there"),
    "a site twice": ({**MINE, "app_site-2": ["site-2", "SITE-1"]}, "site-1 more than once"),
    "no server": ({"app_site-1": ["site-1"]}, "no app for the server"),
    "no clients": ({"app_server": ["server"]}, "no app for clients"),
    "nobody at all": ({"app_server": []}, "no app for the server"),
    "all and one": ({**MINE, "app_site-2": ["@ALL"]}, "@ALL and other sites"),
    "names that no site has": ({**MINE, "app_site-2": ["site 2"]}, "'site 2': no site"),
    "numbers for names": ({**MINE, "app_site-2": [2]}, "names 2: no site"),
    "a dict of something else": ({**MINE, "app_site-2": [{"place": ["x"]}]}, "names None: no site"),
    "an empty map": ({}, "is empty, and there is no folder app"),
    "a list for a map": (["app"], "no object"),
    "no configuration": ({"app_server": ["server", "site-3"]}, "has no config_fed_client.json"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_map_is_refused_with_what_is_wrong(tmp_path: Path, what: str) -> None:
    deployed, said = WRONG[what]
    with pytest.raises(PlanError, match=said) as caught:
        different(tmp_path, deployed=deployed)
    assert caught.value.code == "import-refused" and not (tmp_path / "job-hansa").exists()


def test_a_workflow_that_wants_more_clients_than_there_are_wants_all(tmp_path: Path) -> None:
    """FLARE's simulator ends such a job with the mean of the two, too."""
    server = server_config(
        num_rounds=1, min_clients=3, persistor="np_model_persistor.NPModelPersistor"
    )
    folder = different(tmp_path, server=server)
    assert tomllib.loads((folder / "plan.toml").read_text())["cohort"]["minimum"] == 2
    np.testing.assert_allclose(saved(simulate(folder)), expected(1), rtol=1e-6)


def test_needs_that_the_named_sites_cannot_meet_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="min_clients 3, and its deploy_map names 2"):
        different(tmp_path, min_clients=3)
    with pytest.raises(PlanError, match="mandatory_clients that no app is deployed to: site-9"):
        different(tmp_path, mandatory_clients=["site-9"])
    with pytest.raises(PlanError, match="no list of names"):
        different(tmp_path, mandatory_clients="site-1")
    job = tmp_path / "job"
    (job / "meta.json").write_text(json.dumps({"name": "job", "deploy_map": MINE}))
    with pytest.raises(PlanError, match="--clients asks for 5"):
        import_app(job, clients=5)
    path = job / "app_site-2" / "config" / "config_fed_client.json"
    path.write_text(path.read_text().replace('"train"', '"validate"'))
    with pytest.raises(PlanError, match="of app_site-2 does the task 'train'"):
        import_app(job)
