import json
import math
from dataclasses import asdict

import numpy as np
import pytest

from settings.errors import DivergedError
from tests.training.planted_loop import TOTAL_STEPS, build_loop, metrics_of, step_sums
from trainer.training.loop import RunState


def values(**by_step):
    """step → planted value, from step_10=..."""
    return lambda step: by_step[f"step_{step}"]


def weighted_means(begin, end):
    total = sum(step_sums(step).astype(np.float64) for step in range(begin, end))
    return {"loss": total[0, 0] / total[0, 1], "mrr": total[1, 0] / total[1, 1]}


def test_logs_the_weighted_means_since_the_last_line():
    loop, diary = build_loop(every=(8, 10, 15))
    loop.run()
    assert [line[1:3] for line in diary.of("train")] == [(8, 0.8), (16, 1.6), (24, 2.4), (30, 3.0)]
    for (_, end, _, scalars), begin in zip(diary.of("train"), (0, 8, 16, 24), strict=True):
        assert {name: scalars[name] for name in ("loss", "mrr")} == pytest.approx(weighted_means(begin, end), rel=1e-6)
        assert scalars["learning_rate"] == 0.5 * end
    assert loop.state.train_metrics == {name: diary.of("train")[-1][3][name] for name in ("loss", "mrr")}


def test_a_metric_without_weight_is_unknown():
    loop, diary = build_loop(sums=lambda step: np.float32([[1, 4], [0, 0]]))
    loop.run()
    assert all(line[3]["loss"] == 0.25 and math.isnan(line[3]["mrr"]) for line in diary.of("train"))


def test_what_is_due_is_done_in_order():
    loop, diary = build_loop(validation=lambda step: -step, every=(5, 10, 10), steps_per_execution=10, total_steps=20)
    loop.run()
    assert [line[:2] for line in diary.lines] == [
        ("advance", 5), ("train", 5), ("flush",),
        ("advance", 10), ("train", 10), ("validation", 10), ("after_validation", 10), ("flush",), ("save", 10),
        ("advance", 15), ("train", 15), ("flush",),
        ("advance", 20), ("train", 20), ("validation", 20), ("after_validation", 20), ("flush",), ("save", 20),
        ("wait_for_save", 20),
    ]  # fmt: skip
    assert diary.of("validation")[0] == ("validation", 10, 1.0, {"loss": 0.25, "relative_loss": -1.0, "mrr": -10})


def test_saves_when_due_and_after_the_last_step():
    loop, diary = build_loop(every=(10, 10, 12))
    loop.run()
    assert [line[1] for line in diary.of("save")] == [12, 24, 30]


@pytest.mark.parametrize("steps_per_execution", [1, 3, 4, 50])
def test_from_any_save_a_run_goes_on_as_the_uninterrupted_one(steps_per_execution):
    validation = values(step_7=0.3, step_14=0.5, step_21=0.5, step_28=0.4, step_30=0.45)
    options = {"validation": validation, "every": (9, 7, 5), "steps_per_execution": steps_per_execution, "seconds": 1.0}
    whole, diary = build_loop(**options)
    whole.run()
    assert len(diary.of("save")) >= 8
    for _, step, saved in diary.of("save"):
        resumed, resumed_diary = build_loop(RunState(**json.loads(saved)), **options)
        assert resumed.state.train_metrics == json.loads(saved)["train_metrics"]
        resumed.run()
        assert metrics_of(resumed_diary) == metrics_of(diary, after=step)
        assert resumed_diary.of("save") == [line for line in diary.of("save") if line[1] > step]
        assert asdict(resumed.state) == asdict(whole.state)
        assert resumed.state.train_metrics == whole.state.train_metrics


