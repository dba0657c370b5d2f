"""Handing a project over: what is sent, what is refused before, and what a crash leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from projects import make_project, simulate
from stand_in import StandIn, check_signature, join, model, unreachable

from hansa.code import identity
from hansa.errors import HansaError, PlanError, ServerError
from hansa.identity import Membership
from hansa.packages import read_archive
from hansa.project import open_project
from hansa.protocol.enrolment import renew_if_due
from hansa.remote.seed import seed_model
from hansa.remote.submit import submit
from hansa.runs import RunFolder
from hansa.runs.start import read_start
from hansa.store.files import save_params


@pytest.fixture
def league(home: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[StandIn, Membership]:
    return join(monkeypatch, home / "league")


def send(folder: Path, membership: Membership, **more: Any) -> RunFolder:
    return submit(open_project(folder), membership, runs=folder / "runs", **more)


def test_what_arrives_is_the_plan_the_code_and_the_very_seed_of_a_simulation(
    league: tuple[StandIn, Membership], tmp_path: Path
) -> None:
    server, membership = league
    folder = make_project(tmp_path / "study")
    run = send(folder, membership, purpose="to count beds")
    (sent,) = server.submissions
    simulated = simulate(folder)
    assert sent.seed_model.digest == simulated.about["seed_model"]["digest"]
    assert sent.tensors == [("w", "F32", [3]), ("n", "I64", [])]
    assert sent.buffers == simulated.about["seed_model"]["buffers"]
    files = read_archive(server.blobs[sent.package.digest])
    assert files == {n: (folder / n).read_bytes() for n in ("model.py", "plan.toml")}
    assert sent.identity == identity(open_project(folder).plan, {"model.py": files["model.py"]})
    assert sent.purpose == "to count beds"
    check_signature(sent, membership)
    assert run.remote == {"url": membership.url, "run": "far-7"}
    assert RunFolder(run.path).remote == run.remote
    assert run.about["engine"] == "federation"


def test_a_submission_cut_off_is_sent_again_with_the_same_id(
    league: tuple[StandIn, Membership], tmp_path: Path
) -> None:
    server, membership = league
    folder = make_project(tmp_path / "study")

    def cut(path: str) -> None:
        server.before_answer = lambda path: None
        raise unreachable()  # the answer is lost, after the server has recorded the run

    server.before_answer = cut
    with pytest.raises(ServerError):
        send(folder, membership)
    run = send(folder, membership)
    assert len(server.submissions) == 1
    assert server.asked.count("POST /v1/runs") == 2
    assert run.name == "steps-1" and (run.remote or {})["run"] == "far-7"


def test_the_same_command_finds_its_unfinished_run_and_new_makes_another(
    league: tuple[StandIn, Membership], tmp_path: Path
) -> None:
    server, membership = league
    folder = make_project(tmp_path / "study")
    assert [send(folder, membership).name for _ in range(2)] == ["steps-1", "steps-1"]
    assert send(folder, membership, new=True).name == "steps-2"
    assert len(server.submissions) == 2
    # A simulation never goes on with a run that is at a server.
    assert simulate(folder).name == "steps-3"


@pytest.mark.parametrize(
    "top",
    [
        'algorithm = "model.py:mine"',
        'transforms = [{ name = "model.py:mine" }]',
        'workflow = "model.py:mine"',
    ],
)
def test_a_plan_with_parts_of_its_own_is_for_the_server_to_judge(
    league: tuple[StandIn, Membership], tmp_path: Path, top: str
) -> None:
    server, membership = league
    folder = make_project(tmp_path / "study", top=top)
    made = {"a": "a.fed_avg()", "t": "t.cast()", "w": "w.Workflow('mine', w.synchronous)"}[top[0]]
    more = (
        "\ndef mine():\n    import hansa.transforms as t, hansa.algorithms as a\n"
        f"    import hansa.workflows as w\n    return {made}\n"
    )
    with open(folder / "model.py", "a") as file:
        file.write(more)
    send(folder, membership)
    (sent,) = server.submissions
    assert "model.py:mine" in str(sent.plan)


def test_a_learner_made_in_python_is_refused(league: tuple[StandIn, Membership]) -> None:
    import hansa
    from hansa.plan import read_plan
    from hansa.project import with_learner

    made = with_learner(read_plan({}, ()).plan, hansa.numpy_learner())
    with pytest.raises(PlanError, match="comes as files"):
        submit(made, league[1])


def away(folder: Path, text: str) -> None:
    """Let the project's data be at the sites only."""
    code = (folder / "model.py").read_text()
    (folder / "model.py").write_text(
        code.replace("def data(client):\n", f"def data(client):\n{text}")
    )


