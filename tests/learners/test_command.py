"""A learner made of commands: what they get, what is taken of what they give, and how they end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from command_cases import ADD, COPY, INIT, LINUX, alive, learner, seed_of, tensors

from hansa.algorithms import fed_avg
from hansa.client import failure_of
from hansa.errors import LearnerError
from hansa.learners import Hyper
from hansa.learners.command import CommandLearner
from hansa.learners.command_call import Call
from hansa.learners.command_rows import DataPath
from hansa.metrics import Mean
from hansa.params import Params
from hansa.seeds import Key

MODEL = {"w": np.array([1.5, -2.0, 0.25], np.float32), "b": np.array([[-7.0]], np.float32)}
CODE = {"seed.safetensors": tensors(MODEL), "add.py": ADD.encode()}
PYTHON = ("python", "add.py")


@pytest.fixture
def made() -> Any:
    """Make learners, and close them."""
    all_of_them: list[CommandLearner] = []

    def make(*args: Any, **options: Any) -> CommandLearner:
        all_of_them.append(learner(*args, **options))
        return all_of_them[-1]

    yield make
    for one in all_of_them:
        one.close()


def turn(made_learner: CommandLearner, start: Any, data: Any, **options: Any) -> Any:
    work, x = start(made_learner, seed_of(MODEL), data, **options)
    return work, work.train(x)


def refused(made_learner: CommandLearner, start: Any, data: Any) -> LearnerError:
    with pytest.raises(LearnerError) as caught:
        turn(made_learner, start, data)
    return caught.value


def test_the_seed_model_is_what_the_init_command_writes(made):
    seed = made(COPY, CODE).init(None, Key.root(1))
    assert {k: v.tolist() for k, v in seed.params.items()} == {
        "w": [1.5, -2.0, 0.25], "b": [[-7.0]]
    }  # fmt: skip


def test_statistics_and_counters_of_a_seed_model_are_averaged_and_not_trained(made):
    arrays = MODEL | {"bn.running_mean": np.zeros(2, np.float32), "n": np.array(3)}
    seed = made(COPY, {"seed.safetensors": tensors(arrays)}).init(None, Key.root(1))
    assert set(seed.layout.buffers.names) == {"bn.running_mean", "n"}


def test_a_command_trains_and_says_its_metrics(made, blobs, start):
    work, x = turn(made(PYTHON, CODE), start, blobs(12), hyper=Hyper(lr=0.5))
    assert sorted(x.tolist()) == [-6.5, -1.5, 0.75, 2.0]
    assert work.metrics == {"loss": Mean(3.0, 12.0)}
    assert work.weight is None


def test_federated_averaging_over_commands_is_the_closed_form(made, blobs, federate):
    # Every client adds lr, so their mean does, whatever the weights: three rounds add 3 lr.
    code = CODE | {"seed.safetensors": tensors({"w": np.array([1.0, -2.0], np.float32)})}
    x = federate(made(PYTHON, code), fed_avg(), [blobs(30), blobs(10)], Hyper(lr=0.25), rounds=3)
    assert x.tolist() == [1.75, -1.25]


def test_a_perl_program_trains_by_the_public_format(made, start, tmp_path):
    if shutil.which("perl") is None:
        pytest.skip("there is no perl")
    program = r"""
        open(my $f, "<", $ENV{HANSA_DATA_PATH}) or die; my ($sum, $n) = (0, 0);
        while (<$f>) { chomp; $sum += $_; $n++ }
        open(my $m, "<:raw", $ARGV[0]) or die; local $/; my $raw = <$m>;
        my $at = 8 + unpack("Q<", $raw);
        my @w = map { $_ + $sum / $n } unpack("f<*", substr($raw, $at));
        open(my $o, ">:raw", $ARGV[1]) or die; print $o substr($raw, 0, $at), pack("f<*", @w);
        open(my $r, ">", $ENV{HANSA_RESULT_OUT}); print $r "{\"examples\": $n}";
    """
    (tmp_path / "own.txt").write_text("-3\n-4\n1\n")
    words = ("perl", "train.pl", "{model_in}", "{update_out}")
    own = DataPath(tmp_path / "own.txt")
    work, x = turn(made(words, {"train.pl": program.encode()}), start, own)
    assert sorted(x.tolist()) == [-9.0, -4.0, -1.75, -0.5]
    assert work.weight == 3


def test_a_program_of_the_package_is_started_by_its_path(made, blobs, start):
    code = {"bin/train.sh": b"#!/bin/sh\n" + COPY.encode()}
    _, x = turn(made(("./bin/train.sh",), code), start, blobs(4))
    assert sorted(x.tolist()) == [-7.0, -2.0, 0.25, 1.5]


def test_what_a_command_is_told_is_in_a_file_and_in_variables(made, blobs, start, tmp_path):
    told = f"cd {tmp_path}; env > env; cp $HANSA_SETTINGS settings.json; echo $OLDPWD > pwd; {COPY}"
    hyper = Hyper(
        round=3, epochs=2, batch_size=None, lr=0.125, optimizer="adam", settings={"mu": -0.5}
    )
    turn(made(told, CODE | {"deep/er.txt": b"1"}), start, blobs(7), hyper=hyper)
    said = json.loads((tmp_path / "settings.json").read_text())
    seed = said.pop("seed")
    assert 0 <= seed < 2**31
    rows = said.pop("data")
    assert said == {
        "task": "train", "client": "client-0", "round": 3, "epochs": 2, "steps": None,
        "batch_size": None, "lr": 0.125, "optimizer": "adam", "options": {}, "given": {"mu": -0.5},
        "examples": 7, "classes": ["0", "1", "2"],
    }  # fmt: skip
    lines = (tmp_path / "env").read_text().splitlines()
    env = dict(line.split("=", 1) for line in lines if "=" in line)
    assert env["HANSA_TASK"] == "train" and env["HANSA_CLIENT"] == "client-0"
    assert (env["HANSA_ROUND"], env["HANSA_LR"], env["HANSA_SEED"]) == ("3", "0.125", str(seed))
    assert env["HANSA_DATA_PATH"] == rows and "HANSA_BATCH_SIZE" not in env
    assert not Path((tmp_path / "pwd").read_text().strip()).exists()  # its folder has gone


def test_a_user_s_own_secrets_of_hansa_do_not_reach_a_command(
    made, blobs, start, tmp_path, monkeypatch
):
    monkeypatch.setenv("HANSA_HOME", "/where/my/keys/are")
    turn(made(f"env > {tmp_path}/env; {COPY}", CODE), start, blobs(4))
    assert "keys" not in (tmp_path / "env").read_text()


@pytest.mark.parametrize("form", ["npz", "csv", "safetensors"])
def test_rows_come_as_a_file_with_every_digit(form, made, blobs, start, tmp_path):
    data = blobs(9)
    turn(made(f'cp "$HANSA_DATA_PATH" {tmp_path}/rows; {COPY}', CODE, rows=form), start, data)
    path = tmp_path / "rows"
    if form == "npz":
        found = np.load(path, allow_pickle=False)
        x, y = found["x"], found["y"]
        assert found["classes"].tolist() == ["0", "1", "2"]
    elif form == "csv":
        lines = path.read_text().splitlines()
        assert lines[0] == "x0,x1,x2,x3,y"
        table = np.array([line.split(",") for line in lines[1:]])
        x, y = table[:, :4].astype(np.float32), table[:, 4].astype(int)
    else:
        safetensors = pytest.importorskip("safetensors.numpy")
        found = safetensors.load_file(path)
        x, y = found["x"], found["y"]
    assert x.tolist() == data.x.tolist() and y.tolist() == data.y.tolist()


def test_targets_of_64_bits_lose_nothing_in_a_table(made, start, tmp_path):
    from hansa.data import Dataset

    x, y = np.array([[1 / 3], [-2.5]], np.float64), np.array([0.1 + 0.2, -1e-300])
    train = f'cp "$HANSA_DATA_PATH" {tmp_path}/rows; {COPY}'
    turn(made(train, CODE, rows="csv"), start, Dataset.of(x, y, name="t"))
    rows = [line.split(",") for line in (tmp_path / "rows").read_text().splitlines()[1:]]
    assert [[float(a), float(b)] for a, b in rows] == [[1 / 3, 0.1 + 0.2], [-2.5, -1e-300]]


def test_clients_that_share_their_features_have_their_own_labels(made, start, tmp_path):
    from hansa.data import Dataset

    x = np.array([[1.0], [-2.0]])
    one = made(f'cat "$HANSA_DATA_PATH" >> {tmp_path}/rows; {COPY}', CODE, rows="csv")
    first = Dataset.of(x, np.array([0.5, -1.5]), name="t")
    for data in (first, first._replace(y=np.array([2.5, 3.5]))):
        turn(one, start, data)
    text = (tmp_path / "rows").read_text().split()
    assert [line.split(",")[1] for line in text] == ["y", "0.5", "-1.5", "y", "2.5", "3.5"]


def test_rows_are_written_once_while_they_are_in_memory(made, blobs, start, tmp_path):
    one = made(f'echo "$HANSA_DATA_PATH" >> {tmp_path}/paths; {COPY}', CODE)
    data = blobs(5)
    for _ in range(2):
        turn(one, start, data)
    turn(one, start, blobs(6))
    paths = (tmp_path / "paths").read_text().splitlines()
    assert paths[0] == paths[1] != paths[2]


def test_validation_measures_and_weighs_by_its_examples(made, blobs):
    said = '{"metrics": {"mae": 0.5}, "examples": 8}'
    validate = ("sh", "-c", f"echo '{said}' > $HANSA_RESULT_OUT")
    params = Params.of(MODEL)
    assert made(COPY, CODE, validate=validate).evaluate(params, blobs(4)) == {"mae": Mean(4.0, 8.0)}
    assert made(COPY, CODE).evaluate(params, blobs(4)) == {}


def test_the_same_seed_and_data_give_the_same_bytes(made, blobs, start):
    noisy = "import os, random; random.seed(int(os.environ['HANSA_SEED'])); a = random.random()"
    code = CODE | {"add.py": (noisy + ADD.replace('os.environ["HANSA_LR"]', "a")).encode()}
    found = [turn(made(PYTHON, code), start, blobs(5), key=k)[1].tobytes() for k in (3, 3, 4)]
    assert found[0] == found[1] != found[2]


def test_files_that_a_command_writes_beside_its_own_are_gone_in_the_next_round(
    made, blobs, start, tmp_path
):
    one = made(f"ls > {tmp_path}/seen; touch left-over; {COPY}", CODE)
    for _ in range(2):
        turn(one, start, blobs(4))
    assert (tmp_path / "seen").read_text().split() == ["add.py", "seed.safetensors"]


# ---------------------------------------------------------------- what goes wrong

FAILING = {
    "status": ("echo 'the scanner is off' >&2; exit 3", "command-failed", "the scanner is off"),
    "signal": ("kill -SEGV $$", "command-failed", "signal 11"),
    "no program": (("not-a-program-of-anybody",), "command-missing", "not-a-program-of-anybody"),
    "no update": ("true", "command-result", "wrote no update.safetensors"),
    "garbage": ("head -c 4000 /dev/urandom > $HANSA_UPDATE_OUT", "command-result", "update"),
    "empty": (": > $HANSA_UPDATE_OUT", "command-result", "update"),
    "too large": ("head -c 9000000 /dev/zero > $HANSA_UPDATE_OUT", "command-result", "9,000,000"),
    "a pipe": ("mkfifo $HANSA_UPDATE_OUT", "command-result", "plain file"),
    "a link": ("ln -s /etc/passwd $HANSA_UPDATE_OUT", "command-result", "plain file"),
    "a folder": ("mkdir $HANSA_UPDATE_OUT", "command-result", "plain file"),
    "other shapes": ("cp other.safetensors $HANSA_UPDATE_OUT", "learner-params", "w as F32 [2]"),
    "no JSON": (f"{COPY}; echo oops > $HANSA_RESULT_OUT", "command-result", "not JSON"),
    "a list": (f"{COPY}; echo '[1]' > $HANSA_RESULT_OUT", "command-result", "is no object"),
    "deep JSON": (
        f"{COPY}; head -c 200000 /dev/zero | tr '\\0' '[' > $HANSA_RESULT_OUT",
        "command-result", "not JSON",
    ),
    "long JSON": (
        f"{COPY}; head -c 2000000 /dev/zero > $HANSA_RESULT_OUT", "command-result", "2,000,000",
    ),
    "text metric": (
        f"{COPY}; echo '{{\"metrics\": {{\"loss\": \"low\"}}}}' > $HANSA_RESULT_OUT",
        "command-result", "loss",
    ),
    "no examples": (
        f"{COPY}; echo '{{\"examples\": -1}}' > $HANSA_RESULT_OUT", "command-result", "-1",
    ),
    "a weight": (
        f"{COPY}; echo '{{\"weight\": NaN}}' > $HANSA_RESULT_OUT", "command-result", "nan",
    ),
    "unknown key": (
        f"{COPY}; echo '{{\"accuracy\": 1}}' > $HANSA_RESULT_OUT", "command-result", "accuracy",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILING)
def test_what_a_command_does_wrong_is_told_with_a_code(case, made, blobs, start):
    train, code, words = FAILING[case]
    other = {"w": np.zeros(2, np.float32), "b": np.zeros((1, 1), np.float32)}
    files = CODE | {"other.safetensors": tensors(other)}
    error = refused(made(train, files), start, blobs(4))
    assert error.code == code
    assert words in error.happened


def test_the_end_of_what_it_printed_is_in_the_trace_and_the_last_lines_in_the_reason(
    made, blobs, start
):
    train = "seq 1 100000; echo ValueError: bad voltage >&2; exit 1"
    told = failure_of(refused(made(train, CODE), start, blobs(4)))
    assert "ended with status 1" in told.message
    assert "100000 | ValueError: bad voltage" in told.message
    assert "\n99998\n99999\n100000\nValueError: bad voltage" in told.trace
    assert len(told.message) < 1000 and len(told.trace) <= 64 * 2**10


def test_a_command_that_takes_too_long_is_ended_with_all_that_it_started(
    made, blobs, start, tmp_path
):
    train = f"sleep 600 & echo $! > {tmp_path}/pid; sleep 600"
    began = time.monotonic()
    error = refused(made(train, CODE, time_s=0.5), start, blobs(4))
    assert error.code == "command-time" and "0.5 s" in error.happened
    assert time.monotonic() - began < 60
    if LINUX:
        wait_gone(int((tmp_path / "pid").read_text()))


def test_what_a_command_leaves_running_ends_with_it(made, blobs, start, tmp_path):
    train = f"sleep 600 >/dev/null 2>&1 & echo $! > {tmp_path}/pid; {COPY}"
    turn(made(train, CODE), start, blobs(4))
    if LINUX:
        wait_gone(int((tmp_path / "pid").read_text()))


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_endless_output_takes_no_memory_and_ends_with_the_time_limit(made, blobs, start):
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    one = made("yes endless", CODE, time_s=2.0)
    assert refused(one, start, blobs(4)).code == "command-time"
    assert one.last.printed > 10 * 2**20 and len(one.last.output) <= 64 * 2**10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024  # KiB


def test_output_in_no_encoding_is_shown_as_escapes(made, blobs, start):
    error = refused(made("printf '\\377\\033[2Jx\\n'; exit 1", CODE), start, blobs(4))
    assert "\\xff" in error.happened and "\x1b" not in error.happened


@pytest.mark.skipif(not LINUX, reason="signals and /proc")
def test_an_interruption_ends_the_command_at_once(made, blobs, start, tmp_path):
    one = made(f"echo $$ > {tmp_path}/pid; exec sleep 600", CODE)
    pid = tmp_path / "pid"

    def interrupt() -> None:
        wait_for(lambda: pid.is_file() and pid.read_text().strip())
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            turn(one, start, blobs(4))
    finally:
        signal.signal(signal.SIGINT, before)
    wait_gone(int(pid.read_text()))


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_when_its_parent_is_killed_the_command_and_all_files_go(tmp_path):
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from command_cases import learner
from pathlib import Path
one = learner("echo $$ > {tmp_path}/pid; exec sleep 600", {{}})
call = one._call("init", None, client="", seed=0)
Path({str(tmp_path / "place")!r}).write_text(str(one._place.folder))
one._place.run(["sh", "-c", "echo $$ > {tmp_path}/pid; exec sleep 600"], folder=call.work,
               environment={{"PATH": "/usr/bin:/bin"}}, seconds=600)
"""
    process = subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
    pid, place = tmp_path / "pid", tmp_path / "place"
    wait_for(lambda: pid.is_file() and pid.read_text().strip(), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    wait_gone(int(pid.read_text()))
    wait_for(lambda: not Path(place.read_text()).exists())


def test_closing_removes_all_files_and_it_can_be_used_again(made, blobs, start):
    one = made(COPY, CODE)
    turn(one, start, blobs(4))
    place = one._place.folder
    assert place.is_dir()
    one.close()
    assert not place.exists()
    turn(one, start, blobs(4))


def test_without_an_init_command_no_run_can_start(blobs):
    from hansa.learners.command import Commands

    one = CommandLearner(Commands({"train": INIT}, CODE))
    with pytest.raises(LearnerError, match="makes the seed model") as error:
        one.init(blobs(1), Key.root(0))
    assert error.value.code == "learner-incomplete"


def test_data_that_are_no_rows_are_refused(made, start):
    error = refused(made(COPY, CODE), start, [1, 2, 3])
    assert error.code == "learner-data"


def wait_for(reached: Any, process: Any = None, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < until
        assert process is None or process.poll() is None
        time.sleep(0.02)


def wait_gone(pid: int) -> None:
    wait_for(lambda: not alive(pid))


@pytest.mark.parametrize("name", ["python", "python3"])
def test_python_is_the_one_that_runs_hansa_whatever_the_system_calls_its_own(
    name, made, blobs, start, tmp_path, monkeypatch
):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    program = f"import sys\nopen({str(tmp_path / 'said')!r}, 'w').write(sys.prefix)\n" + ADD
    turn(made((name, "add.py"), CODE | {"add.py": program.encode()}), start, blobs(4))
    assert (tmp_path / "said").read_text() == sys.prefix


def test_a_module_of_hansa_runs_in_hansa_s_own_python(tmp_path: Path) -> None:
    """An environment of the package's own need not know Hansa; its programs are still first."""
    call = Call("init", tmp_path, None, {})
    other = tmp_path / "bin" / "python"
    ours = call.words(["python", "-m", "hansa.compat.fedn.call", "init"], other)
    assert ours[0] == sys.executable
    for words in (["python", "-m", "hansard"], ["python", "hansa.py"], ["python3"]):
        assert call.words(words, other)[0] == str(other)
    assert call.environment(other)["PATH"].startswith(str(other.parent))
