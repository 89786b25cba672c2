"""Which ratings train, which validate, which test.

How many ratings a split holds out of n, here and everywhere, is one rule:

    num_test = min(⌊n · test_fraction + 1/2⌋, n − 1)
    num_validation = min(⌊n · validation_fraction + 1/2⌋, n − 1 − num_test)

The fractions are taken as the decimals that the user wrote: 0.145 of 100 ratings is 14.5, hence 15, although
the binary number nearest to 0.145 times 100 lies below 14.5. The caps leave one rating to train on. n counts
the ratings of one user under `random` and `last`, so that users with equally many ratings give equally many,
and all ratings under `time`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pyarrow as pa

from settings.errors import ConfigError, DataError
from trainer.schema import TIMESTAMP, USER_ID

METHODS = ("none", "random", "last", "time")

_TRAIN, _VALIDATION, _TEST = range(3)

_HeldOutRule = Callable[[int], tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers of the ratings table: ascending, disjoint, together every row.

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
    """Deals the rows of `ratings` to training, validation and test.

    Args:
      ratings: a table of RATINGS_SCHEMA.
      method: `none` trains on every rating and holds none out, whatever the fractions. `random` holds out
        some of each user's ratings. `last` holds out each user's latest, ties in time by row order: the test
        ratings come after the validation ratings, and these after the training ratings. `time` cuts all
        ratings at two points in time, which nothing straddles: ratings of the same second stay together, in
        the later split, which may thereby grow at the cost of the one before it.
      validation_fraction: in [0, 1).
      test_fraction: in [0, 1); less than 1 together with `validation_fraction`.
      seed: of `random`, which is a pure function of the seed and the rows, on any version of NumPy.

    Raises:
      ConfigError: the method is unknown, or a fraction is out of range.
      DataError: there is nothing to train on, or a split that was asked for has no rating.
    """
    check_split(method, validation_fraction, test_fraction)
    if ratings.num_rows == 0:
        raise DataError("There are no ratings, so there is nothing to split or to train on.")

    num_held_out = _held_out_rule(validation_fraction, test_fraction)
    if method == "none":
        part = np.full(ratings.num_rows, _TRAIN, np.int8)
    elif method == "time":
        part = _cut_time(_timestamps(ratings), num_held_out)
    else:
        order = _random_order(ratings.num_rows, seed) if method == "random" else _time_order(ratings)
        part = _hold_out_per_user(ratings, order, num_held_out)

    split = Split(*(np.flatnonzero(part == which) for which in (_TRAIN, _VALIDATION, _TEST)))
    if method != "none":
        _check_not_empty(split, method, validation_fraction, test_fraction)
    return split


def rows_by_user(user_indices: np.ndarray, num_users: int) -> tuple[np.ndarray, np.ndarray]:
    """Groups rows by user, each user's in row order.

    Args:
      user_indices: integers [num_rows], in [0, num_users).
      num_users: number of users, those without a row included.

    Returns:
      Offsets int64 [num_users + 1] and rows int64 [num_rows]: the rows of user u are
      rows[offsets[u]:offsets[u + 1]].
    """
    num_rows = np.bincount(user_indices, minlength=num_users)
    return np.append(0, np.cumsum(num_rows)), _stable_order(user_indices)


def _stable_order(keys: np.ndarray) -> np.ndarray:
    """The stable argsort, int64 [num_rows], of fewer than 2³² integers `keys` [num_rows] in [0, 2³²).

    Key and row share one integer, so no two are equal and a sort of the numbers themselves is stable. NumPy
    sorts numbers with vector instructions but argsorts stably without: 1.4 s against 3.5 s for 25 million.
    """
    packed = keys.astype(np.uint64) << np.uint64(32)
    packed |= np.arange(len(keys), dtype=np.uint64)
    packed.sort()
    packed &= np.uint64(0xFFFFFFFF)
    return packed.view(np.int64)


def _random_order(num_rows: int, seed: int) -> np.ndarray:
    """A seeded permutation, int64 [num_rows]."""
    # NumPy keeps the raw draws of a bit generator for ever, but not what a Generator makes of them: with
    # `permutation`, an upgrade could move test ratings into training between a run and its resumption.
    return _stable_order(np.random.PCG64(seed).random_raw(num_rows) >> np.uint64(32))


def _time_order(ratings: pa.Table) -> np.ndarray:
    return np.argsort(_timestamps(ratings), kind="stable")


def _timestamps(ratings: pa.Table) -> np.ndarray:
    return ratings.column(TIMESTAMP).to_numpy()


def _held_out_rule(validation_fraction: float, test_fraction: float) -> _HeldOutRule:
    """The module's rule: a function from n ≥ 1 to (num_validation, num_test)."""
    validation, test, half = _exact(validation_fraction), _exact(test_fraction), Fraction(1, 2)

    def num_held_out(n: int) -> tuple[int, int]:
        num_test = min(math.floor(n * test + half), n - 1)
        num_validation = min(math.floor(n * validation + half), n - 1 - num_test)
        return num_validation, num_test

    return num_held_out


