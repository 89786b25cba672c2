"""A space for a transformer over the history.

Run:   python -m trainer.tune --config.history.encoder=transformer --space=configs/tune/transformer.py \
           --workdir=runs/tune --num_trials=30
"""

from typing import Any


def get_space() -> tuple[dict[str, Any], ...]:
    """Returns the fields to vary, with their ranges or values."""
    return (
        {"field": "optimizer.learning_rate", "range": (0.0003, 0.003), "scale": "log"},
        {"field": "model.embedding_size", "values": (32, 64, 128)},
        {"field": "list_size", "values": (50, 100, 200)},
        {"field": "transformer.num_layers", "range": (1, 3)},
        {"field": "transformer.num_heads", "values": (1, 2, 4)},
        {"field": "transformer.dropout", "range": (0.1, 0.5)},
    )
