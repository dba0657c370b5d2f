"""Reading the plain data of a run."""

import msgspec
import pytest
import sample_runs as samples

from hansa.errors import RunError
from hansa.web import record as records


@pytest.mark.parametrize("name", samples.REPORTS)
def test_every_sample_survives_a_trip_through_json(name):
    if name == "hostile":
        pytest.skip("JSON cannot carry its lone surrogate")
    made = samples.REPORTS[name]()
    carried = msgspec.json.decode(msgspec.json.encode(made))
    assert records.read_record(carried) == records.read_record(made)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"state": "running"}, "run"),
        ({"run": "a", "state": "sleeping"}, "sleeping"),
        ({"run": "a", "state": "running", "rounds": [{"round": "one"}]}, "$.rounds[0].round"),
    ],
)
def test_a_record_that_lacks_a_part_is_refused_with_its_place(wrong, said):
    with pytest.raises(RunError) as refused:
        records.read_record(wrong)
    assert refused.value.code == "run-record-invalid"
    assert said in refused.value.happened


def test_keys_of_later_versions_are_ignored():
    assert records.read_record({"run": "a", "state": "running", "shape": "round"}).run == "a"


def test_the_metric_of_the_run_comes_first_and_losses_last():
    run = records.read_record(samples.run())
    assert records.metrics_of(run) == ["accuracy", "loss"]
    undecided = records.read_record(samples.run() | {"best": None})
    assert records.metrics_of(undecided) == ["accuracy", "loss"]
    by_loss = samples.run() | {"best": {"round": 1, "metric": "loss", "value": 1.0}}
    assert records.metrics_of(records.read_record(by_loss)) == ["loss", "accuracy"]


def test_clients_are_counted_without_a_partition_too():
    run = samples.run(clients=7) | {"partition": None}
    assert records.client_count(records.read_record(run)) == 7
    for row in run["rounds"]:
        row["train"] = row["validation"] = {}
    assert records.client_count(records.read_record(run)) == 7
