"""A line that a person types, as a command; and how it could go on."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hansa.console.verbs import ALIASES, VERBS, Verb
from hansa.errors import ConsoleError
from hansa.limits import CONSOLE_LINE_CHARS_MAX
from hansa.text import clean


class Command(NamedTuple):
    """A line that the table of verbs allows."""

    verb: str
    words: tuple[str, ...] = ()
    options: Mapping[str, str] = {}  # "" where none takes a value


def parse(line: str) -> Command | None:
    """Return what a line asks for; None if it is empty or a comment.

    A prompt before it, copied from a document, is passed over.

    Args:
      line: as it was typed; quotes and # work as in a shell, and nothing else does.

    Raises:
      ConsoleError: console-verb, there is no such verb, or its words do not fit;
        console-refused, a verb that is known and not done here.

    >>> parse("> deploy_app hello all")
    Command(verb='deploy_app', words=('hello', 'all'), options={})
    """
    if len(line) > CONSOLE_LINE_CHARS_MAX:
        raise _wrong(f"The line has {len(line)} characters.", "Type less than that.")
    try:
        words = shlex.split(line.strip().removeprefix(">"), comments=True)
    except ValueError as error:
        raise _wrong(f"The line cannot be read: {error}.", "Close the quotes.") from None
    if not words:
        return None
    if words[0].startswith("?") and len(words[0]) > 1:  # "?bye"
        words[:1] = ["?", words[0][1:]]
    name = ALIASES.get(words[0], words[0])
    if name not in VERBS:
        raise unknown_verb(name)
    verb = VERBS[name]
    if not verb.done:
        raise ConsoleError(
            "console-refused", f"{name} is not done in Hansa. Nothing was done.", verb.instead
        )
    rest, options = _options(name, verb, words[1:])
    _check_words(name, verb, rest)
    return Command(name, tuple(rest), options)


def usage(name: str) -> str:
    """Return a verb with the words that it takes."""
    verb = VERBS[name]
    shown = " ".join(f"[{o} X]" if value else f"[{o}]" for o, value in verb.options.items())
    first = "" if shown and shown.split()[0] in verb.words else shown
    return " ".join(part for part in (name, first, verb.words) if part)


def completions(line: str, names: Mapping[str, Sequence[str]]) -> list[str]:
    """Return what the last word of a line could become.

    Args:
      line: as far as it is typed.
      names: that are known, by kind: app, run, number, site, file.
    """
    *before, last = line.removeprefix("> ").lstrip().split(" ") or [""]
    before = [word for word in before if word]
    if not before:
        return sorted(name for name in (*VERBS, *ALIASES) if name.startswith(last))
    verb = VERBS.get(ALIASES.get(before[0], before[0]))
    if verb is None:
        return []
    at = len([word for word in before[1:] if not word.startswith("-")])
    could: list[str] = list(verb.options) if last.startswith("-") else []
    if verb.choices and at == verb.at:
        could += verb.choices
    elif verb.names == "verb":
        could += VERBS
    elif verb.scope == "view" and at == 0:
        could += ["server"]
    else:
        could += names.get(verb.names, ())
    return sorted(word for word in dict.fromkeys(could) if word.startswith(last))


def _options(name: str, verb: Verb, words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Divide words into those of the verb and its options."""
    rest: list[str] = []
    options: dict[str, str] = {}
    left = list(words)
    while left:
        word = left.pop(0)
        if word.startswith(">"):
            raise _wrong(
                f"{name} writes no file; {clean(word)} was not made.",
                f'Let the shell write it: hansa console -c "{name} ..." > FILE',
            )
        if len(word) < 2 or not word.startswith("-"):
            rest.append(word)
        elif word not in verb.options:
            raise _wrong(f"{name} has no option {clean(word)}.", f"Type: {usage(name)}")
        elif verb.options[word] and not left:
            raise _wrong(f"{name} {word} lacks its value.", f"Type: {usage(name)}")
        else:
            options[word] = left.pop(0) if verb.options[word] else ""
    return rest, options


def _check_words(name: str, verb: Verb, words: Sequence[str]) -> None:
    """Refuse too few, too many, or others than the verb takes."""
    if len(words) < verb.least:
        raise _wrong(f"{name} lacks an argument.", f"Type: {usage(name)}")
    if verb.most is not None and len(words) > verb.most:
        told = clean(" ".join(words[verb.most :]))
        raise _wrong(f"{name} does not take {told!r}.", f"Type: {usage(name)}")
    if verb.choices and words[verb.at] not in verb.choices:
        raise _wrong(
            f"{name} is for {', '.join(verb.choices)}, and not for {clean(words[verb.at])!r}.",
            f"Type: {usage(name)}",
        )


def unknown_verb(name: str) -> ConsoleError:
    """Return the error for a word that is no verb; it says what is near."""
    near = difflib.get_close_matches(name, [*VERBS, *ALIASES], n=1)
    meant = f"Did you mean {near[0]}? " if near else ""
    return _wrong(f"There is no verb {clean(name)!r}.", f"{meant}Type ? to list the verbs.")


def _wrong(happened: str, hint: str) -> ConsoleError:
    return ConsoleError("console-verb", f"{happened} Nothing was done.", hint)
