"""site.toml: every key that is there is read, and every mistake is told with the right word."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.errors import SiteError
from hansa.site.policy import Policy
from hansa.site.settings import (
    DataSource,
    SiteLimits,
    SiteSettings,
    load_settings,
    parse_settings,
    settings_text,
    write_settings,
)


def test_a_whole_file_is_read() -> None:
    text = """
        name = "north"
        [data.chest-xray]
        path = "cohort.csv"
        target = "finding"
        [limits]
        memory_mb = 2048
        task_s = 60
        cpu_s = 600
        [policy]
        submitters = ["anna", "ben#00ff"]
        approve = "submitters"
        data = ["chest-xray"]
        sandbox = "preferred"
        max_rounds = 50
    """
    assert parse_settings(text) == SiteSettings(
        name="north",
        data={"chest-xray": DataSource(path="cohort.csv", target="finding")},
        limits=SiteLimits(memory_mb=2048, task_s=60.0, cpu_s=600),
        policy=Policy(
            submitters=("anna", "ben#00ff"),
            approve="submitters",
            data=("chest-xray",),
            sandbox="preferred",
            max_rounds=50,
        ),
    )


def test_the_defaults_are_the_safe_ones() -> None:
    assert parse_settings('name = "north"').policy is None
    policy = parse_settings('name = "north"\n[policy]').policy
    assert policy is not None
    assert (policy.approve, policy.sandbox, policy.packages) == ("ask", "required", ())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "name"),
        ("name = 3", "name"),
        ('name = "North"', "name"),
        ('nam = "north"', "Did you mean 'name'"),
        ('name = "north"\n[polcy]', "Did you mean 'policy'"),
        ('name = "north"\n[policy]\napproved = "ask"', "Did you mean 'approve'"),
        ('name = "north"\n[policy]\napprove = "yes"', "policy.approve"),
        ('name = "north"\n[policy]\napprove = "yes"', "Valid: ask, submitters."),
        ('name = "north"\n[policy]\nsandbox = "prefered"', "Did you mean 'preferred'"),
        ('name = "north"\n[policy]\nsandbox = false', "policy.sandbox"),
        ('name = "north"\n[policy]\nsandbox = "off"', "policy.sandbox"),
        ('name = "north"\n[policy]\nmax_rounds = 0', "policy.max_rounds"),
        ('name = "north"\n[policy]\npackages = ["7f3a"]', "policy.packages"),
        ('name = "north"\n[policy]\nsubmitters = "anna"', "policy.submitters"),
        ('name = "north"\n[policy]\nsubmitters = ["anna#"]', "policy.submitters"),
        ('name = "north"\n[policy]\napprove = "submitters"', "names nobody"),
        ('name = "north"\n[policy]\nsubmitters=[]\napprove = "submitters"', "names nobody"),
        ('name = "north"\n[policy]\ndata = ["cohrt"]\n[data.cohort]\npath="x"', "'cohort'"),
        ('name = "north"\n[policy]\ndata = ["cohort"]', "hansa site data add"),
        ('name = "north"\n[data.x]\npth = "y"', "Did you mean 'path'"),
        ('name = "north"\n[data.x]', "path"),
        ('name = "north"\n[data." x"]\npath = "y"', "data"),
        ('name = "north"\n[limits]\nmemory_mb = -1', "limits.memory_mb"),
        ('name = "north"\n[limits]\nmemory = 1', "Did you mean 'memory_mb'"),
        ("name = = 3", "not valid TOML"),
        ("\0", "not valid TOML"),
        ("a = " + "[" * 2000, "not valid TOML"),
    ],
)
def test_a_mistake_is_refused_with_the_right_word(text: str, words: str) -> None:
    with pytest.raises(SiteError) as caught:
        parse_settings(text)
    assert caught.value.code == "site-settings"
    assert words in str(caught.value)


def test_a_folder_without_a_site_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SiteError, match="site-missing"):
        load_settings(tmp_path)
    with pytest.raises(SiteError, match="site-missing"):
        load_settings(tmp_path / "nowhere")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(SiteError, match="site-settings"):
        load_settings(tmp_path)


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
SOURCES = st.builds(DataSource, path=WORDS, target=st.none() | WORDS, group=st.none() | WORDS)


@st.composite
def all_settings(draw: st.DrawFn) -> SiteSettings:
    data = draw(st.dictionaries(NAMES, SOURCES, max_size=3))
    policy = draw(
        st.none()
        | st.builds(
            Policy,
            submitters=st.none() | st.just(("anna", "ben#0aF")),
            packages=st.just(()) | st.just((f"blake3:{'0' * 64}",)),
            sandbox=st.sampled_from(["required", "preferred", "none"]),
            max_rounds=st.none() | st.integers(1, 10**6),
            data=st.none() | st.just(tuple(data) or None),
        )
    )
    limits = draw(
        st.builds(SiteLimits, memory_mb=st.integers(64, 10**6), task_s=st.floats(0.1, 1e6))
    )
    return SiteSettings(name="north", data=data, policy=policy, limits=limits)


@given(all_settings())
def test_what_is_written_is_what_is_read(settings: SiteSettings) -> None:
    assert parse_settings(settings_text(settings)) == settings


def test_a_written_file_is_read(tmp_path: Path) -> None:
    settings = SiteSettings(name="north", data={"a.b": DataSource(path='C:\\x "y"')})
    write_settings(tmp_path, settings)
    assert load_settings(tmp_path) == settings
