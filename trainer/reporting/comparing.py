"""What the comparison of several runs tells, gathered from their files. Imports no TensorFlow."""

import string
from collections.abc import Sequence
from dataclasses import dataclass

from settings.errors import ConfigError
from trainer.evaluation import comparison
from trainer.evaluation.comparison import MODEL, Run
from trainer.evaluation.statistics import Difference, Metrics
from trainer.evaluation.verdict import clause_of, main_metric, outcome_of
from trainer.reporting.contents import Contents, gather
from trainer.reporting.curves import MAX_POINTS
from trainer.workdir import Workdir

MAX_RUNS = 20
"""The largest number of runs in one comparison."""

_POINTS_OF_ALL_RUNS = 8 * MAX_POINTS


@dataclass(frozen=True)
class ComparedRun:
    """A run of a comparison.

    Attributes:
      letter: Its name in tables and charts, from A.
      path: Its folder, as the user wrote it.
      contents: What its own report tells.
    """

    letter: str
    path: str
    contents: Contents


@dataclass(frozen=True)
class ComparedProtocol:
    """The metrics of the runs in a protocol. Only metrics that all runs have are compared.

    Attributes:
      name: `catalogue` or `rated`.
      metric: The main metric, by the rule of the first run's verdict.
      means: The means of each model, by letter.
      baselines: The means of each baseline of the first run.
      differences: Each further run minus the first one: letter → metric.
      best: The runs and baselines with the best mean of each metric.
    """

    name: str
    metric: str
    means: dict[str, Metrics]
    baselines: dict[str, Metrics]
    differences: dict[str, dict[str, Difference]]
    best: dict[str, list[str]]


@dataclass(frozen=True)
class ComparedField:
    """A field of the config that differs between runs.

    Attributes:
      name: Its dotted name.
      values: Its value in each run.
    """

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Compared:
    """What the comparison of several runs tells.

    Attributes:
      sentence: Which run is the best, in one sentence, from `Verdict: ` to its full stop.
      headline: The same with the letters of the runs.
      split: The split that was evaluated.
      runs: The runs, in the order in which they were named.
      protocols: The protocols that all runs have.
      fields: The fields of the config that differ.
    """

    sentence: str
    headline: str
    split: str
    runs: tuple[ComparedRun, ...]
    protocols: tuple[ComparedProtocol, ...]
    fields: tuple[ComparedField, ...]


def compare(workdirs: Sequence[str]) -> Compared:
    """Compares finished runs, local or gs://.

    Args:
      workdirs: Their folders, at least two.

    Raises:
      ConfigError: A folder holds no finished run, there are too many runs, or their test sets differ.
      StorageError: A file of a run is missing or damaged.
    """
    if len(workdirs) > MAX_RUNS:
        raise ConfigError(
            f"{len(workdirs)} runs are too many for one page, which has room for {MAX_RUNS}. Name fewer runs, or "
            "compare all of them with `python -m trainer.compare`."
        )
    runs = [comparison.load_run(workdir) for workdir in workdirs]
    rankings = comparison.rank_runs(runs)
    max_points = min(MAX_POINTS, _POINTS_OF_ALL_RUNS // len(runs))
    best_metrics = list(dict.fromkeys(Workdir(workdir).load_config().eval.best_metric for workdir in workdirs))
    compared = tuple(
        ComparedRun(letter, workdir, gather(workdir, best_metrics=best_metrics, max_points=max_points))
        for letter, workdir in zip(string.ascii_uppercase, workdirs, strict=False)
    )
    # The catalogue first, as in the verdict.
    protocols = tuple(
        _protocol(ranking, runs, best_metrics[0]) for ranking in sorted(rankings, key=lambda found: found.protocol)
    )
    letters = [run.letter for run in compared]
    return Compared(
        sentence=f"Verdict: {_sentence(protocols, runs, workdirs)}",
        headline=_sentence(protocols, runs, letters),
        split=runs[0].split,
        runs=compared,
        protocols=protocols,
        fields=_fields(compared),
    )


def _sentence(protocols: Sequence[ComparedProtocol], runs: Sequence[Run], names: Sequence[str]) -> str:
    return "; ".join(_clause(protocol, runs, names) for protocol in protocols) + "."


def _protocol(ranking: comparison.Ranking, runs: Sequence[Run], best_metric: str) -> ComparedProtocol:
    names = list(ranking.best)
    letters = {run.name: letter for run, letter in zip(runs, string.ascii_uppercase, strict=False)}
    first, *others = (run.protocols[ranking.protocol].by_scorer[MODEL] for run in runs)
    return ComparedProtocol(
        name=ranking.protocol,
        metric=main_metric(ranking.protocol, names, best_metric=best_metric),
        means={letters[scorer]: metrics for scorer, metrics in ranking.means.items() if scorer in letters},
        baselines={scorer: metrics for scorer, metrics in ranking.means.items() if scorer not in letters},
        differences={
            letter: comparison.differences(first, other, names)
            for letter, other in zip(string.ascii_uppercase[1:], others, strict=False)
        },
        best={name: [letters.get(scorer, scorer) for scorer in best] for name, best in ranking.best.items()},
    )


def _clause(protocol: ComparedProtocol, runs: Sequence[Run], names: Sequence[str]) -> str:
    """Compares the best run with the next one, by the rules of the verdict."""
    lower_is_better = comparison.lower_is_better(protocol.metric)
    means = [metrics[protocol.metric] for metrics in protocol.means.values()]
    sign = 1 if lower_is_better else -1
    best, following = sorted(range(len(runs)), key=lambda run: sign * means[run].value)[:2]
    lists = [run.protocols[protocol.name].by_scorer[MODEL] for run in runs]
    difference = comparison.differences(lists[following], lists[best], [protocol.metric])[protocol.metric]
    return clause_of(
        protocol.name,
        protocol.metric,
        outcome_of(difference, lower_is_better=lower_is_better),
        means[best],
        difference,
        subject=names[best],
        than=names[following] if len(runs) == 2 else f"{names[following]}, the next of {len(runs)} runs",
    )


def _fields(runs: Sequence[ComparedRun]) -> tuple[ComparedField, ...]:
    by_run = [{field.name: field.chosen or field.value for field in run.contents.fields} for run in runs]
    rows = {name: tuple(fields[name] for fields in by_run) for name in by_run[0]}
    return tuple(ComparedField(name, values) for name, values in rows.items() if len(set(values)) > 1)
