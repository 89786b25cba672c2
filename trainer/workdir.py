"""The folder of a run: what it holds, whose it is, and whether this run may go on in it."""

import contextlib
import fcntl
import json
import math
import os
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from settings.errors import ConfigError, StorageError
from trainer import config as config_lib
from trainer import storage
from trainer.compat import tf


class Workdir:
    """Paths of what a run leaves, local or gs://."""

    def __init__(self, path: str):
        self.path = path
        self.config = storage.join(path, "config.json")
        self.data = storage.join(path, "data.json")
        self.vocabulary = storage.join(path, "vocabulary")
        self.seen = storage.join(path, "seen.parquet")
        self.checkpoints = storage.join(path, "checkpoints")
        self.logs = storage.join(path, "logs")
        self.metrics = storage.join(path, "metrics.jsonl")
        self.result = storage.join(path, "result.json")
        self.model = storage.join(path, "model")

    def check(self, config: ConfigDict) -> None:
        """Sees, without writing, whether a run of `config` can use this folder.

        Raises:
          ConfigError: it holds a run of another config, or its name cannot be used.
          StorageError: it cannot be written, is no folder, or holds a config that cannot be read.
        """
        if patterns := sorted(set(self.path) & set("*?[\\")):
            raise ConfigError(
                f"--workdir={self.path} cannot be used: TensorFlow looks checkpoints up by pattern, so their path "
                f"must not hold {' or '.join(patterns)}. Choose another name."
            )
        if tf.io.gfile.exists(self.config):
            changed = config_lib.changed_fields(self.load_config(), config)
            if changed:
                listed = "; ".join(f"config.{name}: {old!r} → {new!r}" for name, (old, new) in changed.items())
                raise ConfigError(
                    f"--workdir={self.path} holds a run of another config ({listed}). Runs are not mixed: use "
                    "another --workdir, or the config it was made with."
                )
        if "://" in self.path:
            return
        existing = os.path.abspath(self.path)
        while not os.path.lexists(existing):
            existing = os.path.dirname(existing)
        if not os.path.isdir(existing):
            raise StorageError(
                f"--workdir={self.path} cannot be a folder, since {existing} is none. Choose another name for it."
            )
        if not os.access(existing, os.W_OK | os.X_OK):
            raise StorageError(
                f"--workdir={self.path} cannot be written: {existing} is not writable for this user. "
                "Choose a folder of yours."
            )

    def check_data(self, description: dict[str, Any]) -> None:
        """Sees whether the data is what this folder's run was made from.

        Args:
          description: as given to `save_run`; its `fingerprints` are compared.

        Raises:
          ConfigError: names what differs.
          StorageError: what was saved cannot be read.
        """
        if not tf.io.gfile.exists(self.data):
            return
        with _reading(self.data):
            before = dict(json.loads(storage.read_bytes(self.data))["fingerprints"])
        for name, fingerprint in description["fingerprints"].items():
            if before.get(name) != fingerprint:
                raise ConfigError(
                    f"--workdir={self.path} holds a run on other data: its {name} had the fingerprint "
                    f"{str(before.get(name))[:12]}, now it has {fingerprint[:12]}. Runs are not mixed: use "
                    "another --workdir, or the data it was made with."
                )

    def save_run(self, config: ConfigDict, description: dict[str, Any]) -> None:
        """Writes what was run, on what."""
        storage.write_bytes(self.config, config_lib.to_json(config).encode())
        self.save_json(self.data, description)

    def save_json(self, path: str, value: Any) -> None:
        """Writes one of this folder's JSON files, whole or not at all, with null for a number that is not finite."""
        storage.write_bytes(path, (json.dumps(_finite(value), indent=2, allow_nan=False) + "\n").encode())

    def load_result(self) -> dict[str, Any]:
        """The final figures of a finished run; empty where it has not finished.

        Raises:
          StorageError: they cannot be read.
        """
        if not tf.io.gfile.exists(self.result):
            return {}
        with _reading(self.result):
            return dict(json.loads(storage.read_bytes(self.result)))

    def load_config(self) -> ConfigDict:
        """The config of the run in this folder.

        Raises:
          ConfigError: there is no run in it.
          StorageError: its config cannot be read.
        """
        if not tf.io.gfile.exists(self.config):
            raise ConfigError(
                f"--workdir={self.path} holds no run: there is no config.json in it. Train one first: "
                f"python -m trainer.main --workdir={self.path}"
            )
        with _reading(self.config):
            return config_lib.from_json(storage.read_bytes(self.config).decode())

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder and keeps every other run out of it; the kernel frees the lock of a killed run.

        On gs:// there is no lock.

        Raises:
          ConfigError: another run is writing here; it is named.
          StorageError: the folder, or the lock in it, cannot be made.
        """
        with storage.writing(self.path):
            tf.io.gfile.makedirs(self.path)
        if "://" in self.path:
            yield
            return
        path = storage.join(self.path, ".lock")
        with storage.writing(path):
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self._take(lock)
            yield
        finally:
            os.close(lock)

    def check_free(self) -> None:
        """Sees, before anything slow, that no other run is writing here; `locked` will make sure of it.

        Raises:
          ConfigError: another run is; it is named.
        """
        path = storage.join(self.path, ".lock")
        if "://" in self.path or not os.path.exists(path):
            return
        with storage.writing(path):
            lock = os.open(path, os.O_RDWR)
        try:
            self._take(lock)
        finally:
            os.close(lock)

    def _take(self, lock: int) -> None:
        """Locks an open file, until it is closed, and notes in it whose it is."""
        with storage.writing(storage.join(self.path, ".lock")):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(lock, 20).decode(errors="replace").strip()
                raise ConfigError(
                    f"--workdir={self.path} is in use by another run, process {holder or 'unknown'}. "
                    "Wait for it, end it, or use another --workdir."
                ) from None
            os.truncate(lock, 0)
            os.write(lock, str(os.getpid()).encode())


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turns whatever a broken JSON file leads to in the body into a StorageError that names `path`."""
    try:
        yield
    except (tf.errors.OpError, ValueError, LookupError, TypeError) as error:
        raise StorageError(
            f"{path} cannot be read as the JSON that a run leaves there: {storage.reason(error)}. Restore the file "
            "from a copy, or use another --workdir."
        ) from error


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
