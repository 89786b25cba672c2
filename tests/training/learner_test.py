"""What a config asks for is refused before memory is taken for it."""

import pytest

from settings.errors import ConfigError
from settings.trainer_config import load_trainer_config
from tests.settings.helpers import with_dotted
from trainer.training.learner import check_size_of_run


def check(*, list_size=100, epoch_steps=10, **train):
    fields = {"num_epochs": 1, "steps_per_execution": 50, **train}
    config = load_trainer_config(with_dotted({f"train.{name}": value for name, value in fields.items()}))
    check_size_of_run(config, list_size=list_size, epoch_steps=epoch_steps)


def test_a_run_of_too_many_steps_is_refused():
    check(num_epochs=10**7)
    with pytest.raises(ConfigError, match=r"num_epochs=10000001 .*100,000,010 steps.*at most 10000000\."):
        check(num_epochs=10**7 + 1)


def test_a_call_of_too_many_entries_is_refused():
    check(global_batch_size=429_496, list_size=100)
    with pytest.raises(ConfigError, match=r"global_batch_size=429497, with lists of 100 items.*2,147,485,000 entries"):
        check(global_batch_size=429_497, list_size=100)
