"""`hansa run ENV.yaml`: what the older driver did, as processes over TLS; the oracle is NumPy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from metisfl_programs import LEARNER, SIZES, expected, rows

from hansa.compat.metisfl.environment import (
    import_environment,
    left_lines,
    read_environment,
)
from hansa.compat.metisfl.environment_keys import sentence_of
from hansa.dev.rehearsal import free_port
from hansa.errors import PlanError
from hansa.runs import all_runs, find_run

pytest.importorskip("yaml")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

ENVIRONMENT = """
FederationEnvironment:
  DockerImage: nevronai/metisfl
  TerminationSignals:
    {{FederationRounds: 9, ExecutionCutoffTimeMins: 10, MetricCutoffScore: {cutoff}}}
  EvaluationMetric: mse
  CommunicationProtocol: {{Name: Synchronous, EnableSSL: false}}
  ModelStoreConfig:
    {{ModelStore: InMemory, EvictionPolicy: LineageLengthEviction, LineageLength: 2}}
  GlobalModelConfig:
    {{AggregationRule: FedAvg, ScalingFactor: NumTrainingExamples, ParticipationRatio: 1}}
  LocalModelConfig:
    BatchSize: 32
    LocalEpochs: 2
    ValidationPercentage: 0.05
    Optimizer: VanillaSGD
    OptimizerParams: {{LearningRate: 0.1}}
  Controller:
    ProjectHome: /home/ana/metisfl
    ConnectionConfig: {{Hostname: h, Port: 22, Username: ana, Password: hunter2, OnLoginCommand: x}}
    GRPCServer: {{Hostname: localhost, Port: {port}}}
    SSLConfig: {{PublicCertificate: a.pem, PrivateKey: a.key}}
  Learners:
{learners}
"""
HOST = """
    - ProjectHome: /home/ana/metisfl
      ConnectionConfig: {{Hostname: h, KeyFilename: id_rsa, Passphrase: hunter3}}
      GRPCServer: {{Hostname: {host}, Port: {port}}}
      CudaDevices: [{number}]
      DatasetConfigs: {{TrainDatasetPath: rows-{number}.npz}}
"""


def write(folder: Path, *, cutoff: float = 0.0, port: int = 50051, host: str = "localhost") -> Path:
    hosts = [HOST.format(host=host, port=50002 + n, number=n) for n in range(3)]
    path = folder / "env.yaml"
    path.write_text(ENVIRONMENT.format(cutoff=cutoff, port=port, learners="".join(hosts)))
    return path


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hansa", "run", *words],
        cwd=folder,
        env={**os.environ, "HANSA_HOME": str(folder / "home")},
        capture_output=True,
        text=True,
        timeout=240,
    )


def loss(w: np.ndarray) -> float:
    """Return the mean of the learners' own errors, each counting alike."""
    return float(np.mean([np.mean((x @ w - y) ** 2) for x, y in rows()]))


