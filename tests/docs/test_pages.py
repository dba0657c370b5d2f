"""Documentation that cannot lie: everything on it runs, and everything there is stands on it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from doc_pages import DOCS, KINDS, PAGES, ROOT, Block, PageRun, blocks, missing_needs, shows

import hansa
from hansa.cli.main import VERBS, cli
from hansa.errors import CODES
from hansa.optimizers import MODULES
from hansa.optimizers.named import OPTIMIZERS
from hansa.plan.explain import meanings

LINES_MAX = 200
GLOSSARY = DOCS / "reference" / "glossary.md"


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=name)
def test_everything_on_the_page_works(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing := missing_needs(page):
        pytest.skip(f"{name(page)} needs {', '.join(missing)}")
    monkeypatch.chdir(tmp_path)
    reader = PageRun(page, tmp_path)
    try:
        for block in blocks(page):
            reader.run(block)
    finally:
        reader.close()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_page_is_short_and_its_blocks_are_of_a_known_kind(page: Path) -> None:
    text = text_of(page)
    made = "Made by docs/generate.py" in text  # such a page is looked up, and not read
    assert len(text.splitlines()) <= (2 * LINES_MAX if made else LINES_MAX)
    assert text.count("```") == 2 * len(blocks(page)), "a fence is indented, or not closed"
    assert {block.kind for block in blocks(page)} <= KINDS


def test_every_error_code_has_a_page_that_was_written() -> None:
    pages = {page.stem: text_of(page) for page in (DOCS / "errors").glob("*.md")}
    assert pages.keys() == CODES.keys()
    for code, text in pages.items():
        means, _, do = text.partition("## What it means")[2].partition("## What to do")
        assert len(means.split()) > 5 and len(do.split()) > 3, f"docs/errors/{code}.md is empty"


def commands_of(command: click.Command, words: str) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield words, command
        return
    for verb in command.list_commands(click.Context(command)):
        child = command.get_command(click.Context(command), verb)
        assert child is not None
        yield from commands_of(child, f"{words} {verb}")


def test_every_verb_and_option_of_the_command_line_is_documented() -> None:
    texts = [text_of(page) for page in (DOCS / "reference").glob("cli*.md")]
    parts = [part for text in texts for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]]
    sections = {p.partition("\n")[0]: p for p in parts if p.startswith("hansa ")}
    assert len(sections) == sum(p.startswith("hansa ") for p in parts), "told twice"
    found = dict(commands_of(cli, "hansa"))
    assert sections.keys() == found.keys()
    assert len(found) >= len(VERBS)
    for words, command in found.items():
        for option in command.params:
            if isinstance(option, click.Option):
                assert all(f"`{opt}`" in sections[words] for opt in option.opts), (words, option)


def test_every_page_of_commands_is_in_the_list_of_the_first() -> None:
    first = text_of(DOCS / "reference" / "cli.md")
    for page in (DOCS / "reference").glob("cli-*.md"):
        assert f"({page.name})" in first


def test_every_environment_variable_is_documented() -> None:
    source = "\n".join(text_of(p) for p in (ROOT / "src").rglob("*.py"))
    page = text_of(DOCS / "reference" / "cli.md")
    used = set(re.findall(r"\bHANSA_[A-Z]+", source))
    ours = set(re.findall(r"`(HANSA_\w+)`", page))
    of_commands = set(re.findall(r"`(HANSA_[A-Z]+)", text_of(DOCS / "reference" / "command.md")))
    assert ours <= used <= ours | of_commands


def test_every_key_of_a_plan_is_documented() -> None:
    page = text_of(DOCS / "reference" / "plan.md")
    for key in meanings():
        table, _, last = key.rpartition(".")
        assert f"| `{last}` |" in page or f"[{key}]" in page, key
        assert not table or f"[{table}]" in page, key


def test_every_module_of_an_optimizer_is_documented() -> None:
    page = text_of(DOCS / "reference" / "optimizers.md")
    for module in [*MODULES, *OPTIMIZERS]:
        assert f"| `{module}` |" in page, module


def test_every_public_name_is_documented() -> None:
    page = text_of(DOCS / "reference" / "python.md")
    for public in hansa.__all__:
        assert f"`hansa.{public}" in page, public
    for public in (n for n in vars(hansa.Result) if not n.startswith("_")):
        assert f"`{public}" in page, public
    listed = re.findall(r"^\| `hansa\.(\w+)", page.partition("## ")[0], flags=re.MULTILINE)
    assert set(listed) == set(hansa.__all__)


@pytest.mark.parametrize("page", [p for p in PAGES if p.parent == ROOT], ids=name)
def test_links_of_the_root_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text_of(page)):
        assert (ROOT / target).exists(), target


def synonyms() -> list[str]:
    """Return the words that the glossary tells us not to use."""
    table = text_of(GLOSSARY).partition("## Words of other systems")[2]
    rows = re.findall(r"^\| (.+?) \| .+? \|$", table, flags=re.MULTILINE)
    return [word.strip() for row in rows[1:] for word in row.split(",") if "-" * 3 not in word]


def test_glossary_lists_words_of_other_systems() -> None:
    assert {"node", "collaborator", "supernode", "strategy"} <= set(synonyms())


OTHERS_WORDS = [GLOSSARY, *DOCS.glob("howto/coming-from-*.md")]
"""Pages that say what a word of another system is called here."""


@pytest.mark.parametrize("page", [p for p in PAGES if p not in OTHERS_WORDS], ids=name)
def test_page_uses_our_words(page: Path) -> None:
    for word in synonyms():
        found = re.search(rf"\b{re.escape(word)}s?\b", text_of(page), flags=re.IGNORECASE)
        assert found is None, f"{name(page)} says {found[0]!r}; see the glossary"


def test_changelog_begins_with_this_version() -> None:
    heads = re.findall(r"^## (\S+)", text_of(ROOT / "CHANGELOG.md"), flags=re.MULTILINE)
    assert heads[0] == hansa.__version__


def test_readme_is_short() -> None:
    assert len(text_of(ROOT / "README.md").splitlines()) <= 150


@pytest.mark.parametrize(
    ("documented", "printed", "same"),
    [
        ("", "anything", True),
        ("round 1  accuracy 0.91\n...\n", "round 1  accuracy 0.93\nround 2\n", True),
        ("round 1  accuracy 0.91\n...\n", "round 1  accuracy 0.52\nround 2\n", False),
        ("together 96.1%\n", "together 97.0%\n", True),
        ("together 96.1%\n", "together 66.0%\n", False),
        ("blake3:12ab in 3.4 s\n", "blake3:98fe in 0.1 s\n", True),
        ("Finished.\n", "Failed.\n", False),
    ],
)
def test_output_on_a_page_is_compared_but_for_the_numbers(
    documented: str, printed: str, same: bool
) -> None:
    assert shows(documented, printed) is same


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("console", "$ hansa show nothing\n"),
        ("console", "$ hansa ls  # exits 1\n"),
        ("console", "$ hansa ls\nThree runs.\n"),
        ("console", "$ cd nowhere\n"),
        ("console", "$ hansa ls &\nThree runs.\n"),
        ("console", "$ hansa join 'https://hansa.example.org:8443#TOKEN.FINGERPRINT'\n"),
        ("python", "import hansa\nhansa.walk()\n"),
        ("pycon", ">>> 1 + 1\n3\n"),
        ("toml", "round = 3\n"),
        ("toml", "rounds = 0\n"),
        ("toml", 'aggregator = "krum"\n'),
        ("toml", 'algorithm = "scaffold"\naggregator = "median"\n'),
    ],
)
def test_a_page_that_lies_is_noticed(
    kind: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((AssertionError, AttributeError, hansa.HansaError)):
        PageRun(DOCS / "index.md", tmp_path).run(Block(kind, None, text, line=1))
