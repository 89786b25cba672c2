"""A file of users and items that another system has chosen, and its rows with their scores and ranks.

A row is a pair of a user and an item, or a user with a list of items. This module does not import TensorFlow.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from settings.errors import ConfigError, DataError, StorageError
from trainer import schema
from trainer.data.ratings import delimited, files, tables
from trainer.data.ratings.cleaning import ids_as_text
from trainer.data.ratings.columns import AUTO, recognize

RANK, SCORE, KNOWN = "rank", "score", "known"
"""The columns that are added: int32 from 1, float32, bool."""

_ADDED = [pa.field(RANK, pa.int32()), pa.field(SCORE, pa.float32()), pa.field(KNOWN, pa.bool_())]

_PAIRS_PER_CHUNK, _LISTS_PER_CHUNK = 1 << 17, 1 << 10


@dataclass(frozen=True, eq=False)
class PairChunk:
    """Some rows of the file, as pairs.

    Attributes:
      rows: the columns of the file. Of a row with a list, each item is a row, and the other columns are repeated.
      user_ids, item_ids: strings [num_pairs], with null for a missing id.
      list_numbers: int64 [num_pairs], the number in the file of the row that a pair comes from; None without lists.
      num_rows: the number of rows of the file.
    """

    rows: pa.Table
    user_ids: pa.Array
    item_ids: pa.Array
    list_numbers: np.ndarray | None
    num_rows: int


@dataclass(frozen=True, eq=False)
class PairScores:
    """What is added to the pairs of a file, in its order.

    Attributes:
      scores: float32 [num_pairs]. NaN for an unknown item.
      ranks: int32 [num_pairs], from 1: among the rows of the same user, or among the items of the same list.
      known: bool [num_pairs]: whether the model knows the user and the item. If it only knows the item, the score is
        the popularity of the item.
      num_rows: the number of rows of the file.
      num_groups: the number of users, or of lists that have an item.
    """

    scores: np.ndarray
    ranks: np.ndarray
    known: np.ndarray
    num_rows: int
    num_groups: int


@dataclass(frozen=True)
class Pairs:
    """A file of pairs that can be read any number of times, some rows at a time.

    Attributes:
      source: the path, local or gs://.
      user_column, item_column: the names of its columns.
      has_lists: whether each row has a list of items.
      num_rows: the number of rows; None where only reading the file tells.
      schema: the columns of the result: those of the file and `rank`, `score`, `known`.
    """

    source: str
    user_column: str
    item_column: str
    has_lists: bool
    num_rows: int | None
    schema: pa.Schema

    def chunks(self) -> Iterator[PairChunk]:
        """Reads the file, some rows at a time.

        Raises:
          DataError: the content of the file is damaged.
          StorageError: the file cannot be read.
        """
        first = 0
        size = _LISTS_PER_CHUNK if self.has_lists else _PAIRS_PER_CHUNK
        for rows in _read(self.source, size):
            list_numbers = None
            num_rows = rows.num_rows
            if self.has_lists:
                lists = rows[self.item_column].combine_chunks()
                parents = pc.list_parent_indices(lists)
                position = rows.schema.get_field_index(self.item_column)
                items = pc.list_flatten(lists)
                items = items.dictionary_decode() if pa.types.is_dictionary(items.type) else items
                rows = rows.take(parents).set_column(position, pa.field(self.item_column, items.type), items)
                list_numbers = first + parents.to_numpy().astype(np.int64)
            user_ids, item_ids = (self._ids(rows, name) for name in (self.user_column, self.item_column))
            yield PairChunk(rows, user_ids, item_ids, list_numbers, num_rows)
            first += num_rows

    def with_scores(self, found: PairScores) -> Iterator[pa.Table]:
        """Reads the file again, and adds the scores and ranks.

        Yields:
          Tables of `schema`, in the order of the file.

        Raises:
          StorageError: the file has changed since it was scored.
        """
        begin = 0
        for chunk in self.chunks():
            part = slice(begin, begin + chunk.rows.num_rows)
            begin = part.stop
            if begin > len(found.scores):
                break
            scores = found.scores[part]
            added = [
                pa.array(found.ranks[part]),
                pa.array(scores, mask=np.isnan(scores)),
                pa.array(found.known[part]),
            ]
            yield pa.table([*chunk.rows.columns, *added], schema=self.schema)
        if begin != len(found.scores):
            raise StorageError(
                f"--pairs={self.source} has changed while it was scored: it had {len(found.scores):,} pairs. Start the "
                "same command again when the file is complete."
            )

    def _ids(self, rows: pa.Table, name: str) -> pa.Array:
        try:
            return ids_as_text(rows[name]).cast(pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(
                f"--pairs={self.source} has ids of the type {rows.schema.field(name).type} in the column {name!r}. Ids "
                "must be text or numbers. Convert the column."
            ) from error


def open_pairs(source: str, *, columns: Mapping[str, str]) -> Pairs:
    """Opens a file of pairs and checks its columns.

    Args:
      source: a Parquet, CSV or TSV file, local or gs://.
      columns: the names of the columns `user_id` and `item_id` in the training data. Without a column of that name,
        the column is recognized by its name; see `columns.recognize`.

    Raises:
      ConfigError: there is no such file, or it has another format.
      DataError: a column is missing, or has the name of a column of the result, or the file is damaged.
      StorageError: the file cannot be read.
    """
    if not source.endswith((*tables.DELIMITERS, tables.PARQUET)):
        formats = ", ".join((tables.PARQUET, *tables.DELIMITERS))
        raise ConfigError(
            f"--pairs={source} cannot be used: pairs are read from files that end in {formats}. Convert the file, or "
            "rename it if it has one of these formats."
        )
    if not files.exists(source):
        raise ConfigError(f"--pairs={source} cannot be used: there is no such file. Correct the path.")
    with files.reading(source), files.open_file(source) as file:
        if source.endswith(tables.PARQUET):
            parquet = pq.ParquetFile(file)
            found, num_rows = parquet.schema_arrow, parquet.metadata.num_rows
        else:
            found, num_rows = _text_schema(source, file), None
    # A column that the training data has and this file has not may be here under another usual name.
    wanted = {name: columns[name] if columns[name] in found.names else AUTO for name in _IDS}
    chosen = recognize(f"--pairs={source}", wanted, found=found.names, way_out="Rename the columns of the file.")
    user_column, item_column = (chosen[name] for name in _IDS)
    for added in _ADDED:
        if added.name in found.names:
            raise DataError(
                f"--pairs={source} has a column {added.name!r}, and the result gets one of this name. Rename the "
                f"column of the file, for instance to 'previous_{added.name}'."
            )
    fields = [_flat(field, field.name == item_column) for field in found]
    return Pairs(
        source,
        user_column,
        item_column,
        has_lists=_is_list(found.field(item_column).type),
        num_rows=num_rows,
        schema=pa.schema([*fields, *_ADDED]),
    )


_IDS = (schema.USER_ID, schema.ITEM_ID)


def rank_within_groups(groups: np.ndarray, scores: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Ranks the entries of each group by descending score. Equal scores are ordered by item index, then by position.

    Args:
      groups: int [n], the group of each entry, in any order.
      scores: float [n]. NaN comes last.
      items: int [n].

    Returns:
      int32 [n], from 1.
    """
    order = np.lexsort((items, -scores, groups))
    in_order = groups[order]
    is_first: np.ndarray = np.append(True, in_order[1:] != in_order[:-1])[: len(groups)]
    begins = np.maximum.accumulate(np.where(is_first, np.arange(len(groups)), 0))
    ranks: np.ndarray = np.zeros(len(groups), np.int32)
    ranks[order] = 1 + np.arange(len(groups)) - begins
    return ranks


