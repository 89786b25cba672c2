"""The second half of the way, by user: duplicates, splits and indices of all rows of some users."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainer import schema
from trainer.data.dataset import num_pairs_in
from trainer.data.features import last_rows
from trainer.data.lists import ListOrder, RatingsByUser, group_ratings
from trainer.data.loading import GIVEN
from trainer.data.prepared.beam.blocks import ROW, SOURCE, SPLIT, compact, join
from trainer.data.prepared.beam.job import Job
from trainer.data.prepared.beam.parts import Totals
from trainer.data.prepared.manifest import Shard
from trainer.data.prepared.writing import is_split_random
from trainer.data.ratings import feature_columns, items, merging
from trainer.data.splits import split_at, split_each_user
from trainer.data.vocabulary import NUM_RATINGS

USER, ITEM = "user", "item"
"""The columns of indices, int32."""


@dataclasses.dataclass(frozen=True)
class Merged:
    """The rows of a bucket without duplicates, in their order.

    Attributes:
      rows: schema.RATINGS_SCHEMA with dictionaries for ids, the columns of features, ROW and SOURCE.
      num_others: the number of rows of each source that are not the last ones of their pairs.
      dropped: int64 [num_dropped], the numbers of these rows. Left out if the split is not random.
    """

    rows: pa.Table
    num_others: list[int]
    dropped: np.ndarray


@dataclasses.dataclass(frozen=True)
class Users:
    """The users of a bucket, in the order of the dictionary of its rows.

    Attributes:
      bucket: the number of the bucket.
      user_ids: strings [num_users].
      num_ratings: int64 [num_users, 3], the number of ratings of each user in each of schema.SPLITS.
      features: the values of the features of users in the last training row of each user [num_users].
    """

    bucket: int
    user_ids: pa.Array
    num_ratings: np.ndarray
    features: pa.Table


def merge_bucket(job: Job, totals: Totals, blocks: Sequence[tuple[int, pa.Table]]) -> Merged:
    """Joins the blocks of a bucket, and keeps the last row of each pair of a user and an item within each source.

    Args:
      job: the preparation.
      totals: what is known of all files.
      blocks: the blocks with the numbers of their files, in any order.
    """
    splits = list(job.sources)
    rows = join(
        [_numbered(totals, part, block, splits) for part, block in sorted(blocks, key=lambda numbered: numbered[0])]
    )
    source_of_row = rows[SOURCE].to_numpy()
    merged = []
    for source in range(len(splits)):
        of_source = rows.filter(pa.array(source_of_row == source))
        merged.append(merging.keep_last(of_source, duplicates=job.arguments["duplicates"]))
    kept = pa.concat_tables(merged)
    num_rows = np.bincount(source_of_row, minlength=len(splits))
    num_others = [int(number) - table.num_rows for number, table in zip(num_rows, merged, strict=True)]
    dropped: np.ndarray = np.zeros(0, np.int64)
    if is_split_random(job.arguments):
        dropped = np.setdiff1d(rows[ROW].to_numpy(), kept[ROW].to_numpy(), assume_unique=True)
    return Merged(kept, num_others, dropped)


def _numbered(totals: Totals, part: int, rows: pa.Table, splits: Sequence[str]) -> pa.Table:
    """The rows of a block with their numbers among all rows, ids in one spelling and features of one type."""
    row = rows[ROW].to_numpy() + totals.first_row[part]
    rows = merging.replace_column(rows, ROW, pa.array(row))
    if not totals.has_timestamps:
        time = rows[schema.TIMESTAMP].to_numpy() + totals.first_time[part]
        rows = merging.replace_column(rows, schema.TIMESTAMP, pa.array(time))
    for name in totals.without_points:
        rows = merging.replace_column(rows, name, merging.without_points(rows[name]))
    for column in totals.features:
        if rows[column.name].type != column.type:
            values = feature_columns.as_text(rows[column.name].combine_chunks())
            rows = merging.replace_column(rows, column.name, values)
    source = splits.index(totals.parts[part].split)
    return rows.append_column(SOURCE, pa.array(np.full(rows.num_rows, source, np.int8)))


def name_by_title(rows: pa.Table, item_table: pa.Table) -> pa.Table:
    """Returns the rows of a bucket with the titles of items as their ids; the id where there is no title."""
    item_ids = rows[schema.ITEM_ID].cast(pa.string())
    titles = items.titles_of(item_ids, items.complete(item_table, rated=item_ids))
    return compact(merging.replace_column(rows, schema.ITEM_ID, titles))


def split_bucket(job: Job, rows: pa.Table, dropped: np.ndarray, cuts: Sequence[int | None]) -> pa.Table:
    """Appends SPLIT to the rows of a bucket.

    Args:
      job: the preparation.
      rows: the rows without duplicates, in their order.
      dropped: int64 [num_dropped], ascending: those of all buckets.
      cuts: the result of `times.find_cuts` if the split is by time.
    """
    arguments = job.arguments
    method = arguments["split_method"]
    fractions = {name: arguments[name] for name in ("validation_fraction", "test_fraction")}
    row = rows[ROW].to_numpy()
    row = row - np.searchsorted(dropped, row)  # Among the rows that are left, if the split is random.
    if method == "time":
        split = split_at(rows[schema.TIMESTAMP].to_numpy(), cuts)
    elif method == GIVEN:
        split_of_source = np.array([schema.SPLITS.index(name) for name in job.sources], np.int8)
        split = split_of_source[rows[SOURCE].to_numpy()]
        is_train = split == 0
        if "validation" not in job.sources and fractions["validation_fraction"] and is_train.any():
            split[is_train] = split_each_user(
                compact(rows.filter(pa.array(is_train))),
                row[is_train],
                method="random",
                seed=arguments["seed"],
                **{**fractions, "test_fraction": 0.0},
            )
    else:
        split = split_each_user(rows, row, method=method, seed=arguments["seed"], **fractions)
    return rows.append_column(SPLIT, pa.array(split))


def users_of_bucket(job: Job, bucket: int, rows: pa.Table) -> Users:
    """Counts the ratings of the users of a bucket in each split, and collects their features."""
    users = rows[schema.USER_ID].combine_chunks()
    codes, num_users = users.indices.to_numpy(), len(users.dictionary)
    split, num_splits = rows[SPLIT].to_numpy(), len(schema.SPLITS)
    counts = np.bincount(codes.astype(np.int64) * num_splits + split, minlength=num_splits * num_users)
    columns = [feature_columns.column_name(name) for name in job.arguments["features"]["query"]]
    features = rows.select(columns).take(last_rows(codes, np.flatnonzero(split == 0), num_users))
    return Users(bucket, users.dictionary, counts.reshape(-1, num_splits), features)


def items_of_bucket(job: Job, rows: pa.Table) -> pa.Table:
    """Counts the training rows of each item of a bucket, and collects the features of items that are in the rows.

    Returns:
      A table of the ids as strings, NUM_RATINGS, the features in the last training row of each item, and its ROW.
    """
    in_training = rows.filter(pc.equal(rows[SPLIT], 0))
    columns = [feature_columns.column_name(name) for name in job.arguments["features"]["item"]]
    in_rows = [column for column in columns if column in rows.column_names]
    counted = in_training.select([schema.ITEM_ID, *in_rows, ROW])
    ids = counted[schema.ITEM_ID].cast(pa.string())
    counted = merging.replace_column(counted, schema.ITEM_ID, ids)
    return join_item_counts([counted.append_column(NUM_RATINGS, pa.array(np.ones(counted.num_rows, np.int64)))])


def join_item_counts(tables: Sequence[pa.Table]) -> pa.Table:
    """Joins results of `items_of_bucket`, in any order, to one with a row per item."""
    filled = [table for table in tables if table.num_rows]
    if not filled:
        return pa.schema([(schema.ITEM_ID, pa.string()), (NUM_RATINGS, pa.int64())]).empty_table()
    joined = join(filled).sort_by(ROW)
    codes = joined[schema.ITEM_ID].combine_chunks().dictionary_encode()
    of_row = codes.indices.to_numpy()
    counts: np.ndarray = np.zeros(len(codes.dictionary), np.int64)
    np.add.at(counts, of_row, joined[NUM_RATINGS].to_numpy())
    last = joined.take(last_rows(of_row, np.arange(joined.num_rows), len(counts)))
    return merging.replace_column(last, NUM_RATINGS, pa.array(counts))


def index_bucket(rows: pa.Table, user_indices: np.ndarray, item_ids: pa.Array) -> pa.Table:
    """Replaces ids by indices, and drops the rows of users without training ratings.

    Args:
      rows: the rows of a bucket, with SPLIT.
      user_indices: int32 [num_users], the index of each user of the dictionary; UNKNOWN_INDEX without training ratings.
      item_ids: the ids of the vocabulary, strings [num_items].

    Returns:
      A table of USER, ITEM, the rating, the time and SPLIT, in the same order.
    """
    users, item_codes = (rows[name].combine_chunks() for name in (schema.USER_ID, schema.ITEM_ID))
    index_of_item = pc.index_in(item_codes.dictionary, value_set=item_ids).fill_null(schema.UNKNOWN_INDEX).to_numpy()
    user = user_indices[users.indices.to_numpy()]
    indexed = pa.table(
        {
            USER: user,
            ITEM: index_of_item[item_codes.indices.to_numpy()],
            **{name: rows[name] for name in (schema.RATING, schema.TIMESTAMP, SPLIT)},
        }
    )
    return indexed.filter(pa.array(user != schema.UNKNOWN_INDEX))


def num_test_pairs_in_train(rows: pa.Table, num_items: int) -> int:
    """The number of test rows of known items whose user has rated the item in another split too.

    Args:
      rows: the result of `index_bucket`.
      num_items: the number of items, including the unknown item.
    """
    pairs = rows[USER].to_numpy().astype(np.int64) * num_items + rows[ITEM].to_numpy()
    is_test = rows[SPLIT].to_numpy() == schema.SPLITS.index("test")
    test = pairs[is_test & (rows[ITEM].to_numpy() != schema.UNKNOWN_INDEX)]
    return num_pairs_in(test, pairs[~is_test])


def divide_by_shard(rows: pa.Table, shards: Sequence[Shard]) -> Iterator[tuple[int, pa.Table]]:
    """Yields the number of each shard that has some of the rows, and these rows in their order."""
    begins = [shard.begin for shard in shards]
    shard_of_row = np.searchsorted(begins, rows[USER].to_numpy(), side="right") - 1
    for shard in np.unique(shard_of_row):
        yield int(shard), rows.filter(pa.array(shard_of_row == shard))


def ratings_of_shard(
    blocks: Sequence[pa.Table], users: Shard, *, splits: Sequence[str], list_order: ListOrder
) -> dict[str, RatingsByUser]:
    """Joins the rows of a shard: the ratings of each split.

    Args:
      blocks: the rows of the shard from each bucket, in any order. All rows of a user are in one of them, in their
        order.
      users: the users of the shard.
      splits: the splits that the data set has.
      list_order: as in `load_source`.
    """
    rows = pa.concat_tables(blocks)
    grouped = {}
    for name in splits:
        of_split = rows.filter(pc.equal(rows[SPLIT], schema.SPLITS.index(name)))
        user, item, rating, time = (
            of_split[column].to_numpy() for column in (USER, ITEM, schema.RATING, schema.TIMESTAMP)
        )
        num_users = users.end - users.begin
        grouped[name] = group_ratings(
            user - users.begin, item, rating, time, num_users=num_users, list_order=list_order
        )
    return grouped
