"""The features of a query that was not there in training, from the ids and values that a caller gives."""

import numpy as np

from trainer import schema
from trainer.compat import tf
from trainer.data.features import FeatureEncoder
from trainer.serving.ids import IdTable


def latest_known(items: tf.Tensor, ratings: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Makes histories of the known items: left-aligned, and only the latest `size` of each.

    Args:
      items: int32 [batch_size, n], oldest first. UNKNOWN_INDEX, anywhere in a row, is left out.
      ratings: float32 [batch_size, n].
      size: the largest number of items of a history.

    Returns:
      int32 and float32 [batch_size, m], where m, at least 1, is the longest history of the batch. Padded with 0.
    """
    # One more column of padding, because a lookup needs at least one.
    items, ratings = (tf.pad(values, [[0, 0], [0, 1]]) for values in (items, ratings))
    is_known = items != schema.UNKNOWN_INDEX
    order = tf.argsort(tf.cast(~is_known, tf.int32), axis=1, stable=True)
    num_known = tf.reduce_sum(tf.cast(is_known, tf.int32), axis=1, keepdims=True)
    num_kept = tf.minimum(num_known, size)
    column = tf.range(tf.reduce_max(tf.concat([num_kept[:, 0], [1]], 0)))
    is_real = column < num_kept
    positions = tf.where(is_real, num_known - num_kept + column, 0)
    entries = tf.gather(order, positions, batch_dims=1)
    return (
        tf.where(is_real, tf.gather(items, entries, batch_dims=1), schema.UNKNOWN_INDEX),
        tf.where(is_real, tf.gather(ratings, entries, batch_dims=1), 0.0),
    )


class FeatureInput(tf.Module):
    """How a caller gives the value of one query feature, and how it is encoded; see `FeatureEncoder`.

    Attributes:
      tensor_spec: the tensor of a batch: text [batch_size] for a category, [batch_size, n] for several, padded with
        ""; float32 [batch_size] for a number. "" and NaN mean that the value is missing.
    """

    def __init__(self, encoder: FeatureEncoder):
        super().__init__(name=encoder.spec.name)
        spec = encoder.spec
        self._shape = spec.shape
        self._is_categorical = spec.is_categorical
        self.tensor_spec = tf.TensorSpec(
            [None] * (1 + len(spec.shape)), tf.string if spec.is_categorical else tf.float32, name=spec.name
        )
        if spec.is_categorical:
            # The first one stands for a missing or unknown value.
            self._categories = IdTable(["", *encoder.categories], name=f"{spec.name}_categories")
        else:
            self._mean, self._standard_deviation = encoder.mean, encoder.standard_deviation

    def encode(self, values: tf.Tensor) -> tf.Tensor:
        """Values of the form of `tensor_spec` → [batch_size, *shape], as the model takes them."""
        if not self._is_categorical:
            numbers = tf.cast((tf.cast(values, tf.float64) - self._mean) / self._standard_deviation, tf.float32)
            return tf.where(tf.math.is_finite(numbers), numbers, 0.0)
        indices = self._categories.lookup(tf.strings.strip(values))
        if not self._shape:
            return indices
        size = self._shape[0]
        return tf.pad(indices, [[0, 0], [0, size]])[:, :size]


def decode(encoder: FeatureEncoder, values: np.ndarray) -> list:
    """What a caller gives for values [n, *shape] that `encoder` made, in the form of `FeatureInput.tensor_spec`."""
    if encoder.spec.is_categorical:
        return np.array(["", *encoder.categories], object)[values].tolist()
    return (values.astype(np.float64) * encoder.standard_deviation + encoder.mean).astype(np.float32).tolist()
