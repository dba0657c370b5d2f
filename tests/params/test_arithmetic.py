import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.errors import ParamsError
from hansa.params import Layout, Params, axpy, cast, norm, scale, subtract
from hansa.params.dtypes import DTYPES, FLOATS
from hansa.seeds import Key

SIZES = [0, 1, 2**16, 2 * 2**16 + 3]  # none, one, a block, and blocks with a rest


def draw(layout: Layout, purpose: str) -> Params:
    """Random tensors: signed normal floats, other dtypes any bytes of theirs."""
    generator = Key.root(11).child(purpose).generator()
    params = Params.zeros(layout)
    params.body[:] = generator.integers(0, 2, params.body.size, np.uint8)
    return params.with_vector(generator.normal(0.3, 2.0, layout.float_size))


def layouts() -> list[Layout]:
    every = [(f"{dtype}{i}", dtype, (2, i)) for i in range(3) for dtype in reversed(DTYPES)]
    large = [[("n", "I32", (5,)), ("w", dtype, (n,))] for dtype in FLOATS for n in SIZES]
    return [Layout.of(tensors) for tensors in [every, *large]]


def wide(tensor: np.ndarray) -> np.ndarray:
    return tensor.astype(np.float32) if tensor.itemsize == 2 else tensor


def check(made: Params, expected: dict[str, np.ndarray], rest: Params) -> None:
    for name, spec in made.layout.items():
        if spec.dtype in FLOATS:
            exact = expected[name].astype(made[name].dtype)
            assert made[name].tobytes() == exact.tobytes(), name
        else:
            assert made[name].tobytes() == rest[name].tobytes(), name


@pytest.mark.parametrize("layout", layouts(), ids=repr)
def test_axpy_scale_and_subtract_agree_with_arithmetic_tensor_by_tensor(layout):
    x, y = draw(layout, "x"), draw(layout, "y")
    names = [spec.name for spec in layout.specs if spec.dtype in FLOATS]
    scaled = {n: wide(x[n]) * wide(x[n]).dtype.type(-0.3) for n in names}
    check(scale(-0.3, x), scaled, x)
    check(axpy(-0.3, x, y), {n: wide(y[n]) + scaled[n] for n in names}, y)
    check(subtract(x, y), {n: wide(x[n]) - wide(y[n]) for n in names}, x)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_narrow_floats_are_computed_wide_and_rounded_once(dtype):
    # Method: a * x alone is no narrow float; rounding it first would lose it beside y.
    step = 2.0 ** -np.finfo(np.float16).nmant if dtype == np.float16 else 2.0**-7
    y, x = np.array([1.0], dtype), np.array([1 + step], dtype)
    found = float(axpy(-0.5 - step, Params.of([x]), Params.of([y]))["0"][0])
    exact = Fraction(1) - Fraction(0.5 + step) * Fraction(1 + step)
    assert found == float(np.array([float(exact)]).astype(np.float32).astype(dtype)[0])


def test_a_numpy_scalar_factor_counts_as_a_plain_number():
    x = Params.of([np.linspace(-3, 2, 99, dtype=np.float32)])
    assert scale(np.float64(0.1), x) == scale(0.1, x)
    assert axpy(np.float64(0.1), x, x) == axpy(0.1, x, x)


def test_metadata_comes_from_the_operand_that_is_changed():
    x, y = (Params.of([np.float32([1])], {"is": name}) for name in "xy")
    assert axpy(1, x, y).metadata == {"is": "y"}
    assert scale(1, x).metadata == subtract(x, y).metadata == cast(x, "F16").metadata == {"is": "x"}


def test_operands_stay_as_they_were(mixed):
    before = mixed.digest()
    for made in (
        axpy(2, mixed, mixed),
        scale(2, mixed),
        subtract(mixed, mixed),
        cast(mixed, "F16"),
    ):
        assert not np.shares_memory(made.body, mixed.body)
    assert mixed.digest() == before


@pytest.mark.parametrize("operation", [lambda x, y: axpy(1, x, y), subtract])
def test_tensors_of_another_model_are_refused(operation):
    x, y = Params.of({"w": np.float32([1])}), Params.of({"w": np.float32([1, 2])})
    with pytest.raises(ParamsError, match="'w' F32") as caught:
        operation(x, y)
    assert caught.value.code == "params-mismatch"


def test_arithmetic_never_looks_at_single_tensors(mixed, monkeypatch):
    def refuse(self, name):
        raise AssertionError("a loop over tensors")

    monkeypatch.setattr(Params, "__getitem__", refuse)
    axpy(2, mixed, mixed)
    subtract(scale(2, cast(mixed, "F16")), cast(mixed, "F16"))
    norm(mixed)


FINITE = {"allow_nan": False, "allow_infinity": False}


@given(st.lists(st.floats(width=32, **FINITE)), st.lists(st.floats(width=16, **FINITE)))
def test_the_norm_is_that_of_all_floats_together(singles, halves):
    params = Params.of([np.array(singles, np.float32), np.array(halves, np.float16), np.int64(99)])
    assert norm(params) == pytest.approx(math.hypot(*singles, *halves), rel=1e-14)


def test_the_norm_does_not_overflow_or_vanish_in_narrow_floats():
    n = 2 * 2**16 + 3
    for value in (np.float16(60000), np.float32(-3e38), np.float32(1e-40), np.float32(-2e-45)):
        expected = abs(float(value)) * math.sqrt(n)
        assert norm(Params.of([np.full(n, value)])) == pytest.approx(expected, rel=1e-12, abs=0)
    assert norm(Params.of([])) == 0


def test_the_norm_counts_small_values_beside_large_ones():
    # Goal: float32 accumulation would stop at 2^24 ones.
    values = np.ones(2**24 + 2**20, np.float32)
    assert norm(Params.of([values])) == math.sqrt(2**24 + 2**20)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_norm_shows_what_is_not_finite(value):
    assert not math.isfinite(norm(Params.of([np.float32([1, value])])))


@pytest.mark.parametrize("dtype", FLOATS)
def test_cast_rounds_every_float_and_keeps_the_rest(mixed, arrays, dtype):
    made = cast(mixed, dtype)
    assert list(made) == list(mixed)
    for name, spec in mixed.layout.items():
        is_float = spec.dtype in FLOATS
        assert made.layout[name][:3] == (name, dtype if is_float else spec.dtype, spec.shape)
        with np.errstate(over="ignore"):
            expected = arrays[name].astype(made[name].dtype)
        assert made[name].tobytes() == expected.tobytes(), name


KINDS = st.tuples(st.sampled_from(DTYPES), st.integers(0, 3))


@given(st.lists(KINDS, max_size=12), st.sampled_from(FLOATS))
def test_cast_finds_every_tensor_when_dtypes_merge(tensors, dtype):
    layout = Layout.of((f"{i}", kind, (n,)) for i, (kind, n) in enumerate(tensors))
    params = draw(layout, "cast")
    made = cast(params, dtype)
    for name, tensor in params.items():
        assert made[name].tobytes() == tensor.astype(made[name].dtype).tobytes()


@pytest.mark.parametrize("dtype", ["I32", "BOOL", "float32", "", None])
def test_cast_to_what_is_not_a_floating_dtype_is_refused(mixed, dtype):
    with pytest.raises(ParamsError) as caught:
        cast(mixed, dtype)
    assert caught.value.code == "params-unknown-dtype"
