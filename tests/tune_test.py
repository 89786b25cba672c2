"""A search finds a planted optimum, goes on after a kill as if there was none, and refuses a space before it trains."""

import functools
import io
import itertools
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from configs import default
from launch.trainer_flags import read_trainer_flags
from settings.errors import ConfigError, DataError, DivergedError, Stopped, StorageError
from settings.search_space import SearchParameter, sample_trials
from settings.trainer_config import load_trainer_config
from tests.conftest import REPOSITORY
from trainer.tune.sampling import contains, suggest
from trainer.tune.search import OutOfMemoryError, Search, best_validation
from trainer.tune.space import check_space, load_space
from trainer.tune.study import StudyFolder, Trial
from trainer.workdir import Workdir

LEARNING_RATE = {"field": "optimizer.learning_rate", "range": (0.0001, 1.0), "scale": "log"}
LOSS = {"field": "loss.key", "values": ("softmax_loss", "approx_ndcg_loss", "list_mle_loss")}
HIDDEN = {"field": "model.hidden_sizes", "values": ((), (8,), (8, 4))}
SIZE = {"field": "model.embedding_size", "range": (4, 64)}
SPACE = (LEARNING_RATE, LOSS, HIDDEN, SIZE)


def parameters(*space):
    return tuple(SearchParameter(**parameter) for parameter in space or SPACE)


def planted_value(values):
    """1 at a learning rate of 0.01 with approx_ndcg_loss, and less elsewhere."""
    distance = math.log10(values["optimizer.learning_rate"]) + 2
    return math.exp(-(distance**2)) * (1.0 if values["loss.key"] == "approx_ndcg_loss" else 0.6)


class Training:
    """Stands for the trainer: writes the metrics of a run whose best validation has the planted value.

    Attributes:
      workdirs: those of all calls.
      failures: call → the error to raise in it.
    """

    def __init__(self, failures=None, fingerprint="f" * 64):
        self.workdirs, self.failures, self.fingerprint = [], failures or {}, fingerprint

    def __call__(self, config, workdir):
        self.workdirs.append(workdir)
        paths = Workdir(workdir)
        os.makedirs(workdir, exist_ok=True)
        failure = self.failures.get(len(self.workdirs))
        # A config is refused before anything is written.
        if not isinstance(failure, ConfigError):
            paths.check(config)
            paths.save_json(paths.config, {"config": config.model_dump()})
        if failure:
            raise failure
        paths.save_json(paths.data, {"fingerprints": {"vocabulary": self.fingerprint}})
        value = planted_value({"optimizer.learning_rate": config.optimizer.learning_rate, "loss.key": config.loss.key})
        lines = [
            {"step": step, "epoch": step / 10, "split": split, "metrics": {config.eval.best_metric: shown}}
            for step, split, shown in (
                (10, "train", 2.0),
                (10, "validation", value / 2),
                (20, "validation", value),
                (30, "validation", None),
            )
        ]
        with open(paths.metrics, "w") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)


def search(folder, train_fn, *, space=SPACE, num_trials=6, console=None, **fields):
    """Runs a search as the command does, and returns its trials."""
    config = default.get_config()
    config.update_from_flattened_dict(fields)
    study, space = StudyFolder(str(folder)), parameters(*space)
    check_space(space, config.to_dict(), "the space")
    checked = load_trainer_config(config)
    study.check(checked, space)
    with study.locked():
        study.save_study(checked, space)
        flags = [f"--config={default.__file__}", *(f"--config.{name}={value}" for name, value in fields.items())]
        return Search(config.to_dict(), space, study, flags, train_fn, console or Console(file=io.StringIO())).run(
            num_trials
        )


# What the sampler draws.

RANGES = st.tuples(st.floats(1e-6, 1e3), st.floats(1.001, 1e3)).map(lambda pair: (pair[0], pair[0] * pair[1]))
INT_RANGES = st.tuples(st.integers(1, 50), st.integers(1, 50)).map(lambda pair: (pair[0], sum(pair)))
ONE_PARAMETER = st.one_of(
    st.tuples(st.just("range"), st.one_of(RANGES, INT_RANGES)),
    st.tuples(st.just("values"), st.sets(st.integers(0, 99), min_size=1).map(lambda drawn: tuple(sorted(drawn)))),
    st.tuples(st.just("values"), st.sampled_from([("a", "b", "c"), (False, True), ((), (1,), (1, 2))])),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(ONE_PARAMETER, min_size=1, max_size=4), st.sampled_from(["linear", "log"]), st.integers(0, 2**31 - 1))
