"""Which fields may change when a run is resumed, and which fields runs are compared by."""

import pytest
from ml_collections import ConfigDict

from configs import default
from settings.trainer_config import load_trainer_config
from trainer import config as config_lib

DEFAULT = config_lib.flatten(default.get_config().to_dict())


def with_field(name, value):
    """The default config with one field changed."""
    config = default.get_config()
    with config.unlocked(), config.ignore_type():
        config.update_from_flattened_dict({name: value})
    return config


# The fields that change only where equal data is and what its columns are named, how long and how fast a run
# trains, and how often it saves.
FREE = {
    "data.source": "prepared",
    "data.data_dir": "elsewhere",
    **{name: "movieId" for name in DEFAULT if name.startswith("data.columns.")},
    "train.num_epochs": 99,
    "train.steps_per_execution": 7,
    "train.checkpoint_every_steps": 7,
    "train.keep_checkpoints": 7,
    "train.early_stopping_patience": 7,
    "train.stall_timeout_seconds": 7.0,
    "eval.num_catalogue_users": 7,
    "eval.num_sample_users": 7,
}


def another(value):
    if isinstance(value, tuple):
        return (*value, 1)
    return value + ("x" if isinstance(value, str) else 1)


@pytest.mark.parametrize("name", DEFAULT)
def test_a_changed_field_is_found_unless_it_may_change(name):
    new_value = FREE.get(name, another(DEFAULT[name]))
    old, new = default.get_config(), with_field(name, new_value)
    if name == "train.num_epochs":  # With a schedule that depends on the last step, it may not.
        old.optimizer.schedule = new.optimizer.schedule = "constant"
    found = config_lib.changed_fields(old, new)
    assert found == ({} if name in FREE else {name: (DEFAULT[name], new_value)})


def test_epochs_may_not_change_when_the_schedule_depends_on_the_last_step():
    old, new = default.get_config(), default.get_config()
    old.optimizer.schedule = new.optimizer.schedule = "warmup_cosine"
    old.train.num_epochs, new.train.num_epochs = 10, 20
    new.train.steps_per_execution = 7
    assert config_lib.changed_fields(old, new) == {"train.num_epochs": (10, 20)}


def test_added_and_removed_fields_are_found():
    old, new = default.get_config().to_dict(), default.get_config().to_dict()
    del old["seed"], new["list_size"]
    assert config_lib.changed_fields(ConfigDict(old), ConfigDict(new)) == {"seed": (None, 0), "list_size": (500, None)}


def test_a_list_equals_the_tuple():
    old, new = with_field("model.hidden_sizes", [64]), with_field("model.hidden_sizes", (64,))
    assert config_lib.changed_fields(old, new) == {}


def test_runs_are_compared_by_the_fields_that_affect_the_model():
    fields = config_lib.flatten(default.get_config().to_dict())
    named = config_lib.hyperparameters(default.get_config())
    assert named == {name: fields[name] for name in named}
    assert {"loss.key", "model.hidden_sizes", "split.method", "data.source", "seed"} < named.keys()
    assert not any(name.startswith(("data.columns", "eval.")) for name in named)


def test_a_typed_config_equals_its_config_dict():
    config = default.get_config()
    typed = load_trainer_config(config)
    assert config_lib.changed_fields(config, typed) == {}
    assert config_lib.hyperparameters(typed) == config_lib.hyperparameters(config)


@pytest.mark.parametrize(("split_seed", "expected"), [(-1, 5), (0, 0), (3, 3)])
def test_the_seed_of_the_split_fixes_the_data_and_the_users_who_are_measured(split_seed, expected):
    config = default.get_config()
    config.seed, config.split.seed = 5, split_seed
    typed = load_trainer_config(config)
    assert config_lib.data_seed(typed) == config_lib.dataset_arguments(typed)["seed"] == expected
    assert config_lib.protocol_arguments(typed, has_timestamps=True)["seed"] == expected
