"""Checks that a model for servers gives the answers of the exported model that it was made from.

This file imports plain TensorFlow and nothing of this project. As a script it reads a sample, a JSON object, from
standard input and exits with an error message if the check fails. `compare` documents the fields of the sample.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

LOWEST_SCORE = float(np.finfo(np.float32).min)


def compare(sample: dict[str, Any]) -> str | None:
    """Loads both models and compares the answers of all signatures with those of the functions behind them.

    Args:
      sample: `folder` and `model_folder` of the two SavedModels; `k`; `user_ids` and `item_ids`, with an unknown id as
        the last of each; and `seen`, the ids of the items that each user has seen.

    Returns:
      The first difference, as a clause for an error message. None if there is none.
    """
    signatures = tf.saved_model.load(sample["folder"]).signatures
    model = tf.saved_model.load(sample["model_folder"])
    k, users, item_ids = sample["k"], tf.constant(sample["user_ids"]), tf.constant(sample["item_ids"])
    lists = tf.tile(item_ids[None], [len(users), 1])
    # The history of each user is a part of the items, in another order for each.
    histories = tf.stack([tf.roll(item_ids, shift, axis=0)[:5] for shift in range(len(users))])
    ratings = tf.cast(1 + tf.range(5)[None] + 0 * tf.range(len(users))[:, None], tf.float32)
    excluded = histories[:, :2]
    seen = _padded(sample["seen"])
    calls: dict[str, tuple[Mapping[str, tf.Tensor], Any]] = {
        "score": ({"user_ids": users, "item_ids": lists}, lambda: model.score(users, lists)),
        "recommend": ({"user_ids": users}, lambda: model.recommend(users, k, seen)),
        "recommend_excluding": (
            {"user_ids": users, "excluded_item_ids": excluded},
            lambda: model.recommend(users, k, tf.concat([seen, excluded], axis=1)),
        ),
        "similar_items": ({"item_ids": item_ids}, lambda: model.similar_items(item_ids, k)),
    }
    if "recommend_from_history" in signatures:
        _, inputs = signatures["recommend_from_history"].structured_input_signature
        given = {"item_ids": histories, "ratings": ratings}
        given |= {name: _missing(spec, len(users)) for name, spec in inputs.items() if name not in given}

        def from_history(excluded_item_ids: tf.Tensor) -> dict[str, tf.Tensor]:
            return model.recommend_from_history(**given, k=tf.constant(k), excluded_item_ids=excluded_item_ids)

        calls["recommend_from_history"] = (given, lambda: from_history(excluded[:, :0]))
        calls["recommend_from_history_excluding"] = (
            {**given, "excluded_item_ids": excluded},
            lambda: from_history(excluded),
        )
    if missing := signatures.keys() ^ (calls.keys() | {"serving_default"}):
        return f"its signatures differ from those expected in {', '.join(sorted(missing))}"
    for name, (arguments, expected_fn) in calls.items():
        found, expected = signatures[name](**arguments), expected_fn()
        if found.keys() != expected.keys():
            return f"the results of {name} are {', '.join(sorted(found))} and not {', '.join(sorted(expected))}"
        for result, values in sorted(expected.items()):
            wanted, answer = values.numpy(), found[result].numpy()
            if wanted.dtype == np.float32:
                wanted = np.maximum(wanted, LOWEST_SCORE)
            if answer.shape != wanted.shape or not np.array_equal(answer, wanted):
                return f"the {result} of {name} differ from those of the exported model"
    return None


def _padded(rows: list[list[str]]) -> tf.Tensor:
    width = max(map(len, rows))
    return tf.constant([[*row, *[""] * (width - len(row))] for row in rows], tf.string, [len(rows), width])


def _missing(spec: tf.TensorSpec, batch_size: int) -> tf.Tensor:
    """No value of a query feature."""
    return tf.fill([batch_size, 1][: spec.shape.rank], "" if spec.dtype == tf.string else float("nan"))


if __name__ == "__main__":
    if found := compare(json.load(sys.stdin)):
        sys.exit(found)
