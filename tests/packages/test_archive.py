"""Packages: one form, read without trust; the corpus of hostile archives (H1)."""

from __future__ import annotations

import io
import resource
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.errors import PackageError
from hansa.limits import CODE_BYTES_MAX, CODE_FILES_MAX
from hansa.packages import build_archive, extract, read_archive

FILES = {"model.py": b"import net\n" * 9, "net/__init__.py": b"", "net/deep.py": b"x = 1\n"}
GOOD = build_archive(FILES)


# ---------------------------------------------------------------- made by hand, lie by lie

LOCAL = "<4s5H3L2H"
CENTRAL = "<4s6H3L5H2L"
END = "<4s4H2LH"


def raw(
    entries: list[tuple[bytes, bytes]],
    *,
    local: Mapping[str, object] | None = None,
    central: Mapping[str, object] | None = None,
    end: Mapping[str, object] | None = None,
    extra: bytes = b"",
    before: bytes = b"",
    between: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """A ZIP file written by struct alone; every field can be told to lie."""
    body, directory = bytearray(before), bytearray()
    for name, content in entries:
        facts: dict[str, object] = {
            "mark": b"PK\3\4", "made": 0x314, "version": 20, "flags": 0x800, "method": 0,
            "time": 0, "date": 0x21, "crc": zlib.crc32(content), "packed": len(content),
            "size": len(content), "name": name, "extra": len(extra), "attributes": 0o100644 << 16,
            "offset": len(body), "disk": 0, "inner": 0,
        }  # fmt: skip
        here = {**facts, **(local or {})}
        there = {**facts, "mark": b"PK\1\2", **(central or {})}
        directory += struct.pack(
            CENTRAL,
            *(there[k] for k in ("mark", "made", "version", "flags", "method", "time", "date")),
            *(there[k] for k in ("crc", "packed", "size")),
            len(there["name"]), there["extra"], 0, there["disk"], there["inner"],
            there["attributes"], there["offset"],
        ) + there["name"] + extra  # fmt: skip
        body += struct.pack(
            LOCAL,
            *(here[k] for k in ("mark", "version", "flags", "method", "time", "date")),
            *(here[k] for k in ("crc", "packed", "size")),
            len(here["name"]), here["extra"],
        ) + here["name"] + extra + content  # fmt: skip
    body += between
    last = {"disk": 0, "first": 0, "here": len(entries), "count": len(entries),
            "size": len(directory), "at": len(body), "comment": 0, **(end or {})}  # fmt: skip
    return bytes(body + directory) + struct.pack(END, b"PK\5\6", *last.values()) + after


def one(name: str = "a.py", content: bytes = b"x = 1\n", **lies: object) -> bytes:
    return raw([(name.encode("utf-8", "surrogatepass"), content)], **lies)  # type: ignore[arg-type]


def named(*names: str) -> bytes:
    pairs = [(name.encode("utf-8", "surrogatepass"), b"x") for name in names]
    return raw(sorted(pairs))


def both(**lies: object) -> bytes:
    """One plain file with the same lie in both heads."""
    return one(local=lies, central=lies)


def zipped(level: int, content: bytes, name: str = "a.py") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive:
        archive.writestr(name, content)
    return file.getvalue()


def overlapping() -> bytes:
    """Many names for one content, as in Fifield's bomb: each local head quotes the next."""
    content = b"x = 1\n"
    return raw([(b"a.py", content), (b"b.py", content)], central={"offset": 0})


def quoting() -> bytes:
    """A file whose content is said to reach over the head and content of the next."""
    whole = raw([(b"a.py", b"x"), (b"b.py", b"y" * 50)])
    start = whole.index(b"PK\1\2")
    longer = 1 + 30 + 4 + 50
    patched = bytearray(whole)
    struct.pack_into("<LL", patched, start + 20, longer, longer)
    struct.pack_into("<LL", patched, 18, longer, longer)
    return bytes(patched)


def with_directory(kind: bytes, mode: int) -> bytes:
    return raw([(kind, b"")], central={"attributes": mode << 16})


def zip64(count: int) -> bytes:
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, 50, 41)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, 91, 1)
    end = {"count": count, "here": count, "size": 0xFFFFFFFF, "at": 0xFFFFFFFF}
    return one(end=end, between=end64 + locator)


