"""Checkpoints that are verified before they are used. The newest few and the best are kept.

A checkpoint of step N consists of TensorFlow's files with the prefix `step-N` and a manifest, `step-N.json`. The
manifest contains the size and SHA-256 of each file, the part of the run's state that is not a tensor, and a SHA-256
of all this. It is written last, in one step.

While a checkpoint is written or deleted, a marker `step-N.partial` lies beside its files. A later save deletes files
without a manifest only if they have this marker. Tensors with neither a manifest nor a marker have lost their
manifest: they count as damaged and are never deleted.
"""

import contextlib
import hashlib
import json
import math
import re
from dataclasses import dataclass
from typing import Any

from absl import logging

from settings.errors import ConfigError, StorageError
from trainer import storage
from trainer.compat import tf
from trainer.workdir import FORMAT_VERSION, check_format_version

_MANIFEST = re.compile(r"step-(\d{8,})\.json")
_MARKER = re.compile(r"step-(\d{8,})\.partial")
_TENSORS = re.compile(r"step-(\d{8,})\.(?:index|data-\d+-of-\d+)")
# Written by `storage.write_bytes` before it renames the file.
_UNFINISHED_FILE = re.compile(r"step-(\d{8,})\.(?:json|partial)\.\d+\.tmp")
_DAMAGED = "damaged"


@dataclass(frozen=True)
class Saved:
    """A verified checkpoint.

    Attributes:
      step: the number of steps that were taken before it.
      state: the part of the run's state that is not a tensor.
      prefix: the path of TensorFlow's files, without their suffixes.
      digest: the SHA-256 of its manifest. It differs if any byte of the checkpoint differs.
      validation_value: the value of the best-checkpoint metric at this step; None if it was not measured.
    """

    step: int
    state: dict[str, Any]
    prefix: str
    digest: str
    validation_value: float | None = None


