"""trainer.export: versions for a server, and vectors for a nearest-neighbour index."""

import functools
import json
import os
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from absl import flags

from settings.errors import ConfigError, StorageError
from tests.conftest import NUM_ITEMS, NUM_USERS, REPOSITORY
from tests.serving.planted import HISTORIES, VOCABULARY, odd_title
from trainer import export as command
from trainer.compat import tf
from trainer.evaluation.item_lists import ItemLists
from trainer.modeling.ease import EaseBlend
from trainer.modeling.two_tower import TwoTowerModel
from trainer.serving import manifest, serving_layout, verify_served
from trainer.serving.recommender import Recommender
from trainer.serving.serving_model import ServingModel
from trainer.serving.vectors import ITEMS_SCHEMA, USERS_SCHEMA, write_vectors
from trainer.workdir import Workdir

CHECK_HERE = functools.partial(serving_layout.write_version, verify=verify_served.compare)


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command in this process, also its check, and returns what it printed."""
    monkeypatch.setattr(serving_layout, "write_version", CHECK_HERE)

    def run(*arguments):
        values = flags.FlagValues()
        command.define_flags(values)
        values(["export", *arguments])
        monkeypatch.setattr(flags, "FLAGS", values)
        capsys.readouterr()
        assert command.main() == 0
        return capsys.readouterr().out

    return run


def recommend(version, *user_ids, signature="recommend"):
    found = tf.saved_model.load(str(version)).signatures[signature](user_ids=tf.constant(user_ids))
    return [[item.decode() for item in row] for row in found["item_ids"].numpy()]


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("run_name", ["planted_run", "history_run"])
def test_a_run_becomes_a_version_that_leaves_out_what_was_seen(request, run, run_name, tmp_path):
    planted = request.getfixturevalue(run_name)
    output = tmp_path / "served" / "mine"
    printed = run(f"--workdir={planted.workdir}", f"--output={output}", "--k=4")
    assert printed == f"Wrote the model mine for a server to {output}/1\n"
    user = planted.user_index("u17")
    best = planted.best_items(user, excluded=planted.seen[user])[:4]
    assert recommend(output / "1", "u17", "nobody")[0] == planted.item_ids(best)
    assert recommend(output / "1", "u17", signature="serving_default")[0] == planted.item_ids(best)
    assert manifest.find_damage(str(output / "1"), vocabulary_fingerprint=planted.vocabulary.fingerprint()) is None
    assert [path.name for path in output.iterdir()] == ["1"]


def test_the_next_version_gets_the_next_number_and_the_earlier_ones_stay(run, planted_run, tmp_path):
    arguments = (f"--workdir={planted_run.workdir}", f"--output={tmp_path}/mine", "--nowarmup")
    (tmp_path / "mine" / "notes").mkdir(parents=True)
    (tmp_path / "mine" / "7").mkdir()
    (tmp_path / "mine" / "7" / "saved_model.pb").write_bytes(b"earlier")
    assert run(*arguments, "--name=other").endswith(f"Wrote the model other for a server to {tmp_path}/mine/8\n")
    eighth = files_of(tmp_path / "mine" / "8")
    assert "assets.extra/tf_serving_warmup_requests" not in eighth
    assert run(*arguments, "--include_seen", "--default_signature=score", "--k=1").endswith("/mine/9\n")
    assert files_of(tmp_path / "mine" / "8") == eighth
    assert (tmp_path / "mine" / "7" / "saved_model.pb").read_bytes() == b"earlier"
    user = planted_run.user_index("u17")
    assert recommend(tmp_path / "mine" / "9", "u17") == [planted_run.item_ids(planted_run.best_items(user)[:1])]
    signatures = tf.saved_model.load(f"{tmp_path}/mine/9").signatures
    assert signatures["serving_default"].structured_input_signature[1].keys() == {"user_ids", "item_ids"}


def test_a_version_that_fails_its_check_is_not_kept(planted_run, tmp_path):
    paths = Workdir(planted_run.workdir)
    with pytest.raises(
        StorageError, match=r"failed its check and was not kept in .*: it is wrong\. The exported model is"
    ):
        serving_layout.write_version(
            tf.saved_model.load(paths.model),
            planted_run.vocabulary,
            ItemLists.empty(NUM_USERS + 1),
            model_folder=paths.model,
            folder=str(tmp_path / "mine"),
            k=1,
            default_signature="recommend",
            model_name="mine",
            with_warm_up=False,
            verify=lambda sample: "it is wrong",
        )
    assert not list((tmp_path / "mine").iterdir())


def test_an_interrupted_export_leaves_nothing_and_the_next_one_starts_anew(tmp_path):
    folder = tmp_path / "mine" / "1"
    with pytest.raises(KeyboardInterrupt), serving_layout.written_whole(str(folder)) as partial:
        (tmp_path / "mine" / "1.partial" / "half").write_bytes(b"")
        raise KeyboardInterrupt
    assert partial == f"{folder}.partial" and not list(folder.parent.iterdir())
    (tmp_path / "mine" / "1.partial").mkdir()
    (tmp_path / "mine" / "1.partial" / "of a killed process").write_bytes(b"")
    with serving_layout.written_whole(str(folder)):
        (tmp_path / "mine" / "1.partial" / "whole").write_bytes(b"")
    assert [path.name for path in folder.iterdir()] == ["whole"]
    with (
        pytest.raises(StorageError, match="1 was made by another process"),
        serving_layout.written_whole(str(folder)),
    ):
        pass
    assert [path.name for path in folder.iterdir()] == ["whole"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "set --output=DIR for a server, --vectors=DIR for a nearest-neighbour index, or both"),
        (["--vectors=DIR/new", "--k=3"], "--k can only be used with --output"),
        (["--vectors=DIR/new", "--nowarmup"], "--warmup can only be used with --output"),
        (["--vectors=DIR"], "--vectors=.* already exists"),
        (["--output=DIR/new", "--k=31"], "--k=31 cannot be used: the model has 30 items"),
        (["--output=DIR/new", "--default_signature=recommend_from_history"], "the model has no history"),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_is_written(run, planted_run, tmp_path, arguments, named):
    with pytest.raises(ConfigError, match=named):
        run(f"--workdir={planted_run.workdir}", *(each.replace("DIR", str(tmp_path)) for each in arguments))
    assert not list(tmp_path.iterdir())


def test_a_file_in_place_of_the_folder_is_refused(run, planted_run, tmp_path):
    (tmp_path / "mine").write_bytes(b"mine")
    with pytest.raises(StorageError, match=r"--output=.*/mine cannot be used: it is a file"):
        run(f"--workdir={planted_run.workdir}", f"--output={tmp_path}/mine")


def test_without_the_package_of_the_protocol_buffers_the_extra_is_named(run, planted_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    with pytest.raises(ConfigError, match=r"tensorflow-serving-api is not installed.*'\.\[serving\]'.*--nowarmup"):
        run(f"--workdir={planted_run.workdir}", f"--output={tmp_path}/mine")
    assert not (tmp_path / "mine").exists()


def test_the_command_checks_in_a_fresh_process(history_run, tmp_path):
    arguments = [f"--workdir={history_run.workdir}", f"--output={tmp_path}/mine", f"--vectors={tmp_path}/vectors"]
    done = subprocess.run(
        [sys.executable, "-m", "trainer.export", *arguments],
        cwd=REPOSITORY,
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        f"Wrote the model mine for a server to {tmp_path}/mine/1",
        f"Wrote {NUM_ITEMS} vectors of items and {NUM_USERS} of users, each of 4 numbers, to {tmp_path}/vectors",
    ]
    assert json.loads((tmp_path / "mine" / "1" / "manifest.json").read_text())["format_version"] == 3


@pytest.mark.parametrize("run_name", ["planted_run", "history_run"])
def test_the_inner_products_of_the_vectors_are_the_scores(request, run, run_name, tmp_path):
    planted = request.getfixturevalue(run_name)
    run(f"--workdir={planted.workdir}", f"--vectors={tmp_path}/vectors")
    items, users = pq.read_table(tmp_path / "vectors/items.parquet"), pq.read_table(tmp_path / "vectors/users.parquet")
    assert items.schema.equals(ITEMS_SCHEMA) and users.schema.equals(USERS_SCHEMA)
    item_ids, user_ids = items["item_id"].to_pylist(), users["user_id"].to_pylist()
    assert item_ids == planted.vocabulary.items["item_id"].to_pylist()[1:]
    assert user_ids == planted.vocabulary.users["user_id"].to_pylist()[1:]
    assert items["title"].to_pylist() == [odd_title(item_id) for item_id in item_ids]
    scores = np.array(users["vector"].to_pylist()) @ np.array(items["vector"].to_pylist()).T
    np.testing.assert_allclose(scores, planted.scores[1:, 1:], rtol=1e-4, atol=1e-5)
    indices: np.ndarray = np.arange(1, NUM_USERS + 1, dtype=np.int32)
    found = Recommender(planted.workdir).recommend(indices, 5, exclude_seen=False)["item_id"].to_pylist()
    best = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    assert found == [item_ids[item] for row in best for item in row]


def test_the_vectors_have_biases_priors_and_ease(tmp_path, monkeypatch):
    """In chunks of two rows."""
    rng = np.random.default_rng(0)
    model = TwoTowerModel(
        num_queries=3,
        num_items=6,
        embedding_size=3,
        query_embedding=False,
        similarity="cosine",
        scale=4.0,
        item_bias=True,
        item_prior=rng.normal(size=6).astype(np.float32),
        history={"power": 1.0, "highest_rating": 5.0, "dropout": 0.5, "leave_out_targets": True},
    )
    model.item_bias.embeddings.assign(rng.normal(size=[6, 1]))
    blend = EaseBlend(model, rng.normal(size=[6, 6]).astype(np.float32), weight=0.5)
    serving = ServingModel(blend, VOCABULARY, HISTORIES)
    serving.users.fill()
    serving.items.fill()
    monkeypatch.setattr("trainer.evaluation.item_lists._MAX_CHUNK_ENTRIES", 20)
    assert write_vectors(serving, VOCABULARY, str(tmp_path / "vectors")) == (5, 2, 10)
    items, users = pq.read_table(tmp_path / "vectors/items.parquet"), pq.read_table(tmp_path / "vectors/users.parquet")
    scores = np.array(users["vector"].to_pylist()) @ np.array(items["vector"].to_pylist()).T
    expected = serving.score(tf.constant(["u", "v"]), tf.constant([list("abcde")] * 2))["scores"]
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)
