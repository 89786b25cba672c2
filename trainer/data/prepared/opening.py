"""Opens a prepared data set. Its arrays are memory-mapped, and only what is as large as the users is read."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from trainer import storage
from trainer.data.arrays import EntryArray, join_parts
from trainer.data.dataset import Dataset, build_dataset, describe
from trainer.data.lists import RatingsByUser
from trainer.data.prepared.layout import (
    VOCABULARY,
    example_file,
    feature_file,
    history_file,
    history_splits,
    shard_folder,
    split_file,
)
from trainer.data.prepared.manifest import WAY_OUT, Manifest, check_content, check_fields, damaged, load_manifest
from trainer.data.prepared.staging import stage
from trainer.data.queries import Queries
from trainer.data.vocabulary import load_vocabulary


def open_prepared(
    folder: str, fields: Mapping[str, Any], *, list_size: int, history_size: int, cache: str = ""
) -> Dataset:
    """Opens a prepared data set. The result is equal to that of `load_source` for the source of the data.

    Args:
      folder: where `write_prepared` wrote.
      fields: the fields of the config that shape the data; see `data_fields`.
      list_size, history_size: as in `load_source`. They can be other ones than when the data was prepared.
      cache: where a data set that is not on this machine is copied to; see `stage`.

    Raises:
      ConfigError: the data was prepared with other fields, or by another version of this project.
      StorageError: a file is missing or damaged. Every file is read once, and its digest is compared.
    """
    manifest = load_manifest(folder)
    check_fields(folder, manifest, fields)
    if "://" in folder:
        folder = stage(folder, manifest, cache)
    check_content(folder, manifest)
    dataset = map_dataset(folder, manifest, list_size=list_size, history_size=history_size)
    return replace(dataset, description=describe(dataset, manifest.counts, manifest.digests))


def map_dataset(folder: str, manifest: Manifest, *, list_size: int, history_size: int) -> Dataset:
    """Maps the files of a data set into memory. The digests in its manifest are not used.

    Args:
      folder: where the files are.
      manifest: its description.
      list_size, history_size: as in `load_source`.

    Raises:
      StorageError: a file is missing or damaged.
    """
    vocabulary = load_vocabulary(storage.join(folder, VOCABULARY), way_out=WAY_OUT)
    specs = [encoder.spec for encoder in vocabulary.features]
    features = {
        owner: {spec.name: _map(folder, feature_file(spec)) for spec in specs if spec.owner == owner}
        for owner in ("query", "item")
    }
    examples = [spec.name for spec in specs if spec.owner == "example"]
    splits = {name: _split(folder, manifest, name, examples) for name in manifest.counts["num_ratings"]}
    return build_dataset(
        vocabulary,
        splits,
        list_size=list_size,
        list_order=manifest.fields["list_order"],
        has_ratings=manifest.has_ratings,
        has_timestamps=manifest.has_timestamps,
        query_features=features["query"],
        item_features=features["item"],
        history_size=history_size,
        histories={
            names: replace(_history(folder, manifest, names), history_size=history_size, features=features["query"])
            for names in history_splits(splits)
        },
    )


def _split(folder: str, manifest: Manifest, name: str, examples: Sequence[str]) -> RatingsByUser:
    names = [split_file(name, column) for column in ("offsets", "items", "ratings", "timestamps")]
    names += [example_file(name, feature) for feature in examples]
    offsets, (items, ratings, timestamps, *features) = _join(folder, manifest, [names] * len(manifest.shards))
    return RatingsByUser(offsets, items, ratings, timestamps, dict(zip(examples, features, strict=True)))


def _history(folder: str, manifest: Manifest, splits: tuple[str, ...]) -> Queries:
    columns = ("offsets", "items", "ratings")
    names_of_shards = []
    for number in range(len(manifest.shards)):
        names = [history_file(splits, column) for column in columns]
        if f"{shard_folder(number, len(manifest.shards))}/{names[0]}" not in manifest.files:
            names = [split_file(splits[0], column) for column in columns]
        names_of_shards.append(names)
    offsets, (items, ratings) = _join(folder, manifest, names_of_shards)
    return Queries(offsets, items, ratings, history_size=0)


def _join(
    folder: str, manifest: Manifest, names_of_shards: Sequence[Sequence[str]]
) -> tuple[np.ndarray, list[EntryArray]]:
    """Joins the arrays of all shards: offsets int64 [num_users + 1], and each other array [num_entries, *shape].

    `names_of_shards` has the file of the offsets and those of the other arrays, for each shard.
    """
    offsets_of_shards, parts_of_shards = [], []
    for number, (offsets_name, *names) in enumerate(names_of_shards):
        shard = storage.join(folder, shard_folder(number, len(names_of_shards)))
        offsets = _map(shard, offsets_name)
        parts = [_map(shard, name) for name in names]
        users = manifest.shards[number]
        sizes = [users.end - users.begin + 1, *[int(offsets[-1])] * len(parts)]
        for name, array, size in zip((offsets_name, *names), (offsets, *parts), sizes, strict=True):
            if len(array) != size:
                raise damaged(storage.join(shard, name), f"it has {len(array):,} entries instead of {size:,}")
        offsets_of_shards.append(offsets)
        parts_of_shards.append(parts)
    firsts = list(itertools.accumulate((int(offsets[-1]) for offsets in offsets_of_shards), initial=0))
    begins = [offsets[:-1] + first for offsets, first in zip(offsets_of_shards, firsts[:-1], strict=True)]
    return np.append(np.concatenate(begins), firsts[-1]), [join_parts(p) for p in zip(*parts_of_shards, strict=True)]


def _map(folder: str, name: str) -> np.ndarray:
    path = storage.join(folder, name)
    try:
        return np.asarray(np.load(path, mmap_mode="r"))
    except (OSError, ValueError) as error:
        raise damaged(path, storage.reason(error)) from error
