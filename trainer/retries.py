"""Tries operations on remote paths again after errors that may pass.

TensorFlow itself tries a request to gs:// again, for about three minutes. It does not log it. So there is no further
try here after that. What is tried again here are errors that come at once: of an upload that has broken off, or of
another file system.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from absl import logging

PAUSES = (1.0, 2.0, 4.0, 8.0)
"""The seconds before each further try."""

MAX_SECONDS = 60.0
"""No further try begins later than this after the first one began."""

_TENSORFLOW_ERRORS = ("UnavailableError", "DeadlineExceededError", "AbortedError", "InternalError")

_Result = TypeVar("_Result")


def retry(
    path: str,
    call: Callable[[], _Result],
    *,
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> _Result:
    """Calls `call`, which reads or writes `path`, and returns its result.

    If the path is remote and the error may pass, it is called again, after growing pauses. Each further try is logged.
    Any other error is raised at once, and so is every error of a local path.

    Args:
      call: has the same effect if it is called again.
      sleep: waits for some seconds.
      clock: seconds, from any origin.
    """
    if "://" not in path:
        return call()
    started = clock()
    for number, pause in enumerate(PAUSES, start=1):
        try:
            return call()
        except Exception as error:
            if not may_pass(error) or clock() + pause > started + MAX_SECONDS:
                raise
            first_line, *_ = str(error).splitlines() or [type(error).__name__]
            logging.warning(
                "%s: %s Trying again in %g s (%d of %d).",
                path,
                f"{first_line.rstrip('.')}.",
                pause,
                number,
                len(PAUSES),
            )
        sleep(pause)
    return call()


def may_pass(error: Exception) -> bool:
    """Whether the same operation may work later, because the service or the connection failed for a while."""
    if type(error).__name__ in _TENSORFLOW_ERRORS or isinstance(error, ConnectionError | TimeoutError):
        return True
    # Of gcsfs. TensorFlow's errors have small numbers, which are no HTTP status.
    status = getattr(error, "code", None)
    return isinstance(status, int) and 500 <= status < 600
