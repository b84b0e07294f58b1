"""Columns of every kind, told apart by a sample: keys, codes and constants from measurements."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import datasets

from gmm_dask.sampling import profile
from gmm_dask.sampling.profile import Oddity, Seen, odd_columns

N = 500
Make = Callable[[np.random.Generator, int], np.ndarray]

KEYS: dict[str, Make] = {
    "counted up": lambda _, n: np.arange(n),
    "counted up from far": lambda _, n: 7_000_000 + np.arange(n),
    "counted down": lambda _, n: np.arange(n)[::-1],
    "counted in tens": lambda rng, n: 10 * rng.permutation(n),
    "shuffled": lambda rng, n: rng.permutation(n),
    "some of many": lambda rng, n: rng.choice(3 * n, n, replace=False),
    "in two blocks": lambda rng, n: rng.permutation(n) + 10**6 * (rng.random(n) < 0.5),
    "one in fifty twice": lambda rng, n: np.where(rng.random(n) < 0.02, 3, rng.permutation(n)),
    "one in fifty unknown": lambda rng, n: np.where(rng.random(n) < 0.02, -1, rng.permutation(n)),
    "32 random bits": lambda rng, n: rng.integers(0, 2**32, n),
    "53 random bits": lambda rng, n: rng.integers(-(2**52), 2**52, n),
    "six random digits": lambda rng, n: rng.choice(
        np.arange(100_000, max(1_000_000, 200_000 + n)), n, replace=False
    ),
    "every minute": lambda _, n: 1_700_000_000 + 60 * np.arange(n),
    "with growing gaps": lambda rng, n: np.cumsum(np.arange(n) ** 2 * rng.integers(1, 99, n) + 1),
}
MEASURED: dict[str, Make] = {
    "fractions": lambda rng, n: rng.normal(size=n),
    "halves of the unique": lambda rng, n: rng.permutation(n) / 2,
    "beyond whole numbers": lambda rng, n: 2.0**53 * rng.permutation(n) + 2.0**54,
    "grams": lambda rng, n: rng.normal(3500, 500, n).round(),
    "incomes": lambda rng, n: rng.lognormal(10, 0.7, n).round(),
    "incomes in thousands": lambda rng, n: rng.lognormal(4, 0.7, n).round() * 1000,
    "bytes": lambda rng, n: rng.lognormal(20, 2, n).round(),
    "seconds to failure": lambda rng, n: rng.exponential(1e7, n).round(),
    "two clusters of wide range": lambda rng, n: (
        rng.normal(0, 1e7, n).round() + 1e8 * (rng.random(n) < 0.3)
    ),
    "counts": lambda rng, n: rng.poisson(60, n),
    "days of a year": lambda rng, n: rng.integers(1, 366, n),
}
CODES: dict[str, Make] = {
    "yes or no": lambda rng, n: rng.integers(0, 2, n),
    "three classes": lambda rng, n: rng.integers(0, 3, n),
    "marks": lambda rng, n: rng.integers(1, 6, n),
    "months": lambda rng, n: rng.integers(1, 13, n),
    "years": lambda rng, n: rng.integers(2015, 2025, n),
    "powers of ten": lambda rng, n: 10 ** rng.integers(0, 6, n),
}


def seen(rows: np.ndarray, **more: Any) -> Seen:
    """All rows, in their order."""
    return Seen(rows, np.nanmin(rows, axis=0), np.nanmax(rows, axis=0), len(rows), **more)


def judged(values: Any, name: str = "x", n_rows: int | None = None) -> Oddity | None:
    """What one column is, beside one of fractions."""
    column = np.asarray(values, dtype=np.float64)
    rows = seen(np.stack([column, np.linspace(0, 1, len(column)) ** 2], axis=1))
    found = odd_columns(rows._replace(n_rows=n_rows or len(column)), [name, "fractions"])
    assert all(columns == (0,) for columns in found.values())
    assert len(found) <= 1
    return next(iter(found), None)


def kind_of(make: Make, n: int, rng: np.random.Generator, *, is_drawn: bool = False) -> Any:
    values = make(rng, n).astype(np.float64)
    rows = np.stack([values, rng.normal(size=n)], axis=1)
    found = odd_columns(seen(rows, is_drawn=is_drawn), ["x", "y"])
    return next((oddity for oddity, columns in found.items() if columns == (0,)), None)


@pytest.mark.parametrize("is_drawn", [False, True])
@pytest.mark.parametrize("n", [N, 20_000])
@pytest.mark.parametrize("name", list(KEYS))
def test_keys_are_keys(name: str, n: int, is_drawn: bool) -> None:
    rng = np.random.default_rng(3)
    if name == "with growing gaps" and (is_drawn or n > N):
        pytest.skip("only the order of the rows gives it away, and the last is beyond 2^53")
    assert kind_of(KEYS[name], n, rng, is_drawn=is_drawn) is Oddity.KEY


@pytest.mark.parametrize("is_drawn", [False, True])
@pytest.mark.parametrize("n", [150, N, 20_000])
@pytest.mark.parametrize("name", list(MEASURED))
def test_measurements_are_no_keys(name: str, n: int, is_drawn: bool) -> None:
    for seed in range(20 if n < 20_000 else 2):
        rng = np.random.default_rng(seed)
        assert kind_of(MEASURED[name], n, rng, is_drawn=is_drawn) is None


@pytest.mark.parametrize("n", [N, 20_000])
@pytest.mark.parametrize("name", list(CODES))
def test_codes_are_codes(name: str, n: int) -> None:
    assert kind_of(CODES[name], n, np.random.default_rng(5)) is Oddity.CODE


def test_each_column_is_judged_for_itself_whatever_stands_beside_it() -> None:
    rng = np.random.default_rng(8)
    columns = [
        rng.normal(size=N), np.arange(N), np.full(N, 2.5), rng.integers(0, 2, N),
        rng.permutation(N), np.full(N, -1), rng.poisson(60, N),
    ]  # fmt: skip
    rows = np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)
    found = odd_columns(seen(rows), list("abcdefg"))
    assert found == {Oddity.CONSTANT: (2, 5), Oddity.CODE: (3,), Oddity.KEY: (1, 4)}
    order = rng.permutation(7)
    moved = odd_columns(seen(rows[:, order]), [list("abcdefg")[j] for j in order])
    assert {odd: {int(order[j]) for j in js} for odd, js in moved.items()} == {
        odd: set(js) for odd, js in found.items()
    }


@given(
    st.sampled_from([*KEYS.values(), *MEASURED.values(), *CODES.values()]),
    st.integers(1, 50), st.integers(-(10**6), 10**6), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_the_unit_and_the_zero_of_whole_numbers_do_not_matter(
    make: Make, unit: int, zero: int, seed: int
) -> None:
    values = make(np.random.default_rng(seed), 300).astype(np.float64)
    moved = unit * values + zero
    if (values == values.round()).all() and max(np.abs(values).max(), np.abs(moved).max()) < 2**52:
        assert judged(moved) is judged(values)


def test_values_that_are_missing_say_nothing() -> None:
    rng = np.random.default_rng(2)
    for values, oddity in (
        (np.arange(N), Oddity.KEY),
        (rng.integers(0, 3, N), Oddity.CODE),
        (rng.poisson(60, N), None),
    ):
        holed = np.where(rng.random(N) < 0.3, np.nan, values)
        assert judged(holed) is oddity
    rows = np.stack([np.where(np.arange(N) % 2, np.nan, 7.0), rng.normal(size=N)], axis=1)
    assert odd_columns(seen(rows), ["a", "b"]) == {Oddity.CONSTANT: (0,)}


def test_whole_numbers_in_float32_are_whole_up_to_its_last_digit() -> None:
    rng = np.random.default_rng(4)
    rows = np.stack([rng.permutation(N), 2.0**24 + 2 * rng.permutation(N)], axis=1)
    assert odd_columns(seen(rows.astype(np.float32)), ["a", "b"]) == {Oddity.KEY: (0,)}
    assert odd_columns(seen(rows), ["a", "b"]) == {Oddity.KEY: (0, 1)}


def test_few_values_are_sixteen_with_five_rows_each() -> None:
    values = np.arange(16) ** 2.0
    assert judged(np.tile(values, 5)) is Oddity.CODE
    assert judged(np.tile(values, 5)[:-1]) is None
    assert judged(np.tile(np.arange(17) ** 2.0, 5)) is None
    assert judged(values, n_rows=80) is Oddity.CODE  # rows that are equal stand for others
    assert judged(values, n_rows=79) is not Oddity.CODE


def test_nearly_unique_is_one_row_in_twenty() -> None:
    assert (profile.SHARED, profile.NEIGHBOURS, profile.NEIGHBOURS_EACH) == (1 / 20, 10, 8)
    rng = np.random.default_rng(0)
    for shared, oddity in ((20, Oddity.KEY), (21, None)):
        values = np.concatenate([np.arange(400 - shared), np.arange(shared)])
        assert judged(rng.permutation(values)) is oddity


def test_neighbours_outnumber_equals_by_eight_to_one_and_ten_more() -> None:
    rng = np.random.default_rng(0)
    for pairs, equals, oddity in (
        (10, 0, Oddity.KEY),
        (9, 0, None),
        (18, 1, Oddity.KEY),
        (17, 1, None),
    ):
        apart = 1000.0 * np.arange(60 - 2 * pairs - 2 * equals) ** 2 + 10**6
        next_ones = 100.0 * np.arange(pairs)[:, None] + [0, 1]
        same = np.repeat(10**5 + 50.0 * np.arange(equals), 2)
        values = np.concatenate([apart, next_ones.ravel(), same])
        assert len(values) == 60
        assert judged(rng.permutation(values)) is oddity


def test_an_even_spread_is_told_from_150_rows_on() -> None:
    rng = np.random.default_rng(0)
    even = rng.permutation(10**6 + 997 * np.arange(150) + rng.integers(0, 500, 150))
    assert judged(even) is Oddity.KEY
    assert judged(even[1:]) is None
    bell = rng.normal(0, 1e6, 150).round()
    assert len(np.unique(bell)) == 150
    assert judged(bell) is None


def test_the_order_of_rows_counts_where_it_is_known() -> None:
    rng = np.random.default_rng(1)
    ascending = np.sort(rng.choice(10**9, 30, replace=False)).astype(float)
    assert judged(ascending) is Oddity.KEY
    assert judged(ascending[::-1]) is None  # as tables stand that are sorted by what was measured
    assert judged(rng.permutation(ascending)) is None
    rows = np.stack([ascending, rng.normal(size=30)], axis=1)
    assert odd_columns(seen(rows, is_drawn=True), ["a", "b"]) == {}
    assert judged(np.arange(10) ** 2) is None
    assert judged(np.arange(11) ** 2) is Oddity.KEY


@pytest.mark.parametrize(
    "name",
    ["id", "ID", "Id", "customer_id", "customer id", "order-ID", "customerId", "orderID", "user.id",
     "primary_key", "sortKey", "uuid", "row_guid", "id_customer", "2_pk", "Größe_id"],
)  # fmt: skip
def test_a_whole_number_that_is_named_a_key_is_one_of_these_rows_or_of_others(name: str) -> None:
    visits = np.random.default_rng(0).poisson(60, N)
    assert judged(visits) is None
    assert judged(visits, name) is Oddity.KEY
    assert judged(visits + 0.5, name) is None


@pytest.mark.parametrize(
    "name", ["humid", "paid", "Madrid", "monkey", "turkey", "idle", "ideal", "keys_per_s", "AID"]
)
def test_words_that_end_or_begin_like_a_key_are_none(name: str) -> None:
    assert judged(np.random.default_rng(0).poisson(60, N), name) is None


def test_a_number_that_is_named_so_is_a_key_where_it_is_nearly_unique() -> None:
    sales = np.random.default_rng(0).lognormal(15, 1, 60).round()
    for name in ("account_number", "customerid", "Order No", "zip code", "serial", "index"):
        assert judged(sales) is None
        assert judged(sales, name) is Oddity.KEY
        assert judged(np.repeat(sales, 2), name) is None


def test_rows_that_were_not_drawn_count() -> None:
    """What is unique in a sample need not be so in all rows."""
    rng = np.random.default_rng(6)
    drawn = np.stack([rng.choice(10**6, 1000, replace=False), rng.normal(size=1000)], axis=1)
    some = Seen(drawn, np.zeros(2), np.full(2, 1e6), 10**6, is_drawn=True)
    assert odd_columns(some, ["a", "b"]) == {Oddity.KEY: (0,)}
    assert odd_columns(some._replace(n_rows=1_052_000), ["a", "b"]) == {Oddity.KEY: (0,)}
    assert odd_columns(some._replace(n_rows=1_053_000), ["a", "b"]) == {}  # there is no room
    assert odd_columns(some._replace(copies=1.17), ["a", "b"]) == {Oddity.KEY: (0,)}
    assert odd_columns(some._replace(copies=1.18), ["a", "b"]) == {}  # most rows stand there twice


def test_different_rows_of_one_column_do_not_make_it_unique() -> None:
    ages = np.arange(18.0, 95.0)[:, None]
    found = odd_columns(Seen(ages, ages[0], ages[-1], 10**6, is_drawn=True, copies=1e6 / 77), ["x"])
    assert found == {}
    rng = np.random.default_rng(7)
    prices = np.unique(rng.lognormal(9, 1, 20_000).round())[:, None]
    few = Seen(rng.permutation(prices), prices[0], prices[-1], len(prices), is_drawn=True)
    assert odd_columns(few, ["x"]) == {}


def test_so_many_rows_are_looked_at_that_it_takes_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rows = np.stack(
        [rng.permutation(5000), rng.integers(0, 3, 5000), rng.poisson(60, 5000)], axis=1
    )
    expected = {Oddity.CODE: (1,), Oddity.KEY: (0,)}
    looked_at: list[int] = []
    monkeypatch.setattr(profile, "MOST_VALUES", 3 * 2000)
    of = profile._Column.of
    monkeypatch.setattr(
        profile._Column,
        "of",
        lambda rows, j, seen: looked_at.append(len(rows)) or of(rows, j, seen),
    )
    for is_drawn in (False, True):
        found = odd_columns(seen(rows.astype(float), is_drawn=is_drawn), ["a", "b", "c"])
        assert found == expected
    assert set(looked_at) == {2000}


ODD_IN = {
    "iris": {Oddity.CODE: ("target",)},
    "wine": {Oddity.CODE: ("target",)},
    "breast_cancer": {Oddity.CODE: ("target",)},
    "linnerud": {},
}


@pytest.mark.parametrize("name", list(ODD_IN))
def test_of_real_tables_nothing_but_the_classes_is_odd(name: str) -> None:
    assert odd_in(getattr(datasets, f"load_{name}")(as_frame=True).frame) == ODD_IN[name]


def test_sex_is_a_code_and_pixels_at_the_edge_are_hardly_ever_set() -> None:
    assert odd_in(datasets.load_diabetes(as_frame=True, scaled=False).frame) == {
        Oddity.CODE: ("sex",)
    }
    digits = odd_in(datasets.load_digits(as_frame=True).frame)
    assert digits[Oddity.CONSTANT] == ("pixel_0_0", "pixel_4_0", "pixel_4_7")
    assert len(digits[Oddity.CODE]) == 20
    assert not any(name.startswith("pixel_3_3") for name in digits[Oddity.CODE])
    assert Oddity.KEY not in digits


def test_of_flights_the_row_number_is_a_key() -> None:
    flights = import_module("examples.make_flights")
    table = flights.complete_flights(flights.read_flights()).to_pandas()
    numbers = table.select_dtypes("number")
    assert odd_in(numbers) == {Oddity.CODE: ("month",), Oddity.KEY: ("flight_id",)}


def odd_in(frame: Any) -> dict[Oddity, tuple[str, ...]]:
    names = list(map(str, frame.columns))
    found = odd_columns(seen(frame.to_numpy(np.float64)), names)
    return {oddity: tuple(names[j] for j in columns) for oddity, columns in found.items()}
