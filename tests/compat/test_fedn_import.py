"""What `hansa import fedn` takes from where; nothing of the package is executed."""

from __future__ import annotations

import io
import shutil
import tarfile
import tomllib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from fedn_packages import archived, npz, old_package, package, write

from hansa.cli.import_fedn import fedn as command
from hansa.cli.package import command as package_command
from hansa.compat.fedn.reading import read_package
from hansa.compat.fedn.small_yaml import read_yaml
from hansa.compat.fedn.writing import Import, import_package
from hansa.errors import LearnerError, PackageError, PlanError
from hansa.packages.tar import read_tar
from hansa.plan import check_plan, read_plan
from hansa.store.files import load_params


def test_files_are_copied_unchanged_and_the_lines_stand_in_the_plan(tmp_path):
    source = package(tmp_path / "study" / "client")
    done = CliRunner().invoke(command, [str(source), "--to", str(tmp_path / "mine")])
    assert done.exit_code == 0, done.output
    inside = tmp_path / "mine" / "package" / "client"
    for name in ("fedn.yaml", "entrypoint.py", "python_env.yaml"):
        assert (inside / name).read_bytes() == (source / name).read_bytes()
    assert not (inside / "data").exists() and not (inside / "yesterday.log").exists()
    plan = tomllib.loads((tmp_path / "mine" / "plan.toml").read_text())
    check_plan(read_plan(plan).plan)
    train = plan["learner"]["train"]
    assert train[train.index("--run") + 1] == "python entrypoint.py train $ENTRYPOINT_OPTS"
    assert "python entrypoint.py predict $ENTRYPOINT_OPTS" in plan["learner"]["predict"]
    assert "python entrypoint.py init_seed" in plan["learner"]["init"]
    assert plan["name"] == "study" and plan["learner"]["rows"] == "path"
    assert "requirements" not in plan["learner"]  # fedn alone, which is ours
    checked = CliRunner().invoke(package_command, ["check", str(tmp_path / "mine")])
    assert checked.exit_code == 0 and "Nothing in it is wrong" in checked.output
    again = CliRunner().invoke(command, [str(source), "--to", str(tmp_path / "mine")])
    assert isinstance(again.exception, PlanError) and again.exception.code == "project-exists"


def test_both_layouts_of_an_archive_and_both_compressions(tmp_path):
    source = package(tmp_path / "client")
    deep = archived(tmp_path / "deep.tar.gz", source, "client")
    flat = archived(tmp_path / "flat.tgz", source, "")
    assert read_package(deep).folder == "client" and read_package(flat).folder == ""
    assert read_package(deep).lines == read_package(flat).lines == read_package(source).lines
    bz2 = tmp_path / "package.tar.bz2"
    with tarfile.open(bz2, "w:bz2") as archive:
        archive.add(source, "client")
    assert read_package(bz2).files == read_package(deep).files
    made = import_package(Import(flat, tmp_path / "mine")).folder
    assert (made / "package" / "fedn.yaml").is_file()
    assert '"--folder", "package",' in (made / "plan.toml").read_text()


def test_a_package_without_a_description_goes_by_the_names_of_its_files(tmp_path):
    found = read_package(old_package(tmp_path / "client"))
    assert not found.described and found.helper == "kerashelper"
    assert found.lines == {"train": "python3 train.py", "validate": "python3 validate.py"}


def test_an_environment_is_what_is_listed_without_fedn_and_with_numpy(tmp_path):
    source = package(tmp_path / "client")
    listed = [
        "torch==2.3.1; sys_platform != 'darwin' or platform_machine == 'arm64'",
        "fedn[flower]>=0.20",
        "git+https://github.com/scaleoutsystems/fedn.git@develop",
        "fednlp",
    ]
    text = "name: x\ndependencies:\n" + "".join(f"  - {line}\n" for line in listed)
    write(source, **{"python_env.yaml": text})
    made = import_package(Import(source, tmp_path / "mine")).folder
    lines = (made / "requirements.txt").read_text().splitlines()[1:]
    assert lines == ["numpy", listed[0], "fednlp"]
    plan = tomllib.loads((made / "plan.toml").read_text())
    assert plan["learner"]["requirements"] == "requirements.txt"
    bare = import_package(Import(source, tmp_path / "bare", environment=False)).folder
    assert "requirements" not in (bare / "plan.toml").read_text()


def test_an_import_that_is_refused_leaves_nothing_in_the_way_of_the_next(tmp_path):
    """Without a seed model it wrote a project that could not run."""
    source = old_package(tmp_path / "client")
    with pytest.raises(PlanError, match=r"builds a seed model.*--seed-model FILE") as told:
        import_package(Import(source, tmp_path / "mine"))
    assert told.value.code == "import-refused"
    assert [p.name for p in tmp_path.iterdir()] == ["client"]
    import_package(Import(source, tmp_path / "mine", init="python make.py"))


