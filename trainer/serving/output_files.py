"""The files of results: Parquet, CSV or JSON Lines, by the suffix of their name. This module imports no TensorFlow."""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from settings.errors import ConfigError
from trainer import storage

PARQUET, CSV, JSON_LINES = ".parquet", ".csv", ".jsonl"
SUFFIXES = (PARQUET, CSV, JSON_LINES)

_ROWS_PER_GROUP = 1 << 18
"""The number of rows that are written at a time, as a Parquet row group: some 20 MB."""

_Write = Callable[[pa.Table], object]


def check_suffix(path: str) -> None:
    """Checks that the suffix of --output names a format.

    Raises:
      ConfigError: it does not.
    """
    if not path.endswith(SUFFIXES):
        raise ConfigError(
            f"--output={path} cannot be used: the suffix of the file decides its format, and must be "
            f"{PARQUET} (Parquet), {CSV} (CSV) or {JSON_LINES} (JSON Lines). Choose a name that ends in one of them."
        )


def check_columns(path: str, schema: pa.Schema) -> None:
    """Checks that the format of --output can hold all columns.

    Raises:
      ConfigError: it is CSV, and a column has lists or structs.
    """
    nested = [field.name for field in schema if pa.types.is_nested(field.type)]
    if path.endswith(CSV) and nested:
        raise ConfigError(
            f"--output={path} cannot be used: CSV cannot hold the column {nested[0]!r}, whose values are "
            f"{schema.field(nested[0]).type}. Choose a name that ends in {PARQUET} or {JSON_LINES}, or take the column "
            "out of the input."
        )


def write_tables(tables: Iterable[pa.Table], path: str, schema: pa.Schema) -> int:
    """Writes tables as one file, local or gs://, in the format of its suffix. At most one row group is in memory.

    Args:
      tables: of `schema`.
      path: the file; see `check_suffix`.
      schema: the columns.

    Returns:
      The number of rows.

    Raises:
      StorageError: the file cannot be written. An earlier file at `path` is not changed.
    """
    num_rows = 0
    group: list[pa.Table] = []
    with storage.open_for_writing(path) as file, _WRITERS[f".{path.rpartition('.')[2]}"](file, schema) as write:

        def write_group() -> None:
            write(pa.concat_tables(group))
            group.clear()

        for table in tables:
            num_rows += table.num_rows
            group.append(table)
            if sum(part.num_rows for part in group) >= _ROWS_PER_GROUP:
                write_group()
        if group:
            write_group()
    return num_rows


@contextlib.contextmanager
def _parquet(file: pa.NativeFile, schema: pa.Schema) -> Iterator[_Write]:
    with pq.ParquetWriter(file, schema) as writer:
        yield writer.write_table


@contextlib.contextmanager
def _csv(file: pa.NativeFile, schema: pa.Schema) -> Iterator[_Write]:
    with pyarrow.csv.CSVWriter(file, schema) as writer:
        yield writer.write_table


@contextlib.contextmanager
def _json_lines(file: pa.NativeFile, schema: pa.Schema) -> Iterator[_Write]:
    def write(table: pa.Table) -> None:
        for batch in _with_finite_numbers(table).to_batches(max_chunksize=1 << 14):
            lines = (json.dumps(row, ensure_ascii=False, allow_nan=False, default=str) for row in batch.to_pylist())
            file.write("".join(f"{line}\n" for line in lines).encode())

    yield write


_WRITERS = {PARQUET: _parquet, CSV: _csv, JSON_LINES: _json_lines}


def _with_finite_numbers(table: pa.Table) -> pa.Table:
    """JSON has no NaN and no infinity. They become null."""
    for position, field in enumerate(table.schema):
        if pa.types.is_floating(field.type):
            column = table[field.name]
            table = table.set_column(position, field, pc.if_else(pc.is_finite(column), column, None).cast(field.type))
    return table
