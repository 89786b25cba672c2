"""When training has failed: numbers that are not finite, a loss beyond all bounds, a model that learnt nothing."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from settings.errors import DivergedError
from trainer import schema
from trainer.compat import tf
from trainer.data.lists import ListSource
from trainer.modeling.embedding import Gradient
from trainer.modeling.two_tower import Features

LARGEST_RELATIVE_LOSS = 1e6
"""A run whose mean loss is so many times that of equal scores has diverged.

Scores that are a million times too far apart have no digits left for the order of items. A transient rise in the first
steps stays far below: with softmax_loss the relative loss is about the distance of the scores.
"""

NO_STEP = -1

_NUM_LISTS = 256
"""How many lists are scored to see whether all scores are equal."""

# Rounding moves the relative loss of equal scores by less.
_ROUNDING = 1e-6


def health(loss: tf.Tensor, gradients: Sequence[Gradient]) -> tf.Tensor:
    """Measures whether a step of a replica is usable, for little time.

    Args:
      loss: float32 [].
      gradients: Of any shape.

    Returns:
      float32 [2]: the loss; and the sum of the squares of the column sums of all gradients. The second is NaN or
      infinite if a gradient holds such a number, or one whose square a float32 cannot hold: optimizers keep squares.
    """
    return tf.stack([loss, tf.add_n([_spread(gradient) for gradient in gradients])])


def mark(health: tf.Tensor, gradients: Sequence[Gradient]) -> list[Gradient]:
    """Fills the first gradient with NaN if the health is not finite.

    The sum over replicas is then NaN on all of them. So they agree, and need no second reduction, which would cost more
    than the rest of the check.

    Args:
      health: float32 [2], of `health`.
      gradients: Of the replica, of any shape.
    """
    is_finite = tf.reduce_all(tf.math.is_finite(health))
    first, *others = gradients
    return [_with_values(first, tf.where(is_finite, _values(first), math.nan)), *others]


def is_usable(gradients: Sequence[Gradient]) -> tf.Tensor:
    """Whether no replica has marked the gradients of this step, bool [].

    Args:
      gradients: The sums over replicas of what `mark` returned.
    """
    first = gradients[0]
    # All of a dense gradient is marked, and the rows of a sparse one that come from that replica.
    numbers = first.values[:, 0] if isinstance(first, tf.IndexedSlices) else tf.reshape(first, [-1])[0]
    return tf.reduce_all(tf.math.is_finite(numbers))


def zeros_unless(is_usable: tf.Tensor, gradients: Sequence[Gradient], *, in_xla: bool) -> list[Gradient]:
    """The gradients, or zeros of their shapes where bool [] is false.

    Args:
      in_xla: whether XLA compiles this. It fuses a choice of numbers with the update, and TensorFlow would copy them.
    """
    if in_xla:
        return [_with_values(gradient, tf.where(is_usable, _values(gradient), 0.0)) for gradient in gradients]
    return tf.cond(
        is_usable,
        lambda: list(gradients),
        lambda: [_with_values(gradient, tf.zeros_like(_values(gradient))) for gradient in gradients],
    )


def _values(gradient: Gradient) -> tf.Tensor:
    return gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient


def _with_values(gradient: Gradient, values: tf.Tensor) -> Gradient:
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
    return values


def _spread(gradient: Gradient) -> tf.Tensor:
    values = _values(gradient)
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


def check_relative_loss(step: int, relative_loss: float) -> None:
    """Checks the mean relative loss of the training lists since the last log line.

    Raises:
      DivergedError: It is above LARGEST_RELATIVE_LOSS.
    """
    if relative_loss > LARGEST_RELATIVE_LOSS:
        raise DivergedError(
            f"Training diverged: up to step {step:,} the loss became {relative_loss:.2g} times that of equal scores. "
            "Nothing was saved since the last checkpoint. Lower config.optimizer.learning_rate or set "
            "config.optimizer.clip_norm, and use a new --workdir."
        )


def has_equal_scores(ranker: Callable[[Features], tf.Tensor], lists: ListSource) -> bool:
    """Whether a ranker gives all items of each of the first lists the same score. Lists of one item do not count."""
    features = lists.gather(np.arange(min(lists.num_lists, _NUM_LISTS)))
    scores = ranker({name: tf.constant(array) for name, array in features.items()}).numpy()
    is_real = features[schema.LABELS] >= 0
    highest = np.where(is_real, scores, -np.inf).max(axis=1)
    lowest = np.where(is_real, scores, np.inf).min(axis=1)
    has_several = is_real.sum(axis=1) > 1
    return bool(has_several.any() and (highest == lowest)[has_several].all())


def warnings_of(
    train_relative_loss: float, validation_relative_loss: float | None, *, has_equal_scores: bool
) -> list[str]:
    """What a user should know of a run that ended, because the model may be of no use.

    Args:
      train_relative_loss: Of the newest log line; NaN if no training list had anything to learn.
      validation_relative_loss: Of the exported model; None if it was not measured.
      has_equal_scores: Of the exported model.

    Returns:
      At most one paragraph.
    """
    found = []
    if math.isnan(train_relative_loss):
        found.append("no training list had a target, so that nothing could be learnt (relative_loss is not defined)")
    elif train_relative_loss >= 1 - _ROUNDING:
        found.append(
            f"the loss of the training lists is {train_relative_loss:.4g} times that of equal scores, so that nothing "
            "was learnt from them"
        )
    if validation_relative_loss is not None and validation_relative_loss >= 1 - _ROUNDING:
        found.append(f"the loss of the validation lists is {validation_relative_loss:.4g} times that of equal scores")
    if has_equal_scores:
        found.append("the exported model gives all items of a list the same score")
    if not found:
        return []
    return [
        f"Warning: {'; '.join(found)}. Check the ratings and config.eval.relevance_threshold, and the config: a "
        "learning rate that is too high or too low, or config.loss.temperature."
    ]
