"""Recommend items from the exported model of a run."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trainer import schema, storage
from trainer.data.lists import load_item_lists
from trainer.data.vocabulary import load_vocabulary
from trainer.evaluation.catalogue import QUERIES_PER_CHUNK, ItemLists
from trainer.serving.export import load_export
from trainer.workdir import Workdir

RECOMMENDATIONS_SCHEMA = pa.schema(
    [
        (schema.USER_ID, pa.string()),
        (schema.ITEM_ID, pa.string()),
        (schema.TITLE, pa.string()),
        ("rank", pa.int32()),
        ("score", pa.float32()),
    ]
)
"""One row per recommendation, sorted by user index and then by rank, which starts at 1."""

_MAX_CHUNK_ENTRIES = 1 << 22
"""Limits the matrices [users of a chunk, k] and [users of a chunk, most seen items] of `recommend_all` to 16 MiB each.

A single user with more entries is a chunk.
"""


class Recommender:
    """The exported model of a run, its vocabulary and the items that each user has seen.

    Seen means rated in any rating that the run was given, also in validation and test ratings.
    """

    def __init__(self, workdir: str):
        """Loads the finished run in `workdir`, local or gs://.

        Raises:
          ConfigError: `workdir` holds no run, or the run has not finished.
          StorageError: a file of the run is missing or damaged, or the model was exported with another vocabulary.
        """
        paths = Workdir(workdir)
        paths.load_config()  # Refuses a folder that holds no run, or one whose format cannot be read.
        self.vocabulary = load_vocabulary(paths.vocabulary)
        self._model = load_export(paths.model, self.vocabulary)
        self._seen = ItemLists(*load_item_lists(paths.seen))

    def recommend(self, users: np.ndarray, k: int, *, exclude_seen: bool) -> pa.Table:
        """Recommends the best k items to each user.

        All users are scored in one call. For many users use `recommend_all`, which limits the memory.

        Args:
          users: int32 [num_users], user indices. UNKNOWN_INDEX gets the most popular items, whose score is their
            number of training ratings.
          k: the number of items per user, at least 1.
          exclude_seen: leave out the items that the user has seen.

        Returns:
          A table of RECOMMENDATIONS_SCHEMA. A user with fewer than k candidates gets fewer rows.
        """
        excluded = self._seen.take(users).padded() if exclude_seen else np.zeros([len(users), 0], np.int32)
        k = min(k, self.vocabulary.num_items)
        items, scores = (tensor.numpy() for tensor in self._model.recommend_indices(users, k, excluded))
        is_real = items != schema.UNKNOWN_INDEX
        rows, columns = np.nonzero(is_real)
        return self._build_table(users[rows], items[is_real], columns + 1, scores[is_real])

    def recommend_all(self, k: int, *, exclude_seen: bool) -> Iterator[pa.Table]:
        """Recommends to every known user, in the order of their indices, in chunks that limit the memory.

        A chunk has at most `catalogue.QUERIES_PER_CHUNK` users.

        Yields:
          Tables as from `recommend`, one per chunk.
        """
        for users in self._chunks(k, exclude_seen=exclude_seen):
            yield self.recommend(users, k, exclude_seen=exclude_seen)

    def write_all(self, path: str, k: int, *, exclude_seen: bool) -> int:
        """Writes the result of `recommend_all` as one Parquet file, local or gs://.

        Returns:
          The number of recommendations.

        Raises:
          StorageError: the file cannot be written. An earlier file at `path` is not changed.
        """
        num_rows = 0
        with storage.open_for_writing(path) as file, pq.ParquetWriter(file, RECOMMENDATIONS_SCHEMA) as writer:
            for table in self.recommend_all(k, exclude_seen=exclude_seen):
                writer.write_table(table)
                num_rows += table.num_rows
        return num_rows

    def _chunks(self, k: int, *, exclude_seen: bool) -> Iterator[np.ndarray]:
        num_users = self.vocabulary.num_users
        widths: np.ndarray = np.full(num_users, min(k, self.vocabulary.num_items), np.int64)
        if exclude_seen:
            widths = np.maximum(widths, np.diff(self._seen.offsets))
        first = 1
        while first < num_users:
            widest = np.maximum.accumulate(widths[first : first + QUERIES_PER_CHUNK])
            num_entries = widest * np.arange(1, len(widest) + 1)
            size = max(int((num_entries <= _MAX_CHUNK_ENTRIES).sum()), 1)
            yield np.arange(first, first + size, dtype=np.int32)
            first += size

    def _build_table(self, users: np.ndarray, items: np.ndarray, ranks: np.ndarray, scores: np.ndarray) -> pa.Table:
        columns = [
            self.vocabulary.users[schema.USER_ID].take(users),
            self.vocabulary.items[schema.ITEM_ID].take(items),
            self.vocabulary.items[schema.TITLE].take(items),
            pa.array(ranks.astype(np.int32)),
            pa.array(scores.astype(np.float32)),
        ]
        return pa.table(columns, schema=RECOMMENDATIONS_SCHEMA)
