"""From ratings to recommendations, through a whole run."""

import shutil

import numpy as np
import pytest

from tests.conftest import NUM_ITEMS, NUM_USERS, planted_ratings, train
from trainer.schema import ITEM_ID, USER_ID
from trainer.serving.recommender import Recommender


def pairs_of(table):
    return set(zip(table[USER_ID].to_pylist(), table[ITEM_ID].to_pylist(), strict=True))


def test_exclude_seen_leaves_out_every_rating_that_the_run_was_given(tiny_config, tmp_path):
    """seen.parquet contains the validation and test ratings too."""
    tiny_config.train.num_epochs = 1
    workdir = str(tmp_path / "run")
    assert train(tiny_config, workdir) == 0
    recommender = Recommender(workdir)
    users: np.ndarray = np.arange(1, NUM_USERS + 1, dtype=np.int32)
    pairs = pairs_of(recommender.recommend(users, NUM_ITEMS, exclude_seen=True))
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
