"""Metrics of the recommendations themselves, which need no held-out items: coverage, mean popularity, novelty."""

from dataclasses import dataclass

import numpy as np

from trainer import schema
from trainer.evaluation.item_lists import ItemLists

NUM_RECOMMENDED = 10
"""The number of items that are recommended to each user, k."""


@dataclass(frozen=True)
class RecommendationMetrics:
    """What the k best items of each user are like.

    Attributes:
      coverage: The share of the catalogue that is among the k best items of at least one user.
      mean_popularity: The mean number of training ratings of the recommended items.
      novelty: The mean of −log2(number of training ratings / number of users) of the recommended items, in bits
        (Zhou et al., "Solving the apparent diversity-accuracy dilemma of recommender systems", PNAS 2010).
    """

    coverage: float
    mean_popularity: float
    novelty: float


def recommendation_metrics(items: np.ndarray, num_ratings: np.ndarray, *, num_users: int) -> RecommendationMetrics:
    """Computes the metrics of recommended items.

    Args:
      items: int32 [num_queries, k]: the best items of each query, padded with 0. At least one is no padding.
      num_ratings: int64 [num_items]: the number of training ratings of each item.
      num_users: Number of users with training ratings.
    """
    found = items[items != schema.UNKNOWN_INDEX]
    return RecommendationMetrics(
        coverage=len(np.unique(found)) / (len(num_ratings) - 1),
        mean_popularity=float(np.mean(num_ratings[found])),
        novelty=float(np.mean(_novelty(num_ratings, num_users)[found])),
    )


def random_recommendation_metrics(
    excluded: ItemLists, num_ratings: np.ndarray, *, num_users: int, k: int = NUM_RECOMMENDED
) -> RecommendationMetrics:
    """The expected metrics of k different random candidates for each query.

    Args:
      excluded: The items of each query that are no candidates.
      num_ratings: int64 [num_items]: the number of training ratings of each item.
      num_users: Number of users with training ratings.
      k: Number of items for each query.
    """
    num_items = len(num_ratings) - 1
    num_excluded = np.diff(excluded.offsets)
    rows = np.repeat(np.arange(excluded.num_queries), num_excluded)
    num_candidates = num_items - num_excluded
    share = np.minimum(k / np.maximum(num_candidates, 1), 1)
    # The probability that an item is recommended to nobody is a product over the queries that it is a candidate of.
    # Queries that get all their candidates are counted apart, since their factor is 0.
    gets_all = share == 1
    log_left = np.log1p(-np.where(gets_all, 0, share))
    log_nobody = np.sum(log_left) - np.bincount(excluded.items, weights=log_left[rows], minlength=num_items + 1)
    num_certain = np.sum(gets_all) - np.bincount(excluded.items, weights=gets_all[rows], minlength=num_items + 1)
    nobody = np.where(num_certain > 0, 0, np.exp(log_nobody))[1:]
    # Each query recommends min(k, num_candidates) items. Each of its candidates is among them equally often.
    num_recommended = share * num_candidates

    def mean_of(values: np.ndarray) -> float:
        sums = np.sum(values[1:]) - np.bincount(rows, weights=values[excluded.items], minlength=excluded.num_queries)
        return float(np.sum(share * sums) / np.sum(num_recommended))

    return RecommendationMetrics(
        coverage=float(np.mean(1 - nobody)),
        mean_popularity=mean_of(num_ratings.astype(np.float64)),
        novelty=mean_of(_novelty(num_ratings, num_users)),
    )


def _novelty(num_ratings: np.ndarray, num_users: int) -> np.ndarray:
    # Every item of a vocabulary has training ratings. Only index 0 has none.
    return -np.log2(np.maximum(num_ratings, 1) / num_users)
