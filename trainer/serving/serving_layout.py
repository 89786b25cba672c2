"""Writes a model version in the folder that TensorFlow Serving watches: DIR/1, DIR/2, ..."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from settings.errors import ConfigError, StorageError
from trainer import schema, storage
from trainer.compat import tf
from trainer.data.vocabulary import Vocabulary
from trainer.evaluation.item_lists import ItemLists
from trainer.serving import manifest, verify_served, warm_up
from trainer.serving.fresh_process import run_check
from trainer.serving.served_model import ServedModel

Verifier = Callable[[dict[str, Any]], str | None]
"""Takes a sample and returns the first difference, as `verify_served.compare` does."""

_NUM_SAMPLE_USERS, _NUM_SAMPLE_ITEMS = 16, 20


def verify_in_fresh_process(sample: dict[str, Any]) -> str | None:
    """Runs `verify_served.compare` in a new process with plain TensorFlow."""
    return run_check(pathlib.Path(verify_served.__file__), sample)


def write_version(
    model: Any,
    vocabulary: Vocabulary,
    seen: ItemLists,
    *,
    model_folder: str,
    folder: str,
    k: int,
    default_signature: str,
    model_name: str,
    with_warm_up: bool,
    verify: Verifier = verify_in_fresh_process,
) -> str:
    """Writes the next version of the model. It appears as a whole or not at all, and no version is overwritten.

    The check loads the new version and the exported model, and compares the answers of all signatures.

    Args:
      model: the loaded exported model.
      vocabulary: that of the model.
      seen: the items that `recommend` leaves out for each user index.
      model_folder: where `model` was loaded from.
      folder: the folder of the versions, local or gs://. It is made if it is missing.
      k: the number of recommendations.
      default_signature: the signature that a request without a name gets.
      model_name: the name under which the server knows the model.
      with_warm_up: whether to write requests that warm up the server.
      verify: makes the check.

    Returns:
      The folder of the version.

    Raises:
      ConfigError: the model has fewer than k items, or no such signature; or the package for the requests is missing.
      StorageError: the version cannot be written, or fails the check.
    """
    if k > vocabulary.num_items - 1:
        raise ConfigError(f"--k={k} cannot be used: the model has {vocabulary.num_items - 1:,} items. Set a lower --k.")
    if with_warm_up:
        warm_up.import_protocol_buffers()
    with tf.device("CPU:0"):
        served = ServedModel(model, seen, k=k)
        signatures = served.build_signatures()
        if default_signature not in signatures:
            raise ConfigError(
                f"--default_signature={default_signature} cannot be used: the model has no history "
                f"(config.history.encoder='none'). Use one of {', '.join(sorted(signatures))}."
            )
    target = storage.join(folder, str(_next_version(folder)))
    with written_whole(target) as partial:
        tf.saved_model.save(
            served, partial, signatures={**signatures, "serving_default": signatures[default_signature]}
        )
        if with_warm_up:
            requests = warm_up.build_requests(vocabulary, {name: inputs_of(each) for name, each in signatures.items()})
            warm_up.write_requests(requests, partial, model_name=model_name)
        if difference := verify(_build_sample(vocabulary, seen, partial, model_folder, k=k)):
            raise StorageError(
                f"The model for the server failed its check and was not kept in {folder}: {difference}. The exported "
                "model is not affected. Run the same command again; if the error stays, please report it."
            )
        manifest.write_manifest(partial, vocabulary_fingerprint=vocabulary.fingerprint())
    return target


@contextlib.contextmanager
def written_whole(folder: str) -> Iterator[str]:
    """Gives the name of a folder to write to. It gets the name `folder` when the body ends without an error.

    Raises:
      StorageError: a file cannot be written, or `folder` already exists.
    """
    partial = f"{folder.rstrip('/')}.partial"
    try:
        with storage.writing(folder):
            storage.remove(partial)
            storage.make_folder(partial)
            yield partial
            if storage.exists(folder):
                raise StorageError(f"{folder} was made by another process. Run the same command again.")
            tf.io.gfile.rename(partial, folder)
    finally:
        storage.remove(partial)


def inputs_of(signature: Any) -> Mapping[str, tf.TensorSpec]:
    """The arguments of a signature by name."""
    return signature.structured_input_signature[1]


def _next_version(folder: str) -> int:
    """1, or the number after the highest version. TensorFlow Serving serves the highest one."""
    if not storage.exists(folder):
        return 1
    if not storage.is_folder(folder):
        raise StorageError(f"--output={folder} cannot be used: it is a file. Choose a folder for the versions.")
    return 1 + max((int(name) for name in storage.list_folder(folder) if name.isdecimal()), default=0)


def _build_sample(vocabulary: Vocabulary, seen: ItemLists, folder: str, model_folder: str, *, k: int) -> dict[str, Any]:
    """The input of `verify_served.compare`: users and items, spread over all of them, and one unknown id of each."""
    users, items = (
        np.linspace(1, number - 1, num=min(size, number - 1), dtype=np.int32)
        for number, size in ((vocabulary.num_users, _NUM_SAMPLE_USERS), (vocabulary.num_items, _NUM_SAMPLE_ITEMS))
    )
    item_ids = vocabulary.items[schema.ITEM_ID]
    return {
        "folder": folder,
        "model_folder": model_folder,
        "k": k,
        "user_ids": [*vocabulary.users[schema.USER_ID].take(users).to_pylist(), ""],
        "item_ids": [*item_ids.take(items).to_pylist(), ""],
        "seen": [item_ids.take(seen.items[slice(*seen.offsets[[user, user + 1]])]).to_pylist() for user in users]
        + [[]],
    }
