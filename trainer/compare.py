"""Compare finished runs by their metrics of each query.

python -m trainer.compare runs/mine                    the model with each baseline
python -m trainer.compare runs/mine runs/other         two models, by paired tests
python -m trainer.compare runs/mine --scorer_a=item_mean --scorer_b=model
python -m trainer.compare runs/1 runs/2 runs/3         a table of all models
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from absl import flags
from rich.console import Console
from rich.table import Column, Table

from settings import cli
from settings.errors import ConfigError
from trainer.evaluation import comparison
from trainer.evaluation.comparison import PairedComparison, Ranking, Run
from trainer.evaluation.statistics import Mean

_PAIRED_COLUMNS = ("A", "B", "B - A", "95% interval", "p-value", "queries")


def main(workdirs: Sequence[str], *, scorer_a: str | None, scorer_b: str | None, output_format: str) -> int:
    """Compares the runs in `workdirs` and prints the result as `table`, `json` or `markdown`. Returns the exit code."""
    if not workdirs:
        raise ConfigError("Name the workdirs of the runs to compare, as in `python -m trainer.compare runs/1 runs/2`.")
    if len(set(workdirs)) < len(workdirs):
        raise ConfigError("A workdir is named twice. To compare scorers of one run, set --scorer_a and --scorer_b.")
    if len(workdirs) > 2 and (scorer_a or scorer_b):
        raise ConfigError("--scorer_a and --scorer_b work only with one or two runs. Remove them, or name fewer runs.")
    results = compare([comparison.load_run(workdir) for workdir in workdirs], scorer_a, scorer_b)
    if output_format == "json":
        print(json.dumps([_nan_as_null(asdict(result)) for result in results], indent=2))
    else:
        for result in results:
            _print(cli.build_console(), result, markdown=output_format == "markdown")
    return 0


def compare(runs: Sequence[Run], scorer_a: str | None, scorer_b: str | None) -> Sequence[PairedComparison | Ranking]:
    """Compares one run with its baselines, two runs by paired tests, or more runs in one table per protocol.

    Args:
      runs: The runs, at least one.
      scorer_a: What to compare of the first run; None for the model.
      scorer_b: What to compare of the last run; None for the model.

    Raises:
      ConfigError: The test sets differ, or a run has no such scorer.
    """
    if len(runs) > 2:
        return comparison.rank_runs(runs)
    if len(runs) == 1 and not (scorer_a or scorer_b):
        return comparison.compare_with_baselines(runs[0])
    return comparison.compare_scorers(runs[0], scorer_a or comparison.MODEL, runs[-1], scorer_b or comparison.MODEL)


def _print(console: Console, result: PairedComparison | Ranking, *, markdown: bool) -> None:
    if isinstance(result, PairedComparison):
        title = f"{result.split}, {result.protocol}: A is {result.name_a}, B is {result.name_b}"
        columns = list(_PAIRED_COLUMNS)
        rows = {
            name: [
                f"{found.mean_a:.4f}",
                f"{found.mean_b:.4f}",
                f"{found.value:+.4f}",
                f"{found.low:+.4f} to {found.high:+.4f}",
                f"{found.p_value:.4f}",
                f"{found.num_queries:,}",
            ]
            for name, found in result.differences.items()
        }
    else:
        title = f"{result.split}, {result.protocol}: means (± half of the 95% interval); * is the best"
        columns = list(result.best)
        rows = {
            scorer: [_marked(metrics[name], scorer in result.best[name]) for name in columns]
            for scorer, metrics in result.means.items()
        }
    # Not the title of the table, which is broken where the table ends.
    console.print(title, style="italic", soft_wrap=True)
    if markdown:
        lines = [["", *columns], ["---", *["---:"] * len(columns)], *([name, *cells] for name, cells in rows.items())]
        console.print("")
        console.print("\n".join("| " + " | ".join(cells) + " |" for cells in lines), soft_wrap=True)
        console.print("")
        return
    table = Table("", *(Column(name, justify="right") for name in columns), box=None, pad_edge=False)
    for name, cells in rows.items():
        table.add_row(name, *cells)
    console.print(table)


def _marked(mean: Mean, is_best: bool) -> str:
    return f"{mean}{'*' if is_best else ''}"


def _nan_as_null(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {name: _nan_as_null(field) for name, field in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _run(workdirs: Sequence[str]) -> int:
    values = flags.FLAGS
    return main(workdirs, scorer_a=values.scorer_a, scorer_b=values.scorer_b, output_format=values.format)


if __name__ == "__main__":
    # Defined only here, because other entry points define a flag of this name and a test may import them all.
    flags.DEFINE_string("scorer_a", None, "What to compare of the first run: model, or a baseline such as item_mean.")
    flags.DEFINE_string("scorer_b", None, "What to compare of the second run, or of the same run if there is only one.")
    flags.DEFINE_enum("format", "table", ["table", "json", "markdown"], "What to print; json is for programs.")
    cli.run_on_arguments(_run)