E_ACUTE, E_WITH_ACUTE = "\u00e9.py", "e\u0301.py"
HOSTILE: dict[str, Callable[[], bytes]] = {
    # names
    "traversal": lambda: named("../a.py"),
    "traversal inside": lambda: named("a/../../b.py"),
    "traversal at the end": lambda: named("a/.."),
    "dot": lambda: named("./a.py"),
    "absolute": lambda: named("/etc/passwd.py"),
    "two slashes": lambda: named("a//b.py"),
    "unc": lambda: named("//server/share/a.py"),
    "drive": lambda: named("C:/a.py"),
    "drive relative": lambda: named("C:a.py"),
    "stream": lambda: named("a.py:b.py"),
    "backslash": lambda: named("a\\b.py"),
    "backslash traversal": lambda: named("..\\..\\a.py"),
    "nul": lambda: named("a.py\0.txt"),
    "newline": lambda: named("a\n.py"),
    "escape": lambda: named("a\x1b[2J.py"),
    "delete": lambda: named("a\x7f.py"),
    "next line": lambda: named("a\x85.py"),
    "right to left": lambda: named("a\u202eyp.py"),
    "line separator": lambda: named("a\u2028.py"),
    "zero width": lambda: named("a\u200b.py"),
    "unassigned": lambda: named("a\U000e0fff.py"),
    "surrogate": lambda: named("a\ud800.py"),
    "not utf-8": lambda: raw([(b"a\xff.py", b"x")]),
    "overlong": lambda: raw([(b"\xc0\xae\xc0\xae/a.py", b"x")]),
    "trailing dot": lambda: named("a./b.py"),
    "trailing blank": lambda: named("a.py "),
    "leading blank": lambda: named(" a.py"),
    "only dots": lambda: named(".../a.py"),
    "con": lambda: named("con.py"),
    "nul device": lambda: named("pkg/NUL"),
    "com1": lambda: named("Com1.tar.py"),
    "lpt superscript": lambda: named("LPT\u00b9.py"),
    "conin": lambda: named("conin$"),
    "con wide": lambda: named("\uff23\uff2f\uff2e.py"),
    "wide dots": lambda: named("\uff0e\uff0e/a.py"),
    "wide slash": lambda: named("..\uff0fa.py"),
    "wildcard": lambda: named("a*.py"),
    "empty name": lambda: named(""),
    "folder": lambda: named("pkg/"),
    "cache": lambda: named("__pycache__/a.cpython-311.pyc"),
    "cache of another case": lambda: named("__PyCache__/a.py"),
    "compiled": lambda: named("a.pyc"),
    "long part": lambda: named("a" * 255 + ".py"),
    "long path": lambda: named("/".join(["a" * 100] * 12)),
    "deep": lambda: named("/".join(["a"] * 40) + ".py"),
    # several names
    "case": lambda: named("Model.py", "model.py"),
    "case of a folder": lambda: named("Net/a.py", "net/b.py"),
    "nfc and nfd": lambda: named(E_ACUTE, E_WITH_ACUTE),
    "nfkc": lambda: named("\ufb01t.py", "fit.py"),
    "sharp s": lambda: named("stra\u00dfe.py", "STRASSE.py"),
    "kelvin": lambda: named("k.py", "\u212a.py"),
    "twice": lambda: named("a.py", "a.py"),
    "file and folder": lambda: named("a", "a/b.py"),
    "folder and file of another case": lambda: named("A/b.py", "a"),
    "not in order": lambda: raw([(b"b.py", b"x"), (b"a.py", b"x")]),
    "too many": lambda: named(*(f"f{i:05}.py" for i in range(CODE_FILES_MAX + 1))),
    "more than ten thousand": lambda: named(*(f"f{i:05}.py" for i in range(10_001))),
    # kinds of files
    "symbolic link": lambda: one(central={"attributes": 0o120777 << 16}),
    "hard link to outside": lambda: one("../b", central={"attributes": 0o100644 << 16}),
    "character device": lambda: one(central={"attributes": 0o020666 << 16}),
    "block device": lambda: one(central={"attributes": 0o060666 << 16}),
    "fifo": lambda: one(central={"attributes": 0o010644 << 16}),
    "socket": lambda: one(central={"attributes": 0o140644 << 16}),
    "directory mode": lambda: with_directory(b"a", 0o040755),
    "dos directory": lambda: one(central={"attributes": 0x10}),
    "set user id": lambda: one(central={"attributes": 0o104755 << 16}),
    "executable": lambda: one(central={"attributes": 0o100755 << 16}),
    "no mode": lambda: one(central={"attributes": 0}),
    "another system": lambda: one(central={"made": 20}),
    # sizes
    "42": lambda: zipped(9, bytes(40 * 2**20)),
    "ratio above 100": lambda: zipped(9, b"x = 1\n" * 10_000),
    "deflated": lambda: zipped(9, b"x = 1\n"),
    "deflated inside": lambda: one("b.zip", zipped(9, bytes(10**6)), local={"method": 8}),
    "bzip2": lambda: both(method=12),
    "lzma": lambda: both(method=14),
    "zstandard": lambda: both(method=93),
    "unknown method": lambda: both(method=4711),
    "packed smaller": lambda: both(packed=1),
    "unpacked smaller": lambda: both(size=1),
    "sizes larger than the file": lambda: both(size=10**6, packed=10**6),
    "sizes of four gigabytes": lambda: both(size=0xFFFFFFFF, packed=0xFFFFFFFF),
    "local size lies": lambda: one(local={"size": 3, "packed": 3}),
    "central size lies": lambda: one(central={"size": 3, "packed": 3}),
    "local size lies upwards": lambda: one(local={"size": 2**31, "packed": 2**31}),
    "data descriptor": lambda: both(flags=0x808, crc=0, size=0, packed=0),
    "wrong crc": lambda: both(crc=1),
    "crc in one head": lambda: one(central={"crc": 1}),
    # heads
    "other name in the local head": lambda: one(local={"name": b"b.py"}),
    "longer name in the local head": lambda: one(local={"name": b"abc.py"}),
    "encrypted": lambda: both(flags=0x801),
    "strongly encrypted": lambda: both(flags=0x841),
    "masked heads": lambda: both(flags=0x2800),
    "no utf-8 flag": lambda: both(flags=0),
    "utf-8 flag in one head": lambda: one(local={"flags": 0}),
    "name in code page 437": lambda: raw([(b"\x82.py", b"x")], local={"flags": 0},
                                         central={"flags": 0}),
    "version": lambda: both(version=63),
    "date": lambda: both(date=0x5A21),
    "extra field": lambda: one(extra=struct.pack("<2HQ", 0x7075, 8, 0)),
    "zip64 extra": lambda: one(extra=struct.pack("<2H2Q", 1, 16, 2**40, 2**40)),
    "unicode path extra": lambda: one(extra=b"up\x0c\0\x01....../x"[:16]),
    "second disk": lambda: one(central={"disk": 1}),
    "inner attributes": lambda: one(central={"inner": 1}),
    "local mark": lambda: one(local={"mark": b"PK\7\b"}),
    "central mark": lambda: one(central={"mark": b"PK\3\4"}),
    # where things lie
    "overlap": overlapping,
    "quoting": quoting,
    "offset beyond": lambda: one(central={"offset": 10**6}),
    "offset into the content": lambda: one(central={"offset": 3}),
    "gap": lambda: one(between=b"hidden"),
    "prefix": lambda: one(before=b"#!/bin/sh\n"),
    "prefix with right offsets": lambda: b"MZ" + GOOD,
    "hidden file": lambda: one(between=raw([(b"b.py", b"x")])[:40]),
    "garbage at the end": lambda: GOOD + b"\0",
    "comment": lambda: one(end={"comment": 5}, after=b"hello"),
    "comment with a second end": lambda: one(end={"comment": 22}, after=GOOD[-22:]),
    "two archives": lambda: GOOD + build_archive({"b.py": b"x"}),
    "fewer entries than there are": lambda: raw([(b"a.py", b"x"), (b"b.py", b"y")],
                                               end={"count": 1, "here": 1}),
    "more entries than there are": lambda: one(end={"count": 2, "here": 2}),
    "counts that differ": lambda: one(end={"count": 1, "here": 0}),
    "directory size": lambda: one(end={"size": 1}),
    "directory offset": lambda: one(end={"at": 0}),
    "directory at four gigabytes": lambda: one(end={"at": 0xFFFFFFFF, "size": 0xFFFFFFFF}),
    "disk of the end": lambda: one(end={"disk": 1}),
    "zip64": lambda: zip64(0xFFFF),
    "zip64 that nobody needs": lambda: zip64(1),
    "no directory": lambda: GOOD[:60],
    "end alone with a count": lambda: GOOD[-22:],
    # not archives
    "nothing": lambda: b"",
    "one byte": lambda: b"P",
    "text": lambda: b"x = 1\n" * 100,
    "zeros": lambda: bytes(10_000),
    "gzip": lambda: b"\x1f\x8b\x08" + bytes(100),
    "python's zipfile": lambda: zipped(0, b"x"),
    "too large": lambda: build_archive({}) + bytes(CODE_BYTES_MAX * 2),
    "too large inside": lambda: raw([(b"a.py", bytes(CODE_BYTES_MAX)), (b"b.py", b"x")]),
}  # fmt: skip