def has_checkpoints(folder: str) -> bool:
    """Whether a run has left any checkpoint in `folder`, damaged or not."""
    return bool(_steps_with_files(folder))


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
        """Every worker of a cluster needs a Checkpointer, because TensorFlow writes with all of them.

        Only the chief's files are kept.

        Args:
          folder: `WORKDIR/checkpoints`. The first save creates it.
          trackable: the model and the optimizer. All their variables must exist.
          keep: how many of the newest checkpoints are kept, in addition to the best.
          worker_name: a name that no other worker has.
        """
        self._folder = folder
        self._trackable = trackable
        self._keep = keep
        self._is_chief = is_chief
        self._scratch = storage.join(folder, f"{worker_name}.tmp")

    def save(
        self, step: int, state: dict[str, Any], *, best_step: int | None = None, validation_value: float | None = None
    ) -> None:
        """Saves a checkpoint of `step`. Then deletes the old ones, except the newest few and the best.

        Args:
          state: values that JSON can hold.
          best_step: the step of the best checkpoint so far.
          validation_value: the value of the best-checkpoint metric at `step`; None if it was not measured.
            `restore_best` needs it to find the next best.

        Raises:
          StorageError: the checkpoint cannot be written. The earlier ones are unchanged.
        """
        try:
            if self._is_chief:
                self._write(step, state, best_step, validation_value)
                self._prune()
            else:
                self._trackable.write(storage.join(self._scratch, _name(step)))
        except (tf.errors.OpError, OSError, StorageError) as error:
            if self._is_chief:
                with contextlib.suppress(tf.errors.OpError, OSError):
                    self._sweep()
            raise StorageError(
                f"The checkpoint of step {step} cannot be written to {self._folder}: {storage.reason(error)}. "
                "The earlier checkpoints are unchanged. Make room, and start the same command again."
            ) from error
        finally:
            if not self._is_chief and tf.io.gfile.isdir(self._scratch):
                tf.io.gfile.rmtree(self._scratch)

    def restore_latest(self) -> Saved | None:
        """Restores the newest checkpoint that is not damaged. Returns None if the run has not saved any.

        If a newer one is damaged, the log describes the damage, and its files are moved to `damaged/`.

        Raises:
          StorageError: all checkpoints are damaged. Nothing is moved.
          ConfigError: the checkpoint is of another model or optimizer, or of another version of this project.
        """
        damage: dict[int, StorageError] = {}
        for step in reversed(_steps_with_files(self._folder)):
            try:
                saved = self._verify(step)
            except StorageError as error:
                damage[step] = error
                continue
            self._read(saved)
            self._set_aside(damage)
            return saved
        # Checkpoints that an earlier start has set aside count too: the run must not start again from step 0.
        set_aside = _steps_with_files(storage.join(self._folder, _DAMAGED))
        if damage or set_aside:
            raise self._all_damaged(damage, set_aside)
        return None

    def restore(self, step: int) -> Saved:
        """Restores the checkpoint of `step`.

        Raises:
          StorageError: it is missing or damaged.
          ConfigError: it is of another model or optimizer, or of another version of this project.
        """
        saved = self._verify(step)
        self._read(saved)
        return saved

    def restore_best(self, best_step: int, *, direction: str) -> Saved:
        """Restores the checkpoint of `best_step`, or the next best one if that is damaged.

        The next best one is the undamaged checkpoint with the best `validation_value`, or the newest if none has a
        value. The log names the damage and the checkpoint that is used instead. The damaged files are moved to
        `damaged/`.

        Args:
          best_step: the step with the best validation value.
          direction: "max" if a larger validation value is better, "min" if a smaller one is.

        Returns:
          The checkpoint that was restored. Its step differs from `best_step` if that one is damaged.

        Raises:
          StorageError: all checkpoints are damaged. Nothing is moved.
          ConfigError: the checkpoint is of another model or optimizer, or of another version of this project.
        """
        damage: dict[int, StorageError] = {}
        others: list[Saved] = []
        for step in [best_step, *(step for step in _steps_with_files(self._folder) if step != best_step)]:
            try:
                saved = self._verify(step)
            except StorageError as error:
                damage[step] = error
                continue
            if step == best_step:
                self._read(saved)
                return saved
            others.append(saved)
        if not others:
            raise self._all_damaged(damage, [])

        def quality(saved: Saved) -> tuple[float, int]:
            value = saved.validation_value
            if value is None or not math.isfinite(value):
                return -math.inf, saved.step
            return (-value if direction == "min" else value), saved.step

        saved = max(others, key=quality)
        self._read(saved)
        self._set_aside(damage)
        logging.error(
            "The best checkpoint, of step %d, cannot be used. The next best, of step %d, is used instead.",
            best_step,
            saved.step,
        )
        return saved

    def steps(self) -> list[int]:
        """Returns the steps that have a checkpoint, ascending. Some of them may be damaged."""
        return _steps_in(self._folder, _MANIFEST)

    def _write(self, step: int, state: dict[str, Any], best_step: int | None, validation_value: float | None) -> None:
        tf.io.gfile.makedirs(self._folder)
        # The remains of an interrupted save take up room, and may be of this very step.
        self._sweep()
        if step in _steps_with_files(self._folder) and step not in self.steps():
            self._move_to_damaged(step)
        self._mark_partial(step)
        self._trackable.write(storage.join(self._folder, _name(step)))
        files = self._tensor_files_of(step)
        for path in files:
            storage.sync(path)
        manifest: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "step": step,
            "best_step": best_step,
            "validation_value": validation_value,
            "state": state,
            "files": {_basename(path): _digest(path) for path in files},
        }
        manifest["sha256"] = _checksum(manifest)
        storage.write_bytes(self._manifest_path(step), json.dumps(manifest, indent=2).encode())
        tf.io.gfile.remove(self._marker_path(step))

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
        manifest, digest = self._load_manifest(step)
        for name, expected in manifest["files"].items():
            path = storage.join(self._folder, name)
            if not tf.io.gfile.exists(path):
                raise StorageError(f"The checkpoint of step {step} is damaged: {path} is missing.")
            if _digest(path) != expected:
                raise StorageError(f"The checkpoint of step {step} is damaged: the content of {path} has changed.")
        return Saved(
            step, manifest["state"], storage.join(self._folder, _name(step)), digest, manifest["validation_value"]
        )

    def _load_manifest(self, step: int) -> tuple[dict[str, Any], str]:
        """Returns the content of a manifest and its SHA-256."""
        path = self._manifest_path(step)
        if not tf.io.gfile.exists(path):
            raise StorageError(f"The checkpoint of step {step} is damaged: {path} is missing.")
        try:
            manifest = dict(json.loads(storage.read_bytes(path)))
            checksum = manifest.pop("sha256")
        except (tf.errors.OpError, OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError(f"The checkpoint of step {step} is damaged: {path} cannot be read.") from error
        if checksum != _checksum(manifest) or manifest["step"] != step:
            raise StorageError(f"The checkpoint of step {step} is damaged: the content of {path} has changed.")
        check_format_version(manifest.get("format_version", 1), f"The checkpoint of step {step} in {self._folder}")
        return manifest, checksum

    def _all_damaged(self, damage: dict[int, StorageError], set_aside: list[int]) -> StorageError:
        reasons = [str(error) for error in damage.values()]
        if set_aside:
            reasons.append(f"Steps {set_aside} were moved to {_DAMAGED}/ earlier.")
        return StorageError(
            f"All checkpoints in {self._folder} are damaged. {' '.join(reasons)} Nothing was changed. Restore a "
            "checkpoint from a copy, or start again with another --workdir."
        )

    def _set_aside(self, damage: dict[int, StorageError]) -> None:
        for step, error in damage.items():
            logging.error("%s Its files are moved to %s/.", error, _DAMAGED)
            if self._is_chief:
                self._move_to_damaged(step)

    def _move_to_damaged(self, step: int) -> None:
        aside = storage.join(self._folder, _DAMAGED)
        tf.io.gfile.makedirs(aside)
        # The manifest goes last: if this is interrupted, the next start finds the checkpoint damaged again.
        manifest = [path for path in [self._manifest_path(step)] if tf.io.gfile.exists(path)]
        for path in [*self._tensor_files_of(step), *manifest]:
            tf.io.gfile.rename(path, storage.join(aside, _basename(path)), overwrite=True)

    def _prune(self) -> None:
        steps = self.steps()
        newest = steps[-self._keep :]
        kept: set[int | None] = set(newest)
        for step in newest:
            # Each of these may become the one that the run resumes from, so the best one before it is kept too.
            with contextlib.suppress(StorageError):
                kept.add(self._load_manifest(step)[0]["best_step"])
        for step in steps:
            if step not in kept:
                self._mark_partial(step)
        self._sweep()

    def _mark_partial(self, step: int) -> None:
        """Turns a manifest into a marker, which takes no room on a full disk. Without a manifest, writes a marker."""
        manifest, marker = self._manifest_path(step), self._marker_path(step)
        if tf.io.gfile.exists(manifest):
            tf.io.gfile.rename(manifest, marker, overwrite=True)
            storage.sync(self._folder)
        else:
            storage.write_bytes(marker, b"")

    def _sweep(self) -> None:
        """Deletes the remains of interrupted saves and deletions."""
        complete = self.steps()
        for step in _steps_in(self._folder, _MARKER):
            if step not in complete:
                for path in self._tensor_files_of(step):
                    tf.io.gfile.remove(path)
                temporary = storage.join(self._folder, f"{_name(step)}_temp")
                if tf.io.gfile.isdir(temporary):
                    tf.io.gfile.rmtree(temporary)
                storage.sync(self._folder)
            tf.io.gfile.remove(self._marker_path(step))
        for name in _names_in(self._folder):
            if _UNFINISHED_FILE.fullmatch(name):
                tf.io.gfile.remove(storage.join(self._folder, name))

    def _tensor_files_of(self, step: int) -> list[str]:
        names = [name for name in _names_in(self._folder) if _TENSORS.fullmatch(name)]
        return [storage.join(self._folder, name) for name in sorted(names) if name.startswith(f"{_name(step)}.")]

    def _manifest_path(self, step: int) -> str:
        return storage.join(self._folder, f"{_name(step)}.json")

    def _marker_path(self, step: int) -> str:
        return storage.join(self._folder, f"{_name(step)}.partial")


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _names_in(folder: str) -> list[str]:
    return [name.rstrip("/") for name in tf.io.gfile.listdir(folder)] if tf.io.gfile.isdir(folder) else []


def _steps_in(folder: str, pattern: re.Pattern[str]) -> list[int]:
    return sorted({int(match[1]) for name in _names_in(folder) if (match := pattern.fullmatch(name))})


def _steps_with_files(folder: str) -> list[int]:
    """The steps that have a manifest, or tensors that a save or deletion has not marked as partial."""
    complete = {*_steps_in(folder, _MANIFEST)}
    lost_manifest = {*_steps_in(folder, _TENSORS)} - {*_steps_in(folder, _MARKER)}
    return sorted(complete | lost_manifest)


def _basename(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _digest(path: str) -> dict[str, Any]:
    """The size in bytes and the SHA-256 of a file."""
    sha, size = hashlib.sha256(), 0
    with tf.io.gfile.GFile(path, "rb") as file:
        while block := file.read(1 << 22):
            sha.update(block)
            size += len(block)
    return {"size": size, "sha256": sha.hexdigest()}


def _checksum(manifest: dict[str, Any]) -> str:
    """The SHA-256 of a manifest's content."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
