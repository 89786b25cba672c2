import itertools
from collections import Counter, defaultdict
from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from settings.errors import DataError
from trainer.data.splits import rows_by_user, split_ratings, use_given_split
from trainer.schema import RATINGS_SCHEMA

METHODS = ["none", "random", "last", "time"]
FRACTIONS = st.sampled_from([0.0, 0.1, 0.145, 0.2, 0.25, 0.35, 0.45])

ROWS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(-3, 12)), min_size=1, max_size=60)
"""Users and times of ratings. Many times are equal."""


def ratings_table(rows):
    """A table of RATINGS_SCHEMA, in two chunks, from (user_id, timestamp) pairs."""
    table = pa.table(
        {
            "user_id": [user for user, _ in rows],
            "item_id": [str(row) for row in range(len(rows))],
            "rating": [1.0] * len(rows),
            "timestamp": [time for _, time in rows],
        },
        schema=RATINGS_SCHEMA,
    )
    half = len(rows) // 2
    return pa.concat_tables([table.slice(0, half), table.slice(half)])


def split_rows(rows, method, validation_fraction=0.1, test_fraction=0.2, seed=0):
    return split_ratings(
        ratings_table(rows),
        method=method,
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        seed=seed,
    )


def expected_held_out(n, validation_fraction, test_fraction):
    """The rule of the module docstring, in decimal arithmetic."""

    def rounded(fraction):
        return int((n * Decimal(str(fraction))).quantize(Decimal(1), ROUND_HALF_UP))

    num_test = min(rounded(test_fraction), n - 1)
    return min(rounded(validation_fraction), n - 1 - num_test), num_test


def same(left, right):
    return all(np.array_equal(getattr(left, part), getattr(right, part)) for part in ("train", "validation", "test"))


@settings(deadline=None)
@given(ROWS, st.sampled_from(METHODS), FRACTIONS, FRACTIONS, st.integers(0, 2**32))
def test_a_split_holds_every_row_once_in_ascending_order(rows, method, validation, test, seed):
    try:
        split = split_rows(rows, method, validation, test, seed)
    except DataError:
        return
    parts = [split.train, split.validation, split.test]
    assert all(part.dtype == np.int64 and (np.diff(part) > 0).all() for part in parts)
    assert sorted(np.concatenate(parts)) == list(range(len(rows)))


@settings(deadline=None)
@given(ROWS, st.sampled_from(["random", "last"]), FRACTIONS, FRACTIONS, st.integers(0, 2**32))
def test_the_rule_gives_the_number_of_held_out_ratings_of_each_user(rows, method, validation, test, seed):
    expected = {user: expected_held_out(n, validation, test) for user, n in Counter(user for user, _ in rows).items()}
    for which, fraction in enumerate((validation, test)):
        if fraction and not any(counts[which] for counts in expected.values()):
            with pytest.raises(DataError, match=f"The {('validation', 'test')[which]} split .* is empty"):
                split_rows(rows, method, validation, test, seed)
            return

    split = split_rows(rows, method, validation, test, seed)
    num_validation = Counter(rows[row][0] for row in split.validation)
    num_test = Counter(rows[row][0] for row in split.test)
    assert {user: (num_validation[user], num_test[user]) for user in expected} == expected
    assert {rows[row][0] for row in split.train} == set(expected), "a user has nothing left in training"


@pytest.mark.parametrize(
    ("n", "fraction", "num_test"),
    # As floats, 100 · 0.145, 45 · 0.7 and 50 · 0.29 are slightly too small to be rounded up.
    [(100, 0.145, 15), (45, 0.7, 32), (50, 0.29, 15), (5, 0.1, 1), (10, 0.1, 1), (2, 0.9, 1)],
)
@pytest.mark.parametrize("method", ["random", "last", "time"])
def test_the_number_held_out_is_exact_in_decimals(method, n, fraction, num_test):
    split = split_rows([("a", time) for time in range(n)], method, 0.0, fraction)
    assert (len(split.train), len(split.validation), len(split.test)) == (n - num_test, 0, num_test)


