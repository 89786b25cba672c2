"""A whole run in one process: what it learns, keeps, leaves and refuses."""

import json
import re

import numpy as np
import pyarrow as pa
import pytest

from settings.errors import ConfigError
from tests.conftest import mirrored_strategy, planted_ratings, train
from trainer import strategy as strategy_lib
from trainer.compat import tf
from trainer.data.dataset import Dataset
from trainer.data.lists import cut_lists, group_ratings
from trainer.data.vocabulary import build_vocabulary, load_vocabulary
from trainer.modeling.two_tower import TwoTowerModel
from trainer.schema import ITEMS_SCHEMA
from trainer.serving.recommender import Recommender
from trainer.training.samples import build_sample_fn
from trainer.workdir import Workdir


def run(config, workdir, strategy_name="default"):
    assert train(config, workdir, strategy_name) == 0
    return json.loads((workdir / "result.json").read_text())


def lines(workdir, split):
    every = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in every if line["split"] == split]


def test_a_run_learns_the_planted_order_and_leaves_its_artefacts(tiny_config, tmp_path, capsys):
    tiny_config.train.num_epochs = 12
    result = run(tiny_config, tmp_path)

    # In the planted ratings the item alone decides: a model that has learnt it ranks all but perfectly.
    rated = result["protocols"]["rated"]
    assert rated["model"]["ndcg@5"]["value"] > 0.97 > rated["popularity"]["ndcg@5"]["value"]
    assert lines(tmp_path, "train")[-1]["metrics"]["ndcg@5"] > lines(tmp_path, "train")[0]["metrics"]["ndcg@5"]

    assert {path.name for path in tmp_path.iterdir()} >= {
        *("config.json", "data.json", "vocabulary", "seen.parquet", "checkpoints"),
        *("logs", "metrics.jsonl", "result.json", "model"),
    }
    data = json.loads((tmp_path / "data.json").read_text())
    assert data["rows"]["used"] == sum(data["num_ratings"].values()) == planted_ratings().num_rows
    assert result["speed"]["steps_per_second"] > 0
    printed = capsys.readouterr().out
    assert re.search(r"test, rated: \d+ to 40 lists", printed) and "±" in printed and "popularity" in printed

    # Every epoch is logged and evaluated once, the last step included.
    epochs = [line["epoch"] for line in lines(tmp_path, "validation")]
    assert epochs == [line["epoch"] for line in lines(tmp_path, "train")] == list(range(1, len(epochs) + 1))


def test_the_best_checkpoint_is_kept_and_exported(tiny_config, tmp_path):
    """Asked for the highest loss of a model that learns, the best is the first."""
    tiny_config.train.early_stopping_patience = 0
    tiny_config.train.keep_checkpoints = 1
    tiny_config.eval.best_metric = "loss"
    tiny_config.eval.best_direction = "max"
    result = run(tiny_config, tmp_path)
    losses = {line["step"]: line["metrics"]["loss"] for line in lines(tmp_path, "validation")}
    best = max(losses, key=losses.get)
    assert best == min(losses)
    assert result["exported_step"] == best and result["step"] == max(losses)
    kept = {int(path.stem[5:]) for path in tmp_path.glob("checkpoints/step-*.json")}
    assert kept == {best, max(losses)}

    reader = tf.train.load_checkpoint(str(tmp_path / "checkpoints" / f"step-{best:08d}"))
    (name,) = [
        n for n in reader.get_variable_to_shape_map() if "candidate_tower/encoders/0/table" in n and "model/" in n
    ]
    exported = tf.saved_model.load(str(tmp_path / "model")).candidates
    np.testing.assert_array_equal(exported.numpy(), reader.get_tensor(name))


def test_early_stopping_ends_the_run(tiny_config, tmp_path, capsys):
    tiny_config.train.num_epochs = 50
    tiny_config.train.checkpoint_every_steps = 70
    tiny_config.train.early_stopping_patience = 2
    tiny_config.eval.best_metric = "loss"
    tiny_config.eval.best_direction = "max"
    result = run(tiny_config, tmp_path)
    evaluated = [line["step"] for line in lines(tmp_path, "validation")]
    assert "Stopped early: loss did not improve in the last 2 validations." in capsys.readouterr().out
    assert evaluated == [10, 20, 30] and result["step"] == 30 and result["exported_step"] == 10
    # Where it ended is saved, though no checkpoint was due there: started again, it has nothing to do.
    assert (tmp_path / "checkpoints" / "step-00000030.json").exists()
    before = (tmp_path / "metrics.jsonl").read_text()
    assert run(tiny_config, tmp_path) == result and (tmp_path / "metrics.jsonl").read_text() == before


