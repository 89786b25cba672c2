"""Loads an exported model as its users will: with plain TensorFlow and nothing of this project.

Run as a script by `export`, which writes a JSON object to its standard input: `folder`, `user_ids` [n],
`item_ids` [m] and the `scores` [n, m] that the trainer gave them. Fails where the model gives others.
"""

import json
import sys

import numpy as np
import tensorflow as tf


def main() -> None:
    """Compares; raises SystemExit with one line where something differs."""
    sample = json.load(sys.stdin)
    model = tf.saved_model.load(sample["folder"])
    user_ids = tf.constant(sample["user_ids"])
    item_ids = tf.tile(tf.constant(sample["item_ids"])[None], [len(user_ids), 1])
    scores = model.signatures["serving_default"](user_ids=user_ids, item_ids=item_ids)["scores"].numpy()
    expected = np.asarray(sample["scores"], np.float32)
    # What rounding may do: a score near 0 is the sum of products as large as those of the largest score.
    tolerance = 1e-5 * np.abs(expected).max()
    difference = np.abs(scores - expected).max()
    if not difference <= tolerance:  # This way round it also refuses NaN.
        sys.exit(f"its scores differ from the trainer's by up to {difference:.3g}.")
    best = model.signatures["recommend"](
        user_ids=user_ids, k=tf.constant(1), excluded_item_ids=tf.zeros([len(user_ids), 0], tf.string)
    )
    best_scores = model.signatures["serving_default"](user_ids=user_ids, item_ids=best["item_ids"])["scores"].numpy()
    if not np.all(best_scores[:, 0] >= expected[:, 1:].max(axis=1) - tolerance):
        sys.exit("an item scores higher than the one that it recommends first.")


if __name__ == "__main__":
    main()
