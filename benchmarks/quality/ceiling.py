"""The best possible ranking of the embedded ratings, from the model that they were drawn from."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.quality.data import TrainingData, numbered
from benchmarks.quality.method import Fitted, Method
from trainer import schema
from trainer.data.synthetic import generate_ratings


def _ceiling(data: TrainingData, hyperparameters: Mapping[str, Any]) -> Fitted:
    synthetic = generate_ratings()
    probability = synthetic.relevance_probability(
        relevance_threshold=data.relevance_threshold,
        train_fraction=len(data.interactions) / synthetic.ratings.num_rows,
    ).astype(np.float32)
    # The user str(u + 1) has row u.
    users, items = (
        numbered(synthetic.ratings[name])[0].astype(np.int64) - 1 for name in (schema.USER_ID, schema.ITEM_ID)
    )
    return Fitted(lambda rows: probability[users[rows]][:, items])


CEILING = Method("ceiling", _ceiling)
