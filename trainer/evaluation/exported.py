"""Lets an exported SavedModel be evaluated like the model it was exported from."""

from collections.abc import Mapping
from typing import Any

from trainer import schema
from trainer.compat import tf
from trainer.modeling.two_tower import Features


class ExportedModel:
    """A loaded SavedModel of this project with the interface of `protocols.Ranker`."""

    def __init__(self, loaded: Any):
        """`loaded` is what `tf.saved_model.load` returned, with the functions of `serving.ServingModel`."""
        self._loaded = loaded

    def __call__(self, features: Features) -> tf.Tensor:
        """Scores [batch_size, list_size] of the items of each list; −inf for items that training has not seen."""
        return self._loaded.score_indices(features[schema.QUERY], features[schema.ITEMS])

    def query_vectors(self, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Vectors [batch_size, vector_size] of the user indices in `query`."""
        return self._loaded.query_vectors(features[schema.QUERY])

    def candidate_vectors(self, items: tf.Tensor) -> tf.Tensor:
        """Vectors [num_items, vector_size] of the item indices, int32 [num_items]."""
        return tf.gather(self._loaded.candidates, items)