def test_drawn_values_are_in_the_space_new_and_a_function_of_seed_and_trials(drawn, scale, seed):
    space = parameters(
        *(
            {"field": f"f{number}", form: tried, "scale": scale if form == "range" else "linear"}
            for number, (form, tried) in enumerate(drawn)
        )
    )

    def draw(trials):
        return suggest(space, trials, direction="max", seed=seed, is_allowed=lambda values: True)

    trials = []
    for number in range(1, 14):  # The first ten are random, the others are not.
        values = draw(trials)
        if values is None:
            assert number > math.prod(_num_values(parameter) for parameter in space)
            break
        assert values == draw(trials)
        assert all(contains(parameter, values[parameter.field]) for parameter in space)
        assert values not in [trial.parameters for trial in trials]
        state = "failed" if number % 4 == 0 else "finished"
        trials.append(Trial(number, values, state, number / 7 if state == "finished" else None))


def _num_values(parameter):
    if parameter.values is not None:
        return len(parameter.values)
    low, high = parameter.range
    return high - low + 1 if isinstance(low, int) and isinstance(high, int) else math.inf


def test_another_seed_draws_other_values():
    draws = [suggest(parameters(), [], direction="max", seed=seed, is_allowed=lambda values: True) for seed in range(5)]
    assert all(a != b for a, b in itertools.combinations(draws, 2))


def test_a_log_scale_draws_each_power_of_ten_equally_often():
    space = parameters(LEARNING_RATE)
    draws = [
        suggest(space, [], direction="max", seed=seed, is_allowed=lambda values: True)["optimizer.learning_rate"]
        for seed in range(400)
    ]
    counts = np.histogram(np.log10(draws), bins=[-4, -3, -2, -1, 0])[0]
    assert counts.sum() == 400 and counts.min() > 70  # 100 expected, with a standard deviation of 9.


def test_a_small_space_is_tried_exactly_once_without_what_is_not_allowed():
    space = parameters({"field": "a", "values": (1, 2, 3)}, {"field": "b", "values": ("x", "y")})
    trials = []
    while values := suggest(
        space, trials, direction="min", seed=3, is_allowed=lambda values: values != {"a": 2, "b": "y"}
    ):
        trials.append(Trial(len(trials) + 1, values, "finished", 0.5))
    tried = {(trial.parameters["a"], trial.parameters["b"]) for trial in trials}
    assert tried == {(1, "x"), (1, "y"), (2, "x"), (3, "x"), (3, "y")} and len(trials) == 5


@pytest.mark.parametrize("direction", ["max", "min"])
def test_the_sampler_moves_to_the_planted_optimum_and_away_from_failures(direction):
    """The later half of a search is better than its random start, whichever way is good, and fails less often."""
    sign = 1 if direction == "max" else -1
    starts, ends, failed_starts, failed_ends = [], [], 0, 0
    for seed in range(4):
        trials = []
        for number in range(1, 41):
            values = suggest(parameters(), trials, direction=direction, seed=seed, is_allowed=lambda values: True)
            has_failed = values["model.embedding_size"] > 34
            value = None if has_failed else sign * planted_value(values)
            trials.append(Trial(number, values, "failed" if has_failed else "finished", value))
        starts += [sign * trial.value for trial in trials[:10] if trial.value is not None]
        ends += [sign * trial.value for trial in trials[-15:] if trial.value is not None]
        failed_starts += sum(trial.state == "failed" for trial in trials[:10])
        failed_ends += sum(trial.state == "failed" for trial in trials[-15:])
    assert np.mean(ends) > np.mean(starts) + 0.2
    assert failed_ends / 15 < failed_starts / 10 / 2


# The search, with a fake of the trainer.


def test_the_best_trial_is_found_and_recorded(tmp_path):
    output = io.StringIO()
    trials = search(tmp_path, Training(), num_trials=12, console=Console(file=output, width=200))
    for trial in trials:
        assert trial.state == "finished" and (trial.step, trial.epoch) == (20, 2.0)
        assert trial.value == pytest.approx(planted_value(trial.parameters))
    assert {contains(p, trial.parameters[p.field]) for p in parameters() for trial in trials} == {True}
    # The config itself is in the space, so it is the first trial.
    assert trials[0].parameters["optimizer.learning_rate"] == default.get_config().optimizer.learning_rate

    lines = [json.loads(line) for line in (tmp_path / "trials.jsonl").read_text().splitlines()]
    assert [line["value"] for line in lines] == [trial.value for trial in trials]
    best = max(trials, key=lambda trial: trial.value)
    assert best.value > 1.2 * trials[0].value
    record = json.loads((tmp_path / "best.json").read_text())
    assert record["trial"] == best.number and record["value"] == best.value and record["metric"] == "ndcg@10"

    # The flags give the config of the trial, in full.
    expected = Workdir(str(tmp_path / "trials" / f"{best.number:04d}")).load_config()
    assert read_trainer_flags(record["flags"]).config == expected

    # The last table has all trials, best first; the one before has the best ten.
    *_, before, last = output.getvalue().split("Trials by their best validation ndcg@10")
    assert "10 of 11" in before.splitlines()[0]
    numbers = [int(line.split()[0]) for line in last.splitlines()[2:] if line.strip()]
    assert numbers == [trial.number for trial in sorted(trials, key=lambda trial: -trial.value)]


