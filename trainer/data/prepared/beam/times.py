"""The cuts of a split by time: the exact times of ratings with given ranks, from two histograms of all times."""

from collections.abc import Sequence

import numpy as np

from trainer.data.ratings.cleaning import MAX_TIMESTAMP

_SECONDS = 1 << 16
"""The length of a period."""

_NUM_PERIODS = MAX_TIMESTAMP // _SECONDS + 1


def count_periods(timestamps: np.ndarray) -> np.ndarray:
    """Counts ratings by period: from times int64 [n] to int64 [num_periods]. The counts of buckets are added."""
    return np.bincount(timestamps // _SECONDS, minlength=_NUM_PERIODS)


def find_periods(counts: np.ndarray, ranks: Sequence[int | None]) -> list[tuple[int, int] | None]:
    """Returns for each rank, from 0 in time order, its period and its rank there; None for None.

    Args:
      counts: the sum of the results of `count_periods`.
      ranks: the result of `splits.held_out_ranks`.
    """
    return [None if rank is None else _find(counts, rank) for rank in ranks]


def count_seconds(timestamps: np.ndarray, periods: Sequence[tuple[int, int] | None]) -> np.ndarray:
    """Counts ratings by second in each of the periods: int64 [num_ranks, seconds]. The counts of buckets are added."""
    counts: np.ndarray = np.zeros((len(periods), _SECONDS), np.int64)
    for which, period in enumerate(periods):
        if period is not None:
            inside = timestamps[timestamps // _SECONDS == period[0]]
            counts[which] = np.bincount(inside % _SECONDS, minlength=_SECONDS)
    return counts


def find_cuts(counts: np.ndarray, periods: Sequence[tuple[int, int] | None]) -> list[int | None]:
    """Returns the time of the rating with each rank; None for None.

    Args:
      counts: the sum of the results of `count_seconds`.
      periods: the result of `find_periods`.
    """
    return [
        None if period is None else period[0] * _SECONDS + _find(of_period, period[1])[0]
        for of_period, period in zip(counts, periods, strict=True)
    ]


def _find(counts: np.ndarray, rank: int) -> tuple[int, int]:
    """The position in a histogram of the rating with this rank, and its rank among those of this position."""
    up_to = np.cumsum(counts)
    position = int(np.searchsorted(up_to, rank, side="right"))
    return position, int(rank - (up_to[position] - counts[position]))
