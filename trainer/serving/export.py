"""Export a trained model as a SavedModel, and check and load an exported one."""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from settings.errors import ConfigError, StorageError
from trainer import schema, storage
from trainer.compat import tf
from trainer.data.queries import QuerySource
from trainer.data.vocabulary import Vocabulary
from trainer.evaluation import catalogue
from trainer.evaluation.catalogue_scorer import candidate_matrix
from trainer.modeling.two_tower import TwoTowerModel
from trainer.serving import manifest, verify_export
from trainer.serving.fresh_process import run_check
from trainer.serving.new_queries import decode
from trainer.serving.serving_model import RankingModel, ServingModel

Verifier = Callable[[dict[str, Any]], str | None]
"""Takes a sample and returns the first difference, as `verify_export.compare` does."""

RankerFn = Callable[[TwoTowerModel], RankingModel]
"""Builds what ranks from the trained model, for example its blend with another model."""

_NUM_SAMPLE_USERS, _NUM_SAMPLE_ITEMS, _NUM_SAMPLE_RECOMMENDATIONS = 16, 64, 20

_VERIFIER_SCRIPT = pathlib.Path(verify_export.__file__)


def verify_in_fresh_process(sample: dict[str, Any]) -> str | None:
    """Runs `verify_export.compare` in a new process, which imports plain TensorFlow and nothing of this project.

    It takes some seconds, most of them for the import of TensorFlow.
    """
    return run_check(_VERIFIER_SCRIPT, sample)


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
    query_source: QuerySource,
    ranker_fn: RankerFn = lambda model: model,
    verify: Verifier = verify_in_fresh_process,
) -> None:
    """Writes the SavedModel and its manifest, and replaces an earlier export only after a successful check.

    The check loads the new model and compares its scores for a sample of users and items with those of `model`.

    Args:
      model: the trained model, built under any strategy.
      vocabulary: the vocabulary that `model` was trained with.
      folder: `WORKDIR/model`, local or gs://.
      sizes: the arguments that `TwoTowerModel` was built with.
      query_source: the features of the known users, with their whole history: what the run was given in any split.
      ranker_fn: builds what is exported from `model`, and from a copy of it.
      verify: makes the check.

    Raises:
      StorageError: the model cannot be written, or the written model fails the check.
    """
    # Save from the CPU. The check repeats its arithmetic, and an accelerator may round differently.
    with tf.device("CPU:0"):
        copy = TwoTowerModel(**sizes)
        copy.assign_from(model)
        serving = ServingModel(ranker_fn(copy), vocabulary, query_source)
    partial = f"{folder.rstrip('/')}.partial"
    try:
        _remove(partial)
        tf.saved_model.save(serving, partial, signatures=serving.build_signatures())
        if difference := verify(_build_sample(ranker_fn(model), vocabulary, query_source, partial)):
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
    if not storage.exists(folder) or (storage.is_folder(folder) and not storage.list_folder(folder)):
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


def _build_sample(
    model: RankingModel, vocabulary: Vocabulary, query_source: QuerySource, folder: str
) -> dict[str, Any]:
    """The input of `verify_export.compare`: known users and items, spread over all of them, and their scores."""
    num_users, num_items = vocabulary.num_users - 1, vocabulary.num_items - 1
    users = np.linspace(1, num_users, num=min(_NUM_SAMPLE_USERS, num_users), dtype=np.int32)
    items = np.linspace(1, num_items, num=min(_NUM_SAMPLE_ITEMS, num_items), dtype=np.int32)
    item_ids = vocabulary.items[schema.ITEM_ID]
    features = query_source.gather(users)
    with tf.device("CPU:0"):
        scores = model({**_tensors(features), schema.ITEMS: tf.tile(items[None], [len(users), 1])})
        from_history = _build_history_sample(model, vocabulary, features) if schema.HISTORY in features else None
    return {
        "folder": folder,
        "user_ids": vocabulary.users[schema.USER_ID].take(users).to_pylist(),
        "item_ids": item_ids.take(items).to_pylist(),
        "scores": scores.numpy().tolist(),
        "most_popular": item_ids[1].as_py(),  # Indices are in the order of popularity.
        "from_history": from_history,
    }


def _build_history_sample(
    model: RankingModel, vocabulary: Vocabulary, features: dict[str, np.ndarray]
) -> dict[str, Any] | None:
    """What is known about the users of the sample, as a caller gives it, and the scores of their best new items.

    None if the model does not describe users by their history, or also by an embedding of their own, which a new user
    does not have.
    """
    if schema.HISTORY not in model.query_features or schema.QUERY in model.query_features:
        return None
    values = {}
    for encoder in vocabulary.features:
        name = encoder.spec.name
        if name in model.query_features:
            values[name] = decode(encoder, features[name])
            # A number of a caller has 32 bits, so its encoding may differ in the last one.
            features = {**features, name: encoder.encode(pa.array(values[name]))}
    history = features[schema.HISTORY]
    candidates = candidate_matrix(model.candidate_vectors, model.num_items)
    _, scores = catalogue.top_k(
        catalogue.dot_products(model.query_vectors(_tensors(features)), candidates),
        model.num_items,
        _NUM_SAMPLE_RECOMMENDATIONS,
        catalogue.pairs_of(tf.constant(history)),
        batch_size=len(history),
    )
    item_ids = vocabulary.items[schema.ITEM_ID].take(history.ravel()).to_pylist()
    return {
        "item_ids": np.array(item_ids, object).reshape(history.shape).tolist(),
        "ratings": features[schema.HISTORY_RATINGS].tolist(),
        "values": values,
        "scores": scores.numpy().tolist(),
    }


def _tensors(features: dict[str, np.ndarray]) -> dict[str, tf.Tensor]:
    return {name: tf.constant(values) for name, values in features.items()}


def _remove(folder: str) -> None:
    if tf.io.gfile.exists(folder):
        tf.io.gfile.rmtree(folder)
