import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.data import (
    Biased,
    Dataset,
    Dirichlet,
    Files,
    Iid,
    Labels,
    Natural,
    Quantity,
    load,
    partition,
)
from hansa.errors import DataError
from hansa.seeds import Key

KEY = Key.root(5)


def dataset(labels, classes: int = 0) -> Dataset:
    y = np.asarray(labels)
    names = tuple(f"c{i}" for i in range(classes or y.max() + 1))
    return Dataset(np.arange(len(y))[:, None], y, names, "toy")


def skewed(rows: int, seed: int = 3) -> Dataset:
    """Ten classes of very different sizes, in random order."""
    share = np.array([1, 2, 3, 5, 8, 13, 21, 34, 55, 89]) / 231
    counts = np.floor(share * rows).astype(int)
    counts[-1] += rows - counts.sum()
    return dataset(KEY.child(seed).generator().permutation(np.repeat(np.arange(10), counts)))


def some_scheme(clients: int) -> st.SearchStrategy:
    alpha = st.sampled_from([1e-6, 0.05, 0.5, 10.0, 1e6])
    sigma = st.sampled_from([0, 0.5, 3.0, 10.0])
    return st.one_of(
        st.just(Iid(clients)),
        st.builds(Dirichlet, st.just(clients), alpha=alpha, minimum=st.integers(1, 4)),
        st.builds(Labels, st.just(clients), per_client=st.integers(1, 4)),
        st.just(Labels(clients, exclusive=True)),
        st.builds(Biased, st.just(clients), sigma=sigma),
        st.builds(Quantity, st.just(clients), sigma=sigma),
    )


@settings(max_examples=300)
@given(data=st.data(), clients=st.integers(1, 12), seed=st.integers(0, 10**6))
def test_every_row_belongs_to_exactly_one_client_and_no_client_is_empty(data, clients, seed):
    labels = data.draw(st.lists(st.integers(0, 5), min_size=0, max_size=80))
    scheme = data.draw(some_scheme(clients))
    toy = Dataset(np.zeros((len(labels), 1)), np.array(labels, int), tuple("abcdef"), "toy")
    try:
        parts = partition(scheme, toy, Key.root(seed))
    except DataError as error:
        assert error.code in ("data-too-few", "data-labels")
        return
    assert sorted(parts.order.tolist()) == list(range(len(labels)))
    assert parts.offsets[0] == 0 and parts.offsets[-1] == len(labels)
    assert len(parts) == clients == len(parts.names)
    assert parts.sizes.min() >= getattr(scheme, "minimum", 1)
    owned = np.concatenate([parts.indices(i) for i in range(clients)])
    assert owned.tolist() == parts.order.tolist()


EACH = [
    Iid(7),
    Dirichlet(7, alpha=0.3),
    Labels(7, per_client=3),
    Labels(7, exclusive=True),
    Biased(7),
    Quantity(7),
]


@pytest.mark.parametrize("scheme", EACH, ids=str)
def test_the_same_key_gives_the_same_partition_and_another_key_another(scheme):
    toy = skewed(700)
    first, again = partition(scheme, toy, KEY), partition(scheme, toy, KEY)
    other = partition(scheme, toy, KEY.child("other"))
    assert first.order.tolist() == again.order.tolist()
    assert first.offsets.tolist() == again.offsets.tolist()
    assert first.order.tolist() != other.order.tolist()


@pytest.mark.parametrize("scheme", EACH, ids=str)
def test_rows_of_a_client_are_not_sorted_by_label_or_by_row(scheme):
    toy = skewed(2000)
    for rows in map(partition(scheme, toy, KEY).indices, range(7)):
        assert np.any(np.diff(rows) < 0)
        if len(set(toy.y[rows])) > 1:
            assert np.any(np.diff(toy.y[rows]) < 0)


@pytest.mark.parametrize("scheme", [Dirichlet(4), Labels(4, per_client=2), Biased(4)], ids=str)
def test_a_client_s_rows_of_one_label_come_from_the_whole_dataset(scheme):
    """Not a block of neighbours, which often come from one source."""
    toy = dataset(np.repeat(np.arange(5), 400))
    parts = partition(scheme, toy, KEY)
    for rows in map(parts.indices, range(4)):
        for label in range(5):
            own = np.sort(rows[toy.y[rows] == label])
            if 20 <= len(own) < 300:
                assert np.ptp(own) > 300


