"""The model for servers such as TensorFlow Serving and Vertex AI: signatures over an exported model.

A server's signatures have no optional arguments, and it can only put requests together along the first axis. So the
first axis of every argument and result is the batch, the number of recommendations is fixed, and what is optional has a
signature of its own. All signatures call the functions of the exported model; see `serving_model`:

- `score`: `user_ids` [batch_size], `item_ids` [batch_size, list_size] → `scores`, `known` [batch_size, list_size].
- `recommend`: `user_ids` → `item_ids`, `titles`, `scores` [batch_size, k], `known` [batch_size].
- `recommend_excluding`: also `excluded_item_ids` [batch_size, num_excluded], padded with "".
- `recommend_from_history`, `recommend_from_history_excluding`: `item_ids` and `ratings` [batch_size, n] and the query
  features, and for the second `excluded_item_ids` → the same.
- `similar_items`: `item_ids` [batch_size] → the same.

`recommend` and `recommend_excluding` leave out what a user has seen. Where the exported model gives the score -inf, a
signature gives LOWEST_SCORE, because JSON has no infinity.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from trainer import schema
from trainer.compat import tf
from trainer.evaluation.item_lists import ItemLists

LOWEST_SCORE = float(np.finfo(np.float32).min)
"""The score of an unknown item, and of the padding where fewer than k items are left: the lowest finite float32."""

_IDS, _ID_LISTS = tf.TensorSpec([None], tf.string), tf.TensorSpec([None, None], tf.string)
_HISTORY = {"item_ids": _ID_LISTS, "ratings": tf.TensorSpec([None, None], tf.float32)}
_EXCLUDED = {"excluded_item_ids": _ID_LISTS}


class ServedModel(tf.Module):
    """Holds the exported model, the items that each user has seen, and the functions that become signatures."""

    def __init__(self, model: Any, seen: ItemLists, *, k: int):
        """Builds the functions.

        Args:
          model: a loaded exported model.
          seen: the items to leave out for each user index.
          k: the number of recommendations, at most the number of items.
        """
        super().__init__(name="served_model")
        self.model = model
        self._k = k
        self._seen_offsets = tf.Variable(seen.offsets.astype(np.int64), trainable=False, name="seen_offsets")
        # One more entry, which is never used, because a variable needs at least one.
        self._seen_items = tf.Variable(np.append(seen.items, np.int32(0)), trainable=False, name="seen_items")

    def build_signatures(self) -> dict[str, Any]:
        """The functions that become signatures, by name, for `tf.saved_model.save`."""
        signatures = {
            "score": _trace(self._score, {"user_ids": _IDS, "item_ids": _ID_LISTS}),
            "recommend": _trace(self._recommend, {"user_ids": _IDS}),
            "recommend_excluding": _trace(self._recommend_excluding, {"user_ids": _IDS, **_EXCLUDED}),
            "similar_items": _trace(self._similar_items, {"item_ids": _IDS}),
        }
        if (features := query_inputs(self.model)) is not None:
            of_history = {**_HISTORY, **features}
            signatures["recommend_from_history"] = _trace(self._recommend_from_history, of_history)
            signatures["recommend_from_history_excluding"] = _trace(
                self._recommend_from_history, {**of_history, **_EXCLUDED}
            )
        return signatures

    def _score(self, user_ids: tf.Tensor, item_ids: tf.Tensor) -> dict[str, tf.Tensor]:
        return _shaped(self.model.score(user_ids, item_ids), scores=[None, None], known=[None, None])

    def _recommend(self, user_ids: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._recommend_excluding(user_ids, _none(user_ids))

    def _recommend_excluding(self, user_ids: tf.Tensor, excluded_item_ids: tf.Tensor) -> dict[str, tf.Tensor]:
        users = self.model.user_indices(user_ids)
        excluded = tf.concat([self._seen(users), self.model.item_indices(excluded_item_ids)], axis=1)
        items, scores = self.model.recommend_indices(self.model.user_features(users), self._k, excluded)
        named = self.model.name_items(items)
        return self._sized({**named, "scores": scores, "known": users != schema.UNKNOWN_INDEX})

    def _recommend_from_history(
        self, item_ids: tf.Tensor, ratings: tf.Tensor, excluded_item_ids: tf.Tensor | None = None, **features: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        excluded = _none(item_ids) if excluded_item_ids is None else excluded_item_ids
        return self._sized(
            self.model.recommend_from_history(
                item_ids=item_ids, ratings=ratings, k=tf.constant(self._k), excluded_item_ids=excluded, **features
            )
        )

    def _similar_items(self, item_ids: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._sized(self.model.similar_items(item_ids, self._k))

    def _seen(self, users: tf.Tensor) -> tf.Tensor:
        """The items that users have seen, int32 [batch_size, n], padded with UNKNOWN_INDEX."""
        begins = tf.gather(self._seen_offsets, users)
        sizes = tf.gather(self._seen_offsets, users + 1) - begins
        position = tf.range(tf.reduce_max(tf.concat([sizes, [0]], 0)))
        is_real = position < sizes[:, tf.newaxis]
        entries = tf.where(is_real, begins[:, tf.newaxis] + position, 0)
        return tf.where(is_real, tf.gather(self._seen_items, entries), schema.UNKNOWN_INDEX)

    def _sized(self, found: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        of_items = [None, self._k]
        return _shaped(found, item_ids=of_items, titles=of_items, scores=of_items, known=[None])


def query_inputs(model: Any) -> dict[str, tf.TensorSpec] | None:
    """The query features that `recommend_from_history` of a loaded exported model takes. None: it has no history."""
    signature = model.signatures.get("recommend_from_history")
    if signature is None:
        return None
    _, inputs = signature.structured_input_signature
    return {name: spec for name, spec in inputs.items() if name not in (*_HISTORY, *_EXCLUDED, "k")}


def _trace(function: Any, inputs: Mapping[str, tf.TensorSpec]) -> Any:
    # With named arguments only, the signature has their names before it is saved too.
    return tf.function(lambda **arguments: function(**arguments), autograph=False).get_concrete_function(
        **{name: tf.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in inputs.items()}
    )


def _none(ids: tf.Tensor) -> tf.Tensor:
    """No item to exclude for each of ids [batch_size, ...]: string [batch_size, 0]."""
    return tf.zeros([tf.shape(ids)[0], 0], tf.string)


def _shaped(found: Mapping[str, tf.Tensor], **shapes: list[int | None]) -> dict[str, tf.Tensor]:
    """The results with shapes that a client can read from the signature, and with finite scores."""
    finite = {**found, "scores": tf.maximum(found["scores"], LOWEST_SCORE)}
    return {name: tf.ensure_shape(finite[name], shape) for name, shape in shapes.items()}
