"""What a run saves of its data: the vocabulary, and what each user has seen. Both are checked before they are used.

Their fingerprints are in data.json. They belong to the data and not to the files, so that the files of another version
of Arrow are equal.
"""

from typing import Any

import numpy as np

from settings.errors import StorageError, UserError
from trainer import storage
from trainer.data.dataset import Dataset, digest
from trainer.data.lists import load_item_lists, save_item_lists
from trainer.data.vocabulary import Vocabulary, load_vocabulary
from trainer.schema import TITLES
from trainer.workdir import Workdir

VOCABULARY, SEEN = "vocabulary", "seen items"
"""The names of the fingerprints of all ids, and of what each user has seen. TITLES is the third one."""


def describe_saved(dataset: Dataset) -> dict[str, Any]:
    """Returns the content of data.json for a run that saves the data: the description with the fingerprint SEEN."""
    saved = fingerprints_of(dataset.vocabulary, dataset.seen_items())
    return {**dataset.description, "fingerprints": {**dataset.description["fingerprints"], **saved}}


def fingerprints_of(vocabulary: Vocabulary, seen: tuple[np.ndarray, np.ndarray]) -> dict[str, str]:
    """Returns the fingerprints of what is saved, by name. `seen` is the result of `Dataset.seen_items`."""
    return {
        VOCABULARY: vocabulary.fingerprint(),
        TITLES: vocabulary.titles_fingerprint(),
        SEEN: digest(seen),
    }


def save(paths: Workdir, dataset: Dataset) -> None:
    """Writes the vocabulary and what each user has seen. Each file is replaced in one step.

    Raises:
      StorageError: a file cannot be written.
    """
    dataset.vocabulary.save(paths.vocabulary)
    save_item_lists(paths.seen, *dataset.seen_items())


def is_whole(paths: Workdir) -> bool:
    """Returns whether all files are there and have the fingerprints in data.json."""
    try:
        load_saved_vocabulary(paths)
        load_seen(paths)
    except UserError:
        return False
    return True


def load_saved_vocabulary(paths: Workdir) -> Vocabulary:
    """Reads the vocabulary of a run, local or gs://.

    Raises:
      ConfigError: another version of this project wrote data.json.
      StorageError: a file is missing, damaged or changed.
    """
    vocabulary = load_vocabulary(paths.vocabulary, way_out=_way_out(paths))
    _check(paths, paths.vocabulary, VOCABULARY, vocabulary.fingerprint())
    _check(paths, storage.join(paths.vocabulary, "items.parquet"), TITLES, vocabulary.titles_fingerprint())
    return vocabulary


def load_seen(paths: Workdir) -> tuple[np.ndarray, np.ndarray]:
    """Reads what each user of a run has seen, local or gs://: offsets int64 [num_users + 1] and items int32 [n].

    Raises:
      ConfigError: another version of this project wrote data.json.
      StorageError: the file is missing, damaged or changed.
    """
    seen = load_item_lists(paths.seen, way_out=_way_out(paths))
    _check(paths, paths.seen, SEEN, digest(seen))
    return seen


def _check(paths: Workdir, path: str, name: str, fingerprint: str) -> None:
    record = paths.load_json(paths.data)
    with storage.reading_json(paths.data, of="a run"):
        recorded = dict(record["fingerprints"]).get(name)
    if recorded is None:
        # An earlier version did not record it. The trainer does, so its command is the way out here too.
        reason = f"{paths.data} has no fingerprint of the {name}, so it is unknown whether it belongs to this run"
    else:
        reason = (
            f"it is not as this run wrote it: the fingerprint of the {name} was {str(recorded)[:12]} and is now "
            f"{fingerprint[:12]}"
        )
    if recorded != fingerprint:
        raise StorageError(f"{path} cannot be used: {reason}. {_way_out(paths)}")


def _way_out(paths: Workdir) -> str:
    return (
        f"Run python -m trainer.main again with --workdir={paths.path} and the --config of this run: it writes the "
        "file again from the data."
    )
