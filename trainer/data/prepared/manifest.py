"""The manifest of a prepared data set, and which config it can be used with."""

import concurrent.futures
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from settings.errors import ConfigError, StorageError
from settings.records import check_types
from trainer import schema, storage
from trainer.data.prepared.layout import MANIFEST
from trainer.data.ratings import files
from trainer.data.ratings.columns import AUTO

FORMAT = "listwise prepared data set"
FORMAT_VERSION = 2
"""Change it when data that was prepared before can no longer be used as new data is."""

_SEAL = "sha256"
"""The field with the digest of all others."""

WAY_OUT = "Restore the file from a copy, or prepare the data again into another folder."

# Each argument of `load_source` that shapes the data, with the name of its field in the config.
_FIELD_OF = {
    "columns": "data.columns",
    "features": "data.features",
    "duplicates": "data.duplicates",
    "rating_range": "data.rating_range",
    "max_bad_fraction": "data.max_bad_fraction",
    "item_identity": "data.item_identity",
    "split_method": "split.method",
    "validation_source": "split.validation_source",
    "test_source": "split.test_source",
    "validation_fraction": "split.validation_fraction",
    "test_fraction": "split.test_fraction",
    "list_order": "list_order",
    "seed": "seed",  # That of the data: see `trainer.config.data_seed`.
}


@dataclass(frozen=True)
class Shard:
    """The users `begin` to `end` − 1, and the number of their ratings in each split."""

    begin: int
    end: int
    num_ratings: dict[str, int]


@dataclass(frozen=True)
class Manifest:
    """What manifest.json has.

    Attributes:
      fields: the fields of the config that shaped the data, by dotted name, and "list_order".
      counts: the content of data.json that does not depend on the size of a list.
      digests: the result of `digests_of`, with that of the queries.
      has_ratings, has_timestamps: as in `Dataset`.
      shards: the shards, in the order of their users.
      files: the size in bytes and the SHA-256 digest of each file, by its path in the folder.
    """

    fields: dict[str, Any]
    counts: dict[str, Any]
    digests: dict[str, str]
    has_ratings: bool
    has_timestamps: bool
    shards: list[Shard]
    files: dict[str, dict[str, Any]]