@pytest.mark.parametrize(
    ("direction", "observed", "best_step"),
    [
        ("max", (0.1, 0.3, 0.2), 20),
        ("min", (0.2, 0.1, 0.3), 20),
        ("max", (0.1, 0.2, 0.3), 30),
        ("min", (0.1, 0.2, 0.3), 10),
        ("max", (0.3, 0.3, 0.3), 10),
        ("min", (0.3, 0.3, 0.3), 10),
        ("max", (0.1, 0.3, 0.3), 20),
        ("max", (math.nan, 0.1, math.nan), 20),
        ("min", (math.nan, 0.1, math.nan), 20),
        ("max", (math.nan, math.nan, math.nan), None),
        ("max", (0.2, math.inf, 0.1), 10),
        ("min", (-math.inf, 0.2, 0.1), 30),
    ],
)
def test_the_best_step_is_the_first_of_the_best_finite_values(direction, observed, best_step):
    validation = values(**dict(zip(("step_10", "step_20", "step_30"), observed, strict=True)))
    loop, diary = build_loop(validation=validation, direction=direction, every=(10, 10, 1000))
    loop.run()
    assert loop.state.best_step == best_step
    assert loop.state.best_value == (observed[best_step // 10 - 1] if best_step else None)
    assert loop.state.evaluations_since_best == (30 - (best_step or 0)) // 10
    # Each that was the best when it was measured is saved, with that in its state.
    for _, step, saved in diary.of("save"):
        assert step == 30 or json.loads(saved)["best_step"] == step
    assert best_step is None or best_step in [line[1] for line in diary.of("save")]


@pytest.mark.parametrize(("patience", "last_step"), [(0, 30), (1, 15), (2, 25), (3, 30)])
def test_stops_after_so_many_evaluations_without_a_better_one(patience, last_step):
    validation = values(step_5=0.1, step_10=0.5, step_15=0.5, step_20=0.6, step_25=0.2, step_30=math.nan)
    if patience == 2:
        validation = values(step_5=0.1, step_10=0.5, step_15=0.6, step_20=0.6, step_25=math.nan)
    loop, _ = build_loop(validation=validation, patience=patience, every=(5, 5, 5))
    loop.run()
    assert loop.state.step == last_step


def test_a_run_that_was_stopped_early_takes_no_step_when_started_again():
    options = {"validation": lambda step: -step, "patience": 1, "every": (5, 5, 5)}
    loop, diary = build_loop(**options)
    loop.run()
    assert loop.state.step == 10
    again, diary_again = build_loop(RunState(**json.loads(diary.of("save")[-1][2])), **options)
    again.run()
    assert diary_again.lines == [("wait_for_save", 10)]
    assert again.state.train_metrics == loop.state.train_metrics != {}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("metric", [0, 1])
def test_a_sum_that_is_not_finite_ends_the_run_and_nothing_is_saved(value, metric):
    def sums(step):
        planted = step_sums(step)
        if step == 13:
            planted[metric, 0] = value
        return planted

    loop, diary = build_loop(sums=sums, validation=lambda step: step, every=(1, 5, 5))
    with pytest.raises(DivergedError, match=f"between step 13 and step 14 a metric became {value}"):
        loop.run()
    assert [line[1] for line in diary.of("save")] == [5, 10]
    assert loop.state.step == 13
    assert np.isfinite(loop.state.accumulators or 0).all()
    assert diary.of("train")[-1][1] == 13


@pytest.mark.parametrize(("health", "what"), [((math.nan, 1.0), "loss"), ((2.0, math.inf), "gradients")])
def test_a_step_that_is_not_usable_ends_the_run_and_is_named(health, what):
    loop, diary = build_loop(failure=(13, health), validation=lambda step: step, every=(1, 5, 5))
    with pytest.raises(DivergedError, match=f"at step 14 the {what} became"):
        loop.run()
    assert [line[1] for line in diary.of("save")] == [5, 10]
    assert loop.state.step == 13


@pytest.mark.parametrize(("relative_loss", "is_diverged"), [(0.9e6, False), (1.1e6, True), (math.nan, False)])
def test_a_loss_a_million_times_that_of_equal_scores_ends_the_run(relative_loss, is_diverged):
    """It is the mean since the last log line."""
    weight = 0.0 if math.isnan(relative_loss) else 2.0

    def sums(step):
        return np.float32([[1.0, 4.0], [0.0 if math.isnan(relative_loss) else 2 * relative_loss, weight]])

    loop, diary = build_loop(sums=sums, metric_names=("loss", "relative_loss"), every=(10, 10, 5))
    if not is_diverged:
        loop.run()
        return
    with pytest.raises(DivergedError, match=r"up to step 10 the loss became 1\.1e\+06 times"):
        loop.run()
    assert [line[1] for line in diary.of("save")] == [5]


def test_the_relative_loss_of_the_best_validation_is_kept():
    loop, _ = build_loop(validation=values(step_10=0.2, step_20=0.6, step_30=0.4), every=(10, 10, 10))
    loop.run()
    assert (loop.state.best_step, loop.state.best_relative_loss) == (20, 0.06)


def test_time_is_that_of_steady_training():
    # Calls of 4, 4, 2 | 4, 4, 2 | 4, 4, 2; the first of them compiles.
    loop, diary = build_loop(validation=lambda step: step, every=(10, 10, 10), seconds=0.5)
    assert math.isnan(loop.trainer.steps_per_second)
    loop.run()
    assert (loop.trainer.timed_steps, loop.trainer.train_seconds) == (26, 13.0)
    assert loop.trainer.steps_per_second == 2.0
    assert [line[3].get("lists_per_second") for line in diary.of("train")] == [8.0, 8.0, 8.0]
    rates = [rate for _, _, rate in diary.of("advance")]
    assert math.isnan(rates[0]) and rates[1:] == [2.0] * 8


def test_before_anything_is_timed_no_rate_is_logged():
    loop, diary = build_loop(every=(4, 100, 100), total_steps=4)
    loop.run()
    (line,) = diary.of("train")
    assert "lists_per_second" not in line[3]


def test_without_validation_lists_nothing_is_the_best():
    loop, diary = build_loop(every=(10, 10, 1000), patience=1)
    loop.run()
    assert (loop.state.best_step, loop.state.step) == (None, TOTAL_STEPS)
    assert diary.of("validation", "after_validation") == []
    assert [line[1] for line in diary.of("save")] == [TOTAL_STEPS]
