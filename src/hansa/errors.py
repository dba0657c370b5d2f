"""Errors are part of the interface: what happened, what we did about it, what to do next.

    HansaError
    |-- ParamsError       a file or buffer of tensors that cannot be trusted
    |-- PlanError         a plan that cannot run as it stands
    |-- DataError         data that is missing, or not what it was declared to be
    |-- LearnerError      the user's training code, or what it returned
    |-- UpdateRefused     one client's update that must not be aggregated
    |-- AggregationError  updates that cannot be combined
    |-- RunError          a run that cannot start, continue or be found

Each error carries a stable code with a page of its own under `docs/errors/`.
"""

from __future__ import annotations

CODES: dict[str, str] = {}
"""Every code with its one-line meaning; filled below, checked against the documentation."""


class HansaWarning(UserWarning):
    """Something a user should know that does not stop the work."""


class HansaError(Exception):
    """An error a person can act on.

    Args:
      code: stable name, one of `CODES`.
      happened: what happened, with the values.
      hint: what to do next.
    """

    def __init__(self, code: str, happened: str, hint: str) -> None:
        assert code in CODES, f"unregistered error code {code!r}"
        super().__init__(code, happened, hint)
        self.code = code
        self.happened = happened
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.happened} {self.hint}  [{self.code}]"

    def as_dict(self) -> dict[str, str]:
        """Return the same for programs."""
        return {
            "code": self.code,
            "message": self.happened,
            "hint": self.hint,
            "doc": f"docs/errors/{self.code}.md",
        }


class ParamsError(HansaError):
    """A file or buffer of tensors is damaged, hostile, or does not fit."""


class PlanError(HansaError):
    """The plan cannot run as it stands; nothing was started."""


class DataError(HansaError):
    """Data is missing, or is not what it was declared to be."""


class LearnerError(HansaError):
    """The training code, or what it returned, cannot be used."""


class UpdateRefused(HansaError):  # noqa: N818 - a refusal, as the design names it
    """One client's update was not counted."""


class AggregationError(HansaError):
    """Updates cannot be combined."""


class RunError(HansaError):
    """A run cannot start, continue, or be found."""


CODES |= {
    # params
    "params-bad-header": "the header of a tensor file is not valid",
    "params-truncated": "a tensor file is shorter or longer than its header says",
    "params-bad-offsets": "tensors overlap, leave holes or lie outside the file",
    "params-unknown-dtype": "a tensor has a dtype that Hansa does not carry",
    "params-duplicate-name": "two tensors have the same name",
    "params-too-large": "a header or tensor exceeds a limit",
    "params-mismatch": "two sets of tensors differ in names, shapes or dtypes",
    "params-not-an-array": "something that is not a tensor was passed as one",
    # updates
    "update-names": "an update lacks a vector or brings one that was not asked for",
    "update-shape": "a vector has the wrong length",
    "update-dtype": "a vector has the wrong dtype",
    "update-not-finite": "an update holds NaN or infinity",
    "update-out-of-bound": "a value is beyond the bound declared for the round",
    "update-weight": "the weight of an update is not a positive finite number",
    "update-duplicate": "a second update from the same client in one round",
    "aggregation-weight-limit": "the weights of a round exceed the declared limit",
    "aggregation-empty": "there is no update to aggregate",
    "aggregation-too-few": "a robust rule needs more updates than there are",
}
