"""Checkpoints: saved whole, verified before they are trusted, the newest few and the best kept.

A checkpoint is TensorFlow's own files under a prefix `step-NNNNNNNN`, and a manifest `step-NNNNNNNN.json`
with the size and SHA-256 of each of them, the state of the run that is not a tensor, and a SHA-256 of all
this. The manifest is written last, in one step, and only what has one counts: a save that was cut short never
looks like a checkpoint. There is no pointer file that could be stale or empty; the manifests are the list.
"""

import contextlib
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from absl import logging

from settings.errors import ConfigError, StorageError
from trainer import storage
from trainer.compat import tf

_MANIFEST = re.compile(r"step-(\d{8,})\.json")
_ANY_FILE = re.compile(r"step-(\d{8,})[._].*")
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
        try:
            if self._is_chief:
                self._write(step, state, best_step)
                self._prune()
            else:
                self._trackable.write(storage.join(self._scratch, _name(step)))
        except (tf.errors.OpError, OSError, StorageError) as error:
            if self._is_chief:
                with contextlib.suppress(tf.errors.OpError):
                    self._sweep()
            raise StorageError(
                f"The checkpoint of step {step} cannot be written to {self._folder}: {storage.reason(error)}. "
                "The checkpoints before it are whole; make room and start the same command again."
            ) from error
        finally:
            if not self._is_chief and tf.io.gfile.isdir(self._scratch):
                tf.io.gfile.rmtree(self._scratch)

    def _write(self, step: int, state: dict[str, Any], best_step: int | None) -> None:
        tf.io.gfile.makedirs(self._folder)
        # A save that was cut short takes room, and may have been of this very step.
        self._sweep()
        self._trackable.write(storage.join(self._folder, _name(step)))
        files = self._files_of(step)
        for path in files:
            storage.sync(path)
        manifest: dict[str, Any] = {
            "step": step,
            "best_step": best_step,
            "state": state,
            "files": {_basename(path): _digest(path) for path in files},
        }
        manifest["sha256"] = _checksum(manifest)
        storage.write_bytes(self._manifest_path(step), json.dumps(manifest, indent=2).encode())

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
        # Also those set aside by an earlier start: started twice, a run must not begin anew unasked either.
        damaged = sorted({*steps, *_steps_in(storage.join(self._folder, _DAMAGED))})
        if damaged:
            raise StorageError(
                f"None of the checkpoints in {self._folder} is whole: steps {damaged} were damaged and are in "
                f"{_DAMAGED}/. Copy a good one back, or start again with another --workdir."
            )
        return None

    def restore(self, step: int) -> Saved:
        """Restores the checkpoint of `step`.

        Raises:
          StorageError: it is missing or damaged.
          ConfigError: it is of a model or optimizer of another shape.
        """
        saved = self._verify(step)
        self._read(saved)
        return saved

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, ascending. Not all of them need be whole."""
        return _steps_in(self._folder)

    def _read(self, saved: Saved) -> None:
        try:
            status = self._trackable.read(saved.prefix)
            status.assert_consumed()
        except (AssertionError, ValueError, tf.errors.InvalidArgumentError) as error:
            raise ConfigError(
                f"The checkpoint of step {saved.step} in {self._folder} is of a model or optimizer of another "
                f"shape: {storage.reason(error)}. Use the config it was made with, or another --workdir."
            ) from error

    def _verify(self, step: int) -> Saved:
        manifest = self._load_manifest(step)
        for name, expected in manifest["files"].items():
            path = storage.join(self._folder, name)
            if not tf.io.gfile.exists(path):
                raise StorageError(f"The checkpoint of step {step} is damaged: {path} is missing.")
            if _digest(path) != expected:
                raise StorageError(f"The checkpoint of step {step} is damaged: {path} is not as it was saved.")
        return Saved(step, manifest["state"], storage.join(self._folder, _name(step)))

    def _load_manifest(self, step: int) -> dict[str, Any]:
        path = self._manifest_path(step)
        try:
            manifest = dict(json.loads(storage.read_bytes(path)))
            checksum = manifest.pop("sha256")
        except (tf.errors.OpError, ValueError, KeyError, TypeError) as error:
            raise StorageError(f"The checkpoint of step {step} has no readable manifest {path}.") from error
        if checksum != _checksum(manifest) or manifest["step"] != step:
            raise StorageError(f"The checkpoint of step {step} is damaged: {path} is not as it was saved.")
        return manifest

    def _set_aside(self, step: int) -> None:
        if not self._is_chief:
            return
        aside = storage.join(self._folder, _DAMAGED)
        tf.io.gfile.makedirs(aside)
        for path in self._files_of(step):
            tf.io.gfile.rename(path, storage.join(aside, _basename(path)), overwrite=True)

    def _prune(self) -> None:
        """Deletes old checkpoints, each manifest first."""
        steps = self.steps()
        newest = steps[-self._keep :]
        kept: set[int | None] = set(newest)
        for step in newest:
            # The best as of each: where the newest is found damaged, the run goes on from the one before it.
            with contextlib.suppress(StorageError):
                kept.add(self._load_manifest(step)["best_step"])
        for step in steps:
            if step not in kept:
                tf.io.gfile.remove(self._manifest_path(step))
        self._sweep()

    def _sweep(self) -> None:
        """Deletes the files that no manifest stands for."""
        steps = self.steps()
        for name in _names_in(self._folder):
            match = _ANY_FILE.match(name)
            if match and int(match[1]) not in steps:
                path = storage.join(self._folder, name)
                tf.io.gfile.rmtree(path) if tf.io.gfile.isdir(path) else tf.io.gfile.remove(path)

    def _files_of(self, step: int) -> list[str]:
        """Paths in alphabetical order: data, index, and last the manifest (.json)."""
        names = [name for name in _names_in(self._folder) if name.startswith(f"{_name(step)}.")]
        return [storage.join(self._folder, name) for name in sorted(names)]

    def _manifest_path(self, step: int) -> str:
        return storage.join(self._folder, f"{_name(step)}.json")


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _names_in(folder: str) -> list[str]:
    return tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []


def _steps_in(folder: str) -> list[int]:
    found = [_MANIFEST.fullmatch(name) for name in _names_in(folder)]
    return sorted(int(match[1]) for match in found if match)


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


def _checksum(manifest: dict[str, Any]) -> str:
    """SHA-256 of a manifest's content."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
