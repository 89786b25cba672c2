"""Export a trained model as a SavedModel, and check and load an exported one."""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from settings.errors import ConfigError, StorageError
from trainer import schema, storage
from trainer.compat import tf
from trainer.data.vocabulary import Vocabulary
from trainer.modeling.two_tower import TwoTowerModel
from trainer.serving import manifest, verify_export
from trainer.serving.serving_model import ServingModel

Verifier = Callable[[dict[str, Any]], str | None]
"""Takes a sample and returns the first difference, as `verify_export.compare` does."""

_VERIFIER_SCRIPT = pathlib.Path(verify_export.__file__)


def verify_in_fresh_process(sample: dict[str, Any]) -> str | None:
    """Runs `verify_export.compare` in a new process, which imports plain TensorFlow and nothing of this project.

    It takes some seconds, most of them for the import of TensorFlow.
    """
    # Users of the model choose their own Keras. This process holds the memory of the accelerator.
    environment = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    process = subprocess.run(
        # As text, because Python would add the folder of a script to its import path.
        [sys.executable, "-c", _VERIFIER_SCRIPT.read_text()],
        env=environment | {"CUDA_VISIBLE_DEVICES": "-1"},
        input=json.dumps(sample),
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode == 0:
        return None
    return (process.stderr.strip().splitlines() or [f"exit code {process.returncode}, without a message"])[-1]


def verify_in_this_process(sample: dict[str, Any]) -> str | None:
    """Makes the same comparison faster. It cannot notice that the model needs something of this project."""
    with tf.device("CPU:0"):
        return verify_export.compare(sample)


def export_model(
    model: TwoTowerModel,
    vocabulary: Vocabulary,
    folder: str,
    *,
    sizes: dict[str, Any],
    verify: Verifier = verify_in_fresh_process,
) -> None:
    """Writes the SavedModel and its manifest, and replaces an earlier export only after a successful check.

    The check loads the new model and compares its scores for a sample of users and items with those of `model`.

    Args:
      model: the trained model, built under any strategy.
      vocabulary: the vocabulary that `model` was trained with.
      folder: `WORKDIR/model`, local or gs://.
      sizes: the arguments that `TwoTowerModel` was built with.
      verify: makes the check.

    Raises:
      StorageError: the model cannot be written, or the written model fails the check.
    """
    # Save from the CPU. The check repeats its arithmetic, and an accelerator may round differently.
    with tf.device("CPU:0"):
        copy = TwoTowerModel(**sizes)
        copy.assign_from(model)
        serving = ServingModel(copy, vocabulary)
    partial = f"{folder.rstrip('/')}.partial"
    try:
        _remove(partial)
        signatures = {"serving_default": serving.score, "recommend": serving.recommend}
        tf.saved_model.save(serving, partial, signatures=signatures)
        if difference := verify(_build_sample(model, vocabulary, partial)):
            raise StorageError(
                f"The exported model failed its check and was not kept in {folder}: {difference}. The checkpoints "
                "are not affected. Run the same command again, which exports the model again; if the error stays, "
                "please report it."
            )
        manifest.write_manifest(partial, vocabulary_fingerprint=vocabulary.fingerprint())
        _remove(folder)
        tf.io.gfile.rename(partial, folder)
    except storage.file_errors() as error:
        raise StorageError(
            f"The model cannot be exported to {folder}: {storage.reason(error)}. Free space there or change the "
            "access rights, and run the same command again, which exports the model from the checkpoint."
        ) from error
    finally:
        _remove(partial)


def is_whole(folder: str, vocabulary: Vocabulary) -> bool:
    """Returns whether `folder` holds a complete, undamaged export that was made with `vocabulary`.

    Reads every file of the model once and does not load it. A run that has finished calls this to decide whether to
    export its model again.
    """
    return manifest.find_damage(folder, vocabulary_fingerprint=vocabulary.fingerprint()) is None


def load_export(folder: str, vocabulary: Vocabulary | None = None) -> Any:
    """Checks the files of an exported model against its manifest, and loads it.

    Args:
      folder: `WORKDIR/model`, local or gs://.
      vocabulary: if given, the vocabulary that the model must have been exported with.

    Returns:
      The loaded SavedModel, with the functions of `ServingModel`.

    Raises:
      ConfigError: `folder` holds no model.
      StorageError: the model is damaged, or was exported by an older version or with another vocabulary.
    """
    if not storage.exists(folder) or not storage.list_folder(folder):
        raise ConfigError(
            f"There is no exported model in {folder}: the run has not finished. Run python -m trainer.main with this "
            "--workdir, which trains to the end and exports the model."
        )
    fingerprint = vocabulary.fingerprint() if vocabulary else None
    damage = manifest.find_damage(folder, vocabulary_fingerprint=fingerprint)
    if damage is None:
        broken: tuple[type[Exception], ...] = (*storage.file_errors(), ValueError)
        try:
            return tf.saved_model.load(folder)
        except broken as error:
            damage = f"TensorFlow cannot load it ({storage.reason(error)})"
    raise StorageError(
        f"The model in {folder} cannot be used: {damage}. Run python -m trainer.main again with the --workdir and the "
        "--config of this run: it exports the model again from the checkpoint."
    )


def _build_sample(model: TwoTowerModel, vocabulary: Vocabulary, folder: str) -> dict[str, Any]:
    """The input of `verify_export.compare`: known users and items, spread over all of them, and their scores."""
    num_users, num_items = vocabulary.num_users - 1, vocabulary.num_items - 1
    users = np.linspace(1, num_users, num=min(16, num_users), dtype=np.int32)
    items = np.linspace(1, num_items, num=min(64, num_items), dtype=np.int32)
    with tf.device("CPU:0"):
        scores = model({schema.QUERY: tf.constant(users), schema.ITEMS: tf.tile(items[None], [len(users), 1])})
    item_ids = vocabulary.items[schema.ITEM_ID].take(items).to_pylist()
    return {
        "folder": folder,
        "user_ids": vocabulary.users[schema.USER_ID].take(users).to_pylist(),
        "item_ids": item_ids,
        "scores": scores.numpy().tolist(),
        "most_popular": item_ids[0],  # Indices are in the order of popularity.
    }


def _remove(folder: str) -> None:
    if tf.io.gfile.exists(folder):
        tf.io.gfile.rmtree(folder)
