"""Sampled negatives: which items a step draws, and how they join the lists of the batch."""

from collections.abc import Sequence

import numpy as np

from trainer.compat import tf
from trainer.schema import PADDING_LABEL, UNKNOWN_INDEX


class NegativeSampler:
    """Draws the negatives of each step, with replacement, from a mix of popularity and the uniform distribution.

    The probability of item i of the N items is

        p_i = (1 − uniform_fraction) · counts[i]^β / Σ_j counts[j]^β + uniform_fraction / N

    where β is the popularity power. Index 0 is no item and is never drawn.

    Attributes:
      probabilities: float64 [num_items], p by item index.
      log_expected_counts: float32 [num_items], log(num_negatives · p_i), the number of times that a step draws item i.
        Items that are never drawn have the smallest value of those that are.
    """

    def __init__(
        self,
        counts: np.ndarray,
        *,
        num_negatives: int,
        popularity_power: float,
        uniform_fraction: float,
        seed: int,
    ):
        """Builds a sampler.

        Args:
          counts: int64 [num_items], the number of training ratings by item index. The count of index 0 is ignored.
          num_negatives: the number of items to draw in each step.
          popularity_power: β, at least 0. 0: all items are equally probable.
          uniform_fraction: the probability that is spread evenly over all items, in [0, 1].
          seed: of the run.

        Raises:
          ValueError: no item has a positive probability.
        """
        weights = np.asarray(counts, np.float64) ** popularity_power
        weights[UNKNOWN_INDEX] = 0.0
        if not weights.sum() > 0:
            raise ValueError(f"Negatives cannot be drawn: none of the {len(weights) - 1} items has a training rating.")
        is_item = np.arange(len(weights)) != UNKNOWN_INDEX
        self.probabilities = (1.0 - uniform_fraction) * weights / weights.sum()
        self.probabilities += uniform_fraction * is_item / is_item.sum()
        smallest = self.probabilities[self.probabilities > 0].min()
        self.log_expected_counts = np.log(num_negatives * np.maximum(self.probabilities, smallest)).astype(np.float32)
        self._cumulative = np.cumsum(self.probabilities)
        self._cumulative /= self._cumulative[-1]
        self._num_negatives = num_negatives
        self._seed = seed

    def draw(self, steps: Sequence[int] | np.ndarray) -> np.ndarray:
        """The negatives of some steps, a function of the seed and the step.

        Args:
          steps: int64 [num_steps].

        Returns:
          int32 [num_steps, num_negatives].
        """
        # NumPy guarantees the raw output of a bit generator for all versions, but not that of `Generator.choice`.
        # Philox is a function of its key and counter. The first word of the counter counts the numbers of a step.
        bits = np.stack(
            [
                np.random.Philox(key=self._seed, counter=[0, int(step), 0, 0]).random_raw(self._num_negatives)
                for step in steps
            ]
        )
        uniform = (bits >> np.uint64(11)) * 2.0**-53
        return np.searchsorted(self._cumulative, uniform, side="right").astype(np.int32)


def sampled_lists(
    queries: tf.Tensor,
    items: tf.Tensor,
    labels: tf.Tensor,
    scores: tf.Tensor,
    *,
    negatives: tf.Tensor,
    negative_vectors: tf.Tensor,
    seen: tf.Tensor,
    num_items: int,
    log_expected_counts: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Adds the negatives of a step to each list, with label 0.

    A negative that is in the list of a query, or in `seen`, becomes padding in this list.

    With `log_expected_counts`, the logarithm of its expected number of draws is subtracted from the score of each
    negative (the logQ correction). The targets of a query are in its list with certainty, so their scores stay as they
    are. The sum of exp(score) over the longer list then has the same expectation as the sum over the targets and all
    items that the query has not seen. So a softmax over it estimates the softmax over the catalogue: the importance
    sampling of Bengio & Senécal (IEEE Transactions on Neural Networks, 2008). Correcting the targets too is right where
    they are drawn like the negatives, as in-batch negatives are (Yi et al., RecSys 2019). Here it would bias the sum
    (Khrylchenko et al., "Correcting the LogQ Correction", RecSys 2025).

    Args:
      queries: float32 [num_lists, vector_size], the query vectors.
      items: int32 [num_lists, list_size].
      labels: float32 [num_lists, list_size], negative where padded.
      scores: float32 [num_lists, list_size].
      negatives: int32 [num_negatives], in any order, with repetitions.
      negative_vectors: float32 [num_negatives, vector_size], their candidate vectors.
      seen: int32 [num_queries, num_seen], padded with 0. num_lists is a multiple of num_queries, and the lists of a
        query follow each other.
      num_items: the number of item indices, including index 0.
      log_expected_counts: float32 [num_items], of the sampler. None: no correction.

    Returns:
      Labels and scores, float32 [num_lists, list_size + num_negatives].
    """
    negative_scores = tf.matmul(queries, negative_vectors, transpose_b=True)
    if log_expected_counts is not None:
        negative_scores -= tf.gather(log_expected_counts, negatives)
    is_hit = _contains(items, negatives, num_items) | tf.repeat(
        _contains(seen, negatives, num_items), labels.shape[0] // seen.shape[0], axis=0
    )
    negative_labels = tf.where(is_hit, PADDING_LABEL, 0.0)
    return tf.concat([labels, negative_labels], axis=1), tf.concat([scores, negative_scores], axis=1)


def _contains(items: tf.Tensor, wanted: tf.Tensor, num_items: int) -> tf.Tensor:
    """Whether each row of items int32 [num_rows, n] contains each of `wanted` int32 [m], none of them 0.

    Comparing each with each takes num_rows · n · m steps. This takes num_rows · (n + m), and memory for num_rows · m
    and num_items numbers.

    Returns:
      bool [num_rows, m].
    """
    num_rows, num_wanted = items.shape[0], wanted.shape[0]
    # Of equal items in `wanted`, one position stands for all. Items that are not wanted get a column of their own.
    position = tf.tensor_scatter_nd_min(tf.fill([num_items], num_wanted), wanted[:, tf.newaxis], tf.range(num_wanted))
    columns = tf.gather(position, items)
    rows = tf.broadcast_to(tf.range(num_rows)[:, tf.newaxis], tf.shape(columns))
    is_found = tf.tensor_scatter_nd_max(
        tf.zeros([num_rows, num_wanted + 1], tf.int32), tf.stack([rows, columns], axis=-1), tf.ones_like(columns)
    )
    return tf.gather(is_found, tf.gather(position, wanted), axis=1) > 0
