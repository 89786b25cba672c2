"""The command, in a process of its own."""

import functools
import json
import os
import subprocess
import sys

import pytest

from configs import tutorial
from tests.conftest import REPOSITORY
from tests.training.tensorboard_sink_test import hparams_data
from tests.tune.planted import LEARNING_RATE
from trainer.tune.study import StudyFolder


@functools.cache
def environment():
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def run_command(*flags, cwd):
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "trainer.tune", *flags],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--workdir=never_made", "--space=missing.py"], "--space=missing.py cannot be loaded"),
        (["--workdir=never_made", "--space=space.py", "--config.seed=-1"], "config.seed=-1 cannot be used"),
        (["--workdir=never_made", "--space=space.py", "--num_trials=0"], "num_trials"),
        (["--workdir=never_made"], "Set --space to the file with the fields to vary, or set --num_seeds"),
        (["--workdir=never_made", "--num_seeds=1"], "--num_seeds=1 cannot be used: it has to be at least 2"),
        (["--workdir=never_made", "--num_seeds=2", "--num_trials=3"], "--num_trials is only used with --space"),
        (["--workdir=never_made", "--space=space.py", "--strategy=multi_worker_mirrored"], "strategy"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_paragraph(tmp_path, flags, says):
    (tmp_path / "space.py").write_text(f"def get_space():\n    return ({LEARNING_RATE!r},)\n")
    result = run_command(*flags, cwd=tmp_path)
    lines = result.stderr.splitlines()
    imports = [line for line in lines if line.startswith("import time:")]
    assert imports and not any(line.endswith(" tensorflow") for line in imports)
    (paragraph,) = [line for line in lines if line not in imports]
    assert result.returncode == 78 and paragraph.startswith("error: ") and says in paragraph
    assert [path.name for path in tmp_path.iterdir()] == ["space.py"]


@pytest.mark.slow
@pytest.mark.long
def test_the_command_trains_the_trials_and_evaluates_only_the_best_on_the_test_split(tmp_path, ratings_csv):
    """Of two learning rates one learns nothing."""
    (tmp_path / "space.py").write_text(
        "def get_space():\n    return ({'field': 'optimizer.learning_rate', 'values': (1e-6, 0.5)},)\n"
    )
    fields = {
        "data.source": ratings_csv,
        "data.item_identity": "item_id",
        "split.method": "random",
        "list_size": 12,
        "model.embedding_size": 8,
        "train.global_batch_size": 8,
        "train.num_epochs": 2,
        "train.early_stopping_patience": 0,
        "optimizer.learning_rate": 1e-6,
        "eval.metrics": "('ndcg@5',)",
        "eval.best_metric": "ndcg@5",
        "eval.num_sample_users": 0,
    }
    overrides = [f"--config.{name}={value}" for name, value in fields.items()]
    command = [
        f"--config={tutorial.__file__}",
        *overrides,
        "--space=space.py",
        "--workdir=search",
        "--num_trials=5",
        "--evaluate_best",
        "--num_seeds=2",
    ]
    result = run_command(*command, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "no values that were not tried" in result.stdout and "--config.optimizer.learning_rate=0.5" in result.stdout

    study = StudyFolder(str(tmp_path / "search"))
    worst, best = study.load_trials()
    assert best.parameters == {"optimizer.learning_rate": 0.5} and best.value > worst.value + 0.02
    folders = [tmp_path / "search" / "trials" / name for name in ("0001", "0002")]
    for folder, trial in zip(folders, (worst, best), strict=True):
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        values = [line["metrics"]["ndcg@5"] for line in lines if line["split"] == "validation"]
        assert len(values) == 2 and max(values) == trial.value
        is_best = trial is best
        assert ("test" in {line["split"] for line in lines}) == is_best
        assert (folder / "result.json").exists() == (folder / "model").exists() == is_best
        # The HParams tab of search/trials has each trial once.
        started = hparams_data(folder / "logs", "session_start_info").session_start_info.hparams
        assert started["optimizer.learning_rate"].number_value == trial.parameters["optimizer.learning_rate"]

    # The best trial with two other seeds, on the same ratings and the same split.
    record = json.loads((tmp_path / "search" / "best.json").read_text())
    assert record["trial"] == 2 and [run["seed"] for run in record["seeds"]["runs"]] == [1, 2]
    expected = json.loads((folders[1] / "data.json").read_text())["fingerprints"]
    values = []
    for name in ("0001", "0002"):
        folder = tmp_path / "search" / "seeds" / name
        assert json.loads((folder / "data.json").read_text())["fingerprints"] == expected
        result = json.loads((folder / "result.json").read_text())
        values.append(result["protocols"]["rated"]["model"]["ndcg@5"]["value"])
    assert record["seeds"]["metrics"]["test rated/ndcg@5"]["values"] == values

    again = run_command(*command, cwd=tmp_path)
    assert again.returncode == 0 and "This run is finished" in again.stdout and "Trial 1 of" not in again.stdout
    assert "Over 2 seeds" in again.stdout and "Seed 1 (" not in again.stdout
