import itertools

import pytest

from hansa.clock import monotonic
from hansa.errors import IdentityError, RequestRefused, ServerError
from hansa.protocol.patience import is_passing, with_patience


def refusal(status: int, retry_after_s: float = 0.0) -> RequestRefused:
    return RequestRefused(
        "blob-missing", "No.", "Wait.", status=status, retry_after_s=retry_after_s
    )


AWAY = ServerError("server-unreachable", "It is away.", "Wait.")


class Failing:
    """Fails with each of these, then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.pauses: list[float] = []

    def __call__(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    def try_(self, **settings) -> str:
        settings = {"until": None, "pause": self.pauses.append, **settings}
        return with_patience(self, **settings)


def test_what_passes_is_tried_again_after_growing_pauses_drawn_at_random():
    failing = Failing(*[AWAY] * 2000)
    assert failing.try_(first_s=0.25, most_s=8.0) == "done"
    waited = [0.0, *itertools.accumulate(failing.pauses)]
    bounds = [min(8.0, max(0.25, before / 2)) for before in waited]
    assert all(0 <= p <= b for p, b in zip(failing.pauses, bounds, strict=False))
    assert bounds[1] < bounds[100] == 8.0
    assert 3.7 < sum(failing.pauses[100:]) / 1900 < 4.3  # uniform: half of the bound on average
    assert len(set(failing.pauses)) > 1990


def test_the_pause_is_no_shorter_than_the_server_asks_for():
    failing = Failing(refusal(503, 5.0), refusal(429, 3.0), refusal(507))
    assert failing.try_(first_s=1.0, most_s=1.0) == "done"
    assert 5 <= failing.pauses[0] <= 6 and 3 <= failing.pauses[1] <= 4 and failing.pauses[2] <= 1


@pytest.mark.parametrize(
    "error",
    [refusal(401), refusal(403), refusal(404), refusal(409), refusal(413), refusal(422),
     ServerError("server-database", "a", "b"), IdentityError("identity-tls", "a", "b")],
)  # fmt: skip
def test_what_does_not_pass_is_raised_at_once(error):
    failing = Failing(error)
    with pytest.raises(type(error)):
        failing.try_()
    assert failing.pauses == [] and not is_passing(error)


def test_it_ends_when_time_is_up_or_nobody_waits_any_longer():
    failing = Failing(*[AWAY] * 50)
    with pytest.raises(ServerError):
        failing.try_(until=monotonic() - 1.0)
    with pytest.raises(RequestRefused):
        Failing(refusal(503, 100.0)).try_(until=monotonic() + 50.0)
    with pytest.raises(ServerError):
        failing.try_(given_up=lambda: len(failing.pauses) == 3)
    assert len(failing.pauses) == 3
