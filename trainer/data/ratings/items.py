"""Builds the table of items: one row and one title per item, including every rated item."""

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainer import schema

GENRES_DELIMITER = "|"
NO_GENRE = frozenset({"", "unknown", "(no genres listed)"})
"""What MovieLens writes for an item without genres."""


def build(item_ids: Sequence[str], titles: Sequence[str | None], genres: Iterable[str | list[str] | None]) -> pa.Table:
    """Builds items [schema.ITEMS_SCHEMA] from their columns. Genres may be a list or one string joined by "|".

    Of several rows with the same id the first is kept. An item without a title gets its id as title.
    """
    rows: dict[str, tuple[str, list[str]]] = {}
    for item_id, title, genres_of_item in zip(item_ids, titles, genres, strict=True):
        if item_id not in rows:
            rows[item_id] = (title or item_id, _split(genres_of_item))
    return pa.table(
        [list(rows), [title for title, _ in rows.values()], [genres for _, genres in rows.values()]],
        schema=schema.ITEMS_SCHEMA,
    )


def _split(genres: str | list[str] | None) -> list[str]:
    names = genres.split(GENRES_DELIMITER) if isinstance(genres, str) else genres or []
    return [name.strip() for name in names if name and name.strip().lower() not in NO_GENRE]


def from_rows(rows: pa.Table, item_ids: pa.DictionaryArray, usable: np.ndarray) -> pa.Table:
    """Collects the items of some rows, each from the first usable row with its id.

    Args:
      rows: the rows; their columns of titles and of genres are optional.
      item_ids: the item id of each row.
      usable: bool [num_rows].

    Returns:
      A table of schema.ITEMS_SCHEMA, with a null title where there is no title.
    """
    unused = len(item_ids.dictionary)
    codes = np.where(usable, item_ids.indices.fill_null(unused).to_numpy(), unused)
    first_row = np.full(unused + 1, -1)
    first_row[codes[::-1]] = np.arange(len(codes))[::-1]  # Reversed, so that the first row is assigned last.
    first_row = np.sort(first_row[:-1][first_row[:-1] >= 0])

    def column(name: str) -> list:
        if name not in rows.column_names:
            return [None] * len(first_row)
        values = rows[name].take(pa.array(first_row))
        many = schema.ITEMS_SCHEMA.field(schema.GENRES).type
        return values.cast(many if pa.types.is_nested(values.type) else pa.string()).to_pylist()

    ids = item_ids.take(pa.array(first_row)).to_pylist()
    genres = [_split(of_item) for of_item in column(schema.GENRES)]
    return pa.table([ids, column(schema.TITLE), genres], schema=schema.ITEMS_SCHEMA)


def first_of_each(tables: Sequence[pa.Table]) -> pa.Table:
    """Joins tables of schema.ITEMS_SCHEMA. Of several rows with the same id the first is kept."""
    if len(tables) == 1:
        return tables[0]
    joined = pa.concat_tables(tables)
    return build(*(joined[name].to_pylist() for name in schema.ITEMS_SCHEMA.names))


def complete(items: pa.Table, *, rated: pa.ChunkedArray) -> pa.Table:
    """Returns `items` followed by the `rated` ids that are missing in it."""
    ids = rated.unique()
    lacking = ids.filter(pc.invert(pc.is_in(ids, value_set=items[schema.ITEM_ID].combine_chunks()))).to_pylist()
    return pa.concat_tables([items, build(lacking, lacking, [None] * len(lacking))]) if lacking else items


def titles_of(item_ids: pa.ChunkedArray | pa.Array, items: pa.Table) -> pa.ChunkedArray:
    """Returns the titles of items, strings [n]; null for an id that is not in the table `items`."""
    return items[schema.TITLE].take(pc.index_in(item_ids, value_set=items[schema.ITEM_ID].combine_chunks()))


def by_title(items: pa.Table) -> pa.Table:
    """Returns the table with titles as item ids: one item per title."""
    titles = items[schema.TITLE].to_pylist()
    return build(titles, titles, items[schema.GENRES].to_pylist())
