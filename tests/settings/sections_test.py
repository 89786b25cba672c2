"""build_section on a small section: it returns typed values, and names each field that is wrong."""

import math
from typing import Annotated, Literal

import pytest
from ml_collections import ConfigDict
from pydantic import Field, ValidationError

from settings.errors import ConfigError
from settings.sections import Section, build_section


class Oven(Section):
    degrees: float = Field(gt=0, le=300)
    racks: int = Field(ge=1, description="a number of racks, at least 1")
    mode: Literal["fan", "grill"]
    minutes: tuple[Annotated[int, Field(ge=0)], ...] = Field(description="a tuple of minutes")


class Kitchen(Section):
    oven: Oven
    name: str
    is_open: bool


DEFAULTS = {
    "oven": {"degrees": 180.0, "racks": 2, "mode": "fan", "minutes": (10, 20)},
    "name": "small",
    "is_open": True,
}


def build(**changes):
    """The section with some fields changed; "oven__racks" stands for oven.racks."""
    fields = {**DEFAULTS, "oven": dict(DEFAULTS["oven"])}
    for name, value in changes.items():
        *sections, field = name.split("__")
        (fields["oven"] if sections else fields)[field] = value
    return build_section(Kitchen, fields, defaults=DEFAULTS, defaults_file="configs/kitchen.py")


def message(**changes):
    with pytest.raises(ConfigError) as caught:
        build(**changes)
    return str(caught.value)


def test_the_values_are_read_as_attributes_and_dumped_as_plain_values():
    kitchen = build(oven__racks=5)
    assert kitchen.oven.racks == 5 and kitchen.name == "small"
    assert kitchen.model_dump() == {**DEFAULTS, "oven": {**DEFAULTS["oven"], "racks": 5}}
    assert type(kitchen.model_dump()["oven"]) is dict


def test_a_config_dict_and_a_mapping_give_the_same_section():
    assert build_section(Kitchen, ConfigDict(DEFAULTS), defaults=DEFAULTS, defaults_file="") == build()


def test_an_int_is_accepted_for_a_float_and_a_list_for_a_tuple():
    oven = build(oven__degrees=200, oven__minutes=[5]).oven
    assert (oven.degrees, type(oven.degrees), oven.minutes) == (200.0, float, (5,))


def test_a_section_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        build().oven.racks = 3


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("oven__racks", 0, "config.oven.racks=0 cannot be used: it has to be a number of racks, at least 1."),
        ("oven__degrees", 0.0, "config.oven.degrees=0.0 cannot be used: it has to be above 0."),
        ("oven__degrees", 301, "config.oven.degrees=301 cannot be used: it has to be at most 300."),
        ("oven__degrees", math.inf, "config.oven.degrees=inf cannot be used: it has to be a finite number."),
        ("oven__degrees", math.nan, "config.oven.degrees=nan cannot be used: it has to be a finite number."),
        ("oven__degrees", "hot", "config.oven.degrees='hot' is of type str. It has to be of type float, like its "
         "default 180.0."),
        ("oven__racks", True, "config.oven.racks=True is of type bool. It has to be of type int, like its default 2."),
        ("oven__racks", 2.0, "config.oven.racks=2.0 is of type float. It has to be of type int, like its default 2."),
        ("is_open", 1, "config.is_open=1 is of type int. It has to be of type bool, like its default True."),
        ("name", None, "config.name=None is of type NoneType. It has to be of type str, like its default 'small'."),
        ("oven__mode", "steam", "config.oven.mode='steam' cannot be used: it has to be fan or grill."),
        ("oven__mode", 3, "config.oven.mode=3 is of type int. It has to be of type str, like its default 'fan'."),
        ("oven__minutes", 5, "config.oven.minutes=5 is of type int. It has to be of type tuple, like its default "
         "(10, 20)."),
        ("oven__minutes", (5, -1), "config.oven.minutes=(5, -1) cannot be used: it has to be a tuple of minutes."),
        ("oven__minutes", (5, "x"), "config.oven.minutes=(5, 'x') cannot be used: it has to be a tuple of minutes."),
        ("oven", 5, "config.oven=5 cannot be used: it is a section with the fields degrees, racks, mode, minutes."),
        ("oven__rack", 5, "config.oven.rack is not a field; did you mean racks? configs/kitchen.py lists and explains "
         "all fields."),
        ("garden", 5, "config.garden is not a field. configs/kitchen.py lists and explains all fields."),
    ],
)  # fmt: skip
def test_the_message_names_the_field_its_value_and_what_is_allowed(field, value, expected):
    assert message(**{field: value}) == expected


def test_a_missing_field_is_named():
    with pytest.raises(ConfigError) as caught:
        build_section(
            Kitchen, {"oven": DEFAULTS["oven"], "name": ""}, defaults=DEFAULTS, defaults_file="configs/kitchen.py"
        )
    assert str(caught.value) == (
        "config.is_open is missing. Start from configs.kitchen.get_config() and change only what differs."
    )


def test_an_unknown_field_is_named_before_the_field_that_it_leaves_missing():
    fields = {**DEFAULTS, "nam": "small"}
    del fields["name"]
    with pytest.raises(ConfigError, match=r"config\.nam is not a field; did you mean name"):
        build_section(Kitchen, fields, defaults=DEFAULTS, defaults_file="")