def test_data_that_are_not_here_are_no_hindrance_to_a_model_that_needs_none(
    league: tuple[StandIn, Membership], tmp_path: Path
) -> None:
    server, membership = league
    folder = make_project(tmp_path / "study")
    expected = seed_model(open_project(folder)).params.digest()
    away(folder, '    raise FileNotFoundError("/data/ward")\n')
    send(folder, membership)
    assert server.submissions[0].seed_model.digest == expected


def test_a_test_set_is_not_made_to_learn_a_models_shape(
    league: tuple[StandIn, Membership], tmp_path: Path
) -> None:
    folder = make_project(tmp_path / "study")
    with open(folder / "model.py", "a") as file:
        file.write('\n\ndef test_data():\n    raise FileNotFoundError("test set")\n')
    send(folder, league[1])
    assert len(league[0].submissions) == 1


PATHS = """
name = "paths"
[learner]
kind = "command"
train = ["true"]
init = ["cp", "{SEED}", "{model_out}"]
rows = "path"
files = ["seed.safetensors"]
[data]
set = "hospitals"
"""


def of_commands(folder: Path, *, seed: str = "seed.safetensors") -> Path:
    folder.mkdir()
    (folder / "plan.toml").write_text(PATHS.replace("{SEED}", seed))
    save_params(folder / "seed.safetensors", model(1.0))
    return folder


@pytest.mark.parametrize("here", [True, False])
def test_files_that_hansa_does_not_read_are_not_read_for_a_seed_model(
    league: tuple[StandIn, Membership], tmp_path: Path, here: bool
) -> None:
    folder = of_commands(tmp_path / "study")
    if here:
        (folder / "hospitals").mkdir()
        for name in ("north", "south"):
            (folder / "hospitals" / f"{name}.csv").write_text("no,table,of\nours\n")
    send(folder, league[1])
    assert league[0].submissions[0].seed_model.digest == model(1.0).digest()


def test_a_command_that_makes_no_seed_model_is_told_as_it_failed(
    league: tuple[StandIn, Membership], tmp_path: Path
) -> None:
    folder = of_commands(tmp_path / "study", seed="nothere.safetensors")
    with pytest.raises(HansaError, match=r"nothere\.safetensors") as error:
        send(folder, league[1])
    assert error.value.code == "command-failed" and not league[0].asked


def test_a_purpose_that_is_too_long_is_refused_before_anything_is_kept(
    league: tuple[StandIn, Membership], tmp_path: Path
) -> None:
    folder = make_project(tmp_path / "study")
    with pytest.raises(PlanError, match="purpose has 2001 characters"):
        send(folder, league[1], purpose="p" * 2001)
    assert not (folder / "runs").exists()
    send(folder, league[1], purpose="p" * 2000)


def test_what_was_cut_off_is_sent_with_the_words_of_the_second_try(
    league: tuple[StandIn, Membership], tmp_path: Path
) -> None:
    server, membership = league
    folder = make_project(tmp_path / "study")
    server.trouble = [unreachable()]
    with pytest.raises(ServerError):
        send(folder, membership, purpose="beds", priority=1)
    send(folder, membership, purpose="wards")
    (sent,) = server.submissions
    assert (sent.purpose, sent.priority) == ("wards", 1)


def test_of_several_unfinished_runs_the_one_with_the_same_start_goes_on(
    league: tuple[StandIn, Membership], tmp_path: Path
) -> None:
    folder, names = make_project(tmp_path / "study"), []
    for value in (1.0, 2.0, 1.0):
        save_params(tmp_path / "seed.safetensors", model(value))
        start = read_start(str(tmp_path / "seed.safetensors"), tmp_path)
        names.append(send(folder, league[1], start=start).name)
    assert names == ["steps-1", "steps-2", "steps-1"]


