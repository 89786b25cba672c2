"""The moments of a run, by name. As a program: a command that sends itself a signal at one of them.

STAGE=exporting STAGE_SIGNAL=15 python -m tests.training.stages FLAGS
"""

import functools
import importlib
import os
import pathlib
import runpy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

STAGE, SIGNAL, COMMAND = "STAGE", "STAGE_SIGNAL", "STAGE_COMMAND"
"""Variables of the program: the name of the stage, the number of the signal, and the module (trainer.main)."""


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

STAGES: dict[str, Stage] = {**BEFORE_TRAINING, **TRAINING, **AFTER_TRAINING}
"""In the order in which they come. Each stops a run that was stopped at all those before it, with 10 calls in 5 epochs:
the run of `RUN_FIELDS`."""

OTHER_COMMANDS = {
    "evaluate": Stage("trainer.evaluation.protocols:evaluate_queries", is_after=True),
    "compare": Stage("trainer.evaluation.comparison:load_run", is_after=True),
    "report": Stage("trainer.storage:sync"),
    "export": Stage("trainer.serving.manifest:write_manifest", is_after=True),
    "recommend": Stage("trainer.storage:sync"),
    "prepare": Stage("trainer.storage:sync", call=5),
}
"""A moment of each command with a finished run or its ratings. Where it writes, the file or folder is half-written."""

RUN_FIELDS = {
    "data.item_identity": "item_id",
    "data.columns.title": "title",
    "split.method": "random",
    "list_size": 12,
    "model.embedding_size": 8,
    "train.global_batch_size": 8,
    "train.num_epochs": 5,
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


def send_at(name: str, number: int, set_attribute: Callable[[Any, str, Any], None] = setattr) -> None:
    """Lets this process send itself a signal at a stage.

    Args:
      name: one of STAGES or OTHER_COMMANDS.
      number: the signal.
      set_attribute: replaces the function of the stage.
    """
    stage = {**STAGES, **OTHER_COMMANDS}[name]
    module, _, path = stage.function.partition(":")
    *owners, attribute = path.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    function = getattr(owner, attribute)
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

    set_attribute(owner, attribute, call)


def _main() -> None:
    from trainer.serving import export, verify_export

    # A fresh process would import TensorFlow once more.
    export.run_check = lambda script, sample: verify_export.compare(sample)
    if name := os.environ.get(STAGE):
        send_at(name, int(os.environ[SIGNAL]))
    runpy.run_module(os.environ.get(COMMAND, "trainer.main"), run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
