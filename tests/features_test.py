"""FeatureSpec: whose a feature is, and which specs are refused."""

import subprocess
import sys

import pytest

from trainer.features import FeatureSpec, index_features, owned_by

GENRES = FeatureSpec("genres", "item", num_values=20, shape=(3,))
AGE = FeatureSpec("age", "query", dtype="float32")


def test_every_model_has_the_two_indices():
    specs = [*index_features(944, 1683), GENRES, AGE]
    assert [(spec.name, spec.num_values) for spec in owned_by(specs, "query")] == [("query", 944), ("age", None)]
    assert [(spec.name, spec.num_values) for spec in owned_by(specs, "item")] == [("items", 1683), ("genres", 20)]
    assert owned_by(specs, "example") == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"owner": "user"}, "owner='user' is not one of query, item, example"),
        ({"owner": "item", "dtype": "string"}, "dtype='string' is not one of int32, float32"),
        ({"owner": "item", "dtype": "float32", "num_values": 3}, "num_values=3 with dtype='float32'"),
        ({"owner": "item", "num_values": 0}, "num_values=0"),
    ],
)
def test_impossible_specs_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f"'x': {message}"):
        FeatureSpec("x", **arguments)


def test_specs_do_without_tensorflow():
    code = "import sys, trainer.features; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
