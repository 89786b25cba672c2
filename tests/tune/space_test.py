"""A space that cannot be searched is refused before anything slow."""

import pytest

from configs import default
from settings.errors import ConfigError
from tests.conftest import REPOSITORY
from tests.tune.planted import base_config, parameters
from trainer.tune.space import check_space, load_space

BAD_SPACES = [
    ("()", {}, "of the form"),
    ("3", {}, "of the form"),
    ("('optimizer.learning_rate',)", {}, "of the form"),
    ("({'field': 'optimizer.learning_rate'},)", {}, "of the form"),
    ("({'field': 'loss.key', 'values': ('a', 1)},)", {}, "a tuple of numbers or"),
    ("({'field': 'loss.key', 'values': ('a', 'a')},)", {}, "different values"),
    ("({'field': 'train.num_epochs', 'low': 1, 'high': 3},)", {}, "of the form"),
    ("({'field': 'train.num_epochs', 'range': (3, 1)},)", {}, "the lowest first"),
    ("({'field': 'train.num_epochs', 'range': (-1, 3)},)", {}, "config.train.num_epochs=-1 cannot be used"),
    ("({'field': 'train.num_epochs', 'values': (1, 2.5)},)", {}, "config.train.num_epochs=2.5 is of type float"),
    ("({'field': 'train.epochs', 'range': (1, 3)},)", {}, "config.train.epochs is not a field"),
    ("2 * ({'field': 'list_size', 'values': (5, 6)},)", {}, "has a field twice"),
    ("({'field': 'model.item_bias', 'values': (False, 'yes')},)", {}, "config.model.item_bias='yes'"),
    ("({'field': 'optimizer.name', 'values': ('adam', 'adamw')},)", {}, "adamw is adam with weight decay"),
    ("({'field': 'train.num_epochs', 'range': (1, 3), 'scale': 'reverse_log'},)", {}, "only for Vertex AI"),
    ("({'field': 'seed', 'range': (1, 3)},)", {}, "cannot vary seed"),
    ("({'field': 'split.test_fraction', 'range': (0.1, 0.3)},)", {}, "cannot vary split.test_fraction"),
    ("({'field': 'eval.relevance_threshold', 'values': (4.0, 5.0)},)", {}, "cannot vary eval.relevance_threshold"),
    ("({'field': 'list_size', 'values': (5, 6)},)", {}, "cannot vary list_size"),
    ("({'field': 'loss.temperature', 'values': (0.1, 1.0)},)", {"eval.best_metric": "loss"}, "cannot vary loss.temp"),
    ("({'field': 'train.num_epochs', 'range': (1, 3)},)", {"split.method": "none"}, "no validation split"),
    ("({'field': 'train.num_epochs', 'range': (1, 3)},)", {"split.validation_fraction": 0.0}, "no validation split"),
]


@pytest.mark.parametrize(("space", "fields", "says"), BAD_SPACES)
def test_a_space_that_cannot_be_searched_is_refused(tmp_path, space, fields, says):
    path = tmp_path / "space.py"
    path.write_text(f"def get_space():\n    return {space}\n")
    config = base_config(**fields)
    with pytest.raises(ConfigError) as caught:
        check_space(load_space(str(path)), config.to_dict(), f"--space={path}")
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_fields_that_do_not_change_what_is_measured_can_vary(tmp_path):
    config = base_config(**{"eval.best_metric": "catalogue/mrr"})
    space = parameters(
        {"field": "list_size", "values": (5, 6)},
        {"field": "data.features.item", "values": ((), ("genres",))},
        {"field": "model.item_bias", "values": (False, True)},
        {"field": "loss.temperature", "range": (0.1, 1.0)},
    )
    fields = config.to_dict()
    check_space(space, fields, "the space")
    assert fields == config.to_dict()  # The config of the search is left as it is.


@pytest.mark.parametrize("content", ["def get_space(:\n", "x = 1\n", "def get_space():\n    return 1 / 0\n", None])
def test_a_space_file_that_cannot_be_loaded_is_named(tmp_path, content):
    path = tmp_path / "space.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"space.py cannot be loaded: ") as caught:
        load_space(str(path))
    assert "\n" not in str(caught.value)


# The fields of the config that each space is for.
SHIPPED = {
    "default": {},
    "rated": {"candidates.method": "rated", "eval.best_metric": "ndcg@10"},
    "transformer": {"history.encoder": "transformer"},
}


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs" / "tune").glob("[a-z]*.py")), ids=lambda p: p.stem)
def test_the_spaces_that_are_shipped_can_be_searched(path):
    config = default.get_config()
    config.update_from_flattened_dict(SHIPPED[path.stem])
    check_space(load_space(str(path)), config.to_dict(), path.name)
