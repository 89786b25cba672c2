"""What is said about data before it is used: its columns, its rows, and what of it cannot be used or makes no sense."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from settings.visible_text import visible
from trainer import schema
from trainer.data.arrays import EntryArray, ShardedArray
from trainer.data.dataset import Dataset
from trainer.data.ratings.accounts import COUNTED, READ, USED

MANY_UNUSED = 0.01
"""From this part of the ratings of a split up, ratings that cannot be used are worth a sentence."""

NEARLY_ALL, NEARLY_NONE = 0.95, 0.05
"""If more or less than this part of the ratings is relevant, metrics of relevance say little."""

_MAX_SHOWN = 10


def describe_columns(counts: Mapping[str, Any]) -> list[str]:
    """Returns sentences about the columns of tables: those with other names than ours, and those that are not used.

    Args:
      counts: the content of data.json.
    """
    sources = counts.get("sources", {"train": counts["source"]})
    sentences = []
    # Data that an earlier version prepared has no record of its columns.
    for split, columns in counts.get("columns", {}).items():
        used, unused = columns["used"], columns["unused"]
        if unused or any(ours != name for ours, name in used.items()):
            listed = ", ".join(f"{ours} = {name}" for ours, name in used.items())
            rest = f"; not used: {_listed(unused)}" if unused else ""
            sentences.append(f"Columns of {sources[split]}: {listed}{rest}.")
        if schema.TIMESTAMP not in used:
            sentences.append(f"{sources[split]} is read without times: its rows count as ordered from old to new.")
    return list(map(visible, sentences))


def describe_rows(counts: Mapping[str, Any]) -> str:
    """Returns a sentence with the numbers of rows by what became of them. The argument is the content of data.json."""
    rows = counts["rows"]
    others = [f"{number:,} {kind}" for kind, number in rows.items() if number and kind not in (READ, USED)]
    listed = f" (others: {', '.join(others)})" if others else ""
    return visible(f"{counts['source']}: {rows[READ]:,} rows read, {rows[USED]:,} used{listed}.")


def has_dropped_rows(counts: Mapping[str, Any]) -> bool:
    """Returns whether some rows were dropped. The argument is the content of data.json."""
    rows = counts["rows"]
    return bool(rows[READ] > rows[USED] + rows.get(COUNTED, 0))


def describe_unused_ratings(dataset: Dataset) -> list[str]:
    """Returns a sentence for each split of which many ratings are not used, because their users are unknown."""
    sentences = []
    for split, num_unknown in dataset.description["num_ratings_of_unknown_users"].items():
        num_known = dataset.description["num_ratings"][split]
        share = num_unknown / (num_unknown + num_known)
        if share > MANY_UNUSED:
            num_users = len(np.unique(dataset.lists[split].queries))
            sentences.append(
                f"{num_unknown:,} of {num_unknown + num_known:,} {split} ratings ({share:.0%}) are not used, because "
                f"their users have no training ratings. {_count(num_users, 'user')} with {num_known:,} {split} ratings "
                f"{'is' if num_users == 1 else 'are'} left."
            )
    return sentences


def describe_relevance(dataset: Dataset, threshold: float) -> str | None:
    """Returns a sentence if nearly all or nearly no training ratings are relevant; None otherwise, and for events.

    Args:
      threshold: ratings at or above it are relevant.
    """
    if not dataset.has_ratings:
        return None
    ratings = dataset.lists["train"].labels
    share = _share_from(ratings, threshold)
    if NEARLY_NONE <= share <= NEARLY_ALL:
        return None
    values, numbers = np.unique(np.asarray(ratings), return_counts=True)
    shares = np.cumsum(numbers[::-1])[::-1] / numbers.sum()
    # The ratings of the middle, with as many relevant as irrelevant ones.
    best = int(np.argmin(np.abs(shares - 0.5)))
    how_many = "nearly all" if share > NEARLY_ALL else "hardly any"
    found = (
        f"{share:.1%} of the training ratings are at or above config.eval.relevance_threshold={threshold:g}, so "
        f"{how_many} count as relevant, and metrics say little about the model."
    )
    if NEARLY_NONE <= shares[best] <= NEARLY_ALL:
        return f"{found} With --config.eval.relevance_threshold={values[best]:g} it would be {shares[best]:.1%}."
    return f"{found} No other threshold is better, because nearly all ratings are equal."


def _share_from(ratings: EntryArray, threshold: float) -> float:
    parts = ratings.parts if isinstance(ratings, ShardedArray) else [ratings]
    return sum(int(np.count_nonzero(part >= threshold)) for part in parts) / sum(len(part) for part in parts)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_MAX_SHOWN])
    return shown if len(names) <= _MAX_SHOWN else f"{shown} and {len(names) - _MAX_SHOWN:,} others"
