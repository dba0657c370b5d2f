"""Comparing runs: groups, differences, ranks, and the refusal to rank."""

import sample_runs as samples

from hansa.web.comparison import compare, differences, group
from hansa.web.record import read_record


def made(name, *, seed=1, values=(0.5, 0.75), metric="accuracy", part="test", **changes):
    """Return a run with one metric and a small plan."""
    rows = [{"round": at, part: {metric: {"mean": v}}} for at, v in enumerate(values, start=1)]
    record = {"run": name, "state": "finished", "seconds": 2.0, "rounds": rows}
    record["plan"] = {"seed": seed, "data": {"set": "digits"}, "lr": 0.1}
    record["plan"] |= changes.pop("plan", {})
    return read_record(record | changes)


def test_runs_that_differ_only_in_their_seed_are_one_setting():
    setups = group([made("a", seed=1), made("b", plan={"lr": 1}), made("c", seed=3)])
    assert [[run.run for run in setup.runs] for setup in setups] == [["a", "c"], ["b"]]
    assert [setup.label for setup in setups] == ["lr = 0.1", "lr = 1"]


def test_only_differences_are_listed():
    rows = differences(group([made("a", plan={"mu": 1, "x": {"y": 2}}), made("b", plan={"mu": 3})]))
    assert rows == [("mu", ["1", "3"]), ("x.y", ["2", "not set"])]


def test_long_differences_are_named_by_run_instead():
    plans = ({"path": "a" * 50}, {"path": "b" * 50})
    setups = group([made(f"run-{i}", plan=plan) for i, plan in enumerate(plans)])
    assert [setup.label for setup in setups] == ["run-0", "run-1"]


def test_the_higher_accuracy_is_ahead_and_the_lower_loss():
    up = compare([made("a", values=(0.2, 0.5)), made("b", plan={"lr": 1}, values=(0.2, 0.75))])
    assert up.headline == (
        "lr = 1 is ahead: accuracy 0.750 on held-out data, against 0.500 with lr = 0.1."
    )
    down = compare(
        [
            made("a", metric="loss", values=(0.9, 0.5)),
            made("b", metric="loss", values=(0.3, 0.75), plan={"lr": 1}),
        ]
    )
    assert down.headline.startswith("lr = 1 is ahead: loss 0.300")
    assert (down.results[0].best, down.results[0].last) == ("0.300", "0.750")


def test_seeds_are_a_range_around_their_mean():
    found = compare([made("a", seed=1, values=(0.5,)), made("b", seed=2, values=(0.75,))])
    assert found.headline == (
        "2 runs of the same plan reached accuracy 0.625 (0.500 to 0.750) on held-out data."
    )
    assert found.differences == [] and found.curves is not None
    assert found.sameness == "Nothing but the seed."
    assert "seeds" in compare([made("a"), made("b")]).sameness


def test_overlapping_seeds_and_single_seeds_are_called_chance():
    def remarks(*ends):
        runs = [
            made(f"r{i}", seed=i, plan={"lr": lr}, values=(v,)) for i, (lr, v) in enumerate(ends)
        ]
        return " ".join(compare(runs).remarks)

    assert "overlap" in remarks((1, 0.5), (1, 0.7), (2, 0.6), (2, 0.8))
    assert "overlap" not in remarks((1, 0.5), (1, 0.6), (2, 0.7), (2, 0.8))
    assert "single seed" in remarks((1, 0.5), (1, 0.6), (2, 0.7))


def test_different_data_are_not_ranked():
    found = compare([made("a"), made("b", plan={"data": {"set": "mnist5k"}})])
    assert found.headline == "These runs cannot be ranked against each other."
    assert found.obstacles[0].startswith(
        "They were trained on different data: digits (a); mnist5k (b)"
    )
    assert found.curves is None
    assert [result.best for result in found.results] == ["0.750", "0.750"]


def test_different_metrics_are_not_ranked():
    found = compare([made("a"), made("b", metric="mse", plan={"lr": 2})])
    assert found.obstacles == ["They have no metric in common: accuracy (a); mse (b)."]
    assert found.curves is None


def test_different_parts_are_not_ranked():
    found = compare([made("a"), made("b", part="validation")])
    assert found.obstacles == ["They were not all evaluated on the same kind of data."]


def test_the_most_independent_data_that_all_have_is_the_measure():
    one, other = samples.run(), samples.run("digits-4")
    for row in other["rounds"]:
        row["test"] = {}
    found = compare([read_record(one), read_record(other)])
    assert found.measured == "accuracy on the clients' validation data"
    assert found.curves is not None
    assert found.curves.caption.startswith("On the clients' validation data. ")
    assert "\u2026" not in found.curves.svg


def test_rounds_that_not_all_seeds_reached_are_left_out_of_the_curve():
    found = compare(
        [made("a", seed=1, values=(0.1, 0.2, 0.3)), made("b", seed=2, values=(0.3, 0.4))]
    )
    assert "round 2\n" in found.curves.svg and "round 3\n" not in found.curves.svg


def test_runs_that_are_open_or_broken_are_pointed_out():
    found = compare([made("a", state="running"), made("b", seed=2, state="failed")])
    assert found.remarks == [
        "a is still running; the values may change.",
        "b ended early, and may have been better at the end.",
    ]


def test_one_run_or_none_is_nothing_to_compare():
    assert compare([]).headline == "There is nothing to compare yet."
    alone = compare([made("a")])
    assert alone.headline == "There is nothing to compare yet: only a is here."
    assert alone.obstacles == []


def test_runs_without_a_value_are_no_winners():
    found = compare([made("a", values=(None,)), made("b", values=(0.5,), plan={"lr": 1})])
    assert found.headline == "Only lr = 1 has a value yet: accuracy 0.500 on held-out data."
    lost = compare([made("a", values=(None,)), made("b", values=(None,), plan={"lr": 1})])
    assert lost.headline == "None of these runs has a value of accuracy on held-out data yet."


def test_seeds_that_split_the_data_otherwise_are_still_one_setting():
    runs = [made(f"r{seed}", seed=seed, plan={"data_digest": f"d{seed}"}) for seed in (7, 8, 9)]
    found = compare(runs)
    assert [(r.runs, r.seeds) for r in found.results] == [("r7, r8 and r9", "7, 8 and 9")]
    assert found.sameness == "Nothing but the seed."


def test_one_seed_on_other_data_is_another_setting():
    found = compare([made(f"r{i}", seed=7, plan={"data_digest": f"d{i}"}) for i in (1, 2)])
    assert found.differences == [("data_digest", ["d1", "d2"])]
    assert [r.seeds for r in found.results] == ["7", "7"]


def test_a_last_value_is_told_without_a_common_metric_too():
    """One run that measures something else took the column from all of them."""
    found = compare([made("a"), made("b", metric="mse", values=(0.3, 0.1), plan={"lr": 2})])
    assert [r.last for r in found.results] == ["accuracy 0.750", "mse 0.100"]


def test_a_run_that_diverged_ends_in_no_number():
    found = compare([made("a", values=(0.5, None)), made("b", plan={"lr": 2})])
    assert {r.runs: r.last for r in found.results} == {"a": "not a number", "b": "0.750"}
