"""A seed model is used again where making it would come to the same, and nowhere else.

Each time is a process of its own, as each command is.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from seed_makers import Seeds, study, weights

from hansa.project import open_project
from hansa.remote.seed import seed_model


@pytest.fixture
def seeds(home: Path) -> Seeds:
    return Seeds(home)


def test_the_second_time_nothing_of_the_project_runs_and_the_model_is_the_same(
    seeds: Seeds, home: Path
) -> None:
    folder = study(home / "study", "rng.normal(), -2.0")
    first, second = seeds(folder), seeds(folder)
    assert (first["made"], second["made"]) == (True, False)
    assert first["digest"] == seed_model(open_project(folder)).params.digest()
    assert {**second, "made": True} == first


def in_code(home: Path, seeds: Seeds) -> None:
    study(home / "study", "8.0, float(value)", READS)


def in_a_file_of_the_project(home: Path, seeds: Seeds) -> None:
    (home / "study" / "value.txt").write_text("9")


def in_a_file_elsewhere(home: Path, seeds: Seeds) -> None:
    (home / "elsewhere.txt").write_text("9")


def in_a_file_that_was_not_there(home: Path, seeds: Seeds) -> None:
    (home / "first.txt").write_text("9")


def in_a_folder(home: Path, seeds: Seeds) -> None:
    (home / "many" / "three").touch()


def in_a_module_elsewhere(home: Path, seeds: Seeds) -> None:
    (home / "lib" / "helper.py").write_text("ADD = 40\n")


def in_what_may_be_read(home: Path, seeds: Seeds) -> None:
    (home / "second.txt").write_text("9")


def in_a_link_that_leads_nowhere(home: Path, seeds: Seeds) -> None:
    (home / "third.txt").symlink_to("nowhere")


def in_the_environment(home: Path, seeds: Seeds) -> None:
    seeds.environment["ADD"] = "300"


READS = """
import os
from pathlib import Path
import helper
here, home = Path(__file__).parent, Path(__file__).parent.parent
value = sum(float(p.read_text()) for p in (here / "value.txt", home / "elsewhere.txt"))
if (home / "first.txt").exists():
    value += 1000
value += 2000 * os.access(home / "second.txt", os.R_OK)
value += 4000 * os.path.lexists(home / "third.txt")
value += len(os.listdir(home / "many")) * 10000 + helper.ADD + int(os.environ.get("ADD", "0"))
"""


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (in_code, (8.0, 20003.0)),
        (in_a_file_of_the_project, (1.0, 20011.0)),
        (in_a_file_elsewhere, (1.0, 20010.0)),
        (in_a_file_that_was_not_there, (1.0, 21003.0)),
        (in_what_may_be_read, (1.0, 22003.0)),
        (in_a_link_that_leads_nowhere, (1.0, 24003.0)),
        (in_a_folder, (1.0, 30003.0)),
        (in_a_module_elsewhere, (1.0, 20043.0)),
        (in_the_environment, (1.0, 20303.0)),
    ],
)
def test_a_change_makes_another_model(
    seeds: Seeds, home: Path, change: Callable[[Path, Seeds], None], expected: tuple[float, ...]
) -> None:
    folder = study(home / "study", "1.0, value", READS)
    for path, text in {"study/value.txt": "1", "elsewhere.txt": "2", "lib/helper.py": "ADD = 0\n",
                       "many/one": "", "many/two": ""}.items():  # fmt: skip
        (home / path).parent.mkdir(exist_ok=True)
        (home / path).write_text(text)
    seeds.environment["PYTHONPATH"] = str(home / "lib")
    assert seeds(folder)["digest"] == weights(1.0, 20003.0)
    assert not seeds(folder)["made"]
    change(home, seeds)
    after = seeds(folder)
    assert after["digest"] == weights(*expected) and after["made"]


def test_another_plan_or_seed_makes_another_model(seeds: Seeds, home: Path) -> None:
    folder = study(home / "study", "rng.normal(), -2.0")
    first, other = seeds(folder), seeds(folder, "seed=7")
    assert other["made"] and other["digest"] != first["digest"]
    assert seeds(folder, "rounds=2")["made"]
    assert not seeds(folder, "seed=7")["made"]


def flipped(text: bytes, at: int) -> bytes:
    return text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: b"",
        lambda text: text[:-1],
        lambda text: flipped(text, 3),
        lambda text: flipped(text, text.index(b'"w"') + 1),
        lambda text: flipped(text, len(text) - 1),
        lambda text: b"\xff\n\xff\n",
    ],
    ids=["empty", "cut", "digest", "facts", "model", "nonsense"],
)
def test_what_is_damaged_is_thrown_away_and_made_again(
    seeds: Seeds, home: Path, damage: Callable[[bytes], bytes]
) -> None:
    folder = study(home / "study")
    seeds(folder)
    (place,) = seeds.kept()
    whole = place.read_bytes()
    place.write_bytes(damage(whole))
    again = seeds(folder)
    assert again["made"] and again["digest"] == weights(-1.5, 4.0)
    assert seeds.kept() == [place] and place.read_bytes() == whole
    assert not seeds(folder)["made"]


@pytest.mark.parametrize(
    "before",
    [
        "import subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True)",
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('127.0.0.1', 9))",
        "import os; os.system('true')",
        "import sys, types; sys.modules['safetensors'] = types.ModuleType('safetensors')",
        "with open(__file__ + '.txt', 'a') as file: file.write('once more')",
    ],
    ids=["program", "network", "shell", "weights", "itself"],
)
def test_of_code_that_asks_others_or_changes_its_project_nothing_is_kept(
    seeds: Seeds, home: Path, before: str
) -> None:
    folder = study(home / "study", before=before)
    assert seeds(folder)["made"] and not seeds.kept()
    assert seeds(folder)["made"]


def test_a_project_in_another_folder_is_the_same_if_what_is_beside_it_is(
    seeds: Seeds, home: Path
) -> None:
    before = "from pathlib import Path\nvalue = (Path(__file__).parents[1] / 'v.txt').read_text()"
    for place, value in (("a", "3"), ("b", "3"), ("c", "5")):
        study(home / place / "study", "float(value)", before)
        (home / place / "v.txt").write_text(value)
    assert seeds(home / "a" / "study")["made"]
    assert not seeds(home / "b" / "study")["made"]
    other = seeds(home / "c" / "study")
    assert other["made"] and other["digest"] == weights(5.0)


def test_names_that_are_no_text_are_no_mistake(seeds: Seeds, home: Path) -> None:
    odd = os.fsdecode(b"caf\xe9")
    (home / odd).touch()
    before = f"import os\nos.path.exists({str(home)!r} + os.sep + os.fsdecode(b'caf\\xe9'))"
    assert seeds(study(home / "study", before=before))["made"]
    assert seeds(study(home / "other" / odd))["made"]
    seeds.environment["ODD"] = odd
    assert seeds(study(home / "third"))["made"]
    assert not seeds.kept()


def test_code_finds_the_questions_to_the_system_as_they_are(seeds: Seeds, home: Path) -> None:
    before = """
