"""Checks that an exported model gives the scores of the trainer.

This file imports plain TensorFlow and nothing of this project, as the users of the model do. As a script it reads
a sample, a JSON object, from standard input and exits with an error message if the check fails. `compare`
documents the fields of the sample.
"""

import json
import sys
from typing import Any

import numpy as np
import tensorflow as tf

UNKNOWN_ID = ""
"""The empty string is never an id, so no model knows it."""


def compare(sample: dict[str, Any]) -> str | None:
    """Loads the model and compares its answers with those of the trainer.

    Args:
      sample: `folder` of the SavedModel, known `user_ids` [n] and known `item_ids` [m], the `scores` [n, m] that the
        trainer computes for them, and `most_popular`, the id of the item with the most training ratings. And
        `from_history`, None or what describes the same users without their ids: the `item_ids` and `ratings` [n, size]
        of their histories, the `values` of their features, and the `scores` [n, k] of the best items that are not in
        the history.

    Returns:
      The first difference, as a clause for an error message. None if there is none.
    """
    model = tf.saved_model.load(sample["folder"])
    score, recommend = model.signatures["score"], model.signatures["recommend"]
    user_ids = tf.constant(sample["user_ids"])
    nothing = tf.zeros([len(user_ids), 0], tf.string)
    item_ids = tf.tile(tf.constant([*sample["item_ids"], UNKNOWN_ID])[None], [len(user_ids), 1])
    answer = score(user_ids=user_ids, item_ids=item_ids)
    scores = answer["scores"].numpy()
    expected = np.asarray(sample["scores"], np.float32)
    # Rounding errors grow with the terms of the dot product, also where their sum is close to 0.
    tolerance = 1e-5 * np.abs(expected).max()
    difference = _largest_difference(scores[:, :-1], expected)
    if not difference <= tolerance:  # Also true if the difference is NaN.
        return f"its scores differ from the trainer's by up to {difference:.3g}"
    if not np.all(scores[:, -1] == -np.inf):
        return f"an unknown item has the score {scores[:, -1].max():.3g} instead of -inf"
    is_known: np.ndarray = np.append(np.ones(len(sample["item_ids"]), bool), False)
    if not np.array_equal(answer["known"].numpy(), np.tile(is_known, [len(user_ids), 1])):
        return "it does not tell which items of known users it knows"

    best = recommend(user_ids=user_ids, k=tf.constant(1), excluded_item_ids=nothing)
    best_scores = score(user_ids=user_ids, item_ids=best["item_ids"])["scores"].numpy()
    if not np.all(best_scores[:, 0] >= expected.max(axis=1) - tolerance):
        return "an item scores higher than the one that it recommends first"

    popular = recommend(user_ids=tf.constant([UNKNOWN_ID]), k=tf.constant(1), excluded_item_ids=nothing[:1])
    if not best["known"].numpy().all() or popular["known"].numpy().any():
        return "it does not tell which users it knows"
    if (first := popular["item_ids"].numpy()[0, 0].decode()) != sample["most_popular"]:
        return f"it recommends {first!r} first to an unknown user, and {sample['most_popular']!r} is the most popular"

    if (history := sample["from_history"]) is None:
        return None
    expected = np.asarray(history["scores"], np.float32)
    found = model.signatures["recommend_from_history"](
        item_ids=tf.constant(history["item_ids"]),
        ratings=tf.constant(history["ratings"], tf.float32),
        k=tf.constant(expected.shape[1]),
        excluded_item_ids=nothing,
        **{name: tf.constant(values) for name, values in history["values"].items()},
    )
    if not (difference := _largest_difference(found["scores"].numpy(), expected)) <= tolerance:
        return f"its scores from a history differ from the trainer's by up to {difference:.3g}"
    has_items = np.any(np.asarray(history["item_ids"]) != UNKNOWN_ID, axis=1)
    if not np.array_equal(found["known"].numpy(), has_items):
        return "it does not tell which histories it knows"
    scores = score(user_ids=user_ids, item_ids=found["item_ids"])["scores"].numpy()
    if not (difference := _largest_difference(scores, expected)) <= tolerance:
        return f"its scores from a history differ from those of the user's id by up to {difference:.3g}"
    return None


def _largest_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Equal infinities have the difference 0."""
    differences = np.subtract(found, expected, out=np.zeros_like(expected), where=found != expected)
    return float(np.abs(differences).max())


if __name__ == "__main__":
    if found := compare(json.load(sys.stdin)):
        sys.exit(found)
