"""Splits ratings into training, validation and test ratings.

The number of ratings that are held out of n ratings is always

    num_test = min(⌊n · test_fraction + 1/2⌋, n − 1)
    num_validation = min(⌊n · validation_fraction + 1/2⌋, n − 1 − num_test)

Fractions are decimals, as the user wrote them: 0.145 of 100 ratings is 14.5, which rounds to 15, although the float
0.145 times 100 is below 14.5. At least one rating is left for training. For `random` and `last`, n is the number of
ratings of one user. For `time`, n is the number of all ratings.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pyarrow as pa

from settings.errors import DataError
from trainer.schema import SPLITS, TIMESTAMP, USER_ID

_TRAIN, _VALIDATION, _TEST = range(3)

_HeldOutRule = Callable[[int], tuple[int, int]]

_ROWS_PER_DRAW = 1 << 20


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers of the ratings table. They are ascending, and each row is in exactly one part.

    Attributes:
      train: int64 [num_train].
      validation: int64 [num_validation].
      test: int64 [num_test].
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def split_ratings(
    ratings: pa.Table, *, method: str, validation_fraction: float, test_fraction: float, seed: int
) -> Split:
    """Splits the rows of `ratings` into training, validation and test rows.

    Args:
      ratings: a table of RATINGS_SCHEMA.
      method: `none` uses all ratings for training and ignores the fractions. `random` holds out random ratings of
        each user. `last` holds out each user's latest ratings, with ties in time ordered by row: the test ratings
        are the latest, and the validation ratings come before them. `time` cuts all ratings at two points in time.
        Ratings of the same second stay together in the later split, so it can be larger than its fraction.
      validation_fraction: in [0, 1).
      test_fraction: in [0, 1). The sum of both fractions is less than 1.
      seed: the seed of `random`. The split depends only on the seed and the rows, not on the version of NumPy.

    Raises:
      DataError: no ratings are left for training, or a split with a positive fraction is empty.
    """
    if ratings.num_rows == 0:
        raise DataError(
            "There are no ratings to train on: the table of ratings is empty. Set config.data.source to other ratings."
        )

    if method == "time":
        ascending = np.sort(_timestamps(ratings))
        ranks = held_out_ranks(ratings.num_rows, validation_fraction=validation_fraction, test_fraction=test_fraction)
        cuts = tuple(None if rank is None else int(ascending[rank]) for rank in ranks)
        part = split_at(_timestamps(ratings), cuts)
    else:
        part = split_each_user(
            ratings,
            np.arange(ratings.num_rows),
            method=method,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
            seed=seed,
        )
    split = Split(*(np.flatnonzero(part == which) for which in (_TRAIN, _VALIDATION, _TEST)))
    check_not_empty(
        [len(rows) for rows in (split.train, split.validation, split.test)],
        method=method,
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
    )
    return split


def split_each_user(
    ratings: pa.Table,
    rows: np.ndarray,
    *,
    method: str,
    validation_fraction: float,
    test_fraction: float,
    seed: int,
) -> np.ndarray:
    """Splits all ratings of some users.

    Args:
      ratings: the ratings of these users, a table with the columns of RATINGS_SCHEMA, whose ids may be dictionaries.
      rows: int64 [num_ratings], ascending: the numbers of these rows among the ratings of all users.
      method: a method of `split_ratings` other than `time`.
      validation_fraction, test_fraction, seed: as in `split_ratings`.

    Returns:
      int8 [num_ratings], the position in schema.SPLITS of the split of each row.
    """
    if method == "none":
        return np.full(ratings.num_rows, _TRAIN, np.int8)
    if method == "random":
        order = _random_order(rows, seed)
    elif method == "last":
        order = _time_order(ratings)
    else:
        raise ValueError(f"unknown split method {method!r}")
    return _hold_out_per_user(ratings, order, _held_out_rule(validation_fraction, test_fraction))


def held_out_ranks(
    num_ratings: int, *, validation_fraction: float, test_fraction: float
) -> tuple[int | None, int | None]:
    """Returns the ranks, from 0, of the first validation and test rating in time order; None for an empty split."""
    num_validation, num_test = _held_out_rule(validation_fraction, test_fraction)(num_ratings)
    return (
        num_ratings - num_test - num_validation if num_validation else None,
        num_ratings - num_test if num_test else None,
    )


def split_at(timestamps: np.ndarray, cuts: Sequence[int | None]) -> np.ndarray:
    """Splits ratings at two points in time.

    Args:
      timestamps: int64 [num_ratings].
      cuts: the times of the ratings with the ranks of `held_out_ranks`.

    Returns:
      int8 [num_ratings], the position in schema.SPLITS of the split of each row.
    """
    part: np.ndarray = np.full(len(timestamps), _TRAIN, np.int8)
    for which, cut in zip((_VALIDATION, _TEST), cuts, strict=True):
        if cut is not None:
            part[timestamps >= cut] = which
    return part


def use_given_split(ratings: pa.Table, split_of_row: np.ndarray, *, validation_fraction: float, seed: int) -> Split:
    """Returns the split that is given. Without validation rows, some are taken from the training rows.

    Args:
      ratings: a table of RATINGS_SCHEMA.
      split_of_row: int8 [num_ratings], the position in schema.SPLITS of the split of each row.
      validation_fraction: in [0, 1). If there are no validation rows, this fraction of each user's training rows is
        held out for validation at random, by the rule of the module docstring without a test split. 0 for none.
      seed: the seed of these random rows.

    Raises:
      DataError: a validation split was asked for, and no user has enough training ratings to hold one out.
    """
    split = Split(*(np.flatnonzero(split_of_row == position) for position in range(len(SPLITS))))
    if len(split.validation) or not validation_fraction:
        return split
    part = split_each_user(
        ratings.take(split.train),
        np.arange(len(split.train)),
        method="random",
        validation_fraction=validation_fraction,
        test_fraction=0.0,
        seed=seed,
    )
    split = Split(split.train[part == _TRAIN], split.train[part == _VALIDATION], split.test)
    check_not_empty(
        [len(rows) for rows in (split.train, split.validation, split.test)],
        method="given",
        validation_fraction=validation_fraction,
        test_fraction=0.0,
    )
    return split


def rows_by_user(user_indices: np.ndarray, num_users: int) -> tuple[np.ndarray, np.ndarray]:
    """Groups rows by user, each user's in row order.

    Args:
      user_indices: integers [num_rows], in [0, num_users).
      num_users: the number of users, including those without a row.

    Returns:
      Offsets int64 [num_users + 1] and rows int64 [num_rows]. The rows of user u are
      rows[offsets[u]:offsets[u + 1]].
    """
    num_rows = np.bincount(user_indices, minlength=num_users)
    return np.append(0, np.cumsum(num_rows)), _stable_order(user_indices)


def _stable_order(keys: np.ndarray) -> np.ndarray:
    """The stable argsort, int64 [num_rows], of fewer than 2³² integers `keys` [num_rows] in [0, 2³²).

    Each key and its row are packed into one integer. These integers all differ, so sorting them is stable. NumPy sorts
    integers with vector instructions, but not its stable argsort: 1.4 s against 3.5 s for 25 million keys.
    """
    packed = keys.astype(np.uint64) << np.uint64(32)
    packed |= np.arange(len(keys), dtype=np.uint64)
    packed.sort()
    packed &= np.uint64(0xFFFFFFFF)
    return packed.view(np.int64)


def _random_order(rows: np.ndarray, seed: int) -> np.ndarray:
    """The order of `rows` int64 [num_rows], ascending, in a seeded permutation of all rows: their argsort, int64."""
    # NumPy guarantees the raw output of a bit generator for all versions, but not `Generator.permutation`. With that,
    # an upgrade between a run and its resumption could move test ratings into the training split.
    generator = np.random.PCG64(seed)
    keys: np.ndarray = np.empty(len(rows), np.uint64)
    num_rows = int(rows[-1]) + 1 if len(rows) else 0
    for begin in range(0, num_rows, _ROWS_PER_DRAW):
        end = min(begin + _ROWS_PER_DRAW, num_rows)
        first, last = np.searchsorted(rows, (begin, end))
        keys[first:last] = generator.random_raw(end - begin)[rows[first:last] - begin]
    return _stable_order(keys >> np.uint64(32))


def _time_order(ratings: pa.Table) -> np.ndarray:
    return np.argsort(_timestamps(ratings), kind="stable")


def _timestamps(ratings: pa.Table) -> np.ndarray:
    return ratings.column(TIMESTAMP).to_numpy()


def _held_out_rule(validation_fraction: float, test_fraction: float) -> _HeldOutRule:
    """The rule of the module docstring, as a function from n ≥ 1 to (num_validation, num_test)."""
    validation, test, half = _exact(validation_fraction), _exact(test_fraction), Fraction(1, 2)

    def num_held_out(n: int) -> tuple[int, int]:
        num_test = min(math.floor(n * test + half), n - 1)
        num_validation = min(math.floor(n * validation + half), n - 1 - num_test)
        return num_validation, num_test

    return num_held_out


def _exact(fraction: float) -> Fraction:
    """The decimal that the user wrote: the shortest one that is read as this float."""
    return Fraction(str(float(fraction)))


def _hold_out_per_user(ratings: pa.Table, order: np.ndarray, num_held_out: _HeldOutRule) -> np.ndarray:
    """The part of each row, int8 [num_rows]. The last rows of each user in `order` int64 [num_rows] are for testing."""
    users = ratings.column(USER_ID).dictionary_encode().combine_chunks()
    num_users = len(users.dictionary)
    offsets, positions = rows_by_user(users.indices.to_numpy()[order], num_users)

    num_ratings = np.diff(offsets)
    sizes, size_of_user = np.unique(num_ratings, return_inverse=True)
    num_validation, num_test = np.array([num_held_out(n) for n in sizes.tolist()])[size_of_user].T
    num_train = num_ratings - num_validation - num_test

    # In `order[positions]` the ratings are sorted by user, and each user's training ratings come first.
    parts_of_users = np.tile(np.array([_TRAIN, _VALIDATION, _TEST], np.int8), num_users)
    part: np.ndarray = np.empty(len(order), np.int8)
    part[order[positions]] = np.repeat(parts_of_users, np.column_stack([num_train, num_validation, num_test]).ravel())
    return part


def check_not_empty(
    num_ratings_of_splits: Sequence[int], *, method: str, validation_fraction: float, test_fraction: float
) -> None:
    """Raises DataError if no ratings are left for training, or a split with a positive fraction is empty.

    Args:
      num_ratings_of_splits: the number of ratings of each of schema.SPLITS.
      method, validation_fraction, test_fraction: as in `split_ratings`, or the method `given`.
    """
    if method == "none":
        return
    num_ratings = sum(num_ratings_of_splits)
    num_train, num_validation, num_test = num_ratings_of_splits
    if num_train == 0:
        raise DataError(
            f"No ratings are left to train on: config.split.method is {method!r}, and none of the {num_ratings} "
            "ratings is earlier than the held-out ones. Lower the fractions in config.split, or set another method."
        )
    if method == "time":
        reason = "there are too few ratings, or too many of them have the same time"
    else:
        reason = "no user has enough ratings to hold one out"
    for name, num_held_out, fraction in (
        ("validation", num_validation, validation_fraction),
        ("test", num_test, test_fraction),
    ):
        if fraction > 0 and num_held_out == 0:
            raise DataError(
                f"The {name} split of {num_ratings} ratings is empty: config.split.method is {method!r}, "
                f"config.split.{name}_fraction is {fraction}, and {reason}. Raise the fraction, set another method, "
                "or set the fraction to 0 to have no such split."
            )
