"""TF-Ranking's metrics of whole lists, computed from the ranks of their entries.

A sort is slow under XLA, so ranks are counted: the rank of an entry is 1 plus the number of entries with a higher
score. That takes list_size² comparisons, but a processor makes many of them at once. On a CPU it takes a sixth of the
time of TensorFlow's sort for lists of 100, and as long for lists of 1,500. A list is a column of [list_size,
num_lists], so that neighbours in memory belong to different lists and sums over lists are fast too.

The formulas are those of TF-Ranking, and the tests compare the two. `rank_metrics` has the same metrics for lists too
long to be built.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from trainer.compat import tf

# Ties are broken at random, but the same way in every evaluation.
_TIES_SEED = 0
# How many partners of an entry one iteration of a loop compares it with. More take longer to compile.
_PARTNERS_PER_ITERATION = 10
_ALPHA = 0.5  # TF-Ranking's default for alpha_dcg.


class ScoredLists:
    """Lists with a score for each entry, and the ranks that follow. Every metric uses the same ranks.

    Entries with equal scores are ordered by a permutation of the positions that depends only on the list size. Padding
    comes last, and a score that is not a number just before it. All shapes are static.

    Attributes:
      is_real: bool [list_size, num_lists]: false where padded. The entries are in the order of the permutation.
      labels: float32 [list_size, num_lists]: 0 where padded.
      items: int32 [list_size, num_lists], or None.
    """

    def __init__(self, labels: tf.Tensor, scores: tf.Tensor, items: tf.Tensor | None = None):
        """Takes lists in rows.

        Args:
          labels: float32 [num_lists, list_size], negative where padded.
          scores: float32 [num_lists, list_size].
          items: int32 [num_lists, list_size]: item indices, for metrics of subtopics.
        """
        order = np.random.default_rng(_TIES_SEED).permutation(labels.shape[1]).astype(np.int32)
        labels, self._scores = (tf.gather(tf.transpose(rows), order) for rows in (labels, scores))
        self.items = None if items is None else tf.gather(tf.transpose(items), order)
        self.is_real = labels >= 0
        self.labels = tf.where(self.is_real, labels, 0.0)

    @property
    def list_size(self) -> int:
        return self.labels.shape[0]

    @functools.cached_property
    def list_sizes(self) -> tf.Tensor:
        """The number of entries that are not padding: float32 [num_lists]."""
        return _count(self.is_real)

    @functools.cached_property
    def keys(self) -> tf.Tensor:
        """The order of the scores as integers, see `order_keys`: int32 [list_size, num_lists]."""
        return order_keys(self._scores, self.is_real)

    @functools.cached_property
    def ranks(self) -> tf.Tensor:
        """The rank of each entry by its score, from 1: int32 [list_size, num_lists]."""
        return ranks_of(self.keys)

    @functools.cached_property
    def ideal_ranks(self) -> tf.Tensor:
        """The rank of each entry by its label, from 1: int32 [list_size, num_lists]."""
        return ranks_of(order_keys(self.labels, self.is_real))

    @functools.cached_property
    def gains(self) -> tf.Tensor:
        """2^label − 1: float32 [list_size, num_lists]."""
        return tf.exp(self.labels * np.float32(np.log(2))) - 1

    def within(self, cutoff: int | None) -> tf.Tensor:
        """Which entries have a rank up to the cutoff: bool [list_size, num_lists]."""
        return self.ranks <= (self.list_size if cutoff is None else cutoff)


def order_keys(values: tf.Tensor, is_real: tf.Tensor) -> tf.Tensor:
    """Integers in the order of float32 values, so that key + 1 is above this value and not above any higher one.

    They are the bits of the floats. Those of a negative float are inverted, since they grow with its magnitude.

    Args:
      values: float32 [list_size, num_lists].
      is_real: bool [list_size, num_lists]. Elsewhere the key is the lowest of all.
    """
    values = tf.where(values > values.dtype.min, values, values.dtype.min)  # Also where it is not a number.
    values = tf.where(values == 0, 0.0, values)  # The bits of −0 differ.
    bits = tf.bitcast(values, tf.int32)
    return tf.where(is_real, tf.where(bits < 0, bits ^ tf.int32.max, bits), tf.int32.min)


def ranks_of(keys: tf.Tensor) -> tf.Tensor:
    """The rank of each key in its column, the highest first and equal keys in order: int32 [list_size, num_lists]."""
    # An equal key counts if it comes earlier in the list.
    return 1 + sum_over_partners(lambda others: tf.cast(others > keys, tf.int32), [(keys, keys + 1)])


def sum_over_partners(fn: Callable[..., tf.Tensor], partners: Sequence[tuple[tf.Tensor, tf.Tensor]]) -> tf.Tensor:
    """For each entry, sums a function of it and a partner over all entries of its list, without an array of all pairs.

    Args:
      fn: Takes a tensor [list_size, ...] for each pair in `partners`, with the partner of entry i in row i. Returns
        int32 of the shape of the first of these tensors.
      partners: What `fn` needs to know of a partner, [list_size, ...] twice: of a partner that is the entry itself or
        comes later in the list, and of one that comes earlier.

    Returns:
      int32 of the shape that `fn` returns.
    """
    list_size = partners[0][0].shape[0]
    # Row i + d of both, end to end, is the partner d places after entry i, where the list goes on from its start.
    around = [tf.concat(pair, 0) for pair in partners]

    def at(distance: tf.Tensor | int) -> tf.Tensor:
        # The slices have a constant size, which XLA compiles to a plain offset.
        begins = ([distance] + [0] * (both.shape.rank - 1) for both in around)
        sizes = ([list_size, *both.shape[1:]] for both in around)
        return fn(*map(tf.slice, around, begins, sizes))

    def add_some(distance: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        for offset in range(_PARTNERS_PER_ITERATION):
            total += at(distance + offset)
        return distance + _PARTNERS_PER_ITERATION, total

    total = tf.zeros(partners[0][0].shape, tf.int32)
    rest = list_size % _PARTNERS_PER_ITERATION
    for distance in range(rest):
        total += at(distance)
    return tf.while_loop(lambda distance, _: distance < list_size, add_some, (tf.constant(rest), total))[1]


def values_of_lists(
    key: str,
    cutoff: int | None,
    lists: ScoredLists,
    *,
    relevance_threshold: float,
    item_subtopics: np.ndarray | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes a metric for each list: its value and its weight, see `metrics.compute_metrics`.

    Args:
      key: The key of a metric, see `metrics.build_metrics`.
      cutoff: The number of ranks that count; None for all.
      lists: The lists.
      relevance_threshold: Labels at or above this value are relevant; above 0.
      item_subtopics: bool [num_items, num_subtopics], for alpha_dcg and precision_ia.

    Returns:
      Values and weights, float32 [num_lists].
    """
    if key in _WITH_WEIGHTS:
        return _WITH_WEIGHTS[key](lists)
    relevant = lists.labels >= relevance_threshold
    is_defined = tf.reduce_any(lists.labels > 0 if key in _GRADED else relevant, axis=0)
    if key in _GRADED:
        values = _GRADED[key](lists, cutoff)
    elif key in _BINARY:
        values = _BINARY[key](lists, cutoff, relevant)
    else:
        covers = tf.gather(item_subtopics, lists.items) & relevant[:, :, tf.newaxis]
        values = _WITH_SUBTOPICS[key](lists, cutoff, covers)
    return values, tf.cast(is_defined, tf.float32)


