"""Exports and runs that the tests of serving share. They must not change them."""

import pytest

from tests.serving.planted import (
    HISTORIES,
    NO_HISTORY,
    POOLED,
    SIZES,
    TRANSFORMER,
    VOCABULARY,
    PlantedRun,
    build_model,
    build_pooled_model,
    build_random_model,
    make_history_run,
    make_run,
)
from trainer.compat import tf
from trainer.serving.export import export_model, verify_in_this_process


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """The planted model, exported with the check in a fresh process."""
    folder = tmp_path_factory.mktemp("run") / "model"
    export_model(build_model(), VOCABULARY, str(folder), sizes=SIZES, query_source=NO_HISTORY)
    return folder


@pytest.fixture(scope="session")
def loaded(folder):
    """The exported planted model, loaded by TensorFlow."""
    return tf.saved_model.load(str(folder))


@pytest.fixture(scope="session")
def planted_run(tmp_path_factory) -> PlantedRun:
    """A finished run on the planted ratings, with random weights."""
    return make_run(str(tmp_path_factory.mktemp("planted")))


@pytest.fixture(scope="session")
def pooled_folder(tmp_path_factory):
    """The planted model with a pooled history, exported with the check in a fresh process."""
    folder = tmp_path_factory.mktemp("pooled") / "model"
    export_model(build_pooled_model(), VOCABULARY, str(folder), sizes=POOLED, query_source=HISTORIES)
    return folder


@pytest.fixture(scope="session")
def transformer_model():
    """A model that encodes histories by a transformer with random weights."""
    return build_random_model(**TRANSFORMER)


@pytest.fixture(scope="session")
def transformer_folder(transformer_model, tmp_path_factory):
    """The same, exported."""
    folder = tmp_path_factory.mktemp("transformer") / "model"
    export_model(
        transformer_model,
        VOCABULARY,
        str(folder),
        sizes=TRANSFORMER,
        query_source=HISTORIES,
        verify=verify_in_this_process,
    )
    return folder


@pytest.fixture(scope="session")
def history_run(tmp_path_factory) -> PlantedRun:
    """A finished run whose model knows users by their history alone, with random weights."""
    return make_history_run(str(tmp_path_factory.mktemp("history")))
