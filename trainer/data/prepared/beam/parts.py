"""The first half of the way, by file: rows are read, cleaned and divided into blocks, one for each bucket of users."""

import dataclasses
import re
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from trainer import schema
from trainer.data.loading import check_ratings_differ
from trainer.data.prepared.beam.blocks import ID_COLUMNS, ROW, compact
from trainer.data.prepared.beam.job import Job
from trainer.data.ratings import accounts as accounts_lib
from trainer.data.ratings import check_sources, cleaning, feature_columns, items, merging
from trainer.data.ratings.columns import ColumnsOfTable


@dataclasses.dataclass(frozen=True)
class PartName:
    """One file: its number among all files, its source, and its number in this source."""

    number: int
    split: str
    index: int


@dataclasses.dataclass(frozen=True)
class PartAccount:
    """What is known of one file.

    Attributes:
      part: which file.
      account: what became of its rows.
      kinds_of_points: the result of `merging.kinds_of_points` for the users and for the items.
      features: the columns of the features in its rows, with their types.
    """

    part: PartName
    account: accounts_lib.Account
    kinds_of_points: dict[str, set[bool]]
    features: pa.Schema


@dataclasses.dataclass(frozen=True)
class ItemTable:
    """A table of items, schema.ITEMS_SCHEMA: that of a source, or that of the rows of a file.

    Attributes:
      is_of_rows: whether it is of rows. Then there may be no titles.
      part: the number of the file, or of the first file of the source.
      items: the table.
    """

    is_of_rows: bool
    part: int
    items: pa.Table


@dataclasses.dataclass(frozen=True)
class ReadPart:
    """The content of one file.

    Attributes:
      account: what is known of it.
      blocks: its usable rows by bucket, with the column ROW: the number of the row among the usable rows of the file.
        Without times, the time is the number of the row among those that were read.
      items: what the file and its source say of items, if they do.
    """

    account: PartAccount
    blocks: dict[int, pa.Table]
    items: list[ItemTable]


@dataclasses.dataclass(frozen=True)
class Totals:
    """What is known once all files are read.

    Attributes:
      parts: the files, in their order.
      first_row: the number of usable rows before each file.
      first_time: the number of rows that were read before each file.
      without_points: the columns of ids that lose a final ".0".
      features: the columns of the features in the rows, with the types that they have in all files.
      has_ratings, has_timestamps: as in `Dataset`.
      reports: the number of rows of each kind of each source, before duplicates are looked for.
      columns: what became of the columns of each source; None for one that is no table.
    """

    parts: list[PartName]
    first_row: list[int]
    first_time: list[int]
    without_points: tuple[str, ...]
    features: pa.Schema
    has_ratings: bool
    has_timestamps: bool
    reports: list[dict[str, int]]
    columns: list[ColumnsOfTable | None]


def list_parts(job: Job) -> list[PartName]:
    """Returns all files, in the order of sources and names.

    Raises:
      ConfigError, DataError, StorageError: a source cannot be used; see `ratings.open_source`.
    """
    names = [(split, index) for split in job.sources for index in range(len(job.open_source(split).parts))]
    return [PartName(number, *name) for number, name in enumerate(names)]


def read_part(job: Job, part: PartName) -> ReadPart:
    """Reads and cleans one file.

    Raises:
      DataError, StorageError: the file cannot be used.
    """
    source = job.open_source(part.split)
    rows = source.parts[part.index]()
    cleaned = cleaning.clean_part(rows, rating_range=job.arguments["rating_range"])
    kinds = {name: _kinds_of_points(cleaned.ratings[name]) for name in ID_COLUMNS}
    features = pa.schema(
        [column for column in cleaned.ratings.schema if column.name.startswith(feature_columns.PREFIX)]
    )
    items_of_rows = []
    if any(name in rows.rows.column_names for name in (schema.TITLE, schema.GENRES)):
        items_of_rows.append(ItemTable(True, part.number, cleaned.items))
    items_of_source = []
    if source.items is not None and part.index == 0:
        items_of_source.append(ItemTable(False, part.number, source.items))
    blocks = dict(_blocks(cleaned.ratings, job.num_buckets))
    account = PartAccount(part, cleaned.account, kinds, features)
    return ReadPart(account, blocks, [*items_of_source, *items_of_rows])


