"""`trainer.main` without the final evaluation, the export and the report, which take longer than a small training.

If LISTS_LOG names a file, each step appends a line to it before it is taken: its number, and its real lists on this
process, as [row of the global batch, query, digest of the items].
"""

import functools
import hashlib
import json
import os
import runpy
from collections.abc import Mapping
from typing import Any

from trainer import schema
from trainer.compat import tf
from trainer.training import run, steps


def _log_lists(path: str) -> None:
    build = steps.build_train_call

    def build_logged(strategy: tf.distribute.Strategy, *arguments: Any, **options: Any) -> steps.TrainCall:
        train_call = build(strategy, *arguments, **options)

        def logged_call(superbatch: Mapping[str, Any], first_step: tf.Tensor, num_steps: tf.Tensor) -> steps.Taken:
            lines = [
                json.dumps({"step": int(first_step) + index, "lists": _lists(strategy, superbatch, index)}) + "\n"
                for index in range(int(num_steps))
            ]
            # At once, so that a kill does not lose them.
            with open(path, "ab", buffering=0) as file:
                file.write("".join(lines).encode())
            return train_call(superbatch, first_step, num_steps)

        return logged_call

    steps.build_train_call = build_logged


def _lists(strategy: tf.distribute.Strategy, superbatch: Mapping[str, Any], index: int) -> list[list[int | str]]:
    names = (schema.ROWS, schema.QUERY, schema.ITEMS, schema.WEIGHTS)
    of_features = [strategy.experimental_local_results(superbatch[name]) for name in names]
    return [
        [int(row), int(query), hashlib.sha256(items.tobytes()).hexdigest()[:12]]
        for of_replica in zip(*of_features, strict=True)
        for row, query, items, weight in zip(*(feature[index].numpy() for feature in of_replica), strict=True)
        if weight
    ]


if __name__ == "__main__":
    if "LISTS_LOG" in os.environ:
        _log_lists(os.environ["LISTS_LOG"])
    run.train_and_evaluate = functools.partial(run.train_and_evaluate, evaluate_test=False)
    runpy.run_module("trainer.main", run_name="__main__", alter_sys=True)
