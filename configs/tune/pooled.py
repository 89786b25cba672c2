"""A space for configs with a pooled history and the cosine (config.history.encoder = "pooled").

Run:   python -m trainer.tune --config=CONFIG --space=configs/tune/pooled.py --workdir=runs/tune --num_trials=30
Needs: config.model.similarity = "cosine". Set config.eval.best_metric to a metric of the whole catalogue.
"""

from typing import Any


def get_space() -> tuple[dict[str, Any], ...]:
    """Returns the fields to vary, with their ranges or values."""
    return (
        {"field": "optimizer.learning_rate", "range": (0.0003, 0.01), "scale": "log"},
        {"field": "model.embedding_size", "values": (64, 128, 256)},
        {"field": "model.scale", "range": (3.0, 16.0), "scale": "log"},
        {"field": "history.power", "range": (0.5, 1.0)},
        {"field": "history.dropout", "range": (0.1, 0.6)},
        {"field": "loss.normalization_power", "values": (0.0, 0.5, 1.0)},
        {"field": "train.global_batch_size", "values": (64, 128, 256, 512)},
    )
