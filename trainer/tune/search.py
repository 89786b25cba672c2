"""The search: one trial after the other, each a training run in a workdir of its own."""

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console

from settings.errors import ConfigError, DivergedError, StorageError
from settings.search_space import SearchParameter, with_values
from settings.trainer_config import TrainerConfig, load_trainer_config
from trainer import config as config_lib
from trainer import storage
from trainer.tune.report import best_trial, describe_best, described, print_trials
from trainer.tune.sampling import Values, suggest
from trainer.tune.study import StudyFolder, Trial
from trainer.workdir import Workdir

TrainFn = Callable[[TrainerConfig, str], None]
"""Trains a config in a workdir, or resumes it there. The last validation is in the workdir's metrics.jsonl."""

# The table after each trial shows this many trials. The table at the end shows all.
_NUM_SHOWN_BETWEEN = 10


class OutOfMemoryError(Exception):
    """The device cannot hold the model or the batch of a trial."""


@dataclass(frozen=True)
class Search:
    """What a search needs.

    Attributes:
      config: the config that it starts from, with sections as nested mappings.
      parameters: the space, which `space.check_space` has accepted.
      flags: the flags with which `trainer.main` gets `config`.
    """

    config: Mapping[str, Any]
    parameters: Sequence[SearchParameter]
    folder: StudyFolder
    flags: Sequence[str]
    train_fn: TrainFn
    console: Console

    def run(self, num_trials: int) -> list[Trial]:
        """Runs trials until there are `num_trials`, those of earlier starts included.

        A trial that diverges or does not fit into memory has failed, and the search goes on.

        Returns:
          The trials, in order. There are fewer if the space has no values that were not tried.

        Raises:
          Stopped: SIGTERM or Ctrl-C arrived. The trial is saved, and the same search resumes it.
          ConfigError: the first trial is refused, or the data has changed since an earlier trial.
          UserError: what else is wrong with the data or the workdir. It would fail other trials too.
        """
        trials = self.folder.load_trials()
        while True:
            if trials and trials[-1].state == "running":
                if len(trials) > num_trials:
                    break
            elif len(trials) >= num_trials:
                break
            elif values := self._next_values(trials):
                trials.append(Trial(len(trials) + 1, values))
                # Recorded first: a resumed trial has these values, whatever would be drawn now.
                self.folder.save_trials(trials)
            else:
                self.console.print("The search ends: the space has no values that were not tried.")
                break
            self.console.print(f"Trial {trials[-1].number} of {num_trials}: {described(trials[-1])}", soft_wrap=True)
            workdirs = [self.folder.trial_workdir(trial.number) for trial in trials]
            earlier = dict(zip(workdirs[:-1], trials[:-1], strict=True))
            trials[-1] = self.finish(trials[-1], workdirs[-1], earlier)
            if trials[-1].state == "failed":
                self.console.print(f"Trial {trials[-1].number} failed: {trials[-1].reason}", soft_wrap=True)
            self.folder.save_trials(trials)
            if best := best_trial(trials, self.base.eval.best_direction):
                self.folder.save_best(describe_best(best, self.base.eval, self.flags))
            if len(trials) < num_trials:
                print_trials(self.console, trials, self.base.eval, limit=_NUM_SHOWN_BETWEEN)
        print_trials(self.console, trials, self.base.eval)
        return trials

    @functools.cached_property
    def base(self) -> TrainerConfig:
        """The checked config that the search starts from."""
        return load_trainer_config(self.config)

    def config_of(self, trial: Trial) -> TrainerConfig:
        """The config of a trial."""
        return load_trainer_config(with_values(self.config, trial.parameters, f"trial {trial.number}"))

    def _next_values(self, trials: Sequence[Trial]) -> Values | None:
        if not trials:  # The first trial is the config as it is, so that no search ends below it.
            fields = config_lib.flatten(config_lib.plain(self.config))
            return {parameter.field: fields[parameter.field] for parameter in self.parameters}
        return suggest(
            self.parameters,
            trials,
            direction=self.base.eval.best_direction,
            seed=self.base.seed,
            is_allowed=self._is_allowed,
        )

    def _is_allowed(self, values: Values) -> bool:
        try:
            load_trainer_config(with_values(self.config, values, "a trial"))
        except ConfigError:
            return False
        return True

    def finish(self, trial: Trial, path: str, earlier: Mapping[str, Trial]) -> Trial:
        """Trains a trial, or resumes its training, and returns it with its result.

        Args:
          path: its workdir.
          earlier: the trials before it, by their workdirs.

        Raises:
          Stopped, ConfigError, UserError: see `run`.
        """
        workdir = Workdir(path)
        is_resumed = storage.exists(workdir.config)
        try:
            self.train_fn(self.config_of(trial), workdir.path)
        except (DivergedError, OutOfMemoryError) as error:
            return replace(trial, state="failed", reason=str(error))
        except ConfigError as error:
            # What refuses the first trial would refuse all. A trial that could start has no fault in its config.
            if is_resumed or not any(other.state == "finished" for other in earlier.values()):
                raise
            return replace(trial, state="failed", reason=str(error))
        self._check_data(trial, path, earlier)
        evaluation = self.base.eval
        best = best_validation(workdir.metrics, evaluation.best_metric, evaluation.best_direction)
        if best is None:
            return replace(trial, state="failed", reason=f"No validation had a finite {evaluation.best_metric}.")
        return replace(trial, state="finished", **best)

    def _check_data(self, trial: Trial, path: str, earlier: Mapping[str, Trial]) -> None:
        """Checks that a trial has the same data as the first one with the same fields of the data.

        Raises:
          ConfigError: it does not, so their validation metrics cannot be compared.
        """
        arguments = config_lib.dataset_arguments(self.config_of(trial))
        for other_path, other in earlier.items():
            if other.state == "finished" and config_lib.dataset_arguments(self.config_of(other)) == arguments:
                Workdir(other_path).check_data(json.loads(storage.read_bytes(Workdir(path).data)))
                return


def best_validation(path: str, metric: str, direction: str) -> dict[str, Any] | None:
    """Returns the best validation of a run, as `value`, `step` and `epoch`; the first of equal ones.

    Args:
      path: metrics.jsonl of the run.
      metric: its name.
      direction: `max` or `min`.

    Returns:
      None if no validation has a finite value.

    Raises:
      StorageError: the file cannot be read.
    """
    errors: tuple[type[Exception], ...] = (ValueError, LookupError, TypeError, AttributeError)
    try:
        lines = [json.loads(line) for line in storage.read_bytes(path).splitlines()]
        values = [
            {"value": float(line["metrics"][metric]), "step": line["step"], "epoch": line["epoch"]}
            for line in lines
            # null stands for a value that is not finite. The final metrics have a line of their own.
            if line["split"] == "validation" and line["metrics"].get(metric) is not None
        ]
    except errors + storage.file_errors() as error:
        raise StorageError(
            f"{path} cannot be read as the metrics of a run: {storage.reason(error)}. Delete this trial's folder, and "
            "the same command runs the trial again."
        ) from error
    sign = 1 if direction == "max" else -1
    finite = [value for value in values if math.isfinite(value["value"])]
    return max(finite, key=lambda value: sign * value["value"], default=None)
