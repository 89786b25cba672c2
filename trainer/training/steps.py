"""Training steps: what a device computes, several steps per call, under `strategy.run`.

One call runs up to K steps over a superbatch [K, batch_size, list_size]. The strategy decides which part XLA compiles
(`trainer.strategy.Compilation`); the arithmetic is the same:

- LOOP: the whole loop over steps is one compiled function.
- STEP: to sum gradients over replicas a step has to leave its replica, which a compiled loop cannot do. The loop stands
  outside, and forward and backward pass of a step are compiled.
- RUN: TensorFlow compiles whatever `strategy.run` runs, and the loop stands outside.

With virtual replicas (`reduction.FixedOrderSum`) it is STEP for every strategy, because only equal code rounds equally.

A step whose loss or gradients are not finite updates no variable with them. Neither does any later step of the call.
The call returns the number of the first such step, and `loop.Trainer` ends the run.

The metrics of the training lists are a function of their own, which has no part in the updates. So that it does not
keep the steps waiting, a compiled loop is called for a part of the steps at a time: while it takes the next steps,
TensorFlow computes the metrics of the last ones on another core.

The number of steps is a tensor. So one compilation serves calls of any length, and a resumed run executes the same
machine code as an uninterrupted one.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from trainer import schema
from trainer import strategy as strategy_lib
from trainer.compat import keras, tf
from trainer.evaluation.metrics import RankingMetric, compute_metrics
from trainer.modeling.two_tower import Features, TwoTowerModel
from trainer.strategy import Compilation
from trainer.training import divergence
from trainer.training.objectives import Objective
from trainer.training.reduction import FixedOrderSum, Gradients, GradientsFn, SumOverReplicas
from trainer.training.row_updates import RowUpdates


class Taken(NamedTuple):
    """What a training call returns.

    Attributes:
      sums: float32 [2 + num_metrics, 2], sums and weights; see `sum_metrics`.
      failed_step: int64 [], the number of steps before the first one that was not usable; see `divergence.is_usable`.
        `divergence.NO_STEP` if all were usable.
      health: float32 [2], of `divergence.health`, of that step, summed over all replicas.
    """

    sums: tf.Tensor
    failed_step: tf.Tensor
    health: tf.Tensor


TrainCall = Callable[[Features, tf.Tensor, tf.Tensor], Taken]
"""(superbatch, first_step, num_steps) → what the steps leave."""


class Accumulators(NamedTuple):
    """What the steps of a call leave so far.

    Attributes:
      sums: float32 [K, 3] of `Objective`.
      scores: float32 [K, batch_size, list_size]; zeros [K] if there are no metrics.
      failed_step: as in `Taken`, equal on all replicas.
      health: as in `Taken`, of the lists of this replica.
    """

    sums: tf.Tensor
    scores: tf.Tensor
    failed_step: tf.Tensor
    health: tf.Tensor


_NUM_PARTS = 4
"""How many parts the steps of a call have at most."""


class TrainStep:
    """One optimizer step of one replica."""

    def __init__(
        self,
        model: TwoTowerModel,
        optimizer: keras.optimizers.Optimizer,
        objective: Objective,
        *,
        keep_scores: bool,
        jit_compile: bool,
        allow_sparse: bool = True,
        num_virtual: int = 0,
        num_replicas: int = 1,
    ):
        """Builds a step.

        Args:
          model: The model.
          optimizer: Its optimizer.
          objective: What a step minimizes.
          keep_scores: Whether the metrics need the scores of the lists.
          jit_compile: Whether XLA compiles only the forward and backward pass, as one function. If not, it compiles
            the whole step.
          allow_sparse: Whether the gradients of large tables may be sparse, where the optimizer takes them.
          num_virtual: The number of virtual replicas of `FixedOrderSum`; 0 for the sum of the strategy.
          num_replicas: Of the strategy.
        """
        self._model = model
        self._optimizer = optimizer
        self._objective = objective
        self._keep_scores = keep_scores
        self._is_in_xla = not jit_compile
        self._allow_sparse = isinstance(optimizer, RowUpdates) and allow_sparse
        gradients_fn: GradientsFn = (
            tf.function(self.forward_backward, jit_compile=True, autograph=False)
            if jit_compile
            else self.forward_backward
        )
        self._summed_gradients: FixedOrderSum | SumOverReplicas = (
            FixedOrderSum(
                gradients_fn, model.trainable_variables, optimizer, num_virtual=num_virtual, num_replicas=num_replicas
            )
            if num_virtual
            else SumOverReplicas(gradients_fn, model.trainable_variables, optimizer)
        )

    def empty_accumulators(
        self, superbatch: Features, failed_step: tf.Tensor | None = None, health: tf.Tensor | None = None
    ) -> Accumulators:
        """Accumulators for the steps of a call, or of a part of a call after which the last two are given."""
        labels = superbatch[schema.LABELS]
        return Accumulators(
            tf.zeros([labels.shape[0], 3]),
            tf.zeros(labels.shape if self._keep_scores else labels.shape[:1]),
            tf.constant(divergence.NO_STEP, tf.int64) if failed_step is None else failed_step,
            tf.zeros([2]) if health is None else health,
        )

    def __call__(
        self, superbatch: Features, index: tf.Tensor, first_step: tf.Tensor, accumulators: Accumulators
    ) -> Accumulators:
        """Takes step `index` of a call. Returns the accumulators with its sums and scores at that index."""
        batch = {name: batch_at(feature, index) for name, feature in superbatch.items()}
        step = first_step + tf.cast(index, tf.int64)
        found = self._summed_gradients(batch, step)
        all_sums, all_scores, failed_step, health = accumulators
        was_usable = failed_step == divergence.NO_STEP
        gradients, variables = zip(*found.gradients, strict=True)
        is_usable = was_usable & divergence.is_usable(gradients)
        usable = divergence.zeros_unless(is_usable, gradients, in_xla=self._is_in_xla)
        self._optimizer.apply_gradients(zip(usable, variables, strict=True), skip_gradients_aggregation=True)
        at = tf.reshape(index, [1, 1])
        if self._keep_scores:
            all_scores = tf.tensor_scatter_nd_update(all_scores, at, found.scores[None])
        return Accumulators(
            tf.tensor_scatter_nd_update(all_sums, at, found.sums[None]),
            all_scores,
            tf.where(was_usable & ~is_usable, step, failed_step),
            tf.where(was_usable, found.health, health),
        )

    def forward_backward(self, batch: Features, step: tf.Tensor) -> Gradients:
        """The gradients of the batch of this replica."""
        with tf.GradientTape() as tape:
            loss, sums, scores = self._objective(batch, step)
        gradients = self._model.update_gradients(
            tape.gradient(loss, self._model.trainable_variables), allow_sparse=self._allow_sparse
        )
        health = divergence.health(loss, gradients)
        return Gradients(sums, scores, health, divergence.mark(health, gradients))


def build_train_loop(train_step: TrainStep) -> Callable[..., Accumulators]:
    """Builds the loop over the steps `begin` to `end - 1` of a superbatch as one graph, which XLA can compile."""

    def train_loop(
        superbatch: Features,
        first_step: tf.Tensor,
        begin: tf.Tensor,
        end: tf.Tensor,
        failed_step: tf.Tensor,
        health: tf.Tensor,
    ) -> Accumulators:
        # A loop over tf.range would make its length a constant under XLA, and each new length would compile again.
        _, accumulators = tf.while_loop(
            lambda index, _: index < end,
            lambda index, accumulators: (index + 1, train_step(superbatch, index, first_step, accumulators)),
            (begin, train_step.empty_accumulators(superbatch, failed_step, health)),
        )
        return accumulators

    return train_loop


def sum_metrics(
    metrics: Sequence[RankingMetric],
    superbatch: Features,
    of_steps: tf.Tensor,
    scores: tf.Tensor,
    begin: tf.Tensor,
    end: tf.Tensor,
) -> tf.Tensor:
    """Sums the loss and each metric over the lists of this replica in the steps `begin` to `end - 1`.

    Returns:
      float32 [2 + num_metrics, 2]: the sum over lists and the sum of their weights, of the loss, of each metric and of
      the relative loss.
    """
    loss, *relative_loss = tf.unstack(tf.reduce_sum(of_steps, axis=0))
    index = tf.range(of_steps.shape[0])
    weights = superbatch[schema.WEIGHTS] * tf.cast((begin <= index) & (index < end), tf.float32)[:, None]
    sums, relative = tf.stack([loss, tf.reduce_sum(weights)])[None], tf.stack(relative_loss)[None]
    if not metrics:
        return tf.concat([sums, relative], axis=0)
    pairs = compute_metrics(metrics, superbatch[schema.LABELS], scores, weights, superbatch[schema.ITEMS])
    values, value_weights = tf.unstack(pairs, axis=-1)
    of_metrics = tf.stack([values * value_weights, value_weights], axis=-1)
    return tf.concat([sums, tf.reduce_sum(of_metrics, axis=[0, 1]), relative], axis=0)


def build_train_call(
    strategy: tf.distribute.Strategy,
    model: TwoTowerModel,
    optimizer: keras.optimizers.Optimizer,
    objective: Objective,
    metrics: Sequence[RankingMetric],
    *,
    num_virtual: int = 0,
) -> TrainCall:
    """Builds `train_call(superbatch, first_step, num_steps)`.

    It takes `num_steps` optimizer steps, at most K, on the first batches of the superbatch, the features of
    `input_pipeline.build_train_dataset`. It returns the sums of `sum_metrics` over all replicas. The metrics are those
    of the scores that the steps were taken on.

    Args:
      num_virtual: The number of virtual replicas of `reduction.FixedOrderSum`; 0 for the sum of the strategy. See
        `reduction.check_virtual_replicas`.
    """
    compilation = strategy_lib.compilation(strategy)
    if num_virtual:
        compilation = Compilation.STEP
    train_step = TrainStep(
        model,
        optimizer,
        objective,
        keep_scores=bool(metrics),
        jit_compile=compilation is Compilation.STEP,
        # TPUs add up dense gradients.
        allow_sparse=compilation is not Compilation.RUN,
        num_virtual=num_virtual,
        num_replicas=strategy.num_replicas_in_sync,
    )
    train_loop = build_train_loop(train_step)
    if compilation is Compilation.LOOP:
        train_loop = tf.function(train_loop, jit_compile=True, autograph=False)
    sum_metrics_fn = tf.function(
        functools.partial(sum_metrics, metrics), jit_compile=compilation is not Compilation.RUN, autograph=False
    )

    def take_steps(
        superbatch: Features,
        first_step: tf.Tensor,
        begin: tf.Tensor,
        end: tf.Tensor,
        failed_step: tf.Tensor,
        health: tf.Tensor,
    ) -> Taken:
        if compilation is Compilation.LOOP:
            accumulators = train_loop(superbatch, first_step, begin, end, failed_step, health)
        else:
            # There is one part. None before it can have failed.
            accumulators = strategy.run(train_step.empty_accumulators, (superbatch,))
            _, accumulators = tf.while_loop(
                lambda index, _: index < end,
                lambda index, accumulators: (
                    index + 1,
                    strategy.run(train_step, (superbatch, index, first_step, accumulators)),
                ),
                (begin, accumulators),
            )
        of_steps, scores, failed_step, health = accumulators
        sums = strategy.run(sum_metrics_fn, (superbatch, of_steps, scores, begin, end))
        # MultiWorkerMirroredStrategy does not reduce the parts of a tuple.
        sums, health = (strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None) for value in (sums, health))
        return Taken(sums, strategy.experimental_local_results(failed_step)[0], health)

    @tf.function(autograph=False)
    def train_call(superbatch: Features, first_step: tf.Tensor, num_steps: tf.Tensor) -> Taken:
        failed_step, health = tf.constant(divergence.NO_STEP, tf.int64), tf.zeros([2])
        if not metrics or compilation is not Compilation.LOOP:
            return take_steps(superbatch, first_step, tf.constant(0), num_steps, failed_step, health)
        sums = []
        for part, offset, begin in parts_of(superbatch):
            end = tf.minimum(num_steps - offset, part[schema.LABELS].shape[0])
            of_part, failed_step, health = take_steps(
                part, first_step + offset, tf.constant(begin), end, failed_step, health
            )
            sums.append(of_part)
        return Taken(tf.add_n(sums), failed_step, health)

    return train_call


def parts_of(superbatch: Features) -> Iterator[tuple[Features, int, int]]:
    """Splits a superbatch into at most `_NUM_PARTS` parts of the same size, which one compilation serves.

    Yields:
      The part, where it starts in the superbatch, and how many of its first batches belong to the part before too.
    """
    num_batches = superbatch[schema.LABELS].shape[0]
    size = math.ceil(num_batches / _NUM_PARTS)
    for begin in range(0, num_batches, size):
        offset = min(begin, num_batches - size)
        yield {name: feature[offset : offset + size] for name, feature in superbatch.items()}, offset, begin - offset


def batch_at(feature: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """[K, ...] → [...] at `index`. The slice has a constant size, which XLA compiles to a plain offset."""
    begin = tf.concat([index[None], tf.zeros([feature.shape.rank - 1], index.dtype)], 0)
    return tf.reshape(tf.slice(feature, begin, [1, *feature.shape[1:]]), feature.shape[1:])
