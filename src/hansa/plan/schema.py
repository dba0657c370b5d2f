"""The plan: what a run is, as types.  A plan file holds nothing that is not in here.

Every field's docstring is what `hansa config explain` and the reference page print.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from hansa.data import Scheme
from hansa.limits import FUNCTION_S

Named = str | dict[str, Any]
"""A name from a table, alone or with its options: "fed_prox" or { name = "fed_prox", mu = 0.1 }."""


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the plan."""


class Optimizer(_Part, frozen=True):
    """Local optimizer of the learner; an option left out has the optimizer's own default."""

    name: Literal["sgd", "adam", "adamw", "rmsprop", "adagrad"] = "sgd"
    """a usual optimizer, of a numpy or torch learner; others hand it to the user's code"""
    chain: tuple[Named, ...] = ()
    """modules in order, instead of a name: ["momentum", { name = "clip_global", norm = 1.0 }]"""
    regularizers: tuple[Named, ...] = ()
    """penalties whose gradients are added first: [{ name = "ridge", strength = 0.001 }]"""
    lr: float = 0.1
    """local learning rate before its schedule"""
    momentum: float | None = None
    """of sgd and rmsprop"""
    nesterov: bool | None = None
    """of sgd with momentum"""
    weight_decay: float | None = None
    """added to the gradient; decoupled in adamw"""
    beta1: float | None = None
    """decay of the first moment, of adam and adamw"""
    beta2: float | None = None
    """decay of the second moment, of adam and adamw"""
    eps: float | None = None
    """added to the denominator, of adam, adamw, rmsprop and adagrad"""


class Schedule(_Part, frozen=True):
    """How the local learning rate changes from round to round."""

    name: Literal["constant", "step", "exponential", "cosine"] = "constant"
    """constant; step: times gamma every `every` rounds; exponential: times gamma every round;
    cosine: to 0 over all rounds"""
    every: int = 10
    """rounds between two steps"""
    gamma: float = 0.5
    """factor of a step, above 0 and at most 1"""


class Change(_Part, frozen=True):
    """Hyper-parameters that change at a round and stay so."""

    round: int
    """first round (from 1) for which this holds"""
    epochs: int | None = None
    """passes over the local data"""
    steps: int | None = None
    """local steps, instead of epochs"""
    batch_size: int | Literal["all"] | None = None
    """examples in a local batch"""
    lr: float | None = None
    """local learning rate; the schedule goes on from it"""


COMMANDS = ("train", "validate", "init", "predict")
"""What the commands of a command learner do; keys of its table."""


class LearnerPlan(_Part, frozen=True):
    """What is trained, and how, at each client."""

    kind: Literal["numpy", "torch", "sklearn", "function", "script", "command", "python"] = "numpy"
    """which adapter runs the user's code; "python" marks a learner made in a notebook"""
    module: str | None = None
    """Python file of the project with the model or the training code"""
    model: Literal["softmax", "mlp"] = "softmax"
    """built-in NumPy model, when there is no module"""
    hidden: tuple[int, ...] = (64,)
    """widths of the built-in mlp's hidden layers"""
    optimizer: Optimizer = Optimizer()
    """local optimizer: { name = "sgd", lr = 0.1, momentum = 0.9 }"""
    epochs: int = 1
    """passes over the local data in a round"""
    steps: int | None = None
    """local steps in a round, instead of epochs"""
    batch_size: int | Literal["all"] = 32
    """examples in a local batch, or "all" """
    schedule: Schedule = Schedule()
    """how the learning rate changes from round to round"""
    change: tuple[Change, ...] = ()
    """[[learner.change]] tables: other hyper-parameters from some round on"""
    train: tuple[str, ...] = ()
    """of a command learner: program and arguments that train; such as
    ["python", "train.py", "{model_in}", "{update_out}"]"""
    validate: tuple[str, ...] = ()
    """of a command learner: program and arguments that measure a model; may be left out"""
    init: tuple[str, ...] = ()
    """of a command learner: program and arguments that make the seed model"""
    predict: tuple[str, ...] = ()
    """of a command learner: program and arguments of `hansa package run predict`"""
    tasks: dict[str, tuple[str, ...]] = {}
    """of a command learner: programs and arguments that answer named tasks, by the task's name:
    { forward = ["python", "forward.py", "{model_in}", "{update_out}"] }"""
    files: tuple[str, ...] = ()
    """of a command learner: files and folders that its commands need, beside the Python files of
    the project and the files that an argument names"""
    rows: Literal["npz", "csv", "safetensors", "path"] = "npz"
    """of a command learner: how it gets its client's rows: written as a file of this form; path:
    the client's own file or folder as it lies there, which Hansa does not read"""
    time_s: float = 3600.0
    """of a command learner: seconds that one command may take"""
    requirements: str | None = None
    """of a command learner: file of the project that lists Python packages; the commands then run
    in an environment of their own, built once for each content of the file"""

    @property
    def commands(self) -> dict[str, tuple[str, ...]]:
        """The commands of a command learner, by what they do."""
        given = {task: getattr(self, task) for task in COMMANDS}
        return {task: words for task, words in (given | self.tasks).items() if words}