def test_a_loss_is_minimized(tmp_path):
    fields = {"eval.best_metric": "loss", "eval.best_direction": "min"}
    trials = search(tmp_path, Training(), space=(LEARNING_RATE,), num_trials=8, **fields)
    # The first validation of a trial has half the loss of the second.
    assert {trial.step for trial in trials} == {10}
    best = min(trials, key=lambda trial: trial.value)
    assert json.loads((tmp_path / "best.json").read_text())["trial"] == best.number != 1


@pytest.mark.parametrize("num_before", [1, 4, 5])
def test_a_search_that_was_stopped_has_the_trials_of_one_that_was_not(tmp_path, num_before):
    expected = search(tmp_path / "whole", Training())
    stopped = Training({num_before: Stopped("Stopped by SIGTERM.", exit_code=143)})
    with pytest.raises(Stopped):
        search(tmp_path / "stopped", stopped)
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
            line = {"step": 1, "epoch": 1.0, "split": "validation", "metrics": {"ndcg@10": None}}
            with open(path, "w") as file:
                file.write(json.dumps(line) + "\n")

    trials = search(tmp_path, train, num_trials=3)
    assert [trial.state for trial in trials] == ["finished", "failed", "finished"]
    assert "finite ndcg@10" in trials[1].reason


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
    with pytest.raises(StorageError, match="metrics.jsonl"):
        best_validation(str(path), "mrr", "max")


# What is refused.


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"list_size": 50}, "config.list_size: 100 → 50"),
        ({"train.num_epochs": 30}, "config.train.num_epochs: 20 → 30"),
        ({"space": (LEARNING_RATE, LOSS, HIDDEN)}, "the fields or values of --space"),
        ({"space": (LEARNING_RATE, LOSS, HIDDEN, {**SIZE, "range": (4, 65)})}, "the fields or values of --space"),
    ],
)
def test_another_search_in_the_folder_is_refused(tmp_path, change, says):
    search(tmp_path, Training(), num_trials=2)
    before = (tmp_path / "study.json").read_text()
    training = Training()
    with pytest.raises(ConfigError) as caught:
        search(tmp_path, training, **change)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert not training.workdirs and (tmp_path / "study.json").read_text() == before


def test_a_folder_that_is_not_of_a_search_is_refused(tmp_path):
    search(tmp_path / "search", Training(), num_trials=2)
    with pytest.raises(ConfigError, match="holds a single run"):
        search(tmp_path / "search" / "trials" / "0001", Training())
    (tmp_path / "search" / "study.json").unlink()
    with pytest.raises(StorageError, match=r"study.json is missing"):
        search(tmp_path / "search", Training())


@pytest.mark.parametrize("content", ["{", '{"number": 1}\n', '{"number": 2, "parameters": {}}\n', "[]\n"])
def test_a_damaged_record_is_named(tmp_path, content):
    search(tmp_path, Training(), num_trials=2)
    (tmp_path / "trials.jsonl").write_text(content)
    with pytest.raises(StorageError, match="trials.jsonl cannot be read"):
        search(tmp_path, Training())


def test_two_searches_do_not_share_a_folder(tmp_path):
    study = StudyFolder(str(tmp_path))
    with study.locked(), pytest.raises(ConfigError, match="in use by another run"):
        search(tmp_path, Training())


