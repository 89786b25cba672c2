"""The evaluation protocols.

- `rated` ranks the lists of a held-out split: the items that the user rated in that split. Events have no such lists.
- `catalogue` ranks, for each user, all items that the user has not rated in an earlier split. The user's relevant
  held-out items should come first. `held_out.relevance_of` defines the labels. Held-out items that training has not
  seen count as missed; see `rank_metrics.values_from_ranks`. Users without a relevant held-out item are left out.

Memory is bounded. `rated` scores one batch of lists at a time, and `catalogue` one chunk of `chunks.CHUNK_BYTES`.
Besides that, evaluation holds the vectors of all items, one value per list and metric, and a copy of the ratings of
the users it ranks for. Nothing has a cell for each pair of user and item.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from settings.progress import Progress, silent
from trainer import schema
from trainer.compat import tf
from trainer.data.dataset import Dataset
from trainer.evaluation import breakdowns
from trainer.evaluation.baselines import ItemScores, build_baselines
from trainer.evaluation.catalogue_ranking import (
    Ranker,
    build_scorer,
    held_out_lists,
    metrics_from_ranks,
    random_lists,
    random_order_of,
)
from trainer.evaluation.evaluator import Scorer, evaluate_scorers
from trainer.evaluation.final_metrics import Protocols
from trainer.evaluation.held_out import HeldOut, earlier_splits, held_out_items
from trainer.evaluation.metrics import RankingMetric
from trainer.evaluation.query_metrics import QueryMetrics, fingerprint_test_set
from trainer.evaluation.recommendations import (
    NUM_RECOMMENDED,
    RecommendationMetrics,
    random_recommendation_metrics,
    recommendation_metrics,
)
from trainer.evaluation.statistics import means_of_scorers
from trainer.modeling.two_tower import Features

MODEL = "model"
RANDOM = "random"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The evaluation of a model and of the baselines on a held-out split.

    Attributes:
      split: `validation` or `test`.
      protocols: The metrics of each list, by protocol. `rated` is missing for events, and `catalogue` if there is no
        user to rank it for.
      recommendations: Metrics of the recommended items by scorer, as plain values for result.json. Empty without
        `catalogue`.
      breakdowns: Metrics of `catalogue` by user activity and by item popularity, as plain values for result.json; see
        the module `breakdowns`. Empty without `catalogue`.
    """

    split: str
    protocols: dict[str, QueryMetrics]
    recommendations: dict[str, dict[str, float]]
    breakdowns: dict[str, Any]


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
    recent_days: float | None,
    seed: int,
    progress: Progress = silent,
) -> Evaluation:
    """Evaluates each list of a held-out split, with the model and with the baselines.

    Args:
      strategy: Its replicas share the batches of the rated protocol. Every worker ranks the whole catalogue itself.
      model: The model.
      dataset: The ratings of all splits, and the lists of `split`.
      split: `validation` or `test`.
      metrics: The metrics to compute.
      global_batch_size: Number of lists per batch of the rated protocol.
      num_catalogue_users: Number of users to rank the catalogue for: 0 for none, -1 for all.
      relevance_threshold: Ratings at or above this value are relevant. Events are always relevant.
      recent_days: The period of the baseline `recent_popularity`, in days. None leaves it out.
      seed: Determines which users are drawn.
      progress: Is told how far the evaluation is.
    """
    baselines = build_baselines(dataset, recent_days=recent_days)
    protocols = {}
    if dataset.has_ratings:
        lists = dataset.lists[split]
        scorers: dict[str, Scorer] = {MODEL: unknown_last(model), **baselines}
        rated = evaluate_scorers(
            strategy,
            scorers,
            lists,
            metrics,
            global_batch_size=global_batch_size,
            advance=progress("rated lists", lists.num_lists),
        )
        rated[RANDOM] = metrics_from_ranks(random_order_of(lists, relevance_threshold=relevance_threshold), metrics)
        test_set = fingerprint_test_set(
            dataset.vocabulary, lists.queries, lists.offsets, np.asarray(lists.items), np.asarray(lists.labels)
        )
        # The labels of the catalogue protocol follow from the threshold, but those of a list are the ratings.
        test_set["relevance threshold"] = str(relevance_threshold)
        protocols["rated"] = QueryMetrics(lists.queries, rated, test_set)
    held_out = held_out_items(
        dataset, split, num_users=num_catalogue_users, relevance_threshold=relevance_threshold, seed=seed
    )
    if not len(held_out.queries):
        return Evaluation(split, protocols, {}, {})
    catalogue, recommendations, by_group = _evaluate_catalogue(
        {MODEL: model, **baselines}, dataset, split, held_out, metrics, progress=progress
    )
    return Evaluation(split, {**protocols, "catalogue": catalogue}, recommendations, by_group)