class DataPlan(_Part, frozen=True):
    """Where examples come from, and who gets which."""

    set: str | None = None
    """digits, breast_cancer, mnist5k, mnist, or a .csv, .npz or folder, looked for in the project
    folder and then in the current one; nothing: the project's data(client) is asked"""
    target: str | None = None
    """column of a CSV file that is to be predicted"""
    group: str | None = None
    """column of a CSV file that says whose row it is, for split.scheme = "natural" """
    split: Scheme | None = None
    """how the examples are divided among simulated clients"""
    test: float = 0.2
    """share held out at the server, unless the set has an official test part"""
    validation: float = 0.1
    """share of each client's examples kept for evaluation at the client"""
    attributes: dict[str, dict[str, str]] = {}
    """what simulated clients say of themselves, by name: [data.attributes] with
    client-0 = { region = "eu" }"""
    clients: int | tuple[str, ...] = 10
    """simulated clients, or their names, when the project's data(client) is asked: names that sites
    have as well let cohort.where and cohort.mandatory mean the same in a simulation"""
    shape: tuple[int, ...] | None = None
    """shape of one example, such as [28, 28]; who has others takes no part, and says only that"""
    classes: int | tuple[str, ...] | None = None
    """number of classes, or their names in order, by which labels that are text are numbered; who
    has others takes no part, and says only that"""


class CohortPlan(_Part, frozen=True):
    """Which clients take part in a round."""

    where: dict[str, str | tuple[str, ...]] = {}
    """attributes that a client must have to be asked: { region = "eu", gpu = ["a", "b"] }; a site's
    owner declares them in site.toml, data.attributes those of a simulation; name is its own"""
    fraction: float = 1.0
    """share of all clients asked in a round; at least one"""
    count: int | None = None
    """number of clients asked in a round, instead of the share"""
    minimum: int = 1
    """updates without which a round fails; a federation asks no fewer clients"""
    deadline_s: float | None = None
    """seconds after which a federation closes a round with the updates it has; by default the
    server's own deadline; a simulation has none"""
    grace_s: float | None = None
    """seconds that a federation still waits for others once the minimum has answered; by default
    until the deadline"""
    over: float = 1.0
    """times the clients wanted that a federation asks, closing the round once as many as wanted
    have answered; a simulation asks the wanted ones alone"""
    late: Literal["refuse", "discount"] = "refuse"
    """what a federation does with an update whose round is closed; discount: it counts in the next
    one with a lower weight"""
    late_discount: float = 0.5
    """factor on the weight of a late update for each round that it is late"""
    late_rounds: int = 1
    """rounds that an update may be late and still count, with late = "discount" """
    mandatory: tuple[str, ...] = ()
    """names of clients that every round asks, and without whose updates it fails; a federation
    waits for them before it opens one"""


class EvaluatePlan(_Part, frozen=True):
    """When and where the global model is evaluated."""

    every: int = 1
    """rounds between evaluations; the last round is always evaluated"""
    clients: int = 100
    """at most so many clients evaluate, drawn anew each time"""
    reports: bool = False
    """clients answer the task `validate`, as command learners do, with numbers and any other JSON
    that their code says of the model; it is kept with the round"""
    metrics: tuple[str, ...] = ()
    """metrics beside the learner's own, each as it would be on all clients' examples together; see
    the page on metrics: accuracy, f1, precision, recall (each also with _weighted and _per_class),
    confusion, log_loss, roc_auc, roc_auc_per_class; or mse, mae, r2"""
    roc_bins: int = 64
    """equal bins from 0 to 1 that scores are counted in for roc_auc, for each class"""


