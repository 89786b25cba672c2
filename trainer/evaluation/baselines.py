"""Baselines: simple ways to rank. A useful model has better metrics than all of them.

The random order is no scorer: its expected metrics have a closed form. See `catalogue_ranking.random_lists`.
"""

from collections.abc import Mapping

import numpy as np

from trainer import schema
from trainer.compat import tf
from trainer.data.dataset import Dataset
from trainer.modeling.prior import damped_means
from trainer.modeling.two_tower import Features

ITEM_MEAN_DAMPING = 5.0
"""The weight, in ratings, of the mean of all ratings in the damped mean of an item."""

_SECONDS_PER_DAY = 86_400


class ItemScores:
    """Ranks items by a score that is the same for every query.

    It has the interface of a model, `__call__`, `query_vectors` and `candidate_vectors`, so that evaluation treats
    it as one.
    """

    def __init__(self, scores: np.ndarray):
        """`scores` is float32 [num_items]."""
        self._scores = tf.constant(scores, tf.float32)

    def __call__(self, features: Features) -> tf.Tensor:
        """The scores [batch_size, list_size] of the items of each list."""
        return tf.gather(self._scores, features[schema.ITEMS])

    def query_vectors(self, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """The vector (1) of each query: [batch_size, 1]."""
        return tf.ones([tf.shape(features[schema.QUERY])[0], 1])

    def candidate_vectors(self, items: tf.Tensor) -> tf.Tensor:
        """The score of each item as a vector: [num_items, 1]."""
        return tf.gather(self._scores, items)[:, tf.newaxis]


def popularity(items: np.ndarray, *, num_items: int) -> ItemScores:
    """Ranks items by their number of training ratings. Items with the same number are tied.

    Args:
      items: int32 [num_ratings], the item indices of the training ratings.
      num_items: Number of item indices, including index 0, which comes last.
    """
    counts = np.bincount(items, minlength=num_items).astype(np.float32)
    counts[schema.UNKNOWN_INDEX] = -1
    return ItemScores(counts)


def recent_popularity(items: np.ndarray, timestamps: np.ndarray, *, days: float, num_items: int) -> ItemScores:
    """Ranks items by their number of ratings in the last days before the end of the training split.

    Args:
      items: int32 [num_ratings], the item indices of the training ratings.
      timestamps: int64 [num_ratings], in seconds.
      days: The length of the period, in days.
      num_items: Number of item indices, including index 0, which comes last.
    """
    return popularity(items[timestamps > timestamps.max() - days * _SECONDS_PER_DAY], num_items=num_items)


def item_mean(items: np.ndarray, ratings: np.ndarray, *, num_items: int) -> ItemScores:
    """Ranks items by their damped mean training rating, (sum + d · global mean) / (n + d), d = ITEM_MEAN_DAMPING.

    An item without training ratings has the global mean.

    Args:
      items: int32 [num_ratings], the item indices of the training ratings.
      ratings: float32 [num_ratings].
      num_items: Number of item indices, including index 0.
    """
    means = damped_means(items, ratings, num_items=num_items, damping=ITEM_MEAN_DAMPING)
    return ItemScores(means.astype(np.float32))


def build_baselines(dataset: Dataset, *, recent_days: float | None) -> dict[str, ItemScores]:
    """Builds the baselines by name from the training ratings.

    Args:
      dataset: Without ratings, that is with events, there is no `item_mean`.
      recent_days: The period of `recent_popularity` in days. None leaves this baseline out, for data without times.
    """
    num_items = dataset.vocabulary.num_items
    _, items, ratings = dataset.ratings["train"]
    baselines = {"popularity": popularity(items, num_items=num_items)}
    if recent_days is not None:
        timestamps = dataset.timestamps["train"]
        baselines["recent_popularity"] = recent_popularity(items, timestamps, days=recent_days, num_items=num_items)
    if dataset.has_ratings:
        baselines["item_mean"] = item_mean(items, ratings, num_items=num_items)
    return baselines