def test_a_data_set_that_does_not_exist_is_told_with_those_that_do(
    league: tuple[StandIn, Membership], tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "plan.toml").write_text('name = "far"\n[data]\nset = "nope"\n')
    with pytest.raises(PlanError, match=r"no dataset 'nope'.*Names: .*digits") as told:
        send(folder, league[1])
    assert "Error" not in told.value.happened  # a class of Python's tells nobody anything


def test_a_model_sized_by_data_that_are_not_here_asks_for_a_file(
    league: tuple[StandIn, Membership], tmp_path: Path
) -> None:
    server, membership = league
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "plan.toml").write_text('name = "far"\n[data]\nset = "ward.csv"\ntarget = "y"\n')
    with pytest.raises(PlanError, match=r"not here.*it failed: .*--from RUN:ROUND"):
        send(folder, membership)
    assert not server.asked
    save_params(tmp_path / "seed.safetensors", model(1.0))
    run = send(folder, membership, start=read_start(str(tmp_path / "seed.safetensors"), tmp_path))
    assert server.submissions[0].seed_model.digest == model(1.0).digest()
    assert run.about["seed_model"] == {
        "digest": model(1.0).digest(),
        "buffers": ["n"],
        "constants": [],
        "origin": "seed.safetensors",
    }
    assert server.submissions[0].origin == "seed.safetensors"


def test_a_model_of_another_shape_is_refused(
    league: tuple[StandIn, Membership], tmp_path: Path
) -> None:
    folder = make_project(tmp_path / "study")
    save_params(tmp_path / "seed.safetensors", model(1.0).subset(["w"]))
    with pytest.raises(PlanError, match="not those of the project's model"):
        send(folder, league[1], start=read_start(str(tmp_path / "seed.safetensors"), tmp_path))


def test_data_set_here_without_a_split_gives_shapes(
    league: tuple[StandIn, Membership], tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "plan.toml").write_text('name = "far"\n[data]\nset = "digits"\n')
    send(folder, league[1])
    shapes = {name: shape for name, _, shape in league[0].submissions[0].tensors}
    assert shapes == {"layer0.weight": [64, 10], "layer0.bias": [10]}


def test_code_that_was_changed_in_the_run_folder_is_not_sent(
    league: tuple[StandIn, Membership], tmp_path: Path
) -> None:
    server, membership = league
    folder = make_project(tmp_path / "study")
    server.trouble = [unreachable()]
    with pytest.raises(ServerError):
        send(folder, membership)
    (folder / "runs" / "steps-1" / "code" / "model.py").write_text("print('other')\n")
    with pytest.raises(HansaError) as error:
        send(folder, membership)
    assert error.value.code == "run-damaged"
    assert not server.submissions


def test_a_certificate_is_renewed_when_the_server_says_so_and_only_for_its_own_key(
    league: tuple[StandIn, Membership], monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    from hansa.identity import new_key
    from hansa.identity.authority import load_authority

    server, membership = league
    authority = load_authority(home / "league" / "authority")
    assert not renew_if_due(server, membership)  # type: ignore[arg-type]
    server.renewal = True
    answers = []
    for key in (membership.key(), new_key()):
        pem = authority.issue_member("ada", "submitter", key.public)
        facts = {"name": "ada", "role": "submitter", "receipt_key": "", "federation": ""}
        answers.append({**facts, "certificate": pem, "authority": authority.pem})

    def answered(method: str, path: str, body: bytes | None) -> Any:
        assert (method, path) == ("POST", "/v1/certificates")
        return answers.pop(0)

    monkeypatch.setattr(server, "_answer", answered)
    expected = answers[0]["certificate"]
    assert renew_if_due(server, membership)  # type: ignore[arg-type]
    assert membership.certificate() == expected
    assert not renew_if_due(server, membership)  # type: ignore[arg-type]
    server.renewal = True
    with pytest.raises(HansaError) as error:
        renew_if_due(server, membership)  # type: ignore[arg-type]
    assert error.value.code == "identity-certificate"
    assert membership.certificate() == expected


def test_the_kept_submission_holds_no_secret(
    league: tuple[StandIn, Membership], tmp_path: Path
) -> None:
    run = send(make_project(tmp_path / "study"), league[1])
    kept = msgspec.json.decode((run.path / "submission.json").read_bytes())
    assert not kept["signature"] and not kept["certificate"]
