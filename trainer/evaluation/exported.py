"""Lets an exported SavedModel be evaluated like the model it was exported from."""

from collections.abc import Mapping
from typing import Any

from trainer import schema
from trainer.compat import tf
from trainer.modeling.two_tower import Features


class ExportedModel:
    """A loaded SavedModel of this project with the interface of `catalogue_ranking.Ranker`.

    It takes the features of queries, with the history that an evaluation gives, and not those that it has stored.
    """

    def __init__(self, loaded: Any):
        """`loaded` is what `tf.saved_model.load` returned, with the functions of `serving.ServingModel`."""
        self._loaded = loaded
        self._query_features = [name.decode() for name in loaded.query_features.numpy()]

    def __call__(self, features: Features) -> tf.Tensor:
        """Scores [batch_size, list_size] of the items of each list; −inf for items that training has not seen."""
        return self._loaded.score_indices(self._of_query(features), features[schema.ITEMS])

    def query_vectors(self, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Vectors [batch_size, vector_size] of queries with these features, each [batch_size, ...]."""
        return self._loaded.query_vectors(self._of_query(features))

    def candidate_vectors(self, items: tf.Tensor) -> tf.Tensor:
        """Vectors [num_items, vector_size] of the item indices, int32 [num_items]."""
        return tf.gather(self._loaded.candidates, items)

    def _of_query(self, features: Mapping[str, tf.Tensor]) -> Features:
        return {name: features[name] for name in self._query_features}