def _count(flags: tf.Tensor) -> tf.Tensor:
    """How many entries of each list have a flag: float32 [num_lists, ...]."""
    return tf.cast(tf.reduce_sum(tf.cast(flags, tf.int32), axis=0), tf.float32)


def _discounts(list_size: int, cutoff: int | None) -> np.ndarray:
    """1 / log2(1 + rank) of the ranks 0, 1, ..., and 0 for rank 0 and after the cutoff: float32 [list_size + 1]."""
    ranks = np.arange(1, list_size + 1)
    discounts = np.where(ranks <= (cutoff or list_size), 1 / np.log2(1 + ranks), 0)
    return np.append(0, discounts).astype(np.float32)


def _discounted(lists: ScoredLists, cutoff: int | None, gains: tf.Tensor, ranks: tf.Tensor) -> tf.Tensor:
    """The sum of gain / log2(1 + rank) up to the cutoff: float32 [num_lists]."""
    return tf.reduce_sum(gains * tf.gather(_discounts(lists.list_size, cutoff), ranks), axis=0)


def _dcg(lists: ScoredLists, cutoff: int | None) -> tf.Tensor:
    return _discounted(lists, cutoff, lists.gains, lists.ranks)


def _ndcg(lists: ScoredLists, cutoff: int | None) -> tf.Tensor:
    ideal = _discounted(lists, cutoff, lists.gains, lists.ideal_ranks)
    return tf.math.divide_no_nan(_dcg(lists, cutoff), ideal)


def _binary_ndcg(lists: ScoredLists, cutoff: int | None, relevant: tf.Tensor) -> tf.Tensor:
    # In the best order, the relevant entries have the first ranks.
    ideals = np.cumsum(_discounts(lists.list_size, cutoff), dtype=np.float32)
    ideal = tf.gather(ideals, tf.reduce_sum(tf.cast(relevant, tf.int32), axis=0))
    return tf.math.divide_no_nan(_discounted(lists, cutoff, tf.cast(relevant, tf.float32), lists.ranks), ideal)


def _mrr(lists: ScoredLists, cutoff: int | None, relevant: tf.Tensor) -> tf.Tensor:
    first = tf.reduce_min(tf.where(relevant & lists.within(cutoff), lists.ranks, lists.list_size + 1), axis=0)
    return tf.where(first <= lists.list_size, 1 / tf.cast(first, tf.float32), 0.0)


def _map(lists: ScoredLists, cutoff: int | None, relevant: tf.Tensor) -> tf.Tensor:
    ranks = tf.where(relevant, lists.ranks, lists.list_size + 1)
    num_up_to = sum_over_partners(lambda others: tf.cast(others <= lists.ranks, tf.int32), [(ranks, ranks)])
    precisions = tf.cast(num_up_to, tf.float32) / tf.cast(lists.ranks, tf.float32)
    total = tf.reduce_sum(tf.where(relevant & lists.within(cutoff), precisions, 0.0), axis=0)
    return tf.math.divide_no_nan(total, _count(relevant))


