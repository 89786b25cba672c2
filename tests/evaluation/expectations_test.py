"""Expectations over the order of tied items against all possible orders."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.evaluation import expectations

KEPT = 0.5


@st.composite
def ties(draw):
    """(first, size, number, reach) of a few ties."""
    cases = []
    for _ in range(draw(st.integers(1, 4))):
        size = draw(st.integers(1, 9))
        cases.append((draw(st.sampled_from([1, 2, 5])), size, draw(st.integers(1, size)), draw(st.integers(0, size))))
    return np.array(cases).T


def mean_over_places(first, size, number, reach, value_of):
    """The mean of a value of the ranks that count, over all places of the items that count."""
    return np.mean(
        [
            value_of([first + place for place in places if place < reach])
            for places in itertools.combinations(range(size), number)
        ]
    )


def reciprocal(ranks):
    return 1 / ranks[0] if ranks else 0


def diminishing(ranks):
    return sum(KEPT**k / np.log2(1 + rank) for k, rank in enumerate(ranks))


@settings(deadline=None, max_examples=60)
@given(cases=ties())
def test_expectations_are_means_over_all_places(cases):
    actual = expectations.reciprocal_of_first(*cases)
    assert actual == pytest.approx([mean_over_places(*case, reciprocal) for case in cases.T], abs=1e-12)
    actual = expectations.diminishing_discounts(*cases, kept=KEPT)
    assert actual == pytest.approx([mean_over_places(*case, diminishing) for case in cases.T], abs=1e-12)


@pytest.mark.parametrize("first", [1, 40])
def test_large_ties_are_exact(first):
    """Of 20,000 tied items 3 count: the sum over all places of the first, in exact integers."""
    size, number = 20_000, 3
    orders = size * (size - 1) * (size - 2) // 6
    expected = sum((size - 1 - j) * (size - 2 - j) // 2 / orders / (first + j) for j in range(size - 2))
    actual = expectations.reciprocal_of_first(*(np.array([x]) for x in (first, size, number, size)))
    assert actual == pytest.approx([expected], rel=1e-9)


def test_sums_over_ranks():
    first, reach = np.array([1, 3, 7, 1]), np.array([4, 2, 0, 1])
    assert expectations.sum_of_reciprocals(first, reach) == pytest.approx([25 / 12, 1 / 3 + 1 / 4, 0, 1])
    discounts = 1 / np.log2(np.arange(2, 9))
    expected = [discounts[:4].sum(), discounts[2:4].sum(), 0, 1]
    assert expectations.sum_of_discounts(first, reach) == pytest.approx(expected)


def test_many_different_ties_are_summed_in_chunks(monkeypatch):
    monkeypatch.setattr(expectations, "_CELLS_PER_CHUNK", 10)
    rng = np.random.default_rng(0)
    size = rng.integers(3, 9, 40)
    cases = np.stack([rng.integers(2, 9, 40), size, np.full(40, 2), size])
    expected = [mean_over_places(*case, reciprocal) for case in cases.T]
    assert expectations.reciprocal_of_first(*cases) == pytest.approx(expected)


def test_without_ties_there_is_nothing_to_compute():
    none = np.zeros([4, 0], np.int64)
    assert expectations.reciprocal_of_first(*none).shape == (0,)
    assert expectations.diminishing_discounts(*none, kept=KEPT).shape == (0,)
