"""A run that stops on two replicas goes on with one or four: over the same lists, in the same order."""

import json
import shutil
import signal

import numpy as np
import pytest

from settings.errors import Stopped
from tests.conftest import mirrored_strategy, train
from tests.training.list_log import logged_lists
from trainer import strategy as strategy_lib
from trainer.compat import tf
from trainer.training.loop import Trainer

STOP_AFTER = 12


def run(config, workdir, num_replicas, *, stop_after=None):
    """Trains on so many replicas, until SIGTERM after a step. Returns the log of its lists."""
    strategy = mirrored_strategy(num_replicas) if num_replicas > 1 else tf.distribute.get_strategy()
    take_call = Trainer.train

    def take_call_and_stop(trainer, begin, end):
        take_call(trainer, begin, end)
        if end == stop_after:
            signal.raise_signal(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patched, logged_lists() as log:
        patched.setattr(strategy_lib, "build_strategy", lambda name, **options: strategy)
        patched.setattr(Trainer, "train", take_call_and_stop)
        if stop_after is None:
            train(config, workdir)
        else:
            with pytest.raises(Stopped):
                train(config, workdir)
    return log


def losses(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line["metrics"]["loss"] for line in lines if line["split"] == "train"]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("num_virtual", [0, 4])
def test_on_another_number_of_replicas(tiny_config, tmp_path, num_virtual, capsys):
    tiny_config.split.method = "none"
    tiny_config.train.early_stopping_patience = 0
    tiny_config.train.steps_per_execution = 4
    tiny_config.train.log_every_steps = 4
    tiny_config.train.num_epochs = 6
    tiny_config.train.deterministic_reduction = num_virtual
    whole = run(tiny_config, tmp_path / "whole", 1)
    expected = whole.digest()
    assert sorted(whole.lists) == list(range(len(whole.lists))) and len(whole.lists) >= STOP_AFTER + 8

    stopped = run(tiny_config, tmp_path / "two", 2, stop_after=STOP_AFTER)
    assert sorted(stopped.lists) == list(range(STOP_AFTER))
    capsys.readouterr()
    for num_replicas in (1, 4):
        workdir = tmp_path / f"two then {num_replicas}"
        shutil.copytree(tmp_path / "two", workdir)
        resumed = run(tiny_config, workdir, num_replicas)
        assert stopped.lists | resumed.lists == whole.lists
        assert min(resumed.lists) == STOP_AFTER
        np.testing.assert_allclose(losses(workdir), losses(tmp_path / "whole"), rtol=1e-4)
        said = "the weights can differ" in " ".join(capsys.readouterr().out.split())
        if num_virtual:
            assert resumed.digest() == expected and not said
        else:
            assert resumed.digest() != expected and said
