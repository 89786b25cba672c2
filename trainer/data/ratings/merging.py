"""Merges the usable rows of all sources: one spelling for each id, and one row for each pair of a user and an item."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainer import schema
from trainer.data.ratings import feature_columns, items
from trainer.data.ratings.accounts import COUNTED, DUPLICATE, USED
from trainer.data.ratings.cleaning import Cleaned

WHOLE_FLOAT = r"^(-?\d+)\.0$"

POINTS_ARE_NO_PART = {True}
"""The result of `kinds_of_points` for ids that lose a final ".0"."""

ROWS_PER_CHUNK = 1 << 22
"""An Arrow string array has at most 2 GiB, so the ids are stored in several arrays."""

Duplicates = Literal["once", "count"]


@dataclasses.dataclass(frozen=True)
class Merged:
    """The rows of all sources, one source after the other.

    Attributes:
      ratings: schema.RATINGS_SCHEMA, followed by the columns of the features.
      source_of_row: int8 [num_ratings], the number of the source of each row.
      items: schema.ITEMS_SCHEMA, from the columns of the ratings.
      reports: the number of rows of each kind, for each source.
    """

    ratings: pa.Table
    source_of_row: np.ndarray
    items: pa.Table
    reports: list[dict[str, int]]


def merge(sources: Sequence[Cleaned], *, duplicates: Duplicates) -> Merged:
    """Keeps the last row of each pair of a user and an item within each source: by time, then by row.

    Args:
      sources: the usable rows of each source.
      duplicates: what becomes of the other rows of a pair. "once" drops them. "count" sets the rating of the row that
        is kept to the number of rows of the pair.

    Raises:
      DataError: the sources do not have the same features.
    """
    tables = feature_columns.with_one_type([table for source in sources for table in source.ratings])
    all_rows, all_items = _unify_ids(tables, pa.concat_tables([source.items for source in sources]))
    num_rows = [sum(table.num_rows for table in source.ratings) for source in sources]

    kept, reports, start = [], [], 0
    for source, length in zip(sources, num_rows, strict=True):
        rows = all_rows.slice(start, length)
        start += length
        kept.append(keep_last(rows, duplicates=duplicates))
        reports.append(with_others(source.account.report, length - kept[-1].num_rows, duplicates=duplicates))
    table = pa.concat_tables(kept)
    source_of_row = np.repeat(np.arange(len(kept), dtype=np.int8), [part.num_rows for part in kept])
    table = pa.Table.from_batches(table.to_batches(max_chunksize=ROWS_PER_CHUNK), table.schema)
    feature_fields = [table.schema.field(name) for name in table.column_names[len(schema.RATINGS_SCHEMA) :]]
    return Merged(
        table.cast(pa.schema([*schema.RATINGS_SCHEMA, *feature_fields])),
        source_of_row,
        items.build(*(all_items[name].to_pylist() for name in schema.ITEMS_SCHEMA.names)),
        reports,
    )


def keep_last(rows: pa.Table, *, duplicates: Duplicates) -> pa.Table:
    """Keeps the last row of each pair of a user and an item: by time, then by row. The result is in row order.

    Args:
      rows: usable rows, with dictionaries for ids.
      duplicates: as in `merge`.
    """
    is_kept, counts = _last_of_each_pair(rows)
    if duplicates == "count":
        rows = replace_column(rows, schema.RATING, pa.array(counts.astype(np.float32)))
    return rows if is_kept.all() else rows.filter(pa.array(is_kept))


def with_others(report: Mapping[str, int], num_others: int, *, duplicates: Duplicates) -> dict[str, int]:
    """Returns a report [see `ratings.Ratings`] in which `num_others` rows are not the last ones of their pairs."""
    kind = COUNTED if duplicates == "count" else DUPLICATE
    return {**report, USED: report[USED] - num_others, kind: num_others}


def kinds_of_points(ids: pa.Array) -> set[bool]:
    """Returns for the ids that contain a point whether they are whole floats, such as 42.0: both if some are."""
    has_point = ids.filter(pc.match_substring(ids, "."))
    return set(pc.match_substring_regex(has_point, WHOLE_FLOAT).unique().to_pylist())


def _unify_ids(ratings: list[pa.Table], all_items: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Joins the ratings of all parts and writes equal ids in one way.

    An integer column with a missing value is often stored as floats, so 42 in one file can be 42.0 in another. Ids
    lose a final ".0" if every id that contains a point is such a whole number. Otherwise the point is part of the ids,
    as in 1.0 and 1.5, and all ids are kept.
    """
    for name in (schema.USER_ID, schema.ITEM_ID):
        columns = [table[name].combine_chunks() for table in ratings]
        if set().union(*(kinds_of_points(column.dictionary) for column in columns)) != POINTS_ARE_NO_PART:
            continue
        ratings = [replace_column(table, name, without_points(table[name])) for table in ratings]
        if name == schema.ITEM_ID:
            all_items = replace_column(all_items, name, without_points(all_items[name]))
    return pa.concat_tables(ratings).unify_dictionaries().combine_chunks(), all_items


def without_points(ids: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    """Returns ids, strings or dictionaries of them, without the final ".0" of those that are whole floats."""
    if not pa.types.is_dictionary(ids.type):
        return pc.replace_substring_regex(ids, WHOLE_FLOAT, r"\1")
    # Encoded again, because 42 and 42.0 may both be in the dictionary.
    codes = ids.combine_chunks()
    values = without_points(codes.dictionary).dictionary_encode()
    return pa.DictionaryArray.from_arrays(values.indices.take(codes.indices), values.dictionary)


def replace_column(table: pa.Table, name: str, values: pa.ChunkedArray | pa.Array) -> pa.Table:
    """Returns the table with other values in one of its columns."""
    return table.set_column(table.schema.get_field_index(name), name, values)


def _last_of_each_pair(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Selects the last row of each pair of a user and an item: by time, then by row.

    Returns:
      bool [num_rows], true for the rows to keep, and int64 [num_rows], the number of rows of each row's pair.
    """
    user, item = (table[name].combine_chunks() for name in (schema.USER_ID, schema.ITEM_ID))
    pair = user.indices.to_numpy().astype(np.int64) * len(item.dictionary) + item.indices.to_numpy()
    kept: np.ndarray = np.ones(len(pair), bool)
    counts: np.ndarray = np.ones(len(pair), np.int64)
    in_order = np.sort(pair)
    repeated = in_order[1:][in_order[1:] == in_order[:-1]]
    if not len(repeated):
        return kept, counts
    # The last element is left out, so that the position of a pair greater than all is still valid.
    rows = np.flatnonzero(repeated[np.searchsorted(repeated[:-1], pair)] == pair)
    rows = rows[np.lexsort((rows, table[schema.TIMESTAMP].to_numpy()[rows], pair[rows]))]
    kept[rows[:-1][pair[rows[:-1]] == pair[rows[1:]]]] = False
    counts[rows] = np.searchsorted(in_order, pair[rows], "right") - np.searchsorted(in_order, pair[rows], "left")
    return kept, counts