class StopPlan(_Part, frozen=True):
    """When a run ends before its rounds do; any of these is enough."""

    metric: str = "accuracy"
    """metric that target and patience look at, on the test part or else on the clients"""
    over: Literal["examples", "clients"] = "examples"
    """what the metric is a mean over: all examples of an evaluation, or clients, each counting
    once with its latest value if its examples have one, for which the test part is not looked at"""
    target: float | None = None
    """stop once the metric has reached this value"""
    patience: int | None = None
    """stop after so many evaluations without a better value"""
    minutes: float | None = None
    """stop after so many minutes of work, interruptions not counted"""
    lower_is_better: bool | None = None
    """direction of the metric; by default true for names with loss, error, mse and the like"""


class KeepPlan(_Part, frozen=True):
    """Which models stay; the best and the last always do, on disk, for a run may need them."""

    every: int = 10
    """rounds between models that are kept for good; 0 keeps none"""
    lineage: int = 1
    """the newest global models, so many of which stay as well; 0 keeps those of all rounds"""
    clients: int | None = None
    """the newest models of each client, so many of which stay; 0 keeps all; by default none"""
    store: Literal["disk", "memory", "redis"] = "disk"
    """where lineage and clients' models are: beside the others; in the simulation's memory; or in
    the Redis that HANSA_REDIS or the server's settings name"""
    as_numpy: str | None = None
    """file of the run folder that always holds the newest model for NumPy, such as
    "models/server.npy" for a model of one tensor, or a .npz for any"""


class ServerFunctionsPlan(_Part, frozen=True):
    """The project's own choice of cohort, settings and aggregation."""

    file: str | None = None
    """Python file of the project with any of select, settings and aggregate; the plan may also say
    server_functions = "server.py" alone"""
    failing: Literal["end", "default"] = "end"
    """what happens when a function fails: the run ends; default: the round goes on in the plan's
    own way, and its row says so"""
    time_s: float = FUNCTION_S
    """seconds that one call may take"""


class Plan(_Part, frozen=True):
    """The declarative description of a run."""

    name: str = "run"
    """names the run folder: letters, digits, - and _"""
    rounds: int = 10
    """rounds at most"""
    seed: int = 0
    """the one number behind every random draw"""
    workflow: Named = "synchronous"
    """the order of exchanges: synchronous, semi_synchronous, asynchronous, cyclic,
    cross_site_evaluation, evaluate_only, or "my_module.py:function" of the project"""
    initial: str = "server"
    """where the first model comes from: server, the learner's seed model; mean, the mean of
    the clients' own weights; first, those of the first client by name; or a client's name"""
    algorithm: Named = "fed_avg"
    """fed_avg, fed_sgd, fed_opt, fed_avg_m, fed_adagrad, fed_adam, fed_yogi, fed_prox, scaffold, or
    "my_module.py:function" of the project"""
    aggregator: Named = "mean"
    """mean, norm_bounded_mean, median, trimmed_mean, krum, multi_krum, geometric_median"""
    weighting: Literal["examples", "steps", "uniform", "user"] | None = None
    """what an update weighs: its examples, its local steps, one, or what the user's code says; by
    default examples; uniform for scaffold, whose paper weighs clients equally; user with
    learner.rows = "path" """
    weight_limit: float | None = None
    """sum of weights of one round that is never exceeded; known when the data is split by Hansa,
    and for uniform"""
    bound: float | None = None
    """largest absolute value in an update; by default 64, 16 times the largest parameter, or what
    leaves 36 bits below the point of the exact sum, whichever is most"""
    transforms: tuple[Named, ...] = ()
    """what is done to an update before it leaves: [{ name = "clip", norm = 1.0 }, "cast"]"""
    server_functions: ServerFunctionsPlan = ServerFunctionsPlan()
    learner: LearnerPlan = LearnerPlan()
    data: DataPlan = DataPlan()
    cohort: CohortPlan = CohortPlan()
    evaluate: EvaluatePlan = EvaluatePlan()
    stop: StopPlan = StopPlan()
    keep: KeepPlan = KeepPlan()
    resources: dict[str, int] = {}
    """what a run takes of each site while it is at work, such as { gpu = 1 }; sites say in
    site.toml what they have; a simulation takes nothing"""
