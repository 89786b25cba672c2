"""The Markdown tables, from the records alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.quality.ceiling import CEILING
from benchmarks.quality.methods import OURS
from benchmarks.quality.protocols import Protocol, Target
from benchmarks.quality.records import TEST, TRIAL, Record, Records
from benchmarks.quality.run import queries_name
from trainer.evaluation.statistics import Difference, paired_differences


@dataclass(frozen=True, eq=False)
class Row:
    """A method of a table.

    Attributes:
      method: Its name.
      tests: The newest test record of each seed.
      trials: The trial records.
      values: The metrics of each user by name, each the mean over the seeds; NaN for a user that no seed evaluates.
    """

    method: str
    tests: list[Record]
    trials: list[Record]
    values: dict[str, np.ndarray]

    def mean(self, metric: str) -> float:
        """The mean over the seeds of the mean over users."""
        return float(np.mean(self._means(metric)))

    def deviation(self, metric: str) -> float | None:
        """The standard deviation over the seeds; None for a single one."""
        means = self._means(metric)
        return float(np.std(means, ddof=1)) if len(means) > 1 else None

    def _means(self, metric: str) -> list[float]:
        return [test["metrics"][metric] for test in self.tests]


def load_rows(records: Records, name: str, protocol: Protocol) -> list[Row]:
    """The methods of a protocol whose newest search has a test of every seed, in the protocol's order."""
    rows = []
    for method in protocol.methods:
        of_method = [
            record
            for record in records.find(TEST, protocol=name, method=method)
            if record["metrics"] is not None and record["metrics"].keys() == set(protocol.metrics)
        ]
        newest = {
            record["seed"]: record
            for record in of_method
            if all(record[key] == of_method[-1][key] for key in ("search", "num_trials"))
        }
        tests = [newest[seed] for seed in protocol.seeds if seed in newest]
        if len(tests) < len(protocol.seeds):
            continue
        trials = records.find(TRIAL, protocol=name, method=method, search=tests[0]["search"])
        rows.append(
            Row(method, tests, trials[: tests[0]["num_trials"]], _values_by_user(records, name, protocol, method))
        )
    return rows


def results(name: str, protocol: Protocol, rows: Sequence[Row]) -> str:
    """The table of the test metrics of a protocol, and its targets."""
    reference = _reference(rows, protocol)
    header = ["method", *(f"test {metric}" for metric in protocol.metrics)]
    if reference:
        header += [f"× {reference.method}", f"difference to {reference.method}, 95% interval, p"]
    ceiling = _best(rows, (CEILING.name,), protocol.metrics[0])
    if ceiling:
        header.append("share of the ceiling")
    table = [header]
    best = {
        metric: max((row.mean(metric) for row in rows if row.method != CEILING.name), default=np.inf)
        for metric in protocol.metrics
    }
    for row in rows:
        table.append([row.method, *(_cell(row, metric, best[metric]) for metric in protocol.metrics)])
        if reference:
            table[-1] += _compared(row, reference, protocol.metrics[0])
        if ceiling:
            table[-1].append(f"{row.mean(protocol.metrics[0]) / ceiling.mean(protocol.metrics[0]):.1%}")
    for published, values in protocol.published:
        cells = ["" if value is None else f"{value:.4f}" for value in values]
        table.append([f"{published} (published)", *cells, *([""] * (len(header) - 1 - len(cells)))])
    targets = ["\n".join(_target(target, rows) for target in protocol.targets)] if protocol.targets else []
    return "\n\n".join([f"### `{name}`: {protocol.title}", _table(table), *targets])


def details(name: str, protocol: Protocol, rows: Sequence[Row]) -> str:
    """The table of the searches of a protocol and of what they cost, and the hyperparameters that were found."""
    table = [["method", f"validation {protocol.metrics[0]}", "trials", "all trials", "one fit", "memory"]]
    table += [[row.method, *_costs(row)] for row in rows]
    found = "\n".join(f"- {row.method}: {_hyperparameters(row)}" for row in rows if row.tests[0]["hyperparameters"])
    return "\n\n".join([f"### `{name}`: searches", _table(table), found])


