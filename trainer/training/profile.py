"""Profiles some training calls for TensorBoard's profile plugin."""

import contextlib
from collections.abc import Iterator
from types import TracebackType

from rich.console import Console
from typing_extensions import Self

from trainer import storage
from trainer.compat import tf


class Profiler:
    """Profiles the calls after the first one, which compiles. As a context manager, it ends a profile that is not full.

    The profile is written to LOGS/plugins/profile. It does not change what the calls compute.
    """

    def __init__(self, logs: str, num_calls: int, console: Console):
        """`num_calls` is the number of calls to profile; 0 for none."""
        self._logs = logs
        self._num_calls = num_calls
        self._console = console
        self._num_seen = 0
        self._is_running = False

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Wraps one training call.

        Raises:
          StorageError: the profile cannot be written.
        """
        if self._num_calls and self._num_seen == 1:
            with storage.writing(self._logs):
                tf.profiler.experimental.start(self._logs)
            self._is_running = True
        # With _r the profiler counts the call as a step.
        trace = tf.profiler.experimental.Trace("training_call", step_num=self._num_seen, _r=1)
        with trace if self._is_running else contextlib.nullcontext():
            yield
        self._num_seen += 1
        if self._is_running and self._num_seen > self._num_calls:
            self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._is_running:
            self._stop()
        elif error is None and self._num_calls and self._num_seen < 2:
            self._console.print(
                f"Nothing was profiled: the run took {self._num_seen} more call{'' if self._num_seen == 1 else 's'}, "
                "and the first call compiles.",
                soft_wrap=True,
            )

    def _stop(self) -> None:
        self._is_running = False
        with storage.writing(self._logs):
            tf.profiler.experimental.stop()
        num_profiled = self._num_seen - 1
        fewer = "" if num_profiled == self._num_calls else f" of the {self._num_calls:,} asked for: no more were taken"
        self._console.print(
            f"Profiled {num_profiled:,} call{'' if num_profiled == 1 else 's'}{fewer}. The profile is in {self._logs}; "
            "docs/tensorboard.md says how TensorBoard shows it.",
            soft_wrap=True,
        )
