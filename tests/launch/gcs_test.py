"""A whole run on gs://, against a storage service played on loopback: killed, resumed, read from.

The metrics are those of the same run in a local folder that nobody stopped.
"""

import collections
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.conftest import NUM_USERS, REPOSITORY
from tests.launch.fake_gcs import BUCKET, FakeStorage
from tests.training.resume_test import finish, last_checkpoint, logged, start
from trainer.compat import tf
from trainer.training.checkpoint import Checkpointer
from trainer.training.metric_writer import JsonlSink

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="the certificate takes the openssl command")

RUN = f"gs://{BUCKET}/runs/mine"
# Beside what `start` sets: few epochs, and the metrics of step 330 are written before step 400 is saved.
FLAGS = [
    "--config.train.num_epochs=60",
    "--config.train.checkpoint_every_steps=100",
    "--config.data.columns.title=title",
]


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """The service, for this process and those that it starts."""
    service = FakeStorage(tmp_path_factory.mktemp("service"))
    with service.running() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield service


@pytest.fixture(scope="module")
def runs(request, tmp_path_factory, ratings_csv, service) -> tuple[pathlib.Path, pathlib.Path, str]:
    """What two runs left: one on gs://, killed while it saved and started again, and one in a local folder.

    And what the local one printed.
    """
    local, copy = tmp_path_factory.mktemp("local"), tmp_path_factory.mktemp("copy")
    uninterrupted = start(local, ratings_csv, *FLAGS)
    request.addfinalizer(uninterrupted.kill)
    on_gs = [*FLAGS, f"--workdir={RUN}"]
    # The last of a checkpoint's objects: the others are there when the run is killed.
    with service.holding_uploads("runs/mine/checkpoints/step-00000400.json*") as held:
        killed = start(local, ratings_csv, *on_gs)
        arrived = held.wait(timeout=240)
        killed.send_signal(signal.SIGKILL)
        output, _ = killed.communicate()
        assert arrived, output
    assert "runs/mine/checkpoints/step-00000400.index" in service.objects
    assert b'"step": 390' in service.objects["runs/mine/metrics.jsonl"]
    resumed = start(local, ratings_csv, *on_gs)
    request.addfinalizer(resumed.kill)
    assert "Resuming after step 300." in finish(resumed)
    printed = finish(uninterrupted)
    service.download("runs/mine/", copy)
    return copy, local, printed


@pytest.mark.launch
def test_a_killed_run_on_gs_ends_as_one_in_a_local_folder(runs):
    on_gs, local, _ = runs
    step, tensors = last_checkpoint(on_gs)
    expected_step, expected = last_checkpoint(local)
    assert step == expected_step > 400
    assert tensors.keys() == expected.keys() and len(tensors) > 5
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, expected[name], err_msg=name)
    lines = [(line["step"], line["split"]) for line in logged(on_gs)]
    assert len(lines) == len(set(lines)) > step // 30
    assert logged(on_gs) == logged(local)


@pytest.mark.launch
def test_a_run_on_gs_leaves_what_a_local_one_leaves(runs, service):
    on_gs, local, _ = runs
    assert kinds_of_files(on_gs) == kinds_of_files(local)
    folders = {name.rstrip("/") for name in service.objects if name.startswith("runs/mine/") and name.endswith("/")}
    assert {name.removeprefix("runs/mine").lstrip("/") for name in folders} <= folders_of(local)
    assert scalars(on_gs) == scalars(local)