def paired(ours: np.ndarray, theirs: np.ndarray) -> Difference:
    """Compares two methods by a metric of each user, [num_users] each. Users with NaN do not count."""
    weights = (~np.isnan(ours) & ~np.isnan(theirs)).astype(np.float64)
    columns = (column[:, np.newaxis] for column in (theirs, ours, weights))
    (difference,) = paired_differences(*columns, seed=0)
    return difference


def _values_by_user(records: Records, name: str, protocol: Protocol, method: str) -> dict[str, np.ndarray]:
    loaded = [records.load_queries(queries_name(name, method, seed), protocol.metrics) for seed in protocol.seeds]
    num_users = 1 + max(int(users.max()) for users, _ in loaded)
    counts = np.sum([np.bincount(users, minlength=num_users) for users, _ in loaded], axis=0)
    values = {}
    for metric in protocol.metrics:
        total = np.sum([np.bincount(users, by[metric], num_users) for users, by in loaded], axis=0)
        values[metric] = np.divide(total, counts, out=np.full(num_users, np.nan), where=counts > 0)
    return values


def _best(rows: Sequence[Row], methods: Sequence[str], metric: str) -> Row | None:
    """The row with the highest test value. As a bar for ours this is stricter than the best on validation."""
    return max((row for row in rows if row.method in methods), key=lambda row: row.mean(metric), default=None)


def _reference(rows: Sequence[Row], protocol: Protocol) -> Row | None:
    return _best(rows, protocol.reference, protocol.metrics[0])


def _cell(row: Row, metric: str, best: float) -> str:
    deviation = row.deviation(metric)
    value = f"{row.mean(metric):.4f}" + (f" ± {deviation:.4f}" if deviation is not None else "")
    return f"**{value}**" if row.mean(metric) == best else value


def _compared(row: Row, reference: Row, metric: str) -> list[str]:
    ratio = f"{row.mean(metric) / reference.mean(metric):.3f}"
    if row is reference:
        return [ratio, ""]
    found = paired(row.values[metric], reference.values[metric])
    return [ratio, f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}], p {found.p_value:.1g}"]


def _costs(row: Row) -> list[str]:
    value, records = row.tests[0]["validation_value"], [*row.trials, *row.tests]
    return [
        f"{value:.4f}",
        str(row.tests[0]["num_trials"]),
        _duration(sum(trial["seconds"] for trial in row.trials)),
        _duration(float(np.mean([test["seconds"] for test in row.tests]))),
        f"{max(record['peak_memory_bytes'] for record in records) / 2**30:.2f} GiB",
    ]


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def _hyperparameters(row: Row) -> str:
    def text(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    return ", ".join(f"{name} {text(value)}" for name, value in row.tests[0]["hyperparameters"].items())


def _target(target: Target, rows: Sequence[Row]) -> str:
    """A sentence about a target. The method of ours is the one with the best validation value."""
    ours = max(
        (row for row in rows if row.method in OURS), key=lambda row: row.tests[0]["validation_value"], default=None
    )
    bar = _best(rows, target.times, target.metric)
    what = f"{target.metric} ≥ {target.at_least}"
    if target.times:
        what = f"{target.metric} ≥ {target.at_least} × {' or '.join(target.times)}"
    if target.significant:
        what = f"{target.metric} above {' or '.join(target.times)}, p < 0.05 in a paired test"
    if ours is None or (target.times and bar is None):
        return f"- Target {what}: not measured yet."
    if target.significant and bar is not None:
        found = paired(ours.values[target.metric], bar.values[target.metric])
        is_met = found.value > 0 and found.p_value < 0.05
        result = f"a difference of {found.value:+.4f}, p {found.p_value:.1g}"
    else:
        value = ours.mean(target.metric) / (bar.mean(target.metric) if bar else 1)
        is_met, result = value >= target.at_least, f"{value:.4f}"
    return f"- Target {what}: {'met' if is_met else 'missed'} by {ours.method}, with {result}."


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "| --- |" + " ---: |" * (len(rows[0]) - 1))
    return "\n".join(lines)
