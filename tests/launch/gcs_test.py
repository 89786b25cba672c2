"""A whole run on gs://, against a storage service played on loopback: killed, resumed, read from.

The metrics are those of the same run in a local folder that nobody stopped.
"""

import collections
import datetime
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

from settings.errors import ConfigError, StorageError
from tests.conftest import NUM_USERS, REPOSITORY
from tests.launch.fake_gcs import BUCKET, FakeStorage
from tests.training.resume_test import finish, last_checkpoint, logged, start
from trainer.compat import tf
from trainer.training.checkpoint import Checkpointer
from trainer.training.metric_writer import JsonlSink
from trainer.workdir_lock import LEASE_SECONDS, Holder, Lease, this_process

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="the certificate takes the openssl command")

RUN = f"gs://{BUCKET}/runs/mine"
# Beside what `start` sets: few epochs, and the metrics of step 330 are written before step 400 is saved.
FLAGS = [
    "--config.train.num_epochs=60",
    "--config.train.checkpoint_every_steps=100",
    "--config.data.columns.title=title",
]


# The method, the step and the status of requests that fail once. The status 0 breaks the connection off.
FAILURES = [
    ("GET", "00000300.json", 503),
    *[("POST", "00000400.data", 503), ("PUT", "00000400.data", 0), ("GET", "00000400.data", 0)],
    *[("POST", "00000400.json", 0), ("PUT", "00000400.json", 503), ("DELETE", "00000400.partial", 503)],
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
def runs(request, tmp_path_factory, ratings_csv, service) -> tuple[pathlib.Path, pathlib.Path, str, str]:
    """What two runs left: one on gs://, killed while it saved and started again, and one in a local folder.

    And what the local one printed, and what one printed that was started while the first one on gs:// was running.
    """
    local, copy = tmp_path_factory.mktemp("local"), tmp_path_factory.mktemp("copy")
    uninterrupted = start(local, ratings_csv, *FLAGS)
    request.addfinalizer(uninterrupted.kill)
    on_gs = [*FLAGS, f"--workdir={RUN}"]
    # The last of a checkpoint's objects: the others are there when the run is killed.
    with service.holding_uploads("runs/mine/checkpoints/step-00000400.json*") as held:
        killed = start(local, ratings_csv, *on_gs)
        arrived = held.wait(timeout=240)
        second = start(local, ratings_csv, *on_gs)
        request.addfinalizer(second.kill)
        refused, _ = second.communicate(timeout=240)
        assert second.returncode == 78, refused
        assert f"in use by another run, process {killed.pid} on" in refused
        killed.send_signal(signal.SIGKILL)
        output, _ = killed.communicate()
        assert arrived, output
    assert "runs/mine/checkpoints/step-00000400.index" in service.objects
    assert b'"step": 390' in service.objects["runs/mine/metrics.jsonl"]
    # A temporary failure of each request that a save makes.
    failures = [f"{method} runs/mine/checkpoints/step-{step}* {status}" for method, step, status in FAILURES]
    with service.failing(*failures) as left:
        resumed = start(local, ratings_csv, *on_gs)
        request.addfinalizer(resumed.kill)
        assert "Resuming after step 300." in finish(resumed)
        assert left == []
    printed = finish(uninterrupted)
    service.download("runs/mine/", copy)
    return copy, local, printed, refused


@pytest.mark.launch
def test_a_killed_run_on_gs_ends_as_one_in_a_local_folder(runs):
    on_gs, local, *_ = runs
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
    on_gs, local, *_ = runs
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
    assert tables.partition("Verdict: ")[0] in runs[2] and tables.splitlines()[-1] in runs[2]


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


def test_a_worker_that_is_not_the_chief_asks_nothing_of_gs_when_a_checkpoint_is_saved(service):
    folder = f"gs://{BUCKET}/cluster/checkpoints"
    variables = {"table": tf.Variable([1.0, 2.0])}
    chief, other = (Checkpointer(folder, variables, keep=2, is_chief=is_chief) for is_chief in (True, False))
    with chief:
        chief.save(10, {})
    before = dict(service.objects)
    uploads = len(service.uploads)
    with other:
        other.save(10, {})
    assert len(service.uploads) == uploads and service.objects == before
    variables["table"].assign([0.0, 0.0])
    assert other.restore_latest().step == 10
    np.testing.assert_array_equal(variables["table"], [1.0, 2.0])


def test_a_save_that_gs_refuses_leaves_the_checkpoint_before_it(service):
    folder = f"gs://{BUCKET}/refused/checkpoints"
    table = tf.Variable([1.0, 2.0])
    checkpointer = Checkpointer(folder, {"table": table}, keep=1)
    checkpointer.save(10, {})
    checkpointer.wait()
    before = {name for name in service.objects if name.startswith("refused/")}
    table.assign([3.0, 4.0])
    # TensorFlow tries once more when it drops the file.
    with service.failing(*["PUT refused/checkpoints/step-00000020.data* 403"] * 3):
        checkpointer.save(20, {})
        with pytest.raises(StorageError, match=r"step 20 cannot be written to .*: .*403"):
            checkpointer.wait()
    assert {name for name in service.objects if name.startswith("refused/")} == before
    assert checkpointer.restore_latest().step == 10
    np.testing.assert_array_equal(table, [1.0, 2.0])


ELSEWHERE = Holder(host="elsewhere", machine="another boot", process=41, started="7")


def test_the_lease_on_gs_expires_by_the_clock_of_the_service(service):
    """The clock of the service is years ahead of that of this machine."""
    folder = f"gs://{BUCKET}/leased"
    service.clock_ahead = datetime.timedelta(days=1000)
    other, this = Lease(folder, ELSEWHERE), Lease(folder, this_process())
    try:
        other.take()
        with pytest.raises(ConfigError, match=r"in use by another run, process 41 on elsewhere, .* [0-9] s ago"):
            this.take()
        service.clock_ahead += datetime.timedelta(seconds=LEASE_SECONDS)
        this.take()
    finally:
        service.clock_ahead = datetime.timedelta()
    with pytest.raises(ConfigError, match=rf"taken over by process {os.getpid()} on"):
        other.check()
    with this.renewing():
        this.check()
    assert {name for name in service.objects if name.startswith("leased/")} <= {"leased/"}


@pytest.mark.launch
@pytest.mark.parametrize("what", ["workdir", "source"])
@pytest.mark.parametrize(
    ("bucket", "environment", "says"),
    [
        ("absent", {}, "there is no bucket gs://absent."),
        # Nothing listens there.
        (BUCKET, {"https_proxy": "http://127.0.0.1:9"}, "has not answered for 20 s."),
    ],
    ids=["absent", "unreachable"],
)
def test_a_bucket_that_cannot_be_used_is_said_before_any_data_is_read(
    service, tmp_path, ratings_csv, what, bucket, environment, says
):
    path = f"gs://{bucket}/{what}.csv"
    flag = f"--workdir={path}" if what == "workdir" else f"--config.data.source={path}"
    run = start(tmp_path / "run", ratings_csv, flag, **environment)
    try:
        output, _ = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == 74, output
    (line,) = output.splitlines()
    assert line.startswith(f"error: {path} cannot be opened: ") and says in line
    assert not (tmp_path / "run").exists()


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
                if value.tensor.dtype == tf.float32.as_datatype_enum and not value.tag.endswith("lists_per_second"):
                    found[path.parent.name, value.tag].append((event.step, tf.make_ndarray(value.tensor).item()))
    return {key: sorted(values) for key, values in found.items()}
