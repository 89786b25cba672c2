"""The trained model as a SavedModel with its vocabulary inside: ids in, scores and recommendations out.

Plain TensorFlow loads it, with no import of this project. Its functions:

- `score` (the signature `serving_default`): user ids [batch_size] and item ids [batch_size, list_size],
  strings → scores [batch_size, list_size].
- `recommend` (a signature too): user ids [batch_size], k, and item ids to exclude
  [batch_size, num_excluded], "" where there are fewer → item ids, titles and scores
  [batch_size, min(k, num_items)], best first, ties by item index, that is the more popular first. Where fewer
  candidates are left, the rest are "" with the score -inf.
- `score_indices` and `recommend_indices`: the same with indices for ids.
"""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np

from settings.errors import StorageError
from trainer import schema, storage
from trainer.compat import tf
from trainer.data.vocabulary import Vocabulary
from trainer.modeling.two_tower import TwoTowerModel

_VERIFIER = pathlib.Path(__file__).with_name("verify_export.py")


class ServingModel(tf.Module):
    """The functions of the SavedModel."""

    def __init__(self, model: TwoTowerModel, vocabulary: Vocabulary):
        """`model` has variables of its own, of no strategy."""
        super().__init__(name="serving_model")
        self.model = model
        # The candidate tower sees nothing that is not known now, so its vectors are computed once.
        self.candidates = tf.Variable(model.candidate_tower(tf.range(model.num_items)), trainable=False)
        self.user_index = _lookup_table(vocabulary.users[schema.USER_ID].to_pylist())
        self.item_index = _lookup_table(vocabulary.items[schema.ITEM_ID].to_pylist())
        self.item_ids = tf.Variable(vocabulary.items[schema.ITEM_ID].to_pylist(), trainable=False)
        self.titles = tf.Variable(vocabulary.items[schema.TITLE].to_pylist(), trainable=False)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, None], tf.int32)])
    def score_indices(self, query: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        """Indices [batch_size] and [batch_size, list_size] → scores [batch_size, list_size]."""
        return self.model({schema.QUERY: query, schema.ITEMS: items})

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([None, None], tf.int32),
        ]
    )
    def recommend_indices(self, query: tf.Tensor, k: tf.Tensor, excluded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Indices [batch_size], k, and item indices to exclude [batch_size, num_excluded], 0 where fewer.

        Returns:
          Item indices and scores, [batch_size, min(k, num_items)]; where no candidate is left, index 0 with
          the score -inf.
        """
        scores = tf.matmul(self.model.query_tower(query), self.candidates, transpose_b=True)
        excluded = tf.pad(excluded, [[0, 0], [1, 0]], constant_values=schema.UNKNOWN_INDEX)
        rows = tf.broadcast_to(tf.range(tf.shape(query)[0])[:, None], tf.shape(excluded))
        cells = tf.reshape(tf.stack([rows, excluded], axis=-1), [-1, 2])
        never = tf.fill([tf.shape(cells)[0]], -np.inf)
        scores = tf.tensor_scatter_nd_update(scores, cells, never)
        best, items = tf.math.top_k(scores, tf.minimum(k, tf.shape(scores)[1]))
        return tf.where(best > -np.inf, items, schema.UNKNOWN_INDEX), best

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


def export_model(model: TwoTowerModel, vocabulary: Vocabulary, folder: str, *, sizes: dict[str, Any]) -> None:
    """Writes the SavedModel, and declares success only after a fresh process has loaded it.

    That process has plain TensorFlow and not this project; its scores of a sample of users and items must be
    the trainer's. Until then the model lies beside `folder`, and an earlier one in `folder` stays.

    Args:
      model: the trained model, under any strategy.
      folder: `WORKDIR/model`, local or gs://.
      sizes: what `TwoTowerModel` was built with.

    Raises:
      StorageError: it cannot be written, or what was written does not give the trainer's scores.
    """
    # On the CPU, whose arithmetic the fresh process repeats; an accelerator may round otherwise.
    with tf.device("CPU:0"):
        copy = TwoTowerModel(**sizes)
        copy.set_weights(model.get_weights())
        serving = ServingModel(copy, vocabulary)
    partial = f"{folder.rstrip('/')}.partial"
    try:
        tf.saved_model.save(
            serving, partial, signatures={"serving_default": serving.score, "recommend": serving.recommend}
        )
        _verify(model, vocabulary, partial)
        if tf.io.gfile.exists(folder):
            tf.io.gfile.rmtree(folder)
        tf.io.gfile.rename(partial, folder)
    except (tf.errors.OpError, OSError) as error:
        raise StorageError(f"The model cannot be exported to {folder}: {storage.reason(error)}.") from error
    finally:
        if tf.io.gfile.exists(partial):
            tf.io.gfile.rmtree(partial)


def _verify(model: TwoTowerModel, vocabulary: Vocabulary, folder: str) -> None:
    users = np.linspace(0, vocabulary.num_users - 1, num=min(16, vocabulary.num_users), dtype=np.int32)
    items = np.linspace(0, vocabulary.num_items - 1, num=min(64, vocabulary.num_items), dtype=np.int32)
    with tf.device("CPU:0"):
        scores = model({schema.QUERY: tf.constant(users), schema.ITEMS: tf.tile(items[None], [len(users), 1])})
    sample = {
        "folder": folder,
        "user_ids": vocabulary.users[schema.USER_ID].take(users).to_pylist(),
        "item_ids": vocabulary.items[schema.ITEM_ID].take(items).to_pylist(),
        "scores": scores.numpy().tolist(),
    }
    # Its users choose their own Keras. The accelerator's memory is taken by this process, which trained on it.
    environment = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    fresh = subprocess.run(
        # As text, since a script's own folder is searched for imports, and here that holds a `metrics.py`.
        [sys.executable, "-c", _VERIFIER.read_text()],
        env=environment | {"CUDA_VISIBLE_DEVICES": "-1"},
        input=json.dumps(sample),
        capture_output=True,
        text=True,
        check=False,
    )
    if fresh.returncode:
        said = (fresh.stderr.strip().splitlines() or ["nothing"])[-1]
        raise StorageError(f"The exported model failed its test in a fresh process and was not kept: {said}")


def _lookup_table(ids: list[str]) -> tf.lookup.StaticHashTable:
    """id → index; UNKNOWN_INDEX for all others."""
    initializer = tf.lookup.KeyValueTensorInitializer(ids, np.arange(len(ids), dtype=np.int32))
    return tf.lookup.StaticHashTable(initializer, default_value=schema.UNKNOWN_INDEX)
