"""MovieLens as TensorFlow Datasets prepares it, read without decoding it example by example."""

import contextlib
import io
import posixpath
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from absl import logging

from settings.errors import ConfigError, StorageError
from trainer import schema
from trainer.data.ratings import files, items
from trainer.data.ratings.cleaning import Part

NAMES = tuple(f"movielens/{version}" for version in ("100k", "1m", "20m", "25m", "latest-small"))

BATCH_SIZE = 8192
PROBE_SECONDS = 10


def read(name: str, *, data_dir: str) -> tuple[Iterator[Part], pa.Table]:
    """Reads prepared data, in its own order of rows, and has it prepared first where it is not.

    Args:
      name: one of NAMES.
      data_dir: where TensorFlow Datasets keeps its data; "" for its own default.

    Returns:
      The ratings as they are, and the items [schema.ITEMS_SCHEMA].

    Raises:
      ConfigError: there is no such dataset.
      StorageError: it is not there and cannot be downloaded.
    """
    if name not in NAMES:
        raise ConfigError(
            f"config.data.source is {name!r}, which is no dataset known here: known are {', '.join(NAMES)}. "
            f"For a folder of that name, write ./{name}."
        )
    from trainer.compat import tf

    ratings = _examples(
        _prepared(f"{name}-ratings", data_dir),
        {
            "user_id": tf.io.FixedLenFeature([], tf.string),
            "movie_id": tf.io.FixedLenFeature([], tf.string),
            "user_rating": tf.io.FixedLenFeature([], tf.float32),
            "timestamp": tf.io.FixedLenFeature([], tf.int64),
        },
    )
    movies_builder = _prepared(f"{name}-movies", data_dir)
    movies = _examples(
        movies_builder,
        {
            "movie_id": tf.io.FixedLenFeature([], tf.string),
            "movie_title": tf.io.FixedLenFeature([], tf.string),
            "movie_genres": tf.io.RaggedFeature(tf.int64),
        },
    )
    genres = np.array(movies_builder.info.features["movie_genres"].feature.names)
    rows = pa.table(
        {
            schema.USER_ID: ratings["user_id"],
            schema.ITEM_ID: ratings["movie_id"],
            schema.RATING: ratings["user_rating"],
            schema.TIMESTAMP: ratings["timestamp"],
        }
    )
    item_table = items.build(
        movies["movie_id"].to_pylist(),
        movies["movie_title"].to_pylist(),
        [genres[labels].tolist() for labels in movies["movie_genres"].to_pylist()],
    )
    return iter([Part(name, rows)]), item_table


def _prepared(name: str, data_dir: str) -> Any:
    """The dataset's builder, with its data in place."""
    with _quiet():
        import tensorflow_datasets as tfds

        tfds.disable_progress_bar()
        builder = tfds.builder(name, data_dir=data_dir or None)
        if builder.is_prepared():
            return builder
    url = builder.builder_config.download_url
    downloads = posixpath.join(str(builder.data_dir_root), "downloads")
    logging.info("Preparing %s in %s: this is done once.", name, builder.data_dir)
    try:
        _require_archive(url, downloads)
        with _quiet():
            builder.download_and_prepare(download_dir=downloads)
    except Exception as error:  # Whatever a download, an archive, a disk and TensorFlow Datasets may raise.
        archive = posixpath.basename(url)
        raise StorageError(
            f"config.data.source={name.rsplit('-', 1)[0]} is not in {builder.data_dir_root} "
            f"(config.data.data_dir), and could not be downloaded and prepared there: "
            f"{' '.join(str(error).split())[:300]}. Download {url} elsewhere, and either put it at "
            f"{downloads}/manual/{archive}, or set config.data.source to the path of {archive} itself or of "
            "the folder it unpacks to."
        ) from error
    return builder


def _require_archive(url: str, downloads: str) -> None:
    """Raises OSError at once where an archive is neither here nor to be had.

    TensorFlow Datasets looks into `downloads` for what was put there by hand, and for what it downloaded
    before. Else it downloads, and where there is no network it tries for minutes.
    """
    from trainer.compat import tf

    stem = posixpath.splitext(posixpath.basename(url))[0]
    if not tf.io.gfile.glob(f"{downloads}/*/*{stem}*.zip"):
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PROBE_SECONDS).close()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Holds back what TensorFlow Datasets prints and logs; what matters of it is in its exceptions."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)


def _examples(builder: Any, features: dict[str, Any]) -> dict[str, pa.ChunkedArray]:
    """The features of all examples, each [num_examples], parsed a batch at a time."""
    from trainer.compat import tf

    chunks: dict[str, list[pa.Array]] = {name: [] for name in features}
    paths = [str(path) for path in builder.info.splits["train"].filepaths]
    with files.reading(str(builder.data_dir)):
        batches = (
            tf.data.TFRecordDataset(paths)
            .batch(BATCH_SIZE)
            .map(lambda serialized: tf.io.parse_example(serialized, features), tf.data.AUTOTUNE)
        )
        for batch in batches:
            for name, value in batch.items():
                chunks[name].append(_array(value))
    return {name: pa.chunked_array(arrays) for name, arrays in chunks.items()}


def _array(value: Any) -> pa.Array:
    """An Arrow array from a tensor [batch_size], or a list array from a ragged one."""
    from trainer.compat import tf

    if isinstance(value, tf.RaggedTensor):
        return pa.ListArray.from_arrays(value.row_splits.numpy().astype(np.int32), value.flat_values.numpy())
    if value.dtype == tf.string:
        return pa.array(value.numpy(), pa.binary()).cast(pa.string())
    return pa.array(value.numpy())
