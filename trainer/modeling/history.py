"""Encoders of a history: the items that describe a query → a vector."""

import numpy as np

from trainer import schema
from trainer.compat import keras, tf
from trainer.modeling import randomness
from trainer.modeling.embedding import EmbeddingTable
from trainer.modeling.randomness import Draws
from trainer.modeling.transformer import CausalTransformer

# Numbers of the streams of random numbers in a training step; see `randomness.uniform`.
_HISTORY_STREAM = 1


class PooledHistory(keras.layers.Layer):
    """The weighted sum of the embeddings of a history's items, divided by (sum of the weights)^power.

    The weight of an item is its rating divided by the highest rating, halved for each `recency_half_life` items that
    came after it.

    Attributes:
      table: The embeddings of the items in their role as history. The candidates have a table of their own.
    """

    def __init__(
        self,
        num_items: int,
        embedding_size: int,
        *,
        power: float,
        recency_half_life: float = 0.0,
        highest_rating: float = 1.0,
        dropout: float = 0.0,
        initial_values: np.ndarray | None = None,
        seed: int = 0,
    ):
        """Builds an encoder.

        Args:
          num_items: Number of item indices, including index 0.
          embedding_size: The size of the vector.
          power: 0 for the sum, 1 for the mean.
          recency_half_life: A number of items. 0: all items count alike.
          highest_rating: Ratings are divided by it.
          dropout: The probability with which a training step drops an item.
          initial_values: The initial embeddings, float32 [num_items, embedding_size]. None: random ones.
          seed: Determines the initial embeddings.
        """
        super().__init__(name="history")
        self.table = EmbeddingTable(num_items, embedding_size, seed=seed, initial_values=initial_values)
        self._power = power
        self._recency_half_life = recency_half_life
        self._highest_rating = highest_rating
        self._dropout = dropout

    def call(self, history: tf.Tensor, ratings: tf.Tensor, draws: Draws | None = None) -> tf.Tensor:
        """Encodes histories.

        Args:
          history: int32 [batch_size, history_size], oldest first, UNKNOWN_INDEX where padded.
          ratings: float32 [batch_size, history_size].
          draws: In a training step, which then drops items.

        Returns:
          float32 [batch_size, embedding_size].
        """
        weights = self.item_weights(history, ratings)
        if draws is not None:
            weights = tf.where(self.is_kept(history, draws), weights, 0.0)
        total = tf.reduce_sum(weights, axis=1, keepdims=True)
        return tf.math.divide_no_nan(self.table.weighted_sum(history, weights), tf.pow(total, self._power))

    def item_weights(self, history: tf.Tensor, ratings: tf.Tensor) -> tf.Tensor:
        """The weight of each item of a history, float32 [batch_size, history_size]; 0 where padded."""
        is_real = history != schema.UNKNOWN_INDEX
        weights = tf.where(is_real, ratings / self._highest_rating, 0.0)
        if not self._recency_half_life:
            return weights
        num_items = tf.reduce_sum(tf.cast(is_real, tf.int32), axis=1, keepdims=True)
        age = tf.cast(num_items - 1 - tf.range(tf.shape(history)[1]), tf.float32)
        return weights * tf.pow(0.5, age / self._recency_half_life)

    def is_kept(self, items: tf.Tensor, draws: Draws) -> tf.Tensor:
        """Whether a training step keeps these items in the history of their query: bool [batch_size, n].

        It depends on the query and the item alone, so the answer is the same for an item of a list and of a history.
        """
        return randomness.uniform(draws.seed, draws.step, draws.rows, items, stream=_HISTORY_STREAM) >= self._dropout


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
        self._size = size
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
        is_real = history != schema.UNKNOWN_INDEX
        encoded = self.transformer(self.table.lookup(history), is_real)
        length = tf.reduce_sum(tf.cast(is_real, tf.int32), axis=1)
        last = tf.gather(encoded, tf.maximum(length - 1, 0), batch_dims=1)
        return tf.where(length[:, tf.newaxis] > 0, last, 0.0)

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
