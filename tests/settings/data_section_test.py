"""Rules between the fields of the sections data and split."""

import pytest

from configs import default
from settings.errors import ConfigError
from settings.trainer_config import load_trainer_config


def load(**fields):
    config = default.get_config()
    with config.unlocked():
        config.update_from_flattened_dict(fields)
    return load_trainer_config(config)


def test_the_fields_of_a_given_split_of_events_are_accepted():
    config = load(
        **{
            "split.method": "given",
            "split.test_source": "test.txt",
            "split.validation_source": "validation.txt",
            "data.columns.rating": "",
            "data.duplicates": "count",
            "data.features.query": ("age",),
            "data.features.item": ("genres", "year"),
        }
    )
    assert (config.split.method, config.data.duplicates) == ("given", "count")
    assert config.data.features.model_dump() == {"query": ("age",), "item": ("genres", "year"), "example": ()}


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"split.method": "given"}, r"config\.split\.test_source is empty\. With config\.split\.method='given'"),
        ({"split.test_source": "a.txt"}, r"config\.split\.test_source='a\.txt' cannot be used with .*method='random'"),
        (
            {"split.method": "none", "split.validation_source": "a.txt"},
            r"config\.split\.validation_source='a\.txt' cannot be used with .*method='none'",
        ),
        (
            {"data.duplicates": "count"},
            r"duplicates='count' cannot be used with config\.data\.columns\.rating='auto'",
        ),
        ({"data.features.query": ("",)}, r"config\.data\.features\.query=\('',\) cannot be used: a name is empty"),
        (
            {"data.features.query": ("age",), "data.features.example": ("place", "age")},
            r"features\.example=\('place', 'age'\) cannot be used: config\.data\.features\.query has this column too",
        ),
        ({"data.features.item": ("a", "a")}, r"features\.item=\('a', 'a'\) cannot be used: .*item has this column too"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(fields, complaint):
    with pytest.raises(ConfigError, match=complaint):
        load(**fields)
