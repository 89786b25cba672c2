"""EmbeddingTable owns one table of vectors. Steps, checkpoints and exports reach the table through it."""

from typing import TypeAlias

import numpy as np

from trainer.compat import keras, tf
from trainer.modeling.chunks import rows_in_chunks

_LOOKUP_COST = 20
"""The time to look up and add one vector, as a multiple of the time of one multiplication of a matrix product.

Measured with XLA on a CPU, forward and backward, for 128 × 1,000 items of 3,043 (24 ms against 4.5 ms) and for
512 × 256 items of 40,981 (7 ms against 46 ms).
"""

_ROWS_PER_INDEX = 2
"""From this number of rows for each looked-up index up, a sparse update is faster than a dense one.

Measured with XLA on a CPU, for a step of Adagrad with 3,200 indices and 64 numbers a row: with 3,000 rows sparse takes
1.3 times the time of dense, with 6,000 rows 0.85 times, with 50,000 rows 0.15 times.
"""

Gradient: TypeAlias = "tf.Tensor | tf.IndexedSlices"
"""The gradient of a variable. That of a table can be sparse."""


class EmbeddingTable(keras.layers.Layer):
    """A table with one trainable vector per index.

    Its update is dense, of every row in every step, where the table is small compared with a batch: that is fastest.
    Where it is large, only the rows that a step looked up are updated, if the optimizer can; see `gradient_of_rows`.

    Attributes:
      embeddings: The variable, float32 [num_rows, embedding_size].
    """

    def __init__(
        self,
        num_rows: int,
        embedding_size: int,
        *,
        seed: int,
        initial_values: np.ndarray | None = None,
        name: str = "embedding",
    ):
        """Builds a table.

        Args:
          num_rows: Number of indices.
          embedding_size: The size of a vector.
          seed: Determines the initial values, which are uniform in [−0.05, 0.05).
          initial_values: float32 [num_rows, embedding_size], other initial values.
          name: Name of the layer.
        """
        super().__init__(name=name)
        self.num_rows = num_rows
        self.embedding_size = embedding_size
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=[num_rows, embedding_size],
            initializer=(
                keras.initializers.RandomUniform(-0.05, 0.05, seed=seed)
                if initial_values is None
                else keras.initializers.Constant(initial_values)
            ),
            experimental_autocast=False,
        )
        self.built = True

    def call(self, indices: tf.Tensor) -> tf.Tensor:
        """The same as `lookup`."""
        return self.lookup(indices)

    def lookup(self, indices: tf.Tensor) -> tf.Tensor:
        """The vectors of `indices`, int32 [...]: float32 [..., embedding_size]."""
        return tf.nn.embedding_lookup(self.embeddings, indices)

    def all(self) -> tf.Tensor:
        """The vectors of all indices, float32 [num_rows, embedding_size], without a lookup of each."""
        return tf.convert_to_tensor(self.embeddings)

    def weighted_sum(self, indices: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """The sum of the vectors of each row of `indices`, each multiplied by its weight; see `weighted_sum`."""
        return weighted_sum(self.embeddings, indices, weights)

    def gradient_of_rows(self, gradient: Gradient, *, allow_sparse: bool) -> Gradient:
        """Converts the gradient of the table to the form in which the optimizer takes it.

        Args:
          gradient: Sparse where the step only looked up rows of the table, otherwise dense.
          allow_sparse: Whether the optimizer takes sparse gradients; see `training.row_updates`.

        Returns:
          The sparse gradient where the table has more than _ROWS_PER_INDEX rows for each index that was looked up.
          Otherwise the dense one, [num_rows, embedding_size].
        """
        if allow_sparse and isinstance(gradient, tf.IndexedSlices):
            num_indices = gradient.indices.shape[0]
            if num_indices is not None and self.num_rows > _ROWS_PER_INDEX * num_indices:
                return gradient
        return tf.convert_to_tensor(gradient)

    def norms(self, max_rows: int) -> np.ndarray:
        """The lengths of the vectors of the first rows but row 0, or their values if they have one number each.

        Args:
          max_rows: The largest number of rows.

        Returns:
          float32 [min(num_rows - 1, max_rows)].
        """
        norms: list[np.ndarray] = []
        for rows, values in rows_in_chunks(self.embeddings):
            vectors = values.numpy()
            norms.append(
                vectors[:, 0] if self.embedding_size == 1 else np.sqrt(np.einsum("rd,rd->r", vectors, vectors))
            )
            if int(rows[-1]) >= max_rows:
                break
        return np.concatenate(norms)[1 : 1 + max_rows]

    def assign_from(self, other: "EmbeddingTable") -> None:
        """Copies the values of a table of the same shape, CHUNK_BYTES at a time.

        This table must not belong to a strategy; the other may.

        Raises:
          ValueError: The shapes differ.
        """
        if (other.num_rows, other.embedding_size) != (self.num_rows, self.embedding_size):
            raise ValueError(
                f"Table {self.name!r} has the shape [{self.num_rows}, {self.embedding_size}] and cannot copy the "
                f"values of a table of shape [{other.num_rows}, {other.embedding_size}]."
            )
        for rows, values in rows_in_chunks(other.embeddings):
            self.embeddings.scatter_update(tf.IndexedSlices(values, rows))


def weighted_sum(table: "tf.Variable | tf.Tensor", indices: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Adds up the vectors of the indices of each row, each multiplied by its weight.

    Where the table is small compared with a row of indices, it is a matrix product with the weights of all indices.

    Args:
      table: float32 [num_rows, size].
      indices: int32 [batch_size, n].
      weights: float32 [batch_size, n].

    Returns:
      float32 [batch_size, size].
    """
    if not is_product_faster(table.shape[0], indices.shape[1]):
        return tf.reduce_sum(tf.nn.embedding_lookup(table, indices) * weights[:, :, tf.newaxis], axis=1)
    return tf.matmul(weights_of_all(indices, weights, table.shape[0]), tf.convert_to_tensor(table))


def is_product_faster(num_rows: int, num_indices: int | None) -> bool:
    """Whether the weighted sum of `num_indices` rows of a table is faster as a product with the whole table."""
    return num_indices is not None and num_rows <= _LOOKUP_COST * num_indices


def weights_of_all(indices: tf.Tensor, weights: tf.Tensor, num_rows: int) -> tf.Tensor:
    """The weight of every index in each row, float32 [batch_size, num_rows]. Weights of equal indices add up.

    Args:
      indices: int32 [batch_size, n].
      weights: float32 [batch_size, n].
      num_rows: Number of indices.
    """
    rows = tf.broadcast_to(tf.range(tf.shape(indices)[0])[:, tf.newaxis], tf.shape(indices))
    shape = tf.stack([tf.shape(indices)[0], num_rows])
    return tf.scatter_nd(tf.stack([rows, indices], axis=-1), weights, shape)
