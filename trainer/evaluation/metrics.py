"""TF-Ranking's metrics by key and cutoff, one value per list, with an explicit relevance threshold.

TF-Ranking's binary metrics count every label from 1 as relevant. With star ratings every item would be relevant.
Here the threshold is an argument, the same for all binary metrics. NDCG, DCG, ARP and ordered pair accuracy use
graded labels.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from settings.errors import ConfigError
from settings.trainer_config.evaluation import METRIC_KEYS, parse_metric_name
from trainer.compat import sorting_once, tf, tfr
from trainer.evaluation.rank_metrics import RankedLists, values_from_ranks
from trainer.schema import PADDING_LABEL

_Key = tfr.keras.metrics.RankingMetricKey
# The Keras metrics average these. They return a value per list and have no variables.
_impl = tfr.keras.metrics.metrics_impl


class _PrecisionMetric(_impl.PrecisionMetric):  # type: ignore[name-defined]
    """Precision at n, divided by n also where the list has fewer than n items."""

    def _compute_impl(
        self, labels: tf.Tensor, predictions: tf.Tensor, weights: tf.Tensor, mask: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        values, list_weights = super()._compute_impl(labels, predictions, weights, mask)
        if self._topn is not None:
            list_size = tf.reduce_sum(tf.cast(mask, tf.float32), axis=1, keepdims=True)
            values *= tf.minimum(list_size / self._topn, 1.0)
        return values, list_weights


_GRADED = {
    _Key.NDCG: _impl.NDCGMetric,
    _Key.DCG: _impl.DCGMetric,
    _Key.ARP: _impl.ARPMetric,
    _Key.ORDERED_PAIR_ACCURACY: _impl.OPAMetric,
}
_BINARY = {
    "binary_ndcg": _impl.NDCGMetric,  # Of labels 0 and 1, whose gains are 0 and 1.
    _Key.MRR: _impl.MRRMetric,
    _Key.MAP: _impl.MeanAveragePrecisionMetric,
    _Key.PRECISION: _PrecisionMetric,
    "tfr_precision": _impl.PrecisionMetric,
    "recall": _impl.RecallMetric,  # TF-Ranking has this metric, but no key for it.
    _Key.HITS: _impl.HitsMetric,
}
_SUBTOPICS = {
    _Key.PRECISION_IA: _impl.PrecisionIAMetric,
    _Key.ALPHA_DCG: _impl.AlphaDCGMetric,
}
_METRICS = {**_GRADED, **_BINARY, **_SUBTOPICS}

# Ties are broken at random, but the same way in every evaluation.
_TIES_SEED = 0


@dataclasses.dataclass(frozen=True)
class RankingMetric:
    """A metric that has a value for each list. `build_metrics` builds it.

    Attributes:
      name: "key" or "key@cutoff".
    """

    name: str
    _metric: Any = dataclasses.field(repr=False)
    # Labels at or above this value are relevant. None if the metric uses graded labels.
    _relevance_threshold: float | None = dataclasses.field(repr=False, default=None)
    # bool [num_items, num_subtopics]. None if the metric does not use subtopics.
    _item_subtopics: np.ndarray | None = dataclasses.field(repr=False, default=None)

    def __call__(
        self, labels: tf.Tensor, scores: tf.Tensor, weights: tf.Tensor, *, items: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Computes the metric of each list.

        Over one batch, sum(values × weights) / sum(weights) is what the Keras metric would report. The weight of a
        list is its number of ordered pairs for ordered_pair_accuracy, the sum of its labels for arp, and 1 for all
        others. Where the metric is undefined because nothing is relevant (for ndcg and dcg: because no label is above
        0), the value and the weight are 0. The Keras metric counts such a list as 0.

        Args:
          labels: float32 [batch_size, list_size], negative where padded.
          scores: [batch_size, list_size] of any float type.
          weights: float32 [batch_size]: 1 for a list, 0 for a padding row.
          items: int32 [batch_size, list_size]: item indices, for alpha_dcg and precision_ia only.

        Returns:
          The values and their weights, both float32 [batch_size].
        """
        labels = tf.cast(labels, tf.float32)
        is_real = labels >= 0
        if self._relevance_threshold is not None:
            is_relevant = tf.cast(labels >= self._relevance_threshold, tf.float32)
            labels = tf.where(is_real, is_relevant, PADDING_LABEL)
        # TF-Ranking takes the weight of a list without relevant items from the rest of the batch.
        is_defined = tf.cast(tf.reduce_any(labels > 0, axis=1), tf.float32)
        if self._item_subtopics is not None:
            subtopics = tf.cast(tf.gather(self._item_subtopics, items), tf.float32)
            is_real = is_real[:, :, tf.newaxis]
            labels = tf.where(is_real, labels[:, :, tf.newaxis] * subtopics, PADDING_LABEL)
        with sorting_once(_TIES_SEED):
            values, list_weights = self._metric.compute(labels, tf.cast(scores, tf.float32), weights[:, tf.newaxis])
        return values[:, 0], list_weights[:, 0] * is_defined

    def from_ranks(self, lists: RankedLists) -> tuple[np.ndarray, np.ndarray]:
        """Computes the metric of each list from the ranks of its labelled items, without the whole list.

        Without ties, the values and weights are those of `__call__` for the whole list. With ties the values are their
        expectations over all orders. The relevance threshold plays no part: `lists.relevant` says what is relevant.

        Returns:
          The values and their weights, both float64 [num_queries].
        """
        return values_from_ranks(*parse_metric_name(self.name), lists, self._item_subtopics)


def build_metrics(
    names: Sequence[str], *, relevance_threshold: float, item_subtopics: np.ndarray | None = None
) -> list[RankingMetric]:
    """Builds metrics by name, in the order of the names.

    Metrics of graded labels: ndcg, dcg (both with gain 2^label − 1), arp, ordered_pair_accuracy. Metrics of
    relevant items: binary_ndcg, mrr, map, precision, tfr_precision, recall, hits, and, per subtopic, precision_ia and
    alpha_dcg. docs/metrics.md has the formulas.
    `precision@n` has the usual definition: the number of relevant items among the first n, divided by n.
    `tfr_precision@n` is TF-Ranking's, which divides by min(n, list length) and so is higher for short lists.

    Args:
      names: Each "key" or "key@cutoff".
      relevance_threshold: Labels at or above this value are relevant.
      item_subtopics: bool [num_items, num_subtopics]: the subtopics (genres, for example) that an item
        covers. Row i belongs to item index i. Only alpha_dcg and precision_ia need it.

    Raises:
      ConfigError: A name has an unknown key or a malformed cutoff, or a metric of subtopics has no
        `item_subtopics`.
    """
    metrics = []
    for name in names:
        key, cutoff = parse_metric_name(name)
        if key in _SUBTOPICS and item_subtopics is None:
            raise ConfigError(
                f"config.eval.metrics contains {name!r}, which needs the genres of the items, but this data has no "
                "genres. Remove the metric, or add genres to the items."
            )
        metrics.append(
            RankingMetric(
                name,
                _METRICS[key](name, topn=cutoff) if METRIC_KEYS[key] else _METRICS[key](name),
                None if key in _GRADED else relevance_threshold,
                item_subtopics if key in _SUBTOPICS else None,
            )
        )
    return metrics
