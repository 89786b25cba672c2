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
import pyarrow.parquet as pq

from trainer.errors import DataError, StorageError
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
        _write_table(self.users, folder, "users.parquet")
        _write_table(self.items, folder, "items.parquet")


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
    return Vocabulary(
        users=_read_table(folder, "users.parquet", _USERS_SCHEMA),
        items=_read_table(folder, "items.parquet", _ITEMS_SCHEMA),
    )


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


def _write_table(table: pa.Table, folder: str, name: str) -> None:
    # Imported late: it takes seconds, and all else here does without. It is what reads and writes gs://.
    from trainer.compat import tf

    contents = pa.BufferOutputStream()
    pq.write_table(table, contents, write_page_checksum=True)
    path, temporary_path = f"{folder}/{name}", f"{folder}/{name}.tmp"
    try:
        tf.io.gfile.makedirs(folder)
        with tf.io.gfile.GFile(temporary_path, "wb") as file:
            file.write(contents.getvalue().to_pybytes())
        tf.io.gfile.rename(temporary_path, path, overwrite=True)
    except (tf.errors.OpError, OSError) as error:
        raise StorageError(
            f"The vocabulary cannot be written to {path}. Check that the folder may be written to and that "
            f"its disk has room. The cause: {error}"
        ) from error


def _read_table(folder: str, name: str, schema: pa.Schema) -> pa.Table:
    from trainer.compat import tf

    path = f"{folder}/{name}"
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            contents = pa.BufferReader(file.read())
        table = pq.read_table(contents, page_checksum_verification=True)
        if not table.schema.equals(schema):
            raise ValueError(f"its columns are {', '.join(table.schema.names)}")
        if not np.array_equal(table.column(INDEX), np.arange(table.num_rows)):
            raise ValueError("its index column does not count its rows")
    except (tf.errors.OpError, pa.ArrowException, OSError, ValueError) as error:
        raise StorageError(
            f"The vocabulary cannot be read from {path}. Without it no index can be traced back to an id: "
            f"restore the file from a copy, or train anew in another workdir. The cause: {error}"
        ) from error
    return table
