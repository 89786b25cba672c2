"""Whole runs with each kind of candidates and query: what they learn, and that a stopped run ends as any other."""

import json
import signal

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from configs import default
from settings.errors import ConfigError, Stopped
from tests.conftest import train
from trainer.compat import tf
from trainer.training import learner, run

NUM_USERS, NUM_ITEMS = 60, 24


@pytest.fixture(scope="module")
def events_csv(tmp_path_factory):
    """Two groups of users, each of which has seen two thirds of its own half of the items, in a random order."""
    generator = np.random.default_rng(0)
    half = NUM_ITEMS // 2
    items = [generator.permutation(half)[: 2 * half // 3] + half * (user % 2) for user in range(NUM_USERS)]
    users = np.repeat(np.arange(NUM_USERS), len(items[0]))
    items = np.concatenate(items)
    table = pa.table(
        {
            "user_id": [f"u{user}" for user in users],
            "item_id": [f"i{item:02}" for item in items],
            "timestamp": np.arange(len(users)),
        }
    )
    path = tmp_path_factory.mktemp("events") / "events.csv"
    pa.csv.write_csv(table, str(path))
    return str(path)


@pytest.fixture
def config(events_csv):
    """The default config for a small run on the planted events."""
    config = default.get_config()
    config.data.source = events_csv
    config.data.columns.rating = ""
    config.list_size = 9
    config.model.embedding_size = 8
    config.history.size = 8
    config.candidates.num_negatives = 20
    config.transformer.num_layers = 1
    config.train.global_batch_size = 16
    config.train.num_epochs = 12
    config.train.eval_every_steps = 6
    config.train.checkpoint_every_steps = 6
    config.train.log_every_steps = 6
    config.train.steps_per_execution = 3
    config.optimizer.learning_rate = 0.02
    config.optimizer.weight_decay = 0.01
    config.eval.metrics = ("ndcg@5", "mrr")
    config.eval.best_metric = "catalogue/ndcg@5"
    return config


MODES = {
    "catalogue, pooled": {},
    "sampled, pooled": {"candidates.method": "sampled", "history.hidden_size": 8, "model.item_prior": True},
    "catalogue, transformer": {"history.encoder": "transformer"},
    "sampled, own embedding": {
        "candidates.method": "sampled",
        "history.encoder": "none",
        "model.query_embedding": True,
    },
    "blended with EASE": {"ease.weight": 1.0, "ease.regularization": 10.0},
}


class StopAfter:
    """Plays a SIGTERM that arrives during a call."""

    def __init__(self, num_calls):
        self._calls_left = num_calls

    def of_any_worker(self):
        self._calls_left -= 1
        return signal.SIGTERM if self._calls_left < 0 else None

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        assert error is not None, "the run went on to its end"


def last_checkpoint(workdir):
    prefix = max(workdir.glob("checkpoints/step-*.json")).with_suffix("")
    reader = tf.train.load_checkpoint(str(prefix))
    names = [name for name in reader.get_variable_to_shape_map() if not name.startswith("_")]
    return prefix.name, {name: reader.get_tensor(name) for name in names}


def logged(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line["metrics"].pop("lists_per_second", None)
    return lines


# The parts of the others are tested in objectives_test.py.
SHORT = ("catalogue, pooled",)


@pytest.mark.parametrize(
    "fields",
    [pytest.param(MODES[name], id=name, marks=[] if name in SHORT else pytest.mark.long) for name in MODES],
)
def test_a_stopped_run_ends_as_an_uninterrupted_one_and_learns_the_groups(config, fields, tmp_path, monkeypatch):
    config.update_from_flattened_dict(fields)
    assert train(config, tmp_path / "whole") == 0
    with monkeypatch.context() as patched:
        patched.setattr(run, "StopSignal", lambda any_worker: StopAfter(5))
        with pytest.raises(Stopped):
            train(config, tmp_path / "stopped")
    # Initial values are not computed again.
    monkeypatch.setattr(learner, "item_embeddings", None)
    assert train(config, tmp_path / "stopped") == 0

    (step, tensors), (expected_step, expected) = (last_checkpoint(tmp_path / name) for name in ("stopped", "whole"))
    assert step == expected_step and tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, expected[name], err_msg=name)
    assert logged(tmp_path / "stopped") == logged(tmp_path / "whole")

    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("stopped", "whole")]
    assert results[0]["protocols"] == results[1]["protocols"]
    catalogue = results[0]["protocols"]["catalogue"]
    assert results[0]["protocols"].keys() == {"catalogue"}  # Events have no rated lists.
    assert catalogue.keys() == {"model", "popularity", "random"}
    # A user has seen 8 of 12 items of a group. A model that knows the group finds the others among 12 + 4.
    assert catalogue["model"]["ndcg@5"]["value"] > 1.5 * catalogue["random"]["ndcg@5"]["value"]
    assert catalogue["model"]["ndcg@5"]["value"] > catalogue["popularity"]["ndcg@5"]["value"]


def test_events_without_a_catalogue_evaluation_end_with_nothing_measured(config, tmp_path):
    config.train.num_epochs = 1
    config.eval.num_catalogue_users = 0
    assert train(config, tmp_path) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["protocols"] == {} and not (tmp_path / "queries.parquet").exists()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"candidates.method": "rated"}, "config.candidates.method='rated' cannot be used: the data has no ratings"),
        ({"history.weights": "centered_ratings"}, "config.history.weights='centered_ratings' cannot be used: the data"),
        ({"eval.best_metric": "mrr"}, "config.eval.best_metric='mrr' cannot be used: the data has no ratings"),
    ],
)
def test_what_events_cannot_do_is_refused_before_the_workdir_is_made(config, fields, says, tmp_path):
    config.update_from_flattened_dict(fields)
    with pytest.raises(ConfigError, match=says):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
