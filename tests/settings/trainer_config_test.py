"""The ranges, names and cross-field rules of the trainer's config, and how a saved config is read."""

import importlib
import math
import pathlib
import subprocess
import sys
from typing import get_args

import pytest
from ml_collections import ConfigDict

import configs
from configs import default
from settings.trainer_config import TrainerConfig, from_saved, load_trainer_config
from settings.trainer_config.evaluation import METRIC_KEYS, parse_metric_name
from settings.trainer_config.loss import LOSSES_WITHOUT_TEMPERATURE, SAMPLED_LOSSES
from tests.conftest import REPOSITORY
from tests.settings.helpers import message, with_dotted, with_fields

CONFIGS = sorted(path.stem for path in pathlib.Path(configs.__path__[0]).glob("*.py") if path.stem != "__init__")


def flatten(tree, prefix=""):
    flat = {}
    for name, value in tree.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


DEFAULT = flatten(default.get_config().to_dict())

SIZE_FROM_1 = ([1, 2, 10**6], [0, -1, 10**6 + 1, 10**20])
SIZE_FROM_0 = ([0, 1, 10**6], [-1, 10**6 + 1, 10**20])
COUNT_FROM_1 = ([1, 2, 10**9], [0, -1, 10**9 + 1, 10**20])
COUNT_FROM_0 = ([0, 1, 10**9], [-1, 10**9 + 1, 10**20])
FROM_0_TO_1 = ([0, 0.0, 0.5, 1.0, 1], [-1e-9, 1.1, math.inf])
ABOVE_0 = ([1.2e-38, 1.0, 1, 3.4e38], [0.0, -1e-9, 0, math.inf, 1e-40, 1e39])
FROM_0 = ([0, 0.0, 3.4e38], [-1e-9, math.inf, 1e39])
FROM_0_BELOW_1 = ([0.0, 0, 0.89], [-1e-9, 1.0, 1, math.inf])
# Field → allowed values up to the borders, and values just beyond them.
RANGES = {
    "seed": ([0, 2**31 - 1], [-1, 2**31]),
    "split.seed": ([-1, 0, 2**31 - 1], [-2, 2**31]),
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
    "data.duplicates": (["once"], ["", "twice"]),
    **dict.fromkeys(
        ("data.features.query", "data.features.item", "data.features.example"), ([()], [("a", 1), (None,)])
    ),
    "split.method": (["none", "random", "last", "time"], ["", "Random"]),
    "split.validation_fraction": FROM_0_BELOW_1,
    "split.test_fraction": FROM_0_BELOW_1,
    "list_size": ([2, 3, 10**6], [1, 0, -1, 10**7]),
    "candidates.method": (["auto", "rated", "sampled", "catalogue"], ["", "all"]),
    "candidates.num_negatives": SIZE_FROM_1,
    "candidates.popularity_power": ([0, 0.0, 2.0], [-1e-9, 2.1, math.inf]),
    "candidates.uniform_fraction": FROM_0_TO_1,
    "candidates.logq_correction": ([True, False], []),
    "model.embedding_size": SIZE_FROM_0,
    "model.hidden_sizes": ([(), (1,), (64, 32)], [(10**20,), (0,), (64, -1), (1.5,), (True,), ("64",)]),
    "model.query_embedding": ([True, False], []),
    "model.similarity": (["dot", "cosine"], ["", "euclidean"]),
    "model.scale": FROM_0,
    "model.item_bias": ([True, False], []),
    "model.item_prior": ([True, False], []),
    "model.initial_items": (["random", "svd"], ["", "zero"]),
    "history.encoder": (["pooled", "transformer"], ["", "lstm"]),
    "history.size": SIZE_FROM_1,
    "history.weights": (["ratings", "centered_ratings", "equal"], ["", "times"]),
    "history.power": FROM_0_TO_1,
    "history.recency_half_life": FROM_0,
    "history.dropout": FROM_0_BELOW_1,
    "history.targets": (["auto", "all", "dropped"], ["", "none"]),
    "history.hidden_size": SIZE_FROM_0,
    "transformer.num_layers": SIZE_FROM_1,
    "transformer.num_heads": SIZE_FROM_1,
    "transformer.dropout": FROM_0_BELOW_1,
    "ease.weight": FROM_0,
    "ease.regularization": ABOVE_0,
    "loss.key": (["softmax_loss"], ["", "softmax"]),
    "loss.temperature": ABOVE_0,
    "loss.lambda_weight": ([""], ["mrr"]),
    "loss.lambda_weight_cutoff": ([0], [-1]),
    "loss.normalization_power": FROM_0_TO_1,
    "loss.labels": (["auto", "binary", "ratings", "gains"], ["", "graded"]),
    "loss.calibration": FROM_0_TO_1,
    "loss.margin": ([-1, 0.0, 1.0], [-1.1, 1.1, math.nan]),
    "loss.negative_weight": ABOVE_0,
    "optimizer.name": (["adam", "sgd"], ["", "Adam"]),
    "optimizer.learning_rate": ABOVE_0,
    "optimizer.schedule": (["constant", "warmup_cosine"], ["", "cosine"]),
    "optimizer.warmup_steps": ([0], [-1]),
    "optimizer.clip_norm": FROM_0,
    "optimizer.weight_decay": ([5e-324, 3.4e38], [-1e-9, math.nan, 1e39]),
    "optimizer.momentum": ([0, 0.0], [-1e-9, 1.0]),
    "train.global_batch_size": SIZE_FROM_1,
    "train.num_epochs": COUNT_FROM_0,
    "train.steps_per_execution": SIZE_FROM_1,
    # It divides the batch of 128.
    "train.deterministic_reduction": ([0, 1, 128], [-1, 3, 256, 10**20]),
    "train.log_every_steps": COUNT_FROM_0,
    "train.eval_every_steps": COUNT_FROM_0,
    "train.checkpoint_every_steps": COUNT_FROM_0,
    "train.keep_checkpoints": COUNT_FROM_1,
    "train.early_stopping_patience": COUNT_FROM_0,
    "train.stall_timeout_seconds": ([0, 0.0, 0.5, 1e308], [-1e-9, math.inf]),
    "eval.metrics": ([("ndcg@10",), ("mrr", "ndcg@10")], [(1, "ndcg@10"), (None, "ndcg@10")]),
    # Up to the highest rating.
    "eval.relevance_threshold": ([5e-324, 1.0, 1, 5.0], [0.0, -1e-9, 0, math.inf, 5.1]),
    "eval.best_direction": (["max", "min"], ["", "Max", "most"]),
    "eval.num_catalogue_users": ([-1, 0, 1], [-2]),
    "eval.num_validation_users": ([-1, 1], [-2]),
    "eval.num_sample_users": ([0, 1, 10**6], [-1]),
}
# Strings of any content, and a name that is checked against eval.metrics.
FREE_TEXT = {
    *("data.data_dir", "split.validation_source", "split.test_source", "eval.best_metric"),
    *(name for name in DEFAULT if name.startswith("data.columns.")),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_is_valid_and_keeps_its_values(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    typed = load_trainer_config(config)
    assert isinstance(typed, TrainerConfig)
    assert typed.model_dump() == config.to_dict()
    assert typed.train.num_epochs == config.train.num_epochs
    assert load_trainer_config(typed.model_dump()) == typed


@pytest.mark.parametrize("name, value", [(name, value) for name, (good, _) in RANGES.items() for value in good])
def test_a_value_within_the_range_is_accepted(name, value):
    load_trainer_config(with_dotted({name: value}))


@pytest.mark.parametrize("name, value", [(name, value) for name, (_, bad) in RANGES.items() for value in bad])
def test_a_value_beyond_the_range_is_refused(name, value):
    assert message(with_dotted({name: value})).startswith(f"config.{name}={value!r} cannot be used: it has to be ")


def test_every_field_has_a_tested_range():
    assert RANGES.keys() | FREE_TEXT == DEFAULT.keys()


@pytest.mark.parametrize("name", [name for name, value in DEFAULT.items() if isinstance(value, float)])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused(name, value):
    assert message(with_dotted({name: value})) == (
        f"config.{name}={value!r} cannot be used: it has to be a finite number."
    )


@pytest.mark.parametrize("name", DEFAULT)
def test_a_value_of_another_type_is_refused(name):
    wrong = [None, {"a": 1}.keys(), b"x"]
    wrong += [True] if not isinstance(DEFAULT[name], bool) else []
    wrong += ["1"] if not isinstance(DEFAULT[name], str) else [1]
    wrong += [1.0] if type(DEFAULT[name]) is int else []
    for value in wrong:
        assert message(with_dotted({name: value})).startswith(
            f"config.{name}={value!r} is of type {type(value).__name__}. It has to be "
        )


@pytest.mark.parametrize("name", DEFAULT)
def test_a_missing_field_is_named(name):
    tree = default.get_config().to_dict()
    *sections, field = name.split(".")
    section = tree
    for part in sections:
        section = section[part]
    del section[field]
    assert message(ConfigDict(tree)).startswith(f"config.{name} is missing. Start from configs.default.get_config()")


@pytest.mark.parametrize("name", ["sed", "model.embeding_size", "data.columns.stars"])
def test_an_unknown_field_is_named(name):
    assert message(with_dotted({name: 1})).startswith(f"config.{name} is not a field")


@pytest.mark.parametrize("name", ["NDCG", "auc", "ndcg@", "ndcg@0", "ndcg@-1", "mrr@5@5", "mrr@٣", "arp@5", ""])
def test_a_malformed_metric_name_is_refused(name):
    assert repr(name) in message(with_fields(eval__metrics=("ndcg@10", name)))


def test_a_metric_name_is_split_into_key_and_cutoff():
    assert parse_metric_name("ndcg@10") == ("ndcg", 10)
    assert parse_metric_name("tfr_precision") == ("tfr_precision", None)


def test_a_saved_config_gets_the_defaults_of_fields_that_it_lacks():
    saved = default.get_config().to_dict()
    del saved["train"]["early_stopping_patience"], saved["seed"]
    saved["model"]["hidden_sizes"] = [64, 32]
    saved["train"]["num_epochs"] = 7
    expected = with_fields(model__hidden_sizes=(64, 32), train__num_epochs=7)
    assert from_saved(saved) == expected


def test_a_saved_field_that_is_unknown_is_refused_later():
    config = from_saved({"train": {"num_epoch": 7}})
    assert message(config).startswith("config.train.num_epoch is not a field; did you mean num_epochs?")


def test_the_names_are_those_of_tf_ranking_and_keras():
    from trainer.compat import keras, tfr

    loss = TrainerConfig.model_fields["loss"].annotation.model_fields
    keys = set(tfr.keras.losses.RankingLossKey.all_keys())
    assert set(get_args(loss["key"].annotation)) == keys | set(SAMPLED_LOSSES)
    keys = {value for name, value in vars(tfr.keras.metrics.RankingMetricKey).items() if name.isupper()}
    # TF-Ranking has a class for recall, but no key.
    assert METRIC_KEYS.keys() == keys | {"recall", "tfr_precision", "binary_ndcg"}
    optimizer = TrainerConfig.model_fields["optimizer"].annotation.model_fields
    names = {name.lower() for name in vars(keras.optimizers) if isinstance(getattr(keras.optimizers, name), type)}
    ours = {"auto", "lazy_adam", "rowwise_adagrad"}
    assert set(get_args(optimizer["name"].annotation)) == names - {"optimizer", "lossscaleoptimizer"} | ours


def test_the_losses_without_temperature_are_those_of_tf_ranking():
    import inspect

    from trainer.compat import tfr

    without = {
        key
        for key in tfr.keras.losses.RankingLossKey.all_keys()
        if "temperature" not in inspect.signature(type(tfr.keras.losses.get(key))).parameters
    }
    # Yeti's loss accepts a temperature, but does not use it.
    assert set(LOSSES_WITHOUT_TEMPERATURE) == without | {"yeti_logistic_loss", *SAMPLED_LOSSES}


def test_the_config_is_checked_without_tensorflow():
    code = "import sys, settings.trainer_config; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
