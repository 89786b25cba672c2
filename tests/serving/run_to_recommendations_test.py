"""From ratings to recommendations, through a whole run."""

import json
import shutil

import numpy as np
import pyarrow.csv
import pytest

from tests.conftest import NUM_ITEMS, NUM_USERS, planted_ratings, train
from tests.serving.recommend_test import run
from trainer import config as config_lib
from trainer.data.loading import load_dataset
from trainer.evaluation.catalogue_ranking import catalogue_evaluator
from trainer.evaluation.exported import ExportedModel
from trainer.evaluation.metrics import build_metrics
from trainer.schema import ITEM_ID, USER_ID
from trainer.serving.export import load_export
from trainer.serving.recommender import Recommender
from trainer.workdir import Workdir


def pairs_of(table):
    return set(zip(table[USER_ID].to_pylist(), table[ITEM_ID].to_pylist(), strict=True))


def test_every_rating_that_the_run_was_given_is_left_out(tiny_config, tmp_path):
    """seen.parquet contains the validation and test ratings too."""
    tiny_config.train.num_epochs = 1
    workdir = str(tmp_path / "run")
    assert train(tiny_config, workdir) == 0
    recommender = Recommender(workdir)
    users: np.ndarray = np.arange(1, NUM_USERS + 1, dtype=np.int32)
    pairs = pairs_of(recommender.recommend(users, NUM_ITEMS))
    rated = pairs_of(planted_ratings())
    assert not pairs & rated
    assert len(pairs) == NUM_USERS * NUM_ITEMS - len(rated)


@pytest.mark.parametrize("damage", [shutil.rmtree, lambda model: (model / "saved_model.pb").write_bytes(b"")])
def test_a_finished_run_exports_a_missing_or_damaged_model_again(tiny_config, tmp_path, capsys, damage):
    tiny_config.train.num_epochs = 1
    assert train(tiny_config, tmp_path) == 0
    users: np.ndarray = np.arange(NUM_USERS + 1, dtype=np.int32)
    before = Recommender(str(tmp_path)).recommend(users, 5, exclude_seen=False)
    capsys.readouterr()
    damage(tmp_path / "model")
    assert train(tiny_config, tmp_path) == 0
    assert "nothing left to do" not in capsys.readouterr().out
    assert Recommender(str(tmp_path)).recommend(users, 5, exclude_seen=False).equals(before)
    assert train(tiny_config, tmp_path) == 0
    assert "nothing left to do" in capsys.readouterr().out


@pytest.mark.parametrize("encoder", ["pooled", "transformer"])
def test_a_run_with_a_history_serves_and_evaluates_as_it_was_measured(tiny_config, tmp_path, capsys, encoder):
    """The stored history has the test ratings, and the metrics do not use it."""
    tiny_config.train.num_epochs = 1
    tiny_config.history.encoder = encoder
    tiny_config.history.size = 9
    tiny_config.list_size = 10
    tiny_config.model.query_embedding = False
    tiny_config.candidates.method = "catalogue"
    workdir = tmp_path / "run"
    assert train(tiny_config, workdir) == 0

    paths = Workdir(str(workdir))
    config = paths.load_config()
    dataset = load_dataset(**config_lib.dataset_arguments(config))
    evaluate = catalogue_evaluator(
        ExportedModel(load_export(paths.model)),
        dataset,
        "test",
        build_metrics(("ndcg@5", "mrr"), relevance_threshold=config.eval.relevance_threshold),
        num_users=config.eval.num_catalogue_users,
        relevance_threshold=config.eval.relevance_threshold,
        seed=config.seed,
    )
    measured = paths.load_result()["protocols"]["catalogue"]["model"]
    for name, mean in evaluate().items():
        assert mean.value == pytest.approx(measured[name]["value"], rel=1e-5)

    ratings = planted_ratings()
    rows = ratings.filter(pyarrow.compute.equal(ratings[USER_ID], "u7"))
    pyarrow.csv.write_csv(rows, tmp_path / "mine.csv")
    capsys.readouterr()
    answers = []
    for arguments in ([f"--ratings={tmp_path}/mine.csv"], ["--user_id=u7"]):
        assert run(f"--workdir={workdir}", "--format=json", *arguments) == 0
        answers.append(json.loads(capsys.readouterr().out)["recommendations"])
    from_ratings, by_id = ([row["score"] for row in answer] for answer in answers)
    assert len(by_id) == min(10, NUM_ITEMS - rows.num_rows)
    assert from_ratings == pytest.approx(by_id, rel=1e-5, abs=1e-6)
