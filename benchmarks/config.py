"""The config of the TF-Ranking tutorial, which the benchmarks train and read with."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from configs import tutorial

SYNTHETIC = {"data.source": "synthetic", "data.item_identity": "item_id"}
"""The embedded ratings instead of MovieLens 100K."""


def tutorial_config(values: Mapping[str, Any]) -> ConfigDict:
    """The config of the tutorial for a run of any length, with these values by dotted name."""
    config = tutorial.get_config()
    config.train.num_epochs = 1000
    config.update_from_flattened_dict(dict(values))
    return config


def movielens(data_dir: str) -> dict[str, Any]:
    """The values for MovieLens 100K as TensorFlow Datasets prepares it in a folder, or SYNTHETIC for no folder."""
    return {"data.data_dir": data_dir} if data_dir else SYNTHETIC
