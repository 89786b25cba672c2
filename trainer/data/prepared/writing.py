"""Writes a prepared data set, as a whole or not at all."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from trainer import storage
from trainer.data.dataset import Dataset, digest_of_queries, digests_of
from trainer.data.lists import RatingsByUser
from trainer.data.prepared.layout import (
    FEATURES,
    MANIFEST,
    VOCABULARY,
    example_file,
    feature_file,
    history_file,
    history_splits,
    shard_folder,
    split_file,
)
from trainer.data.prepared.manifest import Manifest, Shard, data_fields, write_manifest
from trainer.data.queries import Queries, build_queries
from trainer.data.ratings import SYNTHETIC
from trainer.data.vocabulary import Vocabulary

SHARD_BYTES = 256 << 20
"""The size of the ratings of a shard, without its histories."""


RATING_BYTES = 16
"""The size of the item, the rating and the time of a rating."""


def plan_dataset(dataset: Dataset, arguments: Mapping[str, Any]) -> Manifest:
    """Describes a data set as it would be written: everything but its files.

    Args:
      dataset: the result of `load_source` for `arguments`.
      arguments: the arguments of `load_source`.
    """
    of_lists = ("num_lists", "periods", "fingerprints")
    splits = _by_user(dataset)
    return Manifest(
        fields=fields_of(arguments),
        counts={name: value for name, value in dataset.description.items() if name not in of_lists},
        digests=all_digests(dataset),
        has_ratings=dataset.has_ratings,
        has_timestamps=dataset.has_timestamps,
        shards=plan_shards(
            {name: np.diff(part.offsets) for name, part in splits.items()},
            _bytes_per_rating(splits["train"]),
            SHARD_BYTES,
        ),
        files={},
    )


def fields_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields that the manifest has: those of `data_fields`, without a seed that shapes nothing."""
    fields = data_fields(arguments)
    if not _uses_seed(arguments):
        del fields["seed"]
    return fields


def all_digests(dataset: Dataset) -> dict[str, str]:
    """Returns the digests that the manifest has."""
    return {**digests_of(dataset), "queries": digest_of_queries(dataset.query_source("train"))}


def write_prepared(dataset: Dataset, folder: str, manifest: Manifest) -> Manifest:
    """Writes a data set to a new folder, and returns its manifest with all files.

    Args:
      dataset: what to write.
      folder: where nothing is yet.
      manifest: the result of `plan_dataset`.

    Raises:
      StorageError: the folder cannot be written. Nothing is left of it.
    """
    with whole_or_not_at_all(folder) as temporary:
        manifest = replace(manifest, files=_write(dataset, temporary, manifest.shards))
        write_manifest(temporary, manifest)
    return manifest


@contextlib.contextmanager
def whole_or_not_at_all(folder: str) -> Iterator[str]:
    """Gives a temporary folder beside `folder`, and moves it there when the body ends without an error.

    On gs://, where a folder cannot be moved in one step, it gives `folder` itself, and a data set is there once its
    manifest is, which is written last.

    Raises:
      StorageError: there is something at `folder` by then, or it cannot be written. Nothing is left.
    """
    is_remote = "://" in folder
    temporary = folder if is_remote else f"{folder}.{os.getpid()}.tmp"
    storage.remove_leftovers(folder)
    try:
        yield temporary
        if not is_remote:
            with storage.writing(folder):
                os.rename(temporary, folder)
                storage.sync(os.path.dirname(folder))
    except BaseException:
        # On gs:// a manifest is that of a whole data set, which another process may have written.
        if not (is_remote and storage.exists(storage.join(folder, MANIFEST))):
            storage.remove(temporary)
        raise


def plan_shards(num_ratings: Mapping[str, np.ndarray], bytes_per_rating: int, shard_bytes: int) -> list[Shard]:
    """Divides the users into ranges. Where a shard ends depends only on the numbers of ratings of all users.

    Args:
      num_ratings: split → the number of ratings of each user, integers [num_users].
      bytes_per_rating: the size of a rating with its features.
      shard_bytes: the size of a shard. The user who exceeds it is the last one of the shard.
    """
    num_bytes = np.sum([of_split * bytes_per_rating for of_split in num_ratings.values()], axis=0)
    shard_of_user = (np.cumsum(num_bytes) - num_bytes) // shard_bytes
    begins = np.unique(shard_of_user, return_index=True)[1].tolist()
    return [
        Shard(begin, end, {name: int(of_split[begin:end].sum()) for name, of_split in num_ratings.items()})
        for begin, end in zip(begins, [*begins[1:], len(shard_of_user)], strict=True)
    ]


