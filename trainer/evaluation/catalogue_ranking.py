"""Ranks the catalogue for held-out users and computes the metrics, at the end of a run and during training."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from settings.progress import Advance, Progress, silent
from trainer import schema
from trainer.compat import tf
from trainer.data.dataset import Dataset
from trainer.data.lists import QueryLists
from trainer.data.queries import QuerySource
from trainer.evaluation.catalogue_scorer import CatalogueScorer, candidate_matrix
from trainer.evaluation.held_out import HeldOut, earlier_splits, held_out_items
from trainer.evaluation.metrics import RankingMetric
from trainer.evaluation.rank_metrics import RankedLists, ranked_lists
from trainer.evaluation.statistics import ListMetrics, Metrics
from trainer.modeling.two_tower import Features

_QUERIES_PER_METRIC_CHUNK = 4096


class Ranker(Protocol):
    """The interface of a model that can be evaluated."""

    def __call__(self, features: Features) -> tf.Tensor:
        """Scores [batch_size, list_size] of the items of each list."""
        ...

    def query_vectors(self, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Vectors [batch_size, vector_size] of queries. Their dot products with the candidates are the scores."""
        ...

    def candidate_vectors(self, items: tf.Tensor) -> tf.Tensor:
        """Vectors [num_items, vector_size] of the item indices, int32 [num_items]."""
        ...


def build_scorer(
    ranker: Ranker, query_source: QuerySource, *, num_items: int, advance: Advance = lambda number: None
) -> CatalogueScorer:
    """Builds a scorer with the ranker's current weights. It compiles the ranker's `query_vectors`.

    Args:
      ranker: The model.
      query_source: Has the features of the queries.
      num_items: Number of item indices, including index 0.
      advance: See `CatalogueScorer`.
    """
    return CatalogueScorer(
        tf.function(ranker.query_vectors, autograph=False),
        candidate_matrix(ranker.candidate_vectors, num_items),
        query_source,
        advance=advance,
    )


def catalogue_evaluator(
    model: Ranker,
    dataset: Dataset,
    split: str,
    metrics: Sequence[RankingMetric],
    *,
    num_users: int,
    relevance_threshold: float,
    seed: int,
    progress: Progress = silent,
) -> Callable[[], Metrics]:
    """Prepares the catalogue evaluation of a model on a held-out split, for validation during training.

    The users, their held-out items and their histories are found once. Every worker ranks the whole catalogue itself.

    Args:
      model: The model.
      dataset: The ratings of all splits.
      split: `validation` or `test`.
      metrics: The metrics to compute.
      num_users: Number of users to rank the catalogue for; -1 for all.
      relevance_threshold: Ratings at or above this value are relevant. Events are always relevant.
      seed: Determines which users are drawn.
      progress: Is told how far each evaluation is.

    Returns:
      A function that computes the means of the metrics, without intervals, with the model's current weights. They are
      NaN if no user of the split has a relevant item.
    """
    num_items = dataset.vocabulary.num_items
    evaluate = held_out_evaluator(
        model,
        held_out_items(dataset, split, num_users=num_users, relevance_threshold=relevance_threshold, seed=seed),
        dataset.query_source(*earlier_splits(split)),
        metrics,
        progress=progress,
    )
    return lambda: evaluate(candidate_matrix(model.candidate_vectors, num_items))


def held_out_evaluator(
    model: Ranker,
    held_out: HeldOut,
    query_source: QuerySource,
    metrics: Sequence[RankingMetric],
    *,
    progress: Progress = silent,
) -> Callable[[tf.Tensor], Metrics]:
    """Prepares the evaluation of a model on given users and items; see `catalogue_evaluator`.

    Args:
      model: The model.
      held_out: The users and their items.
      query_source: Has the features of the users.
      metrics: The metrics to compute.
      progress: Is told how far each evaluation is.

    Returns:
      A function of the candidate vectors, see `candidate_matrix`, that computes the means of the metrics.
    """
    query_fn = tf.function(model.query_vectors, autograph=False)

    def evaluate(candidates: tf.Tensor) -> Metrics:
        advance = progress("catalogue rankings", len(held_out.queries))
        scorer = CatalogueScorer(query_fn, candidates, query_source, advance=advance)
        lists = held_out_lists(scorer, held_out)
        return metrics_from_ranks(lists, metrics, num_left_out=held_out.num_left_out).means()

    return evaluate


def held_out_lists(scorer: CatalogueScorer, held_out: HeldOut) -> RankedLists:
    """The ranks of the relevant held-out items of each user. Items that training has not seen cannot be ranked."""
    best_ranks, tie_sizes = scorer.ranks(held_out.queries, held_out.items, held_out.excluded)
    return _lists_of(held_out, best_ranks, tie_sizes)


def random_lists(held_out: HeldOut) -> RankedLists:
    """The ranks of the relevant held-out items in a random order: all candidates of a user are tied."""
    tie_sizes = np.repeat(held_out.num_candidates, np.diff(held_out.items.offsets))
    return _lists_of(held_out, np.ones(len(tie_sizes)), tie_sizes)


def random_order_of(lists: QueryLists, *, relevance_threshold: float) -> RankedLists:
    """The ranks of the items of each list in a random order: all items of a list are tied."""
    sizes = np.diff(lists.offsets)
    labels = np.asarray(lists.labels)
    return ranked_lists(
        lists.offsets,
        np.ones(lists.num_entries),
        np.repeat(sizes, sizes),
        labels,
        labels >= relevance_threshold,
        np.asarray(lists.items),
        sizes,
    )


def metrics_from_ranks(lists: RankedLists, metrics: Sequence[RankingMetric], *, num_left_out: int = 0) -> ListMetrics:
    """Computes the metrics of each query from the ranks of its items, some queries at a time.

    Args:
      lists: The ranks.
      metrics: The metrics to compute.
      num_left_out: Number of queries that are not in `lists`, because nothing is relevant to them.
    """
    begins = range(0, lists.num_queries, _QUERIES_PER_METRIC_CHUNK)
    chunks = [lists.chunk(begin, min(begin + _QUERIES_PER_METRIC_CHUNK, lists.num_queries)) for begin in begins]
    pairs = [np.stack([np.stack(metric.from_ranks(chunk)) for metric in metrics], axis=-1) for chunk in chunks]
    values, weights = np.concatenate([np.zeros([2, 0, len(metrics)]), *pairs], axis=1).astype(np.float32)
    return ListMetrics([metric.name for metric in metrics], values, weights, num_left_out)


def _lists_of(held_out: HeldOut, best_ranks: np.ndarray, tie_sizes: np.ndarray) -> RankedLists:
    is_known = held_out.items.items != schema.UNKNOWN_INDEX
    return ranked_lists(
        held_out.items.offsets,
        np.where(is_known, best_ranks, np.inf),
        np.where(is_known, tie_sizes, 1),
        held_out.relevance,
        np.ones(len(is_known), bool),
        held_out.items.items,
        held_out.num_candidates,
    )
