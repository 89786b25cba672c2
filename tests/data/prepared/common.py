"""Ratings with every kind of feature, as tables and lines, and data sets that are prepared from them."""

import pathlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from configs import default
from settings.trainer_config import load_trainer_config
from trainer.config import dataset_arguments
from trainer.data.loading import load_dataset, load_source
from trainer.data.prepared import writing
from trainer.data.synthetic import generate_ratings

NUM_RATINGS = 1500
SMALL_SHARD = 4000
"""Bytes of a shard, so that these ratings need several."""

FEATURES = {"query": ("age", "groups"), "item": ("weight/kg",), "example": ("place", "tags")}

CASES: dict[str, dict[str, Any]] = {
    "row order": {"features": FEATURES},
    "time order": {"list_order": "time", "history_size": 5, "split_method": "last", "features": FEATURES},
    "cut in time": {"split_method": "time", "validation_fraction": 0.3, "test_fraction": 0.3},
    "only training": {"split_method": "none", "list_order": "time"},
    "no validation": {"validation_fraction": 0.0},
    "films of one title": {"item_identity": "title"},
    "without histories": {"history_size": 0},
    "events": {"columns": {"rating": "", "timestamp": ""}, "duplicates": "count"},
    "events with times": {"columns": {"rating": ""}},
    "given": {"split_method": "given", "validation_fraction": 0.2},
}


def ratings_table(seed: int = 0) -> pa.Table:
    """Ratings in any order, many of them at the same time, some of them twice. Sums of their stars are rounded."""
    rng = np.random.default_rng(seed)
    rated = generate_ratings(seed=seed, num_users=40, num_items=60, num_ratings=NUM_RATINGS).ratings
    rated = pa.concat_tables([rated, rated.slice(0, 50)])
    rated = rated.take(rng.permutation(rated.num_rows))
    users, items = (rated[name].to_numpy().astype(int) for name in ("user_id", "item_id"))
    titles = [f"Film {item % 50}" for item in items]
    return pa.table(
        {
            "user_id": rated["user_id"],
            "item_id": rated["item_id"],
            "rating": rated["rating"].to_numpy() / np.float32(3),
            "timestamp": rated["timestamp"].to_numpy() // 500_000,
            "title": titles,
            "age": [str(20 + user % 7) if user % 5 else None for user in users],
            "groups": ["|".join("abc"[: user % 4]) for user in users],
            "weight/kg": items / 7,
            "place": rng.integers(0, 4, len(users)),
            "tags": [list("xyz"[: number % 4]) for number in rng.integers(0, 9, len(users))],
        }
    )


def arguments_of(folder: pathlib.Path, case: str, **changed: Any) -> dict[str, Any]:
    """Writes the ratings of a case to `folder`. Returns the arguments that load them, with changes."""
    arguments = dataset_arguments(load_trainer_config(default.get_config()))
    columns = {**arguments["columns"], "title": "title", **CASES[case].get("columns", {})}
    table = ratings_table()
    parts = {"source": table}
    if case == "given":
        parts = {"source": table.slice(0, 1000), "test_source": table.slice(1000)}
    for name, part in parts.items():
        pq.write_table(part, folder / f"{name}.parquet")
        arguments[name] = str(folder / f"{name}.parquet")
    return {**arguments, "list_size": 7, "history_size": 9, **CASES[case], "columns": columns, **changed}


def prepare(folder: pathlib.Path | str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Prepares a data set in `folder`. Returns the arguments that open it."""
    dataset = load_source(**arguments)
    writing.write_prepared(dataset, str(folder), writing.plan_dataset(dataset, arguments))
    return {**arguments, "source": str(folder)}


def open_data(arguments: dict[str, Any], **changed: Any) -> Any:
    """Loads a data set with changed arguments."""
    return load_dataset(**{**arguments, **changed})
