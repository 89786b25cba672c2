"""The evaluation protocols.

- `rated` ranks the lists of a held-out split: the items that the user rated in that split.
- `catalogue` ranks, for each user, all items that the user has not rated in an earlier split. The user's relevant
  held-out items should come first. `held_out.relevance_of` defines the labels. Held-out items that training has not
  seen count as missed; see `rank_metrics.values_from_ranks`. Users without a relevant held-out item are left out.

Memory is bounded. `rated` scores one batch of lists at a time, and `catalogue` one chunk of `catalogue.CHUNK_BYTES`.
Besides that, evaluation holds the vectors of all items, one value per list and metric, and a copy of the ratings of
the users it ranks for. Nothing has a cell for each pair of user and item.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from rich.console import Console
from rich.table import Table

from trainer import schema
from trainer.compat import tf
from trainer.data.dataset import Dataset
from trainer.evaluation.baselines import RandomOrder, build_baselines
from trainer.evaluation.catalogue import CatalogueScorer, candidate_matrix
from trainer.evaluation.evaluator import Scorer, evaluate_scorers
from trainer.evaluation.held_out import HeldOut, held_out_items
from trainer.evaluation.metrics import RankingMetric
from trainer.evaluation.rank_metrics import ranked_lists
from trainer.evaluation.statistics import ListMetrics, Mean, Metrics
from trainer.modeling.two_tower import Features

Protocols = dict[str, dict[str, Metrics]]
"""protocol → scorer (model, popularity, item_mean, random) → metrics"""

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


@dataclass(frozen=True, eq=False)
class QueryMetrics:
    """The metrics of each list of a protocol, for paired comparisons.

    Attributes:
      queries: int32 [num_lists]: the user index of each list.
      by_scorer: Metrics of the model and of each baseline, over the same lists.
    """

    queries: np.ndarray
    by_scorer: dict[str, ListMetrics]


def evaluate_queries(
    strategy: tf.distribute.Strategy,
    model: Ranker,
    dataset: Dataset,
    split: str,
    metrics: Sequence[RankingMetric],
    *,
    global_batch_size: int,
    num_catalogue_users: int,
    relevance_threshold: float,
    seed: int,
) -> dict[str, QueryMetrics]:
    """Evaluates each list of a held-out split, with the model and with the baselines.

    Args:
      strategy: Its replicas share the batches of the rated protocol. Every worker ranks the whole catalogue itself.
      model: The model.
      dataset: The ratings of all splits, and the lists of `split`.
      split: `validation` or `test`.
      metrics: The metrics to compute.
      global_batch_size: Number of lists per batch of the rated protocol.
      num_catalogue_users: Number of users to rank the catalogue for: 0 for none, -1 for all.
      relevance_threshold: Ratings at or above this value are relevant in the catalogue protocol.
      seed: Determines the random baseline and which users are drawn.

    Returns:
      Metrics by protocol. `catalogue` is missing if there is no user to rank it for.
    """
    baselines = build_baselines(dataset, seed=seed)
    lists = dataset.lists[split]
    scorers: dict[str, Scorer] = {"model": unknown_last(model), **baselines}
    rated = evaluate_scorers(strategy, scorers, lists, metrics, global_batch_size=global_batch_size)
    protocols = {"rated": QueryMetrics(lists.queries, rated)}
    held_out = held_out_items(
        dataset, split, num_users=num_catalogue_users, relevance_threshold=relevance_threshold, seed=seed
    )
    if len(held_out.queries):
        rankers: dict[str, Ranker | RandomOrder] = {"model": model, **baselines}
        catalogue = {
            name: catalogue_metrics(ranker, held_out, metrics, num_items=dataset.vocabulary.num_items)
            for name, ranker in rankers.items()
        }
        protocols["catalogue"] = QueryMetrics(held_out.queries, catalogue)
    return protocols


def means_of(protocols: Mapping[str, QueryMetrics]) -> Protocols:
    """The means over lists of each protocol, scorer and metric."""
    return {
        protocol: {scorer: lists.means() for scorer, lists in query_metrics.by_scorer.items()}
        for protocol, query_metrics in protocols.items()
    }


def catalogue_metrics(
    ranker: Ranker | RandomOrder, held_out: HeldOut, metrics: Sequence[RankingMetric], *, num_items: int
) -> ListMetrics:
    """Ranks the catalogue for each user and computes the metrics from the ranks of the held-out items."""
    is_known = held_out.items.items != schema.UNKNOWN_INDEX
    rows = np.repeat(np.arange(len(held_out.queries)), np.diff(held_out.items.offsets))
    ranks: np.ndarray = np.full(len(is_known), np.inf)
    if isinstance(ranker, RandomOrder):
        num_ranked = np.bincount(rows[is_known], minlength=len(held_out.queries))
        ranks[is_known] = ranker.catalogue_ranks(held_out.queries, num_ranked, held_out.num_candidates)
    else:
        scorer = CatalogueScorer(ranker.query_vectors, candidate_matrix(ranker.candidate_vectors, num_items))
        found = scorer.ranks({schema.QUERY: held_out.queries}, held_out.items, held_out.excluded)
        ranks[is_known] = found[is_known]
    lists = ranked_lists(
        held_out.items.offsets, ranks, held_out.relevance, held_out.items.items, held_out.num_candidates
    )
    chunks = [
        lists.chunk(begin, min(begin + _QUERIES_PER_METRIC_CHUNK, lists.num_queries))
        for begin in range(0, lists.num_queries, _QUERIES_PER_METRIC_CHUNK)
    ]
    pairs = np.concatenate(
        [np.stack([np.stack(metric.from_ranks(chunk)) for metric in metrics], axis=-1) for chunk in chunks], axis=1
    ).astype(np.float32)
    return ListMetrics([metric.name for metric in metrics], *pairs)


def unknown_last(scorer: Scorer) -> Scorer:
    """Returns a scorer that ranks the items that training has not seen last, as the exported model does."""

    def score(features: Features) -> tf.Tensor:
        scores = scorer(features)
        is_known = features[schema.ITEMS] != schema.UNKNOWN_INDEX
        # Not −inf: TF-Ranking gives padding the lowest finite score.
        lowest = tf.reduce_min(tf.where(is_known, scores, scores.dtype.max), axis=1, keepdims=True)
        lowest = tf.where(tf.reduce_any(is_known, axis=1, keepdims=True), lowest, 0)
        return tf.where(is_known, scores, lowest - 1 - tf.abs(lowest) / 2)

    return score


def to_json(protocols: Protocols) -> dict[str, Any]:
    """Converts metrics to plain values, for result.json."""
    return {
        protocol: {
            scorer: {name: asdict(mean) for name, mean in metrics.items()} for scorer, metrics in by_scorer.items()
        }
        for protocol, by_scorer in protocols.items()
    }


def from_json(protocols: dict[str, Any]) -> Protocols:
    """Reads what `to_json` returned. null becomes NaN."""

    def read(value: float | None, standard_error: float | None, num_lists: int) -> Mean:
        return Mean(
            math.nan if value is None else value, math.nan if standard_error is None else standard_error, num_lists
        )

    return {
        protocol: {
            scorer: {name: read(**mean) for name, mean in metrics.items()} for scorer, metrics in by_scorer.items()
        }
        for protocol, by_scorer in protocols.items()
    }


def final_scalars(protocols: Protocols) -> dict[str, float]:
    """The model's means by `PROTOCOL/METRIC`, for TensorBoard and metrics.jsonl."""
    return {
        f"{protocol}/{name}": mean.value
        for protocol, by_scorer in protocols.items()
        for name, mean in by_scorer["model"].items()
    }


def print_protocols(console: Console, split: str, protocols: Protocols) -> None:
    """Prints one table per protocol: a row per scorer, a column per metric, ± one standard error."""
    for protocol, by_scorer in protocols.items():
        names = list(by_scorer["model"])
        num_lists = by_scorer["model"][names[0]].num_lists
        table = Table(title=f"{split}, {protocol}: {num_lists:,} lists", title_justify="left", box=None, pad_edge=False)
        table.add_column("")
        for name in names:
            table.add_column(name, justify="right")
        for scorer, metrics in by_scorer.items():
            table.add_row(scorer, *(str(metrics[name]) for name in names))
        console.print(table)
