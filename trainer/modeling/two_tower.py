"""The two-tower ranking model: score(query, item) = query vector · candidate vector."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer import schema
from trainer.compat import keras, tf
from trainer.features import FeatureSpec, index_features, owned_by
from trainer.modeling.embedding import EmbeddingTable
from trainer.modeling.towers import Features, Tower

__all__ = ["Features", "TwoTowerModel"]


class TwoTowerModel(keras.Model):
    """Scores the items of each list for the list's query."""

    def __init__(
        self,
        *,
        num_queries: int,
        num_items: int,
        embedding_size: int,
        hidden_sizes: Sequence[int] = (),
        features: Sequence[FeatureSpec] = (),
        item_features: Mapping[str, np.ndarray] | None = None,
        seed: int = 0,
    ):
        """Builds a model. The same seed gives the same initial weights on any strategy.

        Args:
          num_queries: Number of query indices, including index 0, the unknown query.
          num_items: Number of item indices, including index 0, the unknown item.
          embedding_size: The size of the vectors.
          hidden_sizes: Sizes of the hidden layers of each tower.
          features: Features of queries and items besides the two indices.
          item_features: The values of the item features by name, each [num_items, *shape]. The model looks them up,
            so a batch only needs item indices.
          seed: Determines the initial weights.

        Raises:
          ValueError: A feature belongs to an example, or an item feature has no values of its shape.
        """
        super().__init__(name="two_tower")
        self.num_items = num_items
        self.specs = (*index_features(num_queries, num_items), *features)
        for spec in owned_by(features, "example"):
            raise ValueError(f"A two-tower model cannot use {spec.name!r}: it describes neither a query nor an item.")
        # The features do not change in training, but the exported model needs them.
        self._item_values = {
            spec.name: _item_variable(spec, item_features or {}, num_items) for spec in owned_by(features, "item")
        }
        towers: dict[str, Any] = {"embedding_size": embedding_size, "hidden_sizes": hidden_sizes}
        self.query_tower = Tower(owned_by(self.specs, "query"), seed=seed * 1000, name="query_tower", **towers)
        self.candidate_tower = Tower(
            owned_by(self.specs, "item"), seed=seed * 1000 + 500, name="candidate_tower", **towers
        )
        example = {spec.name: tf.zeros([1, *spec.shape], spec.dtype) for spec in owned_by(self.specs, "query")}
        self(example | {schema.ITEMS: tf.zeros([1, 1], tf.int32)})

    @property
    def tables(self) -> dict[str, EmbeddingTable]:
        """All embedding tables, by the name of their feature."""
        return self.query_tower.tables | self.candidate_tower.tables

    @property
    def dense_variables(self) -> list[tf.Variable]:
        """The variables that belong to no table."""
        in_tables = {id(table.embeddings) for table in self.tables.values()}
        return [variable for variable in self.variables if id(variable) not in in_tables]

    def call(self, features: Features) -> tf.Tensor:
        """Scores lists.

        Args:
          features: `query` int32 [batch_size] and further query features, and `items` int32 [batch_size, list_size].

        Returns:
          float32 [batch_size, list_size].
        """
        queries, candidates = self.query_vectors(features), self.candidate_vectors(features[schema.ITEMS])
        return tf.reduce_sum(queries[:, None, :] * candidates, axis=-1)

    def query_vectors(self, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """The vectors [batch_size, embedding_size] of queries with these features, each [batch_size, *shape]."""
        return self.query_tower({spec.name: features[spec.name] for spec in self.query_tower.specs})

    def candidate_vectors(self, items: tf.Tensor) -> tf.Tensor:
        """The vectors [..., embedding_size] of item indices int32 [...]."""
        values = {name: tf.nn.embedding_lookup(table, items) for name, table in self._item_values.items()}
        return self.candidate_tower({schema.ITEMS: items, **values})

    def dense_gradients(self, gradients: Sequence["tf.Tensor | tf.IndexedSlices"]) -> list[tf.Tensor]:
        """Converts the gradients of `trainable_variables` to the form that the optimizer takes."""
        tables = {id(table.embeddings): table for table in self.tables.values()}
        return [
            tables[id(variable)].dense_gradient(gradient) if id(variable) in tables else gradient
            for variable, gradient in zip(self.trainable_variables, gradients, strict=True)
        ]

    def is_finite(self) -> bool:
        """Whether no weight is NaN or infinite. Tables are read in chunks."""
        others = [variable for variable in self.dense_variables if variable.dtype.is_floating]
        return all(table.is_finite() for table in self.tables.values()) and all(
            bool(tf.reduce_all(tf.math.is_finite(variable))) for variable in others
        )

    def assign_from(self, other: "TwoTowerModel") -> None:
        """Copies all weights of a model of the same sizes, tables in chunks. This model must not have a strategy."""
        for name, table in self.tables.items():
            table.assign_from(other.tables[name])
        for variable, source in zip(self.dense_variables, other.dense_variables, strict=True):
            variable.assign(source)


def _item_variable(spec: FeatureSpec, values: Mapping[str, np.ndarray], num_items: int) -> tf.Variable:
    wanted = (num_items, *spec.shape)
    if spec.name not in values or values[spec.name].shape != wanted:
        found = f"have the shape {values[spec.name].shape}" if spec.name in values else "are missing"
        raise ValueError(f"The values of the item feature {spec.name!r} {found}. They must have the shape {wanted}.")
    return tf.Variable(values[spec.name], dtype=spec.dtype, trainable=False, name=spec.name)
