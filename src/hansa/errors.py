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
    "params-bad-value": "a tensor holds bytes that are no value of its dtype",
    "params-missing": "a tensor file cannot be opened",
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
    "aggregation-bad-spec": "a round declares vectors or weights that cannot be summed",
    "aggregation-bad-setting": "a setting of an aggregator is out of range",
    "aggregation-bad-partial": "a partial aggregate does not fit the round or is damaged",
    "law-broken": "an aggregator, algorithm or transform does not keep its laws",
    # plan
    "plan-not-found": "there is no plan.toml where one was expected",
    "plan-syntax": "plan.toml is not valid TOML",
    "plan-unknown-key": "a plan has a key that does not exist",
    "plan-wrong-type": "a value in a plan has the wrong type",
    "plan-bad-value": "a value in a plan is out of range",
    "plan-unknown-name": "a plan names an algorithm, rule or data set that does not exist",
    "plan-impossible": "parts of a plan cannot work together",
    # learners
    "learner-module": "the project's module is missing or cannot be imported",
    "learner-incomplete": "the project's module lacks a function",
    "learner-gradient": "a model's gradients do not fit its tensors",
    "learner-params": "training returned other tensors than it was given",
    "learner-metrics": "training or evaluation returned something that is not a metric",
    "learner-data": "a learner cannot use the data it was given",
    "learner-no-data": "a client has no training examples",
    "learner-capability": "an algorithm asks for something the learner cannot do",
    "learner-model": "a model of the user's cannot be trained as it is",
    "learner-loss": "a loss function returned something that cannot be minimised",
    "learner-device": "the device named for training is not there",
    "learner-script": "a training script does not keep to the exchange with the run",
    "learner-missing-package": "a package that the learner needs is not installed",
    # runs
    "run-not-found": "there is no such run",
    "run-changed": "the code or data of a run has changed since it began",
    "run-ended": "a run that has ended cannot be continued",
    "run-busy": "another process is working on the run",
    "run-damaged": "a file of the run folder is missing or does not match its digest",
    "run-all-failed": "every client of a round failed",
    "run-diverged": "the global model holds NaN, infinity or numbers beyond any sense",
    "run-too-few": "fewer clients than the minimum answered",
    "run-not-finished": "the run has no model yet",
    "run-not-reproduced": "running the same plan again gave another model",
    "run-record-invalid": "the data of a report page lacks a part or has a wrong type",
    "client-failed": "a client's training or evaluation raised an error",
    "client-lost": "the process that ran a client died",
    "engine-needs-project": "an engine with several processes needs a project folder",
    "usage": "a command was typed in a way that does not work",
    # data
    "data-missing": "a dataset is not installed, or a file or folder is not there",
    "data-unknown-name": "no dataset has this name",
    "data-option": "an option of a data source or a split is out of range or does not apply",
    "data-bad-file": "a data file is damaged, or is not the format that its name says",
    "data-bad-cell": "a cell of a table is empty, not a number, or too long",
    "data-no-column": "a table has no column of this name",
    "data-too-large": "a data file declares more than a limit allows",
    "data-not-finite": "the data holds NaN or infinity",
    "data-mismatch": "parts of a dataset that belong together differ in length or shape",
    "data-labels": "labels are not the class labels that are needed here",
    "data-scheme": "a parameter of a partition scheme is out of range",
    "data-too-few": "there are fewer rows than the partition needs",
    "data-no-groups": "the rows carry no natural key to partition by",
    "data-folder-not-empty": "the folder of a split already holds something else",
    "data-unwritable": "a folder of data cannot be written",
    "project-exists": "a project would overwrite files that are there",
    "user-code": "the project's own code raised an error outside of a client's work",
    "defect": "Hansa itself failed",
    "system": "the operating system refused something: disk, permission, file handles",
}
