"""Saves that are killed at each of their stages, each in a process of its own.

python -m tests.training.checkpoint_stages FOLDER

This saves steps 10 and 20 in FOLDER/STAGE, and is killed while it saves step 30 and deletes step 10. The processes are
forks of one that has imported TensorFlow and not used it.
"""

import os
import re
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.training.checkpoint_run import Run
from trainer import storage
from trainer.training import snapshot

SIZE = 100_000
KEEP = 2


@dataclass(frozen=True)
class Stage:
    """A moment of the save of step 30.

    Attributes:
      prepare: makes sure that the process is killed then.
      latest: the step that the next start restores.
      by: the signal that kills it.
    """

    prepare: Callable[[], None]
    latest: int
    by: signal.Signals = signal.SIGKILL


def die(*arguments: Any, **options: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(module: Any, name: str, path: str = "") -> Callable[[], None]:
    """Kills the process before a function is called with a path that contains `path`."""
    return lambda: _patch(module, name, path, is_done=False)


def after(module: Any, name: str, path: str = "") -> Callable[[], None]:
    """Kills the process after a function was called with a path that contains `path`."""
    return lambda: _patch(module, name, path, is_done=True)


def _patch(module: Any, name: str, part: str, *, is_done: bool) -> None:
    function = getattr(module, name)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        is_meant = part in str(arguments[0])
        if is_meant and not is_done:
            die()
        result = function(*arguments, **options)
        if is_meant:
            die()
        return result

    setattr(module, name, wrapped)


def while_tensors_are_written() -> None:
    """The kernel kills the process in the middle of a write, because the file grows beyond a limit."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * SIZE, resource.RLIM_INFINITY))


STAGES = {
    "before the snapshot": Stage(before(snapshot, "take"), latest=20),
    "snapshot taken": Stage(after(snapshot, "take"), latest=20),
    "marker not renamed": Stage(before(storage, "rename", "30.partial."), latest=20),
    "marker written": Stage(before(snapshot, "write"), latest=20),
    "tensors half written": Stage(while_tensors_are_written, latest=20, by=signal.SIGXFSZ),
    "tensors written": Stage(after(snapshot, "write"), latest=20),
    "between syncs": Stage(after(storage, "sync", "30.data"), latest=20),
    "tensors synced": Stage(after(storage, "sync", "30.index"), latest=20),
    "manifest not renamed": Stage(before(storage, "rename", "30.json."), latest=20),
    "manifest renamed": Stage(after(storage, "rename", "30.json."), latest=30),
    "marker removed": Stage(after(storage, "remove", "30.partial"), latest=30),
    "prune begun": Stage(before(storage, "rename", "10.json"), latest=30),
    "old manifest renamed": Stage(after(storage, "rename", "10.json"), latest=30),
    "old files half removed": Stage(after(storage, "remove", "10.data"), latest=30),
    "old files removed": Stage(after(storage, "remove", "10.index"), latest=30),
    "old marker removed": Stage(after(storage, "remove", "10.partial"), latest=30),
    "not recorded": Stage(lambda: None, latest=30),
}


def folder_of(folder: str, stage: str) -> str:
    return os.path.join(folder, re.sub(r"\W", "-", stage))


def save_until_killed(folder: str, stage: Stage) -> None:
    run = Run(folder, size=SIZE, keep=KEEP, after_writing=lambda: die() if run.checkpointer.steps()[-1] == 30 else None)
    run.save(10)
    run.save(20)
    stage.prepare()
    run.save(30)


def main(folder: str) -> None:
    """Prints the stages after which the process was not killed as expected."""
    for name, stage in STAGES.items():
        child = os.fork()
        if not child:
            try:
                save_until_killed(folder_of(folder, name), stage)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != stage.by:
            print(f"{name}: status {status}")


if __name__ == "__main__":
    main(sys.argv[1])
