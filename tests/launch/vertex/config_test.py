"""The launch config is checked by the same mechanism as the trainer's."""

import copy
import importlib
import math

import pytest

from configs.launch import default
from launch.vertex.config import load_job_config
from settings.errors import ConfigError
from tests.launch.vertex.commands import CONFIGS, refused, with_destination


def flatten(tree, prefix=""):
    flat = {}
    for name, value in tree.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


DEFAULT = flatten(default.get_config().to_dict())


def default_section(name):
    """A copy of all fields, the section of the named field in it, and the last part of the name."""
    fields = copy.deepcopy(default.get_config().to_dict())
    *sections, field = name.split(".")
    section = fields
    for part in sections:
        section = section[part]
    return fields, section, field


def message(fields):
    with pytest.raises(ConfigError) as caught:
        load_job_config(fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_is_valid_and_keeps_its_values(name):
    config = importlib.import_module(f"configs.launch.{name}").get_config()
    job = load_job_config(config)
    assert job.model_dump(exclude_unset=True) == config.to_dict()
    assert job.scheduling.timeout_hours == config.scheduling.timeout_hours


@pytest.mark.parametrize("name", DEFAULT)
def test_a_missing_field_is_named(name):
    fields, section, field = default_section(name)
    del section[field]
    assert message(fields) == (
        f"config.{name} is missing. Start from configs.launch.default.get_config() and change only what differs."
    )


@pytest.mark.parametrize("name", DEFAULT)
def test_a_value_of_another_type_is_refused(name):
    for value in (None, b"x"):
        fields, section, field = default_section(name)
        section[field] = value
        assert message(fields).startswith(f"config.{name}={value!r} is of type {type(value).__name__}. It has to be ")


@pytest.mark.parametrize("name", [name for name, value in DEFAULT.items() if isinstance(value, float)])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_not_finite_is_refused(name, value):
    fields, section, field = default_section(name)
    section[field] = value
    assert message(fields) == f"config.{name}={value!r} cannot be used: it has to be a finite number."


def test_a_mistake_in_a_config_file_is_one_paragraph(capsys, tmp_path):
    path = tmp_path / "launch.py"
    start = "from configs.launch import default\ndef get_config():\n    config = default.get_config()\n"
    for line, says in (
        ("del config.scheduling.timeout_hours", "config.scheduling.timeout_hours is missing"),
        ("config.scheduling.patience = 3", "config.scheduling.patience is not a field"),
        ("del config.num_machines; config.num_machines = '3'", "config.num_machines='3' is of type str"),
    ):
        path.write_text(f"{start}    {line}\n    return config\n")
        assert says in refused(capsys, with_destination([f"--config={path}"], []))
