"""Evaluates a scorer on the lists of a split, on all replicas of a strategy."""

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from settings.progress import Advance
from trainer import schema
from trainer import strategy as strategy_lib
from trainer.compat import tf
from trainer.data.lists import ListSource
from trainer.evaluation.metrics import RankingMetric, compute_metrics
from trainer.evaluation.statistics import ListMetrics, Metrics
from trainer.modeling import input_pipeline
from trainer.modeling.two_tower import Features
from trainer.strategy import Compilation

LossesFn = Callable[[Features], tf.Tensor]
"""Takes a batch of features and returns the losses of each list, float32 [batch_size, 3]; see `Objective.evaluate`."""

Scorer = Callable[[Features], tf.Tensor]
"""Takes a batch of features and returns scores [batch_size, list_size]."""

EvalCall = Callable[[Features], tf.Tensor]


class Evaluator:
    """Evaluates a scorer on lists, on all replicas of a strategy."""

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        scorer: Scorer,
        lists: ListSource,
        metrics: Sequence[RankingMetric],
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
          losses_fn: Adds the metrics `loss` and `relative_loss`, which come first.
        """
        self._names = (["loss", "relative_loss"] if losses_fn else []) + [metric.name for metric in metrics]
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

    def evaluate_lists(self) -> ListMetrics:
        """The metrics of each list, in the order of the lists, with the scorer's current weights."""
        pairs = self.evaluate_pairs()
        return ListMetrics(self._names, pairs[:, :, 0], pairs[:, :, 1])

    def evaluate_pairs(self, advance: Advance = lambda number: None) -> np.ndarray:
        """The metrics of each list as float32 [num_lists, num_metrics, 2], see `build_eval_call`.

        Args:
          advance: Is called with the number of lists of each batch that was evaluated.
        """
        batches = iter(self._batches)
        parts = []
        for _ in range(self._num_batches):
            parts.append(self._eval_call(next(batches)).numpy())
            advance(len(parts[-1]))
        return np.concatenate(parts)[: self._num_lists]


def build_eval_call(
    strategy: tf.distribute.Strategy,
    scorer: Scorer,
    metrics: Sequence[RankingMetric],
    *,
    global_batch_size: int,
    losses_fn: LossesFn | None = None,
) -> EvalCall:
    """Builds `eval_call(batch)`, which scores a batch and computes the metrics of its lists on all replicas.

    It takes the features of `input_pipeline.build_eval_dataset` and returns float32
    [global_batch_size, num_metrics, 2]: the value and the weight of each metric, for both losses first if
    `losses_fn` is given. Row i is row i of the global batch. If the scorer stacks the scores of several scorers,
    [num_scorers, batch_size, list_size], the metrics of each follow those of the one before.
    """
    compute = tf.function(
        functools.partial(compute_metrics, metrics),
        jit_compile=strategy_lib.compilation(strategy) is not Compilation.RUN,
        autograph=False,
    )

    def eval_step(features: Features) -> tf.Tensor:
        labels, weights, rows = features[schema.LABELS], features[schema.WEIGHTS], features[schema.ROWS]
        pairs = []
        if losses_fn:
            loss, numerator, denominator = tf.unstack(losses_fn(features), axis=-1)
            # The weighted mean of the lists' own relative losses is that of all lists together.
            relative_loss = tf.math.divide_no_nan(numerator, denominator)
            relative_weights = tf.where(weights > 0, denominator * weights, 0.0)
            values = tf.stack([loss, relative_loss], axis=1)
            pairs.append(tf.stack([values, tf.stack([weights, relative_weights], axis=1)], axis=-1))
        if metrics:
            values = compute(labels, scorer(features), weights, features[schema.ITEMS])
            pairs += tf.unstack(tf.reshape(values, [-1, *values.shape[-3:]]))
        of_replica = tf.concat(pairs, axis=1)
        # Each replica fills in its own rows. The sum over replicas then holds all rows in order.
        empty = tf.zeros([global_batch_size, *of_replica.shape[1:]])
        return tf.tensor_scatter_nd_update(empty, rows[:, tf.newaxis], of_replica)

    @tf.function(autograph=False)
    def eval_call(features: Features) -> tf.Tensor:
        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(eval_step, (features,)), axis=None)

    return eval_call


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

    evaluator = Evaluator(strategy, score, lists, metrics, global_batch_size=global_batch_size)
    names = [metric.name for metric in metrics]
    of_scorers = np.split(evaluator.evaluate_pairs(advance), len(scorers), axis=1)
    return {
        scorer: ListMetrics(names, pairs[:, :, 0], pairs[:, :, 1])
        for scorer, pairs in zip(scorers, of_scorers, strict=True)
    }
