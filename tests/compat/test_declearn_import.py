"""What `hansa import declearn` takes from where, and what it refuses; nothing is executed by it."""

from __future__ import annotations

import re
import tomllib
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from declearn_setups import CONFIG, LINEAR, ROWS, Change, change_rows, rows_of, write_setup

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
    "no batch size": ("batch_size = 2", "", "batch_size is missing"),
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
    "labels that are lists": ('["mse"]', '[["multi-classif", { labels = [[0], [1]] }]]',
                              "labels are [[0], [1]]"),
    "more classes than can be counted": (
        '["mse"]', f'[["multi-classif", {{ labels = {list(range(40))} }}]]', "has 40 classes"),
    "metrics of two sorts": ('["mse"]', '["mse", "binary-classif"]', "of classes and of numbers"),
    "no optimizer": (CONFIG[CONFIG.index("[optim.client_opt]"):CONFIG.index("[optim.server_opt]")],
                     "", "client_opt is missing"),
    "no rounds": ("rounds = 2", "", "rounds is missing"),
    "more clients than there are": ("register = 3", "register = 4", "min_clients is 4"),
    "a file for a folder": ("[data]", '[data]\ndata_folder = "model.py"', "is no folder"),
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


OUT_OF_RANGE = {
    "of the server": ("beta = 0.25", "ewma.beta = 1.5"),
    "of a client": ("max_norm = 2", "clip_global.norm = 0.0"),
    "of the run": ("rounds = 2", "rounds is an integer that does not fit"),
}


@pytest.mark.parametrize("whose", OUT_OF_RANGE)
def test_a_number_out_of_range_is_told_before_anything_is_written(
    tmp_path: Path, whose: str
) -> None:
    old, said = OUT_OF_RANGE[whose]
    new = {"of the server": "beta = 1.5", "of a client": "max_norm = 0"}.get(whose, old + "0" * 20)
    source = write_setup(tmp_path / "odd", config=CONFIG.replace(old, new, 1))
    with pytest.raises(PlanError, match=re.escape(said)):
        import_setup(source)
    assert not (tmp_path / "odd-hansa").exists()


def test_nan_is_declearns_word_for_none(tmp_path: Path) -> None:
    config = CONFIG.replace("n_steps = 5", "n_steps = nan\ntimeout = nan")
    config = config.replace("register = 3", "register = { min_clients = 2, max_clients = nan }")
    made = import_setup(write_setup(tmp_path / "nan", config=config)).folder
    plan = tomllib.loads((made / "plan.toml").read_text())
    assert (plan["cohort"]["minimum"], plan["learner"]["epochs"]) == (2, 2)
    assert "most_steps=None" in (made / "hansa_model.py").read_text()


NUMBERS = CONFIG
UNNAMED = CONFIG.replace('"mse"', "")
OF_TWO = CONFIG.replace('"mse"', '"binary-classif"')
ROWS_REFUSED: dict[str, tuple[str, Change, str]] = {
    "labels that leave some out": (UNNAMED, lambda x, y, c: (x, y + 1), "labels 1, 2, 3"),
    "labels below 0": (UNNAMED, lambda x, y, c: (x, y - 1), "labels -1, 0, 1"),
    "words": (UNNAMED, lambda x, y, c: (x, np.array(["cat", "dog", "eel"])[y]), "are no numbers"),
    "several labels below 0": (
        UNNAMED, lambda x, y, c: (x, np.c_[y, y - 100]), "labels -100, -99"),
    "labels without end": (
        UNNAMED, lambda x, y, c: (x, np.c_[y, y + 200_000]), "200,003 classes"),
    "two targets": (NUMBERS, lambda x, y, c: (x, np.c_[y, y] * 0.5), "2 targets for each row"),
    "codes of classes": (OF_TWO, lambda x, y, c: (x, np.eye(3)[y]), "3 targets for each row"),
    "rows of two shapes": (
        UNNAMED, lambda x, y, c: (x[:, :2] if c == "client_1" else x, y), "client_1 has"),
    "no rows": (UNNAMED, lambda x, y, c: (x[:0], y[:0]) if c == "client_1" else (x, y),
                "client_1 has no rows"),
    "nothing to evaluate on": (
        UNNAMED, lambda x, y, c: (x[:0], y[:0]) if len(x) == 3 else (x, y), "in valid_data"),
}  # fmt: skip


@pytest.mark.parametrize("what", ROWS_REFUSED)
def test_rows_that_cannot_be_trained_on_are_told_before_anything_is_written(
    tmp_path: Path, what: str
) -> None:
    config, change, said = ROWS_REFUSED[what]
    source = write_setup(tmp_path / "odd", config=config, labels=3)
    with pytest.raises(PlanError) as raised:
        import_setup(change_rows(source, change))
    assert raised.value.code == "import-refused" and said in str(raised.value)
    assert not (tmp_path / "odd-hansa").exists()


