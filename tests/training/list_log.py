"""A log of the lists of each step, taken from the batches that the training call gets.

In this process: `with logged_lists() as log`. In one of its own, which appends a line for each step to a file:

    python -m tests.training.list_log LOG.jsonl --config=... --workdir=...

runs trainer.main with these flags. A worker logs the rows of its own replicas.
"""

import contextlib
import hashlib
import json
import runpy
import sys
from collections.abc import Iterator

from trainer import schema
from trainer.compat import tf
from trainer.training import steps


class ListLog:
    """What was trained on, and what came of it.

    Attributes:
      lists: step → the list of each real row of the global batch, in order, as [row, query, SHA-256 of its items].
      variables: those of the model and the optimizer.
    """

    def __init__(self, path: str = ""):
        self.lists: dict[int, list[list]] = {}
        self.variables: list[tf.Variable] = []
        self._path = path

    def note(self, strategy: tf.distribute.Strategy, superbatch, first_step: int, num_steps: int) -> None:
        names = (schema.ROWS, schema.QUERY, schema.ITEMS, schema.WEIGHTS)
        replicas = list(zip(*(strategy.experimental_local_results(superbatch[name]) for name in names), strict=True))
        for index in range(num_steps):
            rows = [
                [int(row), int(query), hashlib.sha256(items.tobytes()).hexdigest()[:12]]
                for features in replicas
                for row, query, items, weight in zip(*(feature[index].numpy() for feature in features), strict=True)
                if weight
            ]
            self.lists[first_step + index] = sorted(rows)
            if self._path:
                with open(self._path, "a") as file:
                    file.write(json.dumps({"step": first_step + index, "lists": sorted(rows)}) + "\n")

    def digest(self) -> str:
        """The SHA-256 of the bits of all variables as they are now."""
        hashed = hashlib.sha256()
        for variable in self.variables:
            hashed.update(variable.numpy().tobytes())
        return hashed.hexdigest()


@contextlib.contextmanager
def logged_lists(path: str = "") -> Iterator[ListLog]:
    """Logs the runs of this process in the body, and also to a file if a path is given."""
    log, build = ListLog(path), steps.build_train_call

    def build_train_call(strategy, model, optimizer, *arguments, **options):
        train_call = build(strategy, model, optimizer, *arguments, **options)
        log.variables = [*model.variables, *optimizer.variables]

        def logged_call(superbatch, first_step, num_steps):
            log.note(strategy, superbatch, int(first_step), int(num_steps))
            return train_call(superbatch, first_step, num_steps)

        return logged_call

    steps.build_train_call = build_train_call
    try:
        yield log
    finally:
        steps.build_train_call = build


if __name__ == "__main__":
    log_path = sys.argv.pop(1)
    with logged_lists(log_path):
        runpy.run_module("trainer.main", run_name="__main__", alter_sys=True)
