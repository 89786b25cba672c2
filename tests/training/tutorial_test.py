"""The tutorial's own job on MovieLens 100K gives the tutorial's own metrics."""

import json

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from configs import tutorial
from tests.conftest import SHARED_DATA, train
from trainer.serving.recommender import Recommender

DATA = SHARED_DATA / "tfds"

# Half of the films have fewer than 28 ratings; ten drawn at random would all have so many once in 20,000 draws.
WELL_KNOWN_FROM_RATINGS = 50


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Of the tutorial's three epochs."""
    if not DATA.is_dir():
        pytest.skip(f"MovieLens 100K, as TensorFlow Datasets prepares it, is not in {DATA}")
    workdir = tmp_path_factory.mktemp("tutorial")
    run(workdir, num_epochs=3)
    return workdir


def run(workdir, num_epochs):
    config = tutorial.get_config()
    config.data.data_dir = str(DATA)
    config.train.num_epochs = num_epochs
    assert train(config, workdir) == 0


def assert_well_known(workdir, user_id, k):
    recommender = Recommender(str(workdir))
    items = recommender.vocabulary.items
    known = set(items.filter(pc.greater_equal(items["num_ratings"], WELL_KNOWN_FROM_RATINGS))["title"].to_pylist())
    user = recommender.vocabulary.user_indices(pa.array([user_id]))
    titles = recommender.recommend(user, k, exclude_seen=False)["title"].to_pylist()
    assert len(set(titles)) == k and set(titles) <= known, titles


def test_loss_and_ndcg_are_those_of_the_tutorial(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [48, 96, 144]
    # Published: losses of 998.76, 997.18 and 994.84, NDCG of 0.821, 0.916 and 0.938.
    for line, loss, ndcg in zip(lines, (998.7, 997.1, 994.8), (0.82, 0.916, 0.938), strict=True):
        assert line["metrics"]["loss"] == pytest.approx(loss, abs=1.5)
        assert line["metrics"]["ndcg"] == pytest.approx(ndcg, abs=0.01)
        assert line["metrics"]["mrr"] == 1.0


def test_titles_are_identity(workdir):
    data = json.loads((workdir / "data.json").read_text())
    assert data["num_items"] == 1664 and data["num_ratings"] == {"train": 100_000}


def test_it_recommends_well_known_films_after_three_epochs_and_after_nine(workdir):
    assert_well_known(workdir, "42", 5)
    run(workdir, num_epochs=9)
    assert_well_known(workdir, "26", 10)
