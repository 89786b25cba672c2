"""Trains a model of this project, through the same calls as `python -m trainer.main`.

A trial validates after each epoch and stops early. The number of epochs of its best checkpoint is the number of epochs
of the final fit, which has no validation ratings.
"""

import contextlib
import io
import json
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ml_collections import ConfigDict

from benchmarks.quality.data import TrainingData
from benchmarks.quality.method import Fitted

MAX_EPOCHS = 200
PATIENCE = 10
"""Trials stop after this many validations without an improvement."""

INPUT = "input"
"""The hyperparameter that is no config field: `ratings`; `all`, every rating as an event; or `positives`, only the
relevant ones."""


def train(data: TrainingData, hyperparameters: Mapping[str, Any], *, config: ConfigDict) -> Fitted:
    """Trains with a config.

    Args:
      data: What to train on.
      hyperparameters: Config fields, as in "model.embedding_size", and INPUT.
      config: The other fields. Where the data is and what is measured is set here.
    """
    # Imported here: TensorFlow would add seconds and 0.5 GB to the methods without it.
    from settings.trainer_config import load_trainer_config
    from trainer.serving.export import verify_in_this_process
    from trainer.training.run import train_and_evaluate

    fields = dict(hyperparameters)
    kind = fields.pop(INPUT, "ratings")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        config = config.copy_and_resolve_references()
        _set_data(config, data, folder)
        if kind != "ratings":
            config.data.columns.rating = ""
        config.update_from_flattened_dict(fields)
        _write_parts(folder, data, kind)
        checked = load_trainer_config(config)
        with contextlib.redirect_stdout(io.StringIO()):
            train_and_evaluate(
                checked, strategy_name="default", workdir=str(folder / "run"), verify_export=verify_in_this_process
            )
        return _fitted(data, checked, folder / "run")


def _set_data(config: ConfigDict, data: TrainingData, folder: pathlib.Path) -> None:
    """Sets where the ratings are, what is measured and when training stops."""
    config.seed = data.seed
    config.data.source = str(folder / "train.parquet")
    config.data.item_identity = "item_id"
    config.data.columns.rating = "rating" if data.has_ratings else ""
    if data.validation is None:
        config.split.method = "none"
    else:
        config.split.method = "given"
        config.split.validation_source = str(folder / "validation.parquet")
    config.train.num_epochs = MAX_EPOCHS
    config.train.early_stopping_patience = PATIENCE
    config.eval.metrics = (data.metric,)
    config.eval.best_metric = data.metric if data.rated else f"catalogue/{data.metric}"
    config.eval.best_direction = "max"
    config.eval.relevance_threshold = data.relevance_threshold
    config.eval.num_validation_users = 0 if data.rated else -1
    config.eval.num_catalogue_users = 0
    config.eval.num_sample_users = 0


def _write_parts(folder: pathlib.Path, data: TrainingData, kind: str) -> None:
    """Writes the sources. Events have no ratings, so validation events are only the relevant ones."""
    for name, part in (("train", data.interactions), ("validation", data.validation)):
        if part is None:
            continue
        if kind == "positives" or (kind == "all" and name == "validation"):
            part = part.take(part.ratings >= data.relevance_threshold)
        columns = {
            "user_id": pa.array(part.users).cast(pa.string()),
            "item_id": pa.array(part.items).cast(pa.string()),
            "rating": part.ratings,
            "timestamp": part.timestamps,
        }
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")


def _fitted(data: TrainingData, config: Any, workdir: pathlib.Path) -> Fitted:
    """Reads the exported model: the vectors of all users and items, whose dot products are the scores."""
    from trainer import config as config_lib
    from trainer.data.dataset import load_dataset
    from trainer.evaluation.exported import ExportedModel
    from trainer.modeling import input_pipeline
    from trainer.serving.export import load_export

    dataset = load_dataset(**config_lib.dataset_arguments(config))
    model = ExportedModel(load_export(str(workdir / "model"), dataset.vocabulary))
    users, items = (
        ids(pa.array(np.arange(size)).cast(pa.string()))
        for ids, size in (
            (dataset.vocabulary.user_indices, data.num_users),
            (dataset.vocabulary.item_indices, data.num_items),
        )
    )
    source = dataset.query_source("train")
    chunks = np.array_split(users, max(1, len(users) // 512))
    queries = np.concatenate([np.asarray(model.query_vectors(source.gather(chunk))) for chunk in chunks])
    candidates = np.asarray(model.candidate_vectors(items))
    counts = np.bincount(data.interactions.items, minlength=data.num_items).astype(np.float32)

    def scores(rows: np.ndarray) -> np.ndarray:
        values = queries[rows] @ candidates.T
        # As the exported model does: a user without training ratings gets the most popular items.
        values[users[rows] == 0] = counts
        values[:, items == 0] = -np.inf
        return values

    result = json.loads((workdir / "result.json").read_text())
    batch_size = config.train.global_batch_size
    epoch_steps = input_pipeline.steps_per_epoch(dataset.lists["train"].num_lists, batch_size)
    return Fitted(scores, {"train.num_epochs": max(1, round(result["exported_step"] / epoch_steps))})
