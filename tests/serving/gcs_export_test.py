"""Exports on gs://, in a storage service that runs on this machine."""

import shutil

import pytest

from settings.errors import StorageError
from tests.launch.fake_gcs import BUCKET, FakeStorage
from tests.serving.planted import SIZES, VOCABULARY, build_model
from trainer.compat import tf
from trainer.serving.export import export_model, is_whole, load_export, verify_in_this_process

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="the service needs the openssl command")

FOLDER = f"gs://{BUCKET}/exports/model"


@pytest.fixture
def service(tmp_path, monkeypatch):
    service = FakeStorage(tmp_path)
    with service.running() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield service


def test_an_export_on_gs_is_checked_replaced_and_loaded(service):
    assert not is_whole(FOLDER, VOCABULARY)
    for _ in range(2):
        export_model(build_model(), VOCABULARY, FOLDER, sizes=SIZES, verify=verify_in_this_process)
        assert is_whole(FOLDER, VOCABULARY)
        names = {name.removeprefix("exports/") for name in service.objects if not name.endswith("/")}
        assert {"model/manifest.json", "model/saved_model.pb", "model/variables/variables.index"} <= names
        assert all(name.startswith("model/") for name in names)
    items, _ = load_export(FOLDER, VOCABULARY).recommend_indices(tf.constant([1]), 2, tf.zeros([1, 0], tf.int32))
    assert items.numpy().tolist() == [[3, 1]]

    del service.objects["exports/model/variables/variables.index"]
    assert not is_whole(FOLDER, VOCABULARY)
    with pytest.raises(StorageError, match=r"its file variables/variables.index is missing"):
        load_export(FOLDER)
