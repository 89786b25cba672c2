"""The folder of a search: its records, and the checks that decide whether a search may use it.

DIR/study.json      the config and the space
DIR/trials.jsonl    one JSON object per trial, in order
DIR/trials/0007/    the workdir of a trial
DIR/best.json       the best trial, with its flags, and its metrics over several seeds
DIR/seeds.jsonl     one JSON object per run of --num_seeds, in the form of a trial
DIR/seeds/0003/     the workdir of such a run
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from settings.errors import ConfigError, StorageError
from settings.search_space import SearchParameter
from settings.trainer_config import TrainerConfig, from_saved
from trainer import config as config_lib
from trainer import storage
from trainer.workdir import Workdir, check_format_version


@dataclass(frozen=True)
class Trial:
    """One training run of a search.

    Attributes:
      number: from 1.
      parameters: the values that it tries, by the dotted names of their fields.
      state: a trial that was interrupted is still `running`.
      value: the best validation value of the metric; None unless the trial is finished.
      step, epoch: when it was measured.
      reason: why the trial failed.
    """

    number: int
    parameters: dict[str, Any]
    state: Literal["running", "finished", "failed"] = "running"
    value: float | None = None
    step: int | None = None
    epoch: float | None = None
    reason: str = ""


class StudyFolder:
    """The paths and records of a search, local or gs://."""

    def __init__(self, path: str):
        self.path = path
        self.study = storage.join(path, "study.json")
        self.trials = storage.join(path, "trials.jsonl")
        self.best = storage.join(path, "best.json")
        self.seeds = storage.join(path, "seeds.jsonl")
        self._workdir = Workdir(path)

    def trial_workdir(self, number: int) -> str:
        """The workdir of a trial."""
        return storage.join(self.path, "trials", f"{number:04d}")

    def seed_workdir(self, number: int) -> str:
        """The workdir of a run of `load_seeds`."""
        return storage.join(self.path, "seeds", f"{number:04d}")

    def check(self, config: TrainerConfig, parameters: Sequence[SearchParameter]) -> None:
        """Checks whether a search can use this folder. Writes nothing.

        Raises:
          ConfigError: the folder holds a run or another search, or its name cannot be used.
          StorageError: the folder cannot be written, or its records cannot be read.
        """
        if storage.exists(self._workdir.config):
            raise ConfigError(
                f"--workdir={self.path} holds a single run. A search needs a folder of its own: use another --workdir."
            )
        self._workdir.check(config)
        if not storage.exists(self.study):
            for path in (self.trials, self.seeds):
                if storage.exists(path):
                    raise StorageError(
                        f"{self.study} is missing, so it is unknown which search the trials in {path} belong to. "
                        "Restore it from a copy, or use another --workdir."
                    )
            return
        with storage.reading_json(self.study, of="a search"):
            saved = json.loads(storage.read_bytes(self.study))
            version, saved_config, saved_space = saved["format_version"], from_saved(saved["config"]), saved["space"]
        check_format_version(version, f"--workdir={self.path}")
        before, after = config_lib.flatten(config_lib.plain(saved_config)), config_lib.flatten(config_lib.plain(config))
        changed = [
            f"config.{name}: {before.get(name)!r} → {after.get(name)!r}"
            for name in sorted(before.keys() | after.keys())
            # The data of a trial is compared with that of the others when it has ended.
            if before.get(name) != after.get(name) and name not in config_lib.COLUMN_FIELDS
        ]
        if saved_space != _plain_space(parameters):
            changed.append("the fields or values of --space")
        if changed:
            raise ConfigError(
                f"--workdir={self.path} holds another search ({'; '.join(changed)}). Use another --workdir, or the "
                "config and the space of that search. Only --num_trials and --num_seeds can change."
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder and locks it; see `Workdir.locked`."""
        with self._workdir.locked():
            yield

    def save_study(self, config: TrainerConfig, parameters: Sequence[SearchParameter]) -> None:
        """Records the config that the search starts from, and its space."""
        self._workdir.save_json(self.study, {"config": config_lib.plain(config), "space": _plain_space(parameters)})

    def load_trials(self) -> list[Trial]:
        """Returns all trials so far, in order.

        Raises:
          StorageError: the record cannot be read.
        """
        return self._load(self.trials)

    def save_trials(self, trials: Sequence[Trial]) -> None:
        """Replaces the record of the trials in one step."""
        self._save(self.trials, trials)

    def load_seeds(self) -> list[Trial]:
        """Returns all runs of several seeds so far, as `load_trials` does."""
        return self._load(self.seeds)

    def save_seeds(self, runs: Sequence[Trial]) -> None:
        """Replaces the record of these runs in one step."""
        self._save(self.seeds, runs)

    def _load(self, path: str) -> list[Trial]:
        if not storage.exists(path):
            return []
        with storage.reading_json(path, of="a search"):
            lines = storage.read_bytes(path).splitlines()
            trials = [Trial(**json.loads(line)) for line in lines]
            if [trial.number for trial in trials] != list(range(1, len(trials) + 1)):
                raise ValueError("the numbers of its trials are not 1, 2, 3, ...")
        # JSON has no tuples.
        return [replace(trial, parameters=config_lib.plain(trial.parameters)) for trial in trials]

    def _save(self, path: str, trials: Sequence[Trial]) -> None:
        lines = [json.dumps(asdict(trial), allow_nan=False) + "\n" for trial in trials]
        storage.write_bytes(path, "".join(lines).encode())

    def save_best(self, fields: Mapping[str, Any]) -> None:
        """Records the best trial."""
        self._workdir.save_json(self.best, fields)


def _plain_space(parameters: Sequence[SearchParameter]) -> Any:
    """The space as it is after a way through JSON."""
    return json.loads(json.dumps([parameter.model_dump() for parameter in parameters]))