def _kinds_of_points(ids: pa.ChunkedArray) -> set[bool]:
    return merging.kinds_of_points(ids.combine_chunks().dictionary)


def bucket_of(user_id: str, num_buckets: int) -> int:
    """Returns the bucket of a user. It is the same for both spellings of a whole number."""
    return zlib.crc32(re.sub(merging.WHOLE_FLOAT, r"\1", user_id).encode()) % num_buckets


def _blocks(ratings: pa.Table, num_buckets: int) -> Iterator[tuple[int, pa.Table]]:
    if not ratings.num_rows:
        return
    ratings = ratings.append_column(ROW, pa.array(np.arange(ratings.num_rows)))
    users = ratings[schema.USER_ID].combine_chunks()
    buckets = np.array([bucket_of(user_id or "", num_buckets) for user_id in users.dictionary.to_pylist()])
    bucket_of_row = buckets[users.indices.to_numpy()]
    order = np.argsort(bucket_of_row, kind="stable")
    ratings, bucket_of_row = ratings.take(pa.array(order)), bucket_of_row[order]
    begins = np.flatnonzero(np.append(True, bucket_of_row[1:] != bucket_of_row[:-1]))
    for begin, end in zip(begins, [*begins[1:], len(order)], strict=True):
        yield int(bucket_of_row[begin]), compact(ratings.slice(begin, end - begin))


def join_parts(job: Job, accounts: Sequence[PartAccount]) -> Totals:
    """Adds up the accounts of all files, in any order.

    Raises:
      ConfigError: ratings would be counted as events.
      DataError: too many rows of a source are bad, its files or the sources do not have the same columns, a feature has
        lists in one file and single values in another, or all ratings are equal.
    """
    accounts = sorted(accounts, key=lambda account: account.part.number)
    of_sources = [
        accounts_lib.join_accounts(
            [account.account for account in accounts if account.part.split == split],
            source=source,
            rating_range=job.arguments["rating_range"],
            max_bad_fraction=job.arguments["max_bad_fraction"],
        )
        for split, source in job.sources.items()
    ]
    has_ratings, has_timestamps = check_sources(
        list(job.sources.values()), of_sources, duplicates=job.arguments["duplicates"]
    )
    check_ratings_differ(job.sources["train"], of_sources[0])
    return Totals(
        parts=[account.part for account in accounts],
        first_row=_before([account.account.report[accounts_lib.USED] for account in accounts]),
        first_time=_before([account.account.report[accounts_lib.READ] for account in accounts]),
        without_points=tuple(
            name
            for name in ID_COLUMNS
            if set().union(*(account.kinds_of_points[name] for account in accounts)) == merging.POINTS_ARE_NO_PART
        ),
        features=feature_columns.with_one_type([account.features.empty_table() for account in accounts])[0].schema,
        has_ratings=has_ratings,
        has_timestamps=has_timestamps,
        reports=[account.report for account in of_sources],
        columns=[account.columns for account in of_sources],
    )


def join_items(job: Job, totals: Totals, tables: Sequence[ItemTable]) -> pa.Table:
    """Joins tables of items, in any order, to one with a row per item. Rated items may be missing in it."""
    tables = sorted(tables, key=lambda table: table.part)
    joined = [table.items for table in tables if not table.is_of_rows]
    if len(joined) < len(job.sources):
        of_rows = pa.concat_tables([schema.ITEMS_SCHEMA.empty_table(), *(t.items for t in tables if t.is_of_rows)])
        if schema.ITEM_ID in totals.without_points:
            ids = merging.without_points(of_rows[schema.ITEM_ID])
            of_rows = merging.replace_column(of_rows, schema.ITEM_ID, ids)
        joined.append(items.build(*(of_rows[name].to_pylist() for name in schema.ITEMS_SCHEMA.names)))
    return items.first_of_each(joined)


def _before(numbers: Sequence[int]) -> list[int]:
    """The sum of the numbers before each."""
    return (np.cumsum(numbers) - numbers).tolist()