BAD_SPACES = [
    ("()", {}, "of the form"),
    ("3", {}, "of the form"),
    ("('optimizer.learning_rate',)", {}, "of the form"),
    ("({'field': 'optimizer.learning_rate'},)", {}, "of the form"),
    ("({'field': 'loss.key', 'values': ('a', 1)},)", {}, "a tuple of numbers or"),
    ("({'field': 'loss.key', 'values': ('a', 'a')},)", {}, "different values"),
    ("({'field': 'train.num_epochs', 'low': 1, 'high': 3},)", {}, "of the form"),
    ("({'field': 'train.num_epochs', 'range': (3, 1)},)", {}, "the lowest first"),
    ("({'field': 'train.num_epochs', 'range': (0, 3)},)", {}, "config.train.num_epochs=0 cannot be used"),
    ("({'field': 'train.num_epochs', 'values': (1, 2.5)},)", {}, "config.train.num_epochs=2.5 is of type float"),
    ("({'field': 'train.epochs', 'range': (1, 3)},)", {}, "config.train.epochs is not a field"),
    ("2 * ({'field': 'list_size', 'values': (5, 6)},)", {}, "has a field twice"),
    ("({'field': 'model.item_bias', 'values': (False, 'yes')},)", {}, "config.model.item_bias='yes'"),
    ("({'field': 'optimizer.name', 'values': ('adam', 'adamw')},)", {}, "adamw is adam with weight decay"),
    ("({'field': 'train.num_epochs', 'range': (1, 3), 'scale': 'reverse_log'},)", {}, "only for Vertex AI"),
    ("({'field': 'seed', 'range': (1, 3)},)", {}, "cannot vary seed"),
    ("({'field': 'split.test_fraction', 'range': (0.1, 0.3)},)", {}, "cannot vary split.test_fraction"),
    ("({'field': 'eval.relevance_threshold', 'values': (4.0, 5.0)},)", {}, "cannot vary eval.relevance_threshold"),
    ("({'field': 'list_size', 'values': (5, 6)},)", {}, "cannot vary list_size"),
    ("({'field': 'loss.temperature', 'values': (0.1, 1.0)},)", {"eval.best_metric": "loss"}, "cannot vary loss.temp"),
    ("({'field': 'train.num_epochs', 'range': (1, 3)},)", {"split.method": "none"}, "no validation split"),
    ("({'field': 'train.num_epochs', 'range': (1, 3)},)", {"split.validation_fraction": 0.0}, "no validation split"),
]


@pytest.mark.parametrize(("space", "fields", "says"), BAD_SPACES)
def test_a_space_that_cannot_be_searched_is_refused(tmp_path, space, fields, says):
    path = tmp_path / "space.py"
    path.write_text(f"def get_space():\n    return {space}\n")
    config = default.get_config()
    config.update_from_flattened_dict(fields)
    with pytest.raises(ConfigError) as caught:
        check_space(load_space(str(path)), config.to_dict(), f"--space={path}")
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_fields_that_do_not_change_what_is_measured_can_vary(tmp_path):
    config = default.get_config()
    config.eval.best_metric = "catalogue/ndcg@10"
    space = parameters(
        {"field": "list_size", "values": (5, 6)},
        {"field": "data.features.item", "values": ((), ("genres",))},
        {"field": "model.item_bias", "values": (False, True)},
        {"field": "loss.temperature", "range": (0.1, 1.0)},
    )
    check_space(space, config.to_dict(), "the space")


@pytest.mark.parametrize("content", ["def get_space(:\n", "x = 1\n", "def get_space():\n    return 1 / 0\n", None])
def test_a_space_file_that_cannot_be_loaded_is_named(tmp_path, content):
    path = tmp_path / "space.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"space.py cannot be loaded: ") as caught:
        load_space(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs" / "tune").glob("[a-z]*.py")), ids=lambda p: p.stem)
def test_the_spaces_that_are_shipped_can_be_searched(path):
    config = default.get_config()
    config.eval.best_metric = "catalogue/ndcg@10"
    config.candidates.method = "catalogue" if path.stem != "rated" else "rated"
    config.model.similarity = "cosine"
    config.history.encoder = {"pooled": "pooled", "transformer": "transformer"}.get(path.stem, "none")
    space = load_space(str(path))
    check_space(space, config.to_dict(), path.name)
    assert len(list(sample_trials(space, config.to_dict(), path.name))) >= 2 * len(space)


# The command.


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
        timeout=240,
    )


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--workdir=never_made", "--space=missing.py"], "--space=missing.py cannot be loaded"),
        (["--workdir=never_made", "--space=space.py", "--config.seed=-1"], "config.seed=-1 cannot be used"),
        (["--workdir=never_made", "--space=space.py", "--num_trials=0"], "num_trials"),
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
def test_the_command_trains_the_trials_and_evaluates_only_the_best_on_the_test_split(tmp_path, ratings_csv):
    """Of two learning rates one learns nothing."""
    from tests.training.tensorboard_sink_test import hparams_data

    (tmp_path / "space.py").write_text(
        "def get_space():\n    return ({'field': 'optimizer.learning_rate', 'values': (1e-6, 0.5)},)\n"
    )
    fields = {
        "data.source": ratings_csv,
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
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    command = [*flags, "--space=space.py", "--workdir=search", "--num_trials=5", "--evaluate_best"]
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
        # The HParams tab of search/trials has each trial once, with the metric of the search.
        started = hparams_data(folder / "logs", "session_start_info").session_start_info.hparams
        assert started["optimizer.learning_rate"].number_value == trial.parameters["optimizer.learning_rate"]
        metrics = hparams_data(folder / "logs", "experiment").experiment.metric_infos
        assert ("validation", "ndcg@5") in [(info.name.group, info.name.tag) for info in metrics]

    again = run_command(*command, cwd=tmp_path)
    assert again.returncode == 0 and "This run is finished" in again.stdout and "Trial 1 of" not in again.stdout
