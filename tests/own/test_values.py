"""What passes between a run and the process of its own parts is no more than it says."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import numpy as np
import pytest

from hansa.algorithms import Vectors
from hansa.own.messages import Reply, Wanted
from hansa.own.values import Unfit, as_kind, plain
from hansa.own.wants import WANTS
from hansa.params import Params
from hansa.pipes import Closed, receive
from hansa.rounds import Terms


def test_an_array_that_stands_in_two_places_is_refused() -> None:
    """Else a frame of a megabyte could name an array of a hundred a million times."""
    x = np.array([1.0, -2.0])
    told, arrays = plain({"x": x})
    assert np.array_equal(as_kind(told, arrays, Vectors)["x"], x)
    with pytest.raises(Unfit, match="two places"):
        as_kind({"x": "#0", "m": "#0"}, arrays, Vectors)
    with pytest.raises(Unfit, match="two places"):
        as_kind({"x": "#0", "m": "#0"}, arrays, dict[str, np.ndarray])


def test_a_message_that_stands_for_two_clients_is_refused() -> None:
    """Each would be a copy: a question names ten thousand clients, and a message may be large."""
    message = Params.of({"w": np.ones(3, np.float32)})
    asked = (1, "task", ["a", "b"], None, {"a": message}, {}, Terms(), 0)
    told, arrays = plain(asked)
    assert as_kind(told, arrays, WANTS["ask"].takes).messages["a"].to_dict().keys() == {"w"}
    told = [*told]
    told[4] = {"a": "#0", "b": "#0"}
    with pytest.raises(Unfit, match="two places"):
        as_kind(told, arrays, WANTS["ask"].takes)


@pytest.mark.parametrize(
    "odd", [b"\x91" * 100_000 + b"\x01", b"\xa2\xff\xfe"], ids=["deep", "text"]
)
def test_a_frame_that_nobody_can_read_ends_the_pipe_at_once(odd: bytes) -> None:
    """Lists within lists, and text that is none: who reads must not die of them."""
    whole = msgspec.msgpack.encode(Wanted("x", [1]))
    frame = whole.replace(b"\x91\x01", odd)
    given: Any = io.BytesIO(len(frame).to_bytes(4, "little") + frame)
    with pytest.raises(Closed):
        receive(given, Reply)
