"""Ids ↔ indices, from the training split only.

Index 0 (UNKNOWN_INDEX) stands for every user or item that training has not seen. Users follow by id. Items
follow by popularity, that is, by number of training ratings, the most first, and then by id: the k most
popular items are those of index 1 to k, and an equal score, resolved by index, goes to the more popular one.
Ids compare as UTF-8 bytes, so "10" comes before "9". The order of the ratings changes nothing.
"""

import hashlib
import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from settings.errors import DataError, StorageError
from trainer.schema import GENRES, INDEX, ITEM_ID, ITEMS_SCHEMA, TITLE, UNKNOWN_INDEX, USER_ID

NUM_RATINGS = "num_ratings"

_UNKNOWN_ID = ""

_USERS_SCHEMA = pa.schema([(INDEX, pa.int32()), (USER_ID, pa.string())])
_ITEMS_SCHEMA = pa.schema([(INDEX, pa.int32()), *ITEMS_SCHEMA, (NUM_RATINGS, pa.int64())])


@dataclass(frozen=True)
class Vocabulary:
    """The users and items of the training split; row i of each table has index i.

    Attributes:
      users: a table of `index` int32 and `user_id` string. In row 0, the unknown user, the id is "".
      items: a table of `index` int32, `item_id` string, `title` string, `genres` list of strings and
        `num_ratings` int64, its ratings in training. In row 0, the unknown item, they are "", "", [] and 0.
    """

    users: pa.Table
    items: pa.Table

    @property
    def num_users(self) -> int:
        """Number of users, the unknown one included."""
        return self.users.num_rows

    @property
    def num_items(self) -> int:
        """Number of items, the unknown one included."""
        return self.items.num_rows

    def user_indices(self, user_ids: pa.ChunkedArray | pa.Array) -> np.ndarray:
        """The indices, int32 [n], of `user_ids`, strings [n]; UNKNOWN_INDEX where not seen in training."""
        return _indices(user_ids, self.users.column(USER_ID))

    def item_indices(self, item_ids: pa.ChunkedArray | pa.Array) -> np.ndarray:
        """The indices, int32 [n], of `item_ids`, strings [n]; UNKNOWN_INDEX where not seen in training."""
        return _indices(item_ids, self.items.column(ITEM_ID))

    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of all ids in order: equal only where every id has the same index."""
        ids = [self.users.column(USER_ID).to_pylist(), self.items.column(ITEM_ID).to_pylist()]
        # JSON, because unlike the bare ids end to end it says where each one stops.
        return hashlib.sha256(json.dumps(ids).encode()).hexdigest()

    def save(self, folder: str) -> None:
        """Writes users.parquet and items.parquet to `folder`, local or gs://, each whole or not at all.

        Raises:
          StorageError: they cannot be written.
        """
        # Imported late: TensorFlow takes seconds, and all else here does without.
        from trainer import storage

        storage.make_folder(folder)
        storage.write_table(self.users, f"{folder}/users.parquet")
        storage.write_table(self.items, f"{folder}/items.parquet")

    def item_genres(self) -> np.ndarray | None:
        """Which genres an item has: bool [num_items, num_genres]; None where no item has any."""
        genres = self.items.column(GENRES).combine_chunks()
        names, genre = np.unique(genres.flatten().to_numpy(zero_copy_only=False), return_inverse=True)
        if not len(names):
            return None
        table: np.ndarray = np.zeros([self.num_items, len(names)], bool)
        table[pc.list_parent_indices(genres).to_numpy(), genre] = True
        return table


def build_vocabulary(train_ratings: pa.Table, items: pa.Table) -> Vocabulary:
    """Gives an index to each user and item of the training split, and to no other.

    Args:
      train_ratings: the training rows of the ratings, a table of RATINGS_SCHEMA.
      items: titles and genres, a table of ITEMS_SCHEMA. An item without a row here has title "" and no genre;
        of several rows with one id the first counts.

    Raises:
      DataError: an id is the empty string, which stands for the unknown.
    """
    user_ids = _count(train_ratings, USER_ID).column(USER_ID)
    counts = _count(train_ratings, ITEM_ID).sort_by([(NUM_RATINGS, "descending"), (ITEM_ID, "ascending")])
    unknown_item = pa.Table.from_pylist([{ITEM_ID: _UNKNOWN_ID, TITLE: "", GENRES: []}], ITEMS_SCHEMA)
    described = pa.concat_tables([unknown_item, items.select(ITEMS_SCHEMA.names)])
    item_ids = _after_unknown(counts.column(ITEM_ID), _UNKNOWN_ID)
    rows = _indices(item_ids, described.column(ITEM_ID))
    return Vocabulary(
        users=_table([_after_unknown(user_ids.take(pc.sort_indices(user_ids)), _UNKNOWN_ID)], _USERS_SCHEMA),
        items=_table(
            [
                item_ids,
                described.column(TITLE).take(rows),
                described.column(GENRES).take(rows),
                _after_unknown(counts.column(NUM_RATINGS), 0),
            ],
            _ITEMS_SCHEMA,
        ),
    )


def load_vocabulary(folder: str) -> Vocabulary:
    """Reads what `Vocabulary.save` wrote to `folder`, local or gs://.

    Raises:
      StorageError: a file is missing or broken.
    """
    from trainer import storage

    users = storage.read_table(f"{folder}/users.parquet", _USERS_SCHEMA)
    items = storage.read_table(f"{folder}/items.parquet", _ITEMS_SCHEMA)
    for table, name in ((users, "users"), (items, "items")):
        if not np.array_equal(table.column(INDEX), np.arange(table.num_rows)):
            raise StorageError(
                f"{folder}/{name}.parquet is not as it was written: its index column does not count its rows. "
                "Restore the file from a copy, or train anew in another workdir."
            )
    return Vocabulary(users=users, items=items)


def _indices(ids: pa.ChunkedArray | pa.Array, known_ids: pa.ChunkedArray) -> np.ndarray:
    """Where each of `ids` [n] first stands in `known_ids`: int32 [n], UNKNOWN_INDEX where nowhere."""
    return pc.index_in(ids, value_set=known_ids).fill_null(UNKNOWN_INDEX).to_numpy()


def _count(ratings: pa.Table, id_column: str) -> pa.Table:
    """The distinct ids of a column and, as NUM_RATINGS, how many rows have each."""
    counts = ratings.column(id_column).value_counts()
    table = pa.table({id_column: counts.field("values"), NUM_RATINGS: counts.field("counts")})
    if pc.any(pc.equal(table.column(id_column), _UNKNOWN_ID)).as_py():
        raise DataError(
            f"The column {id_column!r} of the training ratings holds an empty string, which is no id: it "
            f"stands for what training has not seen. Leave out these ratings, or give them a {id_column}."
        )
    return table


def _after_unknown(column: pa.ChunkedArray, unknown: str | int) -> pa.ChunkedArray:
    """`column`, after the value that it has for the unknown user or item."""
    return pa.chunked_array([pa.array([unknown], column.type), *column.chunks])


def _table(columns: list[pa.ChunkedArray], schema: pa.Schema) -> pa.Table:
    """A table of `schema` from all columns but the first, the index."""
    index = pa.array(np.arange(len(columns[0]), dtype=np.int32))
    return pa.table([index, *columns], schema).combine_chunks()
