import ml_dtypes
import numpy as np
import pytest

from hansa.params import Params


def mixed_arrays() -> dict[str, np.ndarray]:
    """One tensor or more of every dtype, narrow ones first, signed and asymmetric, odd shapes."""
    return {
        "mask": np.array([True, False, True]),
        "head.bias": np.array([1.5, -2.25, 3e-5], np.float32),
        "bn.count": np.array(2**62 + 1, np.int64),
        "i8": np.array([[-128, 127, 5]], np.int8),
        "half": np.array([[65504.0, -6e-8], [0.1, -0.0]], np.float16),
        "brain": np.array([3.0e38, -1e-40, 0.1], ml_dtypes.bfloat16),
        "head.weight": np.arange(-7, 5, dtype=np.float32).reshape(3, 4) / 7,
        "empty": np.zeros((0, 4), np.float64),
        "wide": np.array([1e300, -1e-300, np.pi]),
        "scale": np.array(-0.75, np.float32),
        "u8": np.array([255, 0, 1], np.uint8),
        "i16": np.array([-(2**15)], np.int16),
        "u16": np.array([2**16 - 1, 3], np.uint16),
        "i32": np.array([-(2**31)], np.int32),
        "u32": np.array([2**32 - 1], np.uint32),
        "u64": np.array([2**64 - 1, 1], np.uint64),
    }


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    return mixed_arrays()


@pytest.fixture
def mixed() -> Params:
    return Params.of(mixed_arrays(), {"round": "7", "by": "site nörth"})
