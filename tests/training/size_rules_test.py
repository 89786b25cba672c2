"""Which values follow from the size of the data, and that given values stay."""

import types

import numpy as np
import pytest

from configs import default
from settings.trainer_config import load_trainer_config
from trainer.training import size_rules


def choose(*, num_items=1_000, num_ratings=100_000, epoch_steps=50, **changes):
    config = default.get_config()
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return size_rules.choose_values(
        load_trainer_config(config), num_items=num_items, num_ratings=num_ratings, epoch_steps=epoch_steps
    )


@pytest.mark.parametrize(
    ("num_items", "size"),
    [(2, 256), (15_625, 256), (15_626, 128), (31_250, 128), (31_251, 64), (10**7, 64)],
)
def test_embeddings_are_smaller_for_more_items(num_items, size):
    assert choose(num_items=num_items)["model.embedding_size"] == size


@pytest.mark.parametrize(("num_items", "method"), [(50_000, "catalogue"), (50_001, "sampled")])
def test_negatives_are_sampled_from_a_large_catalogue(num_items, method):
    assert choose(num_items=num_items)["candidates.method"] == method


@pytest.mark.parametrize(
    ("num_items", "candidates", "name"),
    [
        (50_000, "auto", "adamw"),
        (50_001, "auto", "lazy_adam"),
        (50_001, "rated", "lazy_adam"),
        (50_001, "catalogue", "adamw"),
        (50_000, "sampled", "adamw"),
    ],
)
def test_only_a_large_catalogue_that_is_sampled_is_trained_lazily(num_items, candidates, name):
    assert choose(num_items=num_items, candidates__method=candidates)["optimizer.name"] == name


@pytest.mark.parametrize(("num_ratings", "targets", "scale"), [(299_999, "dropped", 4.0), (300_000, "all", 5.18)])
def test_few_ratings_are_learnt_from_dropped_items_at_a_low_scale(num_ratings, targets, scale):
    chosen = choose(num_ratings=num_ratings)
    assert (chosen["history.targets"], chosen["model.scale"]) == (targets, scale)
    assert scale in (4.0, pytest.approx(0.75 * np.log(1_000), abs=0.005))


@pytest.mark.parametrize(("epoch_steps", "num_epochs"), [(1, 100), (15, 100), (16, 94), (75, 20), (10_000, 20)])
def test_the_run_has_1500_steps_if_the_number_of_epochs_allows_it(epoch_steps, num_epochs):
    assert choose(epoch_steps=epoch_steps)["train.num_epochs"] == num_epochs


def test_values_that_the_config_gives_are_kept():
    given = {
        "candidates__method": "sampled",
        "model__embedding_size": 32,
        "model__scale": 7.0,
        "history__targets": "all",
        "optimizer__name": "adamw",
        "train__num_epochs": 3,
    }
    assert choose(**given) == {}
    assert "model.scale" not in choose(model__similarity="dot")
    assert "history.targets" not in choose(history__encoder="transformer")


def test_the_labels_of_rated_lists_stay_out_of_the_history():
    assert choose(num_ratings=10**6, candidates__method="rated")["history.targets"] == "dropped"


def test_a_run_with_many_short_epochs_validates_about_25_times():
    chosen = choose(epoch_steps=8)
    assert {name: value for name, value in chosen.items() if name.endswith("_every_steps")} == dict.fromkeys(
        ("train.log_every_steps", "train.eval_every_steps", "train.checkpoint_every_steps"), 8 * 4
    )
    assert "train.eval_every_steps" not in choose(epoch_steps=60)
    assert "train.eval_every_steps" not in choose(epoch_steps=8, train__num_epochs=100)
    assert "train.eval_every_steps" not in choose(epoch_steps=8, train__eval_every_steps=5)


def test_the_config_gets_the_chosen_values_and_nothing_else_changes():
    dataset = types.SimpleNamespace(
        vocabulary=types.SimpleNamespace(num_items=1_001),
        lists={"train": types.SimpleNamespace(num_entries=100_000)},
    )
    config = load_trainer_config(default.get_config())
    adapted, chosen = size_rules.adapt(config, dataset, epoch_steps=50)
    assert chosen == choose()
    expected = config.model_dump()
    expected["candidates"]["method"] = "catalogue"
    expected["model"] |= {"embedding_size": 256, "scale": 4.0}
    expected["history"]["targets"] = "dropped"
    expected["optimizer"]["name"] = "adamw"
    expected["train"] |= {"num_epochs": 30} | dict.fromkeys(
        ("log_every_steps", "eval_every_steps", "checkpoint_every_steps"), 100
    )
    assert adapted.model_dump() == expected
