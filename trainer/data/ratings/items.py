"""The table of items: one row each, a title for every one, and every rated item among them."""

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainer import schema

GENRES_DELIMITER = "|"
NO_GENRE = frozenset({"", "unknown", "(no genres listed)"})
"""What MovieLens writes where there is no genre."""


def build(item_ids: Sequence[str], titles: Sequence[str | None], genres: Iterable[str | list[str] | None]) -> pa.Table:
    """Items [schema.ITEMS_SCHEMA] from their columns; genres may be joined by "|".

    Of rows with the same id the first is kept; an item without a title has its id for one.
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
    """Items [schema.ITEMS_SCHEMA], each from the first usable row that names it.

    Args:
      rows: with a column of titles or of genres, or neither.
      item_ids: of each row.
      usable: bool [num_rows].
    """
    nowhere = len(item_ids.dictionary)
    codes = np.where(usable, item_ids.indices.fill_null(nowhere).to_numpy(), nowhere)
    first_row = np.full(nowhere + 1, -1)
    first_row[codes[::-1]] = np.arange(len(codes))[::-1]  # Of several rows, the last assigned stays.
    first_row = np.sort(first_row[:-1][first_row[:-1] >= 0])

    def column(name: str) -> list:
        if name not in rows.column_names:
            return [None] * len(first_row)
        values = rows[name].take(pa.array(first_row))
        many = schema.ITEMS_SCHEMA.field(schema.GENRES).type
        return values.cast(many if pa.types.is_nested(values.type) else pa.string()).to_pylist()

    ids = item_ids.take(pa.array(first_row)).to_pylist()
    return build(ids, column(schema.TITLE), column(schema.GENRES))


def complete(items: pa.Table, *, rated: pa.ChunkedArray) -> pa.Table:
    """`items`, and after them those of the `rated` ids that it lacks."""
    ids = rated.unique()
    lacking = ids.filter(pc.invert(pc.is_in(ids, value_set=items[schema.ITEM_ID].combine_chunks()))).to_pylist()
    return pa.concat_tables([items, build(lacking, lacking, [None] * len(lacking))]) if lacking else items


def identify_by_title(ratings: pa.Table, items: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Both tables with an item's title for its id: one row of `items` a title, no fewer of `ratings`."""
    row = pc.index_in(ratings[schema.ITEM_ID], value_set=items[schema.ITEM_ID].combine_chunks())
    position = ratings.schema.get_field_index(schema.ITEM_ID)
    titles = items[schema.TITLE].to_pylist()
    return (
        ratings.set_column(position, schema.ITEM_ID, items[schema.TITLE].take(row)),
        build(titles, titles, items[schema.GENRES].to_pylist()),
    )
