"""What tests share: four CPU devices, tiny ratings with a planted order, a config for them, and a training run."""

import functools
import pathlib
import signal
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from ml_collections import ConfigDict

from configs import tutorial
from settings.trainer_config import load_trainer_config
from trainer.compat import tf
from trainer.serving.export import verify_in_this_process
from trainer.training.run import train_and_evaluate

# A shell starts its background jobs with SIGINT ignored, and so would be the processes that tests send it to.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Before TensorFlow is first used, so that one process can try strategies of 1, 2 and 4 replicas.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 4
)

pytest_plugins = ["tests.reliability.promises"]

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
SHARED_DATA = REPOSITORY.parent / "shared" / "data"

NUM_USERS, NUM_ITEMS = 40, 30


def planted_ratings(seed: int = 0) -> pa.Table:
    """Each user rates two thirds of the items; an item's stars depend only on the item: 1 + number mod 5."""
    rng = np.random.default_rng(seed)
    rated = rng.random([NUM_USERS, NUM_ITEMS]) < 2 / 3
    users, items = np.nonzero(rated)
    order = rng.permutation(len(users))
    users, items = users[order], items[order]
    return pa.table(
        {
            "user_id": [f"u{user}" for user in users],
            "item_id": [f"i{item}" for item in items],
            "rating": (1 + items % 5).astype(np.float32),
            "timestamp": np.arange(len(users)),
            "title": [f"Film {item}" for item in items],
        }
    )


@functools.cache
def mirrored_strategy(num_replicas: int) -> tf.distribute.Strategy:
    """A MirroredStrategy over that many CPU devices."""
    # In one process, strategies of several sizes need collective group keys of their own.
    tf.distribute.MirroredStrategy._collective_key_base += 100_000
    devices = tf.config.list_logical_devices("CPU")[:num_replicas]
    return tf.distribute.MirroredStrategy([device.name for device in devices])


@pytest.fixture(scope="session")
def ratings_csv(tmp_path_factory) -> str:
    """The planted ratings as a file."""
    path = tmp_path_factory.mktemp("ratings") / "ratings.csv"
    pa.csv.write_csv(planted_ratings(), str(path))
    return str(path)


@pytest.fixture
def tiny_config(ratings_csv):
    """The tutorial's model, in a run of a second or two that learns the planted order."""
    config = tutorial.get_config()
    config.data.source = ratings_csv
    config.data.item_identity = "item_id"
    config.data.columns.title = "title"
    config.split.method = "random"
    config.list_size = 12
    config.model.embedding_size = 8
    config.train.global_batch_size = 8
    config.train.num_epochs = 4
    config.train.steps_per_execution = 5
    config.optimizer.learning_rate = 0.5
    config.train.early_stopping_patience = 3
    config.eval.relevance_threshold = 4.0
    config.eval.metrics = ("ndcg@5", "mrr")
    config.eval.best_metric = "ndcg@5"
    return config


def no_report(workdir: str) -> None:
    """Most tests need no report, which takes a second or two."""


def train(
    config: ConfigDict,
    workdir: pathlib.Path | str,
    strategy_name: str = "default",
    *,
    report_fn: Callable[[str], object] = no_report,
) -> int:
    """Runs the trainer in this process, which also checks the exported model.

    Returns:
      The exit code.
    """
    return train_and_evaluate(
        load_trainer_config(config),
        strategy_name=strategy_name,
        workdir=str(workdir),
        verify_export=verify_in_this_process,
        report_fn=report_fn,
    )
