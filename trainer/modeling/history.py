"""Encoders of a history: the items that describe a query → a vector."""

import numpy as np

from trainer import schema
from trainer.compat import keras, tf
from trainer.modeling import randomness
from trainer.modeling.chunks import CHUNK_BYTES, map_in_chunks
from trainer.modeling.embedding import EmbeddingTable
from trainer.modeling.randomness import Draws
from trainer.modeling.transformer import CausalTransformer, build_dense, build_norm

# Numbers of the streams of random numbers in a training step; see `randomness.uniform`.
_HISTORY_STREAM = 1

# The number of ratings that the mean of all ratings counts in the mean of a history.
_MEAN_DAMPING = 5.0


class PooledHistory(keras.layers.Layer):
    """The weighted sum of the embeddings of a history's items, divided by (size of the history)^power.

    The weight of an item comes from its rating, and is halved for each `recency_half_life` items that came after it:

    - `ratings`: the rating divided by the highest one. The size of the history is the sum of the weights.
    - `centered_ratings`: the rating minus the damped mean of the history's ratings. So it tells what the user likes
      more and less than usual. The size is the number of items.
    - `equal`: 1. The size is the number of items.

    With a hidden size h, the sum s is encoded as z + W₂ tanh(W₁ z + b₁) + b₂, where z is s after layer normalization
    and W₁ has h rows.

    Attributes:
      table: The embeddings of the items in their role as history. The candidates have a table of their own.
    """

    def __init__(
        self,
        num_items: int,
        embedding_size: int,
        *,
        power: float,
        weights: str = "ratings",
        recency_half_life: float = 0.0,
        highest_rating: float = 1.0,
        mean_rating: float = 1.0,
        dropout: float = 0.0,
        hidden_size: int = 0,
        initial_values: np.ndarray | None = None,
        seed: int = 0,
    ):
        """Builds an encoder.

        Args:
          num_items: Number of item indices, including index 0.
          embedding_size: The size of the vector.
          power: 0 for the sum, 1 for the mean.
          weights: What the weight of an item is, see above.
          recency_half_life: A number of items. 0: all items count alike.
          highest_rating: What `ratings` are divided by.
          mean_rating: The mean of all ratings. The mean of a history counts it as _MEAN_DAMPING more ratings.
          dropout: The probability with which a training step drops an item.
          hidden_size: h. 0: the sum is not encoded further.
          initial_values: The initial embeddings, float32 [num_items, embedding_size]. None: random ones.
          seed: Determines the initial values of embeddings and of W₁. W₂ starts at 0.
        """
        super().__init__(name="history")
        self.table = EmbeddingTable(num_items, embedding_size, seed=seed, initial_values=initial_values)
        self._power = power
        self._weights = weights
        self._recency_half_life = recency_half_life
        self._highest_rating = highest_rating
        self._mean_rating = mean_rating
        self._dropout = dropout
        self._refine = _ResidualLayer(embedding_size, hidden_size, seed=seed + 1) if hidden_size else None

    def call(self, history: tf.Tensor, ratings: tf.Tensor, draws: Draws | None = None) -> tf.Tensor:
        """Encodes histories.

        Args:
          history: int32 [batch_size, history_size], oldest first, UNKNOWN_INDEX where padded.
          ratings: float32 [batch_size, history_size].
          draws: In a training step, which then drops items.

        Returns:
          float32 [batch_size, embedding_size].
        """
        counts = self._counts(history)
        if draws is not None:
            counts = tf.where(self.is_kept(history, draws), counts, 0.0)
        weights = counts * self._values(ratings, counts > 0)
        size = tf.reduce_sum(weights if self._weights == "ratings" else counts, axis=1, keepdims=True)
        pooled = tf.math.divide_no_nan(self.table.weighted_sum(history, weights), tf.pow(size, self._power))
        return pooled if self._refine is None else self._refine(pooled)

    def is_kept(self, items: tf.Tensor, draws: Draws) -> tf.Tensor:
        """Whether a training step keeps these items in the history of their query: bool [batch_size, n].

        It depends on the query and the item alone, so the answer is the same for an item of a list and of a history.
        """
        return randomness.uniform(draws.seed, draws.step, draws.rows, items, stream=_HISTORY_STREAM) >= self._dropout

    def _counts(self, history: tf.Tensor) -> tf.Tensor:
        """How much each item counts by its age, float32 [batch_size, history_size]; 0 where padded."""
        is_real = tf.cast(history != schema.UNKNOWN_INDEX, tf.float32)
        if not self._recency_half_life:
            return is_real
        age = tf.reduce_sum(is_real, axis=1, keepdims=True) - 1 - tf.range(tf.shape(history)[1], dtype=tf.float32)
        return is_real * tf.pow(0.5, age / self._recency_half_life)

    def _values(self, ratings: tf.Tensor, is_kept: tf.Tensor) -> tf.Tensor:
        """How much each item counts by its rating, float32 [batch_size, history_size]."""
        if self._weights == "equal":
            return tf.ones_like(ratings)
        if self._weights == "ratings":
            return ratings / self._highest_rating
        is_kept = tf.cast(is_kept, tf.float32)
        total = tf.reduce_sum(is_kept * ratings, axis=1, keepdims=True) + _MEAN_DAMPING * self._mean_rating
        return ratings - total / (tf.reduce_sum(is_kept, axis=1, keepdims=True) + _MEAN_DAMPING)


