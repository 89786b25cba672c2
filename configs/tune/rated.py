"""A space for configs that rank rated items, such as configs/tutorial.py (config.candidates.method = "rated").

Run:   python -m trainer.tune --config=configs/tutorial.py --config.split.method=random \
           --space=configs/tune/rated.py --workdir=runs/tune --num_trials=30
"""

from typing import Any


def get_space() -> tuple[dict[str, Any], ...]:
    """Returns the fields to vary, with their ranges or values."""
    return (
        {"field": "optimizer.learning_rate", "range": (0.01, 1.0), "scale": "log"},
        {"field": "model.embedding_size", "values": (16, 32, 64, 128)},
        {"field": "loss.key", "values": ("softmax_loss", "approx_ndcg_loss", "pairwise_logistic_loss")},
    )