def test_an_environment_runs_to_its_metric_cutoff(tmp_path: Path) -> None:
    port = free_port()
    cutoff = (loss(expected(2, epochs=2)) + loss(expected(3, epochs=2))) / 2
    path = write(tmp_path, cutoff=cutoff, port=port)
    for number, (x, y) in enumerate(rows()):
        np.savez(tmp_path / f"rows-{number}.npz", **{f"x{number}": x, f"y{number}": y})
    learner = LEARNER.format().replace('"rows.npz"', '__import__("os").environ["HANSA_DATA_TRAIN"]')
    learner += '    print("devices", __import__("os").environ["CUDA_VISIBLE_DEVICES"])\n'
    (tmp_path / "learner.py").write_text(learner)
    done = run(tmp_path, path.name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The training logs are in results.json." in done.stdout
    assert "hunter" not in done.stdout and "Nobody logs in" in done.stdout
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["global_iteration"] == 3 and "mse reached" in results["ended"]["reason"]
    found = find_run(tmp_path / "home" / "metisfl" / f"localhost-{port}" / "runs", None)
    assert np.allclose(found.load(found.commits()[-1])[0].to_list()[0], expected(3, epochs=2))
    kept = sorted(p.stem for p in (found.path / "models").glob("*"))
    assert kept == ["round-000002", "round-000003"]
    assert found.plan()["keep"]["lineage"] == 2
    weights = {t["client"]: t for t in found.spans() if t["span"] == "task"}
    assert sorted(weights) == [f"learner-{50002 + n}" for n in range(len(SIZES))]


def test_killed_it_takes_up_the_run_that_it_had_submitted(tmp_path: Path) -> None:
    """The second round cannot end before the command is started again."""
    port, go = free_port(), tmp_path / "go"
    cutoff = (loss(expected(2, epochs=2)) + loss(expected(3, epochs=2))) / 2
    path = write(tmp_path, cutoff=cutoff, port=port)
    for number, (x, y) in enumerate(rows()):
        np.savez(tmp_path / f"rows-{number}.npz", **{f"x{number}": x, f"y{number}": y})
    learner = LEARNER.format().replace('"rows.npz"', '__import__("os").environ["HANSA_DATA_TRAIN"]')
    held = f"""
        import os, time
        self.rounds = getattr(self, "rounds", 0) + 1
        while self.rounds > 1 and not os.path.exists({str(go)!r}):
            time.sleep(0.05)
        self.set_weights(parameters)
        losses = []"""
    learner = learner.replace("\n        self.set_weights(parameters)\n        losses = []", held)
    (tmp_path / "learner.py").write_text(learner)
    killed = subprocess.Popen(
        [sys.executable, "-u", "-m", "hansa", "run", path.name],
        cwd=tmp_path,
        env={**os.environ, "HANSA_HOME": str(tmp_path / "home")},
        stdout=subprocess.DEVNULL,
    )
    runs = tmp_path / "home" / "metisfl" / f"localhost-{port}" / "runs"
    until(lambda: any(run.rows() for run in all_runs(runs)))
    killed.kill()
    killed.wait(30)
    go.touch()
    done = run(tmp_path, path.name)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = all_runs(runs)
    assert f"Taking up {found.name}" in done.stdout and len(found.rows()) == 3
    assert np.allclose(found.load(found.commits()[-1])[0].to_list()[0], expected(3, epochs=2))
    assert json.loads((tmp_path / "results.json").read_text())["global_iteration"] == 3


def test_every_key_is_taken_over_or_has_a_sentence(tmp_path: Path) -> None:
    environment = read_environment(write(tmp_path))
    taken = {key for key, _ in environment.taken}
    for key in environment.left:
        assert key not in taken and "no such key" not in sentence_of(key), key
    told = "\n".join(left_lines(environment))
    for word in ("DockerImage", "EnableSSL", "SSLConfig.PrivateKey", "ProjectHome", "Password",
                 "Passphrase", "KeyFilename", "OnLoginCommand", "Username"):  # fmt: skip
        assert word in told
    assert "hunter" not in told and "hunter" not in str(environment)
    assert dict(environment.wanted.params) == {
        "batch_size": 32,
        "epochs": 2,
        "validation_percentage": 0.05,
        "optimizer": "VanillaSGD",
        "learning_rate": 0.1,
    }
    assert environment.around[1] == {
        "CUDA_VISIBLE_DEVICES": "1",
        "HANSA_DATA_TRAIN": "rows-1.npz",
    }
    assert "no such key" in sentence_of("LocalModelConfig.Colour")


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("DockerImage: nevronai/metisfl", "EncryptionScheme: {Name: CKKS}", "homomorphically"),
        ("LineageLengthEviction", "Sometimes", "EvictionPolicy"),
        ("Name: Synchronous", "Name: Sometimes", "scheduler"),
        ("ParticipationRatio: 1", "ParticipationRatio: 0", "participation_ratio"),
        ("EvaluationMetric: mse", "Colour: red", "MetricCutoffScore .*no EvaluationMetric"),
        ("FederationRounds: 9", "FederationRounds: 2.5", "FederationRounds .*2.5.*whole"),
        ("LineageLength: 2", "LineageLength: 0.5", "LineageLength .*whole"),
        ("LocalEpochs: 2", "LocalEpochs: 1.5", "LocalEpochs .*whole"),
        ("BatchSize: 32", "BatchSize: 31.9", "BatchSize .*whole"),
        ("AggregationRule: FedAvg", "StrideLength: 1.5", "StrideLength .*whole"),
    ],
)
def test_what_hansa_does_not_do_is_refused_with_a_sentence(
    tmp_path: Path, old: str, new: str, word: str
) -> None:
    path = write(tmp_path)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(PlanError, match=word):
        read_environment(path)


