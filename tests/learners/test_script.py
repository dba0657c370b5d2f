"""A user's training script in a run: the loop is handed over turn by turn, errors are told."""

import random
import subprocess
import sys
import textwrap
import threading
import traceback
from pathlib import Path

import numpy as np
import pytest

from hansa.algorithms import fed_avg
from hansa.errors import HansaWarning, LearnerError, ParamsError
from hansa.learners import Hyper
from hansa.learners.script import ScriptLearner
from hansa.metrics import Mean
from hansa.seeds import Key

ADD_ONE = """
    import numpy as np
    from hansa.script import local_client, local_data, tasks

    turns = 0
    weights = {"w": np.array([1.0, -2.0], np.float32), "n": np.array(3)}
    for task in tasks(weights):
        turns += 1
        weights = {"w": task.params["w"] + np.float32(turns), "n": task.params["n"] + 1}
        task.send(weights, examples=local_data().examples, loss=0.5, accuracy=turns)
    with open(local_client() + ".txt", "w") as file:
        file.write(f"{turns} turns")
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = []

    def make(text, name="train.py"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        made.append(ScriptLearner(path))
        return made[-1]

    yield make
    for learner in made:
        learner.close()


def turn(learner, data, start, hyper=None, *, seed=None, **options):
    seed = seed or learner.init(data, Key.root(1))
    work, x = start(learner, seed, data, hyper, **options)
    return work, work.train(x)


def test_each_client_has_its_own_script_that_lives_on(script, blobs, federate, tmp_path):
    learner = script(ADD_ONE)
    parts = [blobs(30), blobs(10)]
    x = federate(learner, fed_avg(), parts, Hyper(), rounds=3)
    assert x.tolist() == [1 + 1 + 2 + 3, -2 + 1 + 2 + 3]
    assert not list(tmp_path.glob("*.txt"))
    learner.close()
    assert sorted(p.name for p in tmp_path.glob("*.txt")) == ["client-0.txt", "client-1.txt"]
    assert (tmp_path / "client-1.txt").read_text() == "3 turns"


def test_what_is_sent_is_what_the_run_gets(script, blobs, start):
    work, x = turn(script(ADD_ONE), blobs(12), start)
    assert x.tolist() == [2, -1]
    assert work.buffers.tolist() == [4]
    assert work.weight == 12
    assert work.metrics == {"loss": Mean(6.0, 12.0), "accuracy": Mean(12.0, 12.0)}


def test_a_weight_of_its_own_comes_before_the_examples(script, blobs, start):
    learner = script(
        """
        import numpy as np
        from hansa.script import tasks
        for task in tasks([np.zeros(2, np.float32)]):
            task.send([p + np.float32(1) for p in task.params], examples=9, weight=2.5)
        """
    )
    work, x = turn(learner, blobs(5), start)
    assert (work.weight, x.tolist()) == (2.5, [1, 1])


def test_metrics_are_means_over_the_examples_that_the_script_names(script, blobs, start):
    body = "task.send(task.params, examples=9, weight=2.5, loss=-0.75)"
    work, _ = turn(script(LOOP.format(body=body)), blobs(5), start)
    assert work.metrics == {"loss": Mean(-6.75, 9.0)}
    assert work.weight == 2.5


@pytest.mark.parametrize("examples", ["0", "-3", "float('nan')"])
def test_examples_that_are_no_number_of_them_are_refused(examples, script, blobs, start):
    learner = script(LOOP.format(body=f"task.send(task.params, examples={examples})"))
    with pytest.raises(LearnerError, match="above 0"):
        turn(learner, blobs(5), start)


def test_the_task_tells_what_the_plan_asks_for(script, blobs, start):
    learner = script(
        """
        import numpy as np
        from hansa.script import local_client, tasks
        for task in tasks({"w": np.zeros(6)}):
            told = [task.round, task.lr, task.epochs, task.steps, task.batch_size]
            assert task.client == local_client() == "client-0" and task.options == {"eps": 2.0}
            task.send({"w": np.array([*told, task.params["w"].flags.writeable], float)})
        """
    )
    hyper = Hyper(round=7, lr=0.25, epochs=3, steps=11, batch_size=5, options={"eps": 2.0})
    _, x = turn(learner, blobs(5), start, hyper)
    assert x.tolist() == [7, 0.25, 3, 11, 5, 1]


def test_draws_depend_on_the_key_alone(script, blobs, start):
    text = """
        import random
        import numpy as np
        from hansa.script import tasks
        start = [random.random(), np.random.rand()]
        for task in tasks({"w": np.zeros(4)}):
            task.send({"w": np.array([*start, random.random(), np.random.rand()])})
        """
    results = []
    random.seed(1)
    expected = random.Random(1).random()
    for i, key in enumerate((5, 5, 6)):
        results.append(turn(script(text, f"draw{i}.py"), blobs(), start, key=key)[1].tolist())
    assert results[0] == results[1]
    assert all(a != b for a, b in zip(results[0], results[2], strict=True))
    assert random.random() == expected


def test_only_one_thread_runs_and_main_is_the_scripts_own(script, blobs, start, monkeypatch):
    learner = script(
        """
        import sys
        import threading
        from pathlib import Path
        import numpy as np
        from hansa.script import tasks
        assert sys.argv == [__file__] and Path(__file__).name == "train.py"
        mark = object()
        for task in tasks({"w": np.zeros(1)}):
            assert sys.modules["__main__"].mark is mark, "another script's __main__"
            assert sys.argv[1:] == []
            task.send({"w": np.ones(1)})
        """
    )
    monkeypatch.setattr(sys, "argv", ["hansa", "run"])
    main = sys.modules["__main__"]
    seed = learner.init(blobs(), Key.root(1))
    works = [start(learner, seed, blobs())[0] for _ in range(4)]
    for i, work in enumerate(works):
        work._task = work._task._replace(client=f"client-{i % 2}")
        assert work.train(np.zeros(1)).tolist() == [1]
        assert sys.modules["__main__"] is main
        assert sys.argv == ["hansa", "run"]


def test_the_script_may_import_what_lies_beside_it(script, blobs, start, tmp_path):
    (tmp_path / "beside_the_script.py").write_text("STEP = 4.0")
    learner = script(
        """
        import numpy as np
        from beside_the_script import STEP
        from hansa.script import tasks
        if __name__ == "__main__":
            for task in tasks({"w": np.zeros(1)}):
                task.send({"w": task.params["w"] + STEP})
        """
    )
    assert turn(learner, blobs(), start)[1].tolist() == [4]


LOOP = """
    import sys
    import numpy as np
    from hansa.script import tasks
    for task in tasks({{"w": np.zeros(1)}}):
        {body}
    """


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1", "ended without asking for a task"),
        ("import hansa.script\nnext(hansa.script.tasks())", "without its seed model"),
        ("import hansa.script\nnext(hansa.script.tasks(3))", "gave int where a model"),
        ("import sys\nsys.exit(0)", "ended without asking for a task"),
        ("import sys\nsys.exit('no data')", "sys.exit('no data')"),
        ("raise KeyboardInterrupt", "raised KeyboardInterrupt"),
    ],
)
def test_a_script_without_a_loop_is_refused_before_the_run(text, said, script, blobs):
    with pytest.raises(LearnerError, match="learner-script") as error:
        script(text).init(blobs(), Key.root(1))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("pass", "sent no result for round 1"),
        ("break", "left its loop in round 1 without sending"),
        ("sys.exit()", "left its loop in round 1 without sending"),
        ("sys.exit(3)", "sys.exit(3)"),
        ("task.send(task.params); task.send(task.params)", "two results for round 1"),
        ("task.send('model.pt')", "gave str where a model"),
    ],
)
def test_a_script_that_does_not_keep_to_the_exchange_is_told_so(body, said, script, blobs, start):
    learner = script(LOOP.format(body=body))
    with pytest.raises(LearnerError, match="learner-script") as error:
        turn(learner, blobs(), start)
    assert said in str(error.value)


def test_a_model_of_numbers_that_are_no_arrays_is_refused(script, blobs):
    with pytest.raises(ParamsError, match="params-not-an-array"):
        script("import hansa.script\nnext(hansa.script.tasks({'w': 1.0}))").init(
            blobs(), Key.root(1)
        )


def test_other_tensors_than_the_models_are_refused(script, blobs, start):
    learner = script(LOOP.format(body="task.send({'v': np.zeros(1)})"))
    with pytest.raises(LearnerError, match="learner-params"):
        turn(learner, blobs(), start)


def test_what_the_script_raises_keeps_its_line_and_the_next_round_starts_anew(script, blobs, start):
    learner = script(
        """
        import numpy as np
        from hansa.script import tasks
        turns = 0
        for task in tasks({"w": np.zeros(1)}):
            turns += 1
            task.send({"w": np.full(1, float(turns))})
            if task.round == 2:
                raise ZeroDivisionError("in the second round")
        """
    )
    seed = learner.init(blobs(), Key.root(1))
    assert turn(learner, blobs(), start, Hyper(round=1), seed=seed)[1].item() == 1
    with pytest.raises(ZeroDivisionError, match="in the second round") as error:
        turn(learner, blobs(), start, Hyper(round=2), seed=seed)
    last = traceback.extract_tb(error.value.__traceback__)[-1]
    assert (Path(last.filename).name, last.lineno) == ("train.py", 9)
    assert turn(learner, blobs(), start, Hyper(round=3), seed=seed)[1].item() == 1


def test_a_script_that_leaves_early_counts_once_and_never_again(script, blobs, start):
    learner = script(LOOP.format(body="task.send({'w': np.ones(1)}); break"))
    seed = learner.init(blobs(), Key.root(1))
    assert turn(learner, blobs(), start, seed=seed)[1].item() == 1
    for _ in range(2):
        with pytest.raises(LearnerError, match="ended before the run did"):
            turn(learner, blobs(), start, seed=seed)


def test_a_second_loop_is_refused(script, blobs, start):
    text = LOOP.format(body="task.send(task.params)") + "\n    next(tasks([np.zeros(1)]))"
    learner = script(text)
    turn(learner, blobs(), start)
    with pytest.warns(HansaWarning, match=r"client-0.*second time"):
        learner.close()


EVALUATING = """
    import numpy as np
    from hansa.script import local_data, tasks

    def evaluate(params, data):
        assert local_data() is data
        return {{"mean": {value}}}

    for task in tasks({{"w": np.full(2, 3.0)}}, evaluate=evaluate):
        task.send(task.params)
    open("last lines", "w").close()
    """


def test_evaluation_runs_in_the_script_on_the_data_it_is_given(script, blobs, tmp_path):
    learner = script(EVALUATING.format(value="params['w'].sum() + len(data.x)"))
    params = learner.init(blobs(9), Key.root(1)).params
    assert learner.evaluate(params, blobs(4)) == {"mean": Mean(40.0, 4.0)}
    assert learner.evaluate(params, blobs(5)) == {"mean": Mean(55.0, 5.0)}
    learner.close()
    assert not (tmp_path / "last lines").exists()
    fresh = ScriptLearner(tmp_path / "train.py")  # as in a worker process: no init
    assert fresh.evaluate(params, blobs(5)) == {"mean": Mean(55.0, 5.0)}


def test_an_evaluation_that_raises_does_so_every_time(script, blobs):
    learner = script(EVALUATING.format(value="1 / 0"))
    params = learner.init(blobs(9), Key.root(1)).params
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            learner.evaluate(params, blobs(4))


def test_without_an_evaluation_there_are_no_metrics(script, blobs):
    learner = script(ADD_ONE)
    assert learner.evaluate(learner.init(blobs(), Key.root(1)).params, blobs()) == {}


def test_only_so_many_scripts_wait(script, blobs, start, monkeypatch):
    monkeypatch.setattr("hansa.learners.script.SCRIPTS_MAX", 3)
    learner = script(ADD_ONE)
    before = threading.active_count()
    seed = learner.init(blobs(), Key.root(1))
    turns = []
    for client in (0, 1, 2, 0, 3, 0, 1):
        work, x = start(learner, seed, blobs())
        work._task = work._task._replace(client=f"client-{client}")
        turns.append(work.train(x)[0] - 1)
        assert threading.active_count() <= before + 3
    assert turns == [1, 1, 1, 2, 1, 3, 1]  # client 1 had waited longest, and began anew


def test_a_model_that_is_no_longer_used_ends_its_scripts(script, blobs, start, tmp_path):
    path = tmp_path / "train.py"
    path.write_text(textwrap.dedent(ADD_ONE))
    before = threading.active_count()
    turn(ScriptLearner(path), blobs(), start)
    assert (tmp_path / "client-0.txt").read_text() == "1 turns"
    assert threading.active_count() == before


def test_ctrl_c_lets_go_of_the_script(script, blobs, start, monkeypatch):
    learner = script(ADD_ONE)
    seed = learner.init(blobs(), Key.root(1))
    turn(learner, blobs(), start, seed=seed)
    session = learner._sessions["client-0"]

    class Interrupted:
        def get(self, timeout):
            raise KeyboardInterrupt

        def put(self, value):
            pass

    monkeypatch.setattr(session, "_replies", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        turn(learner, blobs(), start, seed=seed)
    assert turn(learner, blobs(), start, seed=seed)[1].tolist() == [2, -1], "it began anew"


def test_outside_of_a_run_there_is_one_task(tmp_path):
    text = """
        import numpy as np
        import hansa.script
        data = hansa.script.local_data()
        weights = {"w": np.zeros(2)}
        for task in hansa.script.tasks(weights):
            assert task.params is weights
            task.send({"w": np.ones(2)}, examples=len(data.x), loss=0.1)
        print(len(data.x), hansa.script.local_client(), task.round)
    """
    (tmp_path / "train.py").write_text(textwrap.dedent(text))
    (tmp_path / "plan.toml").write_text('[data]\nset = "digits"\n')
    command = [sys.executable, str(tmp_path / "train.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1797", "local", "1"]
    (tmp_path / "plan.toml").unlink()
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "no run has started it" in failed.stderr


def test_batch_norm_statistics_of_a_state_dict_are_buffers(script, blobs):
    learner = script(
        """
        import numpy as np
        from hansa.script import tasks
        names = ("a.weight", "bn.running_mean", "bn.running_var", "running_mean_gate.weight")
        next(tasks({name: np.ones(2) for name in names}))
        """
    )
    layout = learner.init(blobs(), Key.root(1)).layout
    assert layout.buffers.names == ("bn.running_mean", "bn.running_var")


TORCH_SCRIPT = """
    import torch
    from torch import nn
    from hansa.script import local_data, tasks

    data = local_data()
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(net[1].weight), nn.init.zeros_(net[1].bias)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)

    def train():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    @torch.no_grad()
    def evaluate(params, data):
        net.load_state_dict(params)
        predicted = net(torch.from_numpy(data.x)).argmax(1)
        return {"accuracy": (predicted == torch.from_numpy(data.y)).double().mean()}

    for task in tasks(net.state_dict(), evaluate=evaluate):
        assert all(isinstance(t, torch.Tensor) for t in task.params.values())
        net.load_state_dict(task.params)
        loss = train()
        task.send(net.state_dict(), examples=len(x), loss=loss)
    """


@pytest.mark.torch
def test_a_three_line_script_in_a_simulation_is_the_torch_learner(script, tmp_path):
    """Full-batch SGD on the same clients, once by the script and once by the torch learner."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    from torch import nn

    import hansa

    def model():
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        nn.init.zeros_(net[1].weight)
        nn.init.zeros_(net[1].bias)
        return net

    def loss(net, batch):
        return nn.functional.cross_entropy(net(batch[0]), batch[1])

    def metrics(net, batch):
        return {"accuracy": net(batch[0]).argmax(1) == batch[1]}

    clients = hansa.split("digits", "dirichlet", alpha=0.5, clients=4)
    results = [
        hansa.run(
            learner=learner,
            data=clients,
            rounds=4,
            batch_size="all",
            lr=0.05,
            runs=tmp_path / "runs",
            name=name,
        )
        for name, learner in (
            ("script", script(TORCH_SCRIPT)),
            ("torch", hansa.torch(model, loss, metrics=metrics)),
        )
    ]
    ours, theirs = (result.model() for result in results)
    assert list(ours) == list(theirs) == ["1.weight", "1.bias"]
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-6)
    assert np.abs(ours["1.weight"]).max() > 0.01
    accuracies = [
        [{k: v for k, v in row.items() if "accuracy" in k} for row in result.metrics]
        for result in results
    ]
    assert accuracies[0] == accuracies[1]
    assert len(accuracies[0][3]) >= 2, "on clients and at the server"


