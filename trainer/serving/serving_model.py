"""The functions of the exported SavedModel: ids in, scores and recommendations out.

Plain TensorFlow loads the model. It needs no import of this project. Its functions are:

- `score`, also the signature `serving_default`: user ids [batch_size] and item ids [batch_size, list_size], both
  strings → `scores` [batch_size, list_size]. Pad shorter lists with "".
- `recommend`, also a signature: user ids [batch_size], k, and item ids to exclude [batch_size, num_excluded], padded
  with "" → `item_ids`, `titles` and `scores` [batch_size, min(k, num_items)], best first. Equal scores are ordered by
  item index, so the more popular item comes first. If fewer than k candidates are left, the row is padded with ""
  and the score -inf.
- `score_indices` and `recommend_indices`: the same with indices instead of ids.
- `query_vectors` and the variable `candidates`: the vectors whose dot product is the score of a known user and item.

Unknown ids, which have no training ratings, are not an error, so that one of them does not fail a whole batch:

- An unknown item, and so the padding "", has the score -inf and is never recommended.
- For an unknown user an item's score is its popularity, that is its number of training ratings. So `recommend`
  returns the most popular items, and `score` orders the items of a list by popularity.
"""

import numpy as np

from trainer import schema
from trainer.compat import tf
from trainer.data.vocabulary import NUM_RATINGS, Vocabulary
from trainer.evaluation import catalogue
from trainer.modeling.two_tower import TwoTowerModel


class ServingModel(tf.Module):
    """Holds the model, the vocabulary and the popularity of each item. The docstring of this module has the rules."""

    def __init__(self, model: TwoTowerModel, vocabulary: Vocabulary):
        """Builds the tables and computes the vector of every candidate.

        Args:
          model: a model that was built outside of any strategy.
          vocabulary: the vocabulary that `model` was trained with.
        """
        super().__init__(name="serving_model")
        self.model = model
        # A candidate has no feature that changes from request to request, so its vector is computed once.
        self.candidates = tf.Variable(
            catalogue.candidate_matrix(model.candidate_vectors, model.num_items), trainable=False
        )
        self.popularity = tf.Variable(vocabulary.items[NUM_RATINGS].to_numpy().astype(np.float32), trainable=False)
        self.user_index = _lookup_table(vocabulary.users[schema.USER_ID].to_pylist())
        self.item_index = _lookup_table(vocabulary.items[schema.ITEM_ID].to_pylist())
        self.item_ids = tf.Variable(vocabulary.items[schema.ITEM_ID].to_pylist(), trainable=False)
        self.titles = tf.Variable(vocabulary.items[schema.TITLE].to_pylist(), trainable=False)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, None], tf.int32)])
    def score_indices(self, query: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        """Scores lists of items.

        Args:
          query: int32 [batch_size], user indices.
          items: int32 [batch_size, list_size], item indices, padded with UNKNOWN_INDEX.

        Returns:
          float32 [batch_size, list_size].
        """
        scores = self.model({schema.QUERY: query, schema.ITEMS: items})
        scores = tf.where(query[:, None] == schema.UNKNOWN_INDEX, tf.gather(self.popularity, items), scores)
        return tf.where(items == schema.UNKNOWN_INDEX, -np.inf, scores)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32)])
    def query_vectors(self, query: tf.Tensor) -> tf.Tensor:
        """User indices int32 [batch_size] → float32 [batch_size, embedding_size]."""
        return self.model.query_vectors({schema.QUERY: query})

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([None, None], tf.int32),
        ]
    )
    def recommend_indices(self, query: tf.Tensor, k: tf.Tensor, excluded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Recommends the best k items. The catalogue is scored in chunks, so memory does not grow with its size.

        Args:
          query: int32 [batch_size], user indices.
          k: int32 [].
          excluded: int32 [batch_size, num_excluded], item indices, padded with UNKNOWN_INDEX.

        Returns:
          Item indices int32 and scores float32, both [batch_size, min(k, num_items)], padded with UNKNOWN_INDEX and
          -inf.
        """
        score_by_model = catalogue.dot_products(self.query_vectors(query), self.candidates.read_value())
        is_unknown = query[:, None] == schema.UNKNOWN_INDEX

        def score_chunk(begin: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
            return tf.where(is_unknown, self.popularity[begin:end], score_by_model(begin, end))

        return catalogue.top_k(score_chunk, self.model.num_items, k, excluded)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string), tf.TensorSpec([None, None], tf.string)])
    def score(self, user_ids: tf.Tensor, item_ids: tf.Tensor) -> dict[str, tf.Tensor]:
        """Ids [batch_size] and [batch_size, list_size] → `scores` [batch_size, list_size]."""
        return {"scores": self.score_indices(self.user_index.lookup(user_ids), self.item_index.lookup(item_ids))}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string),
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([None, None], tf.string),
        ]
    )
    def recommend(self, user_ids: tf.Tensor, k: tf.Tensor, excluded_item_ids: tf.Tensor) -> dict[str, tf.Tensor]:
        """Ids [batch_size], k, and ids to exclude → `item_ids`, `titles`, `scores` [batch_size, min(k, num_items)]."""
        items, scores = self.recommend_indices(
            self.user_index.lookup(user_ids), k, self.item_index.lookup(excluded_item_ids)
        )
        return {
            "item_ids": tf.gather(self.item_ids, items),
            "titles": tf.gather(self.titles, items),
            "scores": scores,
        }


def _lookup_table(ids: list[str]) -> tf.lookup.StaticHashTable:
    """Maps each id to its index, and every other string to UNKNOWN_INDEX."""
    initializer = tf.lookup.KeyValueTensorInitializer(ids, np.arange(len(ids), dtype=np.int32))
    return tf.lookup.StaticHashTable(initializer, default_value=schema.UNKNOWN_INDEX)
