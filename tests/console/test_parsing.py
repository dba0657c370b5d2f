"""A line becomes a command by the table of verbs, or a sentence that says what to type."""

from __future__ import annotations

import pytest

from hansa.console.answers import help_lines, help_on
from hansa.console.parsing import Command, completions, parse, usage
from hansa.console.session import DEEDS, deed
from hansa.console.verbs import ALIASES, SCOPES, VERBS
from hansa.errors import ConsoleError, HansaError
from hansa.limits import CONSOLE_LINE_CHARS_MAX

SEED = [
    "> upload_app hello-numpy-sag",
    "> set_run_number 1",
    "> deploy_app hello-numpy-sag all",
    "> start_app all",
    "> check_status server",
    "> shutdown client",
    "> shutdown server",
    "> bye",
]
"""The seed's session, word for word."""

CONTRACT = """
help upload_app set_run_number delete_run_number deploy_app start_app check_status abort abort_task
remove_client set_timeout restart shutdown bye cat head tail grep ls pwd env sys_info show_stats
show_errors reset_errors eval_right show_sites show_users validate info lpwd submit_job download_job
list_jobs list_job get_job_meta get_job_log abort_job clone_job delete_job configure_job_log
app_command register_study list_studies report_env report_version report_resources
configure_site_log disable_client enable_client cells msg_stats
download_binary download_folder download_text download_job_components eval_rule show_config
show_rights show_rules show_scopes show_study remove_study add_study_site remove_study_site
add_study_user remove_study_user list_pools show_pool
"""
"""Verbs that the contract lists, of the first console and today's."""


@pytest.mark.parametrize("line", SEED)
def test_every_line_of_the_seed_is_a_command(line: str) -> None:
    command = parse(line)
    assert command is not None
    assert " ".join((command.verb, *command.words)) == line.removeprefix("> ")


@pytest.mark.parametrize("name", CONTRACT.split())
def test_every_verb_of_the_contract_is_known(name: str) -> None:
    assert ALIASES.get(name, name) in VERBS


def test_every_verb_that_is_done_has_a_deed_and_no_other_has() -> None:
    assert set(DEEDS) == {name for name, verb in VERBS.items() if verb.done}
    assert all(callable(deed(name)) for name in DEEDS)
    assert {verb.scope for verb in VERBS.values()} == set(SCOPES)
    assert set(ALIASES.values()) <= set(VERBS)


@pytest.mark.parametrize("name", [name for name, verb in VERBS.items() if not verb.done])
def test_a_verb_that_is_not_done_says_what_to_do_instead(name: str) -> None:
    with pytest.raises(ConsoleError) as told:
        parse(f"{name} x y")
    assert told.value.code == "console-refused" and name in told.value.happened
    assert told.value.hint == VERBS[name].instead


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("", None),
        ("   # only a comment", None),
        (">", None),
        ("?", Command("help")),
        ("? bye", Command("help", ("bye",))),
        ("?bye", Command("help", ("bye",))),
        ("exit", Command("bye")),
        ("upload_app 'my study'  # quoted", Command("upload_app", ("my study",))),
        ("list_jobs -d -n heart ab", Command("list_jobs", ("ab",), {"-d": "", "-n": "heart"})),
        ("tail -n 3 server x", Command("tail", ("server", "x"), {"-n": "3"})),
        ("show_sites", Command("list_clients")),
    ],
)
def test_lines_and_their_commands(line: str, command: Command | None) -> None:
    assert parse(line) == command


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("chek_status server", "Did you mean check_status?"),
        ("frobnicate", "Type ? to list the verbs"),
        ("upload_app", "upload_app lacks an argument"),
        ("upload_app a b", "does not take 'b'"),
        ("start_app everything", "not for 'everything'"),
        ("deploy_app a everywhere", "is for server, client, all"),
        ("set_run_number 1 -x", "no option -x"),
        ("tail server f -n", "-n lacks its value"),
        ("cat server f > out.txt", "hansa console -c"),
        ("cat 'server", "Close the quotes"),
        ("bye " + "x" * CONSOLE_LINE_CHARS_MAX, "characters"),
        ("\x1b[2J", "\\u001b[2J"),
    ],
)
def test_what_is_wrongly_typed_is_told_and_nothing_is_done(line: str, said: str) -> None:
    with pytest.raises(ConsoleError) as told:
        parse(line)
    assert told.value.code == "console-verb"
    text = str(told.value)
    assert said in text and "Nothing was done." in text and "\x1b" not in text


def test_help_tells_every_verb_once_and_each_by_itself() -> None:
    text = "\n".join(help_lines())
    for name, verb in VERBS.items():
        assert name in text
        told = help_on(name)
        assert told.startswith(usage(name))
        assert (verb.told if verb.done else verb.instead) in told


NAMES = {"app": ["hello", "heart"], "site": ["site-1", "site-2"], "run": ["far-7"],
         "file": ["app/plan.toml"], "number": ["1", "2"]}  # fmt: skip


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("up", ["upload_app"]),
        ("> abo", ["abort", "abort_job", "abort_task"]),
        ("deploy_app he", ["heart", "hello"]),
        ("deploy_app hello a", ["all"]),
        ("check_status ", ["client", "server"]),
        ("check_status client site-", ["site-1", "site-2"]),
        ("get_job_log f", ["far-7"]),
        ("cat s", ["server"]),
        ("cat -n server a", ["app/plan.toml"]),
        ("list_jobs -", ["-d", "-n"]),
        ("set_run_number ", ["1", "2"]),
        ("? bye", ["bye"]),
        ("frobnicate x", []),
    ],
)
def test_completion_of_verbs_and_names(line: str, found: list[str]) -> None:
    assert completions(line, NAMES) == found


def test_an_error_of_the_console_is_one_of_hansa() -> None:
    assert issubclass(ConsoleError, HansaError)
