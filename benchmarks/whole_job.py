"""Shows where the seconds of `make train` go.

    python -m benchmarks.whole_job

It runs what `make train` runs: the default config on the embedded ratings with --strategy=mirrored, and then the five
recommendations for user 42. The functions of the run are timed from outside. A phase does not include the time of the
phases within it, so that all seconds are counted once and add up to the total. Steps that follow in time but need no
waiting are in `the rest`: TensorBoard's files, the config, the console.

The total is the time of both processes without the start of Python, and without the installation that the first
`make train` begins with. It takes as long as `make train`, about half a minute on 2 CPU cores.
"""

import functools
import importlib
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from benchmarks import harness
from settings import cli

FIRST_CALL, LATER_CALLS = "first training call (tracing, XLA)", "later training calls"
IMPORT_TENSORFLOW, IMPORT_TRAINER = "import TensorFlow and TF-Ranking", "import the trainer"
RECOMMEND, REST = "trainer.recommend, a process of its own", "the rest"

PHASES = {
    "trainer.training.run:load_dataset": "read the ratings and build lists",
    "trainer.training.run:build_learner": "build the model",
    "trainer.training.run:_build_trainer": "build the input pipeline and the calls",
    "trainer.training.run:_restore": "look for checkpoints",
    "trainer.training.loop:Trainer.train": LATER_CALLS,
    "trainer.training.loop:Trainer.validate": "validations",
    "trainer.training.checkpoint:Checkpointer.save": "save checkpoints",
    "trainer.training.learner:Learner.check_finite": "check that all values are finite",
    "trainer.training.run:export_model": "export the model",
    "trainer.serving.export:verify_in_fresh_process": "check the export in a fresh process",
    "trainer.evaluation.protocols:evaluate_queries": "final evaluation",
    "trainer.evaluation.protocols:means_of": "confidence intervals of the final metrics",
}
"""The functions that are timed, and their phases."""


class Stopwatch:
    """Measures phases that call each other, each without the phases within it.

    Attributes:
      seconds: by phase.
      calls: by phase.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self._clock = clock
        self._within = [0.0]  # The seconds of the phases within each phase that has begun.

    def watch(self, function: Callable[..., Any], name_fn: Callable[[], str]) -> Callable[..., Any]:
        """The same function, timed under the phase that `name_fn` names when it is called."""

        @functools.wraps(function)
        def watched(*arguments: Any, **named: Any) -> Any:
            name, started = name_fn(), self._clock()
            self.calls[name] += 1
            self._within.append(0.0)
            try:
                return function(*arguments, **named)
            finally:
                seconds = self._clock() - started
                self.seconds[name] += seconds - self._within.pop()
                self._within[-1] += seconds

        return watched


def train(workdir: str) -> dict[str, dict[str, float]]:
    """Runs the job and returns the seconds and calls of each phase."""
    stopwatch = Stopwatch()

    def import_under(phase: str, module: str) -> Any:
        return stopwatch.watch(importlib.import_module, lambda: phase)(module)

    def run() -> None:
        import_under(IMPORT_TENSORFLOW, "trainer.compat")
        training = import_under(IMPORT_TRAINER, "trainer.training.run")
        for path, phase in PHASES.items():
            _watch_in_place(stopwatch, path, phase)
        from configs import default
        from settings.trainer_config import load_trainer_config
        from trainer.serving import export

        training.train_and_evaluate(
            load_trainer_config(default.get_config()),
            strategy_name="mirrored",
            workdir=workdir,
            verify_export=export.verify_in_fresh_process,
        )

    stopwatch.watch(run, lambda: REST)()
    return {"seconds": dict(stopwatch.seconds), "calls": dict(stopwatch.calls)}


def _watch_in_place(stopwatch: Stopwatch, path: str, phase: str) -> None:
    module, _, name = path.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = name.split(".")
    for parent in parents:
        owner = getattr(owner, parent)

    def name_fn() -> str:
        return FIRST_CALL if phase == LATER_CALLS and not stopwatch.calls[FIRST_CALL] else phase

    setattr(owner, name, stopwatch.watch(getattr(owner, name), name_fn))


def recommend(workdir: str) -> float:
    """The seconds of the recommendations for one user, as a user runs them."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "trainer.recommend", f"--workdir={workdir}", "--user_id=42", "--k=5"]
    subprocess.run(command, cwd=harness.REPOSITORY, check=True)
    return time.perf_counter() - started


def main() -> int:
    """Runs the job once and prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = harness.run_side("benchmarks.whole_job:train", workdir=f"{folder}/run")
        seconds, calls = outcome.value["seconds"], outcome.value["calls"]
        seconds[RECOMMEND] = harness.run_side("benchmarks.whole_job:recommend", workdir=f"{folder}/run").value
    total = sum(seconds.values())
    ordered = sorted(seconds, key=lambda phase: -seconds[phase])
    rows = [
        (phase, f"{seconds[phase]:.2f}", f"{seconds[phase] / total:.0%}", str(calls.get(phase, 1))) for phase in ordered
    ]
    rows.append(("total", f"{total:.2f}", "100%", ""))
    notes = [f"Peak memory of the training process: {outcome.peak_bytes / 1e9:.2f} GB."]
    columns = ("phase", "seconds", "share", "calls")
    results = {"seconds": seconds, "calls": calls, "total_seconds": total, "peak_bytes": outcome.peak_bytes}
    harness.report("whole_job", columns, rows, notes=notes, **results)
    return 0


if __name__ == "__main__":
    cli.run(main)
