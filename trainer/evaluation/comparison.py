"""Compares finished runs by the metrics of each query. Imports no TensorFlow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from settings.errors import ConfigError
from trainer.evaluation.query_metrics import StoredQueries, read_queries
from trainer.evaluation.result import load_result
from trainer.evaluation.statistics import Difference, ListMetrics, Metrics, paired_differences
from trainer.workdir import Workdir

MODEL = "model"

LOWER_IS_BETTER = ("arp",)
"""The keys of the metrics that are better when they are lower."""

_SEED = 0


@dataclass(frozen=True, eq=False)
class Run:
    """The metrics of a finished run.

    Attributes:
      name: The workdir, as the user wrote it.
      split: The split that was evaluated.
      protocols: The metrics by protocol.
    """

    name: str
    split: str
    protocols: dict[str, StoredQueries]


@dataclass(frozen=True)
class Comparison:
    """What is compared in one protocol.

    Attributes:
      protocol: The protocol.
      split: The split that was evaluated.
    """

    protocol: str
    split: str


@dataclass(frozen=True)
class PairedComparison(Comparison):
    """The differences of two scorers.

    Attributes:
      name_a, name_b: The scorers, as in `runs/mine: model`.
      differences: B − A for each metric.
    """

    name_a: str
    name_b: str
    differences: dict[str, Difference]


@dataclass(frozen=True)
class Ranking(Comparison):
    """The means of several scorers.

    Attributes:
      means: The means with their intervals, by scorer and metric.
      best: The scorers with the best mean, for each metric.
    """

    means: dict[str, Metrics]
    best: dict[str, list[str]]


def load_run(workdir: str) -> Run:
    """Reads the metrics of a finished run, local or gs://.

    Raises:
      ConfigError: The folder holds no finished run, or one that was not evaluated query by query.
      StorageError: A file cannot be read.
    """
    paths = Workdir(workdir)
    if not (result := load_result(paths)):
        raise ConfigError(
            f"{workdir} cannot be compared: it has no result.json, so it holds no finished run. Name the workdir of a "
            "finished run."
        )
    if not result.get("held_out"):
        raise ConfigError(
            f"{workdir} cannot be compared: its run held out no ratings. Train with another config.split.method, for "
            "example random."
        )
    split, protocols = read_queries(paths.queries)
    return Run(workdir, split, protocols)


def compare_scorers(run_a: Run, scorer_a: str, run_b: Run, scorer_b: str) -> list[PairedComparison]:
    """Compares a scorer of a run with a scorer of the same or another run, in each protocol that both runs have.

    Raises:
      ConfigError: A run has no such scorer, or the test sets differ, or the runs have no metric in common.
    """
    check_same_test_set([run_a, run_b])
    found = []
    for protocol in _common(run_a.protocols, run_b.protocols):
        a = _scorer_of(run_a, protocol, scorer_a)
        b = _scorer_of(run_b, protocol, scorer_b)
        found.append(
            PairedComparison(
                protocol,
                run_a.split,
                f"{run_a.name}: {scorer_a}",
                f"{run_b.name}: {scorer_b}",
                differences(a, b, _common_metrics([run_a, run_b], [a, b])),
            )
        )
    return found


def differences(a: ListMetrics, b: ListMetrics, names: Sequence[str]) -> dict[str, Difference]:
    """The differences B − A of some metrics over the same lists, by name."""
    return differences_from_each([a], b, names)[0]


def differences_from_each(
    each: Sequence[ListMetrics], b: ListMetrics, names: Sequence[str]
) -> list[dict[str, Difference]]:
    """The differences B − A for each A. It takes hardly longer than one of them, because all share the random flips.

    Args:
      each: The metrics of every A, over the same lists as those of B.
      b: The metrics of B.
      names: The metrics to compare.
    """
    columns = [[list(lists.names).index(name) for name in names] for lists in each]
    columns_b = [list(b.names).index(name) for name in names]
    found = paired_differences(
        np.concatenate([lists.values[:, chosen] for lists, chosen in zip(each, columns, strict=True)], axis=1),
        np.concatenate([b.values[:, columns_b]] * len(each), axis=1),
        np.concatenate([lists.weights[:, chosen] for lists, chosen in zip(each, columns, strict=True)], axis=1),
        seed=_SEED,
    )
    return [
        dict(zip(names, found[begin : begin + len(names)], strict=True)) for begin in range(0, len(found), len(names))
    ]


def compare_with_baselines(run: Run) -> list[PairedComparison]:
    """Compares the model of a run with each of its baselines, in each protocol. The model is B."""
    baselines = dict.fromkeys(
        scorer for stored in run.protocols.values() for scorer in stored.by_scorer if scorer != MODEL
    )
    return [comparison for baseline in baselines for comparison in compare_scorers(run, baseline, run, MODEL)]


def rank_runs(runs: Sequence[Run]) -> list[Ranking]:
    """The means of the models of all runs, and of the baselines of the first run, in each protocol that all runs have.

    Raises:
      ConfigError: The test sets differ, or the runs have no metric in common.
    """
    check_same_test_set(runs)
    rankings = []
    for protocol in _common(*(run.protocols for run in runs)):
        scorers = {run.name: _scorer_of(run, protocol, MODEL) for run in runs}
        baselines = {name: lists for name, lists in runs[0].protocols[protocol].by_scorer.items() if name != MODEL}
        names = _common_metrics(runs, list(scorers.values()))
        means = {
            scorer: {name: mean for name, mean in lists.means_with_intervals(seed=_SEED).items() if name in names}
            for scorer, lists in {**scorers, **baselines}.items()
        }
        best = {}
        for name in names:
            values = {scorer: metrics[name].value for scorer, metrics in means.items()}
            limit = (min if lower_is_better(name) else max)(values.values())
            best[name] = [scorer for scorer, value in values.items() if value == limit]
        rankings.append(Ranking(protocol, runs[0].split, means, best))
    return rankings


def lower_is_better(metric: str) -> bool:
    """Whether a lower value of a metric, such as `ndcg@10`, is better."""
    return metric.split("@")[0] in LOWER_IS_BETTER


def check_same_test_set(runs: Sequence[Run]) -> None:
    """Checks that the runs were evaluated on the same test set.

    Raises:
      ConfigError: The test sets differ. The message names what differs.
    """
    first, *others = runs
    for other in others:
        common = _common(first.protocols, other.protocols)
        parts = [
            f"the {part} of the protocol {protocol}"
            for protocol in common
            for part in first.protocols[protocol].test_set.keys() | other.protocols[protocol].test_set.keys()
            if first.protocols[protocol].test_set.get(part) != other.protocols[protocol].test_set.get(part)
        ]
        if first.split != other.split:
            parts = [f"the split, which is {first.split} and {other.split}"]
        elif not common:
            parts = [f"the protocols, which are {', '.join(first.protocols)} and {', '.join(other.protocols)}"]
        if parts:
            raise ConfigError(
                f"{first.name} and {other.name} cannot be compared, because their test sets differ in "
                f"{'; '.join(sorted(parts))}. Train both with the same data, config.split, config.seed (unless "
                "config.split.seed is set), config.list_size, config.eval.relevance_threshold and "
                "config.eval.num_catalogue_users."
            )


def _scorer_of(run: Run, protocol: str, scorer: str) -> ListMetrics:
    by_scorer = run.protocols[protocol].by_scorer
    if scorer not in by_scorer:
        raise ConfigError(f"{scorer!r} is not a scorer of {run.name}. Use one of {', '.join(by_scorer)}.")
    return by_scorer[scorer]


def _common_metrics(runs: Sequence[Run], lists: Sequence[ListMetrics]) -> list[str]:
    names = _common(*(of_run.names for of_run in lists))
    if not names:
        listed = "; ".join(f"{run.name} has {', '.join(of_run.names)}" for run, of_run in zip(runs, lists, strict=True))
        raise ConfigError(
            f"The runs have no metric in common: {listed}. Train them with the same metric in config.eval.metrics."
        )
    return names


def _common(*groups: Sequence[str] | Mapping[str, object]) -> list[str]:
    """The names that are in all groups, in the order of the first."""
    first, *others = groups
    return [name for name in first if all(name in other for other in others)]
