"""Kill it, get the same model: real processes, real signals."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from tensorflow.core.util import event_pb2

from tests.conftest import REPOSITORY
from trainer.compat import tf

NUM_EPOCHS = 150


def start(workdir: pathlib.Path, ratings_csv: str, *flags: str, **environment: str) -> subprocess.Popen:
    """The trainer as a user would start it, checkpointing often, in calls of many lengths."""
    fields = {
        "data.source": ratings_csv,
        "list_size": 12,
        "model.embedding_size": 8,
        "train.global_batch_size": 8,
        "train.num_epochs": NUM_EPOCHS,
        "train.early_stopping_patience": 0,
        "train.steps_per_execution": 7,
        "train.checkpoint_every_steps": 40,
        "train.log_every_steps": 30,
        "optimizer.name": "adam",
        "optimizer.learning_rate": 0.01,
        "eval.metrics": "('ndcg@5',)",
        "eval.best_metric": "ndcg@5",
    }
    return subprocess.Popen(
        [
            sys.executable,
            *("-m", "trainer.main", f"--workdir={workdir}"),
            *(f"--config.{name}={value}" for name, value in fields.items()),
            *flags,
        ],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output


def wait_for_checkpoint(process: subprocess.Popen, workdir: pathlib.Path, after_step: int) -> None:
    """Returns as soon as a checkpoint of a step beyond `after_step` is there."""
    deadline = time.monotonic() + 240
    while not any(int(path.stem[5:]) > after_step for path in workdir.glob("checkpoints/step-*.json")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def last_checkpoint(workdir: pathlib.Path) -> tuple[int, dict[str, np.ndarray]]:
    """The step, and every tensor: weights, optimizer slots and iterations."""
    prefix = max(workdir.glob("checkpoints/step-*.json")).with_suffix("")
    reader = tf.train.load_checkpoint(str(prefix))
    names = [name for name in reader.get_variable_to_shape_map() if not name.startswith("_")]
    return int(prefix.name[5:]), {name: reader.get_tensor(name) for name in names}


def logged(workdir: pathlib.Path) -> list[dict]:
    """metrics.jsonl without what a clock measured."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line["metrics"].pop("lists_per_second", None)
    return lines


def shown(workdir: pathlib.Path) -> list[tuple[str, str, int, bytes]]:
    """What TensorBoard shows, as (folder, tag, step, value), without what a clock measured."""
    values = [
        (path.parent.name, value.tag, event.step, value.tensor.SerializeToString())
        for path in workdir.glob("logs/**/events.out.tfevents.*")
        for record in tf.data.TFRecordDataset(str(path))
        for event in [event_pb2.Event.FromString(record.numpy())]
        for value in event.summary.value
    ]
    return sorted(value for value in values if "lists_per_second" not in value[1])


def projected(workdir: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in workdir.glob("logs/projector*") if path.is_file()} | {
        path.name: path.read_bytes() for path in workdir.glob("logs/projector/*")
    }


def assert_same_run(workdir: pathlib.Path, uninterrupted: pathlib.Path) -> None:
    step, tensors = last_checkpoint(workdir)
    expected_step, expected = last_checkpoint(uninterrupted)
    assert step == expected_step > 1000
    assert tensors.keys() == expected.keys() and len(tensors) > 5
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, expected[name], err_msg=name)
    assert logged(workdir) == logged(uninterrupted)
    tags = {tag.split("/")[0] for _, tag, _, _ in shown(uninterrupted)}
    assert tags >= {"1_learning", "10_final", "scores", "embedding_norms", "2_recommendations", "1_final_metrics"}
    assert shown(workdir) == shown(uninterrupted)
    assert projected(workdir) == projected(uninterrupted) and len(projected(uninterrupted)) == 3


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, ratings_csv) -> pathlib.Path:
    workdir, compiled = tmp_path_factory.mktemp("uninterrupted"), tmp_path_factory.mktemp("compiled")
    finish(start(workdir, ratings_csv, XLA_FLAGS=f"--xla_dump_to={compiled} --xla_dump_hlo_as_text"))
    # Calls of another length run the same machine code: it is compiled once.
    assert len(list(compiled.glob("*train_loop*before_optimizations.txt"))) == 1
    return workdir


@pytest.mark.reliability
@pytest.mark.promise(1, "whole runs", "started again end as they should")
def test_killed_and_stopped_runs_end_with_the_same_weights_bit_for_bit(tmp_path, ratings_csv, uninterrupted):
    killed = start(tmp_path, ratings_csv)
    wait_for_checkpoint(killed, tmp_path, after_step=100)
    killed.send_signal(signal.SIGKILL)
    killed.wait()

    stopped = start(tmp_path, ratings_csv)
    wait_for_checkpoint(stopped, tmp_path, after_step=last_checkpoint(tmp_path)[0] + 100)
    stopped.send_signal(signal.SIGTERM)
    output, _ = stopped.communicate(timeout=60)
    assert stopped.returncode == 143, output
    assert "it is saved" in output
    assert "Resuming after step" in output
    stopped_after = last_checkpoint(tmp_path)[0]
    assert f"after step {stopped_after}" in output

    output = finish(start(tmp_path, ratings_csv))
    assert f"Resuming after step {stopped_after:,}" in output
    assert_same_run(tmp_path, uninterrupted)


@pytest.mark.reliability
@pytest.mark.promise(1, "whole runs", "started again end as they should")
def test_a_finished_run_started_again_takes_no_step(ratings_csv, uninterrupted):
    before = (uninterrupted / "metrics.jsonl").read_text()
    result = json.loads((uninterrupted / "result.json").read_text())
    finish(start(uninterrupted, ratings_csv))
    assert (uninterrupted / "metrics.jsonl").read_text() == before
    assert json.loads((uninterrupted / "result.json").read_text()) == result
