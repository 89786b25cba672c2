"""A run that is started again after some of its files were lost, damaged or changed."""

import json
import pathlib
import shutil

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from settings.errors import ConfigError, StorageError
from tests.conftest import train
from tests.training.checkpoint_run import flip_bit
from trainer import strategy as strategy_lib

BEST, LAST = 10, 40


@pytest.fixture
def config(tiny_config):
    """The highest loss counts as the best, so the best checkpoint is the first one."""
    tiny_config.train.keep_checkpoints = 9
    tiny_config.train.early_stopping_patience = 0
    tiny_config.eval.best_metric = "loss"
    tiny_config.eval.best_direction = "max"
    return tiny_config


@pytest.fixture(scope="module")
def finished_runs():
    """The workdir of the finished run, once there is one."""
    return []


@pytest.fixture
def workdir(config, tmp_path, finished_runs, tmp_path_factory):
    """A copy of the workdir of a finished run of 4 epochs of 10 steps."""
    if not finished_runs:
        finished = tmp_path_factory.mktemp("finished") / "run"
        train(config, finished)
        finished_runs.append(finished)
    shutil.copytree(finished_runs[0], tmp_path / "run")
    return tmp_path / "run"


def contents_of(workdir: pathlib.Path) -> dict[str, bytes]:
    files = [path for path in workdir.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(workdir)): path.read_bytes() for path in files}


def read_json(path: pathlib.Path) -> dict:
    return json.loads(path.read_text())


def validation_losses(workdir: pathlib.Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["metrics"]["loss"] for line in lines if line["split"] == "validation"}


def remove_manifests(workdir: pathlib.Path) -> None:
    for path in workdir.glob("checkpoints/*.json"):
        path.unlink()


def remove_checkpoints(workdir: pathlib.Path) -> None:
    shutil.rmtree(workdir / "checkpoints")


def remove_config(workdir: pathlib.Path) -> None:
    (workdir / "config.json").unlink()


def remove_data(workdir: pathlib.Path) -> None:
    (workdir / "data.json").unlink()


@pytest.mark.parametrize(
    ("lose", "says"),
    [
        (remove_manifests, "step-00000040.json is missing"),
        (remove_checkpoints, "had saved checkpoints"),
        (remove_config, "no config.json"),
        (remove_data, "data.json is missing"),
    ],
)
def test_a_run_that_lost_what_it_needs_stops_and_nothing_is_changed(config, workdir, lose, says):
    lose(workdir)
    before = contents_of(workdir)
    for _ in range(2):
        with pytest.raises(StorageError, match=says):
            train(config, workdir)
    assert contents_of(workdir) == before


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_again(config, workdir):
    """The metrics of steps that were never saved are replaced."""
    shutil.rmtree(workdir / "checkpoints")
    (workdir / "result.json").unlink()
    record = read_json(workdir / "config.json")
    (workdir / "config.json").write_text(json.dumps({**record, "has_checkpoint": False}))
    config.train.num_epochs = 1
    train(config, workdir)
    assert list(validation_losses(workdir)) == [10]
    assert [path.name for path in workdir.glob("checkpoints/*.json")] == ["step-00000010.json"]


def test_the_run_ends_with_the_next_best_checkpoint_if_the_best_is_damaged(config, workdir):
    losses = validation_losses(workdir)
    assert read_json(workdir / "result.json")["exported_step"] == BEST
    (workdir / "result.json").unlink()  # It was killed before the end.
    flip_bit(str(workdir / "checkpoints" / f"step-{BEST:08d}.index"))
    train(config, workdir)
    result = read_json(workdir / "result.json")
    best, next_best, *_ = sorted(losses, key=losses.__getitem__, reverse=True)
    assert best == BEST and next_best != LAST
    assert (result["step"], result["exported_step"]) == (LAST, next_best)
    assert (workdir / "checkpoints" / "damaged" / f"step-{BEST:08d}.json").exists()


def test_a_finished_run_with_a_metric_that_is_not_finite_can_be_started_again(config, workdir, capsys):
    result = read_json(workdir / "result.json")
    metric = result["protocols"]["rated"]["model"]["mrr"]
    metric.update(value=None, low=None, high=None)
    result["train"] = dict.fromkeys(result["train"])
    for held_out in ("test", None):
        (workdir / "result.json").write_text(json.dumps({**result, "held_out": held_out}))
        before = contents_of(workdir)
        assert train(config, workdir) == 0
        assert "nan" in capsys.readouterr().out
        assert contents_of(workdir) == before


def test_fewer_epochs_than_were_trained_are_refused(config, workdir):
    before = contents_of(workdir)
    config.train.num_epochs = 3
    with pytest.raises(ConfigError, match=r"num_epochs=3 cannot be used.*already trained for 4 epochs \(40 steps\)"):
        train(config, workdir)
    assert contents_of(workdir) == before


def test_more_epochs_are_recorded_everywhere(config, workdir):
    config.train.num_epochs = 5
    train(config, workdir)
    assert read_json(workdir / "config.json")["config"]["train"]["num_epochs"] == 5
    reader = EventAccumulator(str(workdir / "logs"))
    reader.Reload()
    content = reader.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    started = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert started.hparams["train.num_epochs"].number_value == 5
    assert list(validation_losses(workdir)) == [10, 20, 30, 40, 50]
    assert '"split": "test"' in (workdir / "metrics.jsonl").read_text().splitlines()[-1]
    assert (workdir / "metrics.jsonl").read_text().count('"split": "test"') == 1


def test_another_strategy_is_recorded_and_reported(config, workdir, monkeypatch, capsys):
    build = strategy_lib.build_strategy
    monkeypatch.setattr(strategy_lib, "build_strategy", lambda name, **options: build("default", **options))
    config.train.num_epochs = 5
    train(config, workdir, "mirrored")
    assert read_json(workdir / "config.json")["runs"] == [
        {"strategy": "default", "num_replicas": 1, "first_step": 0},
        {"strategy": "mirrored", "num_replicas": 1, "first_step": 40},
    ]
    assert "before step 40 were taken with the default strategy on 1 replica." in capsys.readouterr().out


def test_a_workdir_of_the_first_version_is_refused_and_nothing_is_changed(config, workdir):
    record = read_json(workdir / "config.json")
    (workdir / "config.json").write_text(json.dumps(record["config"]))
    before = contents_of(workdir)
    with pytest.raises(ConfigError, match=r"earlier version of this project \(format 1"):
        train(config, workdir)
    assert contents_of(workdir) == before
