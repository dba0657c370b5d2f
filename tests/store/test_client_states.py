"""Vectors that wait on disk for a rule over all updates, however many there are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.aggregators import (
    AggregationSpec,
    Aggregator,
    Contribution,
    VectorSpec,
    geometric_median,
    krum,
    median,
    multi_krum,
    trimmed_mean,
)
from hansa.errors import SiteError
from hansa.params import Params, encode
from hansa.seeds import Key
from hansa.store.client_states import ClientStates

SPEC = AggregationSpec(
    {
        "delta": VectorSpec(70_000, "float32", 64.0),  # more than is read ahead or added at a time
        "dc": VectorSpec(3, "float64", 64.0),
        "buffers": VectorSpec(2, "float64", None),
    },
    100.0,
)


def vectors(client: int) -> dict[str, np.ndarray]:
    draw = Key.root(client).generator()
    return {n: draw.normal(-0.3, 2, v.size).astype(v.dtype) for n, v in SPEC.vectors.items()}


@pytest.mark.parametrize(
    "rule",
    [median, trimmed_mean(0.2), krum(1), multi_krum(1, 3), geometric_median()],
    ids=lambda rule: rule.name,
)
def test_rules_give_the_same_bytes_for_vectors_on_disk(tmp_path: Path, rule: Aggregator) -> None:
    states = ClientStates(tmp_path)
    results = []
    for keep in (lambda name, own: own, lambda name, own: states.spill(name, 4, own)):
        acc = rule.zero(SPEC)
        for i in range(7):
            contribution = Contribution(f"client-{i}", keep(f"client-{i}", vectors(i)), i + 1.0)
            acc = rule.add(acc, contribution)
        results.append({n: v.tobytes() for n, v in rule.finish(acc).vectors.items()})
        partial = rule.load(SPEC, rule.dump(acc))
        assert rule.finish(partial).vectors["delta"].tobytes() == results[0]["delta"]
    assert results[0] == results[1]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory):
    own = {**vectors(1), "none": np.empty(0, np.float32)}
    return own, ClientStates(tmp_path_factory.mktemp("states")).spill("client-1", 1, own)


def test_a_stored_vector_is_described_like_the_one_that_was_stored(stored) -> None:
    own, kept = stored
    for name, vector in own.items():
        found = kept[name]
        assert (found.dtype, found.size, found.shape) == (vector.dtype, vector.size, vector.shape)
        assert len(found) == len(vector)
        assert np.asarray(found).tobytes() == np.array(found).tobytes() == vector.tobytes()
        assert np.array(found, "float64").tolist() == vector.astype("float64").tolist()


@given(
    slices=st.lists(
        st.builds(
            slice,
            st.none() | st.integers(-75_000, 75_000),
            st.none() | st.integers(-75_000, 75_000) | st.integers(0, 9_000),
            st.sampled_from([None, 1, 1, 3, -2]),
        ),
        max_size=4,
    )
)
def test_slices_are_those_of_the_array_in_any_order(stored, slices: list[slice]) -> None:
    own, kept = stored
    for where in slices:
        for name in ("delta", "dc", "none"):
            assert kept[name][where].tobytes() == own[name][where].tobytes()


PROJECTS = Path(__file__).parents[1] / "simulation"  # where `projects` lies

MODEL = """
import numpy as np

def data(client):
    return {"train": [int(client.removeprefix("client-"))]}

def init(rng, sample):
    return {"w": np.zeros(3, np.float32)}

def train(params, data, ctx):
    return {"w": params["w"] + np.float32(data[0] / 4) * np.float32([1, -0.5, 0.25])}
"""
PLAN = """
rounds = 2
aggregator = "median"
[learner]
kind = "function"
module = "model.py"
[data]
clients = 200
"""
RUN = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from projects import final_model, simulate
run = simulate(Path(sys.argv[2]), engine=sys.argv[3])
print([row["clients"]["accepted"] for row in run.rows()], final_model(run)["w"].tolist())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of open files to set")
@pytest.mark.parametrize("engine", ["inline", "processes"])
def test_more_clients_than_files_may_be_open(tmp_path: Path, engine: str) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    (tmp_path / "model.py").write_text(MODEL)
    words = [sys.executable, "-c", RUN, str(PROJECTS), str(tmp_path), engine]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)
    middle = 2 * float(np.median(np.arange(200) / 4))
    expected = f"[200, 200] {[middle, -middle / 2, middle / 4]}"
    assert done.stdout.strip() == expected, done.stderr[-2000:]


def test_a_state_that_a_site_keeps_is_checked_when_it_is_read(tmp_path: Path) -> None:
    states = ClientStates(tmp_path / "states")
    for number in (1, 2):
        file = tmp_path / "state"
        file.write_bytes(b"".join(encode(Params.of({"c": np.full(3, float(number))}))))
        states.keep("client-1", number, file)
    [path] = (tmp_path / "states").rglob("*.2.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # as a power cut or a bad disk leaves it
    with pytest.raises(SiteError) as caught:
        states.load("client-1", before=3)
    assert caught.value.code == "site-damaged"
    loaded = states.load("client-1", before=2)
    assert loaded is not None and loaded["c"].tolist() == [1.0] * 3
    for number in (1, 2):
        states.drop("client-1", number)
    assert states.load("client-1", before=3) is None
    assert not [p for p in (tmp_path / "states").rglob("*") if p.is_file()]
