"""A run that stops on some workers goes on with more or fewer: the same lists in the same order, the same training."""

import signal

import numpy as np
import pytest

from tests.reliability.runs import digest_of_tensors, lists_by_step, logged, steps_begun, wait_until

pytestmark = pytest.mark.reliability

# 24 lists can be shared by 1, 2, 3 and 4 workers.
FIELDS: dict[str, object] = {"train.global_batch_size": 24, "train.num_epochs": 60}
EPOCH_STEPS, TOTAL_STEPS = 4, 240
NUM_WORKERS = (1, 2, 4, 3)


def strategy_of(num_workers: int) -> str:
    return "default" if num_workers == 1 else "two workers"


def train_on_changing_workers(runs, workdir, fields) -> dict[int, list[list]]:
    """Trains on 1, 2, 4 and 3 workers in turn, each stopped by a signal. Returns the lists of each step."""
    lists: dict[int, list[list]] = {}
    for phase, num_workers in enumerate(NUM_WORKERS):
        log = f"phase-{phase}"
        options = {"fields": fields, "num_workers": num_workers, "log": log}
        if num_workers == NUM_WORKERS[-1]:
            runs.finish(workdir, strategy_of(num_workers), **options)
        else:
            job = runs.start(workdir, strategy_of(num_workers), **options)
            stop_after = TOTAL_STEPS * (phase + 1) // len(NUM_WORKERS)
            wait_until(lambda log=log, step=stop_after: steps_begun(workdir, log=log) >= step, job)
            job.workers[-1].kill(signal.SIGTERM)  # A signal to one worker stops all of them.
            assert job.wait() == [143] * num_workers, job.text
        of_phase = lists_by_step(workdir, num_workers, log=log)
        assert not lists.keys() & of_phase.keys(), "a step was taken again"
        lists |= of_phase
    return lists


@pytest.fixture(scope="module")
def alone(runs, tmp_path_factory):
    """One worker that nobody stopped."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    runs.finish(workdir, "default", fields=FIELDS)
    return workdir


@pytest.mark.promise(15, "more or fewer workers", "runs train the same")
def test_a_run_goes_on_with_more_or_fewer_workers(runs, alone, tmp_path):
    workdir = tmp_path / "run"
    assert train_on_changing_workers(runs, workdir, FIELDS) == lists_by_step(alone)
    losses, expected = (
        [(line["step"], line["split"], line["metrics"]["loss"]) for line in logged(of)] for of in (workdir, alone)
    )
    assert [line[:2] for line in losses] == [line[:2] for line in expected] and len(losses) > 4
    np.testing.assert_allclose([line[2] for line in losses], [line[2] for line in expected], rtol=1e-3)


@pytest.mark.promise(15, "more or fewer workers", "runs train the same")
def test_with_deterministic_reduction_the_weights_are_equal_bit_for_bit(runs, tmp_path):
    fields = FIELDS | {"train.deterministic_reduction": 12}
    runs.finish(tmp_path / "alone", "default", fields=fields)
    lists = train_on_changing_workers(runs, tmp_path / "run", fields)
    assert lists == lists_by_step(tmp_path / "alone")
    assert digest_of_tensors(tmp_path / "run") == digest_of_tensors(tmp_path / "alone")
