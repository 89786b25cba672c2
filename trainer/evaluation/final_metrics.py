"""Final metrics as result.json, TensorBoard and the console show them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from trainer.evaluation.statistics import Mean, Metrics

Protocols = dict[str, dict[str, Metrics]]
"""protocol → scorer (model, popularity, recent_popularity, item_mean, random) → metrics"""


def to_json(protocols: Protocols) -> dict[str, Any]:
    """Converts metrics to plain values, for result.json."""
    return {
        protocol: {
            scorer: {name: asdict(mean) for name, mean in metrics.items()} for scorer, metrics in by_scorer.items()
        }
        for protocol, by_scorer in protocols.items()
    }


def from_json(protocols: Mapping[str, Any]) -> Protocols:
    """Reads what `to_json` returned. null becomes NaN."""

    def read(fields: Mapping[str, Any]) -> Mean:
        plain: dict[str, Any] = {name: math.nan if value is None else value for name, value in fields.items()}
        return Mean(**plain)

    return {
        protocol: {
            scorer: {name: read(mean) for name, mean in metrics.items()} for scorer, metrics in by_scorer.items()
        }
        for protocol, by_scorer in protocols.items()
    }


def final_scalars(protocols: Protocols) -> dict[str, float]:
    """The model's means by `PROTOCOL/METRIC`, for TensorBoard and metrics.jsonl."""
    return {
        f"{protocol}/{name}": mean.value
        for protocol, by_scorer in protocols.items()
        for name, mean in by_scorer["model"].items()
    }


def to_markdown(split: str, protocols: Protocols) -> str:
    """Returns the tables of `print_protocols` in Markdown."""
    lines = []
    for protocol, by_scorer in protocols.items():
        means = by_scorer["model"]
        lines += [f"**{_title(split, protocol, means)}**", ""]
        lines += [f"| | {' | '.join(means)} |", f"| --- |{' ---: |' * len(means)}"]
        lines += [
            f"| {scorer} | {' | '.join(str(metrics[name]) for name in means)} |"
            for scorer, metrics in by_scorer.items()
        ]
        lines.append("")
    return "\n".join(lines)


def print_protocols(console: Console, split: str, protocols: Protocols) -> None:
    """Prints one table per protocol: a row per scorer, a column per metric, ± half of the 95% interval."""
    for protocol, by_scorer in protocols.items():
        means = by_scorer["model"]
        _print_table(
            console,
            _title(split, protocol, means),
            list(means),
            {scorer: [str(metrics[name]) for name in means] for scorer, metrics in by_scorer.items()},
        )


def print_recommendations(console: Console, split: str, recommendations: Mapping[str, Mapping[str, float]]) -> None:
    """Prints what is recommended: a row per scorer, a column per metric. Without recommendations it prints nothing.

    Args:
      console: Where to print.
      split: The split whose users get the recommendations.
      recommendations: `Evaluation.recommendations`.
    """
    if not recommendations:
        return
    names = list(next(iter(recommendations.values())))
    _print_table(
        console,
        f"{split}, the recommended items",
        names,
        {scorer: [f"{values[name]:,.4g}" for name in names] for scorer, values in recommendations.items()},
    )


def _print_table(console: Console, title: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> None:
    # Not the title of the table, which is broken where the table ends.
    console.print(title, style="italic", soft_wrap=True)
    table = Table("", *(Column(name, justify="right") for name in columns), box=None, pad_edge=False)
    for name, cells in rows.items():
        table.add_row(name, *cells)
    console.print(table)


def _title(split: str, protocol: str, means: Metrics) -> str:
    return f"{split}, {protocol}: {_count(means)} (± half of the 95% interval)"


def _count(means: Metrics) -> str:
    """The number of lists. Metrics of a protocol differ in it if some of them are undefined for some lists."""
    numbers = sorted({mean.num_lists for mean in means.values()})
    num_lists = f"{numbers[-1]:,}" if len(numbers) == 1 else f"{numbers[0]:,} to {numbers[-1]:,}"
    num_left_out = max(mean.num_left_out for mean in means.values())
    left_out = f"; {num_left_out:,} without a relevant item left out" if num_left_out else ""
    return f"{num_lists} lists{left_out}"
