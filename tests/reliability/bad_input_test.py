"""Bad data, flags, configs and folders get one paragraph and an exit code, and nothing is written, changed or run."""

import pytest

from tests.reliability import corpus, corpus_configs, corpus_sources, corpus_tables

CASES = [*corpus_tables.CASES, *corpus_sources.CASES, *corpus_configs.CASES]


@pytest.mark.promise(8, "bad input", "refused in one paragraph with nothing touched")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_refused(case, finished_run, tmp_path, monkeypatch):
    corpus.check(case, finished_run, tmp_path, monkeypatch)


def test_the_cases_are_many_and_have_names_of_their_own():
    assert len({case.name for case in CASES}) == len(CASES) >= 240
