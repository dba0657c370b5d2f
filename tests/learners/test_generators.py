"""Goal: user code finds seeded generators, in whatever state their libraries are.

Method: many threads that seed and restore while the garbage collector calls finalizers, in a
process of their own, which ends itself if it stands still.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

MANY = """
import faulthandler, gc, sys, threading
import torch
from hansa.learners.generators import seeded
from hansa.seeds import Key

class Knot:
    def __init__(self):
        self.me = self
    def __del__(self):
        for _ in range(200):
            pass

def work():
    for number in range(1500):
        Knot()
        with seeded(Key.root(number)):
            pass

faulthandler.dump_traceback_later(60, exit=True)
sys.setswitchinterval(1e-5)
gc.set_threshold(20)
threads = [threading.Thread(target=work) for _ in range(5)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


@pytest.mark.torch
def test_threads_that_seed_torch_do_not_stop_the_process() -> None:
    """Torch's lock and the interpreter's were each held by a thread that waited for the other."""
    pytest.importorskip("torch")
    done = subprocess.run([sys.executable, "-c", MANY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
