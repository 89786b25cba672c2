import importlib
import math
import pathlib

import pytest
from ml_collections import ConfigDict

import configs
from configs import default
from settings.errors import ConfigError
from trainer import config as config_lib

DEFAULT = config_lib.flatten(default.get_config().to_dict())
CONFIGS = sorted(path.stem for path in pathlib.Path(configs.__path__[0]).glob("*.py") if path.stem != "__init__")

# Fields of numbers whose range is known to what is built from them: the splits and the optimizer.
CHECKED_ELSEWHERE = {
    "split.validation_fraction",
    "split.test_fraction",
    "optimizer.clip_norm",
    "optimizer.weight_decay",
    "optimizer.momentum",
}

COUNT_FROM_1 = ([1, 2, 10**6], [0, -1])
COUNT_FROM_0 = ([0, 1, 10**6], [-1])
ABOVE_0 = ([5e-324, 1.0, 1, 1e308], [0.0, -1e-9, 0, math.inf])
# Field → what it may be, up to its borders, and what it may not, from just beyond them.
RANGES = {
    "seed": ([0, 2**31 - 1], [-1, 2**31]),
    "data.source": (["x"], [""]),
    "data.rating_range": (
        [(0.0, 5.0), (0, 4.0), (0, 100)],
        [
            *[(-1e-9, 5.0), (5.0, 5.0), (5.0, 0.0), (0.0, 100.1), (0.0, math.inf), (math.nan, 5.0), (0.0, math.nan)],
            *[(), (0.0,), (0.0, 1.0, 2.0), ("0", "5"), (False, True), (None, 5.0)],
        ],
    ),
    "data.max_bad_fraction": ([0.0, 0, 0.999], [-1e-9, 1.0, 1, math.inf]),
    "data.item_identity": (["item_id", "title"], ["", "Title"]),
    "list_size": ([2, 3], [1, 0, -1]),
    "model.embedding_size": COUNT_FROM_1,
    "model.hidden_sizes": ([(), (1,), (64, 32)], [(0,), (64, -1), (1.5,), (True,), ("64",)]),
    "loss.temperature": ABOVE_0,
    "loss.lambda_weight_cutoff": COUNT_FROM_0,
    "optimizer.learning_rate": ABOVE_0,
    "optimizer.warmup_steps": COUNT_FROM_0,
    "train.global_batch_size": COUNT_FROM_1,
    "train.num_epochs": COUNT_FROM_1,
    "train.steps_per_execution": COUNT_FROM_1,
    "train.log_every_steps": COUNT_FROM_0,
    "train.eval_every_steps": COUNT_FROM_0,
    "train.checkpoint_every_steps": COUNT_FROM_0,
    "train.keep_checkpoints": COUNT_FROM_1,
    "train.early_stopping_patience": COUNT_FROM_0,
    "eval.metrics": ([("ndcg@10",), ("mrr", "ndcg@10")], [(1, "ndcg@10"), (None, "ndcg@10")]),
    # Up to the highest rating.
    "eval.relevance_threshold": ([5e-324, 1.0, 1, 5.0], [0.0, -1e-9, 0, math.inf, 5.1]),
    "eval.best_direction": (["max", "min"], ["", "Max", "most"]),
    "eval.num_catalogue_users": ([-1, 0, 1], [-2]),
    "eval.num_sample_users": COUNT_FROM_0,
}


def with_field(name, value):
    """The default config with one field changed, whatever the type of the value."""
    tree = default.get_config().to_dict()
    *sections, field = name.split(".")
    section = tree
    for part in sections:
        section = section[part]
    section[field] = value
    return ConfigDict(tree)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_passes_and_comes_back_from_json(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    config_lib.check_config(config)
    again = config_lib.from_json(config_lib.to_json(config))
    assert again == config
    fields, fields_again = (config_lib.flatten(each.to_dict()) for each in (config, again))
    assert fields == fields_again
    assert [type(value) for value in fields.values()] == [type(value) for value in fields_again.values()]
    config_lib.check_config(again)
    assert config_lib.changed_fields(config, again) == {}


@pytest.mark.parametrize("text", ["[]", "5", "null", '"seed"', "{", ""])
def test_what_is_no_config_is_not_read(text):
    with pytest.raises(ValueError):
        config_lib.from_json(text)


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, (allowed, _) in RANGES.items() for value in allowed]
)
def test_a_value_up_to_the_border_is_accepted(name, value):
    config_lib.check_config(with_field(name, value))


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, (_, refused) in RANGES.items() for value in refused]
)
def test_a_value_beyond_the_border_is_refused_by_name(name, value):
    with pytest.raises(ConfigError) as refused:
        config_lib.check_config(with_field(name, value))
    assert str(refused.value).startswith(f"config.{name}={value!r} cannot be used: it has to be ")


