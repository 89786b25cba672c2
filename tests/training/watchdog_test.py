"""When the watchdog ends a process, and what it prints. Time passes as the tests say."""

import subprocess
import sys
import threading

import pytest

from tests.conftest import REPOSITORY
from trainer.training.metric_writer import MetricWriter
from trainer.training.watchdog import WatchdogSink

TIMEOUT = 100.0
SIGNS_OF_LIFE = {
    "advance": lambda writer: writer.advance(1500, 1.0),
    "progress": lambda writer: writer.progress("users", 1000),
    "write_scalars": lambda writer: writer.write_scalars(1500, 0.5, "validation", {}),
    "write_final_metrics": lambda writer: writer.write_final_metrics(1500, 0.5, "test", {}),
    "flush": lambda writer: writer.flush(),
}


class Watch:
    """A watch that waits no time. What is planned for a second happens in it.

    Attributes:
      ended: the errors that ended the process.
      now: seconds since the watch began.
    """

    def __init__(self, plan, *, timeout=TIMEOUT, last_second=1000.0):
        self.now = 0.0
        self.ended = []
        self._plan = dict(plan)
        self._last_second = last_second
        sink = WatchdogSink(timeout, first_step=1234, wait=self._wait, end=self.ended.append)
        self._writer = MetricWriter([sink])
        sink.watch()

    def _wait(self, seconds):
        self.now += seconds
        for second in [second for second in self._plan if second <= self.now]:
            self._plan.pop(second)(self._writer)
        return self.now >= self._last_second


def test_a_run_without_progress_is_ended_once_and_told_how_to_go_on():
    watch = Watch({})
    (error,) = watch.ended
    assert watch.now == TIMEOUT
    assert error.exit_code == 75
    assert "no progress for 100 s" in str(error) and "step 1,234" in str(error)
    assert "the same command resumes the run from the last checkpoint" in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("sign", SIGNS_OF_LIFE.values(), ids=SIGNS_OF_LIFE)
def test_each_sign_of_life_starts_the_time_anew(sign):
    watch = Watch({90.0: sign})
    assert len(watch.ended) == 1 and watch.now == 90 + TIMEOUT


def test_a_chunk_of_an_evaluation_is_a_sign_of_life():
    advances = []
    watch = Watch(
        {
            50.0: lambda writer: advances.append(writer.progress("users", 1000)),
            140.0: lambda writer: advances[0](100),
            230.0: lambda writer: advances[0](200),
        }
    )
    assert len(watch.ended) == 1 and watch.now == 230 + TIMEOUT
    assert "users 300 of 1,000" in str(watch.ended[0])


def test_a_run_that_goes_on_is_not_ended():
    watch = Watch(dict.fromkeys(range(95, 1000, 95), SIGNS_OF_LIFE["advance"]))
    assert not watch.ended and watch.now == 1000


def test_a_long_timeout_is_watched_every_few_seconds():
    """So that a process that was stopped for hours in one of the intervals has lost little of its time."""
    watch = Watch({3595.0: SIGNS_OF_LIFE["flush"]}, timeout=3600.0, last_second=10_000.0)
    assert len(watch.ended) == 1 and watch.now == 3595 + 3600


HANGS = """
import threading
from trainer.training.watchdog import WatchdogSink

WatchdogSink(0.3, first_step=12).start()

def hang_here():
    threading.Event().wait()

hang_here()
"""


@pytest.mark.slow
def test_a_process_that_hangs_ends_with_its_stacks():
    process = subprocess.run(
        [sys.executable, "-c", HANGS],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 75
    first, *stacks = process.stderr.splitlines()
    assert first.startswith("error: The run has made no progress for 0.3 s") and "step 12" in first
    assert any("in hang_here" in line for line in stacks)


def watching():
    return [thread for thread in threading.enumerate() if thread.name == "watchdog"]


def test_nothing_is_watched_without_a_timeout_and_after_the_run():
    WatchdogSink(0.0, first_step=0).start()
    assert not watching()
    sink = WatchdogSink(3600.0, first_step=0)
    sink.start()
    (thread,) = watching()
    MetricWriter([sink]).close()
    thread.join(timeout=60)
    assert not thread.is_alive()
