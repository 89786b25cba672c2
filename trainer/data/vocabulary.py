"""Maps ids to indices and back. The ids are those of the training split.

Index 0 (UNKNOWN_INDEX) stands for every user or item that is not in the training split. Users are sorted by id. Items
are sorted by popularity, which is their number of training ratings, the largest first, and then by id. So the k most
popular items have the indices 1 to k, and ties between scores, which are broken by index, go to the more popular item.
Ids are compared as UTF-8 bytes, so "10" comes before "9". The order of the ratings does not matter.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from settings.errors import DataError, StorageError
from trainer import storage
from trainer.data.features import FeatureEncoder, load_encoders, save_encoders
from trainer.data.fingerprints import digest_of_lists
from trainer.schema import GENRES, INDEX, ITEM_ID, ITEMS_SCHEMA, TITLE, UNKNOWN_INDEX, USER_ID

NUM_RATINGS = "num_ratings"

_UNKNOWN_ID = ""

_USERS_SCHEMA = pa.schema([(INDEX, pa.int32()), (USER_ID, pa.string())])
_ITEMS_SCHEMA = pa.schema([(INDEX, pa.int32()), *ITEMS_SCHEMA, (NUM_RATINGS, pa.int64())])


@dataclass(frozen=True)
class Vocabulary:
    """The users and items of the training split, and the categories of their features. Row i of a table has index i.

    Attributes:
      users: a table of `index` int32 and `user_id` string. Row 0 is the unknown user, with the id "".
      items: a table of `index` int32, `item_id` string, `title` string, `genres` list of strings and `num_ratings`
        int64, the number of training ratings. Row 0 is the unknown item, with the values "", "", [] and 0.
      features: how the features that the config names are encoded.
    """

    users: pa.Table
    items: pa.Table
    features: tuple[FeatureEncoder, ...] = ()

    @property
    def num_users(self) -> int:
        """The number of users, including the unknown user."""
        return self.users.num_rows

    @property
    def num_items(self) -> int:
        """The number of items, including the unknown item."""
        return self.items.num_rows

    def user_indices(self, user_ids: pa.ChunkedArray | pa.Array) -> np.ndarray:
        """Returns the indices int32 [n] of `user_ids`, strings [n]; UNKNOWN_INDEX for unknown users."""
        return _indices(user_ids, self.users.column(USER_ID))

    def item_indices(self, item_ids: pa.ChunkedArray | pa.Array) -> np.ndarray:
        """Returns the indices int32 [n] of `item_ids`, strings [n]; UNKNOWN_INDEX for unknown items."""
        return _indices(item_ids, self.items.column(ITEM_ID))

    def fingerprint(self) -> str:
        """Returns the SHA-256 digest of all ids and categories in order, in hexadecimal.

        It is equal only if all indices are, and if numeric features are standardised in the same way.
        """
        lists: list[Any] = [self.users.column(USER_ID), self.items.column(ITEM_ID)]
        if self.features:
            lists.append([dataclasses.asdict(encoder) for encoder in self.features])
        return digest_of_lists(lists)

    def titles_fingerprint(self) -> str:
        """Returns the SHA-256 digest of the other columns of the items, in hexadecimal: titles, genres, counts."""
        return digest_of_lists([self.items.column(name) for name in (TITLE, GENRES, NUM_RATINGS)])

    def save(self, folder: str) -> None:
        """Writes users.parquet, items.parquet and features.parquet to `folder`, local or gs://.

        Each file is replaced in one step.

        Raises:
          StorageError: a file cannot be written.
        """
        storage.make_folder(folder)
        storage.write_table(self.users, f"{folder}/users.parquet")
        storage.write_table(self.items, f"{folder}/items.parquet")
        save_encoders(self.features, f"{folder}/features.parquet")

    def item_genres(self) -> np.ndarray | None:
        """Returns which genres each item has, bool [num_items, num_genres], or None if no item has any."""
        genres = self.items.column(GENRES).combine_chunks()
        names, genre = np.unique(genres.flatten().to_numpy(zero_copy_only=False), return_inverse=True)
        if not len(names):
            return None
        table: np.ndarray = np.zeros([self.num_items, len(names)], bool)
        table[pc.list_parent_indices(genres).to_numpy(), genre] = True
        return table


def build_vocabulary(train_ratings: pa.Table, items: pa.Table) -> Vocabulary:
    """Builds the vocabulary of the users and items of the training split.

    Args:
      train_ratings: the training rows of the ratings, a table of RATINGS_SCHEMA.
      items: titles and genres, a table of ITEMS_SCHEMA. An item that is missing here gets the title "" and no genres.
        Of several rows with the same id, the first is used.

    Raises:
      DataError: an id is the empty string, which stands for the unknown user or item.
    """
    user_ids = count_ids(train_ratings, USER_ID).column(USER_ID)
    return vocabulary_of(user_ids, count_ids(train_ratings, ITEM_ID), items)


def vocabulary_of(user_ids: pa.ChunkedArray, item_counts: pa.Table, items: pa.Table) -> Vocabulary:
    """Builds a vocabulary from the distinct ids of the training split, in any order.

    Args:
      user_ids: strings [num_users − 1].
      item_counts: the result of `count_ids` for the items.
      items: as in `build_vocabulary`.
    """
    counts = item_counts.sort_by([(NUM_RATINGS, "descending"), (ITEM_ID, "ascending")])
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


def load_vocabulary(folder: str, *, way_out: str = storage.RESTORE) -> Vocabulary:
    """Reads the files that `Vocabulary.save` wrote to `folder`, local or gs://.

    A vocabulary without features.parquet was written before there were features, and has none. `way_out` is as in
    `storage.read_table`.

    Raises:
      StorageError: a file is missing or damaged.
    """
    users = storage.read_table(f"{folder}/users.parquet", _USERS_SCHEMA, way_out=way_out)
    items = storage.read_table(f"{folder}/items.parquet", _ITEMS_SCHEMA, way_out=way_out)
    for table, name in ((users, "users"), (items, "items")):
        if not np.array_equal(table.column(INDEX), np.arange(table.num_rows)):
            raise StorageError(
                f"{folder}/{name}.parquet was changed after it was written: its index column does not count its rows. "
                f"{way_out}"
            )
    features_path = f"{folder}/features.parquet"
    features = load_encoders(features_path, way_out=way_out) if storage.exists(features_path) else ()
    return Vocabulary(users=users, items=items, features=features)


def _indices(ids: pa.ChunkedArray | pa.Array, known_ids: pa.ChunkedArray) -> np.ndarray:
    """The first position of each of `ids` [n] in `known_ids`, int32 [n]; UNKNOWN_INDEX for an id that is not there."""
    return pc.index_in(ids, value_set=known_ids).fill_null(UNKNOWN_INDEX).to_numpy()


def count_ids(ratings: pa.Table, id_column: str) -> pa.Table:
    """Returns the distinct ids of a column, and the number of rows of each as NUM_RATINGS.

    Raises:
      DataError: an id is the empty string.
    """
    counts = ratings.column(id_column).value_counts()
    table = pa.table({id_column: counts.field("values"), NUM_RATINGS: counts.field("counts")})
    if pc.any(pc.equal(table.column(id_column), _UNKNOWN_ID)).as_py():
        raise DataError(
            f"The column {id_column!r} of the training ratings has an empty string, which is not a valid id because it "
            f"stands for unknown ids. Remove these ratings, or give them a {id_column}."
        )
    return table


def _after_unknown(column: pa.ChunkedArray, unknown: str | int) -> pa.ChunkedArray:
    """`column` with the value of the unknown user or item in front."""
    return pa.chunked_array([pa.array([unknown], column.type), *column.chunks])


def _table(columns: list[pa.ChunkedArray], schema: pa.Schema) -> pa.Table:
    """A table of `schema` from all its columns but the first, which is the index."""
    index = pa.array(np.arange(len(columns[0]), dtype=np.int32))
    return pa.table([index, *columns], schema).combine_chunks()
