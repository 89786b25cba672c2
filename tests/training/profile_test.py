"""--profile=N: which calls are in the profile, and that it changes nothing."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console
from tensorflow.tsl.profiler.protobuf.xplane_pb2 import XSpace

from settings.errors import ConfigError, DivergedError, StorageError
from settings.trainer_config import load_trainer_config
from tests.conftest import REPOSITORY
from trainer.compat import tf
from trainer.serving.export import verify_in_this_process
from trainer.training.profile import Profiler
from trainer.training.run import train_and_evaluate


def train(config, workdir, profile=0):
    """Takes calls of at most four steps. Returns the numbers of the calls in each profile."""
    config.train.steps_per_execution = 4
    train_and_evaluate(
        load_trainer_config(config),
        strategy_name="default",
        workdir=str(workdir),
        verify_export=verify_in_this_process,
        evaluate_test=False,
        profile=profile,
    )
    return [calls_in(path) for path in sorted(workdir.glob("logs/plugins/profile/*/*.xplane.pb"))]


def calls_in(path):
    """The numbers of the training calls in a profile."""
    numbers = []
    for plane in XSpace.FromString(path.read_bytes()).planes:
        names = {key: metadata.name for key, metadata in plane.event_metadata.items()}
        stats = {key: metadata.name for key, metadata in plane.stat_metadata.items()}
        for line in plane.lines:
            for event in line.events:
                if names[event.metadata_id] == "training_call":
                    values = {stats[stat.metadata_id]: stat.int64_value for stat in event.stats}
                    numbers.append(values["step_num"])
    return sorted(numbers)


def weights_of(workdir):
    (path,) = (path for path in workdir.glob("checkpoints/*.index") if int(path.stem[5:]) == 40)
    reader = tf.train.load_checkpoint(str(path.with_suffix("")))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def learnt(workdir):
    """metrics.jsonl without speed."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line["metrics"].pop("lists_per_second", None)
    return lines


def test_a_resumed_run_that_is_profiled_ends_with_the_same_weights(tiny_config, tmp_path):
    """The last epoch is the resumed part. It has three calls, and the first of them compiles."""
    tiny_config.train.early_stopping_patience = 0
    assert train(tiny_config, tmp_path / "plain") == []
    tiny_config.train.num_epochs = 3
    train(tiny_config, tmp_path / "profiled")
    tiny_config.train.num_epochs = 4
    assert train(tiny_config, tmp_path / "profiled", profile=9) == [[1, 2]]
    assert learnt(tmp_path / "profiled") == learnt(tmp_path / "plain")
    expected, found = weights_of(tmp_path / "plain"), weights_of(tmp_path / "profiled")
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def profile(logs, *, num_calls, num_taken, error=None):
    """Takes calls. Returns what is printed."""
    output = io.StringIO()
    with Profiler(str(logs), num_calls, Console(file=output, width=1000)) as profiler:
        for _ in range(num_taken):
            with profiler.call():
                tf.constant(1.0)
        if error:
            raise error
    return output.getvalue()


def test_a_profile_has_the_calls_after_the_first(tmp_path):
    assert profile(tmp_path, num_calls=2, num_taken=6) == (
        f"Profiled 2 calls. The profile is in {tmp_path}; docs/tensorboard.md says how TensorBoard shows it.\n"
    )
    (path,) = tmp_path.glob("plugins/profile/*/*.xplane.pb")
    assert calls_in(path) == [1, 2]


def test_with_too_few_calls_the_profile_has_those_that_were_taken(tmp_path):
    printed = profile(tmp_path, num_calls=9, num_taken=2)
    assert printed.startswith("Profiled 1 call of the 9 asked for: no more were taken. The profile is in")


@pytest.mark.parametrize(("num_taken", "says"), [(0, "0 more calls"), (1, "1 more call")])
def test_without_a_call_after_the_first_nothing_is_profiled(tmp_path, num_taken, says):
    printed = profile(tmp_path, num_calls=9, num_taken=num_taken)
    assert printed == f"Nothing was profiled: the run took {says}, and the first call compiles.\n"
    assert not list(tmp_path.iterdir())


def test_without_the_flag_nothing_happens(tmp_path):
    assert profile(tmp_path, num_calls=0, num_taken=3) == ""
    assert not list(tmp_path.iterdir())


def test_a_run_that_fails_ends_its_profile(tmp_path):
    """Or the next one in this process could not start."""
    with pytest.raises(DivergedError):
        profile(tmp_path / "a", num_calls=9, num_taken=3, error=DivergedError("diverged"))
    profile(tmp_path / "b", num_calls=1, num_taken=3)
    assert [calls_in(path) for path in sorted(tmp_path.glob("*/plugins/profile/*/*.xplane.pb"))] == [[1, 2], [1]]


def test_a_profile_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "logs").write_text("a file")
    with pytest.raises(StorageError, match=r"logs cannot be written: .*"):
        profile(tmp_path / "logs", num_calls=1, num_taken=3)


@pytest.mark.parametrize("number", ["0", "-1", "many"])
def test_the_number_of_calls_is_checked_before_the_run(tmp_path, number):
    result = subprocess.run(
        [sys.executable, "-m", "trainer.main", f"--workdir={tmp_path}", f"--profile={number}"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert result.returncode == ConfigError.exit_code
    assert f"--profile={number}" in result.stderr and not list(tmp_path.iterdir())
