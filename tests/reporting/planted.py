"""The folder of a finished run as a run leaves it, but for its model; written by hand, without TensorFlow."""

import json
import pathlib
from typing import Any

import numpy as np
import pyarrow as pa
from ml_collections import ConfigDict

from configs import default
from trainer import storage
from trainer.data.vocabulary import Vocabulary
from trainer.evaluation import final_metrics, verdict
from trainer.evaluation.protocols import means_of
from trainer.evaluation.query_metrics import QueryMetrics, write_queries
from trainer.evaluation.statistics import ListMetrics
from trainer.reporting.samples import Item, Samples, User
from trainer.workdir import Workdir

NUM_USERS = 60
DAY = 86_400
VOCABULARY = Vocabulary(users=pa.table({"user_id": [f"u{i}" for i in range(NUM_USERS + 1)]}), items=pa.table({}))
OF_USER = np.random.default_rng(0).uniform(0.2, 0.7, NUM_USERS)
NOISE = np.random.default_rng(1).normal(0, 0.02, NUM_USERS)
CENTERED = NOISE - NOISE.mean()

QUALITY = {
    "catalogue": {"model": 0.05, "popularity": 0.0, "item_mean": -0.1, "random": -0.15},
    "rated": {"model": 0.0, "popularity": -0.1, "item_mean": 0.0, "random": -0.15},
}
"""In a planted run, the model recommends better than popularity, and orders no better than the item mean."""

LINES: list[dict[str, Any]] = [
    {
        "step": step,
        "epoch": step / 10,
        "split": split,
        "metrics": {"loss": loss / step, **({"catalogue/ndcg@10": 0.5 - 1 / step} if split == "validation" else {})},
    }
    for step in (10, 20, 30, 40)
    for split, loss in (("train", 900.0), ("validation", 100.0))
]


def write_run(
    folder: pathlib.Path,
    *,
    config: ConfigDict | None = None,
    quality: dict[str, dict[str, float]] | None = None,
    names: tuple[str, ...] = ("ndcg@10", "mrr"),
    split: str | None = "test",
    lines: list[dict[str, Any]] = LINES,
    test_set: str = "1",
    **description: Any,
) -> str:
    """Writes a finished run to a new folder, and returns its path.

    Args:
      quality: what each scorer adds to the metric of each user, by protocol.
      description: fields of data.json that differ.
    """
    folder.mkdir(parents=True)
    paths = Workdir(str(folder))
    paths.save_run(
        config or default.get_config(),
        {
            "source": "ratings.csv",
            "rows": {"read": 1010, "used": 1000, "duplicate": 7, "rating_out_of_range": 3},
            "has_ratings": True,
            "num_users": NUM_USERS,
            "num_items": 40,
            "num_ratings": {"train": 800, "validation": 100, "test": 97},
            "num_ratings_of_unknown_users": {"train": 0, "validation": 0, "test": 3},
            "num_lists": {"train": 60, "validation": 60, "test": 60},
            "periods": {"train": [0, 9 * DAY], "validation": [DAY, 8 * DAY], "test": [2 * DAY, 10 * DAY]},
            "fingerprints": {},
            **description,
        },
        strategy="mirrored",
        num_replicas=2,
        chosen={"model.embedding_size": 128},
        first_step=0,
    )
    storage.write_bytes(paths.metrics, "".join(json.dumps(line) + "\n" for line in lines).encode())
    protocols = {
        protocol: QueryMetrics(
            np.arange(1, NUM_USERS + 1, dtype=np.int32),
            {scorer: lists_of(added, names, noisy=scorer == "model") for scorer, added in scorers.items()},
            {"users": test_set, "held-out items": test_set},
        )
        for protocol, scorers in (QUALITY if quality is None else quality).items()
        if split
    }
    result: dict[str, Any] = {
        "warnings": [],
        "step": 40,
        "exported_step": 30,
        "train": {"loss": 22.5},
        "held_out": split,
        "speed": {"strategy": "mirrored", "num_replicas": 2, "steps_per_second": 100.0, "lists_per_second": 1234.5},
    }
    found = verdict.NOTHING_HELD_OUT
    if protocols:
        write_queries(paths.queries, str(split), protocols, VOCABULARY)
        means = means_of(protocols, seed=0)
        best_metric = (config or default.get_config()).eval.best_metric
        found = verdict.decide(str(split), protocols, means, best_metric=best_metric)
        result["protocols"] = final_metrics.to_json(means)
        result |= {"recommendations": {}, "breakdowns": {}}
    if "catalogue" in protocols:
        scorers = list(protocols["catalogue"].by_scorer)
        result["recommendations"] = {
            scorer: {"coverage@10": 0.1 + i / 10, "mean_popularity@10": 30.0 - i, "novelty@10": 1.5 + i}
            for i, scorer in enumerate(scorers)
        }
        result["breakdowns"] = breakdowns_of(scorers, names)
    paths.save_json(paths.result, {**result, "verdict": verdict.to_json(found)})
    return str(folder)


def lists_of(added: float, names: tuple[str, ...], *, noisy: bool) -> ListMetrics:
    """The metrics of a scorer that adds the same to what each user has, but for noise with the mean 0."""
    of_user = OF_USER + added + CENTERED * noisy
    values = np.stack([of_user / (1 + i) for i in range(len(names))], axis=1).astype(np.float32)
    return ListMetrics(names, values, np.ones_like(values), num_left_out=4)


def breakdowns_of(scorers: list[str], names: tuple[str, ...]) -> dict[str, Any]:
    """As in result.json: the model is worse than the others for the users with the fewest ratings."""
    activities, popularities = ("low", "middle", "high"), ("head", "middle", "tail")
    return {
        "user_activity": {
            "groups": {
                name: {"num_users": 20, "min_train_ratings": 10 * i + 1, "max_train_ratings": 10 * i + 10}
                for i, name in enumerate(activities)
            },
            "scorers": {
                scorer: {
                    name: dict.fromkeys(names, 0.1 + 0.1 * i if scorer == "model" else 0.15)
                    for i, name in enumerate(activities)
                }
                for scorer in scorers
            },
        },
        "item_popularity": {
            "groups": {name: {"num_items": 5 + i, "num_relevant": 50} for i, name in enumerate(popularities)},
            "scorers": {
                scorer: {name: {"recall@10": 0.4 - 0.1 * i} for i, name in enumerate(popularities)}
                for scorer in scorers
            },
        },
    }


def samples_of(titles: list[str]) -> Samples:
    """Ten users and eight items, which share the titles in turn."""
    items = [
        Item(f"i{number}", titles[number % len(titles)], ("Drama", f"G{number % 3}"), 400 - number, 4.0)
        for number in range(48)
    ]
    users = tuple(User(f"u{number}", 20 + number, tuple(items[:8]), tuple(items[8:16])) for number in range(10))
    return Samples(users, True, tuple((items[number], tuple(items[16:21])) for number in range(8)))
