"""Checkpoints: saved whole, verified before they are trusted, the newest few and the best kept.

A checkpoint is TensorFlow's own files under a prefix `step-NNNNNNNN`, and a manifest `step-NNNNNNNN.json`
with the size and SHA-256 of each of them and the state of the run that is not a tensor. The manifest is
written last, in one step, and only what has one counts: a save that was cut short never looks like a
checkpoint. There is no pointer file that could be stale or empty; the manifests are the list.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from absl import logging

from trainer import storage
from trainer.compat import tf
from trainer.errors import ConfigError, StorageError

_MANIFEST = re.compile(r"step-(\d{8,})\.json")
_DAMAGED = "damaged"


@dataclass(frozen=True)
class Saved:
    """A verified checkpoint: after how many steps, and the run's state beside the tensors."""

    step: int
    state: dict[str, Any]
    prefix: str


class Checkpointer:
    """Saves and restores `trackable` in one folder, local or gs://."""

    def __init__(
        self,
        folder: str,
        trackable: tf.train.Checkpoint,
        *,
        keep: int,
        is_chief: bool = True,
        worker_name: str = "worker-0",
    ):
        """Every worker of a cluster makes one, since each has to take part in writing; only the chief's stays.

        Args:
          folder: `WORKDIR/checkpoints`; made by the first save.
          trackable: model and optimizer, with all their variables already built.
          keep: how many of the newest stay, beside the best.
          worker_name: which no other worker has.
        """
        self._folder = folder
        self._trackable = trackable
        self._keep = keep
        self._is_chief = is_chief
        self._scratch = storage.join(folder, f"{worker_name}.tmp")

    def save(self, step: int, state: dict[str, Any], *, best_step: int | None = None) -> None:
        """Saves after `step` steps, then deletes what need not be kept: not the newest few, not `best_step`.

        Raises:
          StorageError: it could not be written. What was kept before is still whole.
        """
        if not self._is_chief:
            self._trackable.write(storage.join(self._scratch, _name(step)))
            tf.io.gfile.rmtree(self._scratch)
            return
        try:
            tf.io.gfile.makedirs(self._folder)
            prefix = self._trackable.write(storage.join(self._folder, _name(step)))
        except (tf.errors.OpError, OSError) as error:
            for path in self._files_of(step):
                tf.io.gfile.remove(path)
            raise StorageError(
                f"The checkpoint of step {step} cannot be written to {self._folder}: {storage.reason(error)}. "
                "The checkpoints before it are whole; make room and start the same command again."
            ) from error
        files = tf.io.gfile.glob(prefix + ".*")
        for path in files:
            storage.sync(path)
        manifest = {"step": step, "state": state, "files": {_basename(path): _digest(path) for path in files}}
        storage.write_bytes(self._manifest_path(step), json.dumps(manifest, indent=2).encode())
        self._prune(best_step)

    def restore_latest(self) -> Saved | None:
        """Restores the newest whole checkpoint; None where the run has none yet.

        A damaged one is named in the log and moved to `damaged/`, and the one before it is used.

        Raises:
          StorageError: there are checkpoints, and none of them is whole.
          ConfigError: the checkpoint is of a model or optimizer of another shape.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                saved = self._verify(step)
            except StorageError as error:
                logging.error("%s It is set aside in %s/.", error, _DAMAGED)
                self._set_aside(step)
                continue
            self._read(saved)
            return saved
        if steps:
            raise StorageError(
                f"None of the checkpoints in {self._folder} is whole: steps {steps} were damaged and are in "
                f"{_DAMAGED}/. Copy a good one back, or start again with another --workdir."
            )
        return None

    def restore(self, step: int) -> Saved:
        """Restores the checkpoint of `step`.

        Raises:
          StorageError: it is missing or damaged.
        """
        saved = self._verify(step)
        self._read(saved)
        return saved

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, ascending. Not all of them need be whole."""
        if not tf.io.gfile.isdir(self._folder):
            return []
        found = [_MANIFEST.fullmatch(name) for name in tf.io.gfile.listdir(self._folder)]
        return sorted(int(match[1]) for match in found if match)

    def _read(self, saved: Saved) -> None:
        try:
            status = self._trackable.read(saved.prefix)
            status.assert_consumed()
        except (AssertionError, ValueError) as error:
            raise ConfigError(
                f"The checkpoint of step {saved.step} in {self._folder} is of a model or optimizer of another "
                f"shape: {storage.reason(error)}. Use the config it was made with, or another --workdir."
            ) from error

    def _verify(self, step: int) -> Saved:
        path = self._manifest_path(step)
        try:
            manifest = json.loads(storage.read_bytes(path))
            files = dict(manifest["files"])
            state = dict(manifest["state"])
        except (tf.errors.OpError, ValueError, KeyError, TypeError) as error:
            raise StorageError(f"The checkpoint of step {step} has no readable manifest {path}.") from error
        for name, expected in files.items():
            path = storage.join(self._folder, name)
            if not tf.io.gfile.exists(path):
                raise StorageError(f"The checkpoint of step {step} is damaged: {path} is missing.")
            if _digest(path) != expected:
                raise StorageError(f"The checkpoint of step {step} is damaged: {path} is not as it was saved.")
        return Saved(step, state, storage.join(self._folder, _name(step)))

    def _set_aside(self, step: int) -> None:
        if not self._is_chief:
            return
        aside = storage.join(self._folder, _DAMAGED)
        tf.io.gfile.makedirs(aside)
        for path in self._files_of(step):
            tf.io.gfile.rename(path, storage.join(aside, _basename(path)), overwrite=True)

    def _prune(self, best_step: int | None) -> None:
        """Deletes old checkpoints, each manifest first, and the remains of saves that were cut short."""
        steps = self.steps()
        kept = {*steps[-self._keep :], best_step}
        for step in steps:
            if step not in kept:
                tf.io.gfile.remove(self._manifest_path(step))
        for name in tf.io.gfile.listdir(self._folder):
            match = re.match(r"step-(\d{8,})[._]", name)
            if match and int(match[1]) not in kept:
                path = storage.join(self._folder, name)
                tf.io.gfile.rmtree(path) if tf.io.gfile.isdir(path) else tf.io.gfile.remove(path)

    def _files_of(self, step: int) -> list[str]:
        return tf.io.gfile.glob(storage.join(self._folder, f"{_name(step)}.*"))

    def _manifest_path(self, step: int) -> str:
        return storage.join(self._folder, f"{_name(step)}.json")


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _basename(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _digest(path: str) -> dict[str, Any]:
    """Size in bytes and SHA-256 of a file."""
    sha, size = hashlib.sha256(), 0
    with tf.io.gfile.GFile(path, "rb") as file:
        while block := file.read(1 << 22):
            sha.update(block)
            size += len(block)
    return {"size": size, "sha256": sha.hexdigest()}
