"""Trains a model of this project, through the same calls as `python -m trainer.main`.

Every rating that a method gets is trained on, and the last checkpoint is used. So the number of epochs is a
hyperparameter as for the peers, and a trial trains in the same way as the final fit.
"""

import contextlib
import io
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
from trainer import schema

INPUT = "input"
"""The hyperparameter that is no config field: `ratings`; `all`, every rating as an event; or `positives`, only the
relevant ones, as events."""

_NEVER = 10**9
_USERS_PER_CHUNK = 512


def train(data: TrainingData, hyperparameters: Mapping[str, Any], *, config: ConfigDict) -> Fitted:
    """Trains with a config.

    Args:
      data: What to train on.
      hyperparameters: Config fields, as in "model.embedding_size", and INPUT.
      config: The other fields. Where the data is, and that nothing is held out of it, is set here.
    """
    # Imported here: TensorFlow would add seconds and 0.5 GB to the methods without it.
    from settings.trainer_config import load_trainer_config
    from trainer.serving.export import verify_in_this_process
    from trainer.training.run import train_and_evaluate

    fields = dict(hyperparameters)
    kind = fields.pop(INPUT, "ratings")
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict(fields)
    with tempfile.TemporaryDirectory() as folder:
        source, workdir = pathlib.Path(folder) / "ratings.parquet", pathlib.Path(folder) / "run"
        _write_ratings(source, data, positives_only=kind == "positives")
        config.seed = data.seed
        config.data.source = str(source)
        config.data.item_identity = "item_id"
        config.data.columns.rating = "rating" if data.has_ratings and kind == "ratings" else ""
        config.split.method = "none"
        config.train.log_every_steps = config.train.checkpoint_every_steps = _NEVER
        config.eval.num_sample_users = 0
        checked = load_trainer_config(config)
        with contextlib.redirect_stdout(io.StringIO()):
            train_and_evaluate(
                checked, strategy_name="default", workdir=str(workdir), verify_export=verify_in_this_process
            )
        return _fitted(data, checked, workdir)


def _write_ratings(path: pathlib.Path, data: TrainingData, *, positives_only: bool) -> None:
    part = data.interactions
    if positives_only:
        part = part.take(part.ratings >= data.relevance_threshold)
    columns = {
        "user_id": pa.array(part.users).cast(pa.string()),
        "item_id": pa.array(part.items).cast(pa.string()),
        "rating": part.ratings,
        "timestamp": part.timestamps,
    }
    pq.write_table(pa.table(columns), path)


def _fitted(data: TrainingData, config: Any, workdir: pathlib.Path) -> Fitted:
    """Reads the exported model: the vectors of all users and items, whose dot products are the scores."""
    from trainer import config as config_lib
    from trainer.data.loading import load_dataset
    from trainer.evaluation.exported import ExportedModel
    from trainer.serving.export import load_export

    dataset = load_dataset(**config_lib.dataset_arguments(config))
    model = ExportedModel(load_export(str(workdir / "model"), dataset.vocabulary))
    users = dataset.vocabulary.user_indices(pa.array(np.arange(data.num_users)).cast(pa.string()))
    items = dataset.vocabulary.item_indices(pa.array(np.arange(data.num_items)).cast(pa.string()))
    source = dataset.query_source("train")
    queries = np.concatenate(
        [
            np.asarray(model.query_vectors(source.gather(users[begin : begin + _USERS_PER_CHUNK])))
            for begin in range(0, len(users), _USERS_PER_CHUNK)
        ]
    )
    candidates = np.asarray(model.candidate_vectors(items))
    counts = np.bincount(data.interactions.items, minlength=data.num_items).astype(np.float32)

    def scores(rows: np.ndarray) -> np.ndarray:
        values = queries[rows] @ candidates.T
        # As the exported model does: a user without training ratings gets the most popular items.
        values[users[rows] == schema.UNKNOWN_INDEX] = counts
        values[:, items == schema.UNKNOWN_INDEX] = -np.inf
        return values

    return Fitted(scores)
