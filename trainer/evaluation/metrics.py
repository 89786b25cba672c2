"""The metrics of TensorFlow Ranking by key and cutoff, one value per list, with relevance made explicit.

Its binary metrics call every label from 1 relevant, so that with star ratings every item is. Here the
threshold is an argument, and decides for all of them. NDCG, DCG, ARP and ordered pair accuracy see the graded
labels.
"""

import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np

from settings.errors import ConfigError
from trainer.compat import sorting_once, tf, tfr
from trainer.schema import PADDING_LABEL

_Key = tfr.keras.metrics.RankingMetricKey
# What the Keras metrics average: the same numbers per list, without their variables.
_impl = tfr.keras.metrics.metrics_impl

_GRADED = {
    _Key.NDCG: _impl.NDCGMetric,
    _Key.DCG: _impl.DCGMetric,
    _Key.ARP: _impl.ARPMetric,
    _Key.ORDERED_PAIR_ACCURACY: _impl.OPAMetric,
}
_BINARY = {
    _Key.MRR: _impl.MRRMetric,
    _Key.MAP: _impl.MeanAveragePrecisionMetric,
    _Key.PRECISION: _impl.PrecisionMetric,
    "recall": _impl.RecallMetric,  # TensorFlow Ranking has the metric, but no key for it.
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
    """A metric per list; `build_metrics` builds it.

    Attributes:
      name: "key" or "key@cutoff".
    """

    name: str
    _metric: Any = dataclasses.field(repr=False)
    # Labels from here are relevant; None where the metric sees graded labels.
    _relevance_threshold: float | None = dataclasses.field(repr=False, default=None)
    # bool or float [num_items, num_subtopics]; None where the metric knows no subtopics.
    _item_subtopics: tf.Tensor | None = dataclasses.field(repr=False, default=None)

    def __call__(
        self, labels: tf.Tensor, scores: tf.Tensor, weights: tf.Tensor, *, items: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Computes the metric of each list.

        Over one batch, sum(values × weights) / sum(weights) is what the Keras metric would report. So for
        ordered_pair_accuracy a list weighs as many as it has ordered pairs, and for arp the sum of its
        labels; for all others it weighs 1. A list where the metric is undefined, because nothing in it is
        relevant, has value 0, and counts.

        Args:
          labels: float32 [batch_size, list_size], negative where padded.
          scores: [batch_size, list_size] of any float type.
          weights: float32 [batch_size]: 1 for a list, 0 for a filler row.
          items: int32 [batch_size, list_size]: item indices, for alpha_dcg and precision_ia only.

        Returns:
          The values and their weights, both float32 [batch_size].
        """
        labels = tf.cast(labels, tf.float32)
        is_real = labels >= 0
        if self._relevance_threshold is not None:
            is_relevant = tf.cast(labels >= self._relevance_threshold, tf.float32)
            labels = tf.where(is_real, is_relevant, PADDING_LABEL)
        if self._item_subtopics is not None:
            subtopics = tf.cast(tf.gather(self._item_subtopics, items), tf.float32)
            is_real = is_real[:, :, tf.newaxis]
            labels = tf.where(is_real, labels[:, :, tf.newaxis] * subtopics, PADDING_LABEL)
        with sorting_once(_TIES_SEED):
            values, list_weights = self._metric.compute(labels, tf.cast(scores, tf.float32), weights[:, tf.newaxis])
        return values[:, 0], list_weights[:, 0]


def _parse(name: str) -> tuple[str, int | None]:
    """Splits a metric's name into its key and its cutoff, None for the whole list."""
    key, at, digits = name.partition("@")
    if key not in _METRICS:
        raise ConfigError(
            f"config.eval.metrics names {name!r}, but a metric is one of {', '.join(sorted(_METRICS))}, with "
            "or without a cutoff, as in ndcg@10."
        )
    if not at:
        return key, None
    if not _takes_cutoff(key):
        raise ConfigError(f"config.eval.metrics names {name!r}, but {key} always looks at the whole list: write {key}.")
    # isdecimal alone would let through digits of other scripts.
    if not (digits.isascii() and digits.isdecimal()) or int(digits) == 0:
        raise ConfigError(f"config.eval.metrics names {name!r}, but a cutoff is a rank from 1, as in {key}@10.")
    return key, int(digits)


def _takes_cutoff(key: str) -> bool:
    return "topn" in inspect.signature(_METRICS[key]).parameters


def check_metrics(names: Sequence[str]) -> None:
    """Checks the names as far as can be without the items.

    Raises:
      ConfigError: For an unknown key, a malformed cutoff, or a name that stands twice.
    """
    for name in names:
        _parse(name)
    if len(set(names)) < len(names):
        raise ConfigError(f"config.eval.metrics names one metric twice: {', '.join(names)}.")


def build_metrics(
    names: Sequence[str], *, relevance_threshold: float, item_subtopics: np.ndarray | None = None
) -> list[RankingMetric]:
    """Builds metrics by name, in the order of the names.

    Args:
      names: Each "key" or "key@cutoff". Seeing graded labels: ndcg, dcg (gain 2^label − 1), arp,
        ordered_pair_accuracy. Seeing whether an item is relevant: mrr, map, precision, recall, hits,
        precision_ia and alpha_dcg, the last two for each subtopic.
      relevance_threshold: The lowest label that is relevant.
      item_subtopics: bool or float [num_items, num_subtopics]: which subtopics (genres, say) an item covers;
        row i is that of item index i. Only needed for alpha_dcg and precision_ia.

    Raises:
      ConfigError: For an unknown key, a malformed cutoff, or a metric of subtopics without `item_subtopics`.
    """
    metrics = []
    for name in names:
        key, cutoff = _parse(name)
        if key in _SUBTOPICS and item_subtopics is None:
            raise ConfigError(
                f"config.eval.metrics names {name!r}, but it needs the genres of the items, which these "
                "ratings come without: remove it, or add genres to the items."
            )
        metrics.append(
            RankingMetric(
                name,
                _METRICS[key](name, topn=cutoff) if _takes_cutoff(key) else _METRICS[key](name),
                None if key in _GRADED else relevance_threshold,
                tf.constant(item_subtopics) if key in _SUBTOPICS else None,
            )
        )
    return metrics
