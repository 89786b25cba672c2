"""What depends on all users and items: the vocabulary, the plan of the shards, and at last the manifest."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainer import schema, storage
from trainer.data.dataset import count_ratings
from trainer.data.features import encode_each
from trainer.data.loading import GIVEN, check_known
from trainer.data.prepared.beam.blocks import join
from trainer.data.prepared.beam.buckets import Users, ratings_of_shard
from trainer.data.prepared.beam.job import Job
from trainer.data.prepared.beam.parts import Totals
from trainer.data.prepared.layout import FEATURES, VOCABULARY, shard_folder
from trainer.data.prepared.manifest import Manifest, Shard, write_manifest
from trainer.data.prepared.opening import map_dataset
from trainer.data.prepared.staging import copy_files
from trainer.data.prepared.writing import (
    RATING_BYTES,
    all_digests,
    facts_of_files,
    fields_of,
    plan_shards,
    write_descriptions,
    write_shard,
)
from trainer.data.ratings import items
from trainer.data.ratings.feature_columns import column_name, of_items
from trainer.data.ratings.merging import with_others
from trainer.data.splits import check_not_empty
from trainer.data.vocabulary import NUM_RATINGS, Vocabulary, vocabulary_of


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the workers need to know to write the shards.

    Attributes:
      manifest: the description of the data set, without digests and with the files that are written already.
      num_items: the number of items, including the unknown item.
    """

    manifest: Manifest
    num_items: int

    @property
    def shards(self) -> list[Shard]:
        """The shards, in the order of their users."""
        return self.manifest.shards


@dataclasses.dataclass(frozen=True)
class Indices:
    """The result of `make_plan`.

    Attributes:
      plan: the plan of the shards.
      users: bucket → int32 [num_users of the bucket], the index of each user; UNKNOWN_INDEX without training ratings.
      item_ids: the ids of the vocabulary, strings [num_items].
    """

    plan: Plan
    users: dict[int, np.ndarray]
    item_ids: pa.Array


def make_plan(
    job: Job,
    totals: Totals,
    *,
    num_others: Sequence[int],
    buckets: Sequence[Users],
    item_counts: pa.Table,
    item_table: pa.Table,
) -> Indices:
    """Builds and writes the vocabulary, and plans the shards.

    Args:
      job: the preparation.
      totals: what is known of all files.
      num_others: the number of rows of each source that are not the last ones of their pairs.
      buckets: the users of all buckets, in any order.
      item_counts: the result of `buckets.join_item_counts` for all buckets.
      item_table: the result of `parts.join_items`.

    Raises:
      DataError: a split has no ratings, or none of a known user.
      StorageError: the vocabulary cannot be written.
    """
    all_of, known_of = _count_splits(job, buckets)
    vocabulary = _write_vocabulary(job, buckets, item_counts, item_table)
    indices = {users.bucket: vocabulary.user_indices(users.user_ids) for users in buckets}
    of_users: np.ndarray = np.zeros((vocabulary.num_users, len(schema.SPLITS)), np.int64)
    for users in buckets:
        is_known = indices[users.bucket] != schema.UNKNOWN_INDEX
        of_users[indices[users.bucket][is_known]] = users.num_ratings[is_known]
    splits = [name for name in schema.SPLITS if known_of[name]]
    duplicates = job.arguments["duplicates"]
    counts = count_ratings(
        vocabulary,
        {name: known_of[name] for name in splits},
        sources=job.sources,
        reports=[
            with_others(report, number, duplicates=duplicates)
            for report, number in zip(totals.reports, num_others, strict=True)
        ],
        columns=totals.columns,
        has_ratings=totals.has_ratings,
        duplicates=duplicates,
        num_unknown={name: all_of[name] - known_of[name] for name in splits},
        num_test_pairs_in_train=0,
    )
    num_ratings = {name: of_users[:, schema.SPLITS.index(name)] for name in splits}
    manifest = Manifest(
        fields=fields_of(job.arguments),
        counts=counts,
        digests={},
        has_ratings=totals.has_ratings,
        has_timestamps=totals.has_timestamps,
        shards=plan_shards(num_ratings, RATING_BYTES, job.shard_bytes),
        files=facts_of_files(job.folder, VOCABULARY, FEATURES),
    )
    item_ids = vocabulary.items[schema.ITEM_ID].combine_chunks()
    return Indices(Plan(manifest, vocabulary.num_items), indices, item_ids)


def _count_splits(job: Job, buckets: Sequence[Users]) -> tuple[dict[str, int], dict[str, int]]:
    """The number of ratings of each split, and that of users with training ratings. Raises DataError if one is 0."""
    arguments = job.arguments
    num_ratings = sum(users.num_ratings.sum(axis=0) for users in buckets).tolist()
    num_known = sum(users.num_ratings[_is_known(users)].sum(axis=0) for users in buckets).tolist()
    method, validation_fraction = arguments["split_method"], arguments["validation_fraction"]
    if method == GIVEN and "validation" in job.sources:
        validation_fraction = 0.0
    check_not_empty(
        num_ratings,
        method=method,
        validation_fraction=validation_fraction,
        test_fraction=0.0 if method == GIVEN else arguments["test_fraction"],
    )
    all_of, known_of = (dict(zip(schema.SPLITS, numbers, strict=True)) for numbers in (num_ratings, num_known))
    check_known(all_of, known_of, split_method=method)
    return all_of, known_of


