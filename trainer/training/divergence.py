"""When training has failed: numbers that are not finite, a loss beyond all bounds, a model that learnt nothing."""

import math
from collections.abc import Sequence

from settings.errors import DivergedError
from trainer.compat import tf

LARGEST_RELATIVE_LOSS = 1e6
"""A run whose mean loss is so many times that of equal scores has diverged.

Scores that are a million times too far apart have no digits left for the order of items. A transient rise in the first
steps stays far below: with softmax_loss the relative loss is about the distance of the scores.
"""

NO_STEP = -1


def health(loss: tf.Tensor, gradients: Sequence["tf.Tensor | tf.IndexedSlices"]) -> tf.Tensor:
    """Measures whether a step is usable, for little time.

    Args:
      loss: float32 [].
      gradients: Of any shape.

    Returns:
      float32 [2]: the loss; and the sum of the squares of the column sums of all gradients. The second is NaN or
      infinite if a gradient holds such a number, or one whose square a float32 cannot hold: optimizers keep squares.
      Both may be added up over replicas.
    """
    return tf.stack([loss, tf.add_n([_spread(gradient) for gradient in gradients])])


def is_usable(health: tf.Tensor) -> tf.Tensor:
    """Whether loss and gradients of a step are finite, bool []."""
    return tf.reduce_all(tf.math.is_finite(health))


def zero_unless(is_usable: tf.Tensor, gradient: "tf.Tensor | tf.IndexedSlices") -> "tf.Tensor | tf.IndexedSlices":
    """The gradient, or zeros of its shape where bool [] is false."""
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(tf.where(is_usable, gradient.values, 0.0), gradient.indices, gradient.dense_shape)
    return tf.where(is_usable, gradient, 0.0)


def _spread(gradient: "tf.Tensor | tf.IndexedSlices") -> tf.Tensor:
    values = gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
    matrix = tf.reshape(values, [-1, values.shape[-1]]) if values.shape.rank else tf.reshape(values, [1, 1])
    # A product, because XLA vectorizes it on a CPU, and no sum, maximum or comparison of float32.
    column_sums = tf.matmul(tf.ones_like(matrix[:, :1]), matrix, transpose_a=True)
    return tf.reduce_sum(tf.square(column_sums))


def check_step(failed_step: int, health: Sequence[float]) -> None:
    """Checks what a training call tells of its first unusable step.

    Args:
      failed_step: How many steps were taken before it; NO_STEP if there is none.
      health: Of this step, see `health`.

    Raises:
      DivergedError: There is one. The message names it.
    """
    if failed_step == NO_STEP:
        return
    loss, of_gradients = (float(value) for value in health)
    what = f"the loss became {loss}"
    if math.isfinite(loss):
        what = f"the gradients became {'nan' if math.isnan(of_gradients) else 'infinite, or too large to be squared'}"
    raise DivergedError(
        f"Training diverged: at step {failed_step + 1:,} {what}. Its update was not made, and nothing was saved since "
        "the last checkpoint. Lower config.optimizer.learning_rate or set config.optimizer.clip_norm, and use a new "
        "--workdir."
    )
