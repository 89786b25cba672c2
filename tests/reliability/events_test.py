"""TensorBoard tells the truth after a resume: the same steps, and no two values for one of them."""

import pytest

from tests.reliability.runs import STRATEGIES, wait_for_a_random_moment
from tests.training.resume_test import shown

pytestmark = pytest.mark.reliability

NUM_KILLS = 3


@pytest.mark.promise(11, "events", "runs show the same after three kills")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_that_was_killed_three_times_shows_what_one_shows_that_was_not(tmp_path, runs, uninterrupted, strategy):
    workdir = tmp_path / "run"
    for seed in range(100, 100 + NUM_KILLS):
        job = runs.start(workdir, strategy)
        wait_for_a_random_moment(workdir, job, seed)
        job.kill()
    runs.finish(workdir, strategy)
    events, expected = shown(workdir), shown(uninterrupted(strategy))
    assert len({(folder, tag, step) for folder, tag, step, _ in events}) == len(events), "two values for one step"
    assert events == expected and len(events) > 50
