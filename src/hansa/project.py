"""A project: a folder with `plan.toml` and the user's code, opened and ready to run.

The same object is made in a notebook from Python values, by the command line from a folder, and
by every worker process from the same folder.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import msgspec
from blake3 import blake3

from hansa.algorithms import Capability
from hansa.client import Client
from hansa.code import (
    MADE_IN_PYTHON,
    MODULE_PREFIX,
    Code,
    Draft,
    code_digest,
    import_path,
    make_current,
    read_code,
    read_draft,
)
from hansa.errors import HansaError, LearnerError, PlanError
from hansa.learners.learner import Learner
from hansa.learners.named_tasks import NamedTask, tasks_in
from hansa.learners.optional import PACKAGES
from hansa.params.model import ModelLayout
from hansa.plan import Method, Plan, build_method, check_capabilities, check_chain, check_plan
from hansa.plan.learner import build_learner, check_made_learner, is_plain_sgd
from hansa.plan.measured import check_measured
from hansa.plan.schema import LearnerPlan
from hansa.workflows import Workflow, build_workflow


class Project(NamedTuple):
    """A plan with everything it names, built and checked against each other."""

    plan: Plan
    method: Method
    workflow: Workflow
    learner: Learner
    module: ModuleType | None  # the user's code, where data(client) may live
    folder: Path | None  # None when the project was made in Python
    sources: dict[str, str]  # where each value of the plan came from
    code: dict[str, bytes]  # the project's files, by path below the folder
    data_folder: Path | None = None  # where a relative data.set is looked for first
    tasks: Mapping[str, NamedTask] = {}


def open_project(
    folder: Path, sets: Iterable[str] = (), *, changes: Mapping[str, Any] | None = None
) -> Project:
    """Read a project folder; `sets` and `changes` are those of `hansa.plan.read_plan`.

    Raises:
      PlanError: the plan cannot run.
      LearnerError: the module cannot be imported or lacks something.
    """
    return build_draft(read_draft(folder, sets, changes=changes))


def build_draft(draft: Draft) -> Project:
    """Build a project of what was read of it; as `open_project`."""
    plan, folder, sources, code = draft
    return build_project(plan, folder, sources=sources, code=code)


def build_project(
    plan: Plan,
    folder: Path | None = None,
    *,
    sources: Mapping[str, str] | None = None,
    code: dict[str, bytes] | None = None,
) -> Project:
    """Build what a plan names; `folder` is where its module lies.

    Args:
      code: its files, where they were read already.
    """
    check_plan(plan)
    if code is None:  # before anything of it runs
        code = read_code(folder, plan.learner) if folder else {}

    def import_module(name: str) -> ModuleType:
        return import_file(folder, name, code)

    method = build_method(plan, import_module)
    workflow = build_workflow(plan, method, import_module)
    method, workflow = _with_functions(plan, method, workflow, code)
    run = plan.learner.kind in ("script", "command")  # by each client, and not imported
    module = import_module(plan.learner.module) if plan.learner.module and not run else None
    learner = build_learner(plan.learner, module, folder, code)
    _check_learner(method, learner.capabilities, plan.learner.kind)
    check_measured(plan, learner)
    told = dict(sources or {})
    tasks = tasks_in(module, learner)
    return Project(plan, method, workflow, learner, module, folder, told, code, folder, tasks)


def with_learner(plan: Plan, learner: Learner) -> Project:
    """Build a project from Python values, as in a notebook; there is no folder behind it."""
    check_plan(plan)
    check_made_learner(plan.learner, learner)
    made = msgspec.structs.replace(plan.learner, kind=MADE_IN_PYTHON)
    plan = msgspec.structs.replace(plan, learner=made)

    def no_module(name: str) -> ModuleType:
        return import_file(None, name)

    method = build_method(plan, no_module)
    workflow = build_workflow(plan, method, no_module)
    method, workflow = _with_functions(plan, method, workflow, {})
    capabilities = learner.capabilities
    if not is_plain_sgd(plan.learner.optimizer):  # the learner was made before the plan
        capabilities -= {Capability.PLAIN_SGD}
    _check_learner(method, capabilities, type(learner).__name__)
    check_measured(plan, learner)
    tasks = tasks_in(learner)
    return Project(plan, method, workflow, learner, None, None, {}, {}, tasks=tasks)


def _with_functions(
    plan: Plan, method: Method, workflow: Workflow, code: dict[str, bytes]
) -> tuple[Method, Workflow]:
    if plan.server_functions.file is None:
        return method, workflow
    from hansa.functions import Place, with_functions  # and processes, for the few who have some

    return with_functions(plan, method, workflow, Place(code))


def _check_learner(method: Method, capabilities: frozenset[Capability], kind: str) -> None:
    """Refuse what a learner cannot do with the plan's method and chain."""
    check_chain(method, capabilities, kind)
    if method.chain is not None and not method.chain.plain:
        capabilities -= {Capability.PLAIN_SGD}
    check_capabilities(method.algorithm, capabilities, kind)


