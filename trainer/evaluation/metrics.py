"""TF-Ranking's metrics by key and cutoff, one value per list, with an explicit relevance threshold.

TF-Ranking's binary metrics count every label from 1 as relevant. With star ratings every item would be relevant.
Here the threshold is an argument, the same for all binary metrics. NDCG, DCG, ARP and ordered pair accuracy use
graded labels. The formulas are in `list_metrics`.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from settings.errors import ConfigError
from settings.trainer_config.evaluation import parse_metric_name
from trainer.compat import tf
from trainer.evaluation.list_metrics import ScoredLists, values_of_lists
from trainer.evaluation.rank_metrics import RankedLists, values_from_ranks

_KEYS_WITH_SUBTOPICS = ("alpha_dcg", "precision_ia")


@dataclasses.dataclass(frozen=True)
class RankingMetric:
    """A metric that has a value for each list. `build_metrics` builds it.

    Attributes:
      name: "key" or "key@cutoff".
    """

    name: str
    # Labels at or above this value are relevant.
    _relevance_threshold: float = dataclasses.field(repr=False)
    # bool [num_items, num_subtopics]. None if the metric does not use subtopics.
    _item_subtopics: np.ndarray | None = dataclasses.field(repr=False, default=None)

    def of_lists(self, lists: ScoredLists) -> tuple[tf.Tensor, tf.Tensor]:
        """Computes the metric of each list.

        The weight of a list is its number of ordered pairs for ordered_pair_accuracy, the sum of its labels for arp,
        and 1 for all others. Where the metric is undefined because nothing is relevant (for ndcg and dcg: because no
        label is above 0), the value and the weight are 0.

        Returns:
          The values and their weights, both float32 [num_lists].
        """
        return values_of_lists(
            *parse_metric_name(self.name),
            lists,
            relevance_threshold=self._relevance_threshold,
            item_subtopics=self._item_subtopics,
        )

    def from_ranks(self, lists: RankedLists) -> tuple[np.ndarray, np.ndarray]:
        """Computes the metric of each list from the ranks of its labelled items, without the whole list.

        Without ties, the values and weights are those of `of_lists` for the whole list. With ties the values are their
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
        key, _ = parse_metric_name(name)
        needs_subtopics = key in _KEYS_WITH_SUBTOPICS
        if needs_subtopics and item_subtopics is None:
            raise ConfigError(
                f"config.eval.metrics contains {name!r}, which needs the genres of the items, but this data has no "
                "genres. Remove the metric, or add genres to the items."
            )
        metrics.append(RankingMetric(name, relevance_threshold, item_subtopics if needs_subtopics else None))
    return metrics


def compute_metrics(
    metrics: Sequence[RankingMetric], labels: tf.Tensor, scores: tf.Tensor, weights: tf.Tensor, items: tf.Tensor
) -> tf.Tensor:
    """Computes metrics of lists, which are ranked once for all metrics. Callers let XLA compile it.

    Over one batch, sum(values × weights) / sum(weights) is what TF-Ranking's Keras metric would report, if something in
    each list is relevant. The Keras metric counts other lists as 0.

    Args:
      metrics: At least one.
      labels: float32 [..., list_size], negative where padded.
      scores: [..., list_size] of any float type. It may have more leading axes than the others, for several scores of
        the same lists.
      weights: float32 [...]: 1 for a list, 0 for a padding row.
      items: int32 [..., list_size]: item indices.

    Returns:
      float32 [..., num_metrics, 2], with the leading axes of `scores`: values and weights.
    """
    *axes, list_size = scores.shape
    labels, scores, items = (
        tf.reshape(tf.broadcast_to(of_entries, scores.shape), [-1, list_size])
        for of_entries in (labels, tf.cast(scores, tf.float32), items)
    )
    weights = tf.reshape(tf.broadcast_to(weights, axes), [-1])
    lists = ScoredLists(labels, scores, items)
    pairs = []
    for metric in metrics:
        values, list_weights = metric.of_lists(lists)
        pairs.append(tf.stack([values, list_weights * weights], axis=-1))
    return tf.reshape(tf.stack(pairs, axis=1), [*axes, len(metrics), 2])
