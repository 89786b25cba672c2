"""Training and recommending from Python."""

import functools
import pathlib
import threading

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pytest

import trainer
from settings.errors import ConfigError, UserError
from tests.conftest import NUM_ITEMS, planted_ratings
from trainer import api
from trainer.serving.export import verify_in_this_process
from trainer.training.run import train_and_evaluate


@pytest.fixture(autouse=True)
def fast_verification(monkeypatch):
    monkeypatch.setattr(
        api, "train_and_evaluate", functools.partial(train_and_evaluate, verify_export=verify_in_this_process)
    )


@pytest.fixture
def config(tiny_config):
    tiny_config.data.source = "not used"
    return tiny_config


@pytest.fixture(scope="module")
def module_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("api")


@pytest.fixture
def run(config, module_folder):
    """Trained once. Later calls find it finished."""
    return trainer.train(planted_ratings(), workdir=module_folder / "run", config=config, quiet=True)


def test_a_table_is_trained_on(run):
    metrics = run.metrics["rated"]
    assert set(metrics) == {"model", "popularity", "item_mean", "random"}
    # An item's stars depend on the item alone, so the model learns the order.
    assert metrics["model"]["ndcg@5"].value > 0.95 > metrics["random"]["ndcg@5"].value
    assert run.result["protocols"]["rated"]["model"]["ndcg@5"]["value"] == metrics["model"]["ndcg@5"].value


def test_the_verdict_is_a_sentence(run):
    assert "orders rated items" in run.verdict


def test_recommendations_are_what_the_user_has_not_seen(run):
    ratings = planted_ratings()
    seen = set(ratings.filter(pa.compute.equal(ratings["user_id"], "u7"))["item_id"].to_pylist())
    found = run.recommend(["u7"], k=NUM_ITEMS)
    assert set(found["item_id"].to_pylist()) == {f"i{item}" for item in range(NUM_ITEMS)} - seen
    assert found["rank"].to_pylist() == list(range(1, NUM_ITEMS - len(seen) + 1))
    assert len(run.recommend(["u7"], k=NUM_ITEMS, include_seen=True)) == NUM_ITEMS
    assert run.recommend(["u9", "u7"], k=1)["user_id"].to_pylist() == ["u9", "u7"]


def test_similar_items_are_found_by_id(run):
    found = run.similar_items(["i4", "i7"], k=2)
    assert found["item_id"].to_pylist() == ["i4", "i4", "i7", "i7"]
    assert "i4" not in found["similar_item_id"].to_pylist()[:2]
    with pytest.raises(UserError, match="The item 'i99' is unknown"):
        run.similar_items(["i99"])


def test_an_unknown_user_is_an_error(run):
    with pytest.raises(UserError, match="The user 'nobody' is unknown"):
        run.recommend(["u7", "nobody"])
    with pytest.raises(TypeError, match=r"Give a list of ids, such as \['u7'\]"):
        run.recommend("u7")


def test_the_model_takes_ids(run):
    scores = run.model.score(pa.array(["u7"]).to_pylist(), [["i4", "nothing"]])["scores"].numpy()
    assert scores[0, 0] > scores[0, 1] == float("-inf")


def test_a_finished_run_is_opened_again(run):
    assert trainer.load_run(run.workdir).result == run.result
    assert repr(run) == f"FinishedRun({run.workdir!r})"


def test_other_ratings_for_the_same_workdir_are_refused(run, config):
    folder = pathlib.Path(run.workdir)
    names = ("ratings.parquet", "config.json", "result.json")
    before = [(folder / name).read_bytes() for name in names]
    with pytest.raises(ConfigError, match="has other ratings than the table that was given"):
        trainer.train(planted_ratings(seed=1), workdir=folder, config=config, quiet=True)
    assert before == [(folder / name).read_bytes() for name in names]


def test_a_data_frame_and_a_path_are_the_same_ratings(run, config, tmp_path, capsys):
    shuffled_index = planted_ratings().to_pandas().set_index(pd.Index(range(5, 5 + len(planted_ratings()))))
    of_frame = trainer.train(shuffled_index, workdir=run.workdir, config=config)
    assert "This run is finished" in capsys.readouterr().out
    assert of_frame.result == run.result
    pa.csv.write_csv(planted_ratings(), str(tmp_path / "ratings.csv"))
    of_path = trainer.train(tmp_path / "ratings.csv", workdir=tmp_path / "run", config=config, quiet=True)
    assert of_path.result["protocols"] == run.result["protocols"]
    assert capsys.readouterr().out == ""


def test_fields_are_set_in_a_copy_of_the_config(config, tmp_path):
    before = config.to_dict()
    run = trainer.train(planted_ratings(), workdir=tmp_path, config=config, fields={"train.num_epochs": 1}, quiet=True)
    assert run.result["step"] == 10  # 77 lists in batches of 8.
    assert config.to_dict() == before


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("train.num_epoch", 3, "num_epoch is not a field; did you mean num_epochs"),
        ("trane.num_epochs", 3, "config.trane.num_epochs is not a field"),
        ("train.num_epochs", "many", "config.train.num_epochs cannot be 'many'"),
    ],
)
def test_a_wrong_field_is_named(name, value, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        trainer.train(planted_ratings(), workdir=tmp_path / "run", fields={name: value})


def test_what_is_no_table_is_refused(tmp_path):
    with pytest.raises(TypeError, match="ratings is of the type list"):
        trainer.train([1, 2], workdir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_it_trains_in_another_thread(config, tmp_path):
    """Python handles signals only in the main thread."""
    found = []
    thread = threading.Thread(
        target=lambda: found.append(trainer.train(planted_ratings(), workdir=tmp_path, config=config, quiet=True))
    )
    thread.start()
    thread.join()
    assert found[0].metrics["rated"]["model"]["ndcg@5"].value > 0.95


def test_an_unfinished_run_is_not_opened(tmp_path):
    with pytest.raises(ConfigError, match="does not contain a run"):
        trainer.load_run(tmp_path)


def test_importing_the_package_does_not_import_tensorflow():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = trainer.nothing
