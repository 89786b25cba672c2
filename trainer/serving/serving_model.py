"""The functions of the exported SavedModel: ids in, scores and recommendations out.

Plain TensorFlow loads the model. It needs no import of this project. Its functions are:

- `score`, also a signature, and the signature `serving_default`: user ids [batch_size] and item ids [batch_size,
  list_size], both strings → `scores` and `known` [batch_size, list_size]. Pad shorter lists with "".
- `recommend`, also a signature: user ids [batch_size], k, and item ids to exclude [batch_size, num_excluded], padded
  with "" → `item_ids`, `titles` and `scores` [batch_size, min(k, num_items)], best first, and `known` [batch_size].
  Equal scores are ordered by item index, so the more popular item comes first. If fewer than k candidates are left, the
  row is padded with "" and the score -inf.
- `recommend_from_history`, also a signature: the same for users who were not there in training, from the item ids of
  their history [batch_size, n], oldest first, padded with "", and its ratings [batch_size, n]. Each query feature of
  the model is one more argument. The items of the history are not recommended. Only a model with a history has it.
- `similar_items`, also a signature: item ids [batch_size] and k → the same for the most similar items, with their
  cosines as scores.
- `user_indices`, `item_indices`, `name_items`: from ids to indices and back.
- `user_features`: the stored features of known users, from their indices.
- `score_indices`, `recommend_indices`, `similar_indices`, `query_vectors`: the same from features and indices instead
  of ids.
- the variables `candidates`, the vectors of all items, and `query_features`, the names of the features that the
  functions above take.

Known users are described by what was known about them when the model was exported: `query_source`.

Unknown ids, which have no training ratings, are not an error, so that one of them does not fail a whole batch. `known`,
bool, tells whether the model itself has given the answer:

- An unknown item, and so the padding "", has the score -inf and is never recommended. In a history it is left out.
  Nothing is similar to it.
- For an unknown user, and for a history without a known item, an item's score is its popularity, that is its number of
  training ratings. So `recommend` returns the most popular items, and `score` orders the items of a list by popularity.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from trainer import schema
from trainer.compat import tf
from trainer.data.queries import QuerySource
from trainer.data.vocabulary import NUM_RATINGS, Vocabulary
from trainer.evaluation import catalogue
from trainer.evaluation.catalogue_ranking import Ranker
from trainer.evaluation.catalogue_scorer import candidate_matrix
from trainer.modeling.chunks import CHUNK_BYTES, map_in_chunks
from trainer.modeling.two_tower import Features
from trainer.serving.ids import IdTable, string_variable
from trainer.serving.new_queries import FeatureInput, latest_known
from trainer.serving.stored_queries import StoredQueries

_INDICES, _ITEMS = tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, None], tf.int32)
_IDS, _ID_LISTS = tf.TensorSpec([None], tf.string), tf.TensorSpec([None, None], tf.string)
_NUMBER = tf.TensorSpec([], tf.int32)


class RankingModel(Ranker, Protocol):
    """A model that can be exported."""

    @property
    def num_items(self) -> int:
        """The number of item indices, including index 0."""
        ...

    @property
    def query_features(self) -> Sequence[str]:
        """The names of the features that describe a query."""
        ...

    @property
    def item_vector_size(self) -> int:
        """How many numbers, the first ones of a candidate vector, say what the item is like; see `similar_indices`."""
        ...

    @property
    def query_layers(self) -> Sequence[tf.Module]:
        """What computes the vectors of queries. Only this is exported, with the vectors of all candidates."""
        ...


class ServingModel(tf.Module):
    """What is exported: the query side of a model, the vectors of all items, and what is known of users and items.

    The docstring of this module has the rules.
    """

    def __init__(
        self,
        model: RankingModel,
        vocabulary: Vocabulary,
        query_source: QuerySource,
    ):
        """Builds the tables and computes the vector of every candidate.

        Args:
          model: a model that was built outside of any strategy.
          vocabulary: the vocabulary that `model` was trained with.
          query_source: the features of the known users.
        """
        super().__init__(name="serving_model")
        self.query_layers = list(model.query_layers)
        self._vectors_fn = model.query_vectors
        # A candidate has no feature that changes from request to request, so its vector is computed once. The tables
        # that it comes from are not exported.
        self.candidates = tf.Variable(candidate_matrix(model.candidate_vectors, model.num_items), trainable=False)
        self._item_vector_size = model.item_vector_size
        self.popularity = tf.Variable(vocabulary.items[NUM_RATINGS].to_numpy().astype(np.float32), trainable=False)
        self.users = IdTable(vocabulary.users[schema.USER_ID], name="user_ids")
        self.items = IdTable(vocabulary.items[schema.ITEM_ID], name="item_ids")
        self.titles = string_variable(vocabulary.items[schema.TITLE], name="titles")
        # The index tells known queries, also to a model that has no embedding of its own for them.
        names = list(dict.fromkeys([schema.QUERY, *model.query_features]))
        self.query_features = tf.Variable(names, trainable=False)
        self.stored_queries = StoredQueries(query_source, vocabulary.num_users, names)
        self._history_size = query_source.history_size if schema.HISTORY in names else 0
        self.feature_inputs = [FeatureInput(encoder) for encoder in vocabulary.features if encoder.spec.name in names]

        specs = _tensor_specs(query_source, names)
        self.user_features = tf.function(self._user_features, input_signature=[_INDICES], autograph=False)
        self.query_vectors = tf.function(self._query_vectors, input_signature=[specs], autograph=False)
        self.score_indices = tf.function(self._score_indices, input_signature=[specs, _ITEMS], autograph=False)
        self.recommend_indices = tf.function(
            self._recommend_indices, input_signature=[specs, _NUMBER, _ITEMS], autograph=False
        )
        self.user_indices = tf.function(self.users.lookup, input_signature=[_IDS], autograph=False)
        self.item_indices = tf.function(self.items.lookup, input_signature=[_ID_LISTS], autograph=False)
        self.name_items = tf.function(self._name_items, input_signature=[_ITEMS], autograph=False)
        self.similar_indices = tf.function(self._similar_indices, input_signature=[_INDICES, _NUMBER], autograph=False)
        if self._history_size:
            self.recommend_from_history = tf.function(self._recommend_from_history, autograph=False)

    def build_signatures(self) -> dict[str, Any]:
        """The functions that become signatures, by name, for `tf.saved_model.save`."""
        signatures: dict[str, Any] = {
            "serving_default": self.score,
            "score": self.score,
            "recommend": self.recommend,
            "similar_items": self.similar_items,
        }
        if self._history_size:
            # An input signature cannot name the features, which differ between models. So the graph is traced here.
            signatures["recommend_from_history"] = self.recommend_from_history.get_concrete_function(
                item_ids=_ID_LISTS,
                ratings=tf.TensorSpec([None, None], tf.float32),
                k=_NUMBER,
                excluded_item_ids=_ID_LISTS,
                **{each.tensor_spec.name: each.tensor_spec for each in self.feature_inputs},
            )
        return signatures

    def _user_features(self, users: tf.Tensor) -> Features:
        """The features of user indices int32 [batch_size], each [batch_size, ...]."""
        return self.stored_queries.gather(users)

    def _score_indices(self, features: Features, items: tf.Tensor) -> tf.Tensor:
        """Scores lists of items.

        Args:
          features: those in `query_features`, each [batch_size, ...].
          items: int32 [batch_size, list_size], item indices, padded with UNKNOWN_INDEX.

        Returns:
          float32 [batch_size, list_size].
        """
        scores = list_scores(self.query_vectors(features), self.candidates.read_value(), items)
        scores = tf.where(_is_known(features), scores, tf.gather(self.popularity, items))
        return tf.where(items == schema.UNKNOWN_INDEX, -np.inf, scores)

    def _query_vectors(self, features: Features) -> tf.Tensor:
        """The features in `query_features` [batch_size, ...] → float32 [batch_size, vector_size]."""
        return self._vectors_fn(features)

    def _recommend_indices(self, features: Features, k: tf.Tensor, excluded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Recommends the best k items. The catalogue is scored in chunks, so memory does not grow with its size.

        Args:
          features: those in `query_features`, each [batch_size, ...].
          k: int32 [].
          excluded: int32 [batch_size, num_excluded], item indices, padded with UNKNOWN_INDEX.

        Returns:
          Item indices int32 and scores float32, both [batch_size, min(k, num_items)], padded with UNKNOWN_INDEX and
          -inf.
        """
        score_by_model = catalogue.dot_products(self.query_vectors(features), self.candidates.read_value())
        is_known = _is_known(features)

        def score_chunk(begin: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
            return tf.cond(
                tf.reduce_all(is_known),
                lambda: score_by_model(begin, end),
                lambda: tf.where(is_known, score_by_model(begin, end), self.popularity[begin:end]),
            )

        return catalogue.top_k(
            score_chunk,
            self.candidates.shape[0],
            k,
            catalogue.pairs_of(excluded),
            batch_size=tf.shape(excluded)[0],
        )

    def _similar_indices(self, items: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Finds the k most similar items of each item, by the cosine of the vectors of the candidate tower.

        The bias and the prior are left out, because they only say how popular an item is. The weights of EASE are left
        out too: no item has a weight for itself, so the weights of two items that go together point in different
        directions.

        Args:
          items: int32 [batch_size], item indices.
          k: int32 [].

        Returns:
          Item indices int32 and cosines float32, both [batch_size, min(k, num_items)], most similar first, padded with
          UNKNOWN_INDEX and -inf. An item is not similar to itself, and nothing is similar to the unknown item.
        """
        candidates = self.candidates.read_value()

        def unit(vectors: tf.Tensor) -> tf.Tensor:
            return tf.math.l2_normalize(vectors[:, : self._item_vector_size], axis=1)

        vectors = unit(tf.gather(candidates, items))
        # A chunk is limited by its scores, and here also by the vectors that are normalized.
        chunk_size = tf.minimum(
            catalogue.items_per_chunk(tf.shape(items)[0], candidates.shape[0]),
            max(1, CHUNK_BYTES // (4 * self._item_vector_size)),
        )
        found, cosines = catalogue.top_k(
            lambda begin, end: tf.matmul(vectors, unit(candidates[begin:end]), transpose_b=True),
            candidates.shape[0],
            k,
            catalogue.pairs_of(items[:, tf.newaxis]),
            batch_size=tf.shape(items)[0],
            chunk_size=chunk_size,
        )
        is_known = (items != schema.UNKNOWN_INDEX)[:, tf.newaxis]
        return tf.where(is_known, found, schema.UNKNOWN_INDEX), tf.where(is_known, cosines, -np.inf)

    @tf.function(input_signature=[_IDS, _ID_LISTS], autograph=False)
    def score(self, user_ids: tf.Tensor, item_ids: tf.Tensor) -> dict[str, tf.Tensor]:
        """Ids [batch_size] and [batch_size, list_size] → `scores`, `known` [batch_size, list_size]."""
        features, items = self.user_features(self.users.lookup(user_ids)), self.items.lookup(item_ids)
        return {
            "scores": self.score_indices(features, items),
            "known": _is_known(features) & (items != schema.UNKNOWN_INDEX),
        }

    @tf.function(input_signature=[_IDS, _NUMBER, _ID_LISTS], autograph=False)
    def recommend(self, user_ids: tf.Tensor, k: tf.Tensor, excluded_item_ids: tf.Tensor) -> dict[str, tf.Tensor]:
        """Ids [batch_size], k, and ids to exclude → `item_ids`, `titles`, `scores` [batch_size, min(k, num_items)].

        And `known` [batch_size].
        """
        features = self.user_features(self.users.lookup(user_ids))
        found = self.recommend_indices(features, k, self.items.lookup(excluded_item_ids))
        return self._named(_is_known(features), *found)

    @tf.function(input_signature=[_IDS, _NUMBER], autograph=False)
    def similar_items(self, item_ids: tf.Tensor, k: tf.Tensor) -> dict[str, tf.Tensor]:
        """Ids [batch_size] and k → `item_ids`, `titles`, `scores` [batch_size, min(k, num_items)], `known`."""
        items = self.items.lookup(item_ids)
        return self._named((items != schema.UNKNOWN_INDEX)[:, tf.newaxis], *self.similar_indices(items, k))

    def _recommend_from_history(
        self, item_ids: tf.Tensor, ratings: tf.Tensor, k: tf.Tensor, excluded_item_ids: tf.Tensor, **values: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Recommends to users who are described by a history alone.

        Args:
          item_ids: string [batch_size, n], the items of the history, oldest first, each once. Unknown ids and the
            padding "" are left out. Of longer histories than in training the latest items are used.
          ratings: float32 [batch_size, n], 1 for events.
          k: int32 [].
          excluded_item_ids: string [batch_size, num_excluded], what not to recommend besides the items of the history.
          values: the query features, by name; see `FeatureInput`.

        Returns:
          The same as `recommend`.
        """
        items = self.items.lookup(item_ids)
        history, history_ratings = latest_known(items, ratings, self._history_size)
        features = {
            schema.QUERY: tf.fill(tf.shape(items)[:1], schema.UNKNOWN_INDEX),
            schema.HISTORY: history,
            schema.HISTORY_RATINGS: history_ratings,
            **{each.tensor_spec.name: each.encode(values[each.tensor_spec.name]) for each in self.feature_inputs},
        }
        excluded = tf.concat([items, self.items.lookup(excluded_item_ids)], axis=1)
        return self._named(_is_known(features), *self.recommend_indices(features, k, excluded))

    def _name_items(self, items: tf.Tensor) -> dict[str, tf.Tensor]:
        """Item indices int32 [batch_size, n] → `item_ids` and `titles`, string [batch_size, n]."""
        return {"item_ids": self.items.take(items), "titles": tf.gather(self.titles, items)}

    def _named(self, is_known: tf.Tensor, items: tf.Tensor, scores: tf.Tensor) -> dict[str, tf.Tensor]:
        return {**self.name_items(items), "scores": scores, "known": is_known[:, 0]}


def list_scores(vectors: tf.Tensor, candidates: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
    """The scores of lists of items, some queries at a time.

    Args:
      vectors: float32 [batch_size, vector_size], of queries.
      candidates: float32 [num_items, vector_size].
      items: int32 [batch_size, list_size].

    Returns:
      float32 [batch_size, list_size].
    """

    def scores(vectors: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        return tf.linalg.matvec(tf.gather(candidates, items), vectors)

    row_bytes = 4 * tf.maximum(tf.shape(items)[1], 1) * candidates.shape[1]
    return map_in_chunks(scores, [vectors, items], rows_per_chunk=CHUNK_BYTES // row_bytes)


def _is_known(features: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Whether anything is known about each query that the model can use: bool [batch_size, 1]."""
    is_known = features[schema.QUERY] != schema.UNKNOWN_INDEX
    if schema.HISTORY in features:
        is_known |= tf.reduce_any(features[schema.HISTORY] != schema.UNKNOWN_INDEX, axis=1)
    return is_known[:, tf.newaxis]


def _tensor_specs(query_source: QuerySource, names: Sequence[str]) -> dict[str, tf.TensorSpec]:
    """The features as arguments: any number of queries, and histories of any length."""
    arrays = query_source.gather(np.zeros(0, np.int32))
    histories = (schema.HISTORY, schema.HISTORY_RATINGS)
    return {
        name: tf.TensorSpec(
            [None, None] if name in histories else [None, *arrays[name].shape[1:]], arrays[name].dtype, name=name
        )
        for name in names
    }
