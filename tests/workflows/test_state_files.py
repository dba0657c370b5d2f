"""What is read back after an interruption is what was there, to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from hansa.aggregators import Aggregate
from hansa.algorithms import Vectors, fed_avg, fed_avg_m, fed_opt
from hansa.errors import RunError
from hansa.optimizers import adam, momentum
from hansa.params import Params, decode, encode
from hansa.params.model import ModelLayout
from hansa.workflows import GlobalState, as_stored, from_files, rounded, to_files


def carried(params: Params) -> Params:
    header, body = encode(params)
    return decode(header + bytes(body))


def layout_of(dtype: str) -> ModelLayout:
    seed = Params.of({"w": np.zeros(3, "float32"), "n": np.array(4), "b": np.zeros(2, "float32")})
    specs = [(s.name, dtype if s.name == "w" else s.dtype, s.shape) for s in seed.layout.specs]
    return ModelLayout(type(seed.layout).of(specs), ["b"])


STATE = GlobalState(
    Vectors(x=np.array([0.1, -7.3, 1e-4], np.float32), v=np.array([1 / 3, -2.0, 5.5], np.float32)),
    np.array([11.0, 0.25, -1.5]),  # integers first
)


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
@pytest.mark.parametrize("algorithm", [fed_avg(), fed_avg_m()], ids=lambda a: a.name)
def test_a_state_comes_back_through_its_files(algorithm, dtype: str) -> None:
    layout = layout_of(dtype)
    names = ("x", "v") if algorithm.name == "fed_avg_m" else ("x",)
    state = STATE._replace(algorithm=Vectors({name: STATE.algorithm[name] for name in names}))
    model, extra = to_files(layout, state)
    # The model file alone is exact where it holds float32 and the algorithm keeps nothing else.
    assert (extra is None) == (dtype == "F32" and names == ("x",))
    found = from_files(
        algorithm, layout, model=carried(model), extra=None if extra is None else carried(extra)
    )
    assert found.algorithm.keys() == state.algorithm.keys()
    for name, vector in state.algorithm.items():
        assert found.algorithm[name].dtype == vector.dtype
        assert found.algorithm[name].tobytes() == vector.tobytes(), name
    assert found.buffers.tobytes() == state.buffers.tobytes()


def test_the_state_of_a_chain_comes_back_with_its_count() -> None:
    """Adam after 3 rounds, then a round with the state as it is and one with the state as read."""
    algorithm, layout = fed_opt((momentum(), adam()), lr=0.1), layout_of("F32")
    state = STATE._replace(algorithm=algorithm.init(STATE.algorithm.x))
    mean = Vectors(delta=np.array([0.5, -2.0, 0.125], np.float32))
    for _ in range(3):
        state = state._replace(algorithm=algorithm.server(state.algorithm, mean, 1.0))
    model, extra = to_files(layout, state)
    assert extra is not None
    found = from_files(algorithm, layout, model=carried(model), extra=carried(extra))
    assert {n: v.dtype for n, v in found.algorithm.items()} == {
        n: v.dtype for n, v in state.algorithm.items()
    }
    assert found.algorithm.t == 3
    after = algorithm.server(found.algorithm, mean, 1.0)
    assert after.x.tobytes() == algorithm.server(state.algorithm, mean, 1.0).x.tobytes()


def test_a_seed_model_alone_is_the_state_before_the_first_round() -> None:
    layout = layout_of("F32")
    model, _ = to_files(layout, STATE)
    found = from_files(fed_avg_m(), layout, model=model, extra=None)
    np.testing.assert_array_equal(found.algorithm.x, STATE.algorithm.x)
    np.testing.assert_array_equal(found.algorithm.v, np.zeros(3))
    found.algorithm.x[0] = 9  # a copy: the model may be a file that is mapped
    np.testing.assert_array_equal(layout.split(model)[0], STATE.algorithm.x)


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
def test_a_state_as_stored_is_what_its_model_file_alone_gives_back(dtype: str) -> None:
    layout = layout_of(dtype)
    state = as_stored(layout, STATE._replace(algorithm=Vectors(x=STATE.algorithm.x)))
    found = from_files(fed_avg(), layout, model=carried(to_files(layout, state)[0]), extra=None)
    assert found.algorithm.x.tobytes() == np.asarray(state.algorithm.x).tobytes()
    assert found.buffers.tobytes() == state.buffers.tobytes()
    assert np.allclose(state.algorithm.x, STATE.algorithm.x, rtol=2**-8)


def test_a_state_that_its_file_cannot_hold_has_diverged() -> None:
    large = STATE._replace(algorithm=Vectors(x=np.array([1.0, 70_000.0, 0.0], np.float32)))
    with pytest.raises(RunError, match="run-diverged"):
        as_stored(layout_of("F16"), large)


def test_averaged_buffers_are_rounded_to_their_own_dtypes_and_nothing_else_is() -> None:
    layout = layout_of("F32")
    delta = np.array([1 / 3, 2.0, 3.0])
    means = np.array([4.5, 0.1, -1 / 3])  # an integer, then two of float32
    given = Aggregate({"delta": delta, "buffers": means}, 7.0, 3)
    found = rounded(layout, given)
    assert found is not None
    assert found.vectors["delta"] is delta
    expected = [4.0, float(np.float32(0.1)), float(np.float32(-1 / 3))]
    assert found.vectors["buffers"].tolist() == expected
    assert (found.weight, found.clients) == (7.0, 3)
    assert given.vectors["buffers"] is means
    plain = Aggregate({"delta": delta}, 7.0, 3)
    assert rounded(layout, plain) is plain
    assert rounded(layout, None) is None
