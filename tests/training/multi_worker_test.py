"""Two real processes on loopback train what one does."""

import collections
import json
import pathlib
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest

from configs import default
from launch import processes
from settings.cluster import Cluster, format_cluster_spec, format_tf_config
from tests.conftest import REPOSITORY, train
from tests.launch.jobs import network_flags

FIELDS = {
    "list_size": 12,
    "model.embedding_size": 8,
    "train.global_batch_size": 8,
    "train.num_epochs": 3,
    "train.steps_per_execution": 4,
    # With a schedule that depends on the last step, a resumed run could not have more epochs.
    "optimizer.schedule": "constant",
    "eval.metrics": ("ndcg@5",),
    "eval.best_metric": "catalogue/ndcg@5",
}


@pytest.fixture
def config_flags(ratings_csv) -> list[str]:
    return [f"--config.{name}={value}" for name, value in {"data.source": ratings_csv, **FIELDS}.items()]


@pytest.fixture(scope="module")
def alone(tmp_path_factory, ratings_csv) -> pathlib.Path:
    """What one process leaves."""
    config = default.get_config()
    config.update_from_flattened_dict({"data.source": ratings_csv, **FIELDS})
    workdir = tmp_path_factory.mktemp("alone") / "run"
    assert train(config, workdir) == 0
    return workdir


def curve(workdir: pathlib.Path) -> list[tuple[int, str, float, float]]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [
        (line["step"], line["split"], line["metrics"]["loss"], line["metrics"].get("catalogue/ndcg@5", 0.0))
        for line in lines
        if line["split"] != "test"
    ]


def files(workdir: pathlib.Path) -> collections.Counter[str]:
    """How many of each it left but the report; who wrote TensorBoard's, and when, is no matter."""
    paths = [str(path.relative_to(workdir)) for path in workdir.rglob("*") if path.is_file()]
    paths = [path for path in paths if path != "report.html"]  # Runs in this process write none.
    return collections.Counter(path.partition("tfevents")[0] for path in paths)


def assert_same_curve(together: pathlib.Path, alone: pathlib.Path) -> None:
    actual, expected = curve(together), curve(alone)
    assert [line[:2] for line in actual] == [line[:2] for line in expected] and len(expected) == 6
    np.testing.assert_allclose([line[2:] for line in actual], [line[2:] for line in expected], rtol=1e-4)


def assert_same_run(together: pathlib.Path, alone: pathlib.Path) -> None:
    assert_same_curve(together, alone)
    assert files(together) == files(alone)
    assert (together / "model" / "saved_model.pb").exists()


def assert_only_the_chief_speaks(output: str, chief: str, other: str) -> None:
    """The chief prints the metrics; the other worker prints none."""
    lines = {name: [line for line in output.splitlines() if line.startswith(f"{name} ")] for name in (chief, other)}
    assert any("2 replicas" in line for line in lines[chief]), output
    assert any("epoch" in line for line in lines[chief])
    assert not any("epoch" in line for line in lines[other])