@pytest.mark.long
def test_mirrored_over_two_devices_reports_what_default_does(tiny_config, tmp_path, monkeypatch):
    alone = run(tiny_config, tmp_path / "alone")
    monkeypatch.setattr(strategy_lib, "build_strategy", lambda *_, **__: mirrored_strategy(2))
    together = run(tiny_config, tmp_path / "together", "mirrored")
    assert together["speed"]["num_replicas"] == 2
    for protocol in ("rated", "catalogue"):
        for who in ("model", "popularity", "item_mean", "random"):
            for name, metric in alone["protocols"][protocol][who].items():
                assert together["protocols"][protocol][who][name] == pytest.approx(metric, rel=1e-3), (who, name)


def test_a_workdir_of_another_config_is_left_alone(tiny_config, tmp_path):
    run(tiny_config, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"}
    tiny_config.model.embedding_size = 4
    with pytest.raises(ConfigError, match=r"config.model.embedding_size: 8 → 4"):
        run(tiny_config, tmp_path)
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p.name != ".lock"}


def test_nothing_held_out_is_a_run_too(tiny_config, tmp_path):
    tiny_config.split.method = "none"
    result = run(tiny_config, tmp_path)
    assert result["held_out"] is None and result["exported_step"] == result["step"]
    assert set(result["train"]) == {"loss", "ndcg@5", "mrr", "relative_loss"}
    assert not lines(tmp_path, "validation")


def test_a_chosen_run_is_trained_again_on_all_ratings(tiny_config, tmp_path):
    """As docs/data.md describes it: for as long as the chosen model, with the same values and nothing held out."""
    tiny_config.split.method = "time"
    tiny_config.train.early_stopping_patience = 1
    tiny_config.train.num_epochs = 9
    # Asked for the highest loss of a model that learns, the best is the first.
    tiny_config.eval.best_metric, tiny_config.eval.best_direction = "loss", "max"
    chosen = run(tiny_config, tmp_path / "chosen")
    assert chosen["exported_epoch"] == 1 < chosen["step"] / chosen["exported_step"]

    tiny_config.split.method = "none"
    tiny_config.train.num_epochs = int(chosen["exported_epoch"])
    with tiny_config.unlocked():
        tiny_config.update_from_flattened_dict(json.loads((tmp_path / "chosen/config.json").read_text())["chosen"])
    final = run(tiny_config, tmp_path / "final")
    assert final["exported_epoch"] == 1 and final["exported_step"] == final["step"]
    everything = planted_ratings()
    folder = Workdir(str(tmp_path / "final"))
    vocabulary = load_vocabulary(folder.vocabulary)
    assert vocabulary.num_users - 1 == len(everything["user_id"].unique())
    assert vocabulary.num_items - 1 == len(everything["item_id"].unique())
    assert sum(vocabulary.items["num_ratings"].to_pylist()) == everything.num_rows
    recommender = Recommender(folder.path)
    tables = list(recommender.recommend_all(3, exclude_seen=False, advance=lambda _: None))
    assert sum(table.num_rows for table in tables) == 3 * (vocabulary.num_users - 1)


def test_metrics_of_subtopics_need_genres(tiny_config, tmp_path):
    tiny_config.eval.metrics = ("ndcg@5", "alpha_dcg@5")
    with pytest.raises(ConfigError, match="genres"):
        run(tiny_config, tmp_path / "workdir")
    assert not Workdir(str(tmp_path / "workdir")).load_result()


def test_sample_recommendations_are_a_table_whatever_the_titles():
    """Of three items the first user has seen all but one, and the second all."""
    titles = {"x": "One", "y": "Two | three\n[four]", "z": "Five"}
    ratings = pa.table({"user_id": ["a", "a", *["b|\n\x1b[31m\u202e"] * 3], "item_id": ["x", "z", "x", "y", "z"]})
    items = pa.table({"item_id": list(titles), "title": list(titles.values()), "genres": [[], [], []]}, ITEMS_SCHEMA)
    vocabulary = build_vocabulary(ratings, items)
    users, indices = vocabulary.user_indices(ratings["user_id"]), vocabulary.item_indices(ratings["item_id"])
    rated = group_ratings(users, indices, np.ones(5, np.float32), np.arange(5), num_users=3)
    lists = {"train": cut_lists(rated, list_size=2, list_order="row")}
    dataset = Dataset(vocabulary, lists, times={"train": rated.timestamps})
    model = TwoTowerModel(num_queries=3, num_items=4, embedding_size=2)
    assert build_sample_fn(model, dataset, 2)(model.catalogue_vectors()).splitlines() == [
        r"| rank | user a | user b\| \x1b[31m\u202e |",
        "| --- | --- | --- |",
        r"| 1 | Two \| three [four] |  |",
    ]
