"""The folder of a run: its paths, its records, its lock, and the checks that decide whether a run may use it."""

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from ml_collections import ConfigDict
from pydantic import BaseModel

from settings.errors import ConfigError, StorageError
from settings.trainer_config import TrainerConfig, from_saved, load_trainer_config
from trainer import config as config_lib
from trainer import schema, storage, workdir_lock
from trainer.workdir_lock import Lock

FORMAT_VERSION = 5
"""The format of config.json, data.json, result.json and the checkpoints. Version 1 had no such number."""

_VOCABULARY_FILES = {"users.parquet", "items.parquet", "features.parquet"}

Config: TypeAlias = ConfigDict | BaseModel | Mapping[str, Any]


class Workdir:
    """The paths of what a run writes, local or gs://."""

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
        self.queries = storage.join(path, "queries.parquet")
        self.model = storage.join(path, "model")
        self.report = storage.join(path, "report.html")

    def check(self, config: Config) -> None:
        """Checks whether a run of `config` can use this folder. Writes nothing.

        Raises:
          ConfigError: the folder holds a run of another config or of another version of this project, or its name
            cannot be used.
          StorageError: the folder cannot be written, or is not a folder, or its run has no readable config, or its
            bucket does not exist or does not answer.
        """
        storage.check_bucket(self.path)
        if patterns := sorted(set(self.path) & set("*?[\\")):
            raise ConfigError(
                f"--workdir={self.path} cannot be used: TensorFlow finds checkpoints by pattern, so their path "
                f"must not contain {' or '.join(patterns)}. Choose another name."
            )
        if storage.exists(self.config):
            changed = config_lib.changed_fields(self._saved_config(), config)
            if changed:
                listed = "; ".join(f"config.{name}: {old!r} → {new!r}" for name, (old, new) in changed.items())
                raise ConfigError(
                    f"--workdir={self.path} holds a run of another config ({listed}). Use another --workdir, or the "
                    "config of that run."
                )
        elif found := self._files_of_a_run():
            raise StorageError(
                f"--workdir={self.path} contains {', '.join(found)}, but no config.json, so it is unknown which run "
                "they belong to. Nothing was changed. Restore config.json from a copy, or use another --workdir."
            )
        if "://" not in self.path:
            self._check_writable()

    def check_data(self, description: Mapping[str, Any]) -> None:
        """Checks whether the run in this folder was trained on the same data.

        Args:
          description: what `save_run` gets. Its `fingerprints` are compared.

        Raises:
          ConfigError: the data differs. The message names the part that differs.
          StorageError: data.json cannot be read, or the run has lost it.
        """
        if not storage.exists(self.data):
            if self._has_checkpoint():
                raise StorageError(
                    f"{self.data} is missing, so it is unknown which data the run in --workdir={self.path} was trained "
                    "on. Nothing was changed. Restore the file from a copy, or use another --workdir."
                )
            return
        saved = self.load_json(self.data)
        with storage.reading_json(self.data, of="a run"):
            before = dict(saved["fingerprints"])
        for name, fingerprint in description["fingerprints"].items():
            if before.get(name) != fingerprint:
                raise ConfigError(
                    f"--workdir={self.path} holds a run on other data: the fingerprint of its {name} was "
                    f"{str(before.get(name))[:12]} and is now {fingerprint[:12]}. Use another --workdir, or the data "
                    "of that run."
                )

    def check_chosen(self, chosen: Mapping[str, Any]) -> None:
        """Checks whether the run in this folder chose the same values for the size of its data.

        Args:
          chosen: values by dotted name. A field that the run did not choose, or does not choose now, is not compared.

        Raises:
          ConfigError: a value differs, because the rules of another version of this project are others.
        """
        if not storage.exists(self.config):
            return
        with storage.reading_json(self.config, of="a run"):
            before = dict(self.load_json(self.config).get("chosen", {}))
        for name in sorted(chosen.keys() & before.keys()):
            if chosen[name] != before[name]:
                raise ConfigError(
                    f"--workdir={self.path} holds a run that chose config.{name}={before[name]!r} for the size of its "
                    f"data, and this version chooses {chosen[name]!r}. Nothing was changed. Use another --workdir, or "
                    "the version that started the run."
                )

    def check_progress(self, restored_step: int | None) -> None:
        """Checks that the run in this folder has not lost all its checkpoints. Writes nothing.

        A run that was stopped before its first checkpoint passes: it starts again from step 0.

        Args:
          restored_step: the step of the checkpoint that was restored; None if the folder has no checkpoint.

        Raises:
          StorageError: the run had saved a checkpoint, and now there is none.
        """
        if restored_step is None and self._has_checkpoint():
            raise StorageError(
                f"--workdir={self.path} holds a run that had saved checkpoints, but {self.checkpoints} contains none. "
                "Nothing was changed. Restore that folder from a copy, or start again with another --workdir."
            )

    def check_num_epochs(self, num_epochs: int, *, steps_per_epoch: int, step: int) -> None:
        """Checks that a resumed run has not already taken more steps than its config asks for.

        Args:
          num_epochs: config.train.num_epochs.
          step: of the checkpoint that was restored; 0 for a new run.

        Raises:
          ConfigError: it has taken more steps.
        """
        if step > num_epochs * steps_per_epoch:
            raise ConfigError(
                f"config.train.num_epochs={num_epochs} cannot be used: the run in --workdir={self.path} has already "
                f"trained for {step / steps_per_epoch:.4g} epochs ({step:,} steps). Set it to at least "
                f"{math.ceil(step / steps_per_epoch)}, or use another --workdir."
            )

    def save_run(
        self,
        config: Config,
        description: Mapping[str, Any],
        *,
        strategy: str,
        num_replicas: int,
        chosen: Mapping[str, Any],
        first_step: int,
    ) -> str | None:
        """Records the config, the data and the strategy of a run that starts or resumes.

        Args:
          description: the data, with its `fingerprints`.
          strategy: the name of the strategy that takes the steps from now on.
          num_replicas: its number of replicas.
          chosen: values that follow from the size of the data, by dotted name.
          first_step: the number of steps that were taken before.

        Returns:
          A sentence for the user if the strategy or the number of replicas has changed since the last start, else
          None.
        """
        record = self.load_json(self.config) if storage.exists(self.config) else {}
        with storage.reading_json(self.config, of="a run"):
            # Steps from first_step on are taken again, so what they were taken with no longer matters.
            runs = [dict(run) for run in record.get("runs", []) if run["first_step"] < first_step]
            previous = _described(runs[-1]) if runs else None
        current = {"strategy": strategy, "num_replicas": num_replicas, "first_step": first_step}
        changed = previous not in (None, _described(current))
        self.save_json(
            self.config,
            {
                "runs": [*runs, current] if changed or not runs else runs,
                "has_checkpoint": first_step > 0 or bool(record.get("has_checkpoint")),
                "config": config_lib.plain(config),
                "chosen": dict(chosen),
            },
        )
        self.save_json(self.data, description)
        if not changed:
            return None
        return (
            f"The steps before step {first_step:,} were taken with {previous}. The next steps are taken with "
            f"{_described(current)}, so the weights can differ from those of a run without this change. config.json "
            "records it."
        )

    def record_checkpoint(self) -> None:
        """Records that the run has saved a checkpoint; see `check_progress`. Call it after each save."""
        record = self.load_json(self.config)
        if not record.get("has_checkpoint"):
            self.save_json(self.config, {**record, "has_checkpoint": True})

    def save_json(self, path: str, fields: Mapping[str, Any]) -> None:
        """Writes a JSON file of this folder in one step. Adds the format version. Saves NaN and infinity as null."""
        record = _finite({"format_version": FORMAT_VERSION, **fields})
        storage.write_bytes(path, (json.dumps(record, indent=2, allow_nan=False) + "\n").encode())

    def load_result(self) -> dict[str, Any]:
        """Returns the final metrics of a finished run, with NaN for a null in a section; {} for an unfinished run.

        Raises:
          ConfigError: another version of this project wrote the file.
          StorageError: it cannot be read.
        """
        if not storage.exists(self.result):
            return {}
        result = self.load_json(self.result)
        return {name: _null_as_nan(value) if isinstance(value, dict) else value for name, value in result.items()}

    def was_trained_on_ratings(self) -> bool:
        """Returns whether the data of the run in this folder has ratings. If not, its rows are events.

        Raises:
          ConfigError: another version of this project wrote data.json.
          StorageError: it cannot be read.
        """
        saved = self.load_json(self.data)
        with storage.reading_json(self.data, of="a run"):
            return bool(saved["has_ratings"])

    def load_config(self) -> TrainerConfig:
        """Returns the config of the run in this folder, with the default of each field that it lacks.

        Raises:
          ConfigError: the folder holds no run, or one of another version of this project, or its config is invalid.
          StorageError: its config cannot be read.
        """
        if not storage.exists(self.config):
            raise ConfigError(
                f"--workdir={self.path} does not contain a run: it has no config.json. Train a model first: "
                f"python -m trainer.main --workdir={self.path}"
            )
        saved = self._saved_config()
        try:
            return load_trainer_config(saved)
        except ConfigError as error:
            raise ConfigError(f"The config of the run in --workdir={self.path} cannot be used: {error}") from None

    @contextlib.contextmanager
    def locked(self, *, job: str = "") -> Iterator[Lock]:
        """Makes the folder and holds its lock; see `workdir_lock.locked`. Deletes what killed runs left half written.

        Raises:
          ConfigError: another run is using the folder. The message names it.
          StorageError: the folder or its lock cannot be made.
        """
        storage.make_folder(self.path)
        with workdir_lock.locked(self.path, job=job) as lock:
            self._sweep()
            yield lock

    def check_free(self, *, job: str = "") -> None:
        """Checks early that no other run is using the folder. Only `locked` guarantees it.

        Raises:
          ConfigError: another run is using it. The message names it.
        """
        workdir_lock.check_free(self.path, job=job)

    def _sweep(self) -> None:
        """Deletes the unfinished files of killed runs. Only a run writes files of these names, and this one does."""
        paths = [self.config, self.data, self.seen, self.metrics, self.result, self.queries, self.report]
        paths += [storage.join(self.path, workdir_lock.NAME)]
        paths += [storage.join(self.vocabulary, name) for name in _VOCABULARY_FILES]
        for path in paths:
            storage.remove_leftovers(path, is_alone=True)

    def _saved_config(self) -> ConfigDict:
        record = self.load_json(self.config)
        with storage.reading_json(self.config, of="a run"):
            return from_saved(record["config"])

    def _has_checkpoint(self) -> bool:
        return storage.exists(self.config) and bool(self.load_json(self.config).get("has_checkpoint"))

    def _check_writable(self) -> None:
        existing = os.path.abspath(self.path)
        while not os.path.lexists(existing):
            existing = os.path.dirname(existing)
        if not os.path.isdir(existing):
            raise StorageError(
                f"--workdir={self.path} cannot be made: {existing} is not a folder. Choose another name."
            )
        if not os.access(existing, os.W_OK | os.X_OK):
            raise StorageError(
                f"--workdir={self.path} cannot be written: this user has no write access to {existing}. "
                "Choose another folder."
            )

    def _files_of_a_run(self) -> list[str]:
        """Names of files that only a run writes, all of them after config.json."""
        paths = [self.data, self.vocabulary, self.seen, self.metrics, self.result, self.queries, self.report]
        found = [path for path in paths if storage.exists(path)]
        if _names_in(self.checkpoints):
            found.append(self.checkpoints)
        found += [
            storage.join(self.logs, name)
            for name in _names_in(self.logs)
            if name in schema.SPLITS or name.startswith("events.out.tfevents.")
        ]
        return [path.removeprefix(self.path.rstrip("/") + "/") for path in found]

    def load_json(self, path: str) -> dict[str, Any]:
        """Reads what `save_json` wrote, without the format version.

        Raises:
          ConfigError: another version of this project wrote it.
          StorageError: it cannot be read.
        """
        with storage.reading_json(path, of="a run"):
            record = json.loads(storage.read_bytes(path))
            if not isinstance(record, dict):
                raise ValueError("it is not a JSON object")
            version = int(record.pop("format_version", 1))
        check_format_version(version, f"--workdir={self.path}")
        return record


def check_format_version(version: int, what: str) -> None:
    """Checks that this version of the project can read a file.

    Args:
      version: its format version; 1 if it has none.
      what: the file or folder, as the message names it.

    Raises:
      ConfigError: another version of this project wrote it.
    """
    if version != FORMAT_VERSION:
        when = "an earlier" if version < FORMAT_VERSION else "a later"
        raise ConfigError(
            f"{what} was written by {when} version of this project (format {version}; this version reads format "
            f"{FORMAT_VERSION}). Nothing was changed. Use another --workdir, or the version that wrote it."
        )


def _names_in(folder: str) -> list[str]:
    return storage.list_folder(folder) if storage.is_folder(folder) else []


def _described(run: Mapping[str, Any]) -> str:
    num_replicas = int(run["num_replicas"])
    return f"the {run['strategy']} strategy on {num_replicas} replica{'' if num_replicas == 1 else 's'}"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _null_as_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _null_as_nan(item) for name, item in value.items()}
    return math.nan if value is None else value
