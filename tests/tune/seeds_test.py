"""A config is trained with several seeds, on one split, and goes on after a kill as if there was none."""

import io
import json
import math
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from settings.errors import ConfigError, DivergedError, Stopped, StorageError, UserError
from settings.trainer_config import load_trainer_config
from tests.tune.planted import LEARNING_RATE, Training, base_config, parameters, search
from trainer import config as config_lib
from trainer.evaluation.statistics import mean_of_runs, t_quantile
from trainer.tune.report import best_trial, describe_best
from trainer.tune.search import Search
from trainer.tune.seeds import describe_seeds, metrics_over_seeds, print_seeds, run_seeds
from trainer.tune.study import StudyFolder
from trainer.workdir import Workdir

TEST_VALUES = {seed: 0.5 + seed / 100 for seed in range(20)}


class SeededTraining(Training):
    """Its best validation has the planted value plus a thousandth per seed."""

    def __init__(self, failures=None, **options):
        super().__init__(failures, **options)
        self.configs, self.evaluated = [], []

    def __call__(self, config, workdir):
        self.configs.append(config)
        super().__call__(config, workdir)
        path = Workdir(workdir).metrics
        with open(path) as file:
            lines = [json.loads(line) for line in file]
        for line in lines:
            line["metrics"] = {
                name: value and value + (line["split"] == "validation") * config.seed / 1000
                for name, value in line["metrics"].items()
            }
        with open(path, "w") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)

    def evaluate(self, config, workdir):
        """Writes the test metrics of a run."""
        self.evaluated.append(os.path.basename(workdir))
        value = {"value": TEST_VALUES[config.seed], "low": 0.0, "high": None, "num_lists": 3, "num_left_out": 0}
        protocols = {"catalogue": {"model": {"ndcg@10": value}, "random": {"ndcg@10": {**value, "value": 0.1}}}}
        paths = Workdir(workdir)
        paths.save_json(paths.result, {"held_out": "test", "protocols": protocols})


def start(folder, training, *, space=(), num_trials=3, num_seeds=3, with_test=False, console=None, **fields):
    """What the command does. Returns the runs and their metrics."""
    config, study, space = base_config(**fields), StudyFolder(str(folder)), parameters(*space) if space else ()
    checked, best = load_trainer_config(config), None
    console = console or Console(file=io.StringIO(), width=200)
    searching = Search(config.to_dict(), space, study, ["--config=x"], training, console)
    study.check(checked, space)
    with study.locked():
        study.save_study(checked, space)
        if space:
            best = best_trial(searching.run(num_trials), "max")
        runs = run_seeds(searching, best, num_seeds, evaluate_fn=training.evaluate if with_test else None)
        metrics = metrics_over_seeds(searching, runs, with_test=with_test)
        described = describe_best(best, searching.base.eval, ["--config=x"])
        study.save_best({**described, "seeds": describe_seeds(runs, metrics)})
    print_seeds(console, runs, metrics)
    return runs, metrics


def test_a_config_is_trained_with_seeds_that_share_the_split(tmp_path):
    output, training = io.StringIO(), SeededTraining()
    runs, metrics = start(tmp_path, training, num_seeds=4, seed=5, console=Console(file=output, width=200))
    assert [config.seed for config in training.configs] == [5, 6, 7, 8]
    assert {config.split.seed for config in training.configs} == {5}
    assert {config_lib.data_seed(config) for config in training.configs} == {5}
    # Nothing else differs.
    others = {json.dumps({**config.model_dump(), "seed": 0}) for config in training.configs}
    assert len(others) == 1
    assert [os.path.basename(path) for path in training.workdirs] == ["0001", "0002", "0003", "0004"]
    assert not (tmp_path / "trials").exists()

    (metric,) = metrics.values()
    assert list(metrics) == ["validation mrr"]
    assert np.diff(metric.values) == pytest.approx([0.001] * 3)
    # Student's t with three degrees of freedom, and the deviation of 1, 2, 3 and 4.
    margin = 3.182446 * math.sqrt(5 / 3) / 2 / 1000
    assert (metric.low, metric.high) == pytest.approx((metric.mean - margin, metric.mean + margin), rel=1e-6)
    assert metric.standard_deviation == pytest.approx(math.sqrt(5 / 3) / 1000)
    (row,) = [line for line in output.getvalue().splitlines() if line.startswith("validation mrr")]
    assert row.split()[2:] == [
        *(f"{metric.mean:.4f}", "±", f"{margin:.4f}", "0.0013", f"{metric.values[0]:.4f}", f"{metric.values[3]:.4f}")
    ]
    record = json.loads((tmp_path / "best.json").read_text())
    assert record["trial"] is None and record["parameters"] == {} and record["flags"] == ["--config=x"]
    assert [run["seed"] for run in record["seeds"]["runs"]] == [5, 6, 7, 8]
    assert (
        record["seeds"]["metrics"]["validation mrr"]["mean"]
        == metric.mean
        == pytest.approx(np.mean([run.value for run in runs]))
    )


