"""Metrics of the catalogue protocol by user activity and by item popularity."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from trainer import schema
from trainer.evaluation.rank_metrics import RankedLists
from trainer.evaluation.statistics import ListMetrics, weighted_means

ACTIVITIES = ("low", "middle", "high")
"""A third of the users each, by their number of training ratings."""

POPULARITIES = ("head", "middle", "tail")
"""Items with a third of all training ratings each. The most popular items are the head."""


def by_activity(by_scorer: Mapping[str, ListMetrics], num_ratings: np.ndarray) -> dict[str, Any]:
    """The means of the metrics for users with few, some and many training ratings.

    Users with the same number of training ratings are in one group, so the groups may differ in size.

    Args:
      by_scorer: The metrics of each user, for each scorer.
      num_ratings: int [num_queries]: the number of training ratings of each user.

    Returns:
      Plain values: `groups` has the number of users and the range of their number of training ratings, and `scorers`
      the means of each scorer, group and metric. A group without users is absent.
    """
    edges = np.quantile(num_ratings, [1 / 3, 2 / 3], method="inverted_cdf")
    group_of_query = np.searchsorted(edges, num_ratings)
    members = {name: np.flatnonzero(group_of_query == group) for group, name in enumerate(ACTIVITIES)}
    members = {name: rows for name, rows in members.items() if len(rows)}
    return {
        "groups": {
            name: {
                "num_users": len(rows),
                "min_train_ratings": int(num_ratings[rows].min()),
                "max_train_ratings": int(num_ratings[rows].max()),
            }
            for name, rows in members.items()
        },
        "scorers": {
            scorer: {
                name: dict(
                    zip(lists.names, weighted_means(lists.values[rows], lists.weights[rows]).tolist(), strict=True)
                )
                for name, rows in members.items()
            }
            for scorer, lists in by_scorer.items()
        },
    }


def by_popularity(by_scorer: Mapping[str, RankedLists], num_ratings: np.ndarray, *, cutoff: int) -> dict[str, Any]:
    """The share of the relevant held-out items among the first `cutoff`, for popular and for rare items.

    Held-out items without training ratings belong to no group.

    Args:
      by_scorer: The ranks of the relevant held-out items of all users, for each scorer.
      num_ratings: int64 [num_items]: the number of training ratings of each item.
      cutoff: The number of ranks that count.

    Returns:
      Plain values: `groups` has the number of items and of relevant held-out items, and `scorers` the recall of each
      scorer and group. A group without relevant items is absent.
    """
    group_of_item = _popularity_groups(num_ratings)
    groups: dict[str, Any] = {}
    recalls: dict[str, Any] = {}
    for scorer, lists in by_scorer.items():
        entry_groups = np.where(lists.items == schema.UNKNOWN_INDEX, -1, group_of_item[lists.items])
        recalls[scorer] = {}
        for group, name in enumerate(POPULARITIES):
            entries = (entry_groups == group) & lists.relevant
            if not entries.any():
                continue
            groups[name] = {"num_items": int(np.sum(group_of_item == group)), "num_relevant": int(np.sum(entries))}
            recalls[scorer][name] = {f"recall@{cutoff}": float(np.mean(lists.within(cutoff)[entries]))}
    return {"groups": groups, "scorers": recalls}


def _popularity_groups(num_ratings: np.ndarray) -> np.ndarray:
    """The group of each item, a position in POPULARITIES; −1 for index 0: int64 [num_items]."""
    order = np.argsort(-num_ratings[1:], kind="stable") + 1
    before = np.cumsum(num_ratings[order]) - num_ratings[order]
    groups: np.ndarray = np.full(len(num_ratings), -1)
    groups[order] = np.minimum(before * len(POPULARITIES) // max(np.sum(num_ratings[order]), 1), len(POPULARITIES) - 1)
    return groups
