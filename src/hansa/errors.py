"""Errors are part of the interface: what happened, what we did about it, what to do next.

    HansaError
    |-- ParamsError       a file or buffer of tensors that cannot be trusted
    |-- PlanError         a plan that cannot run as it stands
    |-- DataError         data that is missing, or not what it was declared to be
    |-- LearnerError      the user's training code, or what it returned
    |-- UpdateRefused     one client's update that must not be aggregated
    |-- AggregationError  updates that cannot be combined
    |-- RunError          a run that cannot start, continue or be found
    |-- IdentityError     a key, certificate, invitation or proof that does not hold
    |-- PackageError      an archive of code that must not be opened
    |-- ServerError       a server that cannot start, go on or be reached
    |   `-- StoreError    a place that keeps models and is away
    |-- SiteError         a site's settings, policy or folder
    |-- ConsoleError      a line of the admin console that is not done
    |-- RequestRefused    what a server answered no to

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
        stop = "" if self.happened.endswith((".", "!", "?", ":")) else "."
        return f"{self.happened}{stop} {self.hint}  [{self.code}]"

    @property
    def sentences(self) -> str:
        """What happened, and what to do next."""
        return f"{self.happened} {self.hint}"

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


class IdentityError(HansaError):
    """A key, certificate, invitation or proof does not hold."""


class PackageError(HansaError):
    """An archive of code must not be opened."""


class ServerError(HansaError):
    """A server cannot start, go on, or be reached."""


class StoreError(ServerError):
    """A place that keeps models is away; whoever waits for it can go on later."""


class SiteError(HansaError):
    """A site's settings, policy or folder need a person."""


class ConsoleError(HansaError):
    """A line of the admin console was not done."""


