"""Expectations over the order of tied items, where several items share the ranks `first` to `first + size - 1`.

Every order of the tied items is equally likely. Each function works on arrays with one entry per tie:

- `first`: int64, the first rank of the tie, at least 1.
- `size`: int64, the number of tied items.
- `number`: int64, how many of the tied items count: at least 1.
- `reach`: int64, how many of the ranks of the tie count, from 0 to `size`: those up to a cutoff.
"""

from collections.abc import Callable

import numpy as np

_CELLS_PER_CHUNK = 1 << 20


def sum_of_reciprocals(first: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Σ 1 / rank over the ranks first to first + reach − 1: float64 [n]."""
    return _sum_over_ranks(first, reach, lambda ranks: 1 / ranks)


def sum_of_discounts(first: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Σ 1 / log2(1 + rank) over the ranks first to first + reach − 1: float64 [n]."""
    return _sum_over_ranks(first, reach, lambda ranks: 1 / np.log2(ranks + 1))


def reciprocal_of_first(first: np.ndarray, size: np.ndarray, number: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """The expectation of 1 / rank of the first item that counts, or of 0 if its rank does not count: float64 [n].

    The first of r items that count among s is at the rank first + j with the probability
    r / (s − j) · Π (s − r − i) / (s − i) over i from 0 to j − 1. With first = 1 and reach = s the sum has the closed
    form r / (s − r + 1) · (H(s) − H(r − 1)), where H(n) is the n-th harmonic number. With r = 1 it is
    (H(first + reach − 1) − H(first − 1)) / s.
    """
    cases, inverse = np.unique(np.stack([first, size, number, reach]), axis=1, return_inverse=True)
    first, size, number, reach = cases
    values = sum_of_reciprocals(first, reach) / size
    whole = (first == 1) & (reach == size)
    after = sum_of_reciprocals(number, size - number + 1)
    values[whole] = (number / (size - number + 1) * after)[whole]
    others = np.flatnonzero(~whole & (number > 1) & (reach > 0))
    num_terms = np.minimum(reach, size - number + 1)
    # Cases with a similar number of terms share a chunk.
    others = others[np.argsort(num_terms[others], kind="stable")]
    begin = 0
    while begin < len(others):
        widths = num_terms[others[begin:]]
        length = max(1, int(np.sum(widths * np.arange(1, len(widths) + 1) <= _CELLS_PER_CHUNK)))
        rows = others[begin : begin + length]
        values[rows] = _sum_over_offsets(first[rows], size[rows], number[rows], num_terms[rows])
        begin += length
    return values[inverse.reshape(-1)]


def diminishing_discounts(
    first: np.ndarray, size: np.ndarray, number: np.ndarray, reach: np.ndarray, *, kept: float
) -> np.ndarray:
    """The expectation of Σ kept^k / log2(1 + rank) over the items that count and whose rank counts: float64 [n].

    k is the number of items that count ahead of the item in the tie. The distribution of k is followed from rank to
    rank: after j ranks with k items that count, the next rank has one with the probability (number − k) / (size − j).
    """
    cases, inverse = np.unique(np.stack([first, size, number, reach]), axis=1, return_inverse=True)
    first, size, number, reach = cases
    values = number * sum_of_discounts(first, reach) / size
    rows = np.flatnonzero((number > 1) & (reach > 0))
    if len(rows):
        first, size, number, reach = (column[rows, np.newaxis] for column in (first, size, number, reach))
        counts = np.arange(number.max() + 1)
        probability = np.where(counts == 0, 1.0, np.zeros([len(rows), 1]))
        sums = np.zeros(len(rows))
        for offset in range(reach.max()):
            moves = probability * np.clip(number - counts, 0, None) / np.maximum(size - offset, 1)
            gains = np.sum(moves * kept**counts, axis=1) / np.log2(first[:, 0] + offset + 1)
            sums += np.where(offset < reach[:, 0], gains, 0)
            probability = probability - moves
            probability[:, 1:] += moves[:, :-1]
        values[rows] = sums
    return values[inverse.reshape(-1)]


def _sum_over_ranks(first: np.ndarray, reach: np.ndarray, fn: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    last = first + reach - 1
    total = np.append(0, np.cumsum(fn(np.arange(1, 1 + np.max(last * (reach > 0), initial=0), dtype=np.float64))))
    first = np.where(reach > 0, first, 1)
    last = np.where(reach > 0, last, 0)
    return total[last] - total[first - 1]


def _sum_over_offsets(first: np.ndarray, size: np.ndarray, number: np.ndarray, num_terms: np.ndarray) -> np.ndarray:
    """Σ 1 / (first + j) · the probability that the first item that counts is at the offset j, over j < num_terms."""
    first, size, number, num_terms = (column[:, np.newaxis] for column in (first, size, number, num_terms))
    offsets = np.arange(num_terms.max())
    left = np.maximum(size - offsets, 1)
    misses = np.cumprod(np.maximum(size - number - offsets, 0) / left, axis=1)
    none_before = np.concatenate([np.ones([len(misses), 1]), misses[:, :-1]], axis=1)
    terms = none_before * number / left / (first + offsets)
    return np.sum(np.where(offsets < num_terms, terms, 0), axis=1)
