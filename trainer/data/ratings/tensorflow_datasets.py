"""Reads MovieLens as TensorFlow Datasets prepares it, in batches instead of example by example.

This is the only module of `data` that imports TensorFlow, and only when it reads.
"""

import contextlib
import io
import posixpath
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from absl import logging

from settings.errors import ConfigError, DataError, StorageError
from trainer import schema, storage
from trainer.data.ratings import feature_columns, files, items, movielens
from trainer.data.ratings.cleaning import Part

NAMES = tuple(f"movielens/{version}" for version in ("100k", "1m", "20m", "25m", "latest-small"))

# Our names of the features of users → those of TensorFlow Datasets, the preferred one first. Versions from 2015 on have
# no users. `bucketized_user_age` is the first age of a range, as in the authors' files of the 1M version.
USER_FEATURES = {
    movielens.AGE: ("raw_user_age", "bucketized_user_age"),
    movielens.GENDER: ("user_gender",),
    movielens.OCCUPATION: ("user_occupation_text",),
}

BATCH_SIZE = 8192
PROBE_SECONDS = 10


def read(
    name: str, *, data_dir: str, features: Mapping[str, Sequence[str]]
) -> tuple[list[Callable[[], Part]], pa.Table]:
    """Reads a dataset in the order of its rows. If it is missing, it is downloaded and prepared first.

    Args:
      name: one of NAMES.
      data_dir: the folder of TensorFlow Datasets; "" for its default.
      features: owner → the features to keep.

    Returns:
      What returns the ratings without any change, with the features of their users, and the items
      [schema.ITEMS_SCHEMA].

    Raises:
      ConfigError: there is no dataset with this name, or it does not have a feature.
      DataError: the dataset is damaged.
      StorageError: the dataset is missing and cannot be downloaded.
    """
    if name not in NAMES:
        raise ConfigError(
            f"config.data.source is {name!r}, which is not a known dataset. The known ones are {', '.join(NAMES)}. "
            f"To read a folder with this name, write ./{name}."
        )
    from trainer.compat import tf

    ratings_builder = _prepared(f"{name}-ratings", data_dir)
    available = _user_features(ratings_builder)
    feature_columns.require(features, {"query": tuple(available), "item": feature_columns.ITEM_FEATURES}, source=name)
    user_features = {feature: available[feature] for feature in features.get("query", ())}
    types = {movielens.AGE: tf.float32, movielens.GENDER: tf.int64, movielens.OCCUPATION: tf.string}
    ratings = _examples(
        ratings_builder,
        {
            "user_id": tf.io.FixedLenFeature([], tf.string),
            "movie_id": tf.io.FixedLenFeature([], tf.string),
            "user_rating": tf.io.FixedLenFeature([], tf.float32),
            "timestamp": tf.io.FixedLenFeature([], tf.int64),
            **{theirs: tf.io.FixedLenFeature([], types[ours]) for ours, theirs in user_features.items()},
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
            **{
                feature_columns.column_name(ours): _like_the_authors(ours, ratings[theirs])
                for ours, theirs in user_features.items()
            },
        }
    )
    item_table = items.build(
        movies["movie_id"].to_pylist(),
        movies["movie_title"].to_pylist(),
        [genres[labels].tolist() for labels in movies["movie_genres"].to_pylist()],
    )
    return [lambda: Part(name, rows)], item_table


def _user_features(builder: Any) -> dict[str, str]:
    """Our names of the features of users that a dataset has → its own."""
    found = {
        ours: next((name for name in theirs if name in builder.info.features), None)
        for ours, theirs in USER_FEATURES.items()
    }
    return {ours: theirs for ours, theirs in found.items() if theirs}


def _like_the_authors(feature: str, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """The values of a feature of users as in the authors' files: ages are whole, and genders are M and F."""
    if feature == movielens.AGE:
        return values.cast(pa.int64())
    if feature == movielens.GENDER:
        return pc.if_else(pc.equal(values, 1), "M", "F")
    return values


def _prepared(name: str, data_dir: str) -> Any:
    """The builder of a dataset whose data is in place."""
    with _quiet():
        import tensorflow_datasets as tfds

        tfds.disable_progress_bar()
        builder = tfds.builder(name, data_dir=data_dir or None)
        if builder.is_prepared():
            return builder
    url = builder.builder_config.download_url
    downloads = posixpath.join(str(builder.data_dir_root), "downloads")
    try:
        if _has_archive(url, downloads):
            logging.info("Preparing %s in %s. This is done once.", name, builder.data_dir)
        else:
            logging.warning(
                "Downloading %s from %s to %s, and preparing it in %s. This is done once.",
                name,
                url,
                downloads,
                builder.data_dir,
            )
            _require_network(url)
        with _quiet():
            builder.download_and_prepare(download_dir=downloads)
    except Exception as error:  # A download, an archive, a disk and TensorFlow Datasets can raise anything.
        archive = posixpath.basename(url)
        raise StorageError(
            f"config.data.source={name.rsplit('-', 1)[0]} is not in {builder.data_dir_root} "
            f"(config.data.data_dir) and could not be downloaded and prepared there: "
            f"{' '.join(str(error).split())[:300]}. Download {url} on another machine. Then copy it to "
            f"{downloads}/manual/{archive}, or set config.data.source to the path of {archive} or of the folder that "
            "it unpacks to."
        ) from error
    return builder


def _has_archive(url: str, downloads: str) -> bool:
    """Whether TensorFlow Datasets will find the archive among its downloads, or where a user has copied it."""
    from trainer.compat import tf

    stem = posixpath.splitext(posixpath.basename(url))[0]
    return bool(tf.io.gfile.glob(f"{downloads}/*/*{stem}*.zip"))


def _require_network(url: str) -> None:
    """Raises OSError if `url` cannot be reached. Without this check TensorFlow Datasets tries for minutes."""
    urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PROBE_SECONDS).close()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drops what TensorFlow Datasets prints and logs. Its exceptions have all that matters."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)


def _examples(builder: Any, features: dict[str, Any]) -> dict[str, pa.ChunkedArray]:
    """The features of all examples, each [num_examples]."""
    from trainer.compat import tf

    @tf.autograph.experimental.do_not_convert
    def parse(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        return tf.io.parse_example(serialized, features)

    chunks: dict[str, list[pa.Array]] = {name: [] for name in features}
    paths = [str(path) for path in builder.info.splits["train"].filepaths]
    with files.reading(str(builder.data_dir)), _reading_records(str(builder.data_dir)):
        batches = tf.data.TFRecordDataset(paths).batch(BATCH_SIZE).map(parse, tf.data.AUTOTUNE)
        for batch in batches:
            for name, value in batch.items():
                chunks[name].append(_array(value))
    return {name: pa.chunked_array(arrays) for name, arrays in chunks.items()}


@contextlib.contextmanager
def _reading_records(folder: str) -> Iterator[None]:
    from trainer.compat import tf

    try:
        yield
    except tf.errors.DataLossError as error:
        raise DataError(
            f"{folder} is damaged or incomplete ({storage.reason(error)}). Delete it, so that it is prepared again."
        ) from error


def _array(value: Any) -> pa.Array:
    """Converts a tensor [batch_size] to an array, and a ragged tensor to an array of lists."""
    from trainer.compat import tf

    if isinstance(value, tf.RaggedTensor):
        return pa.ListArray.from_arrays(value.row_splits.numpy().astype(np.int32), value.flat_values.numpy())
    if value.dtype == tf.string:
        return pa.array(value.numpy(), pa.binary()).cast(pa.string())
    return pa.array(value.numpy())
