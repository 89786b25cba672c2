"""The files of checkpoints in their folder: how they become whole, how damage is found, and which are deleted.

A checkpoint of step N consists of TensorFlow's files with the prefix `step-N` and a manifest, `step-N.json`. The
manifest has the size and SHA-256 of each file, what the checkpoint is of, and a SHA-256 of all this. It is written
last, in one step.

While a checkpoint is written or deleted, a marker `step-N.partial` lies beside its files. A later save deletes files
without a manifest only if they have this marker. Tensors with neither a manifest nor a marker have lost their
manifest: they count as damaged and are never deleted.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from settings.errors import ConfigError, StorageError
from trainer import storage
from trainer.workdir import FORMAT_VERSION, check_format_version

FORMAT = "listwise checkpoint"
DAMAGED = "damaged"
"""The folder for damaged checkpoints, in the folder of the others."""

_MANIFEST = re.compile(r"step-(\d{8,})\.json")
_MARKER = re.compile(r"step-(\d{8,})\.partial")
_TENSORS = re.compile(r"step-(\d{8,})\.(?:index|data-\d+-of-\d+)")
# Written by TensorFlow before it renames the tensors.
_UNFINISHED_TENSORS = re.compile(r"step-(\d{8,})\.(?:index|data-\d+-of-\d+)\.tempstate\d+")
# Written by `storage.write_bytes` before it renames the file.
_UNFINISHED_FILE = re.compile(r"step-(\d{8,})\.(?:json|partial)\.\d+\.tmp")


# TensorFlow needs a second more for an empty file on gs://.
_MARKER_CONTENT = b"partial"


class CheckpointFolder:
    """A folder of checkpoints, local or gs://.

    Attributes:
      path: of the folder. The first save creates it.
    """

    def __init__(self, path: str):
        self.path = path

    def steps(self) -> list[int]:
        """Returns the steps that have a manifest, ascending. Some of them may be damaged."""
        return _steps_in(self.path, _MANIFEST)

    def steps_with_files(self) -> list[int]:
        """Returns the steps that have a manifest, or tensors that are not marked as partial, ascending."""
        complete = {*_steps_in(self.path, _MANIFEST)}
        lost_manifest = {*_steps_in(self.path, _TENSORS)} - {*_steps_in(self.path, _MARKER)}
        return sorted(complete | lost_manifest)

    def steps_set_aside(self) -> list[int]:
        """Returns the steps of the damaged checkpoints that were set aside, ascending."""
        return CheckpointFolder(storage.join(self.path, DAMAGED)).steps_with_files()

    def prefix(self, step: int) -> str:
        """The path of the tensors of a step, without the suffixes."""
        return storage.join(self.path, f"step-{step:08d}")

    def begin(self, step: int) -> None:
        """Prepares the folder for the tensors of a step."""
        storage.make_folder(self.path)
        # The remains of an interrupted save take up room, and may be of this very step.
        self.sweep()
        if step in self.steps_with_files() and step not in self.steps():
            self.move_to_damaged(step)
        self._mark_partial(step)

    def commit(self, step: int, fields: Mapping[str, Any]) -> None:
        """Writes the manifest of a step whose tensors are there. With it the checkpoint is whole.

        Args:
          fields: what the manifest tells beside the format and the files.
        """
        files = self._files_of(step, _TENSORS)
        for path in files:
            storage.sync(path)
        manifest = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "step": step,
            **fields,
            "files": {_basename(path): _digest(path) for path in files},
        }
        manifest["sha256"] = checksum(manifest)
        storage.write_bytes(self._manifest_path(step), json.dumps(manifest, indent=2).encode())
        storage.remove(self._marker_path(step))

    def load_manifest(self, step: int) -> tuple[dict[str, Any], str]:
        """Returns the content of a manifest and its SHA-256.

        Raises:
          StorageError: it is missing or damaged.
          ConfigError: another version of this project wrote it.
        """
        path = self._manifest_path(step)
        if not storage.exists(path):
            raise StorageError(f"The checkpoint of step {step} is damaged: {path} is missing.")
        unreadable: tuple[type[Exception], ...] = (*storage.file_errors(), ValueError, KeyError, TypeError)
        try:
            manifest = dict(json.loads(storage.read_bytes(path)))
            digest = manifest.pop("sha256")
        except unreadable as error:
            raise StorageError(f"The checkpoint of step {step} is damaged: {path} cannot be read.") from error
        if digest != checksum(manifest) or manifest["step"] != step:
            raise StorageError(f"The checkpoint of step {step} is damaged: the content of {path} has changed.")
        what = f"The checkpoint of step {step} in {self.path}"
        check_format_version(manifest.get("format_version", 1), what)
        if manifest.get("format") != FORMAT:
            raise ConfigError(
                f"{what} has the format {manifest.get('format')!r} instead of {FORMAT!r}. Nothing was changed. Use "
                "another --workdir."
            )
        return manifest, digest

    def check_files(self, manifest: Mapping[str, Any]) -> None:
        """Compares the files of a checkpoint with its manifest.

        Raises:
          StorageError: one is missing or has another content.
        """
        for name, expected in manifest["files"].items():
            path = storage.join(self.path, name)
            damaged = f"The checkpoint of step {manifest['step']} is damaged:"
            if not storage.exists(path):
                raise StorageError(f"{damaged} {path} is missing.")
            if _digest(path) != expected:
                raise StorageError(f"{damaged} the content of {path} has changed.")

    def move_to_damaged(self, step: int) -> None:
        """Moves the files of a step to the folder for damaged checkpoints."""
        aside = storage.join(self.path, DAMAGED)
        storage.make_folder(aside)
        # The manifest goes last: if this is interrupted, the next start finds the checkpoint damaged again.
        for path in [*self._files_of(step, _TENSORS), *self._files_of(step, _MANIFEST)]:
            storage.rename(path, storage.join(aside, _basename(path)))

    def prune(self, keep: int) -> None:
        """Deletes all but the newest `keep` checkpoints, and the best one as of each of these."""
        steps = self.steps()
        newest = steps[-keep:]
        kept: set[int | None] = set(newest)
        for step in newest:
            # Each of these may become the one that the run resumes from, so the best one before it is kept too.
            with contextlib.suppress(StorageError):
                kept.add(self.load_manifest(step)[0]["best_step"])
        for step in steps:
            if step not in kept:
                self._mark_partial(step)
        self.sweep()

    def sweep(self) -> None:
        """Deletes the remains of interrupted saves and deletions."""
        complete = self.steps()
        for step in _steps_in(self.path, _MARKER):
            tensors = [] if step in complete else self._files_of(step, _TENSORS)
            for path in [*tensors, *self._files_of(step, _UNFINISHED_TENSORS)]:
                storage.remove(path)
            storage.sync(self.path)
            storage.remove(self._marker_path(step))
        for name in _names_in(self.path):
            if _UNFINISHED_FILE.fullmatch(name):
                storage.remove(storage.join(self.path, name))

    def _mark_partial(self, step: int) -> None:
        """Turns a manifest into a marker, which takes no room on a full disk. Without a manifest, writes a marker."""
        if storage.exists(self._manifest_path(step)):
            storage.rename(self._manifest_path(step), self._marker_path(step))
            storage.sync(self.path)
        else:
            storage.write_bytes(self._marker_path(step), _MARKER_CONTENT)

    def _files_of(self, step: int, pattern: re.Pattern[str]) -> list[str]:
        """The sorted paths of the files of a step whose names fit a pattern."""
        matches = [pattern.fullmatch(name) for name in _names_in(self.path)]
        return [storage.join(self.path, match[0]) for match in matches if match and int(match[1]) == step]

    def _manifest_path(self, step: int) -> str:
        return f"{self.prefix(step)}.json"

    def _marker_path(self, step: int) -> str:
        return f"{self.prefix(step)}.partial"


def checksum(fields: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of values that JSON can hold, in hexadecimal."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _names_in(folder: str) -> list[str]:
    return storage.list_folder(folder) if storage.is_folder(folder) else []


def _steps_in(folder: str, pattern: re.Pattern[str]) -> list[int]:
    return sorted({int(match[1]) for name in _names_in(folder) if (match := pattern.fullmatch(name))})


def _basename(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _digest(path: str) -> dict[str, Any]:
    """The size in bytes and the SHA-256 of a file."""
    return {"size": storage.size(path), "sha256": storage.sha256(path)}
