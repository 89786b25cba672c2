"""Two real processes on loopback train what one does."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import REPOSITORY


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def start(workdir: pathlib.Path, ratings_csv: str, strategy: str, environment: dict[str, str]) -> subprocess.Popen:
    fields = {
        "data.source": ratings_csv,
        "list_size": 12,
        "model.embedding_size": 8,
        "train.global_batch_size": 8,
        "train.num_epochs": 3,
        "train.steps_per_call": 4,
        "eval.metrics": "('ndcg@5',)",
        "eval.best_metric": "ndcg@5",
    }
    return subprocess.Popen(
        [
            sys.executable,
            *("-m", "trainer.main", f"--strategy={strategy}", f"--workdir={workdir}"),
            *(f"--config.{name}={value}" for name, value in fields.items()),
        ],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def curve(workdir: pathlib.Path) -> list[tuple[int, str, float, float]]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [
        (line["step"], line["split"], line["metrics"]["loss"], line["metrics"]["ndcg@5"])
        for line in lines
        if line["split"] != "test"
    ]


@pytest.mark.slow
def test_two_workers_give_the_loss_curve_of_one_process(tmp_path, ratings_csv):
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    together, alone = tmp_path / "together", tmp_path / "alone"
    processes = [
        start(
            together,
            ratings_csv,
            "multi_worker_mirrored",
            {"TF_CONFIG": json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}})},
        )
        for index in range(2)
    ]
    processes.append(start(alone, ratings_csv, "default", {}))
    try:
        outputs = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0, 0], "\n".join(outputs)

    actual, expected = curve(together), curve(alone)
    assert [line[:2] for line in actual] == [line[:2] for line in expected] and len(expected) == 6
    np.testing.assert_allclose([line[2:] for line in actual], [line[2:] for line in expected], rtol=1e-4)
    assert "2 replicas" in outputs[0]
    # The second worker prints no figures and leaves nothing.
    assert "epoch" not in outputs[1]
    assert {path.name for path in together.rglob("*.tmp")} == set()
    assert {path.name for path in together.iterdir()} == {path.name for path in alone.iterdir()}
    assert (together / "model" / "saved_model.pb").exists()
