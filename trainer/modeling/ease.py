"""A linear item-item model in closed form, and its blend with a two-tower model.

EASE (Steck, Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019) predicts the items of a user from the other
items of the user by ridge regression. It has one weight for each pair of items, so it is strong where items are few.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from trainer import schema
from trainer.compat import keras, tf
from trainer.modeling.chunks import CHUNK_BYTES
from trainer.modeling.embedding import weights_of_all
from trainer.modeling.two_tower import Features, TwoTowerModel


def item_item_weights(
    users: np.ndarray,
    items: np.ndarray,
    *,
    inputs: np.ndarray,
    targets: np.ndarray,
    num_items: int,
    regularization: float,
) -> np.ndarray:
    """The weights of EASE: the score of item j for a history is the sum of inputs[i] · weights[i, j] over its items i.

    With the inputs X and the targets Y, both [num_users, num_items], and P = (XᵀX + λI)⁻¹, they are
    PXᵀY − P · diag(diag(PXᵀY) / diag(P)): ridge regression under the condition that no item predicts itself. For X = Y
    this is EASE.

    Args:
      users: int32 [num_events], user indices in any order.
      items: int32 [num_events].
      inputs: float32 [num_events], the weight of each item in a history.
      targets: float32 [num_events], what is predicted of each item.
      num_items: Number of item indices, including index 0.
      regularization: λ, above 0.

    Returns:
      float32 [num_items, num_items]. Its diagonal, row 0 and column 0 are 0.
    """
    gram: np.ndarray = np.zeros([num_items, num_items])
    cross: np.ndarray = np.zeros([num_items, num_items])
    for events, rows in _user_chunks(users, num_items):
        dense: np.ndarray = np.zeros([2, rows.max() + 1, num_items], np.float32)
        dense[0, rows, items[events]] = inputs[events]
        dense[1, rows, items[events]] = targets[events]
        gram += dense[0].T @ dense[0]
        cross += dense[0].T @ dense[1]
    gram[np.diag_indices(num_items)] += regularization
    inverse = np.linalg.inv(gram)
    weights = inverse @ cross
    weights -= inverse * (np.diag(weights) / np.diag(inverse))
    weights[schema.UNKNOWN_INDEX], weights[:, schema.UNKNOWN_INDEX] = 0, 0
    np.fill_diagonal(weights, 0)
    return weights.astype(np.float32)


def _user_chunks(users: np.ndarray, num_items: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The events of some users at a time, and the row of each event in a dense array of these users."""
    order = np.argsort(users, kind="stable")
    size = max(1, CHUNK_BYTES // (4 * num_items))
    begins = np.arange(0, users.max(initial=-1) + 1 + size, size)
    bounds = np.searchsorted(users[order], begins)
    for first_user, begin, end in zip(begins[:-1], bounds[:-1], bounds[1:], strict=True):
        if end > begin:
            yield order[begin:end], users[order[begin:end]] - first_user


class EaseBlend(tf.Module):
    """Scores of a two-tower model plus weight · scores of EASE. It has the interface of a model that is evaluated.

    Training does not see the sum. Two models that are trained apart make different errors, and their sum ranks better
    than a tower that is trained on what EASE leaves over.
    """

    def __init__(self, model: TwoTowerModel, weights: np.ndarray, *, weight: float):
        """Builds the blend.

        Args:
          model: A model with a history.
          weights: The result of `item_item_weights`, for ratings as inputs.
          weight: What the scores of EASE are multiplied by.
        """
        super().__init__(name="ease_blend")
        self.model = model
        self.num_items = model.num_items
        self.query_features = model.query_features
        self._weights_of_candidates = tf.Variable(weight * weights.T, trainable=False)

    def __call__(self, features: Features) -> tf.Tensor:
        """The scores [batch_size, list_size] of the items of each list."""
        of_all = tf.matmul(self._inputs(features), self._weights_of_candidates, transpose_b=True)
        return self.model(features) + tf.gather(of_all, features[schema.ITEMS], batch_dims=1)

    @property
    def item_vector_size(self) -> int:
        """That of the model. The weights of EASE stand after it."""
        return self.model.item_vector_size

    @property
    def query_layers(self) -> list[keras.layers.Layer]:
        """What computes query vectors: the layers of the model. EASE adds no weights to them."""
        return self.model.query_layers

    def query_vectors(self, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """The vectors [batch_size, vector_size + num_items] of queries: that of the model, and the history."""
        return tf.concat([self.model.query_vectors(features), self._inputs(features)], axis=1)

    def candidate_vectors(self, items: tf.Tensor) -> tf.Tensor:
        """The vectors [n, vector_size + num_items] of item indices int32 [n]: that of the model, and the weights."""
        weights = tf.nn.embedding_lookup(self._weights_of_candidates, items)
        return tf.concat([self.model.candidate_vectors(items), weights], axis=1)

    def _inputs(self, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """The rating of every item in each history, [batch_size, num_items]."""
        return weights_of_all(features[schema.HISTORY], features[schema.HISTORY_RATINGS], self.num_items)