def _num_hits(lists: ScoredLists, cutoff: int | None, relevant: tf.Tensor) -> tf.Tensor:
    return _count(relevant & lists.within(cutoff))


def _hits(lists: ScoredLists, cutoff: int | None, relevant: tf.Tensor) -> tf.Tensor:
    return tf.minimum(_num_hits(lists, cutoff, relevant), 1.0)


def _recall(lists: ScoredLists, cutoff: int | None, relevant: tf.Tensor) -> tf.Tensor:
    return tf.math.divide_no_nan(_num_hits(lists, cutoff, relevant), _count(relevant))


def _precision(lists: ScoredLists, cutoff: int | None, relevant: tf.Tensor) -> tf.Tensor:
    # Divided by the cutoff also where the list is shorter.
    return tf.math.divide_no_nan(_num_hits(lists, cutoff, relevant), lists.list_sizes if cutoff is None else cutoff)


def _effective_cutoff(lists: ScoredLists, cutoff: int | None) -> tf.Tensor:
    return lists.list_sizes if cutoff is None else tf.minimum(lists.list_sizes, cutoff)


def _tfr_precision(lists: ScoredLists, cutoff: int | None, relevant: tf.Tensor) -> tf.Tensor:
    return tf.math.divide_no_nan(_num_hits(lists, cutoff, relevant), _effective_cutoff(lists, cutoff))


def _precision_ia(lists: ScoredLists, cutoff: int | None, covers: tf.Tensor) -> tf.Tensor:
    num_subtopics = tf.reduce_sum(tf.cast(tf.reduce_any(covers, axis=0), tf.float32), axis=1)
    found = tf.reduce_sum(_count(covers & lists.within(cutoff)[:, :, tf.newaxis]), axis=1)
    return tf.math.divide_no_nan(found, _effective_cutoff(lists, cutoff) * num_subtopics)


def _alpha_dcg(lists: ScoredLists, cutoff: int | None, covers: tf.Tensor) -> tf.Tensor:
    def covers_before(covers: tf.Tensor, ranks: tf.Tensor) -> tf.Tensor:
        return tf.cast(covers & (ranks < lists.ranks)[:, :, tf.newaxis], tf.int32)

    num_before = sum_over_partners(covers_before, [(covers, covers), (lists.ranks, lists.ranks)])
    gains = tf.where(covers, tf.pow(1 - _ALPHA, tf.cast(num_before, tf.float32)), 0.0)
    return _discounted(lists, cutoff, tf.reduce_sum(gains, axis=2), lists.ranks)


def _arp(lists: ScoredLists) -> tuple[tf.Tensor, tf.Tensor]:
    weights = tf.reduce_sum(lists.labels, axis=0)
    total = tf.reduce_sum(tf.cast(lists.ranks, tf.float32) * lists.labels, axis=0)
    return tf.math.divide_no_nan(total, weights), weights


def _ordered_pair_accuracy(lists: ScoredLists) -> tuple[tf.Tensor, tf.Tensor]:
    # Pairs of an entry and a partner with a lower label, which padding never is. As in TF-Ranking, a pair with equal
    # scores is in the wrong order.
    labels = tf.where(lists.is_real, lists.labels, -1.0)
    partners = tf.where(lists.is_real, lists.labels, np.inf)
    num_pairs = sum_over_partners(lambda others: tf.cast(labels > others, tf.int32), [(partners, partners)])
    num_correct = sum_over_partners(
        lambda others, keys: tf.cast((labels > others) & (lists.keys > keys), tf.int32),
        [(partners, partners), (lists.keys, lists.keys)],
    )
    weights = tf.cast(tf.reduce_sum(num_pairs, axis=0), tf.float32)
    return tf.math.divide_no_nan(tf.cast(tf.reduce_sum(num_correct, axis=0), tf.float32), weights), weights


_GRADED: dict[str, Callable[[ScoredLists, int | None], tf.Tensor]] = {"dcg": _dcg, "ndcg": _ndcg}
_BINARY: dict[str, Callable[[ScoredLists, int | None, tf.Tensor], tf.Tensor]] = {
    "binary_ndcg": _binary_ndcg,  # NDCG of labels 0 and 1, whose gains are 0 and 1.
    "hits": _hits,
    "map": _map,
    "mrr": _mrr,
    "precision": _precision,
    "recall": _recall,
    "tfr_precision": _tfr_precision,
}
_WITH_WEIGHTS: dict[str, Callable[[ScoredLists], tuple[tf.Tensor, tf.Tensor]]] = {
    "arp": _arp,
    "ordered_pair_accuracy": _ordered_pair_accuracy,
}
_WITH_SUBTOPICS: dict[str, Callable[[ScoredLists, int | None, tf.Tensor], tf.Tensor]] = {
    "alpha_dcg": _alpha_dcg,
    "precision_ia": _precision_ia,
}
