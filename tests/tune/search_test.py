"""A search finds a planted optimum, and goes on after a kill as if there was none."""

import io
import itertools
import json
import os

import pytest
from rich.console import Console

from launch.trainer_flags import read_trainer_flags
from settings.errors import ConfigError, DataError, DivergedError, Stopped, StorageError
from tests.tune.planted import LEARNING_RATE, Training, base_config, parameters, planted_value, search
from trainer.tune.sampling import contains
from trainer.tune.search import OutOfMemoryError, best_validation
from trainer.tune.study import StudyFolder
from trainer.workdir import Workdir


def test_the_best_trial_is_found_and_recorded(tmp_path):
    output = io.StringIO()
    trials = search(tmp_path, Training(), num_trials=12, console=Console(file=output, width=200))
    for trial in trials:
        assert trial.state == "finished" and (trial.step, trial.epoch) == (20, 2.0)
        assert trial.value == pytest.approx(planted_value(trial.parameters))
    assert {contains(p, trial.parameters[p.field]) for p in parameters() for trial in trials} == {True}
    # The first trial is the config as it is.
    assert trials[0].parameters["optimizer.learning_rate"] == base_config().optimizer.learning_rate

    lines = [json.loads(line) for line in (tmp_path / "trials.jsonl").read_text().splitlines()]
    assert [line["value"] for line in lines] == [trial.value for trial in trials]
    best = max(trials, key=lambda trial: trial.value)
    assert best.value > 1.2 * trials[0].value
    record = json.loads((tmp_path / "best.json").read_text())
    assert record["trial"] == best.number and record["value"] == best.value and record["metric"] == "mrr"

    # The flags give the config of the trial, in full.
    expected = Workdir(str(tmp_path / "trials" / f"{best.number:04d}")).load_config()
    assert read_trainer_flags(record["flags"]).config == expected

    # The last table has all trials, best first; the one before has the best ten.
    *_, before, last = output.getvalue().split("Trials by their best validation mrr")
    assert "10 of 11" in before.splitlines()[0]
    assert sum(line.split()[:1] != ["Trial"] for line in before.splitlines()[2:] if line.strip()) == 10
    numbers = [int(line.split()[0]) for line in last.splitlines()[2:] if line.strip()]
    assert numbers == [trial.number for trial in sorted(trials, key=lambda trial: -trial.value)]


def test_a_loss_is_minimized(tmp_path):
    fields = {"eval.best_metric": "loss", "eval.best_direction": "min"}
    trials = search(tmp_path, Training(), space=(LEARNING_RATE,), num_trials=8, **fields)
    # The first validation of a trial has half the loss of the second.
    assert {trial.step for trial in trials} == {10}
    best = min(trials, key=lambda trial: trial.value)
    assert json.loads((tmp_path / "best.json").read_text())["trial"] == best.number != 1


@pytest.mark.parametrize("num_before", [2, 4, 5])
def test_a_search_that_was_stopped_has_the_trials_of_one_that_was_not(tmp_path, num_before):
    expected = search(tmp_path / "whole", Training())
    stopped = Training({num_before: Stopped("Stopped by SIGTERM.", exit_code=143)})
    with pytest.raises(Stopped):
        search(tmp_path / "stopped", stopped)
    fewer = Training()
    assert len(search(tmp_path / "stopped", fewer, num_trials=num_before - 1)) == num_before
    assert not fewer.workdirs
    unfinished = json.loads((tmp_path / "stopped" / "trials.jsonl").read_text().splitlines()[-1])
    assert unfinished["state"] == "running" and unfinished["number"] == num_before

    again = Training()
    assert search(tmp_path / "stopped", again) == expected
    # The unfinished trial goes on in its workdir. The finished ones are not repeated.
    assert [os.path.basename(path) for path in again.workdirs] == [f"{n:04d}" for n in range(num_before, 7)]
    for name in ("trials.jsonl", "best.json"):
        assert (tmp_path / "stopped" / name).read_text() == (tmp_path / "whole" / name).read_text()


