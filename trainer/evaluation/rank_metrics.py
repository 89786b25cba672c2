"""TF-Ranking's metrics of a whole list, computed from the ranks of its few items with a label above 0.

When the whole catalogue is ranked, nearly all labels are 0. Every metric follows from the ranks of the other items,
so the whole list is never built.

Items with equal scores have no order. A metric is its expectation over all orders of the tied items, so a scorer gains
nothing from the order of the item indices. The formulas follow McSherry and Najork, "Computing information retrieval
performance measures efficiently in the presence of tied scores" (ECIR 2008). `expectations` has those that need more
than a line.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trainer.evaluation import expectations

_ALPHA = 0.5  # TF-Ranking's default for alpha_dcg.


@dataclass(frozen=True, eq=False)
class RankedLists:
    """The ranks of the labelled items of many queries, end to end. All other candidates have label 0.

    The items of a query with the same rank are tied, possibly with candidates of label 0. They share the ranks
    `ranks` to `ranks + tie_sizes - 1` in a random order. `ranked_lists` builds it.

    Attributes:
      offsets: int64 [num_queries + 1]; query i has the entries offsets[i]:offsets[i + 1].
      ranks: float64 [num_entries]: the best rank among the items with this score, from 1; infinity for an item that
        cannot be ranked. Within a query the ranks ascend.
      tie_sizes: int64 [num_entries]: the number of candidates with this score, including the item: at least 1.
      labels: float64 [num_entries]: at least 0.
      relevant: bool [num_entries].
      items: int32 [num_entries], item indices.
      num_candidates: int64 [num_queries].
    """

    offsets: np.ndarray
    ranks: np.ndarray
    tie_sizes: np.ndarray
    labels: np.ndarray
    relevant: np.ndarray
    items: np.ndarray
    num_candidates: np.ndarray

    @property
    def num_queries(self) -> int:
        return len(self.num_candidates)

    @functools.cached_property
    def rows(self) -> np.ndarray:
        """The query of each entry: int64 [num_entries]."""
        return np.repeat(np.arange(self.num_queries), np.diff(self.offsets))

    @functools.cached_property
    def ties(self) -> np.ndarray:
        """The number of the tie of each entry, in ascending order: int64 [num_entries]."""
        is_new = (self.rows[1:] != self.rows[:-1]) | (self.ranks[1:] != self.ranks[:-1])
        return np.append(0, np.cumsum(is_new))[: len(self.ranks)]

    @functools.cached_property
    def list_sizes(self) -> np.ndarray:
        """Candidates and items that cannot be ranked: int64 [num_queries]."""
        return self.num_candidates + self.sum(np.isinf(self.ranks)).astype(np.int64)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sums `values` [num_entries] over the entries of each query: float64 [num_queries]."""
        return np.bincount(self.rows, weights=values, minlength=self.num_queries)

    def reach(self, cutoff: int | None) -> np.ndarray:
        """How many of the ranks of each entry's tie are at most the cutoff: int64 [num_entries]."""
        last = self.ranks + self.tie_sizes - 1 if cutoff is None else cutoff
        reach = np.where(np.isinf(self.ranks), 0, last - np.where(np.isinf(self.ranks), 0, self.ranks) + 1)
        return np.clip(reach, 0, self.tie_sizes).astype(np.int64)

    def within(self, cutoff: int | None) -> np.ndarray:
        """The probability that the rank of each entry is at most the cutoff: float64 [num_entries]."""
        return self.reach(cutoff) / self.tie_sizes

    def chunk(self, begin: int, end: int) -> "RankedLists":
        """The queries begin to end - 1."""
        entries = slice(self.offsets[begin], self.offsets[end])
        return RankedLists(
            self.offsets[begin : end + 1] - self.offsets[begin],
            self.ranks[entries],
            self.tie_sizes[entries],
            self.labels[entries],
            self.relevant[entries],
            self.items[entries],
            self.num_candidates[begin:end],
        )


def ranked_lists(
    offsets: np.ndarray,
    ranks: np.ndarray,
    tie_sizes: np.ndarray,
    labels: np.ndarray,
    relevant: np.ndarray,
    items: np.ndarray,
    num_candidates: np.ndarray,
) -> RankedLists:
    """Builds `RankedLists`, whose attributes the arguments are, from the entries of each query in any order."""
    rows = np.repeat(np.arange(len(num_candidates)), np.diff(offsets))
    order = np.lexsort([ranks, rows])
    return RankedLists(
        offsets,
        ranks[order].astype(np.float64),
        tie_sizes[order].astype(np.int64),
        labels[order].astype(np.float64),
        relevant[order],
        items[order],
        num_candidates,
    )


