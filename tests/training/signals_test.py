"""SIGTERM and Ctrl-C while steps are taken: what is saved, and when the run ends."""

import json
import math
import os
import signal

import pytest

from settings.errors import DivergedError, Stopped
from tests.training.planted_loop import TOTAL_STEPS, build_loop, metrics_of
from trainer.training.loop import RunState, StopSignal


class StopAfterReads(StopSignal):
    """A signal that arrives between two looks at it."""

    def __init__(self, num_reads):
        super().__init__()
        self.reads_left = num_reads

    def of_any_worker(self):
        self.reads_left -= 1
        return signal.SIGTERM if self.reads_left < 0 else None


@pytest.mark.parametrize("num_reads", range(6))
def test_whenever_a_stop_is_requested_the_step_it_names_is_saved(num_reads):
    loop, diary = build_loop(stop=StopAfterReads(num_reads), every=(30, 30, 30), steps_per_execution=4)
    with pytest.raises(Stopped) as stopped:
        loop.run()
    assert stopped.value.exit_code == 143
    # It is on the disk when the message says so.
    assert [line[:2] for line in diary.of("save", "wait_for_save")] == [
        ("save", loop.state.step),
        ("wait_for_save", loop.state.step),
    ]
    assert f"Stopped by SIGTERM after step {loop.state.step};" in str(stopped.value)
    assert loop.state.step == 4 * (num_reads + 1)


def test_a_stop_that_finds_the_step_saved_already_saves_once():
    loop, diary = build_loop(stop=StopAfterReads(0), every=(4, 4, 4), validation=lambda step: step)
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
def test_a_signal_is_remembered_until_the_call_is_saved(number, exit_code):
    stop = StopSignal()
    loop, diary = build_loop(stop=stop)
    with pytest.raises(Stopped, match=f"{number.name} after step 4;") as stopped, stop:
        os.kill(os.getpid(), number)
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


@pytest.mark.parametrize("is_here", [True, False])
def test_a_signal_during_the_last_save_stops_all_workers_before_the_evaluation(is_here):
    """The loop has no call left that could notice it."""
    asked = []

    def any_worker(values):
        asked.append(values)
        return values if is_here else [len(asked) == 2, False]

    stop = StopSignal(any_worker)
    loop, diary = build_loop(stop=stop, every=(30, 30, 30), steps_per_execution=30)
    save = loop._arguments["save"]
    loop._arguments["save"] = lambda: (is_here and os.kill(os.getpid(), signal.SIGTERM), save())
    with pytest.raises(Stopped, match="SIGTERM after training") as stopped, stop:
        loop.run()
    assert stopped.value.exit_code == 143 and len(diary.of("save")) == 1
    assert asked == [[False, False], [is_here, False]]


def test_a_signal_that_comes_too_late_to_be_asked_for_stops_the_run_as_well():
    with pytest.raises(Stopped, match="SIGINT after training"), StopSignal():
        os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_does_not_hide_that_the_run_diverged():
    with pytest.raises(DivergedError), StopSignal():
        os.kill(os.getpid(), signal.SIGTERM)
        raise DivergedError("diverged")
