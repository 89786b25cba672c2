"""The two-tower ranking model: score(query, item) = query vector · candidate vector.

The query tower sums what describes a query: an embedding of its own, its history, and context features. The candidate
tower sums the embedding of the item and its features. With cosine similarity both vectors are normalized, and the query
vector is multiplied by the scale. The bias and the prior of an item are one more number in the candidate vector, and 1
in the query vector.

Features of the entries of a list, such as the position at which an item was shown, add a term to the score of the
entry in the loss. It is left out in evaluation and in recommending, where they are not known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer import schema
from trainer.compat import keras, tf
from trainer.features import FeatureSpec, index_features, owned_by
from trainer.modeling.embedding import EmbeddingTable, Gradient
from trainer.modeling.history import PooledHistory, SequentialHistory
from trainer.modeling.randomness import Draws
from trainer.modeling.towers import Features, Tower

__all__ = ["Features", "ScoredLists", "TwoTowerModel"]

_BIAS = "item_bias"
_PRIOR = "item_prior"


@dataclass(frozen=True)
class ScoredLists:
    """Lists with their query vectors, as an objective ranks them.

    Attributes:
      queries: float32 [num_lists, vector_size].
      items: int32 [num_lists, list_size].
      labels: float32 [num_lists, list_size], PADDING_LABEL for entries that are padding or no targets.
      examples: the example features, each [num_lists, list_size, *shape].
    """

    queries: tf.Tensor
    items: tf.Tensor
    labels: tf.Tensor
    examples: Features


class TwoTowerModel(keras.Model):
    """Scores the items of each list for the list's query."""

    def __init__(
        self,
        *,
        num_queries: int,
        num_items: int,
        embedding_size: int,
        hidden_sizes: Sequence[int] = (),
        query_embedding: bool = True,
        similarity: str = "dot",
        scale: float = 1.0,
        item_bias: bool = False,
        item_prior: np.ndarray | None = None,
        history: Mapping[str, Any] | None = None,
        transformer: Mapping[str, Any] | None = None,
        features: Sequence[FeatureSpec] = (),
        item_features: Mapping[str, np.ndarray] | None = None,
        initial_items: np.ndarray | None = None,
        seed: int = 0,
    ):
        """Builds a model. The same seed gives the same initial weights on any strategy.

        Args:
          num_queries: Number of query indices, including index 0, the unknown query.
          num_items: Number of item indices, including index 0, the unknown item.
          embedding_size: The size of all embeddings.
          hidden_sizes: Sizes of the hidden layers of each tower.
          query_embedding: Whether each query has an embedding of its own.
          similarity: `dot` or `cosine`.
          scale: What a cosine is multiplied by.
          item_bias: Whether each item has a bias.
          item_prior: A constant of each item that is added to its score, float32 [num_items]. None: none.
          history: Arguments of `PooledHistory` and `leave_out_targets`: a training step ranks only the items that it
            dropped from the history. None: the query tower has no pooled history.
          transformer: Arguments of `SequentialHistory`. None: the query tower has no transformer.
          features: Features of queries, items and entries of lists besides the two indices.
          item_features: The values of the item features by name, each [num_items, *shape]. The model looks them up,
            so a batch only needs item indices.
          initial_items: Initial embeddings of the items, as candidates and as history: float32 [num_items,
            embedding_size]. None: random ones.
          seed: Determines the initial weights.

        Raises:
          ValueError: An item feature has no values of its shape.
        """
        super().__init__(name="two_tower")
        self.num_items = num_items
        self._item_vector_size = embedding_size
        self.specs = (*index_features(num_queries, num_items), *features)
        self._normalized, self._scale = similarity == "cosine", scale
        # The features do not change in training, but the exported model needs them.
        self._item_values = {
            spec.name: _item_variable(spec, item_features or {}, num_items) for spec in owned_by(features, "item")
        }
        towers: dict[str, Any] = {"embedding_size": embedding_size, "hidden_sizes": hidden_sizes}
        of_query = [spec for spec in owned_by(self.specs, "query") if query_embedding or spec.name != schema.QUERY]
        self.query_tower = Tower(of_query, seed=seed * 1000, name="query_tower", **towers)
        self.candidate_tower = Tower(
            owned_by(self.specs, "item"),
            seed=seed * 1000 + 500,
            name="candidate_tower",
            initial_values=initial_items,
            **towers,
        )
        of_example = owned_by(features, "example")
        self.example_tower = (
            Tower(of_example, embedding_size=1, hidden_sizes=(), seed=seed * 1000 + 800, name="example_tower")
            if of_example
            else None
        )
        self.item_bias = (
            EmbeddingTable(num_items, 1, seed=0, initial_values=np.zeros([num_items, 1], np.float32), name=_BIAS)
            if item_bias
            else None
        )
        self._item_prior = None
        if item_prior is not None:
            self._item_prior = tf.Variable(item_prior[:, np.newaxis], trainable=False, dtype=tf.float32, name=_PRIOR)
        self.history: PooledHistory | SequentialHistory | None = None
        self._leave_out_targets = False
        if history is not None:
            options = dict(history)
            self._leave_out_targets = options.pop("leave_out_targets")
            self.history = PooledHistory(
                num_items, embedding_size, seed=seed * 1000 + 900, initial_values=initial_items, **options
            )
        elif transformer is not None:
            self.history = SequentialHistory(
                self.candidate_tower.tables[schema.ITEMS], seed=seed * 1000 + 900, **transformer
            )
        example = {spec.name: tf.zeros([1, *spec.shape], spec.dtype) for spec in of_query}
        example |= {spec.name: tf.zeros([1, 1, *spec.shape], spec.dtype) for spec in of_example}
        example |= {schema.HISTORY: tf.zeros([1, 1], tf.int32), schema.HISTORY_RATINGS: tf.zeros([1, 1])}
        self(example | {schema.ITEMS: tf.zeros([1, 1], tf.int32)})
        if self.example_tower is not None:
            self.example_tower(self._examples(example))

    @property
    def query_features(self) -> list[str]:
        """The names of the features that describe a query."""
        histories = [schema.HISTORY, schema.HISTORY_RATINGS] if self.history is not None else []
        return [spec.name for spec in self.query_tower.specs] + histories

    @property
    def item_vector_size(self) -> int:
        """How many numbers, the first ones of a candidate vector, come from the tower. The bias stands after them."""
        return self._item_vector_size

    @property
    def query_layers(self) -> list[keras.layers.Layer]:
        """The layers that compute query vectors."""
        return [self.query_tower, *([self.history] if self.history is not None else [])]

    @property
    def tables(self) -> dict[str, EmbeddingTable]:
        """All embedding tables, by the name of their feature."""
        tables = self.query_tower.tables | self.candidate_tower.tables
        if self.example_tower is not None:
            tables |= self.example_tower.tables
        if isinstance(self.history, PooledHistory):
            tables[schema.HISTORY] = self.history.table
        if self.item_bias is not None:
            tables[_BIAS] = self.item_bias
        return tables

    @property
    def table_variables(self) -> list[tf.Variable]:
        """The variables of the tables."""
        return [table.embeddings for table in self.tables.values()]

    @property
    def dense_variables(self) -> list[tf.Variable]:
        """The variables that belong to no table."""
        in_tables = {id(variable) for variable in self.table_variables}
        return [variable for variable in self.variables if id(variable) not in in_tables]

    def call(self, features: Features) -> tf.Tensor:
        """Scores lists.

        Args:
          features: the query features, each [batch_size, *shape], and `items` int32 [batch_size, list_size]. Example
            features are not used: they are not known in recommending.

        Returns:
          float32 [batch_size, list_size].
        """
        return self.list_scores(self.query_vectors(features), features[schema.ITEMS], {})

    def list_scores(self, queries: tf.Tensor, items: tf.Tensor, examples: Features) -> tf.Tensor:
        """Scores the entries of lists for query vectors.

        Args:
          queries: float32 [num_lists, vector_size].
          items: int32 [num_lists, list_size].
          examples: all example features, each [num_lists, list_size, *shape], or none.

        Returns:
          float32 [num_lists, list_size].
        """
        # As a matrix product: XLA does not vectorize the sum of a product on a CPU.
        scores = tf.einsum("nd,nld->nl", queries, self.candidate_vectors(items))
        if not examples:
            return scores
        assert self.example_tower is not None
        return scores + self.example_tower(examples)[..., 0]

    def query_vectors(self, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """The vectors [batch_size, vector_size] of queries with these features, each [batch_size, *shape]."""
        if self.history is None:
            return self._query_vectors(features)
        return self._query_vectors(features, self.history(features[schema.HISTORY], features[schema.HISTORY_RATINGS]))

    def training_lists(self, features: Features, draws: Draws) -> ScoredLists:
        """The lists that a training step ranks for a batch of lists.

        Without a history they are the lists of the batch. With a pooled history, items are dropped from it, and the
        targets that it still holds can be left out. With a transformer, each item of a list is a list of its own. Its
        query is described by the items before it.

        Args:
          features: the query features, `items` and `labels`, each [batch_size, ...].
          draws: what the dropout of the step depends on.
        """
        items, labels = features[schema.ITEMS], features[schema.LABELS]
        if isinstance(self.history, PooledHistory):
            encoded = self.history(features[schema.HISTORY], features[schema.HISTORY_RATINGS], draws)
            if self._leave_out_targets:
                labels = tf.where(self.history.is_kept(items, draws), schema.PADDING_LABEL, labels)
            return ScoredLists(self._query_vectors(features, encoded), items, labels, self._examples(features))
        if isinstance(self.history, SequentialHistory):
            encoded = self.history.before_each(items, draws)
            length = items.shape[1]
            specs = self.query_tower.specs
            repeated = {spec.name: tf.repeat(features[spec.name], length, axis=0) for spec in specs}
            queries = self._query_vectors(repeated, tf.reshape(encoded, [-1, encoded.shape[-1]]))
            examples = {
                name: tf.reshape(values, [-1, 1, *values.shape[2:]])
                for name, values in self._examples(features).items()
            }
            return ScoredLists(queries, tf.reshape(items, [-1, 1]), tf.reshape(labels, [-1, 1]), examples)
        return ScoredLists(self._query_vectors(features), items, labels, self._examples(features))

    def evaluation_lists(self, features: Features) -> ScoredLists:
        """The lists of a batch, ranked for the whole histories of their queries."""
        return ScoredLists(
            self.query_vectors(features), features[schema.ITEMS], features[schema.LABELS], self._examples(features)
        )

    def candidate_vectors(self, items: tf.Tensor) -> tf.Tensor:
        """The vectors [..., vector_size] of item indices int32 [...]."""
        bias = [] if self.item_bias is None else [self.item_bias.lookup(items)]
        prior = [] if self._item_prior is None else [tf.nn.embedding_lookup(self._item_prior, items)]
        return _with_bias(self.item_vectors(items), bias + prior)

    def item_vectors(self, items: tf.Tensor) -> tf.Tensor:
        """The vectors of item indices int32 [...] without what is the same for every query, their bias and prior."""
        values = {name: tf.nn.embedding_lookup(table, items) for name, table in self._item_values.items()}
        return self._normalize(self.candidate_tower({schema.ITEMS: items, **values}))

    def catalogue_vectors(self) -> tf.Tensor:
        """The vectors of all items, [num_items, vector_size], computed at once and without lookups of tables."""
        values = {name: tf.convert_to_tensor(table) for name, table in self._item_values.items()}
        vectors = self.candidate_tower.of_all(values)
        bias = [] if self.item_bias is None else [self.item_bias.all()]
        prior = [] if self._item_prior is None else [tf.convert_to_tensor(self._item_prior)]
        return _with_bias(self._normalize(vectors), bias + prior)

    def _examples(self, features: Mapping[str, tf.Tensor]) -> Features:
        specs = self.example_tower.specs if self.example_tower is not None else ()
        return {spec.name: features[spec.name] for spec in specs if spec.name in features}

    def _query_vectors(self, features: Mapping[str, tf.Tensor], *histories: tf.Tensor) -> tf.Tensor:
        specs = self.query_tower.specs
        vectors = self.query_tower({spec.name: features[spec.name] for spec in specs}, *histories)
        if self._normalized:
            vectors = self._scale * _unit(vectors)
        if self.item_bias is None and self._item_prior is None:
            return vectors
        return tf.concat([vectors, tf.ones_like(vectors[..., :1])], axis=-1)

    def _normalize(self, vectors: tf.Tensor) -> tf.Tensor:
        return _unit(vectors) if self._normalized else vectors

    def update_gradients(self, gradients: Sequence[Gradient], *, allow_sparse: bool) -> list[Gradient]:
        """Converts the gradients of `trainable_variables` to the form in which the optimizer takes them.

        Args:
          gradients: In the order of the variables.
          allow_sparse: Whether those of tables may be sparse; see `EmbeddingTable.gradient_of_rows`.
        """
        tables = {id(table.embeddings): table for table in self.tables.values()}
        return [
            tables[id(variable)].gradient_of_rows(gradient, allow_sparse=allow_sparse)
            if id(variable) in tables
            else gradient
            for variable, gradient in zip(self.trainable_variables, gradients, strict=True)
        ]

    def assign_from(self, other: "TwoTowerModel") -> None:
        """Copies all weights of a model of the same sizes, tables in chunks. This model must not have a strategy."""
        for name, table in self.tables.items():
            table.assign_from(other.tables[name])
        for variable, source in zip(self.dense_variables, other.dense_variables, strict=True):
            variable.assign(source)


def _with_bias(vectors: tf.Tensor, bias: Sequence[tf.Tensor]) -> tf.Tensor:
    """Appends the sum of the biases [..., 1] to candidate vectors, if there are any."""
    return tf.concat([vectors, tf.add_n(bias)], axis=-1) if bias else vectors


def _unit(vectors: tf.Tensor) -> tf.Tensor:
    """Vectors of length 1, and about 0 for vectors of 0, such as an empty history."""
    # At 0 the gradient is 1 / √epsilon. With a smaller epsilon it would drown all others.
    return tf.math.l2_normalize(vectors, axis=-1, epsilon=1e-6)


def _item_variable(spec: FeatureSpec, values: Mapping[str, np.ndarray], num_items: int) -> tf.Variable:
    wanted = (num_items, *spec.shape)
    if spec.name not in values or values[spec.name].shape != wanted:
        found = f"have the shape {values[spec.name].shape}" if spec.name in values else "are missing"
        raise ValueError(f"The values of the item feature {spec.name!r} {found}. They must have the shape {wanted}.")
    return tf.Variable(values[spec.name], dtype=spec.dtype, trainable=False, name=spec.name)
