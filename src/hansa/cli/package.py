"""`hansa package`: what clients execute, as one file that cannot be two things."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from hansa.cli.lazy import LazyGroup, Verb

VERBS = {
    "build": Verb("package_build:build", "Make one file of a project, always the same bytes."),
    "check": Verb("package_build:check", "Tell what is wrong with a package, by file and line."),
    "show": Verb("package_build:show", "List a package's commands, files and digest."),
    "run": Verb("package_run", "Run one of its commands here, as a client would."),
}
"""Every command about packages, in the order in which a person meets them."""

command = LazyGroup(
    verbs=VERBS,
    help="Make, check and try the package of code that clients execute.",
    epilog="Start with: hansa init my-study --template command",
)
"""The group itself."""

digest_option = click.option(
    "--digest", metavar="DIGEST", help="Refuse any package but this, such as blake3:12ab...; "
    "its first 12 digits are enough.",
)  # fmt: skip
"""`--digest DIGEST`: which package it must be."""

path_argument = click.argument(
    "package", type=click.Path(exists=True, path_type=Path), default=Path(".")
)
"""PACKAGE: a project folder, or a file that `hansa package build` has made."""


class Package(NamedTuple):
    """A package, as a folder that a project can be opened from."""

    folder: Path
    digest: str  # of the archive


@contextlib.contextmanager
def opened(package: Path, digest: str | None = None) -> Iterator[Package]:
    """Give a package's folder: itself, or what an archive holds, for as long as it is used.

    Raises:
      PackageError: it is no archive as Hansa makes them, or has another digest.
    """
    from hansa.packages import extract

    with tempfile.TemporaryDirectory(prefix="hansa-package-") as place:
        if package.is_dir():
            archive = packed(package)
            folder = package
        else:
            with package.open("rb") as file:
                archive = file.read(_bytes_max() + 1)
            folder = Path(place) / (package.stem or "package")
        found = digest_of(archive)
        if digest is not None:
            check_digest(found, digest)
        if not package.is_dir():
            extract(archive, folder)
        yield Package(folder, found)


def packed(folder: Path) -> bytes:
    """Return the archive of a project folder, the very one that `hansa run --on` uploads."""
    from hansa.code import read_code
    from hansa.packages import build_archive
    from hansa.plan.load import PLAN_FILE, load_plan

    learner = load_plan(folder / PLAN_FILE).plan.learner
    plan = {PLAN_FILE: (folder / PLAN_FILE).read_bytes()}
    return build_archive(read_code(folder, learner) | plan)


def digest_of(archive: bytes) -> str:
    """Return the digest by which everybody names an archive."""
    from blake3 import blake3

    return f"blake3:{blake3(archive).hexdigest()}"


def check_digest(found: str, wanted: str) -> None:
    """Refuse a package that is not the one that was meant.

    Raises:
      PackageError: package-identity.
    """
    from hansa.errors import PackageError

    start = wanted.removeprefix("blake3:").lower()
    if len(start) < 12 or not found.removeprefix("blake3:").startswith(start):
        raise PackageError(
            "package-identity",
            f"The package is {found}, not {wanted}. Nothing of it was run.",
            "Get the package again from whoever named that digest, 12 digits of it at least.",
        )


def _bytes_max() -> int:
    from hansa.limits import PACKAGE_BYTES_MAX

    return PACKAGE_BYTES_MAX
