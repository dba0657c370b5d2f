"""Types are looked through once, in one thread, before others read messages."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys, threading
import msgspec
from hansa.plan import schema
from hansa.typed import make_known

make_known(schema)
sys.setswitchinterval(1e-6)
start = threading.Barrier(4)

def read():
    start.wait()
    plan = {"rounds": 3, "learner": {"epochs": 2}, "cohort": {"minimum": 2}}
    assert msgspec.convert(plan, schema.Plan).learner.epochs == 2

threads = [threading.Thread(target=read) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_threads_that_read_a_type_at_the_same_time_do_not_end_the_process() -> None:
    """Without `make_known` one process in ten dies with SIGSEGV."""
    for _ in range(10):
        done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
