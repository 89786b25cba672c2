"""A worker that is killed, frozen or stuck ends the job, which starts again by itself and trains the same model."""

import signal
import sys

import pytest

from launch import local
from tests.conftest import REPOSITORY
from tests.launch import jobs
from tests.reliability.runs import digest_of_tensors

pytestmark = pytest.mark.reliability


@pytest.fixture(scope="module")
def undisturbed(runs, tmp_path_factory):
    """The tensors of a job to which nothing happens."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    runs.finish(workdir, "two workers", fields=jobs.FIELDS)
    return digest_of_tensors(workdir)


# What happens to a worker, and the two ways in which the launcher can learn of it.
LOSSES = {
    "worker 1 is killed": (1, signal.SIGKILL, "worker 1 was killed (SIGKILL)"),
    "worker 0 is frozen": (0, signal.SIGSTOP, "worker 1 failed (75)"),
}


@pytest.mark.promise(6, "lost workers", "jobs end within a minute, start again and end with the same weights")
@pytest.mark.parametrize(("index", "number", "reason"), LOSSES.values(), ids=LOSSES)
def test_a_job_starts_again_by_itself(tmp_path, ratings_csv, undisturbed, index, number, reason):
    workdir = tmp_path / "run"
    with jobs.job(workdir, ratings_csv, "--max_restarts=1") as job:
        job.wait_for_step(50)
        job.send(index, number)
        assert job.wait_for_output("Restart 1 of 1.") < 60
        end = job.wait()
    assert end.exit_code == 0, end.output
    assert f"launch | {reason}. Restart 1 of 1.\n" in end.output
    assert "Traceback" not in end.output
    assert digest_of_tensors(workdir) == undisturbed


# The trainer, whose worker 1 hangs once, between two calls, and stays alive.
STUCK_WORKER = """
import json, os, pathlib, runpy, sys, time
from trainer.training import loop

train = loop.Trainer.train
hung = pathlib.Path(os.environ["HUNG"])

def train_and_hang(self, begin, end):
    if begin >= 60 and json.loads(os.environ["TF_CONFIG"])["task"]["index"] == 1 and not hung.exists():
        hung.touch()
        time.sleep(600)
    train(self, begin, end)

loop.Trainer.train = train_and_hang
runpy.run_module("trainer.main", run_name="__main__", alter_sys=True)
"""


@pytest.mark.promise(6, "lost workers", "jobs end within a minute, start again and end with the same weights")
def test_a_worker_that_is_alive_and_stuck_is_ended_by_the_watchdog(
    tmp_path, ratings_csv, undisturbed, monkeypatch, capfd
):
    """Worker 0 hangs in TensorFlow, where it waits for worker 1."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("HUNG", str(tmp_path / "hung"))
    # Longer than it takes to compile on a busy machine.
    fields = {"data.source": ratings_csv, **jobs.FIELDS, "train.stall_timeout_seconds": 40}
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    command = [sys.executable, "-c", STUCK_WORKER, "--strategy=multi_worker_mirrored", f"--workdir={tmp_path / 'run'}"]
    assert local.train([*command, *flags], 2, max_restarts=1) == 0
    output = capfd.readouterr().out
    assert (tmp_path / "hung").exists()
    assert "error: The run has made no progress for 40 s" in output and "Restart 1 of 1." in output
    assert "in train_and_hang" in output or "in quick_execute" in output
    assert digest_of_tensors(tmp_path / "run") == undisturbed