@pytest.mark.launch
def test_recommending_and_evaluating_read_from_gs(runs, service):
    service.put("runs/pairs.csv", b"user_id,item_id\nu7,i1\nu7,i2\n")
    one, everyone, scored, exported, tables = run_all(
        ["trainer.recommend", "--user_id=u7", "--k=2", "--format=json"],
        ["trainer.recommend", "--all_users", "--k=2", f"--output={RUN}-recommended.parquet"],
        ["trainer.recommend", f"--pairs=gs://{BUCKET}/runs/pairs.csv", f"--output={RUN}-scored.csv"],
        ["trainer.export", f"--output={RUN}-served", f"--vectors={RUN}-vectors"],
        ["trainer.evaluate"],
    )
    assert f"Wrote 2 pairs of 1 users to {RUN}-scored.csv" in scored
    assert len(service.objects["runs/mine-scored.csv"].splitlines()) == 3
    assert f"Wrote the model mine-served for a server to {RUN}-served/1" in exported
    of_version = {name for name in service.objects if name.startswith("runs/mine-served/") and not name.endswith("/")}
    folder = "runs/mine-served/1"
    assert {f"{folder}/saved_model.pb", f"{folder}/manifest.json", f"{folder}/variables/variables.index"} < of_version
    assert f"{folder}/assets.extra/tf_serving_warmup_requests" in of_version
    assert all(name.startswith(f"{folder}/") for name in of_version)
    assert len(pq.read_table(io.BytesIO(service.objects["runs/mine-vectors/users.parquet"]))) == NUM_USERS
    assert f"{2 * NUM_USERS} recommendations for {NUM_USERS} users" in everyone
    rows = pq.read_table(io.BytesIO(service.objects["runs/mine-recommended.parquet"])).to_pylist()
    assert len(rows) == 2 * NUM_USERS
    ranked = [(row["item_id"], row["rank"], row["title"]) for row in rows if row["user_id"] == "u7"]
    assert [(row["item_id"], row["rank"], row["title"]) for row in json.loads(one)["recommendations"]] == ranked
    assert "popularity" in tables
    assert tables in runs[2]


def test_what_is_appended_on_gs_stands_behind_what_was_there(service):
    path = f"gs://{BUCKET}/appended/metrics.jsonl"
    for first_step in (1, 3):
        sink = JsonlSink(path)
        for step in (first_step, first_step + 1):
            sink.write_scalars(step, 0.5, "train", {"loss": 1.0})
            sink.flush()
        sink.close()
    steps = [json.loads(line)["step"] for line in service.objects["appended/metrics.jsonl"].splitlines()]
    assert steps == [1, 2, 3, 4]
    JsonlSink(path).truncate_after(2)
    assert len(service.objects["appended/metrics.jsonl"].splitlines()) == 2


def test_a_worker_that_is_not_the_chief_leaves_nothing_on_gs(service):
    folder = f"gs://{BUCKET}/cluster/checkpoints"
    trackable = tf.train.Checkpoint(table=tf.Variable([1.0, 2.0]))
    chief, other = (
        Checkpointer(folder, trackable, keep=2, is_chief=is_chief, worker_name=name)
        for is_chief, name in [(True, "chief-0"), (False, "worker-1")]
    )
    chief.save(10, {})
    before = dict(service.objects)
    uploads = len(service.uploads)
    other.save(10, {})
    assert len(service.uploads) > uploads
    assert service.objects == before
    assert other.steps() == [10]


def run_all(*commands: list[str]) -> list[str]:
    """What each of some commands, run at once on RUN, prints."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", module, f"--workdir={RUN}", *flags],
            cwd=REPOSITORY,
            env=os.environ.copy(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for module, *flags in commands
    ]
    try:
        outputs = []
        for process in processes:
            output, errors = process.communicate(timeout=240)
            assert process.returncode == 0, errors
            outputs.append(output)
        return outputs
    finally:
        for process in processes:
            process.kill()


def kinds_of_files(workdir: pathlib.Path) -> set[str]:
    """Names below `workdir`; a resumed run has more of TensorBoard's files, but of the same kinds."""
    paths = [str(path.relative_to(workdir)) for path in workdir.rglob("*") if path.is_file()]
    return {path.partition("tfevents")[0] for path in paths} - {".lock"}


def folders_of(workdir: pathlib.Path) -> set[str]:
    return {str(path.relative_to(workdir)) for path in workdir.rglob("*") if path.is_dir()} | {""}


def scalars(workdir: pathlib.Path) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """What TensorBoard shows: (split, name) → (step, value) in order, without what a clock measured."""
    found = collections.defaultdict(list)
    for path in sorted(workdir.glob("logs/*/events*")):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                if value.tensor.dtype == tf.float32.as_datatype_enum and value.tag != "lists_per_second":
                    found[path.parent.name, value.tag].append((event.step, tf.make_ndarray(value.tensor).item()))
    return {key: sorted(values) for key, values in found.items()}
