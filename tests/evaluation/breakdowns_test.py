"""Metrics by user activity and by item popularity, with groups that are known."""

import numpy as np
import pytest

from trainer.evaluation.breakdowns import by_activity, by_popularity
from trainer.evaluation.rank_metrics import ranked_lists
from trainer.evaluation.statistics import ListMetrics


def test_users_are_grouped_by_thirds_of_their_activity():
    num_ratings = np.array([1, 50, 2, 2, 90, 30, 3, 4, 70])
    values = np.array([10, 2, 10, 10, 3, 2, 1, 1, 3.0])[:, np.newaxis]
    weights = np.ones([9, 1])
    weights[8] = 0
    found = by_activity({"model": ListMetrics(["mrr"], values, weights)}, num_ratings)
    assert found["groups"] == {
        "low": {"num_users": 3, "min_train_ratings": 1, "max_train_ratings": 2},
        "middle": {"num_users": 3, "min_train_ratings": 3, "max_train_ratings": 30},
        "high": {"num_users": 3, "min_train_ratings": 50, "max_train_ratings": 90},
    }
    means = {name: metrics["mrr"] for name, metrics in found["scorers"]["model"].items()}
    assert means == pytest.approx({"low": 10, "middle": 4 / 3, "high": 2.5})


def test_users_with_the_same_activity_are_in_one_group():
    found = by_activity({"model": ListMetrics(["mrr"], np.ones([5, 1]), np.ones([5, 1]))}, np.array([7, 7, 7, 7, 9]))
    assert {name: group["num_users"] for name, group in found["groups"].items()} == {"low": 4, "high": 1}


def test_items_are_grouped_by_thirds_of_the_ratings():
    """Item 3 has 40 of 90 ratings, 1 and 5 have 20 each, 2 and 4 have 5 each. Item 0 was never rated."""
    num_ratings = np.array([0, 20, 5, 40, 5, 20])
    ranks = {"model": [1, 11, 3, 2, 30, np.inf], "random": [4, 4, 4, 4, 4, np.inf]}
    items = np.array([3, 3, 1, 2, 4, 0], np.int32)
    lists = {
        scorer: ranked_lists(
            np.array([0, 2, 6]),
            np.array(of_scorer),
            np.array([1, 1, 1, 1, 1, 1] if scorer == "model" else [14, 14, 14, 14, 14, 1]),
            np.ones(6),
            np.ones(6, bool),
            items,
            np.array([50, 50]),
        )
        for scorer, of_scorer in ranks.items()
    }
    found = by_popularity(lists, num_ratings, cutoff=10)
    # Before item 1 come 40 ratings, before item 5 come 60, which are two thirds.
    assert found["groups"] == {
        "head": {"num_items": 1, "num_relevant": 2},
        "middle": {"num_items": 1, "num_relevant": 1},
        "tail": {"num_items": 3, "num_relevant": 2},
    }
    recalls = {name: group["recall@10"] for name, group in found["scorers"]["model"].items()}
    assert recalls == {"head": 1 / 2, "middle": 1, "tail": 1 / 2}
    # Half of the ranks 4 to 17 are within 10.
    assert {group["recall@10"] for group in found["scorers"]["random"].values()} == {1 / 2}
