"""Maps ids to indices and back inside of the exported model."""

import uuid
from collections.abc import Sequence

import pyarrow as pa

from trainer import schema
from trainer.compat import tf

_IDS_PER_CHUNK = 1 << 18
"""Limits the Python strings that exist at a time."""


class IdTable(tf.Module):
    """Ids and their indices: the position of each id is its index.

    The ids are a variable, and the lookup table is filled from it when the model is loaded. So they are stored once, in
    the files of the variables and not in the graph, which cannot be larger than 2 GB. TensorFlow and TensorFlow Serving
    restore variables before they fill tables. Any string can be an id, also one with a line break, which a vocabulary
    file could not hold.

    Attributes:
      ids: string [num_ids].
    """

    def __init__(self, ids: pa.Array | pa.ChunkedArray | Sequence[str], *, name: str):
        """Builds the table.

        Args:
          ids: distinct strings. The first one stands for all unknown ids.
          name: the name of the variable.
        """
        super().__init__(name=f"{name}_table")
        self.ids = string_variable(ids, name=name)
        self._index = _Index(self.ids)

    def fill(self) -> None:
        """Fills the lookup table. Loading a model does it; the process that exports the model does not need it."""
        self._index.fill()

    def lookup(self, ids: tf.Tensor) -> tf.Tensor:
        """The indices of ids, string [...]: int32 [...]; UNKNOWN_INDEX for unknown ids."""
        return tf.raw_ops.LookupTableFindV2(
            table_handle=self._index.resource_handle, keys=ids, default_value=schema.UNKNOWN_INDEX
        )

    def take(self, indices: tf.Tensor) -> tf.Tensor:
        """The ids of indices int32 [...]: string [...]."""
        return tf.gather(self.ids, indices)


class _Index(tf.saved_model.experimental.TrackableResource):
    """A lookup table from the strings of a variable to their positions.

    `tf.lookup.StaticHashTable` cannot read a variable: it stores the strings in the graph.
    """

    def __init__(self, ids: tf.Variable):
        super().__init__()
        self._ids = ids
        # A name of its own, because tables of one name in one process are one table.
        self._shared_name = f"ids_{uuid.uuid4()}"
        # Made here, and not where a function is traced, which would then have a table of its own.
        with tf.init_scope():
            self._resource_handle = self._create_resource()

    def _create_resource(self) -> tf.Tensor:
        if tf.executing_eagerly():  # A table without a name is freed with this object.
            return tf.raw_ops.AnonymousHashTable(key_dtype=tf.string, value_dtype=tf.int32)
        # TensorFlow Serving runs this operation in every request, and has to get the same table each time.
        return tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int32, shared_name=self._shared_name)

    def _initialize(self) -> None:
        self.fill()

    def fill(self) -> None:
        ids = self._ids.read_value()
        tf.raw_ops.InitializeTableV2(table_handle=self.resource_handle, keys=ids, values=tf.range(tf.size(ids)))


def string_variable(values: pa.Array | pa.ChunkedArray | Sequence[str], *, name: str) -> tf.Variable:
    """A variable of strings [n]. They are copied some at a time."""
    variable = tf.Variable(tf.fill([len(values)], ""), trainable=False, name=name)
    for begin in range(0, len(values), _IDS_PER_CHUNK):
        chunk = values[begin : begin + _IDS_PER_CHUNK]
        texts = tf.constant(chunk if isinstance(chunk, Sequence) else chunk.to_pylist(), tf.string)
        variable.scatter_update(tf.IndexedSlices(texts, tf.range(begin, begin + len(chunk))))
    return variable