def test_every_number_has_a_range_that_is_tested():
    holds_numbers = {name for name, value in DEFAULT.items() if isinstance(value, (int, float, tuple))}
    assert holds_numbers - set(config_lib._RANGES) == CHECKED_ELSEWHERE
    assert set(RANGES) == set(config_lib._RANGES)


@pytest.mark.parametrize("name", [name for name, value in DEFAULT.items() if isinstance(value, float)])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused_everywhere(name, value):
    with pytest.raises(ConfigError, match=rf"config\.{name}={value!r} cannot be used"):
        config_lib.check_config(with_field(name, value))


@pytest.mark.parametrize("name", DEFAULT)
def test_a_value_of_another_type_is_refused_by_name(name):
    wrong = [None, {"a": 1}.keys(), b"x"]
    wrong += [True] if not isinstance(DEFAULT[name], bool) else []
    wrong += ["1"] if not isinstance(DEFAULT[name], str) else [1]
    wrong += [1.0] if type(DEFAULT[name]) is int else []
    for value in wrong:
        with pytest.raises(ConfigError) as refused:
            config_lib.check_config(with_field(name, value))
        assert str(refused.value).startswith(f"config.{name}={value!r} is of type {type(value).__name__};")


@pytest.mark.parametrize("name", DEFAULT)
def test_a_missing_field_is_named(name):
    tree = default.get_config().to_dict()
    *sections, field = name.split(".")
    section = tree
    for part in sections:
        section = section[part]
    del section[field]
    with pytest.raises(ConfigError, match=rf"^config\.{name} is missing"):
        config_lib.check_config(ConfigDict(tree))


@pytest.mark.parametrize("name", ["sed", "model.embeding_size", "data.columns.stars"])
def test_an_unknown_field_is_named(name):
    with pytest.raises(ConfigError, match=rf"^config\.{name} is not a field"):
        config_lib.check_config(with_field(name, 1))


def test_a_section_that_is_none_is_named():
    with pytest.raises(ConfigError, match=r"^config\.model is not a field"):
        config_lib.check_config(with_field("model", 5))


def test_lists_pass_for_tuples():
    config_lib.check_config(with_field("model.hidden_sizes", [64, 32]))


def test_the_best_metric_has_to_be_measured():
    config = default.get_config()
    for name in (*config.eval.metrics, "loss"):
        config.eval.best_metric = name
        config_lib.check_config(config)
    config.eval.best_metric = "recall@5"
    with pytest.raises(
        ConfigError, match=r"config.eval.best_metric='recall@5' is not measured: .* loss, ndcg, ndcg@10"
    ):
        config_lib.check_config(config)


# The fields that only decide how long, how fast and how safely a run goes on.
FREE = {
    "data.data_dir": "elsewhere",
    "train.num_epochs": 99,
    "train.steps_per_execution": 7,
    "train.checkpoint_every_steps": 7,
    "train.keep_checkpoints": 7,
    "train.early_stopping_patience": 7,
    "eval.num_catalogue_users": 7,
    "eval.num_sample_users": 7,
}


def another(value):
    if isinstance(value, tuple):
        return (*value, 1)
    return value + ("x" if isinstance(value, str) else 1)


@pytest.mark.parametrize("name", DEFAULT)
def test_a_changed_field_is_found_unless_no_step_depends_on_it(name):
    new_value = FREE.get(name, another(DEFAULT[name]))
    found = config_lib.changed_fields(default.get_config(), with_field(name, new_value))
    assert found == ({} if name in FREE else {name: (DEFAULT[name], new_value)})


def test_with_a_schedule_that_knows_its_end_more_epochs_are_another_run():
    old, new = default.get_config(), default.get_config()
    old.optimizer.schedule = new.optimizer.schedule = "warmup_cosine"
    old.train.num_epochs, new.train.num_epochs = 10, 20
    new.train.steps_per_execution = 7
    assert config_lib.changed_fields(old, new) == {"train.num_epochs": (10, 20)}


def test_fields_that_came_or_went_are_found():
    old, new = default.get_config().to_dict(), default.get_config().to_dict()
    del old["seed"], new["list_size"]
    assert config_lib.changed_fields(ConfigDict(old), ConfigDict(new)) == {"seed": (None, 0), "list_size": (100, None)}


def test_a_list_is_no_other_than_the_tuple():
    old, new = with_field("model.hidden_sizes", [64]), with_field("model.hidden_sizes", (64,))
    assert config_lib.changed_fields(old, new) == {}


def test_runs_are_compared_by_what_shapes_the_model():
    fields = config_lib.flatten(default.get_config().to_dict())
    named = config_lib.hyperparameters(default.get_config())
    assert named == {name: fields[name] for name in named}
    assert {"loss.key", "model.hidden_sizes", "split.method", "data.source", "seed"} < named.keys()
    assert not any(name.startswith(("data.columns", "eval.")) for name in named)