@pytest.mark.torch
def test_what_changes_after_sending_is_not_sent(script, blobs, start):
    pytest.importorskip("torch")
    learner = script(
        """
        import numpy as np
        import torch
        from hansa.script import tasks
        weights = {"a": torch.zeros(1), "b": np.zeros(1, np.float32)}
        for task in tasks(weights):
            assert [type(v) for v in task.params.values()] == [torch.Tensor, np.ndarray]
            for w in weights.values():
                w += 1
            task.send(weights)
            for w in weights.values():
                w += 100
        """
    )
    assert turn(learner, blobs(), start)[1].tolist() == [1, 1]


@pytest.mark.torch
def test_even_the_first_draws_of_torch_are_seeded(tmp_path):
    """In a fresh process, where the script itself is the first to import torch."""
    pytest.importorskip("torch")
    (tmp_path / "train.py").write_text(
        textwrap.dedent(
            """
            import torch
            from hansa.script import tasks
            next(tasks({"w": torch.rand(2)}))
            """
        )
    )
    code = """
import sys
from pathlib import Path
from hansa.learners.script import ScriptLearner
from hansa.seeds import Key
learner = ScriptLearner(Path(sys.argv[1]))
assert "torch" not in sys.modules
for seed in (1, 2, 1):
    print(learner.init(None, Key.root(seed)).params["w"].tolist())
"""
    command = [sys.executable, "-c", code, str(tmp_path / "train.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, second, third = done.stdout.splitlines()
    assert first == third != second