def test_the_best_trial_is_trained_with_other_seeds_than_its_own(tmp_path):
    training = SeededTraining()
    runs, _ = start(tmp_path, training, space=(LEARNING_RATE,), num_trials=4)
    best = best_trial(StudyFolder(str(tmp_path)).load_trials(), "max")
    assert best.parameters["optimizer.learning_rate"] != base_config().optimizer.learning_rate
    assert [run.parameters for run in runs] == [
        {**best.parameters, "seed": seed, "split.seed": 0} for seed in (1, 2, 3)
    ]
    assert [run.value - best.value for run in runs] == pytest.approx([0.001, 0.002, 0.003])
    assert [os.path.relpath(path, tmp_path) for path in training.workdirs[4:]] == [f"seeds/000{n}" for n in (1, 2, 3)]
    record = json.loads((tmp_path / "best.json").read_text())
    assert record["trial"] == best.number and record["value"] == best.value and len(record["seeds"]["runs"]) == 3


def test_a_split_seed_of_the_config_is_kept(tmp_path):
    training = SeededTraining()
    start(tmp_path, training, num_seeds=2, **{"split.seed": 9})
    assert [(config.seed, config.split.seed) for config in training.configs] == [(0, 9), (1, 9)]


@pytest.mark.parametrize("space", [(), (LEARNING_RATE,)])
@pytest.mark.parametrize("at", [1, 3])
def test_seeds_that_were_stopped_are_those_of_seeds_that_were_not(tmp_path, space, at):
    expected = start(tmp_path / "whole", SeededTraining(), space=space)
    num_before = 3 if space else 0
    stopped = SeededTraining({num_before + at: Stopped("Stopped by SIGTERM.", exit_code=143)})
    with pytest.raises(Stopped):
        start(tmp_path / "stopped", stopped, space=space)
    again = SeededTraining()
    assert start(tmp_path / "stopped", again, space=space) == expected
    assert [os.path.basename(path) for path in again.workdirs] == [f"{n:04d}" for n in range(at, 4)]
    for name in ("seeds.jsonl", "best.json"):
        assert (tmp_path / "stopped" / name).read_text() == (tmp_path / "whole" / name).read_text()
    finished = SeededTraining()
    assert start(tmp_path / "stopped", finished, space=space) == expected and not finished.workdirs


def test_more_seeds_go_on_and_another_best_trial_has_seeds_of_its_own(tmp_path):
    start(tmp_path / "grown", SeededTraining(), num_seeds=2)
    more = SeededTraining()
    assert start(tmp_path / "grown", more, num_seeds=4) == start(tmp_path / "whole", SeededTraining(), num_seeds=4)
    assert [config.seed for config in more.configs] == [2, 3]

    first, _ = start(tmp_path / "search", SeededTraining(), space=(LEARNING_RATE,), num_trials=1)
    second, _ = start(tmp_path / "search", SeededTraining(), space=(LEARNING_RATE,), num_trials=6)
    rate = "optimizer.learning_rate"
    assert {run.parameters[rate] for run in first}.isdisjoint(run.parameters[rate] for run in second)
    assert [run.number for run in first + second] == [1, 2, 3, 4, 5, 6]
    again = SeededTraining()
    assert start(tmp_path / "search", again, space=(LEARNING_RATE,), num_trials=6)[0] == second and not again.workdirs


