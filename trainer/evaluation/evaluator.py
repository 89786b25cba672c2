"""Evaluates a scorer on the lists of a split, over all replicas of a strategy."""

from collections.abc import Callable, Sequence

import numpy as np

from trainer import schema
from trainer.compat import tf
from trainer.data.lists import QueryLists
from trainer.evaluation.metrics import RankingMetric
from trainer.evaluation.statistics import Figures, figure_from_sums
from trainer.modeling import input_pipeline
from trainer.modeling.two_tower import Features

LossFn = Callable[[tf.Tensor, tf.Tensor, "tf.Tensor | int"], tf.Tensor]
EvalCall = Callable[[Features], tf.Tensor]
Scorer = Callable[[Features], tf.Tensor]

NUM_SUMS = 5
"""What an evaluation adds up for each figure; see `build_eval_call`."""


class Evaluator:
    """Evaluates a scorer on lists, over all replicas of a strategy."""

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        scorer: Scorer,
        lists: QueryLists,
        metrics: Sequence[RankingMetric],
        *,
        list_size: int,
        global_batch_size: int,
        loss_fn: LossFn | None = None,
    ):
        """`scorer` takes a batch of features and returns scores [batch_size, list_size]."""
        self._names = (["loss"] if loss_fn else []) + [metric.name for metric in metrics]
        self._eval_call = build_eval_call(strategy, scorer, metrics, loss_fn=loss_fn)
        self._num_batches = input_pipeline.steps_per_epoch(lists.num_lists, global_batch_size)
        self._batches = strategy.distribute_datasets_from_function(
            lambda context: input_pipeline.build_eval_dataset(
                lists, list_size=list_size, global_batch_size=global_batch_size, context=context
            )
        )

    def evaluate(self) -> Figures:
        """The figures of the scorer as it is now, by name."""
        batches = iter(self._batches)
        sums = np.zeros([len(self._names), NUM_SUMS])
        for _ in range(self._num_batches):
            sums += self._eval_call(next(batches)).numpy()
        return {name: figure_from_sums(*row) for name, row in zip(self._names, sums, strict=True)}


def build_eval_call(
    strategy: tf.distribute.Strategy,
    scorer: Scorer,
    metrics: Sequence[RankingMetric],
    *,
    loss_fn: LossFn | None = None,
) -> EvalCall:
    """Builds `eval_call(batch)`: the sums that means and standard errors are made of.

    It takes the features of `input_pipeline.build_eval_dataset`, scores them with `scorer`, and returns
    float32 [num_figures, NUM_SUMS]: for the loss (where `loss_fn` is given), then for each metric, where x is
    its value for a list and w the list's weight, the number of lists with w > 0 and the sums of w, w·x, w·x²
    and w², over all replicas.
    """

    def eval_step(features: Features) -> tf.Tensor:
        scores, labels, weights = scorer(features), features[schema.LABELS], features[schema.WEIGHTS]
        figures = [(loss_fn(labels, scores, 0), weights)] if loss_fn else []
        figures += [metric(labels, scores, weights, items=features[schema.ITEMS]) for metric in metrics]
        return tf.stack(
            [tf.reduce_sum([tf.cast(w > 0, tf.float32), w, w * x, w * x * x, w * w], axis=1) for x, w in figures]
        )

    @tf.function
    def eval_call(features: Features) -> tf.Tensor:
        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(eval_step, (features,)), axis=None)

    return eval_call
