"""A run that diverged is neither saved nor exported, and the error names the step."""

import re

import numpy as np
import pytest

from tests.reliability.runs import STRATEGIES, steps_saved
from trainer.compat import tf

pytestmark = pytest.mark.reliability


@pytest.mark.promise(9, "divergence", "runs saved finite numbers only")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_that_diverges_names_the_step_and_saves_only_what_is_finite(runs, tmp_path, strategy):
    workdir = tmp_path / "run"
    # The learning rate rises to 1e20, so that the first steps are saved.
    fields: dict[str, object] = {"optimizer.learning_rate": 1e20, "optimizer.warmup_steps": 399}
    fields |= {"optimizer.name": "sgd", "optimizer.weight_decay": 0.0, "model.similarity": "dot", "model.scale": 1.0}
    steps = []
    for _ in range(2):
        job = runs.start(workdir, strategy, fields=fields, module="trainer.main")
        assert job.wait() == [1] * len(job.workers), job.text
        assert "Traceback" not in job.text
        steps += [int(step.replace(",", "")) for step in re.findall(r"diverged: at step ([\d,]+)", job.text)]
    # Each worker names the same step, and a second start too.
    assert len(steps) == 2 * len(job.workers) and len(set(steps)) == 1, job.text
    assert all(step <= steps[0] for step in steps_saved(workdir))
    for step in steps_saved(workdir):
        reader = tf.train.load_checkpoint(str(workdir / "checkpoints" / f"step-{step:08d}"))
        for name in reader.get_variable_to_shape_map():
            if not name.startswith("_"):
                assert np.isfinite(reader.get_tensor(name)).all(), name
    assert not (workdir / "model").exists()
