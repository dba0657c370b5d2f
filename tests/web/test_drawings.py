"""From a run to its charts."""

import xml.etree.ElementTree as ET

import sample_runs as samples

from hansa.web import drawings
from hansa.web.record import Partition, read_record


def test_curves_and_partitions_can_stand_alone():
    record = read_record(samples.hello())
    alone = [*drawings.curves(record, standalone=True)]
    alone.append(drawings.partition(record.partition, standalone=True))
    alone.append(drawings.partition(Partition("quantity", ["a"], [], [[3]]), standalone=True))
    assert [d.svg.startswith('<svg xmlns="http') for d in alone] == [True] * 4
    for drawing in alone:
        ET.fromstring(drawing.svg)


def test_an_exploding_loss_is_drawn_on_a_logarithmic_axis():
    def ticks(*values):
        rows = [{"round": at, "train": {"loss": {"mean": v}}} for at, v in enumerate(values, 1)]
        record = read_record({"run": "r", "state": "running", "rounds": rows})
        return [t.text for t in ET.fromstring(drawings.curves(record)[0].svg).iter("text")]

    assert {"0.1", "10", "1,000"} <= set(ticks(0.5, 0.4, 900.0))
    assert "1,000" not in ticks(0.5, 0.4, 90.0)


def test_the_worst_off_client_is_the_one_with_the_lowest_accuracy_or_highest_loss():
    record = samples.run(clients=3, rounds=1)
    values = {"a": 0.9, "b": 0.2, "c": 0.5}
    for metric, worst in (("accuracy", "b"), ("loss", "a")):
        record["rounds"][0]["validation"] = {metric: samples.summary(values, 3)}
        record["best"] = {"round": 1, "metric": metric, "value": 0.5}
        caption = drawings.fairness(read_record(record))[0].caption
        assert f"{worst} is worst off with {values[worst]:.3f}" in caption


def test_nobody_is_worst_off_where_all_are_the_same():
    record = samples.run(clients=3, rounds=1)
    same = samples.summary(dict.fromkeys("abc", 0.5), 3)
    record["rounds"][0]["validation"] = {"accuracy": same}
    record["best"] = {"round": 1, "metric": "accuracy", "value": 0.5}
    caption = drawings.fairness(read_record(record))[0].caption
    assert caption == "In the last evaluation, each of them has 0.500."


def test_an_empty_partition_is_no_drawing():
    assert drawings.partition(None) is None
    assert drawings.partition(Partition("iid", [], [], [])) is None
