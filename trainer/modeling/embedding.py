"""EmbeddingTable owns one table of vectors. Steps, checkpoints and exports reach the table through it."""

from trainer.compat import keras, tf

CHUNK_BYTES = 64 * 2**20
"""The size in bytes of the rows that a pass over a whole table reads at a time."""


class EmbeddingTable(keras.layers.Layer):
    """A table with one trainable vector per index.

    Its update rule is dense: the optimizer updates every row in every step. That is fastest where the table is small
    compared with a batch.

    Attributes:
      embeddings: The variable, float32 [num_rows, embedding_size].
    """

    def __init__(self, num_rows: int, embedding_size: int, *, seed: int, name: str = "embedding"):
        """Initial values are uniform in [−0.05, 0.05) and depend only on the seed and the shape."""
        super().__init__(name=name)
        self.num_rows = num_rows
        self.embedding_size = embedding_size
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=[num_rows, embedding_size],
            initializer=keras.initializers.RandomUniform(-0.05, 0.05, seed=seed),
            experimental_autocast=False,
        )
        self.built = True

    def call(self, indices: tf.Tensor) -> tf.Tensor:
        """The same as `lookup`."""
        return self.lookup(indices)

    def lookup(self, indices: tf.Tensor) -> tf.Tensor:
        """The vectors of `indices`, int32 [...]: float32 [..., embedding_size]."""
        return tf.nn.embedding_lookup(self.embeddings, indices)

    def dense_gradient(self, gradient: "tf.Tensor | tf.IndexedSlices") -> tf.Tensor:
        """Converts the gradient of the table to the form that the update rule needs: [num_rows, embedding_size].

        Keras optimizers pass IndexedSlices through tf.unique. Its dynamic shape is slow under XLA.
        """
        return tf.convert_to_tensor(gradient)

    def rows(self, begin: int, end: int) -> tf.Tensor:
        """The vectors of the indices begin to end - 1: float32 [end - begin, embedding_size]."""
        return self.lookup(tf.range(begin, end))

    def is_finite(self) -> bool:
        """Whether no value is NaN or infinite. Reads CHUNK_BYTES at a time and never copies the table."""
        return all(bool(tf.reduce_all(tf.math.is_finite(self.rows(*chunk)))) for chunk in self._chunks())

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
        for begin, end in self._chunks():
            self.embeddings.scatter_update(tf.IndexedSlices(other.rows(begin, end), tf.range(begin, end)))

    def _chunks(self) -> list[tuple[int, int]]:
        size = max(1, CHUNK_BYTES // (4 * self.embedding_size))
        return [(begin, min(begin + size, self.num_rows)) for begin in range(0, self.num_rows, size)]