def data_fields(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of the config that shape the data, by dotted name, as JSON has them.

    Args:
      arguments: those of `load_source`. Others than these fields are left out.
    """
    fields: dict[str, Any] = {}
    for argument, field in _FIELD_OF.items():
        value = arguments[argument]
        fields |= (
            {f"{field}.{name}": part for name, part in value.items()} if isinstance(value, Mapping) else {field: value}
        )
    return json.loads(json.dumps(fields))


def is_prepared(folder: str) -> bool:
    """Returns whether there is a prepared data set of any version at `folder`.

    Raises:
      StorageError: its manifest cannot be read.
    """
    path = storage.join(folder, MANIFEST)
    if not files.exists(path):
        return False
    record = _load_json(path)
    return isinstance(record, dict) and record.get("format") == FORMAT


def write_manifest(folder: str, manifest: Manifest) -> None:
    """Writes the manifest in one step.

    Raises:
      StorageError: it cannot be written.
    """
    record = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(manifest)}
    content = json.dumps(sealed(record), indent=2, allow_nan=False) + "\n"
    storage.write_bytes(storage.join(folder, MANIFEST), content.encode())


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content of manifest.json with the digest of all other fields, so that a changed count is found."""
    fields = {name: value for name, value in record.items() if name != _SEAL}
    content = json.dumps(fields, sort_keys=True).encode()
    return {**fields, _SEAL: hashlib.sha256(content).hexdigest()}


def load_manifest(folder: str) -> Manifest:
    """Reads the manifest of a prepared data set.

    Raises:
      ConfigError: another version of this project wrote it.
      StorageError: it cannot be read.
    """
    path = storage.join(folder, MANIFEST)
    record = _load_json(path)
    if not isinstance(record, dict):
        raise damaged(path, "it is not a JSON object")
    version = record.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise ConfigError(
            f"{folder} was prepared by another version of this project (format {version}; this version reads format "
            f"{FORMAT_VERSION}). Prepare the data again, or use the version that prepared it."
        )
    if sealed({**record, "format_version": version}) != {**record, "format_version": version}:
        raise damaged(path, "its content has changed since it was written")
    record = {name: value for name, value in record.items() if name not in ("format", _SEAL)}
    try:
        check_types(Manifest, record)
        return Manifest(**{**record, "shards": [Shard(**shard) for shard in record["shards"]]})
    except (LookupError, TypeError, ValueError) as error:
        raise damaged(path, f"it lacks a field, or has one that is unknown or of another type ({error})") from error


def check_fields(folder: str, manifest: Manifest, fields: Mapping[str, Any]) -> None:
    """Checks that the data was prepared with the fields of this config.

    Args:
      fields: the result of `data_fields`.

    Raises:
      ConfigError: some differ. The message has both values of each.
    """
    changed = {
        name: (value, fields.get(name))
        for name, value in manifest.fields.items()
        if not _is_met(name, prepared=value, wanted=fields.get(name))
    }
    orders, seeds = changed.pop("list_order", None), changed.pop("seed", None)
    differences = [f"config.{name}: {old!r} → {new!r}" for name, (old, new) in sorted(changed.items())]
    if orders:
        differences.append(f"the order of lists, by config.history.encoder: {orders[0]!r} → {orders[1]!r}")
    if seeds:
        differences.append(f"config.split.seed (or, if it is -1, config.seed): {seeds[0]!r} → {seeds[1]!r}")
    if differences:
        raise ConfigError(
            f"{folder} was prepared with another config ({'; '.join(differences)}). Prepare the data again with this "
            "config, into another folder (python -m trainer.prepare), or set the fields to the values before the "
            "arrows."
        )


def _is_met(name: str, *, prepared: Any, wanted: Any) -> bool:
    """Whether data that was prepared with a value of a field has what a config with the value `wanted` asks for."""
    if name.startswith(f"{_FIELD_OF['columns']}.") and wanted == AUTO:
        # The data knows its columns. But it has no ratings if they were left out, and AUTO never leaves them out.
        return bool(prepared) or not name.endswith(f".{schema.RATING}")
    return bool(prepared == wanted)


def check_sizes(folder: str, manifest: Manifest) -> None:
    """Checks that each file is there and has its size.

    Raises:
      StorageError: a file is missing or has another size.
    """
    for name, facts in manifest.files.items():
        path = storage.join(folder, name)
        try:
            size = storage.size(path)
        except storage.file_errors() as error:
            raise damaged(path, storage.reason(error)) from error
        if size != facts["size"]:
            raise damaged(path, f"it has {size:,} bytes instead of {facts['size']:,}")


def verify(folder: str) -> Manifest:
    """Reads every file of a prepared data set and compares its SHA-256 digest with the manifest.

    Raises:
      ConfigError: another version of this project wrote it.
      StorageError: a file is missing or damaged.
    """
    manifest = load_manifest(folder)
    check_content(folder, manifest)
    return manifest


def check_content(folder: str, manifest: Manifest) -> None:
    """Checks the size and the SHA-256 digest of each file. Reads all files once, several at a time.

    Raises:
      StorageError: a file is missing or damaged.
    """
    check_sizes(folder, manifest)

    def check(name: str) -> None:
        path = storage.join(folder, name)
        try:
            digest = storage.sha256(path)
        except storage.file_errors() as error:
            raise damaged(path, storage.reason(error)) from error
        if digest != manifest.files[name]["sha256"]:
            raise damaged(path, "its content has changed since it was written")

    # hashlib leaves the other threads running, so that all cores compute digests.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(check, manifest.files):
            pass


def _load_json(path: str) -> Any:
    broken: tuple[type[Exception], ...] = (*storage.file_errors(), ValueError, RecursionError)
    try:
        return json.loads(storage.read_bytes(path))
    except broken as error:
        raise damaged(path, storage.reason(error)) from error


def damaged(path: str, reason: str) -> StorageError:
    """The error for a file of a prepared data set that cannot be used. `reason` is a clause."""
    return StorageError(f"{path} of a prepared data set cannot be used: {reason}. {WAY_OUT}")
