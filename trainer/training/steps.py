"""What a device does: training steps, several a call, and evaluation steps, under `strategy.run`.

One `call` runs up to K steps over a superbatch [K, batch_size, list_size]. What XLA compiles differs by
strategy, the arithmetic does not:

- `default`: the whole loop over steps is one compiled function.
- `mirrored`, `multi_worker_mirrored`: summing gradients over replicas has to leave the replica, which a
  compiled loop cannot do; so the loop stands outside and forward plus backward of a step is compiled.
- `tpu`: TensorFlow compiles what `strategy.run` runs; the loop stands outside.

The trip count is a tensor, so one compilation serves calls of any length, and a resumed run executes the
very same machine code as an uninterrupted one.
"""

from collections.abc import Callable, Sequence

from trainer import schema
from trainer.compat import keras, tf
from trainer.evaluation.metrics import RankingMetric
from trainer.modeling.two_tower import Features, TwoTowerModel
from trainer.training.losses import LossFn

TrainCall = Callable[[Features, tf.Tensor, tf.Tensor], tf.Tensor]


def build_train_call(
    strategy: tf.distribute.Strategy,
    model: TwoTowerModel,
    optimizer: keras.optimizers.Optimizer,
    loss_fn: LossFn,
    metrics: Sequence[RankingMetric],
    *,
    steps_per_execution: int,
) -> TrainCall:
    """Builds `train_call(superbatch, first_step, num_steps)`.

    It takes `num_steps` <= steps_per_execution optimizer steps on the first batches of the superbatch, the
    features of `input_pipeline.build_train_dataset`, and returns float32 [1 + num_metrics, 2]: the sum over
    lists and the weight of the loss, then of each metric, over all replicas. The metrics are those of the
    scores that the steps were taken on.

    The loss that is differentiated is the mean over the real lists of the global batch: each replica sums
    its lists' losses and divides by their number in the whole batch, and gradients are summed over
    replicas. So the number of replicas does not change the result, but for losses that draw random numbers.
    """
    compile_loop = isinstance(strategy, _DEFAULT_STRATEGY)
    compile_step = not compile_loop and not isinstance(strategy, tf.distribute.TPUStrategy)

    def forward_backward(features: Features, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            scores = model(features)
            list_losses = loss_fn(features[schema.LABELS], scores, step) * features[schema.WEIGHTS]
            loss = tf.reduce_sum(list_losses) / features[schema.NUM_LISTS]
        gradients = tape.gradient(loss, model.trainable_variables)
        # IndexedSlices would reach the optimizer through tf.unique, whose dynamic shape XLA compiles badly.
        return tf.reduce_sum(list_losses), scores, [tf.convert_to_tensor(gradient) for gradient in gradients]

    if compile_step:
        forward_backward = tf.function(forward_backward, jit_compile=True)

    def train_step(superbatch: Features, index: tf.Tensor, first_step: tf.Tensor, losses, scores):
        """Takes step `index` of the call and notes its loss and its scores at that index."""
        features = {name: _batch_at(feature, index) for name, feature in superbatch.items()}
        loss, batch_scores, gradients = forward_backward(features, first_step + tf.cast(index, tf.int64))
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        at = tf.reshape(index, [1, 1])
        return (
            tf.tensor_scatter_nd_update(losses, at, loss[None]),
            tf.tensor_scatter_nd_update(scores, at, batch_scores[None]),
        )

    def empty_notes(superbatch: Features) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.zeros([steps_per_execution]), tf.zeros(superbatch[schema.LABELS].shape)

    def train_loop(superbatch: Features, first_step: tf.Tensor, num_steps: tf.Tensor):
        # Not a loop over tf.range: under XLA that makes its length a constant, and each new one compiles anew.
        _, losses, scores = tf.while_loop(
            lambda index, *_: index < num_steps,
            lambda index, *notes: (index + 1, *train_step(superbatch, index, first_step, *notes)),
            (tf.constant(0), *empty_notes(superbatch)),
        )
        return losses, scores

    def totals(superbatch: Features, losses: tf.Tensor, scores: tf.Tensor, num_steps: tf.Tensor) -> tf.Tensor:
        """Sums of this replica: [1 + num_metrics, 2]."""
        taken = tf.cast(tf.range(steps_per_execution) < num_steps, tf.float32)
        rows = {name: _merge_steps(feature) for name, feature in superbatch.items() if name != schema.NUM_LISTS}
        weights = _merge_steps(superbatch[schema.WEIGHTS] * taken[:, None])
        sums = [tf.stack([tf.reduce_sum(losses), tf.reduce_sum(weights)])]
        for metric in metrics:
            values, value_weights = metric(rows[schema.LABELS], _merge_steps(scores), weights, items=rows[schema.ITEMS])
            sums.append(tf.stack([tf.reduce_sum(values * value_weights), tf.reduce_sum(value_weights)]))
        return tf.stack(sums)

    if compile_loop:
        train_loop = tf.function(train_loop, jit_compile=True)

    @tf.function
    def train_call(superbatch: Features, first_step: tf.Tensor, num_steps: tf.Tensor) -> tf.Tensor:
        if compile_loop:
            losses, scores = train_loop(superbatch, first_step, num_steps)
        else:
            losses, scores = strategy.run(empty_notes, (superbatch,))
            for index in tf.range(num_steps):
                losses, scores = strategy.run(train_step, (superbatch, index, first_step, losses, scores))
        sums = strategy.run(totals, (superbatch, losses, scores, num_steps))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)

    return train_call


_DEFAULT_STRATEGY = type(tf.distribute.get_strategy())


def _batch_at(feature: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """[K, ...] → [...]. A slice of constant size, which XLA compiles to a plain offset."""
    begin = tf.concat([index[None], tf.zeros([feature.shape.rank - 1], index.dtype)], 0)
    return tf.reshape(tf.slice(feature, begin, [1, *feature.shape[1:]]), feature.shape[1:])


def _merge_steps(feature: tf.Tensor) -> tf.Tensor:
    """[K, b, ...] → [K·b, ...]."""
    return tf.reshape(feature, [-1, *feature.shape[2:]])
