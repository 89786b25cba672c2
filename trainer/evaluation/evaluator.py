"""Evaluates a scorer on the lists of a split, on all replicas of a strategy."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from settings.progress import Advance
from trainer import schema
from trainer.compat import tf
from trainer.data.lists import ListSource
from trainer.evaluation.metrics import RankingMetric
from trainer.evaluation.statistics import ListMetrics, Metrics
from trainer.modeling import input_pipeline
from trainer.modeling.two_tower import Features

LossesFn = Callable[[Features], tf.Tensor]
"""Takes a batch of features and returns the loss of each list, float32 [batch_size]."""

Scorer = Callable[[Features], tf.Tensor]
"""Takes a batch of features and returns scores [batch_size, list_size]."""

EvalCall = Callable[[Features], tf.Tensor]


class ListMetric(Protocol):
    """The interface of a metric that an evaluator can compute; see `RankingMetric`."""

    @property
    def name(self) -> str: ...

    def __call__(
        self, labels: tf.Tensor, scores: tf.Tensor, weights: tf.Tensor, *, items: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]: ...


class Evaluator:
    """Evaluates a scorer on lists, on all replicas of a strategy."""

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        scorer: Scorer,
        lists: ListSource,
        metrics: Sequence[ListMetric],
        *,
        global_batch_size: int,
        losses_fn: LossesFn | None = None,
    ):
        """Builds the pipeline and the compiled call once, for any number of evaluations.

        Args:
          strategy: Its replicas share each batch.
          scorer: The model or a baseline.
          lists: The lists to evaluate on.
          metrics: The metrics to compute.
          global_batch_size: Number of lists per batch. A multiple of the number of replicas.
          losses_fn: Adds a metric `loss`, which comes first.
        """
        self._names = (["loss"] if losses_fn else []) + [metric.name for metric in metrics]
        self._num_lists = lists.num_lists
        self._eval_call = build_eval_call(
            strategy, scorer, metrics, global_batch_size=global_batch_size, losses_fn=losses_fn
        )
        self._num_batches = input_pipeline.steps_per_epoch(lists.num_lists, global_batch_size)
        self._batches = input_pipeline.distribute(
            strategy,
            lambda context: input_pipeline.build_eval_dataset(
                lists, global_batch_size=global_batch_size, context=context
            ),
        )

    def evaluate(self) -> Metrics:
        """The means of the metrics, with the scorer's current weights."""
        return self.evaluate_lists().means()

    def evaluate_lists(self, advance: Advance = lambda number: None) -> ListMetrics:
        """The metrics of each list, in the order of the lists, with the scorer's current weights.

        Args:
          advance: Is called with the number of lists of each batch that was evaluated.
        """
        batches = iter(self._batches)
        parts = []
        for _ in range(self._num_batches):
            parts.append(self._eval_call(next(batches)).numpy())
            advance(len(parts[-1]))
        pairs = np.concatenate(parts)[: self._num_lists]
        return ListMetrics(self._names, pairs[:, :, 0], pairs[:, :, 1])


def build_eval_call(
    strategy: tf.distribute.Strategy,
    scorer: Scorer,
    metrics: Sequence[ListMetric],
    *,
    global_batch_size: int,
    losses_fn: LossesFn | None = None,
) -> EvalCall:
    """Builds `eval_call(batch)`, which scores a batch and computes the metrics of its lists on all replicas.

    It takes the features of `input_pipeline.build_eval_dataset` and returns float32
    [global_batch_size, num_metrics, 2]: the value and the weight of each metric, for the loss first if
    `losses_fn` is given. Row i is row i of the global batch.
    """

    def eval_step(features: Features) -> tf.Tensor:
        scores, labels, weights = scorer(features), features[schema.LABELS], features[schema.WEIGHTS]
        rows = features[schema.ROWS]
        pairs = [(losses_fn(features), weights)] if losses_fn else []
        pairs += [metric(labels, scores, weights, items=features[schema.ITEMS]) for metric in metrics]
        of_replica = tf.stack([tf.stack(pair, axis=-1) for pair in pairs], axis=1)
        # Each replica fills in its own rows. The sum over replicas then holds all rows in order.
        empty = tf.zeros([global_batch_size, len(pairs), 2])
        return tf.tensor_scatter_nd_update(empty, rows[:, tf.newaxis], of_replica)

    @tf.function
    def eval_call(features: Features) -> tf.Tensor:
        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(eval_step, (features,)), axis=None)

    return eval_call


@dataclass(frozen=True)
class _MetricOfScorer:
    """A metric of the scores at one position of stacked scores [num_scorers, batch_size, list_size]."""

    position: int
    metric: RankingMetric

    @property
    def name(self) -> str:
        return f"{self.position}/{self.metric.name}"

    def __call__(
        self, labels: tf.Tensor, scores: tf.Tensor, weights: tf.Tensor, *, items: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        return self.metric(labels, scores[self.position], weights, items=items)


def evaluate_scorers(
    strategy: tf.distribute.Strategy,
    scorers: Mapping[str, Scorer],
    lists: ListSource,
    metrics: Sequence[RankingMetric],
    *,
    global_batch_size: int,
    advance: Advance = lambda number: None,
) -> dict[str, ListMetrics]:
    """Evaluates several scorers in one pass over the lists. Returns the metrics of each list by scorer."""

    def score(features: Features) -> tf.Tensor:
        return tf.stack([scorer(features) for scorer in scorers.values()])

    of_scorers = [_MetricOfScorer(position, metric) for position in range(len(scorers)) for metric in metrics]
    together = Evaluator(strategy, score, lists, of_scorers, global_batch_size=global_batch_size).evaluate_lists(
        advance
    )
    names = [metric.name for metric in metrics]
    columns = [slice(i * len(names), (i + 1) * len(names)) for i in range(len(scorers))]
    return {
        scorer: ListMetrics(names, together.values[:, part], together.weights[:, part])
        for scorer, part in zip(scorers, columns, strict=True)
    }
