import msgspec
import pytest

from hansa import limits
from hansa.data import Biased, Dirichlet, Files, Iid, Labels, Natural, Quantity, Scheme
from hansa.data.schemes import scheme_of
from hansa.errors import DataError

ALL = [
    ({"scheme": "iid", "clients": 5}, Iid(5)),
    ({"scheme": "dirichlet", "clients": 5}, Dirichlet(5, alpha=0.5, minimum=1)),
    ({"scheme": "dirichlet", "clients": 5, "alpha": 1}, Dirichlet(5, 1)),
    ({"scheme": "labels", "clients": 5}, Labels(5, per_client=2, exclusive=False)),
    ({"scheme": "labels", "clients": 5, "exclusive": True}, Labels(5, exclusive=True)),
    ({"scheme": "biased", "clients": 5, "sigma": 2.5}, Biased(5, sigma=2.5)),
    ({"scheme": "quantity", "clients": 5}, Quantity(5, sigma=1.0)),
    ({"scheme": "natural"}, Natural()),
    ({"scheme": "files"}, Files()),
]


@pytest.mark.parametrize(("plain", "scheme"), ALL)
def test_a_scheme_is_read_from_a_plan_by_its_tag_and_written_back(plain, scheme):
    assert msgspec.convert(plain, Scheme) == scheme
    assert msgspec.convert(msgspec.to_builtins(scheme), Scheme) == scheme


@pytest.mark.parametrize(
    "plain",
    [
        {"scheme": "iid", "clients": 5, "alpha": 0.5},
        {"scheme": "iid"},
        {"scheme": "random", "clients": 5},
        {"clients": 5},
        {"scheme": "natural", "clients": 5},
    ],
)
def test_a_plan_with_an_unknown_missing_or_foreign_key_is_refused(plain):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(plain, Scheme)


OUT_OF_RANGE = [
    (Iid, {"clients": 0}, "clients"),
    (Iid, {"clients": -3}, "clients"),
    (Iid, {"clients": True}, "clients"),
    (Iid, {"clients": 2.0}, "clients"),
    (Iid, {"clients": "5"}, "clients"),
    (Iid, {"clients": limits.CLIENTS_MAX + 1}, "clients"),
    (Dirichlet, {"clients": 0}, "clients"),
    (Dirichlet, {"clients": 2, "alpha": 0}, "alpha"),
    (Dirichlet, {"clients": 2, "alpha": -1.0}, "alpha"),
    (Dirichlet, {"clients": 2, "alpha": float("nan")}, "alpha"),
    (Dirichlet, {"clients": 2, "alpha": float("inf")}, "alpha"),
    (Dirichlet, {"clients": 2, "alpha": "big"}, "alpha"),
    (Dirichlet, {"clients": 2, "minimum": 0}, "minimum"),
    (Labels, {"clients": 0}, "clients"),
    (Labels, {"clients": 2, "per_client": 0}, "per_client"),
    (Biased, {"clients": 0}, "clients"),
    (Biased, {"clients": 2, "sigma": -0.1}, "sigma"),
    (Quantity, {"clients": 0}, "clients"),
    (Quantity, {"clients": 2, "sigma": 11}, "sigma"),
]


@pytest.mark.parametrize(("kind", "values", "field"), OUT_OF_RANGE)
def test_a_value_out_of_range_is_refused_when_the_scheme_is_made(kind, values, field):
    with pytest.raises(DataError) as error:
        kind(**values)
    assert error.value.code == "data-scheme"
    assert f"{field} = {values[field]!r}" in error.value.happened


def test_a_value_out_of_range_is_refused_when_a_plan_is_read():
    with pytest.raises(DataError, match="alpha"):
        msgspec.convert({"scheme": "dirichlet", "clients": 3, "alpha": -2.0}, Scheme)


def test_a_table_of_options_becomes_a_scheme_or_a_data_error():
    assert scheme_of({"scheme": "labels", "clients": 4, "per_client": 1}) == Labels(4, 1)
    for options in ({"scheme": "iid", "client": 4}, {"scheme": "magic"}, {"scheme": "iid"}):
        with pytest.raises(DataError) as error:
            scheme_of(options)
        assert error.value.code == "data-scheme"


def test_schemes_are_values():
    with pytest.raises(AttributeError):
        Iid(3).clients = 4
    assert Iid(3) == Iid(3) != Iid(4)
