"""Rows on their way between workers: Arrow tables as bytes."""

from collections.abc import Sequence

import pyarrow as pa

from trainer import schema
from trainer.data.ratings import merging

ID_COLUMNS = (schema.USER_ID, schema.ITEM_ID)

ROW = "row"
"""The number of a row in the order of sources, files and lines."""

SOURCE = "source"
"""The number of the source of a row."""

SPLIT = "split"
"""The position in schema.SPLITS of the split of a row."""


def pack(table: pa.Table) -> bytes:
    """Returns a table as bytes."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_table(table.combine_chunks())
    return sink.getvalue().to_pybytes()


def unpack(packed: bytes) -> pa.Table:
    """Returns the table of which `pack` has made bytes."""
    return pa.ipc.open_stream(packed).read_all()


def compact(rows: pa.Table) -> pa.Table:
    """Returns rows whose dictionaries have only values of these rows. Ids become dictionaries if they are none."""
    for name, kind in zip(rows.column_names, rows.schema.types, strict=True):
        if name in ID_COLUMNS or pa.types.is_dictionary(kind):
            values = rows[name].cast(pa.string()).combine_chunks().dictionary_encode()
            rows = merging.replace_column(rows, name, values)
    return rows


def join(tables: Sequence[pa.Table]) -> pa.Table:
    """Joins tables with dictionaries for ids, in their order, as one chunk."""
    return pa.concat_tables(tables).unify_dictionaries().combine_chunks()
