"""The item vectors for TensorBoard's projector.

LOGS/projector_config.pbtxt   which files belong together
LOGS/projector/items.tsv      a vector per line
LOGS/projector/metadata.tsv   a header; then item_id, title (or the id again), genres and training ratings per line
"""

from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa
import pyarrow.csv
from google.protobuf import text_format
from tensorboard.plugins.projector import metadata as projector_metadata
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from settings.visible_text import visible
from trainer import schema, storage
from trainer.compat import tf
from trainer.data.vocabulary import NUM_RATINGS, Vocabulary

MAX_ITEMS = 10_000
"""Of larger catalogues the most popular items are written. The projector draws this many points at most for t-SNE."""

# Vectors of the size of 1. More digits change no picture and make the file larger.
_NUM_DECIMALS = 4


def write_projector(
    logs: str, vectors_fn: Callable[[tf.Tensor], tf.Tensor], vocabulary: Vocabulary, *, max_items: int = MAX_ITEMS
) -> None:
    """Writes the vectors of the most popular items and what describes the items. It replaces earlier files.

    Args:
      logs: LOGS, local or remote. TensorBoard 2.21 opens the vectors of local folders only.
      vectors_fn: item indices int32 [n] → float32 [n, size].
      vocabulary: has the items, by descending popularity.
      max_items: the largest number of items.

    Raises:
      StorageError: a file cannot be written.
    """
    # Index 0 is no item.
    items = vocabulary.items.slice(1, max_items)
    vectors = np.round(vectors_fn(tf.range(1, 1 + items.num_rows)).numpy(), _NUM_DECIMALS)
    columns = pa.table([pa.array(column) for column in vectors.T], [str(index) for index in range(vectors.shape[1])])
    folder = storage.join(logs, "projector")
    storage.make_folder(folder)
    with storage.open_for_writing(storage.join(folder, "items.tsv")) as file:
        pa.csv.write_csv(columns, file, pa.csv.WriteOptions(include_header=False, delimiter="\t"))
    item_ids, titles = items[schema.ITEM_ID].to_pylist(), items[schema.TITLE].to_pylist()
    cells = zip(
        item_ids,
        (title or item_id for title, item_id in zip(titles, item_ids, strict=True)),
        (", ".join(genres) for genres in items[schema.GENRES].to_pylist()),
        map(str, items[NUM_RATINGS].to_pylist()),
        strict=True,
    )
    header = (schema.ITEM_ID, schema.TITLE, schema.GENRES, NUM_RATINGS)
    storage.write_bytes(storage.join(folder, "metadata.tsv"), "".join(map(_line, [header, *cells])).encode())
    config = ProjectorConfig()
    config.embeddings.add(
        tensor_name="items",
        tensor_shape=vectors.shape,
        tensor_path="projector/items.tsv",
        metadata_path="projector/metadata.tsv",
    )
    # Last, so that TensorBoard finds whole files.
    path = storage.join(logs, projector_metadata.PROJECTOR_FILENAME)
    storage.write_bytes(path, text_format.MessageToString(config).encode())


def _line(cells: Iterable[str]) -> str:
    """A line of TSV. The projector knows no escapes, so tabs and line breaks in a cell become spaces."""
    return "\t".join(visible(" ".join(cell.split())) for cell in cells) + "\n"