class RequestRefused(HansaError):  # noqa: N818 - a refusal, as above
    """A server answered no; code, message and hint are the server's.

    Unlike others it may carry a code of a newer server, which is not in `CODES`.
    """

    def __init__(
        self, code: str, happened: str, hint: str, *, status: int, retry_after_s: float = 0.0
    ) -> None:
        super().__init__(code if code in CODES else "server-refused", happened, hint)
        self.status = status
        self.said = code
        self.retry_after_s = retry_after_s  # what the server asks for; 0: it did not say


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
    "update-partial": "a combiner's partial sum does not belong to its round, or is damaged",
    "update-duplicate": "a second update from the same client in one round",
    "update-conflict": "a client sent a second, different result in one round",
    "update-late": "a result came after its round was closed or stopped",
    "update-not-asked": "a result came from a client that the round had not asked",
    "update-missing": "a result names an update that has not been uploaded",
    "update-failed": "a result came from a client whose part of the round had failed before",
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
    "learner-constant": "training changed a tensor that does not change in this run",
    "learner-metrics": "training or evaluation returned something that is not a metric",
    "learner-data": "a learner cannot use the data it was given",
    "learner-no-data": "a client has no training examples",
    "learner-capability": "an algorithm asks for something the learner cannot do",
    "learner-model": "a model of the user's cannot be trained as it is",
    "learner-loss": "a loss function returned something that cannot be minimised",
    "learner-device": "the device named for training is not there",
    "learner-script": "a training script does not keep to the exchange with the run",
    "task-unknown": "a project has no function for a named task, or two of them",
    "task-answer": "a named task's answer cannot be sent, or not be read",
    "task-question": "a workflow asks for a named task in a way that cannot be sent",
    "learner-missing-package": "a package that the learner needs is not installed",
    "command-missing": "a program that a command names is not there, or cannot be started",
    "command-failed": "a command ended with an error status, or was killed",
    "command-time": "a command took longer than its time limit",
    "command-result": "a command wrote no result, or one that cannot be used",
    # runs
    "run-not-found": "there is no such run",
    "run-changed": "the code or data of a run has changed since it began",
    "run-ended": "a run that has ended cannot be continued",
    "round-not-open": "a result came before its round was open again at the server",
    "run-busy": "another process is working on the run",
    "run-damaged": "a file of the run folder is missing or does not match its digest",
    "run-all-failed": "a round closed with no update that counts",
    "run-diverged": "the global model holds NaN, infinity or numbers beyond any sense",
    "run-too-many": "a submitter has too many unfinished runs at one server",
    "run-too-few": "fewer clients than the minimum answered",
    "run-stopped": "a run was stopped at its server before its end",
    "run-not-finished": "the run has no model yet",
    "model-missing": "there is no such model in the trail, or it was not kept",
    "run-not-reproduced": "running the same plan again gave another model",
    "run-record-invalid": "the data of a report page lacks a part or has a wrong type",
    "function-failed": "code of the project failed at the server, or returned what cannot be used",
    "function-time": "code of the project took longer at the server than its time limit",
    "function-refused": "a server runs no code of projects, or has no sandbox for it",
    "learner-settings": "a round's settings have a value that training cannot have",
    "client-failed": "a client's training or evaluation raised an error",
    "client-lost": "the process that ran a client died",
    "client-silent": "a site had not answered when its round closed",
    "engine-needs-project": "an engine with several processes needs a project folder",
    "usage": "a command was typed in a way that does not work",
    # federation
    "dev-process": "a process of a rehearsal ended, or did not do what was asked of it",
    "server-refused": "a server refused a request for a reason that this release does not know",
    "server-unreachable": "a server cannot be reached",
    "server-settings": "there is no server in a folder, or its settings cannot be used",
    "server-exists": "there is a server, or a membership of another one, in a folder already",
    "server-busy": "another process serves from this folder",
    "server-port": "a server cannot listen on the address and port of its settings",
    "server-backup": "a backup of a server cannot be made in this folder",
    "request-route": "a request is for no route that the server has",
    "request-message": "a request is not the message that its route takes",
    "upload-too-much": "a submitter has uploaded too much that was not submitted",
    "upload-unwanted": "a site would upload an update that no task asks for",
    "server-disk": "the disk of a server, or its system, does not do what it is asked",
    "store-redis": "the Redis that keeps models of a run cannot be used",
    "server-disk-full": "there is no space left on the disk of a server",
    "server-database": "the database of a server is damaged, or of a newer release",
    "blob-missing": "there is no blob with this digest",
    "blob-digest": "bytes that were sent or stored do not match their digest or size",
    "blob-too-large": "a blob, a chunk or a message is larger than it may be",
    "blob-address": "an address of a blob is not one, or names a chunk that it cannot have",
    "identity-tls": "a server does not show a certificate of the federation",
    # identity
    "identity-key": "a key is missing or damaged, or would be overwritten",
    "identity-certificate": "a certificate is not one of a member of this federation",
    "identity-expired": "a member's certificate has expired and must be renewed",
    "identity-signature": "a signature does not fit the text and the key",
    "identity-session": "a session has ended, or the server was restarted",
    "identity-replayed": "a signed request came a second time",
    "identity-proof": "a request has no proof, or one that does not fit it",
    "identity-member": "the sender is not a member of the federation, or no longer one",
    "identity-role": "a member's role does not allow the request",
    "identity-membership": "no membership of a federation is found here",
    "invite-malformed": "a text is not an invitation",
    "invite-refused": "an invitation is unknown, used or too old",
    "invite-locked": "too many wrong invitations came from one address",
    "member-exists": "the name or the key belongs to a member already",
    "member-invalid": "a member's name or role is not possible",
    "member-missing": "no member has this name",
    "too-many-requests": "an address asks too often without proving who asks",
    # packages and sites
    "package-archive": "a package is not an archive as Hansa makes them",
    "package-name": "a file of a package has a name that is not safe on every system",
    "package-too-large": "a package holds too many files, or too much",
    "package-environment": "the Python environment of a package cannot be built",
    "package-identity": "a package is not what its digest or identity says",
    "site-missing": "there is no site in this folder",
    "site-exists": "there is a site in this folder already",
    "site-settings": "the settings of a site cannot be used",
    "site-request": "a site has no such request, or too many",
    "site-damaged": "a record of a site is not as it was written",
    "site-running": "a site's agent is running, or is not, where the other is needed",
    # the admin console
    "console-verb": "the console has no such verb, or its words are not what the verb takes",
    "console-order": "a verb of the console needs another one before it",
    "console-refused": "a verb of the console asks for what is not done, or not from there",
    "console-app": "a folder that the console shall upload is not a project that a site can run",
    "console-file": "a file view names no file of the run, or one that cannot be shown",
    "console-workspace": "the workspace of a console is damaged",
    # workers at a site
    "site-data": "a run asks for data that a site has not declared",
    "site-no-sandbox": "a site has no sandbox, and its policy does not run code without one",
    "site-task": "a server asks for more than a site's policy or the approved plan lets it",
    "site-filter": "a site's filters cannot be applied to what a run would send",
    "site-limit": "a run's code used more time or processes than a site allows",
    "site-busy": "other runs have the slots of a site that a run needs",
    "site-cancelled": "a task was cancelled before it was done",
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
    "import-refused": "a project of another system has something without a counterpart here",
    "user-code": "the project's own code raised an error outside of a client's work",
    "defect": "Hansa itself failed",
    "system": "the operating system refused something: disk, permission, file handles",
}
