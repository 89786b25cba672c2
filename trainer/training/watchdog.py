"""Ends a process that hangs, so that its run can be started again.

TensorFlow notices a worker that died or was frozen, but not one that is alive and stuck: in a collective operation that
the others never enter, in a device driver, or in a file system that does not answer.
"""

import faulthandler
import os
import sys
import threading
from collections.abc import Callable, Mapping

from settings.errors import StalledError
from settings.progress import Advance
from trainer.evaluation.final_metrics import Protocols
from trainer.training.metric_writer import Sink

# How often the thread looks: this fraction of the timeout, and at least this often.
_FRACTION = 0.05
_LONGEST_INTERVAL_SECONDS = 5.0


class WatchdogSink(Sink):
    """Watches the calls that a run makes to its metric writer, and ends the process when none arrives for long.

    A run makes such calls after each training call, validation and saved checkpoint, after each chunk of users of an
    evaluation, and before and after the export. It makes none while it starts: how long reading the ratings takes
    depends on the ratings. So build the sink after that.

    The time is counted while the process runs. A process that was stopped (Ctrl-Z) and goes on has not stalled.
    """

    def __init__(
        self,
        timeout_seconds: float,
        *,
        first_step: int,
        wait: Callable[[float], bool] | None = None,
        end: Callable[[StalledError], None] | None = None,
    ):
        """Watches nothing before `start`.

        Args:
          timeout_seconds: how long a run may make no progress; 0 for any time.
          first_step: the step that the run starts after.
          wait: waits for some seconds, and tells whether the watch is over. By default, until `close`.
          end: ends the process.
        """
        self._timeout_seconds = timeout_seconds
        self._num_signs = 0
        self._last_sign = f"step {first_step:,}"
        self._closed = threading.Event()
        self._wait = wait or self._closed.wait
        self._end = end or _end_process

    def start(self) -> None:
        """Watches from now on, in a thread of its own."""
        if self._timeout_seconds:
            threading.Thread(target=self.watch, name="watchdog", daemon=True).start()

    def advance(self, step: int, steps_per_second: float) -> None:
        self._note(f"step {step:,}")

    def progress(self, what: str, total: int) -> Advance:
        num_done = 0

        def advance(number: int) -> None:
            nonlocal num_done
            num_done += number
            self._note(f"{what} {num_done:,} of {total:,}")

        self._note(f"{what} 0 of {total:,}")
        return advance

    def write_scalars(self, step: int, epoch: float, split: str, scalars: Mapping[str, float]) -> None:
        self._note(f"the {split} metrics of step {step:,}")

    def write_final_metrics(self, step: int, epoch: float, split: str, protocols: Protocols) -> None:
        self._note(f"the final metrics of step {step:,}")

    def flush(self) -> None:
        self._note(self._last_sign)

    def close(self) -> None:
        """Ends the watch."""
        self._closed.set()

    def watch(self) -> None:
        """Returns when the watch is over, or when it has ended the process."""
        interval = min(_FRACTION * self._timeout_seconds, _LONGEST_INTERVAL_SECONDS)
        num_signs, silent_seconds = self._num_signs, 0.0
        while not self._wait(interval):
            # The intervals are added up, because a clock would count the time in which the process was stopped.
            silent_seconds += interval
            if self._num_signs != num_signs:
                num_signs, silent_seconds = self._num_signs, 0.0
            elif silent_seconds >= self._timeout_seconds:
                self._end(self._error())
                return

    def _error(self) -> StalledError:
        return StalledError(
            f"The run has made no progress for {self._timeout_seconds:,.10g} s, which is "
            f"config.train.stall_timeout_seconds. Its last sign of life was {self._last_sign}. This process ends, and "
            "the same command resumes the run from the last checkpoint. If one call or the export takes longer than "
            "that, raise the field. If it happens again, report it with the stacks that follow."
        )

    def _note(self, sign: str) -> None:
        self._last_sign = sign
        self._num_signs += 1


def _end_process(error: StalledError) -> None:
    """Prints the error and the stack of each thread, and exits at once: the main thread cannot do it any more."""
    print(f"error: {error}", file=sys.stderr, flush=True)
    faulthandler.dump_traceback(file=2, all_threads=True)
    os._exit(error.exit_code)
