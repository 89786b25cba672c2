"""Every config field that a string in the source names is a field."""

import ast
import re

import pytest

from configs import default
from configs.launch import default as launch_default
from tests.conftest import REPOSITORY

# config.json is a file. A name that ends in a dot is completed by an f-string.
_FIELD = re.compile(r"(?<![\w/.])config\.(?!json\b)([a-z_0-9]+(?:\.[a-z_0-9]+)*)(?!\()")


def names(tree, prefix=""):
    """The dotted names of all sections and fields."""
    found = set()
    for name, value in tree.items():
        found |= {prefix + name}
        if isinstance(value, dict):
            found |= names(value, f"{prefix}{name}.")
    return found


TRAINER = names(default.get_config().to_dict())
LAUNCHER = names(launch_default.get_config().to_dict())


def named_fields(source):
    return {
        field
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for field in _FIELD.findall(node.value)
    }


def test_the_fields_in_a_string_are_found():
    source = 'f"config.optimizer.final_fraction={x} is wrong, see config.json"; config.train.other'
    assert named_fields(source) == {"optimizer.final_fraction"}


@pytest.mark.parametrize(
    ("folder", "known"), [("trainer", TRAINER), ("settings", TRAINER), ("launch", TRAINER | LAUNCHER)]
)
def test_every_named_field_exists(folder, known):
    sources = {str(path): path.read_text() for path in (REPOSITORY / folder).rglob("*.py")}
    unknown = {name: named_fields(source) - known for name, source in sources.items()}
    assert {name: fields for name, fields in unknown.items() if fields} == {}
    assert any(named_fields(source) for source in sources.values())