def client_of(project: Project, layout: ModelLayout) -> Client:
    """Return what a client of a project needs to take part."""
    method = project.method
    return Client(
        project.plan,
        method.algorithm,
        method.transform,
        project.learner,
        layout,
        method.chain,
        project.tasks,
    )


def import_file(folder: Path | None, name: str, code: Code | None = None) -> ModuleType:
    """Import one Python file of a project, once per process and state of the project's code.

    Args:
      folder: of the project; its other files can be imported from this one.
      name: of the file, which lies in the folder itself.
      code: all files of the project; by default its Python files are read now.

    Raises:
      PlanError: the name is not that of a file in the folder.
      LearnerError: there is no such file, or importing it failed.
    """
    if Path(name).name != name or not name.endswith(".py"):
        raise PlanError(
            "plan-bad-value",
            f"The plan names the module {name!r}.",
            'A module is a .py file in the project folder, such as "model.py".',
        )
    if folder is None or not (folder / name).is_file():
        raise LearnerError(
            "learner-module",
            f"There is no file {folder / name}." if folder else f"There is no folder with {name}.",
            "Correct its name in the plan; a complete project is made by: hansa init my-study",
        )
    code = read_code(folder, LearnerPlan()) if code is None else code
    make_current(folder, code)
    path = folder.resolve() / name
    state = blake3(os.fsencode(path) + code_digest(code)).hexdigest()[:12]
    unique = f"{MODULE_PREFIX}{state}_{path.stem}"
    if unique in sys.modules:
        return sys.modules[unique]
    return _import(path, unique)


def _import(path: Path, unique: str) -> ModuleType:
    try:
        return import_path(path, unique)
    except HansaError:
        raise
    except (Exception, SystemExit) as error:
        raise _import_failed(path, error) from error


def _import_failed(path: Path, error: BaseException) -> LearnerError:
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        return LearnerError(
            "learner-missing-package",
            f"{path.name} imports {package}, which is not installed.",
            f"Install it with: pip install {PACKAGES.get(package, package)}",
        )
    frames = traceback.extract_tb(error.__traceback__)
    line = next((f.lineno for f in reversed(frames) if f.filename == str(path)), None)
    where = f"{path.name}, line {line}" if line else path.name
    return LearnerError(
        "learner-module",
        f"Importing {where} raised {type(error).__name__}{f': {error}' if str(error) else ''}.",
        "Correct the file; to see the whole traceback run it with python.",
    )


def project_data(project: Project) -> Any:
    """Return the project's `data(client)` function.

    Raises:
      LearnerError: the plan names no data set and the module has no data function.
    """
    function = getattr(project.module, "data", None)
    if function is None:
        raise LearnerError(
            "learner-incomplete",
            "The plan has no data.set, and the project's module has no function data(client).",
            'Add for example set = "digits" under [data], or define data(client).',
        )
    return function