def _is_known(users: Users) -> np.ndarray:
    """Which users have training ratings, bool [num_users]."""
    return users.num_ratings[:, schema.SPLITS.index("train")] > 0


def _write_vocabulary(job: Job, buckets: Sequence[Users], item_counts: pa.Table, item_table: pa.Table) -> Vocabulary:
    """Builds the vocabulary with its features, and writes both."""
    if job.arguments["item_identity"] == schema.TITLE:
        item_table = items.by_title(item_table)
    item_table = items.complete(item_table, rated=item_counts[schema.ITEM_ID])
    user_ids = pa.chunked_array([users.user_ids.filter(pa.array(_is_known(users))) for users in buckets])
    vocabulary = vocabulary_of(user_ids, item_counts.select([schema.ITEM_ID, NUM_RATINGS]), item_table)
    query_encoders, query = encode_each("query", _values_of_users(job, vocabulary, buckets))
    item_encoders, item = encode_each("item", _values_of_items(job, vocabulary, item_counts, item_table))
    vocabulary = dataclasses.replace(vocabulary, features=(*query_encoders, *item_encoders))
    write_descriptions(job.folder, vocabulary, {"query": query, "item": item})
    return vocabulary


def _values_of_users(job: Job, vocabulary: Vocabulary, buckets: Sequence[Users]) -> dict[str, pa.ChunkedArray]:
    """The values of each feature of users, in the order of the vocabulary."""
    user_ids = pa.chunked_array([users.user_ids for users in buckets])
    row_of_user = pc.index_in(vocabulary.users[schema.USER_ID].combine_chunks(), value_set=user_ids.combine_chunks())
    values = join([users.features for users in buckets]).take(row_of_user)
    return {name: values[column_name(name)] for name in job.arguments["features"]["query"]}


def _values_of_items(
    job: Job, vocabulary: Vocabulary, item_counts: pa.Table, item_table: pa.Table
) -> dict[str, pa.ChunkedArray]:
    """The values of each feature of items, in the order of the vocabulary."""
    item_ids = vocabulary.items[schema.ITEM_ID].combine_chunks()
    values = {}
    for name in job.arguments["features"]["item"]:
        column = column_name(name)
        table = item_counts if column in item_counts.column_names else of_items(item_table, [name])
        row_of_item = pc.index_in(item_ids, value_set=table[schema.ITEM_ID].combine_chunks())
        values[name] = table[column].take(row_of_item)
    return values


def write_rows(job: Job, plan: Plan, number: int, blocks: Sequence[pa.Table]) -> dict[str, dict[str, Any]]:
    """Writes a shard from its rows of all buckets.

    Returns:
      The size and the digest of each file, by its path in the data set.

    Raises:
      StorageError: a file cannot be written.
    """
    splits = ratings_of_shard(
        blocks,
        plan.shards[number],
        splits=list(plan.manifest.counts["num_ratings"]),
        list_order=job.arguments["list_order"],
    )
    name = shard_folder(number, len(plan.shards))
    write_shard(storage.join(job.folder, name), splits)
    return facts_of_files(job.folder, name)


def finish(
    job: Job, plan: Plan, *, files: Sequence[Mapping[str, dict[str, Any]]], num_test_pairs_in_train: int
) -> Manifest:
    """Writes the manifest once all shards are written.

    Args:
      job: the preparation.
      plan: the result of `make_plan`.
      files: the results of `write_rows`, in any order.
      num_test_pairs_in_train: see `buckets.num_test_pairs_in_train`.

    Raises:
      StorageError: a file cannot be read, or the manifest cannot be written.
    """
    all_files = dict(plan.manifest.files)
    for facts in files:
        all_files |= facts
    counts = plan.manifest.counts
    if "num_test_pairs_in_train" in counts:
        counts = {**counts, "num_test_pairs_in_train": num_test_pairs_in_train}
    manifest = dataclasses.replace(
        plan.manifest,
        counts=counts,
        # In the order of `storage.list_files`.
        files={name: all_files[name] for name in sorted(all_files, key=lambda name: name.split("/"))},
    )
    with _on_this_machine(job.folder, manifest) as folder:
        sizes = {name: job.arguments[name] for name in ("list_size", "history_size")}
        digests = all_digests(map_dataset(folder, manifest, **sizes))
    manifest = dataclasses.replace(manifest, digests=digests)
    write_manifest(job.folder, manifest)
    return manifest


@contextlib.contextmanager
def _on_this_machine(folder: str, manifest: Manifest) -> Iterator[str]:
    """Gives a local folder with the files of a data set: itself, or a copy that is removed afterwards."""
    if "://" not in folder:
        yield folder
        return
    with tempfile.TemporaryDirectory() as local:
        copy_files(folder, manifest, local)
        yield local
