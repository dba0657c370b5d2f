"""The sentences of the report page, word for word."""

import sample_runs as samples

from hansa.web import summary
from hansa.web.record import Problem, read_record


def read(make, **changes):
    return read_record(make() | changes)


def test_a_finished_run_is_told_with_its_result_effort_and_baseline():
    record = read(samples.hello, seconds=4.11)
    assert summary.headline(record) == (
        "digits-3 reached accuracy 0.953 on held-out data after 10 rounds with 5 clients in 4.1 s; "
        "the best single client reached 0.871."
    )


def test_a_best_round_before_the_last_is_named():
    record = samples.run()
    value = record["rounds"][5]["test"]["accuracy"]["mean"]
    record["best"] = {"round": 6, "metric": "accuracy", "value": value}
    assert "on held-out data in round 6 of 10 with" in summary.headline(read_record(record))


def test_without_held_out_data_the_clients_data_are_named():
    record = samples.run(rounds=2)
    for row in record["rounds"]:
        row["test"] = {}
    value = record["rounds"][1]["validation"]["accuracy"]["mean"]
    record["best"] = {"round": 2, "metric": "accuracy", "value": value}
    assert " on the clients' validation data after 2 rounds" in summary.headline(
        read_record(record)
    )


def test_held_out_data_are_named_where_all_parts_agree():
    one = {"accuracy": {"mean": 1.0}}
    record = samples.run(rounds=1)
    record["rounds"][0] |= {"train": one, "validation": one, "test": one}
    record["best"] = {"round": 1, "metric": "accuracy", "value": 1.0}
    assert "accuracy 1.000 on held-out data" in summary.headline(read_record(record))


def test_every_state_has_its_sentence_with_and_without_rounds():
    for state, word in {
        "running": "has started",
        "finished": "without a single round",
        "stopped": "was stopped before",
        "failed": "failed before",
    }.items():
        assert word in summary.headline(read(samples.empty, state=state))
    assert summary.headline(read(samples.running)).startswith("digits-4 is at accuracy 0.8")
    assert "was stopped after 7 of 20 rounds; the best" in summary.headline(read(samples.stopped))
    assert "failed after 6 of 20 rounds; the best" in summary.headline(read(samples.failed))


def test_a_run_that_was_never_evaluated_claims_nothing():
    made = samples.run() | {"best": None}
    for row in made["rounds"]:
        row |= {"validation": {}, "test": {}}
    record = read_record(made)
    assert summary.headline(record).endswith("but never evaluated.")
    assert "0." not in summary.headline(record).replace("0.6 s", "")[:40]


def test_a_run_with_metrics_of_its_own_was_evaluated():
    record = samples.run(rounds=1) | {"best": None}
    record["rounds"][0] |= {"test": {}, "validation": {"sum": {"mean": 3.0}}}
    assert summary.headline(read_record(record)).endswith(" s.")
    record["plan"] = {"workflow": {"name": "broadcast_and_process"}}
    assert " asked 5 clients in 1 round and " in summary.headline(read_record(record))


def test_a_stopped_or_failed_run_says_why_and_what_to_type():
    stopped, failed = (summary.status(read(make)) for make in (samples.stopped, samples.failed))
    assert (stopped.word, stopped.tone) == ("Stopped", "warn")
    assert "Ctrl-C" in stopped.cause
    assert stopped.steps[0].command == "hansa run" and "round 8" in stopped.steps[0].effect
    assert (failed.word, failed.tone) == ("Failed", "bad")
    assert [step.command for step in failed.steps] == ["hansa show cnn-north-2", "hansa run"]
    assert summary.status(read(samples.empty, state="failed")).cause == "The run did not say why."


def test_commands_quote_hostile_names():
    assert summary.quoted("x; rm -rf ~") == "'x; rm -rf ~'"
    assert summary.quoted("digits-3") == "digits-3"


def test_gain_knows_which_direction_is_better():
    def gain(metric, value, baseline):
        record = samples.run(rounds=1)
        record["best"] = {"round": 1, "metric": metric, "value": value}
        record["baseline"] = {"name": "best single client", "metric": metric, "value": baseline}
        found = summary.figures(read_record(record))
        return next((f.value, f.note.split(" the ")[0]) for f in found if f.label == "Gain")

    assert gain("accuracy", 0.95, 0.87) == ("+0.080", "better than")
    assert gain("accuracy", 0.80, 0.87) == ("\u22120.070", "worse than")
    assert gain("loss", 0.80, 0.87) == ("\u22120.070", "better than")


def test_the_plan_decides_the_direction_of_its_metric():
    plan = {"stop": {"metric": "wer", "lower_is_better": True}}
    record = read(samples.run, plan=plan)
    assert summary.lower_is_better(record, "wer")
    assert not summary.lower_is_better(record, "accuracy")


def test_key_figures_add_up_over_the_rounds():
    figures = {f.label: f for f in summary.figures(read(samples.failed))}
    assert figures["Rounds"].value == "6 of 20"
    assert figures["Clients"].note == "39 of 48 updates counted"
    assert figures["Sent"].value == "2.8 MB"  # 6 * 8 * 38,472 * 1.5 bytes


def test_equal_problems_share_a_line_and_the_most_frequent_comes_first():
    problems = [Problem(at, f"c{at % 2}", "failed", "client-lost", "gone") for at in (1, 2, 3, 7)]
    problems.insert(0, Problem(2, "c9", "refused", "update-shape", "odd", "a.txt"))
    first, second = summary.problem_groups(problems)
    assert (first.times, first.rounds, first.clients) == (4, "1-3, 7", "c1 and c0")
    assert (second.kind, second.code, second.file) == ("refused", "update-shape", "a.txt")


def test_settings_that_someone_chose_are_apart_from_the_defaults():
    chosen, default = summary.settings(read(samples.hello))
    assert ("learner.optimizer.lr", "0.1", "--set") in chosen
    assert {row.source for row in default} == {"default"}
    assert len(chosen) == 10