def _read(source: str, rows_per_chunk: int) -> Iterator[pa.Table]:
    """The rows of the file. Dictionaries are decoded, and the values of a text file are text."""
    with files.reading(source), files.open_file(source) as file:
        if source.endswith(tables.PARQUET):
            batches = pq.ParquetFile(file, page_checksum_verification=True).iter_batches(batch_size=rows_per_chunk)
        else:
            batches = _open_text(source, file, _text_schema(source, file))
        for batch in batches:
            table = pa.Table.from_batches([batch])
            yield table.cast(pa.schema([_decoded(field) for field in table.schema]))


def _open_text(source: str, file: pa.NativeFile, found: pa.Schema | None) -> pyarrow.csv.CSVStreamingReader:
    delimiter = next(value for ending, value in tables.DELIMITERS.items() if source.endswith(ending))
    file.seek(0)
    return pyarrow.csv.open_csv(
        file,
        read_options=pyarrow.csv.ReadOptions(block_size=delimited.BLOCK_BYTES),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(column_types=found, strings_can_be_null=False),
    )


def _text_schema(source: str, file: pa.NativeFile) -> pa.Schema:
    return pa.schema([(name, pa.string()) for name in _open_text(source, file, None).schema.names])


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _flat(field: pa.Field, is_item: bool) -> pa.Field:
    if is_item and _is_list(field.type):
        field = pa.field(field.name, field.type.value_type)
    return _decoded(field)


def _decoded(field: pa.Field) -> pa.Field:
    return pa.field(field.name, field.type.value_type) if pa.types.is_dictionary(field.type) else field
