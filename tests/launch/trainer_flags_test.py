"""The trainer's flags as the launchers read them: one list, no unknown flags."""

import re

import pytest
from absl import app, flags

from launch.trainer_flags import read_trainer_flags
from settings.errors import ConfigError
from settings.trainer_flags import define_trainer_flags
from tests.conftest import REPOSITORY


def trainer_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    define_trainer_flags(values)
    return values


def test_the_trainer_has_no_flag_that_the_launchers_do_not_know():
    """Define a new one in settings/trainer_flags.py."""
    assert re.findall(r"\bDEFINE_\w+", (REPOSITORY / "trainer" / "main.py").read_text()) == ["DEFINE_config_file"]


@pytest.mark.parametrize("name", sorted(trainer_flags()))
def test_every_flag_of_the_trainer_is_known(name):
    values = trainer_flags()
    value = {"workdir": "runs/mine", "profile": 5}.get(name, values[name].default)
    assert read_trainer_flags([f"--{name}={value}"]).strategy == "default"


@pytest.mark.parametrize("flag", ["--verbosity=1", "--notraceback", "--noallow_cpu"])
def test_flags_of_every_command_are_known_and_stay_as_they_are_in_this_process(flag):
    before = {name: flags.FLAGS[name].value for name in ("verbosity", "traceback")}
    assert read_trainer_flags([flag, "--strategy=mirrored"]).strategy == "mirrored"
    assert {name: flags.FLAGS[name].value for name in before} == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--strategi=mirrored"], "--strategi is not a flag; did you mean --strategy? `python -m trainer.main --help`"),
        (["--num_cpu_device=2"], "did you mean --num_cpu_devices?"),
        (["--zzz"], "--zzz is not a flag. `python -m trainer.main --help` lists the flags."),
        (["--helpful"], "--helpful is not a flag"),
        (["--help"], "--help is not a flag"),
        (["mirrored"], "'mirrored' is not a flag. Write each argument as --name=value."),
        (["--", "--strategy=tpu"], "'--strategy=tpu' is not a flag"),
    ],
)
def test_an_unknown_flag_is_refused_with_the_nearest_one(arguments, says):
    # As in a command that absl starts.
    app.define_help_flags()
    with pytest.raises(ConfigError, match=r"^In the trainer's flags, which follow --: ") as caught:
        read_trainer_flags(arguments)
    assert says in str(caught.value)


def test_the_config_file_is_the_one_that_was_given():
    assert read_trainer_flags(["--config=configs/tutorial.py", "--config.seed=3"]).config_file == "configs/tutorial.py"
    assert read_trainer_flags(["--config.seed=3"]).config_file is None


def test_a_launcher_has_its_own_default_strategy():
    assert read_trainer_flags([], default_strategy="tpu").strategy == "tpu"
    assert read_trainer_flags(["--strategy=mirrored"], default_strategy="tpu").strategy == "mirrored"
