"""The list of defects names tests that exist, and every test here stands in it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "explain" / "defects.md").read_text(encoding="utf-8")


def defined(path: Path) -> set[str]:
    return set(re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.M))


def test_every_test_that_the_page_names_exists() -> None:
    everywhere = {name for path in (ROOT / "tests").rglob("test_*.py") for name in defined(path)}
    named = set(re.findall(r"`(test_\w+)`", PAGE)) - {"test_house"}
    assert named and not named - everywhere
    for path in re.findall(r"`(\w+/test_\w+\.py)`", PAGE):
        assert (ROOT / "tests" / path).is_file(), path


def test_every_regression_test_stands_on_the_page() -> None:
    here = {
        name
        for path in Path(__file__).parent.glob("test_*.py")
        if path != Path(__file__)
        for name in defined(path)
    }
    assert here and not {name for name in here if f"`{name}`" not in PAGE}
