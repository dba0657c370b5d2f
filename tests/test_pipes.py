import os
import select
import sys

import pytest

from hansa.pipes import takes

pytestmark = pytest.mark.skipif(not hasattr(select, "poll"), reason="pipes cannot be asked here")


def test_a_pipe_takes_a_small_frame_at_once_until_it_is_full():
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with open(reading, "rb", 0) as reader, open(writing, "wb", 0) as writer:
        taken = 0
        while takes(writer, 1000):
            assert writer.write(bytes(1000)) == 1000, "it said that it takes all"
            taken += 1000
        assert 2**12 <= taken <= 2**20
        os.read(reader.fileno(), 2**20)
        assert takes(writer, select.PIPE_BUF)
        assert not takes(writer, select.PIPE_BUF + 1), "of more, some may have to wait"


@pytest.mark.skipif(sys.platform != "linux", reason="others tell of it when it is written to")
def test_a_pipe_that_nobody_reads_any_more_takes_nothing():
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb", 0) as writer:
        assert not takes(writer, 10)
