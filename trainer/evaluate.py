"""Figures about a ranking model, each with its error bar and beside what needs no model.

Two protocols, which answer two questions:

- `rated`: in which order does it put the items that a user is known to have rated? The lists are the
  user's held-out ratings. A random order already scores high on them, so the floors matter.
- `catalogue`: what does it recommend? The list is every item that the user has not rated in an earlier
  split; the held-out ratings are its labels, and every other item has label 0.

The floors are a random order and the order of popularity (number of training ratings). Neither depends on how
lists are dealt to batches and replicas, so that every evaluation of a run gives the same figures.

python -m trainer.evaluate --workdir=runs/mine
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from absl import flags
from rich.console import Console
from rich.table import Table

from trainer import cli, input_pipeline, schema
from trainer import config as config_lib
from trainer.compat import tf
from trainer.dataset import Dataset, load_dataset
from trainer.errors import ConfigError
from trainer.lists import QueryLists, build_lists
from trainer.losses import LossFn
from trainer.metrics import RankingMetric, build_metrics
from trainer.steps import NUM_SUMS, Features, Scorer, build_eval_call
from trainer.workdir import Workdir


@dataclass(frozen=True)
class Figure:
    """A mean over lists, and its standard error: the standard deviation over lists / √num_lists.

    Where a metric weighs lists (ordered_pair_accuracy, arp) both are weighted, and Kish's effective sample size
    takes the place of num_lists. Of fewer than two lists the error is NaN.
    """

    value: float
    standard_error: float
    num_lists: int

    def __str__(self) -> str:
        """`0.9053 ± 0.0032`; one list says nothing of the error."""
        return f"{self.value:.4f}" + (f" ± {self.standard_error:.4f}" if self.num_lists > 1 else "")


Figures = dict[str, Figure]
Protocols = dict[str, dict[str, Figures]]
"""protocol → who ranks (model, popularity, random) → figures"""


class Evaluator:
    """Evaluates a scorer on lists, over all replicas of a strategy."""

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        scorer: Scorer,
        lists: QueryLists,
        metrics: Sequence[RankingMetric],
        *,
        list_size: int,
        global_batch_size: int,
        loss_fn: LossFn | None = None,
    ):
        """`scorer` takes a batch of features and returns scores [batch_size, list_size]."""
        self._names = (["loss"] if loss_fn else []) + [metric.name for metric in metrics]
        self._eval_call = build_eval_call(strategy, scorer, metrics, loss_fn=loss_fn)
        self._num_batches = input_pipeline.steps_per_epoch(lists.num_lists, global_batch_size)
        self._batches = strategy.distribute_datasets_from_function(
            lambda context: input_pipeline.build_eval_dataset(
                lists, list_size=list_size, global_batch_size=global_batch_size, context=context
            )
        )

    def evaluate(self) -> Figures:
        """The figures of the scorer as it is now, by name."""
        batches = iter(self._batches)
        sums = np.zeros([len(self._names), NUM_SUMS])
        for _ in range(self._num_batches):
            sums += self._eval_call(next(batches)).numpy()
        return {name: _figure(*row) for name, row in zip(self._names, sums, strict=True)}


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
        can_recommend = {who: _unknown_last(score) for who, score in scorers.items()}
        protocols["catalogue"] = figures(catalogue, can_recommend, longest)
    return protocols


def build_floors(*, seed: int) -> dict[str, Scorer]:
    """What needs no model: scorers by name, each from features to scores [batch_size, list_size]."""

    def popularity(features: Features) -> tf.Tensor:
        # The vocabulary has the items in this order; so ties end as they do in recommending.
        return -tf.cast(features[schema.ITEMS], tf.float32)

    def random(features: Features) -> tf.Tensor:
        # A seed for each query, not for each batch, whose rows depend on the number of replicas.
        list_size = features[schema.ITEMS].shape[1]
        return tf.map_fn(
            lambda query: tf.random.stateless_uniform([list_size], tf.stack([seed, query])),
            features[schema.QUERY],
            fn_output_signature=tf.float32,
        )

    return {"popularity": _unknown_last(popularity), "random": random}


def _unknown_last(scorer: Scorer) -> Scorer:
    """`scorer`, but below all other items those that training has not seen, which are never recommended."""

    def score(features: Features) -> tf.Tensor:
        scores = scorer(features)
        last = tf.reduce_min(scores, axis=1, keepdims=True) - 1.0
        return tf.where(features[schema.ITEMS] == schema.UNKNOWN_INDEX, last, scores)

    return score


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


def main() -> int:
    """Evaluates the exported model of a run on the split that was held out, and prints the tables."""
    workdir = Workdir(flags.FLAGS.workdir)
    config = workdir.load_config()
    if not tf.io.gfile.exists(f"{workdir.model}/saved_model.pb"):
        raise ConfigError(f"--workdir={workdir.path} holds no finished run: there is no model in {workdir.model}.")
    dataset = load_dataset(**config_lib.dataset_arguments(config))
    workdir.check_data(dataset.description)
    split = dataset.held_out_split
    if split is None:
        raise ConfigError(
            f"--workdir={workdir.path} held no ratings out (config.split.method={config.split.method!r}), so "
            "there is nothing to evaluate on that training has not seen."
        )
    model = tf.saved_model.load(workdir.model)
    metrics = build_metrics(
        config.eval.metrics,
        relevance_threshold=config.eval.relevance_threshold,
        item_subtopics=dataset.vocabulary.item_genres(),
    )
    protocols = evaluate_protocols(
        tf.distribute.get_strategy(),
        lambda features: model.score_indices(features[schema.QUERY], features[schema.ITEMS]),
        dataset,
        split,
        metrics,
        **config_lib.protocol_arguments(config),
    )
    print_protocols(cli.build_console(), split, protocols)
    return 0


def _figure(num_lists: float, sum_w: float, sum_wx: float, sum_wxx: float, sum_ww: float) -> Figure:
    """From the sums of `build_eval_call`: the weighted mean, and its error by Kish's effective sample size."""
    if not sum_w:
        return Figure(math.nan, math.nan, 0)
    mean = sum_wx / sum_w
    if num_lists < 2:
        return Figure(mean, math.nan, int(num_lists))
    variance = max(sum_wxx / sum_w - mean**2, 0.0)
    return Figure(mean, math.sqrt(variance * sum_ww) / sum_w, int(num_lists))


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Folder, local or gs://, of a finished run.", required=True)
    cli.run(main)
