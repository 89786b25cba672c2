"""TensorBoard tells the truth after a resume: the same steps, and no two values for one of them."""

import pathlib

import pytest
from tensorboard.compat.proto import event_pb2

from tests.reliability.runs import STRATEGIES, wait_for_a_random_moment
from trainer.compat import tf

pytestmark = pytest.mark.reliability

NUM_KILLS = 3


def events_of(workdir: pathlib.Path) -> list[tuple[str, str, int, bytes]]:
    """What TensorBoard shows, as (folder, tag, step, value), sorted. Without what a clock has measured."""
    values = [
        (path.parent.name, value.tag, event.step, value.tensor.SerializeToString())
        for path in workdir.glob("logs/**/events.out.tfevents.*")
        for record in tf.data.TFRecordDataset(str(path))
        for event in [event_pb2.Event.FromString(record.numpy())]
        for value in event.summary.value
    ]
    return sorted(value for value in values if "lists_per_second" not in value[1])


@pytest.mark.promise(11, "events", "runs show the same after three kills")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_that_was_killed_three_times_shows_what_one_shows_that_was_not(tmp_path, runs, uninterrupted, strategy):
    workdir = tmp_path / "run"
    for seed in range(100, 100 + NUM_KILLS):
        job = runs.start(workdir, strategy)
        wait_for_a_random_moment(workdir, job, seed)
        job.kill()
    runs.finish(workdir, strategy)
    events, expected = events_of(workdir), events_of(uninterrupted(strategy))
    assert len({(folder, tag, step) for folder, tag, step, _ in events}) == len(events), "two values for one step"
    assert events == expected and len(events) > 50
