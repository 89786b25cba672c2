"""TF-Ranking's metrics of a whole list, computed from the ranks of its few items with a label above 0.

When the whole catalogue is ranked, nearly all labels are 0. Every metric follows from the ranks of the other items,
so the whole list is never built.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_ALPHA = 0.5  # TF-Ranking's default for alpha_dcg.


@dataclass(frozen=True, eq=False)
class RankedLists:
    """The ranks of the labelled items of many queries, end to end. All other candidates have label 0.

    Attributes:
      offsets: int64 [num_queries + 1]; query i has the entries offsets[i]:offsets[i + 1].
      ranks: float64 [num_entries]: ranks from 1 among the candidates; infinity for an item that cannot be ranked.
        Within a query the ranks ascend.
      labels: float64 [num_entries]: at least 0. Labels from 1 are relevant.
      items: int32 [num_entries], item indices.
      num_candidates: int64 [num_queries].
    """

    offsets: np.ndarray
    ranks: np.ndarray
    labels: np.ndarray
    items: np.ndarray
    num_candidates: np.ndarray

    @property
    def num_queries(self) -> int:
        return len(self.num_candidates)

    @property
    def rows(self) -> np.ndarray:
        """The query of each entry: int64 [num_entries]."""
        return np.repeat(np.arange(self.num_queries), np.diff(self.offsets))

    @property
    def relevant(self) -> np.ndarray:
        """bool [num_entries]."""
        return self.labels >= 1

    @property
    def list_sizes(self) -> np.ndarray:
        """Candidates and items that cannot be ranked: int64 [num_queries]."""
        return self.num_candidates + self.sum(np.isinf(self.ranks)).astype(np.int64)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sums `values` [num_entries] over the entries of each query: float64 [num_queries]."""
        return np.bincount(self.rows, weights=values, minlength=self.num_queries)

    def within(self, cutoff: int | None) -> np.ndarray:
        """Whether the rank of each entry is at most the cutoff: bool [num_entries]."""
        return self.ranks <= (np.finfo(np.float64).max if cutoff is None else cutoff)

    def chunk(self, begin: int, end: int) -> "RankedLists":
        """The queries begin to end - 1."""
        entries = slice(self.offsets[begin], self.offsets[end])
        return RankedLists(
            self.offsets[begin : end + 1] - self.offsets[begin],
            self.ranks[entries],
            self.labels[entries],
            self.items[entries],
            self.num_candidates[begin:end],
        )


def ranked_lists(
    offsets: np.ndarray, ranks: np.ndarray, labels: np.ndarray, items: np.ndarray, num_candidates: np.ndarray
) -> RankedLists:
    """Builds `RankedLists`, whose attributes the arguments are, from ranks in any order."""
    rows = np.repeat(np.arange(len(num_candidates)), np.diff(offsets))
    order = np.lexsort([ranks, rows])
    labels = labels[order].astype(np.float64)
    return RankedLists(offsets, ranks[order].astype(np.float64), labels, items[order], num_candidates)


