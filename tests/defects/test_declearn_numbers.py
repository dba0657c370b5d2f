"""What declearn 2.9 gets wrong in numbers, settings and data, and must not happen here.

Method: pure functions against closed forms, and small simulations.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from projects import final_model, make_project, simulate
from site_cases import function_package, make_case, make_workers

from hansa.cli import main
from hansa.errors import PlanError, RunError
from hansa.learners import Hyper
from hansa.learners.batches import batches, local_steps
from hansa.metrics import Asked, Predicted, summarise_all, sums
from hansa.plan import hyper_at, read_plan
from hansa.seeds import Key
from hansa.transforms import clip

ROUNDS = 6
RATES = {
    "constant": [1.0] * ROUNDS,
    "step": [1.0, 1.0, 0.5, 0.5, 0.25, 0.25],
    "exponential": [0.5**i for i in range(ROUNDS)],
    "cosine": [(1 + math.cos(math.pi * i / ROUNDS)) / 2 for i in range(ROUNDS)],
}


@pytest.mark.parametrize("name", RATES)
def test_a_schedule_by_rounds_does_not_lag_and_begins_with_the_first(name: str) -> None:
    """The round's number began at -1; inverse scaling divided by zero."""
    schedule = {"name": name, "every": 2, "gamma": 0.5}
    learner = {"optimizer": {"lr": 0.8}, "schedule": schedule}
    plan = read_plan({"rounds": ROUNDS, "learner": learner}).plan
    rates = [hyper_at(plan, number).lr for number in range(1, ROUNDS + 1)]
    np.testing.assert_allclose(rates, 0.8 * np.array(RATES[name]), rtol=1e-12)


def test_a_rate_after_an_interruption_is_not_a_stale_one() -> None:
    """A state that was set back left the rate of before: 1.0 instead of 0.125."""
    plan = read_plan({"learner": {"schedule": {"name": "exponential", "gamma": 0.5}}}).plan
    asked = [hyper_at(plan, number).lr for number in (4, 1, 4)]  # nothing is remembered
    assert asked == [0.0125, 0.1, 0.0125]


def test_a_whole_number_is_a_learning_rate() -> None:
    """`lrate = 1` was a TypeError."""
    plan = read_plan({"learner": {"optimizer": {"lr": 1}}, "algorithm": "fed_avg"}).plan
    assert hyper_at(plan, 1).lr == 1.0


def test_a_mistyped_key_is_not_ignored_without_a_word() -> None:
    with pytest.raises(PlanError) as raised:
        read_plan({"learner": {"epocs": 3}})
    assert raised.value.code == "plan-unknown-key"
    assert "epochs" in raised.value.hint


@pytest.mark.parametrize("examples", range(1, 41))
def test_steps_of_an_epoch_are_the_batches_that_are_made(examples: int) -> None:
    """Counted with `n_batches % batch_size`: privacy and steps were accounted for other batches."""
    for size in (1, 2, 3, 7, 16, None):
        hyper = Hyper(epochs=2, batch_size=size)
        made = [b for b in batches(examples, hyper, Key.root(1))]
        assert len(made) == local_steps(examples, hyper)
        rows = [r for b in made for r in np.arange(examples)[b]]
        assert sorted(rows) == sorted(2 * list(range(examples)))
        assert all(len(np.arange(examples)[b]) for b in made)  # an empty batch made NaN


@pytest.mark.parametrize("engine", ["inline"])
def test_updates_that_weigh_nothing_do_not_make_the_model_nan(tmp_path: Path, engine: str) -> None:
    """All clients with a spent budget: the average was 0 / 0."""
    project = make_project(tmp_path, train="ctx.weight = 0.0", top='weighting = "user"')
    with pytest.raises(RunError) as raised:
        simulate(project, engine=engine)
    assert raised.value.code == "run-all-failed"
    other = make_project(
        tmp_path / "one",
        train='ctx.weight = 2.0 if data[0] == "client-3" else 0.0',
        top='weighting = "user"\nweight_limit = 1000',
        rounds=1,
    )
    model = final_model(simulate(other, engine=engine))
    np.testing.assert_allclose(model["w"], 8.0 * 0.5 * np.array([1, 2, 3]), rtol=1e-6)


def test_clipping_float64_does_not_lose_to_float32() -> None:
    """The factor passed through float32: seven digits were left of sixteen."""
    values = np.array([3.0, -4.0, 1e-9, 12.0]) * (1 + 1e-11)
    sent = clip(6.5).encode({"delta": values}, Key.root(0))["delta"]
    assert sent.dtype == np.float64
    np.testing.assert_allclose(sent, values * (6.5 / np.linalg.norm(values)), rtol=1e-15)