import os, shutil, tempfile
at = tempfile.mkdtemp()
os.symlink("nowhere", f"{at}/a")
shutil.copy2(f"{at}/a", f"{at}/b", follow_symlinks=False)
folder = os.open(at, os.O_RDONLY)
os.stat("b", dir_fd=folder, follow_symlinks=False)
os.close(folder)
os.environ.clear()
"""
    assert seeds(study(home / "study", before=before))["digest"] == weights(-1.5, 4.0)


def test_threads_take_their_notes_one_after_the_other(home: Path) -> None:
    code = (
        "import sys\nfrom concurrent.futures import ThreadPoolExecutor\nfrom pathlib import Path\n"
        "from hansa.code import read_draft\nfrom hansa.remote.remembered import seed_of\n"
        "with ThreadPoolExecutor(4) as pool:\n"
        "    made = pool.map(lambda name: seed_of(read_draft(Path(name))), sys.argv[1:])\n"
        "    print([seed.digest for seed in made])"
    )
    names = [study(home / f"s{i}", f"{i}.0") for i in range(4)]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, names)],
        cwd=home, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str([weights(float(i)) for i in range(4)])


def test_those_not_used_for_longest_go_first(seeds: Seeds, home: Path) -> None:
    seeds.limits = {"SEEDS_KEPT_MAX": 2}
    folder = study(home / "study")
    for number, seed in enumerate(("1", "2")):
        seeds(folder, f"seed={seed}")
        newest = max(seeds.kept(), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (number, number))
    assert not seeds(folder, "seed=1")["made"]  # used now
    assert seeds(folder, "seed=3")["made"]
    assert len(seeds.kept()) == 2
    assert not seeds(folder, "seed=1")["made"]
    assert seeds(folder, "seed=2")["made"]


def test_a_model_that_is_too_large_is_not_kept(seeds: Seeds, home: Path) -> None:
    seeds.limits = {"SEED_KEPT_BYTES": 10}
    seeds(study(home / "study"))
    assert not seeds.kept()


@pytest.mark.skipif(os.name == "nt", reason="has no such rights")
def test_a_folder_that_others_may_write_to_is_not_believed(seeds: Seeds, home: Path) -> None:
    folder = study(home / "study")
    seeds(folder)
    seeds.kept()[0].parent.chmod(0o777)
    assert seeds(folder)["made"]
    seeds.kept()[0].parent.chmod(0o700)
    assert not seeds(folder)["made"]


def test_what_was_read_before_anybody_took_notes_is_not_known(home: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom hansa.project import open_project\n"
        "from hansa.code import read_draft\nfrom hansa.remote.remembered import seed_of\n"
        "open_project(Path('study'))\nseed_of(read_draft(Path('study')))"
    )
    study(home / "study")
    subprocess.run([sys.executable, "-c", code], cwd=home, check=True)
    assert not Seeds(home).kept()
