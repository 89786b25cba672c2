"""Several seeds: how much the metrics of a config depend on the random numbers of its training.

The runs differ in config.seed alone. config.split.seed is the same, so they have the same ratings in each split, and
the same users are evaluated.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from settings.errors import UserError
from settings.trainer_config import TrainerConfig
from trainer import config as config_lib
from trainer.evaluation.comparison import MODEL
from trainer.evaluation.final_metrics import from_json
from trainer.evaluation.statistics import mean_of_runs
from trainer.tune.search import Search
from trainer.tune.study import Trial
from trainer.workdir import Workdir

EvaluateFn = Callable[[TrainerConfig, str], None]
"""Exports the model of a trained run and evaluates it on the test split."""


@dataclass(frozen=True)
class OverSeeds:
    """A metric of several runs.

    Attributes:
      values: one per run.
      mean: their mean.
      low, high: the limits of the 95% interval of the mean; see `mean_of_runs`.
      standard_deviation: how much a single run differs from the mean.
    """

    values: tuple[float, ...]
    mean: float
    low: float
    high: float
    standard_deviation: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "OverSeeds":
        """Describes at least one value."""
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
        return cls(tuple(values), *mean_of_runs(values), deviation)


def run_seeds(search: Search, best: Trial | None, num_seeds: int, *, evaluate_fn: EvaluateFn | None) -> list[Trial]:
    """Trains the config of the best trial with several seeds, or goes on with it. Finished runs are not repeated.

    A trial of a search was chosen because its seed gave a high value, so its own run does not count: the seeds are
    config.seed + 1 and higher. Without a search they start with config.seed.

    Args:
      search: what it belongs to.
      best: the best trial; None without a search, for the config as it is.
      num_seeds: the number of seeds.
      evaluate_fn: is called for each finished run that is not evaluated on the test split yet; None not to evaluate.

    Returns:
      The runs, by seed. Each is recorded like a trial, with its seed among its parameters.

    Raises:
      Stopped, ConfigError, UserError: see `Search.run`. The same command goes on.
    """
    folder, base = search.folder, search.base
    earlier = {folder.trial_workdir(best.number): best} if best else {}
    first_seed = base.seed + 1 if best else base.seed
    runs: list[Trial] = []
    recorded = folder.load_seeds()
    for seed in range(first_seed, first_seed + num_seeds):
        parameters = {**(best.parameters if best else {}), "seed": seed, "split.seed": config_lib.data_seed(base)}
        run = next((run for run in recorded if run.parameters == parameters), None)
        if run is None:
            run = Trial(len(recorded) + 1, parameters)
            recorded.append(run)
            folder.save_seeds(recorded)
        path = folder.seed_workdir(run.number)
        if run.state == "running":
            search.console.print(f"Seed {seed} ({len(runs) + 1} of {num_seeds})", soft_wrap=True)
            run = search.finish(run, path, earlier)
            if run.state == "failed":
                search.console.print(f"Seed {seed} failed: {run.reason}", soft_wrap=True)
            recorded[run.number - 1] = run
            folder.save_seeds(recorded)
        if run.state == "finished" and evaluate_fn and not Workdir(path).load_result():
            evaluate_fn(search.config_of(run), path)
        earlier[path] = run
        runs.append(run)
    return runs


def metrics_over_seeds(search: Search, runs: Sequence[Trial], *, with_test: bool) -> dict[str, OverSeeds]:
    """Returns the metrics of the finished runs by name, such as `validation catalogue/ndcg@10`.

    Args:
      runs: the result of `run_seeds`.
      with_test: whether they are evaluated on the test split.

    Raises:
      UserError: all runs have failed.
    """
    finished = [run for run in runs if run.state == "finished"]
    if not finished:
        raise UserError(f"All {len(runs)} seeds have failed. {runs[-1].reason}")
    validation = f"validation {search.base.eval.best_metric}"
    values: dict[str, list[float]] = {validation: [run.value for run in finished if run.value is not None]}
    if with_test:
        for run in finished:
            result = Workdir(search.folder.seed_workdir(run.number)).load_result()
            for protocol, by_scorer in from_json(result["protocols"]).items():
                for name, mean in by_scorer[MODEL].items():
                    values.setdefault(f"{result['held_out']} {protocol}/{name}", []).append(mean.value)
    return {name: OverSeeds.of(of_runs) for name, of_runs in values.items()}


def describe_seeds(runs: Sequence[Trial], metrics: Mapping[str, OverSeeds]) -> dict[str, Any]:
    """Returns what best.json says of several seeds: each run, and each metric over the finished ones."""
    return {
        "runs": [
            {"seed": run.parameters["seed"], "run": run.number, "state": run.state, "value": run.value} for run in runs
        ],
        "metrics": {name: dataclasses.asdict(metric) for name, metric in metrics.items()},
    }


def print_seeds(console: Console, runs: Sequence[Trial], metrics: Mapping[str, OverSeeds]) -> None:
    """Prints a table of the metrics over the finished runs."""
    num_failed = sum(run.state == "failed" for run in runs)
    failed = f", without {num_failed} that failed" if num_failed else ""
    table = Table(
        title=f"Over {len(runs) - num_failed} seeds{failed} (± half of the 95% interval of the mean)",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    table.add_column("")
    for name in ("mean", "standard deviation", "lowest", "highest"):
        table.add_column(name, justify="right")
    for name, metric in metrics.items():
        margin = (metric.high - metric.low) / 2
        table.add_row(
            name,
            f"{metric.mean:.4f}" + ("" if np.isnan(margin) else f" ± {margin:.4f}"),
            "" if np.isnan(margin) else f"{metric.standard_deviation:.4f}",
            f"{min(metric.values):.4f}",
            f"{max(metric.values):.4f}",
        )
    console.print(table)
