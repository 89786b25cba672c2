"""Exports and runs that the tests of serving share. They must not change them."""

import pytest

from tests.serving.planted import SIZES, VOCABULARY, PlantedRun, build_model, make_run
from trainer.compat import tf
from trainer.serving.export import export_model


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """The planted model, exported with the check in a fresh process."""
    folder = tmp_path_factory.mktemp("run") / "model"
    export_model(build_model(), VOCABULARY, str(folder), sizes=SIZES)
    return folder


@pytest.fixture(scope="session")
def loaded(folder):
    """The exported planted model, loaded by TensorFlow."""
    return tf.saved_model.load(str(folder))


@pytest.fixture(scope="session")
def planted_run(tmp_path_factory) -> PlantedRun:
    """A finished run on the planted ratings, with random weights."""
    return make_run(str(tmp_path_factory.mktemp("planted")))
