"""Bad input of any kind gets one paragraph and an exit code, and nothing is written, changed or run."""

import os
import pathlib

import pytest

from settings.trainer_config import load_trainer_config
from tests.conftest import planted_ratings, train
from tests.reliability import corpus
from tests.reliability.commands import call, snapshot
from tests.reliability.corpus import Case, Place

CASES = corpus.all_cases()


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> tuple[str, pathlib.Path]:
    """A config file, and the folder of a finished run of this config."""
    import runpy

    import pyarrow.csv

    folder = tmp_path_factory.mktemp("shared")
    source = folder / "ratings.csv"
    pyarrow.csv.write_csv(planted_ratings(), source)
    config = folder / "config.py"
    config.write_text(corpus.CONFIG_FILE.format(source=str(source)))
    from trainer.reporting import write_report

    fields = load_trainer_config(runpy.run_path(str(config))["get_config"]())
    del fields
    train(runpy.run_path(str(config))["get_config"](), folder / "run", report_fn=write_report)
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


def test_the_cases_are_many_and_have_names_of_their_own():
    assert len({case.name for case in CASES}) == len(CASES) >= 250


@pytest.mark.parametrize("command", ["recommend", "ratings", "pairs", "evaluate", "vectors", "compare", "report"])
def test_without_a_mistake_the_same_commands_answer(command, shared, tmp_path):
    """So that the cases fail for what is wrong with them."""
    from tests.reliability.corpus_runs import words

    config, folder = shared
    place = Place(tmp_path, config, folder / "run")
    data = "user_id,item_id,rating,timestamp\nu1,i1,5,1\n" if command == "pairs" else "item_id,rating\ni1,5\n"
    answer = call(*words(command, place, folder / "run", place.file("ratings.csv", data)))
    assert (answer.exit_code, answer.stderr) == (0, ""), answer
    assert answer.stdout or os.listdir(tmp_path)