def test_test_metrics_are_those_of_the_model_and_each_run_is_evaluated_once(tmp_path):
    training = SeededTraining()
    _, metrics = start(tmp_path, training, with_test=True)
    assert list(metrics) == ["validation mrr", "test catalogue/ndcg@10"]
    assert metrics["test catalogue/ndcg@10"].values == pytest.approx((0.5, 0.51, 0.52))
    assert training.evaluated == ["0001", "0002", "0003"]
    start(tmp_path, training, with_test=True, num_seeds=4)
    assert training.evaluated == ["0001", "0002", "0003", "0004"]


def test_a_seed_that_fails_is_left_out_and_named(tmp_path):
    output = io.StringIO()
    training = SeededTraining({2: DivergedError("Training diverged.")})
    runs, metrics = start(tmp_path, training, with_test=True, console=Console(file=output, width=200))
    assert [run.state for run in runs] == ["finished", "failed", "finished"]
    assert len(metrics["validation mrr"].values) == len(metrics["test catalogue/ndcg@10"].values) == 2
    assert "Seed 1 failed: Training diverged." in output.getvalue()
    assert "Over 2 seeds, without 1 that failed" in output.getvalue()
    diverged = {call: DivergedError("Training diverged.") for call in (1, 2, 3)}
    with pytest.raises(UserError, match=r"All 3 seeds have failed\. Training diverged\."):
        start(tmp_path / "all", SeededTraining(diverged))


def test_data_that_has_changed_since_the_search_is_refused(tmp_path):
    search(tmp_path, SeededTraining(), space=(LEARNING_RATE,), num_trials=3)
    other = SeededTraining(fingerprint="e" * 64)
    with pytest.raises(ConfigError, match="the fingerprint of its vocabulary was ffff"):
        start(tmp_path, other, space=(LEARNING_RATE,))


def test_a_record_of_seeds_without_its_search_is_refused(tmp_path):
    start(tmp_path, SeededTraining())
    (tmp_path / "study.json").unlink()
    with pytest.raises(StorageError, match=r"study\.json is missing.*seeds\.jsonl"):
        start(tmp_path, SeededTraining())


def test_the_quantiles_of_students_t_are_those_of_the_tables():
    expected = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 9: 2.2622, 10: 2.2281, 29: 2.0452, 1000: 1.9623}
    assert {num: round(t_quantile(num), 4) for num in expected} == expected


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8), st.floats(0.1, 10), st.floats(-5, 5))
def test_an_interval_moves_and_grows_with_its_values(values, factor, shift):
    mean, low, high = mean_of_runs(values)
    assert low <= mean <= high and mean == pytest.approx(np.mean(values))
    changed = mean_of_runs([factor * value + shift for value in values])
    assert changed == pytest.approx([factor * number + shift for number in (mean, low, high)], abs=1e-9)


def test_a_single_run_has_no_interval():
    mean, low, high = mean_of_runs([0.25])
    assert mean == 0.25 and math.isnan(low) and math.isnan(high)


def test_the_interval_holds_the_true_mean_in_95_of_100_samples():
    rng = np.random.default_rng(0)
    hits = 0
    for sample in rng.normal(3.0, 2.0, [2000, 4]):
        _, low, high = mean_of_runs(sample)
        hits += low <= 3.0 <= high
    assert 1860 < hits < 1940  # 1900 expected, with a standard deviation of 10.


def test_a_stopped_seed_of_another_trial_keeps_its_folder(tmp_path):
    with pytest.raises(Stopped):
        start(tmp_path, SeededTraining({2: Stopped("Stopped.", exit_code=143)}), space=(LEARNING_RATE,), num_trials=1)
    runs, _ = start(tmp_path, SeededTraining(), space=(LEARNING_RATE,), num_trials=6)
    assert [(run.number, run.state) for run in runs] == [(2, "finished"), (3, "finished"), (4, "finished")]
