"""The two-tower ranking model: score(query, item) = query tower(query) · candidate tower(item)."""

from collections.abc import Sequence
from typing import Any

from trainer import schema
from trainer.compat import keras, tf

Features = dict[str, tf.Tensor]
"""A batch, by the names of its features."""


class Tower(keras.layers.Layer):
    """An index → a vector: an embedding, then optional hidden layers, then back to `embedding_size`.

    With no hidden layer it is the plain embedding of the tutorial. More features join here: a tower is the
    only place that knows what a query or a candidate is made of.
    """

    def __init__(self, num_indices: int, *, embedding_size: int, hidden_sizes: Sequence[int], seed: int, name: str):
        super().__init__(name=name)
        self.embedding = keras.layers.Embedding(
            num_indices,
            embedding_size,
            embeddings_initializer=keras.initializers.RandomUniform(-0.05, 0.05, seed=seed),
            name="embedding",
        )
        sizes = [*hidden_sizes, embedding_size] if hidden_sizes else []
        self.hidden = [
            keras.layers.Dense(
                size,
                activation="relu" if depth < len(hidden_sizes) else None,
                kernel_initializer=keras.initializers.GlorotUniform(seed=seed + 1 + depth),
                name=f"dense_{depth}",
            )
            for depth, size in enumerate(sizes)
        ]

    def call(self, indices: tf.Tensor) -> tf.Tensor:
        """int32 [...] → float32 [..., embedding_size]."""
        vectors = self.embedding(indices)
        for layer in self.hidden:
            vectors = layer(vectors)
        return vectors


class TwoTowerModel(keras.Model):
    """Scores the items of each list for the list's query."""

    def __init__(
        self,
        *,
        num_queries: int,
        num_items: int,
        embedding_size: int,
        hidden_sizes: Sequence[int] = (),
        seed: int = 0,
    ):
        """Sizes count the unknown index. The same seed gives the same initial weights on any strategy."""
        super().__init__(name="two_tower")
        self.num_items = num_items
        towers: dict[str, Any] = {"embedding_size": embedding_size, "hidden_sizes": hidden_sizes}
        self.query_tower = Tower(num_queries, seed=seed * 1000, name="query_tower", **towers)
        self.candidate_tower = Tower(num_items, seed=seed * 1000 + 500, name="candidate_tower", **towers)
        self({schema.QUERY: tf.zeros([1], tf.int32), schema.ITEMS: tf.zeros([1, 1], tf.int32)})

    def call(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """`query` int32 [batch_size] and `items` int32 [batch_size, list_size] → scores of `items`' shape."""
        query = self.query_tower(features[schema.QUERY])
        candidates = self.candidate_tower(features[schema.ITEMS])
        return tf.reduce_sum(query[:, None, :] * candidates, axis=-1)

    def score_all(self, queries: tf.Tensor) -> tf.Tensor:
        """int32 [batch_size] → the scores of every item, the unknown one included: [batch_size, num_items]."""
        candidates = self.candidate_tower(tf.range(self.num_items))
        return tf.matmul(self.query_tower(queries), candidates, transpose_b=True)
