"""Configs with some fields changed, and what is said of them."""

import copy

import pytest
from ml_collections import ConfigDict

from configs import default
from settings.errors import ConfigError
from settings.trainer_config import load_trainer_config


def with_fields(**changes):
    """The default config with some fields changed; "loss__key" stands for loss.key."""
    return with_dotted({name.replace("__", "."): value for name, value in changes.items()})


def with_dotted(changes):
    tree = copy.deepcopy(default.get_config().to_dict())
    for name, value in changes.items():
        *sections, field = name.split(".")
        section = tree
        for part in sections:
            section = section[part]
        section[field] = value
    return ConfigDict(tree)


def message(config):
    with pytest.raises(ConfigError) as caught:
        load_trainer_config(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)
