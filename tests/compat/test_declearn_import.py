"""What `hansa import declearn` takes from where, and what it refuses; nothing is executed by it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from declearn_setups import CONFIG, LINEAR, ROWS, rows_of, write_setup

from hansa.cli.import_declearn import declearn as command
from hansa.compat.declearn.optimizers import steps_of
from hansa.compat.declearn.writing import import_setup
from hansa.data.folders import load_folder
from hansa.errors import PlanError
from hansa.plan import check_plan, read_plan


def test_a_set_up_becomes_a_plan_and_its_model_file_stays(tmp_path: Path) -> None:
    source = write_setup(tmp_path / "linear", "raise SystemExit('executed')\n" + LINEAR)
    done = CliRunner().invoke(command, [str(source / "config.toml")])
    assert done.exit_code == 0, done.output
    made = tmp_path / "linear-hansa"
    assert (made / "model.py").read_bytes() == (source / "model.py").read_bytes()
    plan = tomllib.loads((made / "plan.toml").read_text())
    check_plan(read_plan(plan).plan)
    assert plan["algorithm"] == {
        "name": "fed_opt",
        "lr": 0.5,
        "chain": [{"name": "ewma", "beta": 0.25}, {"name": "decoupled_decay", "rate": 0.04}],
    }
    assert (plan["rounds"], plan["cohort"]["minimum"], plan["weighting"]) == (2, 3, "user")
    assert (plan["evaluate"]["metrics"], plan["data"]["shape"]) == (["mse"], [3])
    assert "most_steps=5" in (made / "hansa_model.py").read_text()
    assert "begin anew with each round" in done.output and "network.port" in done.output
    rows = load_folder(made / "data")
    assert rows is not None and list(dict.fromkeys(rows.groups)) == list(ROWS)
    np.testing.assert_array_equal(rows.x[:7], rows_of("client_0")["train_data"])
    again = CliRunner().invoke(command, [str(source)])
    assert isinstance(again.exception, PlanError) and again.exception.code == "project-exists"


def test_options_have_declearns_defaults_and_not_ours() -> None:
    """Its ridge is alpha x^2, so twice as strong; its second moment decays by 0.99."""
    told = {"lrate": 2, "w_decay": 0.1, "regularizers": ["ridge", "fedprox"],
            "modules": ["adam", ["yogi", {"beta_1": 0.5}], "rmsprop"]}  # fmt: skip
    steps = steps_of("client_opt", told)
    assert steps.regularizers == [
        {"name": "ridge", "strength": 0.02},
        {"name": "fed_prox", "mu": 0.01},
    ]
    assert steps.chain == [
        {"name": "adam", "beta1": 0.9, "beta2": 0.99, "eps": 1e-7},
        {"name": "yogi", "beta1": 0.5, "beta2": 0.99, "eps": 1e-7, "bias_correction": True,
         "initial": 0.0},
        {"name": "rmsprop", "decay": 0.9, "eps": 1e-7},
        {"name": "decoupled_decay", "rate": 0.05},
    ]  # fmt: skip
    assert steps_of("server_opt", 1).lr == 1.0


REFUSED = {
    "an unknown section": ("[network]", "[netwrok]", "'netwrok'"),
    "an unknown key of the network": ("port =", "prot =", "'prot'"),
    "an unknown key of a round": ("n_epoch = 2", "n_epochs = 2", "'n_epochs'"),
    "an unknown option": ("beta = 0.5", "betta = 0.5", "'betta'"),
    "an unknown module": ('"momentum"', '"momentun"', "'momentun'"),
    "an unknown aggregator": ('"averaging"', '"averagin"', "'averagin'"),
    "masked averaging": ('"averaging"', '"gradient-masked-averaging"', "no counterpart"),
    "a sum": ('"averaging"', '"sum"', "no counterpart"),
    "paired modules": ('[["ewma", { beta = 0.25 }]]', '["scaffold-server"]', "scaffold"),
    "a framework's optimizer": ('[["ewma", { beta = 0.25 }]]', '["torch-optim"]', "torch-optim"),
    "AMSGrad": ("[[\"ewma\", { beta = 0.25 }]]", '[["adam", { amsgrad = true }]]', "amsgrad"),
    "secret noise": ('[["ewma", { beta = 0.25 }]]', '["gaussian-noise"]', "secret"),
    "clipping of tensors at the server": ('[["ewma", { beta = 0.25 }]]', '["l2-clipping"]',
                                          "clients alone"),
    "a server's reset": ("beta = 0.25", "round_reset = true", "round_reset"),
    "a schedule": ("lrate = 0.1", 'lrate = ["cosine-annealing", { base = 0.1, max_lr = 1 }]',
                   "schedule"),
    "an endless rate": ("lrate = 0.5", "lrate = inf", "is inf"),
    "no steps at all": ("n_epoch = 2\nn_steps = 5", "n_epoch = nan", "neither n_epoch nor n_steps"),
    "a rate of 0": ("lrate = 0.5", "lrate = 0", "is 0"),
    "a rate in words": ("lrate = 0.5", 'lrate = "fast"', "'fast'"),
    "a time limit": ("n_steps = 5", "timeout = 5", "timeout"),
    "Poisson batches": ("n_steps = 5", "poisson = true", "poisson"),
    "half an evaluation": ("batch_size = 3", "batch_size = 3\nn_steps = 1", "all rows"),
    "no batch size": ("batch_size = 2", "", "batch_size is None"),
    "privacy": ("[run.evaluate]", "[run.privacy]\nbudget = [1, 1e-5]\n[run.evaluate]", "privacy"),
    "fairness": ("[run]", '[optim.fairness]\nalgorithm = "fairfed"\n[run]', "fairness"),
    "secure aggregation": ("[run]", '[secagg]\nsecagg_type = "masking"\n[run]', "[secagg]"),
    "a tolerance": ("[run.evaluate]", "[run.early_stop]\ntolerance = 0.1\n[run.evaluate]",
                    "tolerance"),
    "fewer clients than there are": ("register = 3", "register = { max_clients = 2 }", "is 2"),
    "labels that are no numbers from 0": ('["mse"]', '[["multi-classif", { labels = [1, 2] }]]',
                                          "labels are [1, 2]"),
    "an option of a metric": ('["mse"]', '[["binary-roc", { scale = 0.01 }]]', "scale"),
    "an unknown metric": ('["mse"]', '["msse"]', "'msse'"),
    "no such folder": ("[data]", '[data]\ndata_folder = "data_none"', "data_none"),
    "no such client": ("[data]", '[data]\nclient_names = ["nobody"]', "nobody"),
    "no such model file": ("[data]", '[model]\nmodel_file = "none.py"\n[data]', "none.py"),
    "the older split in the file": ("[data]", '[data]\nscheme = "labels"', "'scheme'"),
    "no TOML": ("[data]", "[data", "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_has_no_counterpart_is_refused_in_a_sentence(tmp_path: Path, what: str) -> None:
    old, new, said = REFUSED[what]
    assert old in CONFIG
    source = write_setup(tmp_path / "odd", config=CONFIG.replace(old, new, 1))
    with pytest.raises(PlanError) as raised:
        import_setup(source)
    assert raised.value.code == "import-refused", raised.value
    assert said in str(raised.value)
    assert "Nothing was written" in raised.value.happened and raised.value.hint
    assert not (tmp_path / "odd-hansa").exists()


def test_rows_come_from_tables_and_from_a_split_of_hansas(tmp_path: Path) -> None:
    source = write_setup(tmp_path / "csv", labels=3)
    for path in (source / "data_iid").rglob("*.npy"):
        array = np.load(path)
        table = array if array.ndim == 2 else array[:, None]
        names = ",".join(f"c{i}" for i in range(table.shape[1]))
        whole = array.dtype.kind == "i"
        np.savetxt(path.with_suffix(".csv"), table, delimiter=",", header=names, comments="",
                   fmt="%d" if whole else "%.9g")  # fmt: skip
        path.unlink()
    made = import_setup(source).folder
    rows = load_folder(made / "data")
    assert rows is not None and rows.classes == ("0", "1", "2")
    np.testing.assert_allclose(rows.x[:7], rows_of("client_0")["train_data"], rtol=1e-6)
    again = import_setup(source, tmp_path / "again", made / "data").folder
    for path in (made / "data").rglob("*.npz"):
        old, new = np.load(path), np.load(again / "data" / path.relative_to(made / "data"))
        assert all(np.array_equal(old[name], new[name]) for name in old)


def test_a_client_without_its_files_is_told_by_name(tmp_path: Path) -> None:
    source = write_setup(tmp_path / "gap")
    (source / "data_iid" / "client_10" / "valid_target.npy").unlink()
    with pytest.raises(PlanError, match=r"client_10 has 0 files valid_target"):
        import_setup(source)