def test_clipping_is_over_all_tensors_together() -> None:
    """Per tensor, the norm of L of them reached sqrt(L) times the bound."""
    vectors = {name: np.full(9, sign) for name, sign in (("a", 2.0), ("b", -1.0), ("c", 0.5))}
    sent = clip(0.1).encode(vectors, Key.root(0))
    assert math.sqrt(sum(float((v**2).sum()) for v in sent.values())) == pytest.approx(0.1)


def test_models_of_rounds_within_one_second_do_not_overwrite_each_other(tmp_path: Path) -> None:
    """Ten rounds left two files, and the latest was the best one."""
    more = "target = 1e9\n[keep]\nevery = 1\n"
    run = simulate(make_project(tmp_path, rounds=7, more=more))
    files = sorted((run.path / "models").glob("round-*.safetensors"))
    assert len({f.read_bytes() for f in files}) == len(files) == 7
    assert [row["round"] for row in run.rows()] == list(range(1, 8))
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 7
    best = run.commits()[-1]["progress"]["best_round"]
    assert 1 <= best <= 7
    np.testing.assert_allclose(final_model(run)["w"][0], 7 * _step(), rtol=1e-5)


def _step() -> float:
    values, sizes = np.array([1.5, -4.0, 0.25, 8.0, -0.5]), np.array([3, 1, 7, 2, 5])
    return float(0.5 * (values * sizes).sum() / sizes.sum())


def test_federated_metrics_are_those_of_all_examples_together() -> None:
    """Its own promise, kept for those that it lacks: F1, log loss, areas of several classes."""
    rng = np.random.default_rng(2)
    y = np.repeat([0, 1, 2], [5, 80, 15])
    p = rng.dirichlet([0.4, 0.9, 0.6], 100)
    asked = Asked(("f1", "confusion"))
    reports = {str(c): sums(asked, Predicted(p[y == c], y[y == c])) for c in range(3)}
    said = p.argmax(axis=1)
    hits = [((y == c) & (said == c)).sum() for c in range(3)]
    sizes = [(y == c).sum() + (said == c).sum() for c in range(3)]
    expected = np.mean([2 * h / s for h, s in zip(hits, sizes, strict=True)])
    assert summarise_all(reports, asked)["f1"]["mean"] == pytest.approx(expected, rel=1e-12)


def test_data_that_are_not_here_end_in_a_sentence_and_no_trace(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Offline, MNIST ended in a stack trace."""
    with pytest.raises(SystemExit) as end:
        main(["split", "mnist"])
    told = capsys.readouterr().err
    assert end.value.code != 0
    assert "data-missing" in told and "Traceback" not in told


def test_the_split_tool_takes_every_scheme_with_its_options(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Dirichlet had no --alpha and was not in the help; clients read another folder."""
    with pytest.raises(SystemExit) as end:
        main(["split", "digits", "--scheme", "dirichlet", "--alpha", "0.3", "-o", "data/parts"])
    assert end.value.code == 0, capsys.readouterr().err
    assert (home / "data" / "parts" / "client-2" / "train.npz").is_file()
    with pytest.raises(SystemExit):
        main(["split", "--help"])
    assert "dirichlet" in capsys.readouterr().out


def test_code_from_the_server_cannot_ask_the_owners_terminal(tmp_path: Path) -> None:
    """A wrapped optimizer called input() at the client, and waited for ever."""
    case = make_case(function_package(tmp_path / "code", 'input("really? ")'))
    workers = make_workers(tmp_path / "site", {})
    try:
        update = tmp_path / "update"
        result = workers.train(case.offer, case.package, 1, case.message, update)
    finally:
        workers.close_all()
    assert result.state == "failed" and "EOFError" in result.reason


@pytest.mark.torch
def test_the_template_gives_its_loss_logits_and_no_probabilities() -> None:
    """The example applied a softmax before the cross-entropy, which applies one itself."""
    torch = pytest.importorskip("torch")
    from hansa.project import import_file

    template = Path(__file__).resolve().parents[2] / "src/hansa/cli/templates/torch"
    module = import_file(template, "model.py")
    torch.manual_seed(3)
    net, x = module.model(), torch.randn(4, 28, 28) * 3
    y = torch.tensor([3, 1, 0, 9])
    logits = net(x)
    assert not torch.allclose(logits.sum(1), torch.ones(4), atol=1e-3)
    by_hand = -(logits - logits.logsumexp(1, keepdim=True))[range(4), y].mean()
    assert module.loss(net, (x, y)).item() == pytest.approx(by_hand.item(), rel=1e-5)
