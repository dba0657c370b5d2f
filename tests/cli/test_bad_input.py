"""Every mistake gets a sentence, a hint and a code, never a traceback; nothing is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from hansa.cli import main
from hansa.cli.main import cli
from hansa.errors import RunError
from hansa.runs import find_run


def fails(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as end:
        main(list(words))
    captured = capsys.readouterr()
    assert "Traceback" not in captured.out + captured.err
    return int(end.value.code or 0), captured.err


@pytest.fixture
def study(home: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    with pytest.raises(SystemExit):
        main(["init", "study"])
    capsys.readouterr()
    return home / "study"


USAGE = [
    ("ru",),
    ("run", "--round", "3"),
    ("run", "--rounds", "zero"),
    ("run", "--rounds", "0"),
    ("run", "--engine", "ray"),
    ("init",),
    ("init", "x", "--template", "keras"),
    ("export", "--to", "onnx"),
    ("split",),
    ("split", "digits", "--scheme", "random"),
    ("split", "digits", "--scheme", "natural", "--clients", "3"),
    ("compare", "--last", "1"),
    ("site", "revew"),
    ("site", "join"),
    ("site", "approve", "7f3a", "--max-rounds", "0"),
    ("site", "data", "add", "cases.csv"),
]


@pytest.mark.parametrize("words", USAGE, ids=" ".join)
def test_a_mistyped_command_exits_with_2_and_names_the_help(
    home: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    status, text = fails(capsys, *words)
    assert status == 2
    assert "--help" in text and "[usage]" in text


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("rounds=0", "plan-bad-value"),
        ("rounds=many", "plan-wrong-type"),
        ("rouns=3", "plan-unknown-key"),
        ("learner.epoch=3", "plan-unknown-key"),
        ("learner.kind=keras", "plan-wrong-type"),
        ("learner.module=../model.py", "plan-bad-value"),
        ("learner.module=nothing.py", "learner-module"),
        ("learner.optimizer.lr=-1", "plan-bad-value"),
        ("learner.optimizer.name=lbfgs", "plan-wrong-type"),
        ('learner.optimizer.chain=["lbfgs"]', "plan-unknown-name"),
        ('learner.optimizer.chain=[{name="momentum",betta=0.5}]', "plan-unknown-key"),
        ('learner.optimizer.regularizers=["momentum"]', "plan-unknown-name"),
        ('algorithm={name="fed_opt",chain=["clip_tensor"]}', "plan-impossible"),
        ("learner.optimizer.beta1=0.9", "plan-unknown-key"),
        ("learner.batch_size=0", "plan-bad-value"),
        ("algorithm=fedavg", "plan-unknown-name"),
        ("algorithm.mu=1.0", "plan-unknown-key"),
        ('algorithm={name="fed_prox",mu="big"}', "plan-wrong-type"),
        ("aggregator=krum", "plan-bad-value"),
        ('transforms=["clip"]', "plan-bad-value"),
        ('transforms=[{name="clip",norm=-1.0}]', "plan-bad-value"),
        ("data.set=mnits5k", "data-unknown-name"),
        ("data.set=cases.csv", "data-missing"),
        ("data.split.alpha=0", "data-scheme"),
        ("data.split.clients=100000", "data-too-few"),
        ('data.split={scheme="natural"}', "data-no-groups"),
        ("data.test=1.5", "plan-bad-value"),
        ("cohort.fraction=0", "plan-bad-value"),
        ("cohort.minimum=11", "plan-impossible"),
        ("name=../../etc", "plan-bad-value"),
        ("=3", "plan-syntax"),
        ("rounds", "plan-syntax"),
    ],
)
def test_a_wrong_plan_is_refused_with_a_code_before_anything_runs(
    study: Path, capsys: pytest.CaptureFixture[str], change: str, code: str
) -> None:
    status, text = fails(capsys, "run", "study", "--set", change)
    assert status == 1, text
    assert f"[{code}]" in text
    assert not list(Path("runs").glob("*/events.jsonl"))


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (("algorithm=scaffold", "aggregator=median"), "not a mean"),
        (("algorithm=scaffold", "learner.optimizer.momentum=0.9"), "plain SGD"),
        (("algorithm=fed_prox", "learner.kind=function"), "init|train|local gradient"),
    ],
)
def test_an_impossible_combination_is_refused_with_a_reason(
    study: Path, capsys: pytest.CaptureFixture[str], sets: tuple[str, ...], words: str
) -> None:
    import re

    arguments = [word for text in sets for word in ("--set", text)]
    status, text = fails(capsys, "run", "study", *arguments)
    assert status == 1
    assert re.search(words, text)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("rounds = = 3", "plan-syntax"),
        ("\0", "plan-syntax"),
        ("rounds = 3\nrounds = 4", "plan-syntax"),
        ("[learner]\nkind = 3", "plan-wrong-type"),
        ("[learner.optimizer.lr]\nx = 1", "plan-wrong-type"),
        ("learner = 5", "plan-wrong-type"),
    ],
)
def test_a_damaged_plan_file_is_told_apart(
    study: Path, capsys: pytest.CaptureFixture[str], content: str, code: str
) -> None:
    (study / "plan.toml").write_text(content)
    status, text = fails(capsys, "run", "study")
    assert (status, f"[{code}]" in text) == (1, True), text


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("def init(:", "learner-module"),
        ("import no_such_package_xyz", "learner-missing-package"),
        ("raise RuntimeError('at import')", "learner-module"),
        ("x = 1", "learner-incomplete"),
    ],
)
def test_a_broken_module_is_told_with_its_line(
    study: Path, capsys: pytest.CaptureFixture[str], content: str, code: str
) -> None:
    (study / "model.py").write_text(content)
    status, text = fails(capsys, "run", "study")
    assert (status, f"[{code}]" in text) == (1, True), text


@pytest.mark.parametrize("verb", ["show", "export", "reproduce", "compare"])
@pytest.mark.parametrize("name", [(), ("nothing-1",)])
def test_verbs_on_runs_say_that_there_is_none(
    home: Path, capsys: pytest.CaptureFixture[str], verb: str, name: tuple[str, ...]
) -> None:
    status, text = fails(capsys, verb, *name)
    assert status == 1
    assert "[run-not-found]" in text


def test_run_outside_a_project_says_how_to_make_one(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, text = fails(capsys, "run")
    assert status == 1
    assert "hansa init" in text and "[plan-not-found]" in text


def test_a_file_is_no_project(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = fails(capsys, "run", str(study / "model.py"))
    assert status == 1 and "a project is a folder" in text and "[plan-not-found]" in text


def test_a_script_of_fedn_that_is_not_there_is_said_so(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hansa.compat.fedn", "nothing.py"], capture_output=True, text=True
    )
    assert done.returncode == 1 and "There is no script nothing.py" in done.stderr
    assert "Traceback" not in done.stderr


def test_init_never_overwrites(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (study / "plan.toml").read_bytes()
    status, text = fails(capsys, "init", "study")
    assert (status, "[project-exists]" in text) == (1, True)
    assert (study / "plan.toml").read_bytes() == before


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_a_coded_error(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("locked").mkdir(mode=0o500)
    status, text = fails(capsys, "run", "study", "--runs", "locked/runs")
    assert (status, "[system]" in text) == (1, True)


def test_a_full_disk_is_a_coded_error_and_the_run_continues_afterwards(
    study: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import hansa.runs.folder as folder

    real = folder.save_params

    def full(path: Path, params: object) -> None:
        if "round-000002" in str(path):
            raise OSError(28, "No space left on device", str(path))
        real(path, params)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(folder, "save_params", full)
        status, text = fails(capsys, "run", "study", "--rounds", "3")
    assert status == 1
    assert "No space left" in text and "[system]" in text
    with pytest.raises(SystemExit):
        main(["run", "study", "--rounds", "3"])
    assert "Continuing study-1 after round 1" in capsys.readouterr().out


def every_command(command: click.Command, *words: str) -> Iterator[tuple[str, ...]]:
    if not isinstance(command, click.Group):
        yield words
        return
    context = click.Context(command)
    for verb in command.list_commands(context):
        child = command.get_command(context, verb)
        assert child is not None
        yield from every_command(child, *words, verb)


@pytest.mark.parametrize("words", list(every_command(cli)), ids=" ".join)
def test_every_verb_has_help_with_an_example(
    home: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit) as end:
        main([*words, "--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0
    assert f"hansa {' '.join(words)}" in text.partition("Example")[2]


@pytest.mark.parametrize("words", [(), ("site",), ("site", "data"), ("config",)], ids=" ".join)
def test_a_group_alone_lists_its_commands(
    home: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    status, text = fails(capsys, *words)
    assert status == 2
    assert "Commands:" in text and "Error" not in text


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("def init(rng, sample):\n    return 1 / 0", "model.py, line 2 raised ZeroDivisionError"),
        ("def init(rng, sample):\n    raise SystemExit(0)", "model.py, line 2 raised SystemExit"),
        ("import sys\nsys.exit(0)", "learner-module"),
    ],
)
def test_an_error_in_the_projects_code_names_file_and_line(
    study: Path, capsys: pytest.CaptureFixture[str], broken: str, words: str
) -> None:
    text = (study / "model.py").read_text(encoding="utf-8").replace("def init", "def unused")
    order = broken + "\n\n" + text if "init" in broken else broken
    (study / "model.py").write_text(order, encoding="utf-8")
    status, told = fails(capsys, "run", "study")
    assert status == 1
    assert words in told
    assert "[user-code]" in told or "[learner-module]" in told


def test_an_error_of_our_own_says_so_and_asks_for_a_report(
    study: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(folder: object) -> None:
        raise KeyError("lost")

    with monkeypatch.context() as patch:
        entry = sys.modules["hansa.cli.main"]  # the package exports a function of that name
        patch.setattr(entry, "_is_installed", lambda filename: True)
        patch.setattr("hansa.cli.session.write_report", broken)
        status, text = fails(capsys, "run", "study", "--rounds", "1")
    assert (status, "[defect]" in text, "HANSA_DEBUG=1" in text) == (1, True, True)


def test_a_target_that_is_a_number_is_told_before_training(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("t.csv").write_text("a,y\n" + "\n".join(f"{i},{i * 0.37}" for i in range(200)))
    Path("plan.toml").write_text(
        'name = "t"\n[data]\nset = "t.csv"\ntarget = "y"\nsplit = { scheme = "iid", clients = 2 }'
    )
    status, text = fails(capsys, "run")
    assert (status, "[learner-data]" in text) == (1, True), text


def test_export_refuses_a_folder_and_a_model_that_has_changed(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["run", "study", "--rounds", "1"])
    assert fails(capsys, "export", "-o", ".")[0] == 2
    path = next(Path("runs/study-1/models").iterdir())
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    status, text = fails(capsys, "export")
    assert (status, "[run-damaged]" in text) == (1, True)


def test_what_user_code_prints_stays_out_of_json(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    text = (study / "model.py").read_text(encoding="utf-8")
    shouting = text.replace(
        "def metrics(params, x, y):\n", "def metrics(params, x, y):\n    print('hey')\n"
    )
    (study / "model.py").write_text(shouting, encoding="utf-8")
    with pytest.raises(SystemExit):
        main(["run", "study", "--rounds", "1", "--json"])
    captured = capsys.readouterr()
    assert [json.loads(line) for line in captured.out.splitlines()]
    assert "hey" in captured.err


@pytest.mark.parametrize("returned", ["3", '{"trian": (1, 2)}', '{"train": 3}', "None"])
def test_data_of_another_kind_is_told_apart(
    study: Path, capsys: pytest.CaptureFixture[str], returned: str
) -> None:
    (study / "model.py").write_text(f"def data(client):\n    return {returned}\n")
    (study / "plan.toml").write_text(
        'name = "t"\n[learner]\nkind = "numpy"\nmodule = "data.py"\n[data]\nclients = 2\n'
    )
    builtin = "import hansa.learners.numpy_models as m\nmodel = m.Perceptron()\n"
    builtin += "init, loss, metrics = model.init, model.loss, model.metrics\n"
    code = (study / "model.py").read_text()
    (study / "data.py").write_text(builtin + code)
    status, text = fails(capsys, "run", "study")
    assert status == 1
    assert "[learner-data]" in text or "[data-missing]" in text, text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("rounds=many", "expected a whole number, got text"),
        ("algorithm=mine.py", "mine.py:FUNCTION"),
        ("learner=3", "expected a table, got a whole number"),
    ],
)
def test_a_wrong_value_is_told_in_plain_words(
    study: Path, capsys: pytest.CaptureFixture[str], change: str, words: str
) -> None:
    assert words in fails(capsys, "run", "study", "--set", change)[1]


def test_a_folder_that_is_not_there_is_named_and_not_a_temporary_file(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["run", "study", "--rounds", "1"])
    text = fails(capsys, "export", "-o", "nowhere/model.npz")[1]
    assert "(nowhere)" in text and ".hansa-" not in text


def test_what_happened_and_what_to_do_next_are_two_sentences() -> None:
    assert str(RunError("run-busy", "It raised ValueError", "Correct it.")) == (
        "It raised ValueError. Correct it.  [run-busy]"
    )


def test_a_run_that_another_process_has_is_not_said_to_continue(
    study: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as once, pytest.raises(SystemExit):
        once.setattr("hansa.cli.session.continue_run", _interrupted)
        main(["run", "study"])
    capsys.readouterr()
    with find_run(Path("runs"), "study-1").locked(), pytest.raises(SystemExit):
        main(["run", "--resume", "study-1"])
    told = capsys.readouterr()
    assert "[run-busy]" in told.err and "Ctrl-C" not in told.out


def _interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_run_that_diverges_says_so_and_shows_no_warning_of_numpy(
    study: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    status, text = fails(capsys, "run", str(study), "--set", "learner.optimizer.lr=1e38")
    assert status == 1 and "at index 0 is nan" in text and "Training diverged" in text
    assert not [told for told in recwarn if issubclass(told.category, RuntimeWarning)]
