"""The learning curves of a run, from metrics.jsonl. Imports no TensorFlow."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer import storage

MAX_POINTS = 300
"""The largest number of points of a curve. Of more, evenly spaced ones are kept, with the last."""


@dataclass(frozen=True)
class Curve:
    """The values of a metric during training.

    Attributes:
      name: What was measured, such as `training loss`.
      epochs: The epoch of each value.
      values: The values.
    """

    name: str
    epochs: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Curves:
    """The learning curves of a run.

    Attributes:
      curves: Those that have values: the training loss, the validation loss, and the metrics that chose
        checkpoints.
      exported_epoch: The epoch of the exported step; NaN if nothing was logged.
    """

    curves: tuple[Curve, ...]
    exported_epoch: float


def load_curves(path: str, *, best_metrics: Sequence[str], exported_step: int, max_points: int = MAX_POINTS) -> Curves:
    """Reads metrics.jsonl, local or gs://. A missing file has no curves.

    Args:
      path: The file.
      best_metrics: config.eval.best_metric, and that of other runs to compare it with.
      exported_step: The step of the exported model.
      max_points: The largest number of points of a curve.

    Raises:
      StorageError: The file cannot be read.
    """
    with storage.reading_json(path, of="a run"):
        text = storage.read_bytes(path).decode() if storage.exists(path) else ""
        lines = [json.loads(line) for line in text.splitlines()]
        # The final metrics of the validation split have no loss. They are no point of a curve.
        lines = [line for line in lines if "loss" in line["metrics"]]
        wanted = [("training loss", "train", "loss"), ("validation loss", "validation", "loss")]
        wanted += [(f"validation {name}", "validation", name) for name in best_metrics if name != "loss"]
        found = [_curve(name, lines, split, metric, max_points) for name, split, metric in wanted]
        last = lines[-1] if lines else {"step": 0, "epoch": 0.0}
        epochs_per_step = last["epoch"] / last["step"] if last["step"] else math.nan
    return Curves(tuple(curve for curve in found if curve.values), exported_step * epochs_per_step)


def _curve(name: str, lines: Sequence[Mapping[str, Any]], split: str, metric: str, max_points: int) -> Curve:
    points = [
        (float(line["epoch"]), float(value))
        for line in lines
        if line["split"] == split and (value := line["metrics"].get(metric)) is not None and math.isfinite(value)
    ]
    if len(points) > max_points:
        points = [points[i] for i in np.linspace(0, len(points) - 1, max_points).round().astype(int)]
    return Curve(name, tuple(epoch for epoch, _ in points), tuple(value for _, value in points))