def test_the_corpus_is_as_large_as_promised() -> None:
    assert len(HOSTILE) >= 60


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_is_refused_before_anything_is_written(case: str, tmp_path: Path) -> None:
    data = HOSTILE[case]()
    home = tmp_path / "home"
    home.mkdir()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(PackageError):
        extract(data, home / "target")
    with pytest.raises(PackageError):
        read_archive(data)
    (tmp_path / "file.zip").write_bytes(data)
    with pytest.raises(PackageError):
        read_archive(tmp_path / "file.zip")
    assert not list(home.iterdir())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file.zip", "home"]
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    assert grown <= 50 * 1024 + len(data) // 1024  # KiB; the archive itself is read


def test_the_forger_can_make_a_good_archive() -> None:
    """Or else all of the above could be refused for a reason that is none."""
    pairs = [(name.encode(), content) for name, content in sorted(FILES.items())]
    assert raw(pairs) == GOOD


def test_codes_tell_names_amounts_and_forms_apart() -> None:
    for case, code in [
        ("traversal", "package-name"),
        ("too many", "package-too-large"),
        ("too large", "package-too-large"),
        ("deflated", "package-archive"),
    ]:
        with pytest.raises(PackageError) as caught:
            read_archive(HOSTILE[case]())
        assert caught.value.code == code, case


