"""Files of a run that are damaged, edited or of another run are named, and never believed or run."""

import os
import pathlib
import runpy
import shutil

import pytest

from settings.errors import StorageError
from tests.conftest import train
from tests.reliability import corpus, corpus_runs
from tests.reliability.commands import call
from tests.reliability.corpus import Place
from tests.reliability.corpus_runs import ITEMS, SEEN
from tests.reliability.run_changes import edited_table, half, rotated, words
from trainer.api import load_run


@pytest.mark.promise(12, "files of a run", "changes found before the file is used")
@pytest.mark.parametrize("case", corpus_runs.CASES, ids=lambda case: case.name)
def test_a_changed_file_of_a_run_is_refused(case, finished_run, tmp_path, monkeypatch):
    corpus.check(case, finished_run, tmp_path, monkeypatch)


def test_the_cases_are_many_and_have_names_of_their_own():
    assert len({case.name for case in corpus_runs.CASES}) == len(corpus_runs.CASES) >= 200


@pytest.mark.parametrize("command", ["recommend", "ratings", "pairs", "evaluate", "vectors", "compare", "report"])
def test_without_a_mistake_the_same_commands_answer(command, finished_run, tmp_path):
    """So that the cases fail for what is wrong with them."""
    config, run = finished_run
    place = Place(tmp_path, config, run)
    data = place.file("ratings.csv", "user_id,item_id,rating,timestamp\nu1,i1,5,1\n")
    answer = call(*words(command, place, run, data))
    assert (answer.exit_code, answer.stderr) == (0, ""), answer
    assert answer.stdout or os.listdir(tmp_path)


def test_the_command_of_a_finished_run_writes_its_files_again(finished_run, tmp_path):
    """It is the way out that the messages name."""
    config, original = finished_run
    run = pathlib.Path(shutil.copytree(original, tmp_path / "run"))
    before = load_run(run).recommend(["u1"], 3)
    edited_table(ITEMS, title=rotated)(run)
    half(SEEN)(run)
    with pytest.raises(StorageError, match="it writes the file again from the data"):
        load_run(run).recommend(["u1"], 3)
    assert train(runpy.run_path(config)["get_config"](), run) == 0
    assert load_run(run).recommend(["u1"], 3).equals(before)
    for name in (ITEMS, SEEN):
        assert (run / name).read_bytes() == (original / name).read_bytes()