def test_whole_numbers_are_targets_of_a_regression_where_its_metrics_are(tmp_path: Path) -> None:
    source = write_setup(tmp_path / "prices", config=NUMBERS, labels=3)
    made = import_setup(change_rows(source, lambda x, y, c: (x, y * 70_000 - 5))).folder
    rows = load_folder(made / "data")
    assert rows is not None and rows.classes is None
    assert rows.y.dtype == np.float64 and rows.y.min() == -5


def rename(source: Path, names: tuple[str, str, str]) -> Path:
    """Give the clients' folders other names."""
    for old, new in zip(ROWS, names, strict=True):
        (source / "data_iid" / old).rename(source / "data_iid" / new)
    return source


def test_clients_get_names_that_sites_may_have(tmp_path: Path) -> None:
    """So that a rehearsal, whose sites have these names, is the same run."""
    source = rename(write_setup(tmp_path / "names"), ("Client_A", "Klinik Süd 2", "c.3"))
    made = import_setup(source)
    assert ("renamed", "Client_A is client_a, Klinik Süd 2 is klinik-s-d-2") in made.facts
    rows = load_folder(made.folder / "data")
    assert rows is not None and set(rows.groups) == {"client_a", "klinik-s-d-2", "c.3"}


@pytest.mark.parametrize("names", [("A", "a", "b"), ("a", "b", "клиника")])
def test_clients_whose_names_no_sites_can_have_are_refused(
    tmp_path: Path, names: tuple[str, str, str]
) -> None:
    with pytest.raises(PlanError, match="no name of its own") as raised:
        import_setup(rename(write_setup(tmp_path / "names"), names))
    assert names[-1 if names[1] == "b" else 1] in str(raised.value)


def test_several_labels_for_each_row_stay_labels(tmp_path: Path) -> None:
    """Such as the next token at each place, not all of which occur at a client."""
    source = write_setup(tmp_path / "tokens", config=UNNAMED, labels=3)
    change_rows(source, lambda x, y, c: (x, np.c_[y * 5, y + len(c)]))
    rows = load_folder(import_setup(source).folder / "data")
    assert rows is not None and rows.y.dtype == np.int64
    assert rows.classes is not None and len(rows.classes) == 12
    assert rows.y[-4:].tolist() == [[0, 9], [10, 11], [5, 10], [0, 9]]


def test_a_table_of_one_column_stays_a_table_and_its_targets_keep_their_type(
    tmp_path: Path,
) -> None:
    """pandas reads 1.0 as a number and 1 as a whole one; so do losses of torch."""
    source = write_setup(tmp_path / "csv", config=UNNAMED, labels=2)
    for client, target in product(ROWS, ("1\n0\n1\n", "1.0\n0.0\n1.0\n")):
        kind = "float" if "." in target else "int"
        place = source / f"parts_{kind}" / client
        place.mkdir(parents=True)
        for part in ("train", "valid"):
            (place / f"{part}_data.csv").write_text("a\n0.5\n-2\n3\n")
            (place / f"{part}_target.csv").write_text("b\n" + target)
    for kind, classes in (("int", ("0", "1")), ("float", None)):
        made = import_setup(source, tmp_path / kind, source / f"parts_{kind}").folder
        rows = load_folder(made / "data")
        assert rows is not None and rows.x.shape == (9, 1) and rows.classes == classes


def test_files_that_a_model_may_read_are_named_where_they_are_not_copied(tmp_path: Path) -> None:
    source = write_setup(tmp_path / "more")
    (source / "words.txt").write_text("a")
    assert import_setup(source).left == ["words.txt"]


def test_the_model_is_the_one_beside_its_file_wherever_the_command_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that the file gives counts from where the command is given, as for declearn."""
    inner = tmp_path / "outer" / "inner"
    source = write_setup(inner)
    (inner.parent / "model.py").write_text("other = 1\n")
    monkeypatch.chdir(inner.parent)
    made = import_setup(source, tmp_path / "made").folder
    assert (made / "model.py").read_text() == LINEAR
    (inner / "model.py").unlink()
    with pytest.raises(PlanError, match=r"model\.py"):
        import_setup(source, tmp_path / "again")
    (inner / "config.toml").write_text('[model]\nmodel_file = "model.py"\n' + CONFIG)
    assert (import_setup(source, tmp_path / "named").folder / "model.py").stat().st_size == 10
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PlanError, match=r"model\.py"):
        import_setup(source, tmp_path / "last")


def test_rows_come_from_tables_and_from_a_split_of_hansas(tmp_path: Path) -> None:
    source = write_setup(tmp_path / "csv", config=UNNAMED, labels=3)
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
