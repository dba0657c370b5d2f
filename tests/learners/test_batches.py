import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hansa.learners.batches import batches, endless, local_steps, one_epoch, steps_per_epoch
from hansa.learners.learner import Hyper
from hansa.seeds import Key

KEY = Key.root(3)
SIZES = st.integers(1, 70)


def rows(batch, examples):
    return np.arange(examples)[batch].tolist()


@given(examples=SIZES, batch_size=st.integers(1, 80), epochs=st.integers(1, 4))
def test_every_pass_visits_every_example_once(examples, batch_size, epochs):
    hyper = Hyper(epochs=epochs, batch_size=batch_size)
    seen = [rows(b, examples) for b in batches(examples, hyper, KEY)]
    assert len(seen) == local_steps(examples, hyper)
    flat = list(itertools.chain(*seen))
    for epoch in range(epochs):
        assert sorted(flat[epoch * examples : (epoch + 1) * examples]) == list(range(examples))
    sizes = [min(batch_size, examples - s) for s in range(0, examples, batch_size)]
    if len(sizes) > 1 and sizes[-1] == 1 < batch_size:
        sizes[-2:] = [batch_size + 1]  # nobody trains on a single example
    assert [len(b) for b in seen] == sizes * epochs


@given(examples=SIZES, batch_size=st.integers(1, 80), steps=st.integers(1, 60))
def test_steps_take_the_place_of_epochs(examples, batch_size, steps):
    hyper = Hyper(epochs=7, steps=steps, batch_size=batch_size)
    assert local_steps(examples, hyper) == steps
    assert len(list(batches(examples, hyper, KEY))) == steps


def test_steps_end_in_the_middle_of_a_pass():
    hyper = Hyper(steps=5, batch_size=4)
    seen = [rows(b, 10) for b in batches(10, hyper, KEY)]
    assert [len(b) for b in seen] == [4, 4, 2, 4, 4]


def test_the_order_depends_on_the_key_and_the_pass_alone():
    hyper = Hyper(epochs=2, batch_size=10)
    first, again = (np.concatenate(list(batches(50, hyper, KEY))) for _ in range(2))
    other = np.concatenate(list(batches(50, hyper, KEY.child("other"))))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first[:50], first[50:])
    assert first[:50].tolist() != list(range(50))


def test_all_examples_are_one_unshuffled_batch():
    assert list(one_epoch(5, None, KEY)) == [slice(0, 5)]
    assert list(one_epoch(5, 5, KEY)) == [slice(0, 5)]
    assert steps_per_epoch(5, None) == steps_per_epoch(5, 9) == 1


def test_endless_batches_begin_like_those_of_a_round():
    hyper = Hyper(epochs=3, batch_size=4)
    bounded = [rows(b, 10) for b in batches(10, hyper, KEY)]
    unbounded = [rows(b, 10) for b in itertools.islice(endless(10, hyper, KEY), 20)]
    assert unbounded[:9] == bounded
    assert len(unbounded) == 20
