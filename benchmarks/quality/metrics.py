"""The metrics of all methods, from their scores, by the code that evaluates the trainer's models from ranks."""

from collections.abc import Callable, Sequence

import numpy as np
import scipy.sparse

from benchmarks.quality.data import Interactions
from settings.trainer_config.evaluation import parse_metric_name
from trainer.evaluation.rank_metrics import RankedLists, ranked_lists, values_from_ranks

Scores = Callable[[np.ndarray], np.ndarray]
"""Users, int32 [n] → the scores of all items, float32 [n, num_items]."""

USERS_PER_CHUNK = 512

QueryMetrics = tuple[np.ndarray, dict[str, np.ndarray]]
"""The evaluated users, int32 [num_evaluated], and the metrics of each by name, float64 [num_evaluated]."""


def catalogue_metrics(
    scores: Scores,
    *,
    excluded: scipy.sparse.csr_matrix,
    relevant: scipy.sparse.csr_matrix,
    names: Sequence[str],
) -> QueryMetrics:
    """Ranks all items that are not excluded, for each user with a relevant item.

    Args:
      scores: −inf or NaN for an item that the method cannot rank: it is missed.
      excluded: [num_users, num_items], not 0 for items that are no candidates.
      relevant: [num_users, num_items], 1 for the relevant items.
      names: Metrics of binary relevance with a cutoff.
    """
    cutoffs = [cutoff or 0 for _, cutoff in map(parse_metric_name, names)]
    evaluated = np.flatnonzero(np.diff(relevant.indptr)).astype(np.int32)
    values: dict[str, np.ndarray] = {name: np.zeros(len(evaluated)) for name in names}
    for begin in range(0, len(evaluated), USERS_PER_CHUNK):
        rows = evaluated[begin : begin + USERS_PER_CHUNK]
        chunk = np.array(scores(rows), np.float32)
        chunk[np.isnan(chunk)] = -np.inf
        chunk[excluded[rows].nonzero()] = -np.inf
        row, items = relevant[rows].nonzero()
        ranks, tie_sizes = _ranks(chunk, row, items, depth=min(max(cutoffs), chunk.shape[1]))
        lists = ranked_lists(
            np.append(0, np.cumsum(np.bincount(row, minlength=len(rows)))),
            np.where(chunk[row, items] == -np.inf, np.inf, ranks),
            tie_sizes,
            np.ones(len(row)),
            np.ones(len(row), bool),
            items,
            np.sum(chunk > -np.inf, axis=1),
        )
        for name, of_chunk in _values(lists, names).items():
            values[name][begin : begin + len(rows)] = of_chunk
    return evaluated, values


def rated_metrics(
    scores: Scores, lists: Interactions, *, relevance_threshold: float, names: Sequence[str]
) -> QueryMetrics:
    """Ranks the rated items of each user.

    Args:
      scores: The method.
      lists: The ratings. All ratings of a user are one list. Graded metrics have the ratings as their labels.
      relevance_threshold: Of metrics with binary relevance.
      names: Any metrics.
    """
    lists = lists.take(np.argsort(lists.users, kind="stable"))
    evaluated, row, sizes = np.unique(lists.users, return_inverse=True, return_counts=True)
    own: np.ndarray = np.zeros(len(lists))
    for begin in range(0, len(evaluated), USERS_PER_CHUNK):
        entries = np.flatnonzero((row >= begin) & (row < begin + USERS_PER_CHUNK))
        chunk = np.asarray(scores(evaluated[begin : begin + USERS_PER_CHUNK].astype(np.int32)))
        own[entries] = np.nan_to_num(chunk[row[entries] - begin, lists.items[entries]], nan=-np.inf)
    ranks, tie_sizes = _ranks_within(own, row)
    ranked = ranked_lists(
        np.append(0, np.cumsum(sizes)),
        ranks,
        tie_sizes,
        lists.ratings,
        lists.ratings >= relevance_threshold,
        lists.items,
        sizes,
    )
    return evaluated.astype(np.int32), _values(ranked, names)


def _values(lists: RankedLists, names: Sequence[str]) -> dict[str, np.ndarray]:
    return {name: values_from_ranks(*parse_metric_name(name), lists)[0] for name in names}


def _ranks(scores: np.ndarray, row: np.ndarray, items: np.ndarray, *, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """For the entries (row, item): the best rank and the number of items with the same score.

    Both are exact up to the rank `depth`. An item behind it has the rank depth + 1.
    """
    top = -np.partition(-scores, depth - 1, axis=1)[:, :depth]
    lowest = top.min(axis=1)
    num_lowest = np.sum(scores == lowest[:, np.newaxis], axis=1)
    own = scores[row, items]
    num_better = np.sum(top[row] > own[:, np.newaxis], axis=1)
    num_equal = np.sum(top[row] == own[:, np.newaxis], axis=1)
    num_equal = np.where(own == lowest[row], num_lowest[row], num_equal)
    return 1 + num_better, np.maximum(num_equal, 1)


def _ranks_within(values: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same for each of `values` [n] among those with the same `row` [n], which ascends; exact everywhere."""
    order = np.lexsort([-values, row])
    ordered_row, ordered = row[order], values[order]
    is_first = np.append(True, (np.diff(ordered_row) != 0) | (ordered[1:] != ordered[:-1]))[: len(order)]
    begins = np.flatnonzero(is_first)
    tie = np.cumsum(is_first) - 1
    ranks, tie_sizes = np.zeros(len(order), np.int64), np.zeros(len(order), np.int64)
    ranks[order] = 1 + begins[tie] - np.searchsorted(ordered_row, ordered_row)
    tie_sizes[order] = np.diff(np.append(begins, len(order)))[tie]
    return ranks, tie_sizes