def test_a_seed_model_is_converted_when_it_is_imported(tmp_path):
    seed = tmp_path / "seed.npz"
    seed.write_bytes(npz(**{"0": np.array([1.0, -2.0], np.float32)}))
    source = package(tmp_path / "client")
    made = import_package(Import(source, tmp_path / "mine", seed_model=seed)).folder
    assert load_params(made / "seed.safetensors")["0"].tolist() == [1.0, -2.0]
    seed.write_bytes(b"\x80\x04.")
    with pytest.raises(LearnerError, match="pickle"):
        import_package(Import(source, tmp_path / "other", seed_model=seed))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"fedn.yaml": "entry_points:\n  validate:\n    command: x\n"}, "no command under"),
        ({"fedn.yaml": "entry_points:\n  forward: {command: x}\n"}, "not both forward"),
        ({"fedn.yaml": "python_env: a.yaml\n"}, "no entry_points"),
        ({"fedn.yaml": "entry_points:\n  train:\n    command: >\n      x\n"}, "line 3"),
        ({"fedn.yaml": "python_env: e.yaml\nentry_points: {train: x}\n"}, "e.yaml"),
        ({"readme.txt": "x"}, "neither fedn.yaml nor train.py"),
        ({"train.py": "get_helper('numpyhelper'); get_helper('binaryhelper')"}, "--helper"),
    ],
)
def test_what_has_no_counterpart_is_refused_and_nothing_is_written(tmp_path, files, words):
    source = write(tmp_path / "client", **files)
    with pytest.raises(PlanError, match=words) as error:
        import_package(Import(source, tmp_path / "mine"))
    assert error.value.code == "import-refused" and not (tmp_path / "mine").exists()


def test_small_yaml():
    text = """---
# a comment
entry_points:
  train:
    command: VAR=1 ./train.sh --x="a b" # why
  validate: { command: 'python v.py # not a comment' }
list:
- a==1; b == "c"
- 'd'
flow: [a, "b", ]
none:
"""
    with pytest.raises(PlanError, match="line 10"):
        read_yaml(text.replace('"b", ]', '"b", [c]]'), "f")
    found = read_yaml(text.replace(", ]", "]"), "f")
    assert found == {
        "entry_points": {
            "train": {"command": 'VAR=1 ./train.sh --x="a b"'},
            "validate": {"command": "python v.py # not a comment"},
        },
        "list": ['a==1; b == "c"', "d"],
        "flow": ["a", "b"],
        "none": None,
    }
    assert read_yaml("", "f") is None


@pytest.mark.parametrize(
    "text",
    [
        "a: &x 1",
        "a: *x",
        "a: !!python/object/apply:os.system ['true']",
        "a: |\n  b",
        "a: b: c",
        "a: 1\na: 2",
        "\ta: 1",
        "a:\n  b: 1\n c: 2",
        "a: b\n  c",
        "just text",
        "a: 'b",
        "- a: 1",
        "a: 1\n---\nb: 2",
        "".join(f"{' ' * i}a:\n" for i in range(40)),
    ],
)
def test_the_rest_of_yaml_is_refused_with_its_line(text):
    with pytest.raises(PlanError, match=r"f, line \d+, "):
        read_yaml(text, "f")


def tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for about, content in members:
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    about = tarfile.TarInfo(name)
    about.type, about.linkname = kind, target
    return about


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ([(member("../../evil.py"), b"x")], "package-name"),
        ([(member("/etc/evil.py"), b"x")], "package-name"),
        ([(member("a.py", tarfile.SYMTYPE, "/etc/passwd"), b"")], "package-archive"),
        ([(member("a.py", tarfile.LNKTYPE, "b.py"), b"")], "package-archive"),
        ([(member("a.py", tarfile.FIFOTYPE), b"")], "package-archive"),
        ([(member("a.py"), b"x"), (member("A.py"), b"y")], "package-name"),
        ([(member("a.py"), b"x"), (member("a.py"), b"y")], "package-name"),
        ([(member("zeros"), b"\0" * (33 << 20))], "package-too-large"),
    ],
)
def test_a_hostile_archive_is_refused_whole(tmp_path, members, code):
    path = tar(tmp_path / "p.tgz", (member("client/fedn.yaml"), b""), *members)
    with pytest.raises(PackageError) as error:
        read_tar(path)
    assert error.value.code == code and [p.name for p in tmp_path.iterdir()] == ["p.tgz"]


def test_a_damaged_archive_is_refused_with_a_sentence(tmp_path):
    good = archived(tmp_path / "good.tgz", package(tmp_path / "client"), "client").read_bytes()
    for bad in (b"", b"no archive", good[: len(good) // 2], good[:-12] + b"\0" * 12):
        (tmp_path / "bad.tgz").write_bytes(bad)
        with pytest.raises((PackageError, PlanError)):
            read_package(tmp_path / "bad.tgz")
    shutil.rmtree(tmp_path / "client")


def test_a_script_that_lines_name_and_the_package_lacks_is_told_at_the_import(tmp_path):
    source = package(tmp_path / "study" / "client")
    whole = CliRunner().invoke(command, [str(source), "--to", str(tmp_path / "whole")])
    assert whole.exit_code == 0 and "not here" not in whole.output
    text = (source / "fedn.yaml").read_text()
    assert "python entrypoint.py predict" in text
    (source / "fedn.yaml").write_text(
        text.replace("python entrypoint.py predict", "python ./lib/guess.py --by entrypoint.py")
    )
    done = CliRunner().invoke(command, [str(source), "--to", str(tmp_path / "mine")])
    assert done.exit_code == 0, done.output
    told = [line.split()[2] for line in done.output.splitlines() if "not here" in line]
    assert told == ["./lib/guess.py,"]
