import json
import math
import os
import signal
from dataclasses import asdict

import numpy as np
import pytest

from settings.errors import DivergedError, Stopped
from trainer.compat import tf
from trainer.evaluation.statistics import Mean
from trainer.training.loop import RunState, StopSignal, Trainer
from trainer.training.metric_writer import MetricWriter, Sink
from trainer.training.run import take_steps
from trainer.training.schedule import Cadence, Schedule, plan_calls


class Diary(Sink):
    """Records what is written, in order."""

    def __init__(self):
        self.lines = []

    def write_scalars(self, step, epoch, split, scalars):
        self.lines.append((split, step, epoch, dict(scalars)))

    def advance(self, step, steps_per_second):
        self.lines.append(("advance", step, steps_per_second))

    def flush(self):
        self.lines.append(("flush",))

    def of(self, *kinds):
        return [line for line in self.lines if line[0] in kinds]


class Time:
    """A clock that moves only when told."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def step_sums(step):
    """Of one step: the sum and weight of the loss, then of a metric that weighs lists."""
    rng = np.random.default_rng(step)
    return np.float32([[rng.normal(), 4], [rng.normal(), rng.integers(0, 3)]])


TOTAL_STEPS, EPOCH_STEPS = 30, 10


class Loop:
    """The training loop with its arguments, ready to run."""

    def __init__(self, trainer, **arguments):
        self.trainer, self.state, self._arguments = trainer, trainer.state, arguments

    def run(self):
        take_steps(self.trainer, **self._arguments)


def build_loop(
    state=None,
    *,
    validation=None,
    sums=step_sums,
    every=(6, 10, 15),
    steps_per_execution=4,
    total_steps=TOTAL_STEPS,
    patience=0,
    direction="max",
    stop=None,
    seconds=0.0,
):
    """A training loop of fakes, and the diary of what it does.

    Args:
      validation: step → value of the metric `mrr`.
      sums: step → its sums.
      every: cadences of log, evaluation and checkpoint.
      seconds: that each step takes; an evaluation takes 100 and a save 1000.
    """
    state, diary, clock = state or RunState(), Diary(), Time()
    log_due, eval_due, checkpoint_due = (
        Cadence(steps, epoch_steps=EPOCH_STEPS, total_steps=total_steps) for steps in every
    )
    calls = plan_calls(
        state.step, total_steps, steps_per_execution=steps_per_execution, cadences=[log_due, eval_due, checkpoint_due]
    )

    def train_call(batch, first_step, num_steps):
        first_step, num_steps = int(first_step), int(num_steps)
        assert batch == first_step, "the batches of another call"
        clock.now += seconds * num_steps
        return tf.constant(sum(sums(step) for step in range(first_step, first_step + num_steps)))

    def validate():
        clock.now += 100
        return {
            "loss": Mean(0.25, 0.2, 0.3, 5),
            "mrr": Mean(validation(state.step), 0.0, 1.0, 5),
        }

    def save():
        clock.now += 1000
        diary.lines.append(("save", state.step, json.dumps(asdict(state))))

    trainer = Trainer(
        state=state,
        train_call=train_call,
        batches=iter(calls[:-1].tolist()),
        learning_rate_fn=lambda step: 0.5 * step,
        metric_names=["loss", "mrr"],
        epoch_steps=EPOCH_STEPS,
        global_batch_size=4,
        validate_fn=validate if validation else None,
        best_metric="mrr",
        best_direction=direction,
        writer=MetricWriter([diary]),
        clock=clock,
    )
    loop = Loop(
        trainer,
        schedule=Schedule(log_due, eval_due, checkpoint_due, calls, steps_per_execution, total_steps),
        patience=patience,
        after_validation=lambda: diary.lines.append(("after_validation", state.step)),
        save=save,
        stop=stop or StopSignal(),
    )
    return loop, diary


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
    ]  # fmt: skip
    assert diary.of("validation")[0] == ("validation", 10, 1.0, {"loss": 0.25, "mrr": -10})


def test_saves_when_due_and_after_the_last_step():
    loop, diary = build_loop(every=(10, 10, 12))
    loop.run()
    assert [line[1] for line in diary.of("save")] == [12, 24, 30]


def without_pace(lines):
    """The lines of the log, without how fast it went."""
    return [
        (*line[:3], {name: value for name, value in line[3].items() if name != "lists_per_second"}) for line in lines
    ]


def metrics_of(diary, after=0):
    return without_pace(line for line in diary.of("train", "validation") if line[1] > after)


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
    assert diary_again.lines == []
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
    with pytest.raises(DivergedError, match=f"between step 13 and step 14 the loss or a metric became {value}"):
        loop.run()
    assert [line[1] for line in diary.of("save")] == [5, 10]
    assert loop.state.step == 13
    assert np.isfinite(loop.state.accumulators or 0).all()
    assert diary.of("train")[-1][1] == 13


class StopAfterReads(StopSignal):
    """A signal that arrives between two looks at it."""

    def __init__(self, num_reads):
        super().__init__()
        self.reads_left = num_reads

    @property
    def requested(self):
        self.reads_left -= 1
        return signal.SIGTERM if self.reads_left < 0 else None

    @requested.setter
    def requested(self, value):
        pass


@pytest.mark.parametrize("num_reads", range(6))
def test_whenever_a_stop_is_requested_the_step_it_names_is_saved(num_reads):
    loop, diary = build_loop(stop=StopAfterReads(num_reads), every=(30, 30, 30), steps_per_execution=4)
    with pytest.raises(Stopped) as stopped:
        loop.run()
    assert stopped.value.exit_code == 143
    assert [line[1] for line in diary.of("save")] == [loop.state.step]
    assert f"after step {loop.state.step};" in str(stopped.value)
    assert loop.state.step == 4 * (num_reads + 1)


def test_a_stop_that_finds_the_step_saved_already_saves_once():
    stop = StopSignal()
    stop.requested = signal.SIGTERM
    loop, diary = build_loop(stop=stop, every=(4, 4, 4), validation=lambda step: step)
    with pytest.raises(Stopped):
        loop.run()
    assert [line[:2] for line in diary.of("train", "validation", "save")] == [
        ("train", 4),
        ("validation", 4),
        ("save", 4),
    ]


def test_after_a_stop_the_run_goes_on_as_if_there_had_been_none():
    options = {"every": (9, 7, 15), "validation": lambda step: math.sin(step)}
    whole, diary = build_loop(**options)
    whole.run()
    stopped, stopped_diary = build_loop(stop=StopAfterReads(2), **options)
    with pytest.raises(Stopped):
        stopped.run()
    _, step, saved = stopped_diary.of("save")[-1]
    resumed, resumed_diary = build_loop(RunState(**json.loads(saved)), **options)
    resumed.run()
    assert metrics_of(stopped_diary) + metrics_of(resumed_diary) == metrics_of(diary)
    assert 0 < step < TOTAL_STEPS


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_remembered_and_the_next_one_ends_it_at_once(number, exit_code):
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    stop = StopSignal()
    loop, diary = build_loop(stop=stop)
    with stop.listening():
        assert stop.requested is None
        os.kill(os.getpid(), number)
        assert stop.requested == number
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    assert {each: signal.getsignal(each) for each in before} == before
    with pytest.raises(Stopped, match=number.name) as stopped:
        loop.run()
    assert stopped.value.exit_code == exit_code and len(diary.of("save")) == 1


def test_a_signal_to_another_worker_stops_this_one_too():
    """After the same step, with the other worker's signal."""
    asked = []

    def any_worker(values):
        asked.append(values)
        return [False, len(asked) == 3]

    loop, diary = build_loop(stop=StopSignal(any_worker), every=(30, 30, 30), steps_per_execution=4)
    with pytest.raises(Stopped, match="SIGINT after step 12;") as stopped:
        loop.run()
    assert stopped.value.exit_code == 130
    assert [line[1] for line in diary.of("save")] == [12]
    assert asked == [[False, False]] * 3


def test_a_signal_during_the_last_save_is_not_lost():
    """The loop has no call left that could notice it. What follows the loop does."""
    stop = StopSignal()
    loop, diary = build_loop(stop=stop, every=(30, 30, 30), steps_per_execution=30)
    save = loop._arguments["save"]
    loop._arguments["save"] = lambda: (os.kill(os.getpid(), signal.SIGTERM), save())
    with stop.listening():
        loop.run()
        with pytest.raises(Stopped, match="All steps are saved") as stopped:
            stop.raise_at_once()
    assert stopped.value.exit_code == 143 and len(diary.of("save")) == 1


def test_after_training_a_signal_stops_the_run_at_once():
    stop = StopSignal()
    with stop.listening():
        stop.raise_at_once()
        with pytest.raises(Stopped, match="SIGINT") as stopped:
            os.kill(os.getpid(), signal.SIGINT)
    assert stopped.value.exit_code == 130


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