def test_none_uses_all_ratings_for_training_and_ignores_the_fractions():
    split = split_rows([("a", 1), ("b", 1), ("a", 2)], "none")
    assert (split.train.tolist(), split.validation.tolist(), split.test.tolist()) == ([0, 1, 2], [], [])


def test_last_holds_out_the_latest_with_ties_by_row_order():
    times = {"a": [50, 10, 40, 40, 30, 40, 20, 60, 5, 1], "b": [3, 3, 3, 3, 3]}
    rows = [("a", time) for time in times["a"]] + [("b", time) for time in times["b"]]
    split = split_rows(rows, "last", validation_fraction=0.2, test_fraction=0.2)
    assert split.test.tolist() == [0, 7, 14]
    assert split.validation.tolist() == [3, 5, 13]


@settings(deadline=None)
@given(ROWS)
def test_last_is_later_than_what_comes_before(rows):
    try:
        split = split_rows(rows, "last", 0.2, 0.3)
    except DataError:
        return
    moments = [defaultdict(list), defaultdict(list), defaultdict(list)]
    for part, part_rows in zip(moments, (split.train, split.validation, split.test), strict=True):
        for row in part_rows:
            part[rows[row][0]].append((rows[row][1], row))
    for user in moments[0]:
        in_order = [moment for part in moments for moment in sorted(part[user])]
        assert in_order == sorted(in_order)


@settings(deadline=None)
@given(ROWS, st.integers(0, 2**32))
def test_random_is_a_function_of_the_seed(rows, seed):
    try:
        assert same(split_rows(rows, "random", seed=seed), split_rows(rows, "random", seed=seed))
    except DataError:
        return


def test_random_with_another_seed_is_another_split():
    rows = [("ab"[row % 2], row) for row in range(100)]
    splits = [split_rows(rows, "random", seed=seed) for seed in range(20)]
    assert len({tuple(split.test) for split in splits}) == 20
    assert len({tuple(split.validation) for split in splits}) == 20


def test_random_does_not_change_between_versions():
    """A run that is resumed after an upgrade must get the same split again."""
    rows = [("abcd"[row % 4], row) for row in range(40)]
    split = split_rows(rows, "random", seed=17)
    assert split.validation.tolist() == [7, 8, 25, 38]
    assert split.test.tolist() == [0, 13, 14, 24, 29, 31, 34, 35]