def _exact(fraction: float) -> Fraction:
    """The decimal that the user wrote, which is the shortest that reads as this float."""
    return Fraction(str(float(fraction)))


def _hold_out_per_user(ratings: pa.Table, order: np.ndarray, num_held_out: _HeldOutRule) -> np.ndarray:
    """The part of each row, int8 [num_rows]: the last of each user in `order` int64 [num_rows] are test."""
    users = ratings.column(USER_ID).dictionary_encode().combine_chunks()
    num_users = len(users.dictionary)
    offsets, positions = rows_by_user(users.indices.to_numpy()[order], num_users)

    num_ratings = np.diff(offsets)
    sizes, size_of_user = np.unique(num_ratings, return_inverse=True)
    num_validation, num_test = np.array([num_held_out(n) for n in sizes.tolist()])[size_of_user].T
    num_train = num_ratings - num_validation - num_test

    # Along `order[positions]` each user's ratings lie together: first those of training, and so on.
    parts_of_users = np.tile(np.array([_TRAIN, _VALIDATION, _TEST], np.int8), num_users)
    part: np.ndarray = np.empty(len(order), np.int8)
    part[order[positions]] = np.repeat(parts_of_users, np.column_stack([num_train, num_validation, num_test]).ravel())
    return part


def _cut_time(timestamps: np.ndarray, num_held_out: _HeldOutRule) -> np.ndarray:
    """The part of each row, int8 [num_rows], given its time, int64 [num_rows]."""
    num_rows = len(timestamps)
    num_validation, num_test = num_held_out(num_rows)
    ascending = np.sort(timestamps)

    part: np.ndarray = np.full(num_rows, _TRAIN, np.int8)
    if num_validation:
        part[timestamps >= ascending[num_rows - num_test - num_validation]] = _VALIDATION
    if num_test:
        part[timestamps >= ascending[num_rows - num_test]] = _TEST
    return part


def check_split(method: str, validation_fraction: float, test_fraction: float) -> None:
    """Raises ConfigError where the method is unknown or a fraction out of range."""
    if method not in METHODS:
        raise ConfigError(f"config.split.method is {method!r}; it must be one of {', '.join(METHODS)}.")
    fractions = {
        "config.split.validation_fraction": validation_fraction,
        "config.split.test_fraction": test_fraction,
    }
    for field, fraction in fractions.items():
        if not 0 <= fraction < 1:
            raise ConfigError(f"{field} is {fraction}; it must be at least 0 and less than 1.")
    if sum(map(_exact, fractions.values())) >= 1:
        values = " and ".join(f"{field} is {fraction}" for field, fraction in fractions.items())
        raise ConfigError(f"{values}; together they must be less than 1, to leave ratings to train on.")


def _check_not_empty(split: Split, method: str, validation_fraction: float, test_fraction: float) -> None:
    num_ratings = len(split.train) + len(split.validation) + len(split.test)
    if len(split.train) == 0:
        raise DataError(
            f"Nothing is left to train on: config.split.method is {method!r}, and of {num_ratings} ratings "
            "none is earlier than those held out. Lower the held-out fractions, or split by another method."
        )
    if method == "time":
        reason = "the ratings are too few, or too many of them lie at one point in time, to cut there"
    else:
        reason = "no user has enough ratings to give one up"
    for name, rows, fraction in (
        ("validation", split.validation, validation_fraction),
        ("test", split.test, test_fraction),
    ):
        if fraction > 0 and len(rows) == 0:
            raise DataError(
                f"The {name} split of {num_ratings} ratings is empty: config.split.method is {method!r}, "
                f"config.split.{name}_fraction is {fraction}, and {reason}. Raise the fraction, split by "
                "another method, or set the fraction to 0 to do without this split."
            )
