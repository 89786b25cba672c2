"""What a search prints and records about its trials: the table, and the best trial with its flags."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from settings.trainer_config.evaluation import EvalConfig
from trainer.tune.study import StudyFolder, Trial


def best_trial(trials: Sequence[Trial], direction: str) -> Trial | None:
    """The finished trial with the best value, the first of equal ones; None if no trial is finished."""
    ranked = _best_first(trials, direction)
    return ranked[0] if ranked and ranked[0].state == "finished" else None


def described(trial: Trial) -> str:
    """The values of a trial, as FIELD=VALUE."""
    return ", ".join(f"{name}={value}" for name, value in trial.parameters.items())


def flags_of(base_flags: Sequence[str], parameters: Mapping[str, Any]) -> list[str]:
    """The flags with which `trainer.main` trains a trial.

    Args:
      base_flags: the flags of the config that the search started from.
      parameters: the values of the trial.
    """
    names = tuple(f"--config.{name}=" for name in parameters)
    return [
        *(flag for flag in base_flags if not flag.startswith(names)),
        *(f"--config.{name}={value}" for name, value in parameters.items()),
    ]


def describe_best(best: Trial | None, evaluation: EvalConfig, base_flags: Sequence[str]) -> dict[str, Any]:
    """Returns the content of best.json, with the flags of `flags_of`.

    Args:
      best: the best trial, which is finished; None without a search, for the config as it is.
      evaluation: what trials are judged by.
      base_flags: as in `flags_of`.
    """
    parameters = best.parameters if best else {}
    return {
        "trial": best and best.number,
        "metric": evaluation.best_metric,
        "direction": evaluation.best_direction,
        "value": best and best.value,
        "step": best and best.step,
        "epoch": best and best.epoch,
        "parameters": parameters,
        "flags": flags_of(base_flags, parameters),
    }


def print_trials(
    console: Console, trials: Sequence[Trial], evaluation: EvalConfig, *, limit: int | None = None
) -> None:
    """Prints a table of the trials, best first.

    Args:
      limit: the number of trials to show; None for all.
    """
    if not trials:
        return
    ranked = _best_first(trials, evaluation.best_direction)
    title = f"Trials by their best validation {evaluation.best_metric}"
    if limit is not None and len(ranked) > limit:
        title += f": {limit} of {len(ranked)}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in ("trial", evaluation.best_metric, "epoch", *trials[0].parameters):
        table.add_column(name, justify="right")
    table.add_column("")
    for trial in ranked[:limit]:
        is_finished = trial.state == "finished"
        table.add_row(
            str(trial.number),
            f"{trial.value:.4f}" if is_finished else "",
            f"{trial.epoch:.4g}" if is_finished else "",
            *(str(value) for value in trial.parameters.values()),
            "" if is_finished else f"failed: {trial.reason}" if trial.state == "failed" else "not finished",
        )
    console.print(table)


def print_best(
    console: Console, folder: StudyFolder, trials: Sequence[Trial], evaluation: EvalConfig, base_flags: Sequence[str]
) -> None:
    """Prints the best trial and the flags to train with its config."""
    best = best_trial(trials, evaluation.best_direction)
    if best is None:
        console.print("No trial is finished, so there is no best one.")
        return
    flags = shlex.join(flags_of(base_flags, best.parameters))
    console.print(
        f"The best of {len(trials)} trials is trial {best.number}, in {folder.trial_workdir(best.number)}. Its flags:\n"
        f"  {flags}",
        soft_wrap=True,
    )


def _best_first(trials: Sequence[Trial], direction: str) -> list[Trial]:
    sign = 1 if direction == "max" else -1
    return sorted(trials, key=lambda trial: (trial.value is None, -sign * (trial.value or 0.0), trial.number))
