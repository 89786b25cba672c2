"""Checking an export on gs://, in a storage service that runs on this machine."""

import shutil

import pytest

from settings.errors import StorageError
from tests.launch.fake_gcs import BUCKET, FakeStorage
from tests.serving.planted import VOCABULARY
from trainer.serving import manifest
from trainer.serving.export import is_whole, load_export

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="the service needs the openssl command")

FOLDER = f"gs://{BUCKET}/exports/model"


@pytest.fixture
def service(tmp_path, monkeypatch):
    service = FakeStorage(tmp_path)
    with service.running() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield service


def test_an_export_on_gs_is_checked(service, folder):
    """The export itself writes to gs:// in C++ code that keeps this process from answering."""
    assert not is_whole(FOLDER, VOCABULARY)
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    for path in files:
        service.put(f"exports/model/{path.relative_to(folder)}", path.read_bytes())
    manifest.write_manifest(FOLDER, vocabulary_fingerprint=VOCABULARY.fingerprint())
    assert service.objects["exports/model/manifest.json"] == (folder / "manifest.json").read_bytes()
    assert is_whole(FOLDER, VOCABULARY)

    del service.objects["exports/model/variables/variables.index"]
    assert not is_whole(FOLDER, VOCABULARY)
    with pytest.raises(StorageError, match=r"its file variables/variables\.index"):
        load_export(FOLDER)