class _ResidualLayer(keras.layers.Layer):
    """s → z + W₂ tanh(W₁ z + b₁) + b₂, where z is s after layer normalization. W₂ starts at 0."""

    def __init__(self, size: int, hidden_size: int, *, seed: int):
        super().__init__(name="residual")
        with tf.name_scope(self.name):
            self._norm = build_norm(size, "norm", num_axes=2)
            self._hidden = build_dense(size, hidden_size, "hidden", seed=seed, activation="tanh")
            self._output = build_dense(hidden_size, size, "output", seed=None)
        self.built = True

    def call(self, total: tf.Tensor) -> tf.Tensor:
        """[batch_size, size] → the same shape."""
        normalized = self._norm(total)
        return normalized + self._output(self._hidden(normalized))


class SequentialHistory(keras.layers.Layer):
    """A causal transformer over the items of a history in their order (SASRec: Kang and McAuley, ICDM 2018).

    Attributes:
      table: The embeddings of the items, which the candidates share.
      transformer: The layers above the embeddings.
    """

    def __init__(self, table: EmbeddingTable, *, size: int, num_layers: int, num_heads: int, dropout: float, seed: int):
        """Builds an encoder.

        Args:
          table: The embeddings of the items.
          size: The largest number of items in a history.
          num_layers: Number of layers.
          num_heads: Number of attention heads. It divides the embedding size.
          dropout: The probability with which a training step drops a number.
          seed: Determines the initial weights.
        """
        super().__init__(name="history")
        self.table = table
        self._num_heads = num_heads
        self.transformer = CausalTransformer(
            table.embedding_size,
            num_layers=num_layers,
            num_heads=num_heads,
            max_length=size,
            dropout=dropout,
            seed=seed,
        )

    def call(self, history: tf.Tensor, ratings: tf.Tensor) -> tf.Tensor:
        """Encodes histories by their latest `size` items.

        Args:
          history: int32 [batch_size, history_size], oldest first, UNKNOWN_INDEX where padded.
          ratings: not used.

        Returns:
          float32 [batch_size, embedding_size]; 0 for an empty history.
        """
        # The attention is a number for each pair of items. It is not kept for all histories at once.
        rows_per_chunk = histories_at_a_time(self._num_heads, history.shape[1] or tf.shape(history)[1])
        encoded = map_in_chunks(self._encode, [history], rows_per_chunk=rows_per_chunk)
        return tf.ensure_shape(encoded, [history.shape[0], self.table.embedding_size])

    def before_each(self, items: tf.Tensor, draws: Draws) -> tf.Tensor:
        """Encodes, for each item of a list, the items before it, in a training step.

        Args:
          items: int32 [batch_size, list_size], in the order of time, UNKNOWN_INDEX where padded.
          draws: what the dropout depends on.

        Returns:
          float32 [batch_size, list_size, embedding_size]; 0 for the first item.
        """
        earlier = items[:, :-1]
        encoded = self.transformer(self.table.lookup(earlier), earlier != schema.UNKNOWN_INDEX, draws)
        return tf.pad(encoded, [[0, 0], [1, 0], [0, 0]])

    def _encode(self, history: tf.Tensor) -> tf.Tensor:
        """The output at the last item of each history [n, length]: [n, embedding_size]."""
        is_real = history != schema.UNKNOWN_INDEX
        encoded = self.transformer(self.table.lookup(history), is_real)
        length = tf.reduce_sum(tf.cast(is_real, tf.int32), axis=1)
        last = tf.gather(encoded, tf.maximum(length - 1, 0), batch_dims=1)
        return tf.where(length[:, tf.newaxis] > 0, last, 0.0)


def histories_at_a_time(num_heads: int, length: "int | tf.Tensor") -> "int | tf.Tensor":
    """How many histories of this length a transformer encodes at once, so that its attention has CHUNK_BYTES."""
    return CHUNK_BYTES // (4 * num_heads * length**2)
