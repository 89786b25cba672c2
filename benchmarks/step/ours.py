"""Our side: the training call of `trainer.main`."""

from collections.abc import Mapping
from typing import Any

from benchmarks.config import tutorial_config
from benchmarks.harness import time_repeatedly
from benchmarks.step.job import Job
from benchmarks.training import Training, build_training
from trainer import schema
from trainer.compat import tf
from trainer.modeling.two_tower import Features
from trainer.strategy import build_strategy


def export(folder: str, values: Mapping[str, Any]) -> dict[str, int]:
    """Writes the lists of our first epoch and our initial tables for the other sides. Returns their sizes."""
    training = build_training(tutorial_config(values))
    job = export_job(training, next(training.superbatches()))
    job.save(folder)
    steps, batch_size, list_size = job.items.shape
    num_queries, size = job.query_table.shape
    return {
        "num_steps": steps,
        "batch_size": batch_size,
        "list_size": list_size,
        "size": size,
        "num_queries": num_queries,
        "num_items": len(job.item_table),
        "num_lists": int(job.num_lists.sum()),
    }


def export_job(training: Training, superbatch: Features) -> Job:
    """The lists of a superbatch, and the tables as they are now."""
    tables = training.learner.model.tables
    return Job(
        queries=superbatch[schema.QUERY].numpy(),
        items=superbatch[schema.ITEMS].numpy(),
        labels=superbatch[schema.LABELS].numpy(),
        num_lists=superbatch[schema.NUM_LISTS].numpy(),
        query_table=tables[schema.QUERY].embeddings.numpy(),
        item_table=tables[schema.ITEMS].embeddings.numpy(),
    )


def train(folder: str, values: Mapping[str, Any], *, strategy_name: str, has_metrics: bool) -> dict[str, Any]:
    """The losses of two epochs, and then the seconds of an epoch."""
    training = build_training(tutorial_config(values), strategy=build_strategy(strategy_name), has_metrics=has_metrics)
    superbatch = next(training.superbatches())
    losses = [training.take_steps(superbatch), training.take_steps(superbatch)]
    seconds = time_repeatedly(lambda: training.take_steps(superbatch))
    return {"losses": losses, "seconds": seconds, "device": "GPU" if tf.config.list_logical_devices("GPU") else "CPU"}


def feed(folder: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The seconds in which the input pipeline delivers an epoch, if nothing else runs."""
    superbatches = build_training(tutorial_config(values)).superbatches()
    # Many at once, because the first few wait in a buffer.
    number = 100
    seconds = time_repeatedly(lambda: [next(superbatches) for _ in range(number)])
    return {"seconds": seconds / number}