# ---------------------------------------------------------------- what holds for all

PART = st.text("abcxyzäß漢_-0123456789", min_size=1, max_size=8)
NAME = st.lists(PART, min_size=1, max_size=4).map(lambda parts: "/".join(parts) + ".py")


@st.composite
def projects(draw: st.DrawFn) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for name, content in draw(st.dictionaries(NAME, st.binary(max_size=200), max_size=6)).items():
        try:
            build_archive({**files, name: content})
        except PackageError:
            continue  # it folds to the same as one before it
        files[name] = content
    return files


@given(projects(), st.randoms(use_true_random=False))
def test_what_is_built_is_what_is_read_in_any_order(files: dict[str, bytes], order: object) -> None:
    archive = build_archive(files)
    assert read_archive(archive) == files
    pairs = list(files.items())
    order.shuffle(pairs)  # type: ignore[attr-defined]
    assert build_archive(dict(pairs)) == archive


@given(projects())
def test_any_other_reader_of_zip_files_sees_the_same(files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(io.BytesIO(build_archive(files))) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == files


def test_no_byte_of_an_archive_can_change() -> None:
    for at in range(len(GOOD)):
        for flip in (0x01, 0x80, 0xFF):
            changed = bytearray(GOOD)
            changed[at] ^= flip
            with pytest.raises(PackageError):
                read_archive(bytes(changed))


def test_no_archive_is_one_when_cut() -> None:
    for length in range(len(GOOD)):
        with pytest.raises(PackageError):
            read_archive(GOOD[:length])


@settings(max_examples=300)
@given(st.binary(max_size=80), st.integers(0, len(GOOD)), st.integers(0, 40))
def test_what_is_read_from_anything_builds_the_same_bytes(
    noise: bytes, at: int, removed: int
) -> None:
    data = GOOD[:at] + noise + GOOD[at + removed :]
    try:
        files = read_archive(data)
    except PackageError:
        return
    assert build_archive(files) == data


def test_a_project_without_code_is_a_package_too(tmp_path: Path) -> None:
    extract(build_archive({}), tmp_path / "code")
    assert list((tmp_path / "code").iterdir()) == []


# ---------------------------------------------------------------- building and writing


@pytest.mark.parametrize("name", ["../a.py", "a\\b.py", "con.py", "a\ud800.py", "", "a/", "x.pyc"])
def test_a_name_that_no_site_takes_is_refused_when_the_package_is_built(name: str) -> None:
    with pytest.raises(PackageError) as caught:
        build_archive({name: b""})
    assert caught.value.code == "package-name"


def test_too_much_is_refused_when_the_package_is_built() -> None:
    with pytest.raises(PackageError, match="package-too-large"):
        build_archive({f"f{i}.py": b"" for i in range(CODE_FILES_MAX + 1)})
    with pytest.raises(PackageError, match="package-too-large"):
        build_archive({"a.py": bytes(CODE_BYTES_MAX), "b.py": b"x"})


def test_the_most_that_is_allowed_can_be_read() -> None:
    files = {f"f{i:05}.py": b"" for i in range(CODE_FILES_MAX - 1)}
    files["z.py"] = bytes(CODE_BYTES_MAX)
    assert read_archive(build_archive(files)) == files


def on_disk(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_extracting_writes_exactly_the_files(tmp_path: Path) -> None:
    extract(GOOD, tmp_path / "code")
    assert on_disk(tmp_path / "code") == FILES
    assert [p.name for p in tmp_path.iterdir()] == ["code"]


def test_a_folder_that_holds_the_files_already_is_left_alone(tmp_path: Path) -> None:
    extract(GOOD, tmp_path / "code")
    before = (tmp_path / "code").stat().st_ino
    extract(GOOD, tmp_path / "code")
    assert (tmp_path / "code").stat().st_ino == before


@pytest.mark.parametrize("change", ["edited", "added", "removed", "link", "linked folder", "file"])
def test_a_folder_that_holds_anything_else_is_replaced(tmp_path: Path, change: str) -> None:
    code, outside = tmp_path / "code", tmp_path / "outside"
    outside.mkdir()
    (outside / "model.py").write_bytes(FILES["model.py"])
    extract(GOOD, code)
    match change:
        case "edited":
            (code / "model.py").write_bytes(b"evil = 1\n" * 11)
        case "added":
            (code / "net" / "more.py").write_bytes(b"evil = 1")
        case "removed":
            (code / "model.py").unlink()
        case "link":
            (code / "model.py").unlink()
            (code / "model.py").symlink_to(outside / "model.py")
        case "linked folder":
            code.rename(outside / "code")
            code.symlink_to(outside / "code")
        case "file":
            code.rename(outside / "code")
            code.write_bytes(b"a file")
    extract(GOOD, code)
    assert on_disk(code) == FILES
    assert not code.is_symlink() and not any(p.is_symlink() for p in code.rglob("*"))
    assert on_disk(outside)["model.py"] == FILES["model.py"]


def test_a_failed_write_leaves_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(GOOD, tmp_path / "code")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hansa.packages.archive.write_durably", full)
    with pytest.raises(OSError):
        extract(build_archive({"a.py": b"new"}), tmp_path / "code")
    assert on_disk(tmp_path / "code") == FILES
    assert [p.name for p in tmp_path.iterdir()] == ["code"]