@pytest.mark.slow
def test_two_workers_give_the_loss_curve_of_one_process(tmp_path, config_flags, alone):
    together = tmp_path / "together"
    launched = subprocess.run(
        [
            sys.executable,
            *("-m", "launch.local", "--num_workers=2", *network_flags(), "--", f"--workdir={together}"),
            *config_flags,
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert launched.returncode == 0, launched.stdout + launched.stderr
    assert_same_run(together, alone)
    assert_only_the_chief_speaks(launched.stdout, "worker 0", "worker 1")


@pytest.mark.slow
@pytest.mark.long
def test_a_chief_and_a_worker_of_vertex_ai_do_too(tmp_path, config_flags, alone, capfd, monkeypatch):
    """Environment as Vertex AI makes it; the workdir is the job's base output directory."""
    base = tmp_path / "base"
    with socket.create_server(("", 0)) as first, socket.create_server(("", 0)) as second:
        chief, worker = (f"127.0.0.1:{each.getsockname()[1]}" for each in (first, second))
    cluster = Cluster({"chief": [chief], "worker": [worker]})
    workers = []
    for task in cluster.tasks:
        tf_config = {
            # As which it may list a reduction server, which does not train.
            "cluster": {"chief": [chief], "worker": [worker], "ps": ["127.0.0.1:9"]},
            "environment": "cloud",
            "job": "{}",
            "task": {"cloud": "w1234567890abcdef-tp", "index": task.index, "trial": "", "type": task.type},
        }
        environment = {
            "TF_CONFIG": json.dumps(tf_config),
            "CLUSTER_SPEC": format_cluster_spec(cluster, task),
            "AIP_MODEL_DIR": f"{base}/model/",
            "AIP_CHECKPOINT_DIR": f"{base}/checkpoints/",
            "AIP_TENSORBOARD_LOG_DIR": f"{base}/logs/",
        }
        command = [sys.executable, "-m", "trainer.main", "--strategy=multi_worker_mirrored", *config_flags]
        workers.append(processes.Worker(str(task), command, environment))
    monkeypatch.chdir(REPOSITORY)
    assert processes.run(workers).exit_code == 0, capfd.readouterr().out
    assert_same_run(base, alone)
    assert_only_the_chief_speaks(capfd.readouterr().out, "chief 0", "worker 0")


# The trainer, which sends itself a signal after the call that takes step 12: steps 11 to 14.
STOPPED_WORKER = """
import os, runpy, signal, sys
from trainer.training import loop

train = loop.Trainer.train

def train_and_stop(self, begin, end):
    train(self, begin, end)
    if begin < 12 <= end:
        os.kill(os.getpid(), signal.SIGTERM)

loop.Trainer.train = train_and_stop
runpy.run_module("trainer.main", run_name="__main__", alter_sys=True)
"""


def workers_of(commands: list[list[str]]) -> list[processes.Worker]:
    with socket.create_server(("", 0)) as first, socket.create_server(("", 0)) as second:
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in (first, second)]
    cluster = Cluster({"worker": addresses})
    return [
        processes.Worker(str(task), [*commands[task.index]], {"TF_CONFIG": format_tf_config(cluster, task)})
        for task in cluster.tasks
    ]


@pytest.mark.slow
@pytest.mark.long
def test_a_signal_to_one_worker_is_saved_by_all_and_the_rerun_ends_as_one_process(
    tmp_path, config_flags, alone, capfd, monkeypatch
):
    together = tmp_path / "together"
    flags = ["--strategy=multi_worker_mirrored", f"--workdir={together}", *config_flags]
    whole = [sys.executable, "-m", "trainer.main", *flags]
    monkeypatch.chdir(REPOSITORY)
    outcome = processes.run(workers_of([whole, [sys.executable, "-c", STOPPED_WORKER, *flags]]))
    output = capfd.readouterr().out
    assert outcome.exit_code == 143, output
    for worker in ("0", "1"):
        assert any(
            line.startswith(f"worker {worker} ") and "Stopped by SIGTERM after step 14; it is saved" in line
            for line in output.splitlines()
        ), output
    assert (together / "checkpoints" / "step-00000014.json").exists()
    assert processes.run(workers_of([whole, whole])).exit_code == 0
    assert "Resuming after step 14." in capfd.readouterr().out
    assert_same_curve(together, alone)


@pytest.mark.slow
@pytest.mark.promise(15, "workers that differ", "jobs trained nothing")
@pytest.mark.parametrize("what", ["workdir", pytest.param("ratings", marks=pytest.mark.long)])
def test_workers_that_differ_are_named_and_none_of_them_trains(
    tmp_path, config_flags, alone, ratings_csv, capfd, monkeypatch, what
):
    """Worker 1 has a folder of its own, so it would start at step 0, or has other ratings."""
    resumed = tmp_path / "resumed"
    shutil.copytree(alone, resumed)
    before = {path: path.read_bytes() for path in resumed.rglob("*") if path.is_file() and path.name != ".lock"}
    other_csv = tmp_path / "ratings.csv"
    lines = pathlib.Path(ratings_csv).read_text().splitlines(keepends=True)
    other_csv.write_text("".join(lines[:-3]))
    flags = {
        "workdir": {0: [f"--workdir={resumed}"], 1: [f"--workdir={tmp_path / 'elsewhere'}"]},
        "ratings": {
            0: [f"--workdir={tmp_path / 'new'}"],
            1: [f"--workdir={tmp_path / 'new'}", f"--config.data.source={other_csv}"],
        },
    }[what]
    command = [sys.executable, "-m", "trainer.main", "--strategy=multi_worker_mirrored", *config_flags]
    more = ["--config.train.num_epochs=4"] if what == "workdir" else []
    workers = workers_of([[*command, *more, *flags[index]] for index in (0, 1)])
    monkeypatch.chdir(REPOSITORY)
    outcome = processes.run(workers)
    output = capfd.readouterr().out
    assert outcome.exit_code == 78, output
    (line, *_) = [line for line in output.splitlines() if "The workers" in line]
    assert "worker 1 has" in line
    differing = (
        ("step '0' instead of '30'", "checkpoint 'none'") if what == "workdir" else ("fingerprint of train lists",)
    )
    assert all(text in line for text in differing)
    assert before == {p: p.read_bytes() for p in resumed.rglob("*") if p.is_file() and p.name != ".lock"}
    assert not (tmp_path / "elsewhere" / "checkpoints").exists() and not (tmp_path / "new" / "checkpoints").exists()
