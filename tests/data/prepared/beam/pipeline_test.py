"""trainer.prepare on Beam's own workers: the bytes of one machine, the counters, and what becomes of an error.

Run by `make test-beam`, in an environment with Beam and without TensorFlow.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
from typing import ClassVar

import pytest

pytest.importorskip("apache_beam", reason="Apache Beam is not installed; `make test-beam` installs it")

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineRunner
from etils.epath import backend as epath_backend

from configs import default
from settings.errors import DataError, StorageError, UnavailableError
from settings.trainer_config import load_trainer_config
from tests.data.prepared.beam.common import SHARD_BYTES, arguments_for, files_of, written_by_one_machine
from trainer import storage
from trainer.config import dataset_arguments
from trainer.data.prepared import writing
from trainer.data.prepared.beam import parts, plan, running
from trainer.data.prepared.beam.failures import FAILURE
from trainer.data.prepared.beam.job import Job
from trainer.data.prepared.beam.pipeline import METRICS, build_pipeline

REPOSITORY = pathlib.Path(__file__).resolve().parents[4]
MOVIELENS_100K = REPOSITORY.parent / "shared" / "data" / "ml-100k"
needs_movielens = pytest.mark.skipif(
    not MOVIELENS_100K.exists(), reason=f"MovieLens may not be redistributed, and is not at {MOVIELENS_100K}"
)

SHARD_OF_TENS_OF_USERS = 100_000
WORKERS = {
    "1 worker": ["--direct_running_mode=in_memory"],
    "2 workers": ["--direct_running_mode=multi_processing", "--direct_num_workers=2"],
    "4 workers": ["--direct_running_mode=multi_processing", "--direct_num_workers=4"],
}
PROCESSES = WORKERS["2 workers"]


def prepare_on_beam(arguments, output, flags=WORKERS["1 worker"]):
    lines = []
    manifest = running.prepare_on_beam(arguments, str(output), runner="DirectRunner", flags=flags, report=lines.append)
    assert lines == []
    return manifest


@pytest.fixture(scope="module", params=["synthetic", pytest.param(str(MOVIELENS_100K), marks=needs_movielens)])
def both(request, tmp_path_factory):
    """The arguments that load a source with a random split, and what one machine writes of it in several shards."""
    arguments = {**dataset_arguments(load_trainer_config(default.get_config())), "source": request.param}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "SHARD_BYTES", SHARD_OF_TENS_OF_USERS)
        expected = written_by_one_machine(tmp_path_factory.mktemp("one") / "data", arguments)
    assert json.loads(expected["manifest.json"])["counts"]["rows"]["used"] == 100_000
    assert len([name for name in expected if name.endswith("train.items.npy")]) > 10
    return arguments, expected


@pytest.mark.parametrize("flags", WORKERS.values(), ids=WORKERS)
def test_any_number_of_workers_writes_the_bytes_of_one_machine(both, tmp_path, monkeypatch, flags):
    monkeypatch.setattr(writing, "SHARD_BYTES", SHARD_OF_TENS_OF_USERS)
    arguments, expected = both
    prepare_on_beam(arguments, tmp_path / "data", flags)
    written = files_of(tmp_path / "data")
    assert written.keys() == expected.keys()
    assert [name for name in expected if written[name] != expected[name]] == []
    assert os.listdir(tmp_path) == ["data"] and "tensorflow" not in sys.modules


CASES = [
    *("cut in time", "given files", "films of one title in files", "counted events in files", "features in files"),
    *("row order", "files in time order"),
]


@pytest.mark.parametrize("case", CASES)
def test_every_way_through_the_pipeline_writes_the_bytes_of_one_machine(tmp_path, monkeypatch, case):
    monkeypatch.setattr(writing, "SHARD_BYTES", SHARD_BYTES)
    (tmp_path / "sources").mkdir()
    arguments = arguments_for(tmp_path / "sources", case)
    expected = written_by_one_machine(tmp_path / "one", arguments)
    manifest = prepare_on_beam(arguments, tmp_path / "data")
    written = files_of(tmp_path / "data")
    assert [
        name for name in expected if written.get(name) != expected[name]
    ] == [] and written.keys() == expected.keys()
    assert manifest.counts == json.loads(expected["manifest.json"])["counts"]


def test_the_counters_are_the_account_of_the_manifest(tmp_path):
    arguments = arguments_for(tmp_path, "files")
    job = Job(arguments, str(tmp_path / "data"), 5, SHARD_BYTES)
    pipeline = beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner", *PROCESSES]))
    build_pipeline(pipeline, job, parts.list_parts(job))
    result = pipeline.run()
    result.wait_until_finish()
    counters = {
        counter.key.metric.name: counter.committed
        for counter in result.metrics().query()["counters"]
        if counter.key.metric.namespace == METRICS
    }
    rows = json.loads((tmp_path / "data/manifest.json").read_text())["counts"]["rows"]
    assert counters == rows and rows["duplicate"] > 0 and rows["rating_out_of_range"] > 0


def command(*flags, cwd):
    return subprocess.run(
        [sys.executable, "-m", "trainer.prepare", *flags],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )


def test_the_command_prints_the_account_of_a_preparation_on_beam(tmp_path):
    (tmp_path / "mine.csv").write_text("user_id,item_id,rating,timestamp\n" + "".join(
        f"u{user},i{item},{1 + item % 5},{item}\n" for user in range(6) for item in range(20)
    ) + "u1,i1,1,1\nu1,i2,9,1\n")  # fmt: skip
    flags = ("--output=data", "--config.data.source=mine.csv", "--config.data.max_bad_fraction=0.1")
    answer = command(*flags, "--runner=DirectRunner", "--", *PROCESSES, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert "mine.csv: 122 rows read, 120 used (others: 1 duplicate, 1 rating_out_of_range)." in answer.stdout
    assert "6 users, 20 items." in answer.stdout and answer.stderr == ""
    assert command("--verify=data", cwd=tmp_path).returncode == 0
    again = command(*flags, cwd=tmp_path)
    assert again.returncode == 0 and "There is nothing to do." in again.stdout
    again = command(*flags, "--runner=DirectRunner", cwd=tmp_path)
    assert again.returncode == 78 and "--output=data has a prepared data set already" in again.stderr


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (["--runner=DirectRunner", "--", *PROCESSES], 65, "1 of 3 rows are bad (1 rating_out_of_range)"),
        (["--runner=DirectRunner", "--config.data.columns.user_id=who"], 65, "has no column 'who' for user_id"),
        (["--runner=DirectRunner", "--config.data.source=none.csv"], 78, "there is no such file or folder"),
        (["--runner=DirectRunner", "--config.data.source=movielens/1m"], 78, "cannot be prepared on Beam"),
        (["--runner=DirectRunner", "--", "--direct_num_worker=2"], 78, "--direct_num_worker after -- is not a flag"),
        (["--runner=DirectRunner", "--", "--direct_num_workers=x"], 78, "invalid int value: 'x'"),
        (["--runner=DirectRunner", "--", "stray"], 78, "'stray' after -- is not a flag"),
        (["--runner=NoRunner"], 78, "Unexpected pipeline runner: NoRunner"),
        (["--", "--direct_num_workers=2"], 78, "--direct_num_workers=2 is only used on Beam"),
        (["--dry_run"], 78, "--dry_run is only used on Beam"),
        (["--direct_num_workers=2"], 78, "write Beam's own flags after --"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_paragraph_and_nothing_is_written(tmp_path, flags, code, says):
    (tmp_path / "mine.csv").write_text("user_id,item_id,rating,timestamp\nu,i,1,1\nu,j,1,1\nu,k,9,1\n")
    answer = command("--output=data", "--config.data.source=mine.csv", *flags, cwd=tmp_path)
    assert answer.returncode == code, answer.stderr
    assert answer.stderr.startswith("error: ") and answer.stderr.count("\n") == 1 and says in answer.stderr
    assert answer.stdout == "" and os.listdir(tmp_path) == ["mine.csv"]


@pytest.mark.parametrize("error", [StorageError("The disk is full."), DataError("It cannot be used.")])
def test_an_error_of_the_last_step_leaves_nothing(tmp_path, monkeypatch, error):
    arguments = arguments_for(tmp_path, "row order")
    before = files_of(tmp_path)

    def fail(*arguments, **named):
        raise error

    monkeypatch.setattr(plan, "finish", fail)
    with pytest.raises(type(error), match=str(error)):
        prepare_on_beam(arguments, tmp_path / "data")
    assert files_of(tmp_path) == before


def test_a_bug_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    arguments = arguments_for(tmp_path, "row order")
    before = files_of(tmp_path)
    monkeypatch.setattr(plan, "finish", lambda *arguments, **named: 1 // 0)
    with pytest.raises(UnavailableError, match=r"failed on DirectRunner: .*division.*--traceback"):
        prepare_on_beam(arguments, tmp_path / "data")
    assert files_of(tmp_path) == before


class StoppedRunner(PipelineRunner):
    """A runner whose job runs elsewhere, and is waited for when the user stops the command."""

    jobs: ClassVar[list[str]] = []

    def run_pipeline(self, pipeline, options):
        return self

    def job_id(self):
        return "job-7"

    def wait_until_finish(self):
        raise KeyboardInterrupt

    def cancel(self):
        self.jobs.append("cancelled")


def test_a_command_that_is_stopped_cancels_its_job(tmp_path):
    arguments = arguments_for(tmp_path, "row order")
    before, lines = files_of(tmp_path), []
    runner = f"{__name__}.{StoppedRunner.__name__}"
    with pytest.raises(KeyboardInterrupt):
        running.prepare_on_beam(arguments, str(tmp_path / "data"), runner=runner, flags=[], report=lines.append)
    assert lines == [f"{runner} runs job job-7."] and StoppedRunner.jobs == ["cancelled"]
    assert files_of(tmp_path) == before


def test_an_error_that_a_second_try_does_not_have_leaves_no_trace(tmp_path, monkeypatch):
    arguments = arguments_for(tmp_path, "row order")
    finish = plan.finish

    def report_and_finish(job, *arguments, **named):
        storage.write_bytes(storage.join(job.folder, FAILURE), b"{}")
        return finish(job, *arguments, **named)

    monkeypatch.setattr(plan, "finish", report_and_finish)
    manifest = prepare_on_beam(arguments, tmp_path / "data")
    assert {name for name, content in files_of(tmp_path / "data").items() if content is not None} == {
        "manifest.json",
        *manifest.files,
    }


DATAFLOW = ["--project=my-project", "--region=europe-west1", "--temp_location=gs://bucket/temporary"]


@pytest.mark.parametrize("source", ["synthetic", "gs://bucket/ratings"])
def test_a_dry_run_prints_the_job_for_dataflow(tmp_path, source):
    answer = command(
        f"--config.data.source={source}",
        "--output=gs://bucket/data", "--runner=DataflowRunner", "--dry_run", "--",
        *DATAFLOW, "--num_workers=40", "--sdk_container_image=registry/image:tag", cwd=tmp_path,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    lines = answer.stdout.splitlines()
    begin = lines.index("{")
    job = json.loads("\n".join(lines[begin:]))
    (pool,) = job["environment"]["workerPools"]
    assert pool["numWorkers"] == 40
    assert [image["containerImage"] for image in pool["sdkHarnessContainerImages"]] == ["registry/image:tag"]
    assert "output: gs://bucket/data" in lines[:begin] and "step: Merge" in lines[:begin]
    assert ("files: 1" in lines) == (source == "synthetic")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("output", "flags", "says"),
    [
        ("gs://bucket/data", DATAFLOW[1:], "Missing required option: project"),
        ("gs://bucket/data", DATAFLOW[:2], "Missing GCS path option: temp_location. Write --temp_location=gs://"),
        ("gs://bucket/data", [*DATAFLOW, "--temp_location=here"], "Invalid GCS path (here)"),
        ("data", DATAFLOW, "--output=data cannot be used with --runner=DataflowRunner"),
    ],
)
def test_a_dry_run_checks_the_flags_for_dataflow(tmp_path, output, flags, says):
    answer = command(f"--output={output}", "--runner=DataflowRunner", "--dry_run", "--", *flags, cwd=tmp_path)
    assert answer.returncode == 78 and says in answer.stderr and answer.stderr.count("\n") == 1


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A folder that fsspec takes for gs://bucket, without TensorFlow."""
    fsspec = pytest.importorskip("fsspec")
    local = fsspec.filesystem("local", auto_mkdir=True)
    files = fsspec.filesystem("dir", path=str(tmp_path / "gs"), fs=local)
    monkeypatch.setattr(type(epath_backend.fsspec_backend), "fs", lambda backend, path: files)
    return tmp_path / "gs/gs:/bucket"


def test_sources_and_output_can_be_on_gs(tmp_path, monkeypatch, bucket):
    monkeypatch.setattr(writing, "SHARD_BYTES", SHARD_BYTES)
    (tmp_path / "sources").mkdir()
    arguments = arguments_for(tmp_path / "sources", "files")
    shutil.copytree(tmp_path / "sources/source", bucket / "source")
    arguments["source"] = "gs://bucket/source"
    prepare_on_beam(arguments, "gs://bucket/data")
    written = files_of(bucket / "data")
    expected = written_by_one_machine(tmp_path / "one", arguments)
    files = {name: content for name, content in expected.items() if content is not None}
    assert {name: content for name, content in written.items() if content is not None} == files
    assert "tensorflow" not in sys.modules


def test_a_failure_on_gs_leaves_nothing(tmp_path, bucket):
    (tmp_path / "sources").mkdir()
    arguments = arguments_for(tmp_path / "sources", "files", max_bad_fraction=0.0)
    with pytest.raises(DataError, match="rows are bad"):
        prepare_on_beam(arguments, "gs://bucket/data")
    assert not [content for content in files_of(bucket).values() if content is not None]
