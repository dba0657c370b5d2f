"""A command line that runs a program with bubblewrap, so that it sees and reaches hardly anything.

Inside there is no network, no process but its own, no file of the machine but the system's
programs, this Python and what is named, all read-only; and a /tmp in memory.
"""

from __future__ import annotations

import functools
import os
import shutil
import site
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import hansa
from hansa.hosting.linked import linked_packages
from hansa.learners.generators import local_threads
from hansa.limits import WORKER_MEMORY_KEPT, WORKER_TEMPORARY_BYTES_MAX
from hansa.text import TEXT_CHARS, clean

_SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64")
_ETC = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "alternatives")
_DEVICES = ("nvidia*", "dri", "kfd")  # graphics cards
_KEPT = ("HANSA_THREADS", "HANSA_DEVICE", "CUDA_VISIBLE_DEVICES", "TZ", "ENTRYPOINT_OPTS")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_KEEP_MEMORY = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")  # read by glibc alone
_PROBE_S = 10


@functools.cache
def trouble() -> str | None:
    """Return why no program can be run in a sandbox here; tried once per process."""
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed"
    command = sandbox_command([sys.executable, "-c", "pass"], readable={})
    try:
        probe = subprocess.run(
            command, env=environment(), stdin=subprocess.DEVNULL, capture_output=True,
            timeout=_PROBE_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"bubblewrap did not answer within {_PROBE_S} seconds"
    except OSError as error:
        return f"bubblewrap cannot be started: {error.strerror or error}"
    if probe.returncode == 0:
        return None
    said = clean(probe.stderr.decode(errors="replace"), TEXT_CHARS)
    return f"bubblewrap failed: {said or f'status {probe.returncode}'}"


def sandbox_command(
    argv: Sequence[str],
    *,
    readable: Mapping[str, Path],
    hidden: Sequence[Path] = (),
    private: Sequence[Path] = (),
    folder: str = "/tmp",
) -> list[str]:
    """Return the command that runs `argv` in a sandbox.

    Args:
      argv: the program and its arguments.
      readable: files and folders of this machine, by the path that each has inside.
      hidden: folders that must not be seen even where they lie within one of the others.
      private: files and folders that must not be seen within a package or a program's folder.
      folder: the current folder, inside.
    """
    command = [
        shutil.which("bwrap") or "bwrap",
        *("--unshare-user", "--unshare-all", *_newer_options(), "--die-with-parent"),
        *("--new-session", "--cap-drop", "ALL", "--uid", "1000", "--gid", "1000"),
        *("--hostname", "site"),
    ]
    programs, system = dict(_python_binds()), {"/usr": Path("/usr")}
    binds = programs | {inside: path.resolve() for inside, path in readable.items()}
    size = ("--size", str(WORKER_TEMPORARY_BYTES_MAX))
    # Before what is named, which may lie below it: this Python does in many a container.
    command += [*_system(), *size, "--tmpfs", "/tmp"]
    for inside, path in sorted(binds.items()):
        command += ["--ro-bind", str(path), inside]
    for where, is_folder in [
        *_covered(binds | system, hidden),
        *_covered(programs | system, private),
    ]:
        over = ["--tmpfs", where, "--remount-ro", where]
        command += over if is_folder else ["--ro-bind", "/dev/null", where]
    command += ["--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev"]
    for pattern in _DEVICES:
        for device in sorted(Path("/dev").glob(pattern)):
            command += ["--dev-bind-try", str(device), str(device)]
    command += [*size, "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]
    return [*command, "--remount-ro", "/", "--chdir", folder, "--", *argv]


def environment() -> dict[str, str]:
    """Return all that a worker's environment holds."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return kept | {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": "/tmp",
        "USER": "site",
        "PYTHONDONTWRITEBYTECODE": "1",
        **dict.fromkeys(_KEEP_MEMORY, str(WORKER_MEMORY_KEPT)),
        **{name: str(local_threads()) for name in _THREADS},
    }


@functools.cache
def _newer_options() -> tuple[str, ...]:
    """Return options that only a newer bubblewrap has, 0.8 of 2023."""
    program = shutil.which("bwrap")
    if program is None:
        return ()
    told = subprocess.run([program, "--help"], capture_output=True, text=True, check=False)
    return ("--disable-userns",) if "--disable-userns" in told.stdout else ()


def _system() -> list[str]:
    """Return arguments for the system's programs and libraries."""
    arguments = ["--ro-bind", "/usr", "/usr"]
    for name in _SYSTEM:
        if os.path.islink(name):
            arguments += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            arguments += ["--ro-bind", name, name]
    for name in _ETC:
        arguments += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    return arguments


def _python_binds() -> Iterator[tuple[str, Path]]:
    """Yield what of this Python, of Hansa and of linked packages does not lie in /usr."""
    real = Path(sys.executable).resolve().parent.parent  # an interpreter may be behind links
    places = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.base_prefix).resolve(), real}
    places |= {Path(hansa.__file__).parent, *linked_packages(site.getsitepackages())}
    for place in places:
        if not place.is_relative_to("/usr") and len(place.parts) > 1:
            yield str(place), place


def _covered(visible: Mapping[str, Path], hidden: Sequence[Path]) -> Iterator[tuple[str, bool]]:
    """Yield where hidden paths would be seen, and whether each is a folder."""
    for path in (place.resolve() for place in hidden):
        for inside, outside in visible.items():
            if path.is_relative_to(outside.resolve()):
                where = PurePosixPath(inside) / path.relative_to(outside.resolve())
                yield str(where), path.is_dir()
