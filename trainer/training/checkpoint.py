"""Checkpoints that are saved in the background and verified before they are used.

`checkpoint_folder.py` tells what their files are.
"""

import contextlib
import copy
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from absl import logging

from settings.errors import ConfigError, DivergedError, Stopped, StorageError, UserError
from trainer import storage
from trainer.training import snapshot
from trainer.training.checkpoint_folder import DAMAGED, CheckpointFolder, checksum

_NUM_NAMED = 3
"""How many variables a message names."""


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
    return bool(CheckpointFolder(folder).steps_with_files())


class Checkpointer:
    """Saves and restores variables in one folder, local or gs://. As a context, it waits for the last save."""

    def __init__(
        self,
        folder: str,
        variables: snapshot.Variables,
        *,
        keep: int,
        fingerprints: Mapping[str, str] | None = None,
        is_chief: bool = True,
        before_writing: Callable[[], None] | None = None,
        after_writing: Callable[[], None] | None = None,
    ):
        """Every worker of a cluster restores. Only the chief writes, and needs no other worker for it.

        Args:
          folder: `WORKDIR/checkpoints`. The first save creates it.
          variables: all that training changes, by name; see `snapshot.named_variables`.
          keep: how many of the newest checkpoints are kept, in addition to the best.
          fingerprints: what a run is, by name, such as the SHA-256 of its config. A checkpoint with others is refused.
          before_writing: is called before a checkpoint is written. If it raises an error, nothing is written.
          after_writing: is called after each checkpoint.
        """
        self._folder = CheckpointFolder(folder)
        self._variables = variables
        self._keep = keep
        self._fingerprints = dict(fingerprints or {})
        self._is_chief = is_chief
        self._before_writing = before_writing or (lambda: None)
        self._after_writing = after_writing or (lambda: None)
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.wait()
        # A second signal ends the process at once.
        elif isinstance(error, Exception | Stopped):
            try:
                self.wait()
            except UserError as error_of_save:
                # The first error goes on.
                logging.error("%s", error_of_save)

    def save(
        self, step: int, state: dict[str, Any], *, best_step: int | None = None, validation_value: float | None = None
    ) -> None:
        """Copies the variables, and saves a checkpoint of `step` in the background.

        When it is whole, old ones are deleted, except the newest few and the best. If the save before this one is still
        being written, waits for it first.

        Args:
          state: values that JSON can hold.
          best_step: the step of the best checkpoint so far.
          validation_value: the value of the best-checkpoint metric at `step`; None if it was not measured.
            `restore_best` needs it to find the next best.

        Raises:
          UserError: the save before this one has failed; see `wait`.
        """
        self.wait()
        if not self._is_chief:
            return
        fields = {"best_step": best_step, "validation_value": validation_value, "state": copy.deepcopy(state)}
        values = snapshot.take(self._variables)
        # A daemon, because a second signal ends the process at once.
        self._thread = threading.Thread(target=self._save, args=(step, fields, values), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Waits until the last checkpoint is written and the old ones are deleted.

        Raises:
          StorageError: it cannot be written. The earlier ones are unchanged.
          DivergedError: a variable holds a number that is not finite. Nothing was written.
          UserError: what `before_writing` raised. Nothing was written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def restore_latest(self) -> Saved | None:
        """Restores the newest checkpoint that is not damaged. Returns None if the run has not saved any.

        If a newer one is damaged, the log describes the damage, and its files are moved to `damaged/`.

        Raises:
          StorageError: all checkpoints are damaged. Nothing is moved.
          ConfigError: the checkpoint is of another run, or of another version of this project. Nothing is changed.
        """
        self.wait()
        damage: dict[int, StorageError] = {}
        for step in reversed(self._folder.steps_with_files()):
            try:
                saved = self._verify(step)
            except StorageError as error:
                damage[step] = error
                continue
            self._read(saved)
            self._set_aside(damage)
            return saved
        # Checkpoints that an earlier start has set aside count too: the run must not start again from step 0.
        set_aside = self._folder.steps_set_aside()
        if damage or set_aside:
            raise self._all_damaged(damage, set_aside)
        return None

    def restore(self, step: int) -> Saved:
        """Restores the checkpoint of `step`.

        Raises:
          StorageError: it is missing or damaged.
          ConfigError: it is of another run, or of another version of this project. Nothing is changed.
        """
        self.wait()
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
          ConfigError: a checkpoint is of another run, or of another version of this project. Nothing is changed.
        """
        self.wait()
        damage: dict[int, StorageError] = {}
        others: list[Saved] = []
        for step in [best_step, *(step for step in self._folder.steps_with_files() if step != best_step)]:
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
        return self._folder.steps()

    def _save(self, step: int, fields: dict[str, Any], values: snapshot.Snapshot) -> None:
        """Runs in the background, and leaves an error to `wait`."""
        try:
            if (name := snapshot.first_not_finite(values)) is not None:
                raise DivergedError(
                    f"Training diverged: after step {step} {name} holds numbers that are not finite. This step was not "
                    "saved. Lower config.optimizer.learning_rate or set config.optimizer.clip_norm, and use a new "
                    "--workdir."
                )
            self._before_writing()
            self._write(step, fields, values)
            self._after_writing()
        except BaseException as error:
            self._error = error

    def _write(self, step: int, fields: dict[str, Any], values: snapshot.Snapshot) -> None:
        failures: tuple[type[Exception], ...] = (StorageError, *storage.file_errors())
        try:
            self._folder.begin(step)
            snapshot.write(self._folder.prefix(step), values)
            self._folder.commit(
                step, {**fields, "fingerprints": self._all_fingerprints(), "variables": self._descriptions()}
            )
            self._folder.prune(self._keep)
        except failures as error:
            with contextlib.suppress(*failures):
                self._folder.sweep()
            raise StorageError(
                f"The checkpoint of step {step} cannot be written to {self._folder.path}: {storage.reason(error)}. "
                "The earlier checkpoints are unchanged. Make room, and start the same command again."
            ) from error

    def _read(self, saved: Saved) -> None:
        try:
            snapshot.assign(saved.prefix, self._variables)
        except storage.file_errors() as error:
            raise StorageError(
                f"The checkpoint of step {saved.step} in {self._folder.path} cannot be read: {storage.reason(error)}. "
                "Nothing was changed. Start the same command again."
            ) from error

    def _verify(self, step: int) -> Saved:
        manifest, digest = self._folder.load_manifest(step)
        self._check_fits(manifest)
        self._folder.check_files(manifest)
        return Saved(step, manifest["state"], self._folder.prefix(step), digest, manifest["validation_value"])

    def _check_fits(self, manifest: Mapping[str, Any]) -> None:
        """Raises ConfigError if a checkpoint has other variables, or is of another config or other data."""
        variables = _differences(manifest["variables"], self._descriptions())
        if num_more := len(variables[_NUM_NAMED:]):
            variables = [*variables[:_NUM_NAMED], f"{num_more} more variables"]
        fingerprints = _differences(_shortened(manifest["fingerprints"]), _shortened(self._all_fingerprints()))
        if variables or fingerprints:
            differences = "; ".join([*variables, *(f"the fingerprint of the {each}" for each in fingerprints)])
            raise ConfigError(
                f"The checkpoint of step {manifest['step']} in {self._folder.path} is of another run: {differences}. "
                "Nothing was changed. Use the config and the data that it was made with, or another --workdir."
            )

    def _descriptions(self) -> dict[str, str]:
        return snapshot.describe(self._variables)

    def _all_fingerprints(self) -> dict[str, str]:
        """Those that were given, and those of the model and the optimizer: what their variables are."""
        described: dict[str, dict[str, str]] = {}
        for name, description in self._descriptions().items():
            described.setdefault(name.partition("/")[0], {})[name] = description
        return self._fingerprints | {owner: checksum(variables) for owner, variables in described.items()}

    def _all_damaged(self, damage: dict[int, StorageError], set_aside: list[int]) -> StorageError:
        reasons = [str(error) for error in damage.values()]
        if set_aside:
            reasons.append(f"Steps {set_aside} were moved to {DAMAGED}/ earlier.")
        return StorageError(
            f"All checkpoints in {self._folder.path} are damaged. {' '.join(reasons)} Nothing was changed. Restore a "
            "checkpoint from a copy, or start again with another --workdir."
        )

    def _set_aside(self, damage: dict[int, StorageError]) -> None:
        for step, error in damage.items():
            logging.error("%s Its files are moved to %s/.", error, DAMAGED)
            if self._is_chief:
                self._folder.move_to_damaged(step)


def _differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """What differs, as name: old → new."""
    return [
        f"{name}: {old.get(name, 'none')} → {new.get(name, 'none')}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _shortened(fingerprints: Mapping[str, str]) -> dict[str, str]:
    return {name: fingerprint[:12] for name, fingerprint in fingerprints.items()}
