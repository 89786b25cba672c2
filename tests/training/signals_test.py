"""SIGTERM and Ctrl-C: what is saved, and when the run ends."""

import json
import math
import os
import signal

import pytest

from settings.errors import Stopped
from tests.training.planted_loop import TOTAL_STEPS, build_loop, metrics_of
from trainer.training.loop import RunState, StopSignal


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
    # It is on the disk when the message says so.
    assert [line[:2] for line in diary.of("save", "wait_for_save")] == [
        ("save", loop.state.step),
        ("wait_for_save", loop.state.step),
    ]
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
