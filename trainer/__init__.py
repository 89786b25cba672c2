"""Listwise: a training job for learning to rank. The listing of this folder is the architecture.

From Python, `trainer.train` and `trainer.load_run` do what the commands do; see the module `api`.
"""

from settings.signals import listen_from_start

# Before the other imports, which take seconds. It does nothing where the package is not run as a command.
listen_from_start("trainer", script="listwise")

from typing import TYPE_CHECKING, Any  # noqa: E402

if TYPE_CHECKING:
    from trainer.api import FinishedRun, load_run, train

__all__ = ["FinishedRun", "load_run", "train"]


def __getattr__(name: str) -> Any:
    # Imported on demand, because data preparation has no TensorFlow.
    if name in __all__:
        from trainer import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