@pytest.mark.parametrize("clients", [1, 3, 7, 100])
def test_iid_sizes_differ_by_at_most_one(clients):
    sizes = partition(Iid(clients), skewed(1000), KEY).sizes
    assert sizes.max() - sizes.min() <= 1


def test_iid_label_counts_have_the_hypergeometric_mean_and_variance():
    """1,000 clients of 20 rows: counts of a class against n K/N and its exact variance."""
    toy = skewed(20_000)
    counts = partition(Iid(1000), toy, KEY).counts(toy.y, 10)
    share = np.bincount(toy.y) / 20_000
    expected = 20 * share * (1 - share) * (20_000 - 20) / (20_000 - 1)
    assert np.allclose(counts.mean(axis=0), 20 * share)
    assert np.allclose(counts.var(axis=0), expected, rtol=0.2)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 5.0])
def test_dirichlet_shares_have_the_first_two_moments_of_the_closed_form(alpha):
    """Share of client i in class c ~ Dirichlet(alpha 1): mean 1/n, variance (n-1)/(n^2 (n a + 1)).

    200 partitions of 10 equal classes among 10 clients: 2,000 draws of each client's share.
    """
    clients, rows = 10, 400
    toy = dataset(np.repeat(np.arange(10), rows))
    shares = np.concatenate(
        [
            partition(Dirichlet(clients, alpha=alpha), toy, KEY.child(i)).counts(toy.y, 10) / rows
            for i in range(200)
        ],
        axis=1,
    )
    variance = (clients - 1) / (clients**2 * (clients * alpha + 1))
    assert shares.shape == (clients, 2000)
    assert np.allclose(shares.mean(axis=1), 0.1, atol=4 * np.sqrt(variance / 2000))
    assert np.mean(shares.var(axis=1)) == pytest.approx(variance, rel=0.05)
    # Two clients' shares of one class: covariance -1 / (n^2 (n a + 1)).
    assert np.cov(shares[3], shares[8])[0, 1] < 0


def test_dirichlet_classes_are_drawn_independently():
    """Correlation between a client's shares of two classes is about 0, not 1."""
    toy = dataset(np.repeat([0, 1], 5000))
    counts = partition(Dirichlet(500, alpha=0.5), toy, KEY).counts(toy.y, 2)
    assert abs(np.corrcoef(counts.T)[0, 1]) < 0.15


def test_dirichlet_minimum_moves_only_the_rows_that_are_missing():
    toy = skewed(1000)
    free = partition(Dirichlet(20, alpha=0.05, minimum=1), toy, KEY)
    held = partition(Dirichlet(20, alpha=0.05, minimum=30), toy, KEY)
    assert held.sizes.min() == 30
    short = np.maximum(30 - free.sizes, 0).sum()
    assert short > 0
    moved = sum(
        len(set(held.indices(i).tolist()) - set(free.indices(i).tolist())) for i in range(20)
    )
    # The free one had to fill a few empty clients itself, by other moves.
    assert short <= moved <= short + np.count_nonzero(free.sizes == 1)
    assert partition(Dirichlet(10, alpha=1e-6, minimum=100), toy, KEY).sizes.tolist() == [100] * 10


@pytest.mark.parametrize("per_client", [1, 2, 3])
def test_labels_gives_each_client_at_most_so_many_labels(per_client):
    toy = skewed(5000)
    counts = partition(Labels(20, per_client=per_client), toy, KEY).counts(toy.y, 10)
    assert np.count_nonzero(counts, axis=1).max() <= per_client
    if per_client > 1:
        assert np.count_nonzero(counts, axis=1).mean() > 1.5


def test_labels_shards_of_equal_classes_are_of_equal_size():
    """McMahan et al. 2017: 60,000 rows, 200 shards of 300, 100 clients of two shards."""
    toy = dataset(np.repeat(np.arange(10), 6000))
    parts = partition(Labels(100), toy, KEY)
    assert parts.sizes.tolist() == [600] * 100
    assert set(parts.counts(toy.y, 10).ravel().tolist()) <= {0, 300, 600}


def test_labels_refuses_fewer_places_than_labels():
    with pytest.raises(DataError, match="per_client to 4 or more") as error:
        partition(Labels(3, per_client=2), skewed(500), KEY)
    assert error.value.code == "data-labels"


