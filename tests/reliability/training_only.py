"""`trainer.main` without the final evaluation, the export and the report, which take longer than a small training.

If LISTS_LOG names a file, it gets a line for each training call before its steps are taken: the first step, the step
after the last, and for each step a digest of each list of this process, in the order of the batch.
"""

import functools
import hashlib
import json
import os
import runpy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from trainer import schema
from trainer.compat import tf
from trainer.training import run
from trainer.training.loop import Trainer


def _log_lists(path: str) -> None:
    train = Trainer.train

    def logged_train(self: Trainer, begin: int, end: int) -> None:
        superbatch = next(self.batches)
        lists = _digests(superbatch)[: end - begin]
        line = json.dumps({"begin": begin, "end": end, "lists": lists}) + "\n"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.write(descriptor, line.encode())  # At once, so that a kill does not lose it.
        os.close(descriptor)
        self.batches = _first_and_then(superbatch, self.batches)
        train(self, begin, end)

    Trainer.train = logged_train  # type: ignore[method-assign]


def _digests(superbatch: Mapping[str, Any]) -> list[list[str]]:
    """For each step of a superbatch, a digest of each list of this process: its query and its items."""
    of_features = []
    for name in (schema.QUERY, schema.ITEMS, schema.LABELS):
        if name in superbatch:
            value = superbatch[name]
            parts = value.values if isinstance(value, tf.distribute.DistributedValues) else [value]
            arrays = np.concatenate([part.numpy() for part in parts], axis=1)
            of_features.append(arrays.reshape([*arrays.shape[:2], -1]).astype(np.float64))
    rows = np.concatenate(of_features, axis=2)
    return [[hashlib.sha256(row.tobytes()).hexdigest()[:12] for row in step] for step in rows]


def _first_and_then(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


if __name__ == "__main__":
    if "LISTS_LOG" in os.environ:
        _log_lists(os.environ["LISTS_LOG"])
    run.train_and_evaluate = functools.partial(run.train_and_evaluate, evaluate_test=False)
    runpy.run_module("trainer.main", run_name="__main__", alter_sys=True)
