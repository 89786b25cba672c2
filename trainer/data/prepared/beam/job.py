"""What all workers know of a preparation, and which configs Beam can prepare."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from settings.errors import ConfigError
from trainer import storage
from trainer.data.features import check_names
from trainer.data.loading import order_matters, sources_of_splits
from trainer.data.prepared import writing
from trainer.data.ratings import MOVIELENS, Source, files, is_path, open_source

DATAFLOW = "DataflowRunner"

BUCKET_BYTES = 64 << 20
"""The size of the sources for each bucket of users."""

MIN_BUCKETS = 16


@dataclasses.dataclass(frozen=True)
class Job:
    """A preparation.

    Attributes:
      arguments: those of `load_source`.
      folder: where the files are written.
      num_buckets: the number of buckets of users.
      shard_bytes: the size of a shard.
    """

    arguments: Mapping[str, Any]
    folder: str
    num_buckets: int
    shard_bytes: int

    @property
    def sources(self) -> dict[str, str]:
        """The source of each split that has one of its own."""
        names = ("split_method", "source", "validation_source", "test_source")
        return sources_of_splits(*(self.arguments[name] for name in names))

    def open_source(self, split: str) -> Source:
        """Opens the source of a split.

        Raises:
          ConfigError, DataError, StorageError: it cannot be used; see `ratings.open_source`.
        """
        field = "config.data.source" if split == "train" else f"config.split.{split}_source"
        names = ("data_dir", "columns", "features", "seed")
        path = _absolute(self.sources[split])
        needs_times = order_matters(self.arguments["split_method"], self.arguments["list_order"])
        return open_source(path, field, needs_times=needs_times, **{name: self.arguments[name] for name in names})


def build_job(arguments: Mapping[str, Any], folder: str, *, sources_are_known: bool = True) -> Job:
    """Builds a job whose number of buckets fits its sources.

    Args:
      arguments: those of `load_source`.
      folder: where to write.
      sources_are_known: whether the sizes of the sources can be asked for. If not, there are MIN_BUCKETS.

    Raises:
      ConfigError: Beam cannot prepare this data.
      StorageError: a source cannot be read.
    """
    _check_supported(arguments)
    job = Job(arguments, _absolute(folder), MIN_BUCKETS, writing.SHARD_BYTES)
    num_bytes = sum(_num_bytes(source) for source in job.sources.values()) if sources_are_known else 0
    return dataclasses.replace(job, num_buckets=max(MIN_BUCKETS, num_bytes // BUCKET_BYTES))


def _check_supported(arguments: Mapping[str, Any]) -> None:
    """Raises ConfigError unless Beam can prepare this data, and a feature has a name that it may have."""
    for name in ("source", "validation_source", "test_source"):
        if arguments[name].startswith(MOVIELENS):
            field = "config.data.source" if name == "source" else f"config.split.{name}"
            raise ConfigError(
                f"{field}={arguments[name]!r} cannot be prepared on Beam: TensorFlow Datasets is read with TensorFlow, "
                "which Beam's workers do not have. Leave out --runner to prepare it on this machine, or set the field "
                "to the path of a folder or zip of MovieLens, or of tables."
            )
    check_names(arguments["features"])
    if names := arguments["features"]["example"]:
        raise ConfigError(
            f"config.data.features.example={names!r} cannot be prepared on Beam: how such a feature is encoded follows "
            "from its values in all ratings. Leave out --runner to prepare it on one machine, or set the field to ()."
        )


def _absolute(path: str) -> str:
    """A path that is valid in any working folder."""
    return os.path.abspath(path) if is_path(path) and "://" not in path else path


def _num_bytes(source: str) -> int:
    if not is_path(source) or not files.exists(source):
        return 0
    with files.reading(source):
        if not storage.is_folder(source):
            return storage.size(source)
        paths = [storage.join(source, name) for name in storage.list_folder(source)]
        return sum(storage.size(path) for path in paths if not storage.is_folder(path))