def test_exclusive_labels_are_never_shared_and_dealt_evenly():
    toy = skewed(2000)
    counts = partition(Labels(4, exclusive=True), toy, KEY).counts(toy.y, 10)
    assert np.count_nonzero(counts, axis=0).tolist() == [1] * 10
    assert sorted(np.count_nonzero(counts, axis=1)) == [2, 2, 3, 3]


def test_exclusive_labels_refuses_more_clients_than_labels():
    with pytest.raises(DataError, match="10 labels") as error:
        partition(Labels(11, exclusive=True), skewed(500), KEY)
    assert error.value.code == "data-labels"


def test_biased_sizes_are_equal_and_log_odds_spread_as_sigma_says():
    """Log odds of two classes differ between clients by a normal of variance 2 sigma^2.

    Scaling rows and columns leaves their differences alone; moving rows about would dilute them.
    """
    toy, spread = dataset(np.repeat(np.arange(4), 40_000)), []
    for i in range(6):
        parts = partition(Biased(200, sigma=0.8), toy, KEY.child(i))
        counts = parts.counts(toy.y, 4)
        assert parts.sizes.tolist() == [800] * 200
        logs = np.log(np.maximum(counts, 0.5))
        spread += [(logs[:, a] - logs[:, b]).std() for a in range(4) for b in range(a)]
    assert np.mean(spread) == pytest.approx(0.8 * np.sqrt(2), rel=0.05)


def test_biased_without_bias_gives_every_client_the_same_mix():
    toy = dataset(np.repeat(np.arange(5), [100, 200, 300, 400, 500]))
    counts = partition(Biased(10, sigma=0), toy, KEY).counts(toy.y, 5)
    assert np.abs(counts - [10, 20, 30, 40, 50]).max() <= 1


def test_biased_leaves_no_client_with_what_the_others_did_not_want():
    """The last client's mix is as biased as the first one's, over many draws."""
    toy = dataset(np.repeat(np.arange(4), 1000))

    def bias(client: int) -> float:
        draws = [partition(Biased(10), toy, KEY.child(i)).counts(toy.y, 4) for i in range(60)]
        return float(np.mean([draw[client].std() for draw in draws]))

    assert bias(-1) == pytest.approx(bias(0), rel=0.25)


def test_quantity_sizes_are_log_normal_and_the_mix_of_labels_is_the_same():
    toy = skewed(400_000)
    parts = partition(Quantity(500, sigma=0.8), toy, KEY)
    assert np.log(parts.sizes).std() == pytest.approx(0.8, rel=0.1)
    largest = int(np.argmax(parts.sizes))
    share = np.bincount(toy.y[parts.indices(largest)], minlength=10) / parts.sizes[largest]
    assert np.allclose(share, np.bincount(toy.y) / 400_000, atol=0.02)


def test_quantity_without_spread_gives_equal_sizes():
    sizes = partition(Quantity(7, sigma=0), skewed(1000), KEY).sizes
    assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("scheme", [Natural(), Files()])
def test_natural_keys_become_clients_in_natural_order_with_rows_in_their_order(scheme):
    groups = np.array(["site 10", "site 9", "site 10", "site 2", "site 9"])
    toy = Dataset.of(np.eye(5), np.zeros(5), groups=groups)
    parts = partition(scheme, toy, KEY)
    assert list(parts.names) == ["site 2", "site 9", "site 10"]
    assert [parts.indices(i).tolist() for i in range(3)] == [[3], [1, 4], [0, 2]]


def test_integer_natural_keys_come_by_value():
    toy = Dataset.of(np.eye(4), np.zeros(4), groups=np.array([10, -2, 9, 10]))
    parts = partition(Natural(), toy, KEY)
    assert list(parts.names) == ["-2", "9", "10"]
    assert parts.sizes.tolist() == [1, 1, 2]


@pytest.mark.parametrize("scheme", [Natural(), Files()])
def test_natural_keys_are_missing(scheme):
    with pytest.raises(DataError) as error:
        partition(scheme, skewed(100), KEY)
    assert error.value.code == "data-no-groups"


