"""The vectors of an exported model, for an index that searches for the nearest neighbours."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from trainer import schema, storage
from trainer.compat import tf
from trainer.data.vocabulary import Vocabulary
from trainer.evaluation.item_lists import chunks
from trainer.serving.output_files import write_tables
from trainer.serving.serving_layout import written_whole

ITEMS, USERS = "items.parquet", "users.parquet"
VECTOR = "vector"

_VECTORS = pa.list_(pa.float32())
ITEMS_SCHEMA = pa.schema([(schema.ITEM_ID, pa.string()), (schema.TITLE, pa.string()), (VECTOR, _VECTORS)])
USERS_SCHEMA = pa.schema([(schema.USER_ID, pa.string()), (VECTOR, _VECTORS)])


def write_vectors(model: Any, vocabulary: Vocabulary, folder: str) -> tuple[int, int, int]:
    """Writes the vectors of all known items and users. The inner product of two vectors is the score of the model.

    Args:
      model: the loaded exported model.
      vocabulary: that of the model.
      folder: a new folder, local or gs://, for ITEMS and USERS. It appears as a whole or not at all.

    Returns:
      The number of items, the number of users, and the size of the vectors.

    Raises:
      StorageError: the folder cannot be written.
    """
    size = model.candidates.shape[1]

    def tables_of(rows: pa.Table, columns: list[str], table_schema: pa.Schema, vectors_fn: Any) -> Iterator[pa.Table]:
        for positions in chunks(np.full(len(rows) - 1, size), max_rows=1 << 12):
            indices = positions + 1  # Without the unknown one.
            vectors = vectors_fn(tf.constant(indices)).numpy()
            offsets = np.arange(len(indices) + 1, dtype=np.int32) * size
            arrays = pa.ListArray.from_arrays(pa.array(offsets), pa.array(vectors.ravel()))
            yield pa.table([*rows.select(columns).take(indices).columns, arrays], schema=table_schema)

    items, users = vocabulary.items, vocabulary.users
    with written_whole(folder) as partial:
        num_items = write_tables(
            tables_of(
                items,
                [schema.ITEM_ID, schema.TITLE],
                ITEMS_SCHEMA,
                lambda indices: tf.gather(model.candidates, indices),
            ),
            storage.join(partial, ITEMS),
            ITEMS_SCHEMA,
        )
        num_users = write_tables(
            tables_of(
                users, [schema.USER_ID], USERS_SCHEMA, lambda indices: model.query_vectors(model.user_features(indices))
            ),
            storage.join(partial, USERS),
            USERS_SCHEMA,
        )
    return num_items, num_users, size
