"""The table of the console's verbs: the one place that says what there is.

Verbs that Hansa does not do are in it too, with what to do instead: who types one learns more
from that than from "unknown".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

SCOPES: Mapping[str, str] = {
    "run": "A run by its number",
    "job": "Runs by their names at the server",
    "view": "Files and records of a run, as they are here",
    "system": "Server, sites and members",
    "console": "The console itself",
}
"""In the order in which a person meets them; verbs that are not done stand last in each."""


class Verb(NamedTuple):
    """What the console knows of a verb before it does anything."""

    scope: str  # one of SCOPES
    words: str  # what follows it, for people
    told: str  # what it does, one sentence
    least: int = 0  # words that it takes, without options
    most: int | None = 0  # None: any number
    choices: tuple[str, ...] = ()  # what the word at `at` must be
    at: int = 0
    options: Mapping[str, bool] = {}  # such as -n; True: a value follows
    names: str = ""  # what completes its words: app, run, site, file, verb
    confirm: bool = False  # asks for one's name on a terminal
    instead: str = ""  # of a verb that is not done: what to do

    @property
    def done(self) -> bool:
        """Whether the console does it."""
        return not self.instead


_EVERY = ("server", "client", "all")
_ENDS = ("server", "client")

_SERVICE = (
    "A process is started again by whoever runs it: its service manager, or "
    "`hansa server start` and `hansa site start`. A run goes on where it was."
)
_OWNER = "Ask its data owner: what runs at a site, and how it logs, is for the site alone to say."
_HOST = "Ask the operator of that machine; a member learns nothing of a host: hansa server doctor"
_STUDY = "Give each study a federation of its own; one server process and one port is each."
_ROLES = "Roles are the same everywhere, and the server's word: see the page on identity."
_BROUGHT = "`download_job ID` brings events, models and report; `ls server` and `cat` show them."

_WIRE = "Look at hansa log RUN --follow, and at the server's /metrics."

VERBS: Mapping[str, Verb] = {
    # ---- run
    "upload_app": Verb(
        "run", "NAME", "Keep a copy of a project folder here and send it to the server.", 1, 1,
        names="app",
    ),
    "set_run_number": Verb(
        "run", "NUMBER", "Make run_NUMBER in the workspace, or go back to it.", 1, 1, names="number"
    ),
    "deploy_app": Verb(
        "run", "NAME all", "Make an uploaded app that of the run number, checked whole.", 2, None,
        choices=_EVERY, at=1, names="app",
    ),
    "start_app": Verb(
        "run", "all", "Submit the run number's app: server and sites begin.", 1, None,
        choices=_EVERY,
    ),
    "check_status": Verb(
        "run", "server|client [SITE ...]",
        "Tell how it goes: which round, who is silent since when, why it waits.", 1, None,
        choices=_ENDS, names="site",
    ),
    "abort": Verb(
        "run", "all|server|client", "End the run of the run number; committed rounds stay.", 1,
        None, choices=_EVERY,
    ),
    "delete_run_number": Verb(
        "run", "NUMBER", "Remove run_NUMBER from the workspace; the server keeps its record.", 1, 1,
        names="number", confirm=True,
    ),
    "show_stats": Verb("run", "[server]", "Show the metrics of the last rounds.", 0, 1),
    "show_errors": Verb("run", "[server]", "Show what went wrong, round by round.", 0, 1),
    "abort_task": Verb(
        "run", "SITE", "Abort one site's task.", most=None,
        instead="A round waits for a site no longer than its deadline (cohort.deadline_s); "
        "`abort all` ends the whole run.",
    ),
    "reset_errors": Verb(
        "run", "[server|client]", "Forget errors.", most=None,
        instead="What happened stays on the record; `set_run_number` begins a new one.",
    ),
    "validate": Verb(
        "run", "SITE SITE|all", "Show cross-site validation.", most=None,
        instead="Evaluations of every round are in `show_stats`, and in hansa show RUN.",
    ),
    # ---- job
    "submit_job": Verb(
        "job", "[-p PRIORITY] FOLDER",
        "Upload, deploy and start a project or app under the next free number.", 1, 1,
        options={"-p": True}, names="app",
    ),
    "list_jobs": Verb(
        "job", "[-d] [-n NAME] [ID]", "List runs: state, round, and why one waits.", 0, 1,
        options={"-d": False, "-n": True}, names="run",
    ),
    "get_job_meta": Verb("job", "ID", "Show one run: plan, submitter, sites.", 1, 1, names="run"),
    "get_job_log": Verb(
        "job", "ID", "Tell what happened in a run, one line an event.", 1, 1, names="run"
    ),
    "monitor_job": Verb(
        "job", "[ID]", "Wait until a run has ended, and tell its rounds meanwhile.", 0, 1,
        names="run",
    ),
    "abort_job": Verb("job", "ID", "End a run; its committed rounds stay.", 1, 1, names="run"),
    "download_job": Verb(
        "job", "ID", "Bring a run's events and models into the workspace.", 1, 1, names="run"
    ),
    "clone_job": Verb(
        "job", "ID", "Submit the same project again under the next free number.", 1, 1, names="run"
    ),
    **dict.fromkeys(
        ("download_job_components", "download_binary", "download_text", "download_folder"),
        Verb("job", "...", "Bring parts of a job.", most=None, instead=_BROUGHT),
    ),
    "delete_job": Verb(
        "job", "ID", "Delete a job.", most=None,
        instead="A server keeps the record of every run; to remove the copy that is here: "
        "delete_run_number NUMBER",
    ),
    "app_command": Verb(
        "job", "ID TOPIC", "Send a command to an app.", most=None,
        instead="A run follows its plan, which is signed: change the plan and submit it again.",
    ),
    "configure_job_log": Verb(
        "job", "ID LEVEL", "Change a job's log level.", most=None, instead=_OWNER
    ),
    # ---- view
    "ls": Verb(
        "view", "server [FOLDER]", "List the files of the run here.", 1, 2,
        options={"-a": False, "-l": False, "-t": False, "-S": False, "-R": False}, names="file",
    ),
    "cat": Verb(
        "view", "server FILE", "Show a text file of the run.", 2, 2,
        options={"-n": False, "-b": False, "-s": False}, names="file",
    ),
    "head": Verb(
        "view", "server FILE", "Show its first lines.", 2, 2, options={"-n": True}, names="file"
    ),
    "tail": Verb(
        "view", "server FILE", "Show its last lines.", 2, 2, options={"-n": True}, names="file"
    ),
    "grep": Verb(
        "view", "server TEXT FILE", "Show the lines that hold a text.", 3, 3,
        options={"-n": False, "-i": False, "-c": False}, names="file",
    ),
    "pwd": Verb("view", "server", "Tell where the run's files are.", 1, 1),
    "env": Verb("view", "server|SITE", "Show environment variables.", most=None, instead=_HOST),
    "sys_info": Verb("view", "server|SITE", "Show CPU and memory.", most=None, instead=_HOST),
    # ---- system
    "list_clients": Verb("system", "", "List the sites, and when each was heard of.", 0, 0),
    "show_users": Verb("system", "", "List the people and their roles.", 0, 0),
    "remove_client": Verb(
        "system", "SITE", "End a site's membership; coming back takes an invitation.", 1, 1,
        names="site", confirm=True,
    ),
    "shutdown": Verb(
        "system", "client|server [SITE ...]",
        "End the agents, then the server, that run on this machine.", 1, None, choices=_EVERY,
        names="site", confirm=True,
    ),
    "report_version": Verb("system", "", "Show the releases of the console and the sites.", 0, 0),
    "restart": Verb("system", "server|client", "Restart.", most=None, instead=_SERVICE),
    "disable_client": Verb(
        "system", "SITE", "Keep a client out.", most=None,
        instead="`remove_client SITE` ends its membership; its owner can pause it with "
        "hansa site stop",
    ),
    "enable_client": Verb(
        "system", "SITE", "Let a client in again.", most=None,
        instead="Invite it: hansa server invite SITE; its owner then joins with the line.",
    ),
    "report_env": Verb("system", "[SITE]", "Show environments.", most=None, instead=_HOST),
    "report_resources": Verb(
        "system", "[SITE]", "List what sites lend to runs, such as graphics cards.", 0, 1,
        names="site",
    ),
    "configure_site_log": Verb(
        "system", "SITE LEVEL", "Change a site's log level.", most=None, instead=_OWNER
    ),
    "eval_right": Verb(
        "system", "...", "Evaluate a right.", most=None,
        instead="What a role may do is in hansa server members and the page on identity.",
    ),
    **dict.fromkeys(
        ("eval_rule", "show_config", "show_rights", "show_rules"),
        Verb("system", "...", "Show rights and rules.", most=None, instead=_ROLES),
    ),
    "show_scopes": Verb(
        "system", "...", "Show privacy scopes.", most=None,
        instead="What may run on a site's data is its owner's policy: hansa site policy show",
    ),
    "list_studies": Verb("system", "...", "List studies.", most=None, instead=_STUDY),
    "register_study": Verb("system", "...", "Register a study.", most=None, instead=_STUDY),
    **dict.fromkeys(
        ("show_study", "remove_study", "add_study_site", "remove_study_site", "add_study_user",
         "remove_study_user"),
        Verb("system", "...", "Show or change a study.", most=None, instead=_STUDY),
    ),
    "cells": Verb("system", "", "List connections.", most=None, instead=_WIRE),
    **dict.fromkeys(
        ("msg_stats", "list_pools", "show_pool"),
        Verb("system", "...", "Show message statistics.", most=None, instead=_WIRE),
    ),
    # ---- console
    "help": Verb(
        "console", "[VERB]", "List the verbs, or explain one; also `?`.", 0, 1, names="verb"
    ),
    "info": Verb("console", "", "Tell who one is, and where things are kept.", 0, 0),
    "lpwd": Verb("console", "", "Tell the console's own folder.", 0, 0),
    "bye": Verb("console", "", "Leave.", 0, 0),
    "set_timeout": Verb(
        "console", "SECONDS", "Set the time limit of commands.", most=None,
        instead="There is nothing to set: an answer comes at once, and Ctrl-C gives up waiting.",
    ),
}  # fmt: skip

ALIASES: Mapping[str, str] = {
    "?": "help", "exit": "bye", "quit": "bye", "timeout": "set_timeout",
    "list_job": "get_job_meta", "show_sites": "list_clients",
}  # fmt: skip
"""Other names of verbs."""


def in_scope(scope: str) -> Iterator[tuple[str, Verb]]:
    """Yield the verbs of a scope, those that are done first."""
    found = [(name, verb) for name, verb in VERBS.items() if verb.scope == scope]
    return iter(sorted(found, key=lambda pair: not pair[1].done))