def write_shard(folder: str, splits: Mapping[str, RatingsByUser]) -> None:
    """Writes a shard. Its content depends only on the ratings of its users.

    Args:
      folder: the folder of the shard.
      splits: the ratings of its users in each split that the data set has.

    Raises:
      StorageError: a file cannot be written.
    """
    storage.make_folder(folder)
    for name, part in splits.items():
        columns = {"offsets": part.offsets, "items": part.items, "ratings": part.ratings, "timestamps": part.timestamps}
        for column, values in columns.items():
            _save(storage.join(folder, split_file(name, column)), np.asarray(values))
        for feature, values in part.features.items():
            _save(storage.join(folder, example_file(name, feature)), np.asarray(values))
    for names in history_splits(splits):
        queries = _history([splits[name] for name in names])
        first = splits[names[0]]
        if len(names) == 1 and _are_equal(queries, first):
            continue
        for column in ("offsets", "items", "ratings"):
            _save(storage.join(folder, history_file(names, column)), np.asarray(getattr(queries, column)))


def _write(dataset: Dataset, folder: str, shards: list[Shard]) -> dict[str, dict[str, Any]]:
    """Writes everything but the manifest, and returns the size and the digest of each file."""
    write_descriptions(folder, dataset.vocabulary, {"query": dataset.query_features, "item": dataset.item_features})
    splits = _by_user(dataset)
    for number, shard in enumerate(shards):
        users = {name: part.of_users(shard.begin, shard.end) for name, part in splits.items()}
        write_shard(storage.join(folder, shard_folder(number, len(shards))), users)
    return facts_of_files(folder)


def write_descriptions(folder: str, vocabulary: Vocabulary, features: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Writes the vocabulary, and the values of the features of users and items.

    Args:
      folder: the folder of the data set.
      vocabulary: with the encoders of the features.
      features: owner → name → [num_users or num_items, *shape].

    Raises:
      StorageError: a file cannot be written.
    """
    vocabulary.save(storage.join(folder, VOCABULARY))
    storage.make_folder(storage.join(folder, FEATURES))
    for spec in (encoder.spec for encoder in vocabulary.features):
        if spec.owner != "example":
            _save(storage.join(folder, feature_file(spec)), features[spec.owner][spec.name])


def facts_of_files(folder: str, *names: str) -> dict[str, dict[str, Any]]:
    """Returns the size and the SHA-256 digest of each file below a folder, by its path there.

    Args:
      folder: the folder of the data set.
      names: the subfolders that are looked at; all if there are none.

    Raises:
      StorageError: a file cannot be read.
    """
    with storage.writing(folder):
        files = [storage.join(name, file) for name in names for file in storage.list_files(storage.join(folder, name))]
        paths = {name: storage.join(folder, name) for name in (files if names else storage.list_files(folder))}
        return {name: {"size": storage.size(path), "sha256": storage.sha256(path)} for name, path in paths.items()}


def _by_user(dataset: Dataset) -> dict[str, RatingsByUser]:
    num_users = dataset.vocabulary.num_users
    return {
        name: RatingsByUser(
            lists.user_offsets(num_users),
            lists.items,
            lists.labels,
            dataset.times[name],
            lists.features,
        )
        for name, lists in dataset.lists.items()
    }


def _history(parts: list[RatingsByUser]) -> Queries:
    num_users = len(parts[0].offsets) - 1
    users = [np.repeat(np.arange(num_users), np.diff(part.offsets)) for part in parts]
    return build_queries(
        np.concatenate(users),
        np.concatenate([np.asarray(part.items) for part in parts]),
        np.concatenate([np.asarray(part.ratings) for part in parts]),
        np.concatenate([np.asarray(part.timestamps) for part in parts]),
        num_users=num_users,
        history_size=0,
        features={},
    )


def _are_equal(queries: Queries, ratings: RatingsByUser) -> bool:
    return (
        np.array_equal(queries.offsets, ratings.offsets)
        and np.array_equal(queries.items, ratings.items)
        and np.array_equal(queries.ratings, ratings.ratings)
    )


def _bytes_per_rating(ratings: RatingsByUser) -> int:
    of_features = (array.dtype.itemsize * int(np.prod(array.shape[1:])) for array in ratings.features.values())
    return RATING_BYTES + sum(of_features)


def _uses_seed(arguments: Mapping[str, Any]) -> bool:
    """Whether the seed shapes the data: a random split, or synthetic ratings."""
    sources = (arguments["source"], arguments["validation_source"], arguments["test_source"])
    return is_split_random(arguments) or SYNTHETIC in sources


def is_split_random(arguments: Mapping[str, Any]) -> bool:
    """Returns whether the arguments of `load_source` hold out random ratings."""
    takes_validation = arguments["validation_fraction"] > 0 and not arguments["validation_source"]
    return arguments["split_method"] == "random" or (arguments["split_method"] == "given" and takes_validation)


def _save(path: str, array: np.ndarray) -> None:
    # In one step, because on Beam a second worker may write the same file: one that was given up and is still alive.
    with storage.open_for_writing(path) as file:
        np.save(file, array)