def values_from_ranks(
    key: str, cutoff: int | None, lists: RankedLists, item_subtopics: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Computes a metric for each query: the value and the weight that TF-Ranking gives the whole list.

    An item that cannot be ranked counts as missed. The ideal DCG, the number of relevant items and the list size
    include it; no cutoff reaches it. For arp and ordered_pair_accuracy, which use the whole list, it comes after all
    candidates.

    Args:
      key: The key of a metric, see `metrics.build_metrics`.
      cutoff: The number of ranks that count; None for all.
      lists: The ranks.
      item_subtopics: bool or float [num_items, num_subtopics], for alpha_dcg and precision_ia.

    Returns:
      Values and weights, float64 [num_queries].
    """
    if key in _WITH_SUBTOPICS:
        assert item_subtopics is not None
        covers = item_subtopics[lists.items].astype(np.float64) * lists.relevant[:, np.newaxis]
        return _WITH_SUBTOPICS[key](lists, cutoff, covers), np.ones(lists.num_queries)
    if key in _WITH_WEIGHTS:
        return _WITH_WEIGHTS[key](lists)
    return _PLAIN[key](lists, cutoff), np.ones(lists.num_queries)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The quotient; 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator != 0)


def _dcg(lists: RankedLists, cutoff: int | None) -> np.ndarray:
    return lists.sum(lists.within(cutoff) * (2**lists.labels - 1) / np.log2(lists.ranks + 1))


def _ndcg(lists: RankedLists, cutoff: int | None) -> np.ndarray:
    order = np.lexsort([-lists.labels, lists.rows])
    positions = 1.0 + np.arange(len(order)) - lists.offsets[lists.rows]
    ideal = RankedLists(lists.offsets, positions, lists.labels[order], lists.items, lists.num_candidates)
    return _ratio(_dcg(lists, cutoff), _dcg(ideal, cutoff))


def _mrr(lists: RankedLists, cutoff: int | None) -> np.ndarray:
    reciprocal = np.zeros(lists.num_queries)
    np.maximum.at(reciprocal, lists.rows, lists.relevant * lists.within(cutoff) / lists.ranks)
    return reciprocal


def _map(lists: RankedLists, cutoff: int | None) -> np.ndarray:
    # Relevant items up to each entry, within its query: entries are in the order of their ranks.
    total = np.append(0, np.cumsum(lists.relevant))
    num_relevant = total[1:] - total[lists.offsets[:-1]][lists.rows]
    precisions = lists.relevant * lists.within(cutoff) * num_relevant / lists.ranks
    return _ratio(lists.sum(precisions), lists.sum(lists.relevant))


def _num_hits(lists: RankedLists, cutoff: int | None) -> np.ndarray:
    return lists.sum(lists.relevant & lists.within(cutoff))


def _hits(lists: RankedLists, cutoff: int | None) -> np.ndarray:
    return np.minimum(_num_hits(lists, cutoff), 1.0)


def _recall(lists: RankedLists, cutoff: int | None) -> np.ndarray:
    return _ratio(_num_hits(lists, cutoff), lists.sum(lists.relevant))


def _precision(lists: RankedLists, cutoff: int | None) -> np.ndarray:
    return _ratio(_num_hits(lists, cutoff), lists.list_sizes if cutoff is None else np.full(lists.num_queries, cutoff))


def _effective_cutoff(lists: RankedLists, cutoff: int | None) -> np.ndarray:
    return lists.list_sizes if cutoff is None else np.minimum(cutoff, lists.list_sizes)


def _tfr_precision(lists: RankedLists, cutoff: int | None) -> np.ndarray:
    return _ratio(_num_hits(lists, cutoff), _effective_cutoff(lists, cutoff))


def _precision_ia(lists: RankedLists, cutoff: int | None, covers: np.ndarray) -> np.ndarray:
    is_covered = covers >= 1
    has_subtopic = np.zeros([lists.num_queries, covers.shape[1]], bool)
    np.logical_or.at(has_subtopic, lists.rows, is_covered)
    found = lists.sum(is_covered.sum(axis=1) * lists.within(cutoff))
    return _ratio(found, _effective_cutoff(lists, cutoff) * has_subtopic.sum(axis=1))


def _alpha_dcg(lists: RankedLists, cutoff: int | None, covers: np.ndarray) -> np.ndarray:
    # How often the items ahead of each entry, within its query, cover each subtopic.
    total = np.vstack([np.zeros([1, covers.shape[1]]), np.cumsum(covers, axis=0)])
    before = total[:-1] - total[lists.offsets[:-1]][lists.rows]
    gains = np.sum(covers * (1 - _ALPHA) ** before, axis=1)
    return lists.sum(lists.within(cutoff) * gains / np.log2(lists.ranks + 1))


def _arp(lists: RankedLists) -> tuple[np.ndarray, np.ndarray]:
    # Items that cannot be ranked share the mean of the ranks after all candidates.
    after_all = lists.num_candidates + (lists.list_sizes - lists.num_candidates + 1) / 2
    ranks = np.where(np.isinf(lists.ranks), after_all[lists.rows], lists.ranks)
    weights = lists.sum(lists.labels)
    return _ratio(lists.sum(ranks * lists.labels), weights), weights


def _ordered_pair_accuracy(lists: RankedLists) -> tuple[np.ndarray, np.ndarray]:
    num_correct, num_pairs = np.zeros(lists.num_queries), np.zeros(lists.num_queries)
    for row, size in enumerate(lists.list_sizes):
        entries = slice(lists.offsets[row], lists.offsets[row + 1])
        labels, ranks = lists.labels[entries], lists.ranks[entries]
        counts = labels > 0
        not_lower = labels[np.newaxis, :] >= labels[counts, np.newaxis]
        is_behind = ranks[np.newaxis, :] > ranks[counts, np.newaxis]
        num_behind = np.where(np.isinf(ranks[counts]), 0, size - np.minimum(ranks[counts], size))
        num_correct[row] = np.sum(num_behind) - np.sum(not_lower & is_behind)
        num_pairs[row] = size * np.sum(counts) - np.sum(not_lower)
    return _ratio(num_correct, num_pairs), num_pairs


_PLAIN: dict[str, Callable[[RankedLists, int | None], np.ndarray]] = {
    "dcg": _dcg,
    "hits": _hits,
    "map": _map,
    "mrr": _mrr,
    "ndcg": _ndcg,
    "precision": _precision,
    "recall": _recall,
    "tfr_precision": _tfr_precision,
}
_WITH_WEIGHTS: dict[str, Callable[[RankedLists], tuple[np.ndarray, np.ndarray]]] = {
    "arp": _arp,
    "ordered_pair_accuracy": _ordered_pair_accuracy,
}
_WITH_SUBTOPICS: dict[str, Callable[[RankedLists, int | None, np.ndarray], np.ndarray]] = {
    "alpha_dcg": _alpha_dcg,
    "precision_ia": _precision_ia,
}
