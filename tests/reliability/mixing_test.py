"""Runs that do not fit together are not mixed, and two runs never write one workdir."""

import csv
import os
import pathlib
import shutil
import time
from collections.abc import Callable

import pytest

from settings.errors import ConfigError
from tests.conftest import train
from tests.reliability.runs import digest_of_tensors, steps_saved, wait_until


def contents_of(workdir: pathlib.Path) -> dict[str, bytes]:
    files = [path for path in workdir.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(workdir)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> dict[str, pathlib.Path]:
    return {}


@pytest.fixture
def workdir(tiny_config, tmp_path, finished, tmp_path_factory) -> pathlib.Path:
    """A copy of a run of two epochs."""
    tiny_config.train.num_epochs = 2
    if not finished:
        finished["run"] = tmp_path_factory.mktemp("finished") / "run"
        train(tiny_config, finished["run"])
    return pathlib.Path(shutil.copytree(finished["run"], tmp_path / "run"))


def edited(ratings_csv: str, path: pathlib.Path, edit: Callable[[list[dict[str, str]]], None]) -> str:
    """A copy of the ratings after an edit of its rows."""
    with open(ratings_csv) as file:
        rows = list(csv.DictReader(file))
    edit(rows)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def permute_items(rows: list[dict[str, str]]) -> None:
    """Exchanges the names of two items, so that the vocabulary has the same size and the same ids."""
    names = {"i4": "i9", "i9": "i4"}
    for row in rows:
        row["item_id"] = names.get(row["item_id"], row["item_id"])


def change_a_rating(rows: list[dict[str, str]]) -> None:
    rows[0]["rating"] = "1.0" if rows[0]["rating"] != "1.0" else "2.0"


def drop_a_rating(rows: list[dict[str, str]]) -> None:
    del rows[-1]


CHANGED_FIELDS: dict[str, object] = {
    "model.embedding_size": 16,
    "model.hidden_sizes": (4,),
    "model.item_bias": True,
    "optimizer.name": "sgd",
    "optimizer.learning_rate": 0.25,
    "loss.key": "list_mle_loss",
    "split.seed": 7,
    "split.test_fraction": 0.2,
    "train.global_batch_size": 4,
    "list_size": 10,
    "seed": 1,
}


@pytest.mark.promise(7, "mixed runs", "refused with nothing touched")
@pytest.mark.parametrize("field", CHANGED_FIELDS)
def test_a_changed_config_is_refused_as_old_and_new_and_nothing_is_touched(tiny_config, workdir, field):
    before = contents_of(workdir)
    old = tiny_config.to_dict()
    for part in field.split("."):
        old = old[part]
    tiny_config.update_from_flattened_dict({field: CHANGED_FIELDS[field]})
    with pytest.raises(ConfigError) as caught:
        train(tiny_config, workdir)
    assert f"config.{field}: {old!r} → " in str(caught.value)
    assert contents_of(workdir) == before


@pytest.mark.promise(7, "mixed runs", "refused with nothing touched")
@pytest.mark.parametrize("edit", [permute_items, change_a_rating, drop_a_rating])
def test_changed_data_is_refused_and_nothing_is_touched(tiny_config, workdir, ratings_csv, tmp_path, edit):
    before = contents_of(workdir)
    tiny_config.data.source = edited(ratings_csv, tmp_path / "edited.csv", edit)
    with pytest.raises(ConfigError, match="a run on other data: the fingerprint of its .* was"):
        train(tiny_config, workdir)
    assert contents_of(workdir) == before


@pytest.mark.reliability
@pytest.mark.promise(7, "one writer", "runs had the workdir alone")
def test_a_second_run_ends_in_five_seconds_and_names_the_first(runs, uninterrupted, tmp_path):
    expected = digest_of_tensors(uninterrupted("default"))
    workdir = tmp_path / "run"
    first = runs.start(workdir, "default")
    wait_until(lambda: bool(steps_saved(workdir)), first)
    os.kill(first.workers[0].pid, 19)  # SIGSTOP, so that it does not end meanwhile.
    started = time.monotonic()
    second = runs.start(workdir, "default")
    codes = second.wait()
    seconds = time.monotonic() - started
    os.kill(first.workers[0].pid, 18)
    assert codes == [78] and f"process {first.workers[0].pid}" in second.text
    assert seconds < 5
    assert first.wait() == [0]
    assert digest_of_tensors(workdir) == expected


@pytest.mark.reliability
@pytest.mark.promise(7, "one writer", "runs had the workdir alone")
def test_the_lock_of_a_killed_run_is_taken_over(runs, uninterrupted, tmp_path):
    workdir = tmp_path / "run"
    first = runs.start(workdir, "default")
    wait_until(lambda: bool(steps_saved(workdir)), first)
    first.kill()
    runs.finish(workdir, "default")
    assert digest_of_tensors(workdir) == digest_of_tensors(uninterrupted("default"))
