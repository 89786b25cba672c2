"""`trainer.main` without the final evaluation, the export and the report, which take longer than a small training."""

import functools
import runpy

from trainer.training import run

if __name__ == "__main__":
    run.train_and_evaluate = functools.partial(run.train_and_evaluate, evaluate_test=False)
    runpy.run_module("trainer.main", run_name="__main__", alter_sys=True)
