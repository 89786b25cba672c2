"""Baselines: simple ways to rank. A useful model has better metrics than all of them."""

from collections.abc import Mapping

import numpy as np

from trainer import schema
from trainer.compat import tf
from trainer.data.dataset import Dataset
from trainer.modeling.two_tower import Features

ITEM_MEAN_DAMPING = 5.0
"""The weight, in ratings, of the mean of all ratings in the damped mean of an item."""


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


class RandomOrder:
    """Ranks the items of each query in a random order, which depends on the seed and the query."""

    def __init__(self, *, seed: int):
        self._seed = seed

    def __call__(self, features: Features) -> tf.Tensor:
        """Random scores [batch_size, list_size]."""
        # One seed per query, not per batch: the rows of a batch depend on the number of replicas.
        list_size = features[schema.ITEMS].shape[1]
        return tf.map_fn(
            lambda query: tf.random.stateless_uniform([list_size], tf.stack([self._seed, query])),
            features[schema.QUERY],
            fn_output_signature=tf.float32,
        )

    def catalogue_ranks(self, queries: np.ndarray, num_ranked: np.ndarray, num_candidates: np.ndarray) -> np.ndarray:
        """Draws the ranks of given items in a random order of the whole catalogue, without scoring it.

        Args:
          queries: int32 [num_queries], user indices.
          num_ranked: int [num_queries]: the number of items to rank for each query.
          num_candidates: int [num_queries]: the number of candidates, including these items.

        Returns:
          int64 [sum of num_ranked], query by query: different ranks from 1 to the number of candidates.
        """
        ranks = [np.zeros(0, np.int64)]
        for query, size, candidates in zip(queries.tolist(), num_ranked, num_candidates, strict=True):
            generator = np.random.default_rng([self._seed, query])
            ranks.append(1 + generator.choice(candidates, size, replace=False))
        return np.concatenate(ranks)


def popularity(num_items: int) -> ItemScores:
    """Ranks items by their number of training ratings. The vocabulary orders item indices that way."""
    scores = -np.arange(num_items, dtype=np.float32)
    scores[schema.UNKNOWN_INDEX] = -num_items
    return ItemScores(scores)


def item_mean(items: np.ndarray, ratings: np.ndarray, *, num_items: int) -> ItemScores:
    """Ranks items by their damped mean training rating, (sum + d · global mean) / (n + d), d = ITEM_MEAN_DAMPING.

    An item without training ratings has the global mean.

    Args:
      items: int32 [num_ratings], the item indices of the training ratings.
      ratings: float32 [num_ratings].
      num_items: Number of item indices, including index 0.
    """
    global_mean = float(np.mean(ratings, dtype=np.float64))
    sums = np.bincount(items, weights=ratings, minlength=num_items)
    counts = np.bincount(items, minlength=num_items)
    means = (sums + ITEM_MEAN_DAMPING * global_mean) / (counts + ITEM_MEAN_DAMPING)
    return ItemScores(means.astype(np.float32))


def build_baselines(dataset: Dataset, *, seed: int) -> dict[str, ItemScores | RandomOrder]:
    """Builds the baselines by name from the training ratings. `seed` determines the random order."""
    num_items = dataset.vocabulary.num_items
    _, items, ratings = dataset.ratings["train"]
    return {
        "popularity": popularity(num_items),
        "item_mean": item_mean(items, ratings, num_items=num_items),
        "random": RandomOrder(seed=seed),
    }