def test_random_holds_out_all_ratings_with_equal_probability():
    num_users, num_each = 4000, 5
    rows = [(str(row // num_each), row) for row in range(num_users * num_each)]
    split = split_rows(rows, "random", validation_fraction=0.2, test_fraction=0.2, seed=1)
    for part in (split.validation, split.test):
        # Binomial(4000, 1/5) has the mean 800 and the standard deviation 25.
        assert np.abs(np.bincount(part % num_each, minlength=num_each) - 800).max() < 4 * 25


@settings(deadline=None)
@given(ROWS, FRACTIONS, FRACTIONS)
def test_time_cuts_at_quantiles_and_never_between_equal_times(rows, validation, test):
    try:
        split = split_rows(rows, "time", validation, test)
    except DataError:
        return
    times = np.array([time for _, time in rows])
    parts = [times[part] for part in (split.train, split.validation, split.test)]
    bounds = [(part.min(), part.max()) for part in parts if len(part)]
    for (_, latest_before), (earliest_after, _) in itertools.pairwise(bounds):
        assert latest_before < earliest_after

    # A later cut would hold out too few ratings.
    num_validation, num_test = expected_held_out(len(rows), validation, test)
    for held_out, asked in ((parts[2], num_test), (np.concatenate(parts[1:]), num_validation + num_test)):
        if asked:
            assert len(held_out) >= asked > (held_out > held_out.min()).sum()


def test_time_keeps_ratings_of_one_second_in_the_later_split():
    rows = [("abcdefghij"[row], time) for row, time in enumerate([9, 1, 7, 2, 3, 4, 7, 4, 6, 7])]
    split = split_rows(rows, "time", validation_fraction=0.5, test_fraction=0.2)
    # The second-latest rating is at time 7, like two others. The seventh-latest is at time 4.
    assert split.test.tolist() == [0, 2, 6, 9]
    assert split.validation.tolist() == [5, 7, 8]
    assert split.train.tolist() == [1, 3, 4]


@pytest.mark.parametrize("method", METHODS)
def test_no_ratings_are_an_error(method):
    with pytest.raises(DataError, match="no ratings"):
        split_rows([], method)


@pytest.mark.parametrize("method", ["random", "last"])
def test_a_split_that_no_user_can_fill_is_an_error(method):
    rows = [(str(user), 1) for user in range(50)]
    with pytest.raises(DataError, match=r"validation split of 50 ratings is empty.*no user has enough"):
        split_rows(rows, method)
    assert len(split_rows(rows, method, 0.0, 0.0).train) == 50


def test_a_time_split_needs_different_times():
    with pytest.raises(DataError, match=r"No ratings are left to train on.*'time'"):
        split_rows([("a", 5)] * 10, "time")
    with pytest.raises(DataError, match=r"validation split of 10 ratings is empty.*the same time"):
        split_rows([("a", 1)] * 3 + [("a", 5)] * 7, "time")


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), max_size=60), st.integers(0, 3))
def test_rows_by_user_are_all_rows_of_each_user_in_order(user_indices, num_absent):
    num_users = 7 + num_absent
    offsets, rows = rows_by_user(np.array(user_indices, np.int32), num_users)
    assert offsets.dtype == rows.dtype == np.int64
    assert [rows[offsets[user] : offsets[user + 1]].tolist() for user in range(num_users)] == [
        [row for row, of_row in enumerate(user_indices) if of_row == user] for user in range(num_users)
    ]
    assert len(offsets) == num_users + 1


@settings(deadline=None)
@given(ROWS, st.data(), FRACTIONS, st.integers(0, 3))
def test_a_given_split_is_used_and_validation_is_only_taken_from_training(rows, data, fraction, seed):
    parts = data.draw(st.lists(st.sampled_from([0, 0, 1, 2]), min_size=len(rows), max_size=len(rows)))
    parts[0] = 0  # A source without ratings is refused earlier, so training has some.
    given = {part: [row for row, of_row in enumerate(parts) if of_row == part] for part in range(3)}
    arguments = {"validation_fraction": fraction, "seed": seed}
    of_user = Counter(rows[row][0] for row in given[0])
    expected = {user: expected_held_out(n, fraction, 0.0)[0] for user, n in of_user.items()}
    if not given[1] and fraction and not sum(expected.values()):
        with pytest.raises(DataError, match=r"validation split of .* is empty: config\.split\.method is 'given'"):
            use_given_split(ratings_table(rows), np.array(parts, np.int8), **arguments)
        return
    split = use_given_split(ratings_table(rows), np.array(parts, np.int8), **arguments)
    assert split.test.tolist() == given[2]
    if given[1] or not fraction:
        assert (split.train.tolist(), split.validation.tolist()) == (given[0], given[1])
        return
    assert sorted([*split.train.tolist(), *split.validation.tolist()]) == given[0]
    assert split.train.tolist() == sorted(split.train.tolist())
    held_out = Counter(rows[row][0] for row in split.validation.tolist())
    assert {user: held_out[user] for user in of_user} == expected


def test_the_validation_part_of_a_given_split_depends_on_the_seed_alone():
    table, part = ratings_table([("a", time) for time in range(40)]), np.zeros(40, np.int8)

    def carve(seed):
        return use_given_split(table, part, validation_fraction=0.2, seed=seed)

    assert same(carve(1), carve(1))
    assert not same(carve(1), carve(2))
    # The rule is that of `random`.
    assert same(carve(1), split_ratings(table, method="random", validation_fraction=0.2, test_fraction=0.0, seed=1))