def means_of(protocols: Mapping[str, QueryMetrics], *, seed: int) -> Protocols:
    """The means over lists of each protocol, scorer and metric, with 95% bootstrap intervals.

    Args:
      protocols: The metrics of each list.
      seed: Determines the bootstrap samples.
    """
    return {protocol: means_of_scorers(metrics.by_scorer, seed=seed) for protocol, metrics in protocols.items()}


def unknown_last(scorer: Scorer) -> Scorer:
    """Returns a scorer that ranks the items that training has not seen last, as the exported model does."""

    def score(features: Features) -> tf.Tensor:
        return tf.where(features[schema.ITEMS] != schema.UNKNOWN_INDEX, scorer(features), -np.inf)

    return score


def _evaluate_catalogue(
    rankers: Mapping[str, Ranker | ItemScores],
    dataset: Dataset,
    split: str,
    held_out: HeldOut,
    metrics: Sequence[RankingMetric],
    *,
    progress: Progress,
) -> tuple[QueryMetrics, dict[str, dict[str, float]], dict[str, Any]]:
    """The metrics of each user, of the recommended items, and by group, for the rankers and a random order."""
    num_items, num_users = dataset.vocabulary.num_items, dataset.vocabulary.num_users - 1
    query_source = dataset.query_source(*earlier_splits(split))
    train_users, train_items, _ = dataset.ratings["train"]
    num_ratings = np.bincount(train_items, minlength=num_items)
    ranked, recommended = {}, {}
    for name, ranker in rankers.items():
        # Every user is ranked for the held-out items, and for the best items.
        advance = progress(f"catalogue rankings, {name}", 2 * len(held_out.queries))
        scorer = build_scorer(ranker, query_source, num_items=num_items, advance=advance)
        ranked[name] = held_out_lists(scorer, held_out)
        best, _ = scorer.top_k(held_out.queries, NUM_RECOMMENDED, held_out.excluded)
        recommended[name] = recommendation_metrics(best, num_ratings, num_users=num_users)
    ranked[RANDOM] = random_lists(held_out)
    recommended[RANDOM] = random_recommendation_metrics(held_out.excluded, num_ratings, num_users=num_users)
    by_scorer = {
        name: metrics_from_ranks(lists, metrics, num_left_out=held_out.num_left_out) for name, lists in ranked.items()
    }
    activity = np.bincount(train_users, minlength=num_users + 1)[held_out.queries]
    test_set = fingerprint_test_set(
        dataset.vocabulary,
        held_out.queries,
        held_out.items.offsets,
        held_out.items.items,
        held_out.relevance,
        held_out.num_candidates,
    )
    by_group = {
        "user_activity": breakdowns.by_activity(by_scorer, activity),
        "item_popularity": breakdowns.by_popularity(ranked, num_ratings, cutoff=NUM_RECOMMENDED),
    }
    return QueryMetrics(held_out.queries, by_scorer, test_set), _plain(recommended), by_group


def _plain(recommended: Mapping[str, RecommendationMetrics]) -> dict[str, dict[str, float]]:
    return {
        scorer: {f"{name}@{NUM_RECOMMENDED}": value for name, value in asdict(metrics).items()}
        for scorer, metrics in recommended.items()
    }