def test_a_whole_number_may_be_written_with_a_point(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_text(path.read_text().replace("FederationRounds: 9", "FederationRounds: 9.0"))
    assert read_environment(path).wanted.signals.federation_rounds == 9


def test_a_length_that_means_nothing_is_not_said_to_be_taken_over(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_text(path.read_text().replace("LineageLengthEviction", "NoEviction"))
    environment = read_environment(path)
    assert environment.wanted.store.lineage_length == 0
    assert "ModelStoreConfig.LineageLength" not in dict(environment.taken)
    assert any("NoEviction all models stay" in line for line in left_lines(environment))


def test_it_says_what_is_missing_and_starts_and_writes_nothing(tmp_path: Path) -> None:
    path = write(tmp_path)
    done = run(tmp_path, path.name)
    assert done.returncode == 1 and "no learner.py" in done.stderr
    assert "Traceback" not in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["env.yaml"]
    text = path.read_text().replace("Hostname: localhost, Port: 50051", "Hostname: far, Port: 1")
    path.write_text(text)
    done = run(tmp_path, path.name)
    assert done.returncode == 1 and "is at far" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["env.yaml"]


@pytest.mark.parametrize(
    "words", [("--rounds", "3"), ("--set", "a=b"), ("--from", "x"), ("--open",), ("--runs", "x")]
)
def test_an_option_of_projects_is_refused_by_its_own_name(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    done = run(tmp_path, write(tmp_path).name, *words)
    assert done.returncode == 2 and f"{words[0]} is of a project" in done.stderr


def test_a_run_changes_nothing_that_an_import_has_made_and_a_user_has_changed(
    tmp_path: Path,
) -> None:
    """Its learner is taken from there; the programs are those of the file."""
    path = write(tmp_path, port=(port := free_port()))
    made = tmp_path / "env-hansa"
    import_environment(path, made)
    for name in ("controller.py", "driver.py"):
        (made / name).write_text("raise SystemExit('changed by its user')\n")
    (made / "notes").write_text("mine")
    (made / "learner.py").write_text(
        "from driver import controller_params as where\nraise SystemExit(f'at {where.port}')\n"
    )
    before = {p.name: p.read_bytes() for p in made.iterdir()}
    done = run(tmp_path, path.name)
    assert done.returncode == 1 and f"at {port}" in done.stderr, done.stderr
    assert {p.name: p.read_bytes() for p in made.iterdir()} == before
    programs = tmp_path / "home" / "metisfl" / f"localhost-{port}" / "programs"
    assert sorted(p.name for p in programs.glob("*.py")) == ["controller.py", "driver.py"]


def test_a_learner_that_fails_at_once_ends_the_command_with_its_words(tmp_path: Path) -> None:
    path = write(tmp_path, port=free_port())
    (tmp_path / "learner.py").write_text("raise SystemExit('no rows here')\n")
    done = run(tmp_path, path.name)
    assert done.returncode == 1 and "no rows here" in done.stderr and "dev-process" in done.stderr


def test_a_learner_that_ends_before_the_run_does_is_told_and_not_waited_for(tmp_path: Path) -> None:
    path = write(tmp_path, port=free_port())
    (tmp_path / "learner.py").write_text("from hansa.compat.metisfl import Learner\n")
    done = run(tmp_path, path.name)
    assert done.returncode == 1 and "status 0" in done.stderr and "app(...)" in done.stderr


def test_addresses_are_those_of_the_file_whatever_lies_beside_the_learner(tmp_path: Path) -> None:
    path = write(tmp_path, port=(port := free_port()))
    (tmp_path / "learner.py").write_text(
        "from driver import controller_params as where\nraise SystemExit(f'at {where.port}')\n"
    )
    for name in ("controller", "driver"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the programs of the tutorial')\n")
    done = run(tmp_path, path.name)
    assert done.returncode == 1 and f"at {port}" in done.stderr, done.stderr


def test_killed_it_leaves_no_process(tmp_path: Path) -> None:
    path = write(tmp_path, port=free_port())
    ready = tmp_path / "ready"
    (tmp_path / "learner.py").write_text(
        f"import time\nopen({str(ready)!r}, 'a').write('x')\ntime.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "hansa", "run", path.name],
        cwd=tmp_path,
        env={**os.environ, "HANSA_HOME": str(tmp_path / "home")},
        stdout=subprocess.DEVNULL,
    )
    until(lambda: ready.exists() and len(ready.read_text()) == 3)
    process.kill()
    process.wait(30)
    until(lambda: not any(of_folder(p, tmp_path) for p in Path("/proc").glob("[0-9]*")))


def until(reached: Callable[[], bool]) -> None:
    """Wait for something of other processes, on a loaded machine too."""
    end = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_learner_elsewhere_gets_an_invitation_and_is_waited_for(tmp_path: Path) -> None:
    path = write(tmp_path, port=free_port(), host="far.example.org")
    (tmp_path / "learner.py").write_text("")
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "hansa", "run", path.name],
        cwd=tmp_path,
        env={**os.environ, "HANSA_HOME": str(tmp_path / "home")},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        told = ""
        while "The driver waits" not in told:
            line = process.stdout.readline()
            assert line, told
            told += line
        assert told.count("python learner.py -l ") == 3 and told.count("#") >= 3
        assert "learner-far.example.org-50004" in told
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()
    (log,) = (tmp_path / "home" / "metisfl").glob("*/programs/logs/controller.log")
    pids = [int(p.name) for p in Path("/proc").glob("[0-9]*") if of_folder(p, tmp_path)]
    assert log.exists() and not pids  # SIGTERM has ended them all


def of_folder(process: Path, folder: Path) -> bool:
    try:
        return str(folder).encode() in (process / "cmdline").read_bytes()
    except OSError:
        return False
