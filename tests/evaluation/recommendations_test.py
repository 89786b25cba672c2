"""Coverage, mean popularity and novelty of known recommendations, and their expectations for random ones."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.evaluation.item_lists import ItemLists
from trainer.evaluation.recommendations import random_recommendation_metrics, recommendation_metrics

NUM_RATINGS = np.array([0, 8, 4, 2, 1, 1])


def test_metrics_of_known_recommendations():
    """Of five items 1, 2 and 3 are recommended. The second query has one candidate left."""
    found = recommendation_metrics(np.array([[1, 2], [3, 0]], np.int32), NUM_RATINGS, num_users=8)
    assert found.coverage == 3 / 5
    assert found.mean_popularity == pytest.approx((8 + 4 + 2) / 3)
    assert found.novelty == pytest.approx((0 + 1 + 2) / 3)


@settings(deadline=None, max_examples=30)
@given(
    excluded=st.lists(st.sets(st.integers(1, 5), max_size=4), min_size=1, max_size=3),
    k=st.integers(1, 3),
)
def test_random_recommendations_are_the_mean_over_all_of_them(excluded, k):
    candidates = [sorted(set(range(1, 6)) - row) for row in excluded]
    choices = [list(itertools.combinations(row, min(k, len(row)))) for row in candidates]
    # All combinations of a query are equally likely.
    found = []
    for picks in itertools.product(*choices):
        padded = np.array([[*pick, *[0] * (k - len(pick))] for pick in picks], np.int32)
        found.append(recommendation_metrics(padded, NUM_RATINGS, num_users=8))
    lists = ItemLists.from_rows([np.array(sorted(row), np.int32) for row in excluded])
    actual = random_recommendation_metrics(lists, NUM_RATINGS, num_users=8, k=k)
    for name in ("coverage", "mean_popularity", "novelty"):
        assert getattr(actual, name) == pytest.approx(np.mean([getattr(each, name) for each in found])), name
