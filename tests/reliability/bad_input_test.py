"""Bad input of any kind gets one paragraph and an exit code, and nothing is written, changed or run."""

import os
import pathlib
import runpy
import shutil

import pyarrow.csv
import pytest

from settings.errors import StorageError
from tests.conftest import planted_ratings, train
from tests.reliability import corpus
from tests.reliability.commands import call, snapshot
from tests.reliability.corpus import Case, Place
from tests.reliability.corpus_runs import ITEMS, SEEN, edited_table, half, rotated, words
from trainer.api import load_run

CASES = corpus.all_cases()


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> tuple[str, pathlib.Path]:
    """A config file, and the folder of a finished run of this config."""
    folder = tmp_path_factory.mktemp("shared")
    source = folder / "ratings.csv"
    pyarrow.csv.write_csv(planted_ratings(), source)
    config = folder / "config.py"
    config.write_text(corpus.CONFIG_FILE.format(source=str(source)))
    train(runpy.run_path(str(config))["get_config"](), folder / "run")
    return str(config), folder


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_refused_in_one_paragraph_and_nothing_is_touched(case: Case, shared, tmp_path, monkeypatch):
    config, folder = shared
    monkeypatch.delenv("AIP_MODEL_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "case").mkdir()
    command = case.make(Place(tmp_path / "case", config, folder / "run"))
    before = snapshot(tmp_path), snapshot(folder)
    answer = call(*command)
    assert answer.exit_code == case.exit_code, answer
    assert answer.stderr.startswith("error: ") and case.says in answer.stderr
    assert answer.stderr.endswith("\n") and len(answer.stderr.splitlines()) == 1, answer.stderr
    assert len(answer.stderr) < 3000
    assert answer.stdout == ""
    assert (snapshot(tmp_path), snapshot(folder)) == before


def test_the_cases_are_many_and_have_their_own_names():
    assert len({case.name for case in CASES}) == len(CASES) >= 250


@pytest.mark.parametrize("command", ["recommend", "ratings", "pairs", "evaluate", "vectors", "compare", "report"])
def test_without_a_mistake_the_same_commands_answer(command, shared, tmp_path):
    """So that the cases fail for what is wrong with them."""
    config, folder = shared
    place = Place(tmp_path, config, folder / "run")
    data = "user_id,item_id,rating,timestamp\nu1,i1,5,1\n" if command == "pairs" else "item_id,rating\ni1,5\n"
    answer = call(*words(command, place, folder / "run", place.file("ratings.csv", data)))
    assert (answer.exit_code, answer.stderr) == (0, ""), answer
    assert answer.stdout or os.listdir(tmp_path)


def test_the_command_of_a_finished_run_writes_its_files_again(shared, tmp_path):
    """It is the way out that the messages name."""
    config, folder = shared
    run = tmp_path / "run"
    shutil.copytree(folder / "run", run)
    before = load_run(run).recommend(["u1"], 3)
    edited_table(ITEMS, title=rotated)(run)
    half(SEEN)(run)
    with pytest.raises(StorageError, match="it writes the file again from the data"):
        load_run(run).recommend(["u1"], 3)
    assert train(runpy.run_path(config)["get_config"](), run) == 0
    assert load_run(run).recommend(["u1"], 3).equals(before)
    for name in (ITEMS, SEEN):
        assert (run / name).read_bytes() == (folder / "run" / name).read_bytes()
