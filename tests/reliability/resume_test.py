"""A run that is killed at any moment ends with the model of a run that is not."""

import pytest

from tests.reliability.runs import (
    CHECKPOINT_EVERY_STEPS,
    EPOCH_STEPS,
    STRATEGIES,
    TOTAL_STEPS,
    digest_of_tensors,
    lists_by_step,
    logged,
    num_replayed,
    wait_for_a_random_moment,
)

NUM_KILLS = 20

# Each push kills two runs, at moments in the middle.
SHORT = {("default", 10), ("default", 16)}

CASES = [
    pytest.param(strategy, seed, marks=() if (strategy, seed) in SHORT else pytest.mark.reliability)
    for strategy in STRATEGIES
    for seed in range(NUM_KILLS)
]


@pytest.mark.promise(1, "resume", "runs equal")
@pytest.mark.promise(2, "lost steps", "runs lost no more than promised")
@pytest.mark.parametrize(("strategy", "seed"), CASES)
def test_a_run_that_is_killed_at_a_random_moment_ends_as_one_that_is_not(tmp_path, runs, uninterrupted, strategy, seed):
    expected = uninterrupted(strategy)
    workdir = tmp_path / "run"
    job = runs.start(workdir, strategy)
    wait_for_a_random_moment(workdir, job, seed)
    job.kill()
    runs.finish(workdir, strategy)
    assert digest_of_tensors(workdir) == digest_of_tensors(expected)
    assert digest_of_tensors(workdir)[0] == TOTAL_STEPS
    assert logged(workdir) == logged(expected)
    num_workers = STRATEGIES[strategy][1]
    assert lists_by_step(workdir, num_workers) == lists_by_step(expected, num_workers)
    # While a checkpoint is written, the next steps are taken. They are lost too if it does not become whole.
    assert num_replayed(workdir) <= 2 * CHECKPOINT_EVERY_STEPS


@pytest.mark.reliability
@pytest.mark.promise(4, "order", "strategies take every list once an epoch")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_list_is_taken_once_an_epoch(uninterrupted, strategy):
    lists = lists_by_step(uninterrupted(strategy), STRATEGIES[strategy][1])
    assert sorted(lists) == list(range(TOTAL_STEPS))
    epochs = [
        [tuple(each[1:]) for step in range(begin, begin + EPOCH_STEPS) for each in lists[step]]
        for begin in range(0, TOTAL_STEPS, EPOCH_STEPS)
    ]
    assert all(len(set(epoch)) == len(epoch) > 8 * (EPOCH_STEPS - 1) for epoch in epochs)
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert epochs[0] != epochs[1]
