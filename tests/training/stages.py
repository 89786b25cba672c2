"""The moments of a run, by name, and processes of the trainer that get a signal at one of them.

TensorFlow is imported once, in a process that forks for each run. As a program, this module is that process.
"""

import contextlib
import functools
import importlib
import json
import os
import pathlib
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Stage:
    """A moment of a run: the begin or the end of a call of a function.

    Attributes:
      function: MODULE:NAME, where the run looks the function up.
      is_after: whether the moment is the end of the call.
      call: which call, from 1.
    """

    function: str
    is_after: bool = False
    call: int = 1


_RUN = "trainer.training.run"
_TRAINER = "trainer.training.loop:Trainer"
_WRITER = "trainer.training.metric_writer:MetricWriter"
_SAVE = "trainer.training.checkpoint:Checkpointer.save"

BEFORE_TRAINING = {
    "reading the data": Stage(f"{_RUN}:load_dataset"),
    "building the model": Stage(f"{_RUN}:build_learner"),
    "restoring": Stage(f"{_RUN}:resume.restore"),
    "writing data.json": Stage("trainer.storage:sync", call=3),
    "continuing the logs": Stage("trainer.training.tensorboard_sink:TensorBoardSink.truncate_after"),
    "writing the config": Stage("trainer.training.tensorboard_sink:TensorBoardSink.write_config", is_after=True),
}
"""Here nothing has to be saved."""

TRAINING = {
    "in a call": Stage(f"{_TRAINER}.train"),
    "after a call": Stage(f"{_TRAINER}.train", is_after=True),
    "validating": Stage(f"{_TRAINER}.validate"),
    "saving": Stage(_SAVE),
    "after a save": Stage(_SAVE, is_after=True),
}
"""Here the run takes a call to its end, or one more, and saves it."""

AFTER_TRAINING = {
    "the last save": Stage(_SAVE),
    "restoring the best": Stage(f"{_RUN}:Checkpointer.restore_best"),
    "exporting": Stage(f"{_RUN}:export_model"),
    "checking the export": Stage("trainer.serving.export:run_check"),
    "replacing the model": Stage("trainer.serving.export:manifest.write_manifest", is_after=True),
    "after the export": Stage(f"{_RUN}:export_model", is_after=True),
    "writing the projector": Stage("trainer.training.projector:_line", call=2),
    "evaluating": Stage("trainer.evaluation.protocols:evaluate_queries"),
    "before the final metrics": Stage(f"{_WRITER}.write_final_metrics"),
    "after the final metrics": Stage(f"{_WRITER}.write_final_metrics", is_after=True),
    "writing the queries": Stage(f"{_RUN}:write_queries", is_after=True),
    "before result.json": Stage(f"{_WRITER}.close", is_after=True),
    "after result.json": Stage("trainer.training.summary:print_result"),
    "reporting": Stage("trainer.reporting.page:render_run"),
}
"""Here all steps are saved. The last save is that of a run that has no other left."""

STAGES = {**BEFORE_TRAINING, **TRAINING, **AFTER_TRAINING}
"""In the order in which they come. Each stops a run that was stopped at all those before it, with 8 calls in 4 epochs:
the run of `RUN_FIELDS`."""

RUN_FIELDS = {
    "data.item_identity": "item_id",
    "data.columns.title": "title",
    "split.method": "random",
    "list_size": 12,
    "model.embedding_size": 8,
    "train.global_batch_size": 8,
    "train.num_epochs": 4,
    "train.steps_per_execution": 5,
    "train.early_stopping_patience": 0,
    "optimizer.learning_rate": 0.5,
    "eval.relevance_threshold": 4.0,
    "eval.metrics": "('ndcg@5', 'mrr')",
    "eval.best_metric": "ndcg@5",
}
"""The fields of a small run on the ratings of `tests.conftest.ratings_csv`, for configs/tutorial.py."""


def run_flags(workdir: pathlib.Path | str, ratings: str, **fields: object) -> list[str]:
    """The arguments of `trainer.main` for the run of RUN_FIELDS."""
    fields = {"data.source": ratings, **RUN_FIELDS, **fields}
    return [
        f"--workdir={workdir}",
        "--config=configs/tutorial.py",
        *(f"--config.{name}={value}" for name, value in fields.items()),
    ]


@dataclass(frozen=True)
class Ended:
    """How a run ended. The return code is that of `subprocess`."""

    returncode: int
    stdout: str
    stderr: str


class Forks:
    """Runs commands of the trainer, each in a fork of a process that has imported TensorFlow."""

    def __init__(self, process: subprocess.Popen[str], folder: pathlib.Path):
        self._process = process
        self._folder = folder

    def run(
        self,
        arguments: Sequence[str],
        *,
        module: str = "trainer.main",
        stage: Stage | None = None,
        number: signal.Signals = signal.SIGTERM,
    ) -> Ended:
        """Runs `python -m MODULE ARGUMENTS`, which sends itself the signal at the stage."""
        request = {
            "arguments": [module, *arguments],
            "stage": stage and asdict(stage),
            "number": number,
            "folder": str(self._folder),
        }
        assert self._process.stdin and self._process.stdout
        print(json.dumps(request), file=self._process.stdin, flush=True)
        status = int(self._process.stdout.readline())
        outputs = [(self._folder / name).read_text() for name in ("stdout", "stderr")]
        return Ended(os.waitstatus_to_exitcode(status), *outputs)


@contextlib.contextmanager
def forks(folder: pathlib.Path) -> Iterator[Forks]:
    """Starts the process that forks. `folder` gets the output of the newest run."""
    with subprocess.Popen(
        [sys.executable, "-m", __name__], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Forks(process, folder)


def _serve() -> None:
    """Answers each request with the status of a fork. In the fork, it returns what to run."""
    # Not the functions of these modules: a fork replaces some of them.
    for module in ("trainer.training.run", "trainer.reporting.page", "trainer.reporting.samples"):
        importlib.import_module(module)
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            _become(**json.loads(line))
            return
        print(os.waitpid(pid, 0)[1], flush=True)
    sys.exit()


def _become(arguments: list[str], stage: dict | None, number: int, folder: str) -> None:
    from trainer.serving import export, verify_export

    # A fresh process would import TensorFlow once more.
    export.run_check = lambda script, sample: verify_export.compare(sample)
    sys.argv[:] = arguments
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    if stage:
        _send_at(Stage(**stage), number)


def _send_at(stage: Stage, number: int) -> None:
    module, _, path = stage.function.partition(":")
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    function = getattr(owner, name)
    calls = 0

    @functools.wraps(function)
    def call(*arguments, **options):  # type: ignore[no-untyped-def]
        nonlocal calls
        calls += 1
        if calls == stage.call and not stage.is_after:
            os.kill(os.getpid(), number)
        result = function(*arguments, **options)
        if calls == stage.call and stage.is_after:
            os.kill(os.getpid(), number)
        return result

    setattr(owner, name, call)


if __name__ == "__main__":
    _serve()
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
