"""A package's own Python environment: built once, and anew when it changes."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from command_cases import INIT, tensors

from hansa.errors import PackageError
from hansa.learners.command import CommandLearner, Commands
from hansa.learners.command_environment import _digest
from hansa.seeds import Key

NEEDS = b"--no-index\n--find-links wheels\ntinymath\n"
PROGRAM = b"""
import os, shutil, sys, tinymath
shutil.copyfile("seed.safetensors", os.environ["HANSA_MODEL_OUT"])
print("doubled", tinymath.double(4), "in", sys.prefix)
"""


def wheel(factor: int) -> bytes:
    about = "tinymath-1.0.dist-info"
    files = {
        "tinymath.py": f"def double(x):\n    return {factor} * x\n",
        f"{about}/METADATA": "Metadata-Version: 2.1\nName: tinymath\nVersion: 1.0\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/RECORD": "",
    }
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return made.getvalue()


def package(needs: bytes = NEEDS, factor: int = 2) -> CommandLearner:
    code = {
        "needs.txt": needs,
        "init.py": PROGRAM,
        "seed.safetensors": tensors({"w": np.ones(1, np.float32)}),
        "wheels/tinymath-1.0-py3-none-any.whl": wheel(factor),
    }
    words = {"train": INIT, "init": ("python", "init.py")}
    return CommandLearner(Commands(words, code, requirements="needs.txt"))


def said(made: CommandLearner) -> str:
    try:
        made.init(None, Key.root(0))
        assert made.last is not None
        return made.last.output
    finally:
        made.close()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def environments(home: Path) -> list[Path]:
    return sorted((home / ".cache" / "hansa" / "environments").glob("*/ready"))


def test_it_is_built_once_and_anew_when_what_it_is_made_of_changes(home: Path) -> None:
    assert said(package()).startswith("doubled 8 in ")
    (first,) = environments(home)
    before = first.stat().st_mtime_ns
    assert said(package()).startswith("doubled 8 in ")
    assert first.stat().st_mtime_ns == before
    assert said(package(factor=-3)).startswith("doubled -12 in ")
    assert len(environments(home)) == 2
    # One whose building was cut off is not taken for whole.
    first.unlink()
    assert said(package()).startswith("doubled 8 in ")


def test_what_cannot_be_built_is_told_and_leaves_nothing(home: Path) -> None:
    with pytest.raises(PackageError, match="cannot be built") as error:
        said(package(needs=b"--no-index\nno-such-package-anywhere\n"))
    assert error.value.code == "package-environment"
    assert "no-such-package-anywhere" in error.value.happened
    assert "--find-links" in error.value.hint
    assert not environments(home)


def test_a_cache_that_others_may_write_to_is_not_used(home: Path) -> None:
    cache = home / ".cache" / "hansa" / "environments"
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    with pytest.raises(PackageError, match="not this user's alone"):
        said(package())


def test_requirements_that_are_not_in_the_package_are_told() -> None:
    made = CommandLearner(Commands({"train": INIT, "init": INIT}, {}, requirements="needs.txt"))
    with pytest.raises(PackageError, match=r"no file needs\.txt"):
        said(made)


def test_what_is_installed_from_a_folder_of_the_package_is_part_of_the_address() -> None:
    def address(requirements: bytes, **code: bytes) -> str:
        files = {name.replace("_", "/") + ".py": content for name, content in code.items()}
        return _digest("needed.txt", {"needed.txt": requirements, **files})

    assert address(b"./lib", lib_setup=b"1") != address(b"./lib", lib_setup=b"2")
    assert address(b"numpy\n  -e lib", lib_setup=b"1") != address(
        b"numpy\n  -e lib", lib_setup=b"2"
    )
    assert address(b"numpy", train=b"1") == address(b"numpy", train=b"2")  # not built anew for that