@pytest.mark.parametrize(
    ("scheme", "needed"),
    [
        (Iid(101), "101"),
        (Dirichlet(10, minimum=11), "110"),
        (Labels(51), "102"),
        (Biased(101), "101"),
        (Quantity(101), "101"),
    ],
)
def test_too_few_rows_are_refused_with_numbers(scheme, needed):
    with pytest.raises(DataError, match=f"100 rows.* {needed}") as error:
        partition(scheme, skewed(100), KEY)
    assert error.value.code == "data-too-few"


@pytest.mark.parametrize("scheme", [Dirichlet(3), Labels(3), Biased(3)])
def test_label_schemes_refuse_regression_and_sequences(scheme):
    regression = Dataset.of(np.eye(9), np.linspace(-1, 1, 9))
    sequences = Dataset.of(np.eye(9), np.ones((9, 4), int))
    for toy in (regression, sequences):
        with pytest.raises(DataError) as error:
            partition(scheme, toy, KEY)
        assert error.value.code == "data-labels"


def test_regression_can_be_split_without_labels():
    regression = Dataset.of(np.eye(9), np.linspace(-1, 1, 9))
    assert partition(Iid(3), regression, KEY).sizes.tolist() == [3, 3, 3]


def test_classes_that_no_row_has_do_no_harm():
    toy = dataset([1, 1, 3, 3, 3, 6] * 10, classes=9)
    for scheme in (Dirichlet(3), Labels(3), Labels(3, exclusive=True), Biased(3)):
        counts = partition(scheme, toy, KEY).counts(toy.y, 9)
        assert counts.sum(axis=0).tolist() == [0, 20, 0, 30, 0, 0, 10, 0, 0]


def test_counts_agree_with_a_loop_over_clients():
    toy = skewed(500)
    parts = partition(Dirichlet(6, alpha=0.4), toy, KEY)
    expected = [np.bincount(toy.y[parts.indices(i)], minlength=10).tolist() for i in range(6)]
    assert parts.counts(toy.y, 10).tolist() == expected


def test_counts_refuse_labels_of_another_dataset():
    parts = partition(Iid(3), skewed(100), KEY)
    for labels in (np.zeros(99, int), np.zeros(100)):
        with pytest.raises(DataError) as error:
            parts.counts(labels, 10)
        assert error.value.code == "data-mismatch"


def test_a_table_beyond_the_limit_is_refused(monkeypatch):
    monkeypatch.setattr("hansa.limits.PARTITION_CELLS_MAX", 50)
    toy = skewed(500)
    for scheme in (Dirichlet(6), Biased(6)):
        with pytest.raises(DataError) as error:
            partition(scheme, toy, KEY)
        assert error.value.code == "data-too-large"
    with pytest.raises(DataError):
        partition(Iid(6), toy, KEY).counts(toy.y, 10)


def test_clients_are_addressed_like_a_sequence():
    parts = partition(Iid(4), skewed(10), KEY)
    assert parts.indices(-1).tolist() == parts.indices(3).tolist()
    assert [*parts.names] == ["client-0", "client-1", "client-2", "client-3"]
    assert parts.names[-1] == "client-3"
    assert parts.names[1:3] == ["client-1", "client-2"]
    for wrong in (parts.indices, parts.names.__getitem__):
        with pytest.raises(IndexError):
            wrong(4)


@pytest.mark.parametrize(
    "scheme", [Dirichlet(100_000), Labels(100_000), Biased(100_000), Quantity(100_000)]
)
def test_a_million_rows_are_shared_among_a_hundred_thousand_clients(scheme):
    """Takes well under a second each; no clock here, a loop over clients would be felt."""
    toy = Dataset(np.empty((1_000_000, 0)), np.arange(1_000_000) % 10, tuple("0123456789"), "big")
    parts = partition(scheme, toy, KEY)
    assert len(parts) == 100_000
    assert parts.sizes.min() >= 1
    assert np.all(np.bincount(parts.order, minlength=1_000_000) == 1)


def test_real_digits_split_by_dirichlet_are_not_iid():
    """Entropy of the clients' label mixes: near log 10 for IID, far below for alpha = 0.1."""
    digits = load("digits")

    def entropy(scheme) -> float:
        counts = partition(scheme, digits, KEY).counts(digits.y, 10)
        share = counts / counts.sum(axis=1, keepdims=True)
        return float(
            -(share * np.log(share, where=share > 0, out=np.zeros_like(share))).sum(1).mean()
        )

    assert entropy(Iid(10)) > 2.2
    assert entropy(Dirichlet(10, alpha=0.1)) < 1.3