def test_a_search_that_was_killed_after_a_trial_does_not_repeat_it_in_another_workdir(tmp_path, monkeypatch):
    """The trial has ended, and its record has not."""
    expected = search(tmp_path / "whole", Training())
    save, saves = StudyFolder.save_trials, itertools.count()

    def save_or_die(self, trials):
        if next(saves) == 5:
            raise KeyboardInterrupt
        save(self, trials)

    monkeypatch.setattr(StudyFolder, "save_trials", save_or_die)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "killed", Training())
    again = Training()
    assert search(tmp_path / "killed", again) == expected
    assert [os.path.basename(path) for path in again.workdirs] == ["0003", "0004", "0005", "0006"]


def test_more_trials_go_on_and_fewer_change_nothing(tmp_path):
    first = search(tmp_path / "grown", Training(), num_trials=3)
    again = Training()
    assert search(tmp_path / "grown", again, num_trials=2) == first and not again.workdirs
    assert search(tmp_path / "grown", again, num_trials=6) == search(tmp_path / "whole", Training(), num_trials=6)
    assert len(again.workdirs) == 3


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (DivergedError("Training diverged."), "Training diverged."),
        (OutOfMemoryError("The device is out of memory."), "out of memory"),
        (ConfigError("config.train.global_batch_size=65 cannot be divided"), "cannot be divided"),
    ],
)
def test_a_trial_that_fails_is_recorded_and_the_search_goes_on(tmp_path, failure, reason):
    output = io.StringIO()
    trials = search(tmp_path, Training({3: failure}), console=Console(file=output, width=300))
    assert [trial.state for trial in trials] == ["finished"] * 2 + ["failed"] + ["finished"] * 3
    assert reason in trials[2].reason and trials[2].value is None
    last = output.getvalue().strip().splitlines()[-1]
    assert last.split()[0] == "3" and "failed" in last and reason in last


def test_a_trial_without_a_finite_validation_has_failed(tmp_path):
    def train(config, workdir):
        Training()(config, workdir)
        if workdir.endswith("2"):
            path = Workdir(workdir).metrics
            line = {"step": 1, "epoch": 1.0, "split": "validation", "metrics": {"mrr": None}}
            with open(path, "w") as file:
                file.write(json.dumps(line) + "\n")

    trials = search(tmp_path, train, num_trials=3)
    assert [trial.state for trial in trials] == ["finished", "failed", "finished"]
    assert "finite mrr" in trials[1].reason


@pytest.mark.parametrize(
    ("call", "failure"),
    [(1, ConfigError("no such source")), (3, DataError("bad rows")), (3, StorageError("the disk is full"))],
)
def test_what_would_fail_every_trial_stops_the_search(tmp_path, call, failure):
    training = Training({call: failure})
    with pytest.raises(type(failure), match=str(failure)):
        search(tmp_path, training)
    assert len(training.workdirs) == call
    assert search(tmp_path, Training()) == search(tmp_path / "whole", Training())


def test_a_trial_that_could_start_is_not_failed_by_a_workdir_that_is_refused(tmp_path):
    with pytest.raises(Stopped):
        search(tmp_path, Training({3: Stopped("Stopped.", exit_code=143)}))
    with pytest.raises(ConfigError, match="other data"):
        search(tmp_path, Training({1: ConfigError("holds a run on other data")}))
    assert search(tmp_path, Training())[2].state == "finished"


def test_trials_on_other_data_are_not_compared(tmp_path):
    search(tmp_path, Training(), num_trials=2)
    with pytest.raises(ConfigError, match="the fingerprint of its vocabulary was ffff"):
        search(tmp_path, Training(fingerprint="e" * 64), num_trials=3)


def test_the_best_validation_is_the_first_of_equal_ones(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [("validation", 0.1), ("validation", 0.4), ("train", 0.9), ("validation", None), ("validation", 0.4)]
    lines = [
        {"step": step, "epoch": step / 2, "split": split, "metrics": {"mrr": value}}
        for step, (split, value) in enumerate(rows)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert best_validation(str(path), "mrr", "max") == {"value": 0.4, "step": 1, "epoch": 0.5}
    assert best_validation(str(path), "mrr", "min") == {"value": 0.1, "step": 0, "epoch": 0.0}
    assert best_validation(str(path), "ndcg", "max") is None
    path.write_text("{")
    with pytest.raises(StorageError, match=r"metrics\.jsonl"):
        best_validation(str(path), "mrr", "max")
