"""What the report page warns of, and what it leaves alone."""

import sample_runs as samples

from hansa.web.diagnosis import notices
from hansa.web.record import read_record


def read(make, **changes):
    return read_record(make() | changes)


def training_loss(*values, **changes):
    rows = [
        {"round": at, "train": {"loss": {"mean": value}}}
        for at, value in enumerate(values, start=1)
    ]
    return read_record({"run": "r", "state": "running", "rounds": rows, **changes})


def test_lost_numbers_are_noticed_with_a_smaller_learning_rate():
    notice = notices(read(samples.failed))[0]
    assert notice.what == "Loss on the clients' training data is not a number since round 4."
    assert notice.command == "hansa run --set learner.optimizer.lr=0.01"


def test_numbers_that_came_back_are_told_in_the_past():
    (notice,) = notices(training_loss(1.0, None, None, 0.5))
    assert notice.what.endswith("was not a number in rounds 2-3.")
    (notice,) = notices(training_loss(1.0, None, 0.5, None))
    assert notice.what.endswith("was not a number in rounds 2, 4.")


def test_divergence_is_noticed_and_ordinary_wobble_is_not():
    (notice,) = notices(training_loss(1.0, 0.4, 3.5))
    assert "rose from 0.400 in round 2 to 3.50" in notice.what
    assert notices(training_loss(1.0, 0.4, 0.7)) == []
    assert notices(training_loss(1.0, 0.9, 0.8)) == []


def test_guessing_is_not_called_learning():
    def noticed(value):
        best = {"round": 3, "metric": "accuracy", "value": value}
        return [n.what for n in notices(read(samples.run, best=best))]

    assert noticed(0.103)[0].startswith("Accuracy 0.103 is what guessing among 10 classes reaches")
    assert noticed(0.2) == []


def test_clients_that_fail_in_most_rounds_are_named():
    found = notices(read(samples.failed))
    assert found[-1].what.startswith("client-2, client-5 and client-7 did not count")
    assert notices(read(samples.large)) == []
