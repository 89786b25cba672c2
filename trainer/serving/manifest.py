"""The manifest of an exported model: its files with their digests, and the vocabulary it was exported with.

`manifest.json` lies in the folder of the SavedModel. TensorFlow and TF Serving ignore it. The export writes it
last, so a folder without it was not written completely.
"""

import json

from settings.records import check_types
from trainer import storage

FORMAT_VERSION = 3
"""Change it when a model that was exported before can no longer be used as a new one is."""

_NAME = "manifest.json"


def write_manifest(folder: str, *, vocabulary_fingerprint: str) -> None:
    """Writes the manifest of all files in `folder`.

    Args:
      folder: the folder of a SavedModel, local or gs://.
      vocabulary_fingerprint: `Vocabulary.fingerprint()` of the vocabulary inside the model.

    Raises:
      StorageError: the manifest cannot be written.
    """
    manifest = {
        "format_version": FORMAT_VERSION,
        "vocabulary": vocabulary_fingerprint,
        "files": {name: storage.sha256(storage.join(folder, name)) for name in sorted(_list_files(folder))},
    }
    storage.write_bytes(storage.join(folder, _NAME), (json.dumps(manifest, indent=2) + "\n").encode())


def find_damage(folder: str, *, vocabulary_fingerprint: str | None = None) -> str | None:
    """Compares the files in `folder` with its manifest. Reads every file once, in chunks of 16 MiB.

    Args:
      folder: where `write_manifest` wrote, local or gs://.
      vocabulary_fingerprint: the fingerprint that the model must have been exported with. None accepts any.

    Returns:
      What is wrong, as a clause for an error message. None if nothing is wrong.
    """
    path = storage.join(folder, _NAME)
    if not storage.exists(path):
        return f"it has no {_NAME}, so an older version exported it or its export was not completed"
    broken: tuple[type[Exception], ...] = (*storage.file_errors(), ValueError, LookupError, TypeError, RecursionError)
    try:
        manifest = json.loads(storage.read_bytes(path))
        version, fingerprint, files = manifest["format_version"], manifest["vocabulary"], manifest["files"]
        check_types(str, fingerprint)
        check_types(dict[str, str], files)
        found = _list_files(folder)
    except broken as error:
        return f"its {_NAME} cannot be read ({storage.reason(error)})"
    if version != FORMAT_VERSION:
        return f"its format_version is {version!r}, and this version of the project reads {FORMAT_VERSION}"
    if vocabulary_fingerprint not in (None, fingerprint):
        return (
            f"it was exported with another vocabulary (fingerprint {fingerprint[:12]}) than the one given "
            f"(fingerprint {vocabulary_fingerprint[:12]})"
        )
    # Compared with what is there, so that no name leads out of the folder, and nothing is loaded unseen.
    if missing := sorted(files.keys() - found):
        return f"its file {missing[0]} is missing"
    if added := sorted(found - files.keys()):
        return f"it has the file {added[0]}, which its {_NAME} does not list"
    for name, digest in files.items():
        try:
            if storage.sha256(storage.join(folder, name)) != digest:
                return f"the content of its file {name} has changed since the export"
        except storage.file_errors() as error:
            return f"its file {name} cannot be read ({storage.reason(error)})"
    return None


def _list_files(folder: str) -> set[str]:
    """The paths of all files below `folder`, relative to it, without the manifest."""
    return set(storage.list_files(folder)) - {_NAME}
