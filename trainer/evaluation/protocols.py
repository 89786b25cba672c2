"""The protocols: rated and catalogue."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from trainer import schema
from trainer.compat import tf
from trainer.data.dataset import Dataset
from trainer.data.lists import QueryLists, build_lists
from trainer.evaluation.baselines import build_floors, unknown_last
from trainer.evaluation.evaluator import Evaluator, Scorer
from trainer.evaluation.metrics import RankingMetric
from trainer.evaluation.statistics import Figure, Figures

Protocols = dict[str, dict[str, Figures]]
"""protocol → who ranks (model, popularity, random) → figures"""


def evaluate_protocols(
    strategy: tf.distribute.Strategy,
    scorer: Scorer,
    dataset: Dataset,
    split: str,
    metrics: Sequence[RankingMetric],
    *,
    list_size: int,
    global_batch_size: int,
    num_catalogue_users: int,
    seed: int,
) -> Protocols:
    """The figures of the model and of the floors on a held-out split.

    Args:
      scorer: the model.
      split: `validation` or `test`.
      num_catalogue_users: how many users' catalogues are ranked: 0 for none, -1 for all with held-out ratings.
      seed: of the random order, and of which users are drawn.

    Returns:
      The figures; without `catalogue` where there is no user to rank it for.
    """
    scorers = {"model": scorer, **build_floors(seed=seed)}

    def figures(lists: QueryLists, scorers: dict[str, Scorer], list_size: int) -> dict[str, Figures]:
        return {
            who: Evaluator(
                strategy, score, lists, metrics, list_size=list_size, global_batch_size=global_batch_size
            ).evaluate()
            for who, score in scorers.items()
        }

    protocols = {"rated": figures(dataset.lists[split], scorers, list_size)}
    catalogue = catalogue_lists(dataset, split, num_users=num_catalogue_users, seed=seed)
    if catalogue.num_lists:
        longest = int(np.diff(catalogue.offsets).max())
        can_recommend = {who: unknown_last(score) for who, score in scorers.items()}
        protocols["catalogue"] = figures(catalogue, can_recommend, longest)
    return protocols


def catalogue_lists(dataset: Dataset, split: str, *, num_users: int, seed: int) -> QueryLists:
    """For each user with ratings in `split`, all items not rated in the splits before it.

    Labels are the ratings of `split`, and 0 for all other items. An item that training has not seen cannot be
    recommended; where it was rated it stands in the list as the unknown item, to be ranked last: as missed.

    Args:
      num_users: how many users, drawn by `seed`; -1 for all.
    """
    earlier = schema.SPLITS[: schema.SPLITS.index(split)]
    users, items, ratings = dataset.ratings[split]
    known = np.unique(users[users != schema.UNKNOWN_INDEX])
    if 0 <= num_users < len(known):
        known = np.sort(np.random.default_rng(seed).choice(known, num_users, replace=False))
    num_items = dataset.vocabulary.num_items

    labels: np.ndarray = np.zeros([len(known), num_items], np.float32)
    row_of_user: np.ndarray = np.full(dataset.vocabulary.num_users, -1, np.int64)
    row_of_user[known] = np.arange(len(known))
    labels[:, schema.UNKNOWN_INDEX] = schema.PADDING_LABEL
    for seen_users, seen_items, _ in (dataset.ratings[name] for name in earlier if name in dataset.ratings):
        is_drawn = row_of_user[seen_users] >= 0
        labels[row_of_user[seen_users[is_drawn]], seen_items[is_drawn]] = schema.PADDING_LABEL
    held_out = row_of_user[users] >= 0
    can_rank = held_out & (items != schema.UNKNOWN_INDEX)
    labels[row_of_user[users[can_rank]], items[can_rank]] = ratings[can_rank]
    rows, columns = np.nonzero(labels >= 0)

    cannot_rank = held_out & (items == schema.UNKNOWN_INDEX)
    all_rows = np.concatenate([rows, row_of_user[users[cannot_rank]]])
    all_items = np.concatenate([columns, items[cannot_rank]])
    all_labels = np.concatenate([labels[rows, columns], ratings[cannot_rank]])
    return build_lists(
        known[all_rows].astype(np.int32),
        all_items.astype(np.int32),
        all_labels,
        list_size=num_items + len(items),
    )


def to_json(protocols: Protocols) -> dict[str, Any]:
    """Plain values, for result.json."""
    return {
        protocol: {who: {name: asdict(f) for name, f in figures.items()} for who, figures in by_scorer.items()}
        for protocol, by_scorer in protocols.items()
    }


def from_json(protocols: dict[str, Any]) -> Protocols:
    """Reads what `to_json` made, null as NaN."""

    def figure(value: float | None, standard_error: float | None, num_lists: int) -> Figure:
        return Figure(
            math.nan if value is None else value, math.nan if standard_error is None else standard_error, num_lists
        )

    return {
        protocol: {who: {name: figure(**f) for name, f in figures.items()} for who, figures in by_scorer.items()}
        for protocol, by_scorer in protocols.items()
    }


def final_scalars(protocols: Protocols) -> dict[str, float]:
    """The model's figures under `PROTOCOL/METRIC`, for TensorBoard and metrics.jsonl."""
    return {
        f"{protocol}/{name}": figure.value
        for protocol, by_scorer in protocols.items()
        for name, figure in by_scorer["model"].items()
    }


def print_protocols(console: Console, split: str, protocols: Protocols) -> None:
    """A table a protocol: a row for the model and each floor, a column a figure, ± one standard error."""
    for protocol, by_scorer in protocols.items():
        names = list(by_scorer["model"])
        num_lists = by_scorer["model"][names[0]].num_lists
        table = Table(title=f"{split}, {protocol}: {num_lists:,} lists", title_justify="left", box=None, pad_edge=False)
        table.add_column("")
        for name in names:
            table.add_column(name, justify="right")
        for who, figures in by_scorer.items():
            cells = [str(figures[name]) for name in names]
            table.add_row(who, *cells)
        console.print(table)