def values_from_ranks(
    key: str, cutoff: int | None, lists: RankedLists, item_subtopics: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Computes a metric for each query: the expected value over all orders of tied items, and its weight.

    Without ties these are the value and the weight that `RankingMetric` gives the whole list. The weight is 0 where
    no entry is relevant or, for metrics of graded labels, where no label is above 0.

    An item that cannot be ranked counts as missed. The ideal DCG, the number of relevant items and the list size
    include it; no cutoff reaches it. For arp and ordered_pair_accuracy, which use the whole list, it comes after all
    candidates.

    Args:
      key: The key of a metric, see `metrics.build_metrics`.
      cutoff: The number of ranks that count; None for all.
      lists: The ranks.
      item_subtopics: bool [num_items, num_subtopics], for alpha_dcg and precision_ia.

    Returns:
      Values and weights, float64 [num_queries].
    """
    if key in _WITH_WEIGHTS:
        return _WITH_WEIGHTS[key](lists)
    is_defined = lists.sum(lists.labels > 0 if key in _GRADED else lists.relevant) > 0
    if key in _WITH_SUBTOPICS:
        assert item_subtopics is not None
        covers = item_subtopics[lists.items].astype(bool) & lists.relevant[:, np.newaxis]
        return _WITH_SUBTOPICS[key](lists, cutoff, covers), is_defined.astype(np.float64)
    return (_GRADED | _BINARY)[key](lists, cutoff), is_defined.astype(np.float64)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The quotient; 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator != 0)


def _first_ranks(lists: RankedLists) -> np.ndarray:
    """The ranks as int64 [num_entries]; 1 for items that cannot be ranked, whose `reach` is 0."""
    return np.where(np.isinf(lists.ranks), 1, lists.ranks).astype(np.int64)


def _discounted(lists: RankedLists, cutoff: int | None, gains: np.ndarray) -> np.ndarray:
    """The expected sum of gain / log2(1 + rank) up to the cutoff: float64 [num_queries]."""
    discounts = expectations.sum_of_discounts(_first_ranks(lists), lists.reach(cutoff))
    return lists.sum(gains * discounts / lists.tie_sizes)


def _normalized(lists: RankedLists, cutoff: int | None, gains: np.ndarray) -> np.ndarray:
    """The expected DCG, divided by that of the best order."""
    best = np.lexsort([-gains, lists.rows])
    positions = 1.0 + np.arange(len(best)) - lists.offsets[lists.rows]
    ideal = RankedLists(
        lists.offsets,
        positions,
        np.ones(len(best), np.int64),
        lists.labels[best],
        lists.relevant[best],
        lists.items[best],
        lists.num_candidates,
    )
    return _ratio(_discounted(lists, cutoff, gains), _discounted(ideal, cutoff, gains[best]))


def _dcg(lists: RankedLists, cutoff: int | None) -> np.ndarray:
    return _discounted(lists, cutoff, 2**lists.labels - 1)


def _ndcg(lists: RankedLists, cutoff: int | None) -> np.ndarray:
    return _normalized(lists, cutoff, 2**lists.labels - 1)


def _binary_ndcg(lists: RankedLists, cutoff: int | None) -> np.ndarray:
    return _normalized(lists, cutoff, lists.relevant.astype(np.float64))


def _mrr(lists: RankedLists, cutoff: int | None) -> np.ndarray:
    # The first relevant item is in the first tie with a relevant item.
    relevant = np.flatnonzero(lists.relevant)
    rows, first = np.unique(lists.rows[relevant], return_index=True)
    entries = relevant[first]
    num_relevant = np.bincount(lists.ties, weights=lists.relevant)[lists.ties[entries]].astype(np.int64)
    reciprocal = np.zeros(lists.num_queries)
    reciprocal[rows] = expectations.reciprocal_of_first(
        _first_ranks(lists)[entries], lists.tie_sizes[entries], num_relevant, lists.reach(cutoff)[entries]
    )
    return reciprocal


def _map(lists: RankedLists, cutoff: int | None) -> np.ndarray:
    # A relevant item has, at each of the ranks of its tie, all relevant items of earlier ties ahead, and its share of
    # the others in the tie.
    first, reach = _first_ranks(lists), lists.reach(cutoff)
    in_tie = np.bincount(lists.ties, weights=lists.relevant)
    before_tie = np.append(0, np.cumsum(in_tie))[lists.ties] - _before_query(lists, lists.relevant)
    share = (in_tie[lists.ties] - 1) / np.maximum(lists.tie_sizes - 1, 1)
    reciprocals = expectations.sum_of_reciprocals(first, reach)
    precisions = (before_tie + 1 - share * first) * reciprocals + share * reach
    return _ratio(lists.sum(lists.relevant * precisions / lists.tie_sizes), lists.sum(lists.relevant))


def _before_query(lists: RankedLists, values: np.ndarray) -> np.ndarray:
    """The sum of `values` [num_entries, ...] over all earlier queries, for each entry."""
    total = np.concatenate([np.zeros([1, *values.shape[1:]]), np.cumsum(values, axis=0)])
    return total[lists.offsets[:-1]][lists.rows]


def _num_hits(lists: RankedLists, cutoff: int | None) -> np.ndarray:
    return lists.sum(lists.relevant * lists.within(cutoff))


def _hits(lists: RankedLists, cutoff: int | None) -> np.ndarray:
    # Of a tie with r relevant items, none is at its first m of s ranks with the probability Π (s − m − i) / (s − i)
    # over i from 0 to r − 1.
    entries = np.flatnonzero(lists.relevant)
    ties = lists.ties[entries]
    index = np.arange(len(ties)) - np.searchsorted(ties, ties)
    sizes, reach = lists.tie_sizes[entries], lists.reach(cutoff)[entries]
    # An item that cannot be ranked is tied with nothing.
    index = np.where(np.isinf(lists.ranks[entries]), 0, index)
    none_found = np.ones(lists.num_queries)
    np.multiply.at(none_found, lists.rows[entries], np.maximum(sizes - reach - index, 0) / (sizes - index))
    return 1 - none_found


def _recall(lists: RankedLists, cutoff: int | None) -> np.ndarray:
    return _ratio(_num_hits(lists, cutoff), lists.sum(lists.relevant))


def _precision(lists: RankedLists, cutoff: int | None) -> np.ndarray:
    return _ratio(_num_hits(lists, cutoff), lists.list_sizes if cutoff is None else np.full(lists.num_queries, cutoff))


def _effective_cutoff(lists: RankedLists, cutoff: int | None) -> np.ndarray:
    return lists.list_sizes if cutoff is None else np.minimum(cutoff, lists.list_sizes)


def _tfr_precision(lists: RankedLists, cutoff: int | None) -> np.ndarray:
    return _ratio(_num_hits(lists, cutoff), _effective_cutoff(lists, cutoff))


def _precision_ia(lists: RankedLists, cutoff: int | None, covers: np.ndarray) -> np.ndarray:
    has_subtopic = np.zeros([lists.num_queries, covers.shape[1]], bool)
    np.logical_or.at(has_subtopic, lists.rows, covers)
    found = lists.sum(covers.sum(axis=1) * lists.within(cutoff))
    return _ratio(found, _effective_cutoff(lists, cutoff) * has_subtopic.sum(axis=1))


def _alpha_dcg(lists: RankedLists, cutoff: int | None, covers: np.ndarray) -> np.ndarray:
    # For each tie and subtopic: how many items of the tie, and of the query's earlier ties, cover the subtopic.
    first_entries = np.flatnonzero(np.diff(lists.ties, prepend=-1))
    in_tie = np.add.reduceat(covers.astype(np.int64), first_entries) if len(covers) else covers.astype(np.int64)
    before = np.cumsum(in_tie, axis=0) - in_tie - _before_query(lists, covers)[first_entries]
    tie, subtopic = np.nonzero(in_tie)
    entries = first_entries[tie]
    discounts = expectations.diminishing_discounts(
        _first_ranks(lists)[entries],
        lists.tie_sizes[entries],
        in_tie[tie, subtopic],
        lists.reach(cutoff)[entries],
        kept=1 - _ALPHA,
    )
    gains = (1 - _ALPHA) ** before[tie, subtopic] * discounts
    return np.bincount(lists.rows[entries], weights=gains, minlength=lists.num_queries)


def _arp(lists: RankedLists) -> tuple[np.ndarray, np.ndarray]:
    # Items that cannot be ranked share the mean of the ranks after all candidates.
    after_all = lists.num_candidates + (lists.list_sizes - lists.num_candidates + 1) / 2
    middle = lists.ranks + (lists.tie_sizes - 1) / 2
    ranks = np.where(np.isinf(lists.ranks), after_all[lists.rows], middle)
    weights = lists.sum(lists.labels)
    return _ratio(lists.sum(ranks * lists.labels), weights), weights


def _ordered_pair_accuracy(lists: RankedLists) -> tuple[np.ndarray, np.ndarray]:
    num_correct, num_pairs = np.zeros(lists.num_queries), np.zeros(lists.num_queries)
    middle = lists.ranks + (lists.tie_sizes - 1) / 2
    for row, size in enumerate(lists.list_sizes):
        entries = slice(lists.offsets[row], lists.offsets[row + 1])
        labels, ranks = lists.labels[entries], middle[entries]
        counts = labels > 0
        not_lower = labels[np.newaxis, :] >= labels[counts, np.newaxis]
        # Of two tied items, each is behind the other in half of the orders.
        behind = (ranks[np.newaxis, :] > ranks[counts, np.newaxis]) + 0.5 * (
            (ranks[np.newaxis, :] == ranks[counts, np.newaxis]) & np.isfinite(ranks[counts, np.newaxis])
        )
        behind[np.arange(len(behind)), np.flatnonzero(counts)] = 0
        num_behind = np.where(np.isinf(ranks[counts]), 0, size - np.minimum(ranks[counts], size))
        num_correct[row] = np.sum(num_behind) - np.sum(not_lower * behind)
        num_pairs[row] = size * np.sum(counts) - np.sum(not_lower)
    return _ratio(num_correct, num_pairs), num_pairs


_GRADED: dict[str, Callable[[RankedLists, int | None], np.ndarray]] = {"dcg": _dcg, "ndcg": _ndcg}
_BINARY: dict[str, Callable[[RankedLists, int | None], np.ndarray]] = {
    "binary_ndcg": _binary_ndcg,
    "hits": _hits,
    "map": _map,
    "mrr": _mrr,
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
