"""A folder of another search, or of a run, is refused, and so is a damaged record."""

import json

import pytest

from settings.errors import ConfigError, StorageError
from tests.tune.planted import HIDDEN, LEARNING_RATE, LOSS, SIZE, Training, search
from trainer.tune.study import StudyFolder


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"list_size": 50}, "config.list_size: 100 → 50"),
        ({"train.num_epochs": 30}, "config.train.num_epochs: 3 → 30"),
        ({"space": (LEARNING_RATE, LOSS, HIDDEN)}, "the fields or values of --space"),
        ({"space": (LEARNING_RATE, LOSS, HIDDEN, {**SIZE, "range": (4, 65)})}, "the fields or values of --space"),
    ],
)
def test_another_search_in_the_folder_is_refused(tmp_path, change, says):
    search(tmp_path, Training(), num_trials=2)
    before = (tmp_path / "study.json").read_text()
    training = Training()
    with pytest.raises(ConfigError) as caught:
        search(tmp_path, training, **change)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert not training.workdirs and (tmp_path / "study.json").read_text() == before


def test_a_search_of_an_earlier_version_goes_on(tmp_path):
    """The names of columns had other defaults, and there was no config.split.seed."""
    named = {"data.columns.user_id": "user_id", "data.columns.title": ""}
    search(tmp_path, Training(), num_trials=2, **named)
    record = json.loads((tmp_path / "study.json").read_text())
    del record["config"]["split"]["seed"]
    (tmp_path / "study.json").write_text(json.dumps(record))
    training = Training()
    assert len(search(tmp_path, training, num_trials=3)) == 3 and len(training.workdirs) == 1


def test_a_folder_that_is_not_of_a_search_is_refused(tmp_path):
    search(tmp_path / "search", Training(), num_trials=2)
    with pytest.raises(ConfigError, match="holds a single run"):
        search(tmp_path / "search" / "trials" / "0001", Training())
    (tmp_path / "search" / "study.json").unlink()
    with pytest.raises(StorageError, match=r"study\.json is missing"):
        search(tmp_path / "search", Training())


@pytest.mark.parametrize("content", ["{", '{"number": 1}\n', '{"number": 2, "parameters": {}}\n', "[]\n"])
def test_a_damaged_record_is_named(tmp_path, content):
    search(tmp_path, Training(), num_trials=2)
    (tmp_path / "trials.jsonl").write_text(content)
    with pytest.raises(StorageError, match=r"trials\.jsonl cannot be read as the JSON that a search writes"):
        search(tmp_path, Training())


def test_two_searches_do_not_share_a_folder(tmp_path):
    study = StudyFolder(str(tmp_path))
    with study.locked(), pytest.raises(ConfigError, match="in use by another run"):
        search(tmp_path, Training())
