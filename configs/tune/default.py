"""A space for the default config, and for others with a pooled history and the cosine.

Run:   python -m trainer.tune --space=configs/tune/default.py --workdir=runs/tune --num_trials=30
"""

from typing import Any


def get_space() -> tuple[dict[str, Any], ...]:
    """Returns the fields to vary, with their ranges or values."""
    return (
        {"field": "optimizer.learning_rate", "range": (0.0003, 0.01), "scale": "log"},
        {"field": "optimizer.weight_decay", "range": (0.01, 1.0), "scale": "log"},
        {"field": "model.embedding_size", "values": (64, 128, 256)},
        {"field": "model.scale", "range": (3.0, 16.0), "scale": "log"},
        {"field": "history.targets", "values": ("dropped", "all")},
        {"field": "history.dropout", "range": (0.1, 0.6)},
        {"field": "loss.normalization_power", "values": (0.0, 0.5, 1.0)},
        {"field": "train.global_batch_size", "values": (64, 128, 256, 512)},
    )
