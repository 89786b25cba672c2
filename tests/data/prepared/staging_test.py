"""Prepared data that is not on this machine: it is copied once, and then read as if it were here."""

import multiprocessing
import os
import pathlib
import re

import pytest

import trainer.compat  # noqa: F401 - TensorFlow has the file system that these tests use.
from settings.errors import ConfigError, StorageError
from tests.data.prepared.common import SMALL_SHARD, arguments_of, prepare
from trainer import storage
from trainer.data.loading import load_dataset, load_source
from trainer.data.prepared import staging, writing
from trainer.data.prepared.manifest import MANIFEST, load_manifest, verify

REMOTE = "ram://staged/data"


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    """The arguments that open remote data of several shards, with an empty folder for copies."""
    monkeypatch.setattr(writing, "SHARD_BYTES", SMALL_SHARD)
    storage.remove(REMOTE)
    (tmp_path / "source").mkdir()
    of_source = arguments_of(tmp_path / "source", "time order")
    yield {**prepare(REMOTE, of_source), "data_dir": str(tmp_path / "copies")}
    storage.remove(REMOTE)


def copies(arguments):
    return sorted(path for path in pathlib.Path(arguments["data_dir"]).iterdir() if path.suffix != ".lock")


def test_a_copy_gives_what_the_source_gives_and_is_made_once(arguments, tmp_path, monkeypatch):
    expected = load_source(**arguments_of(tmp_path / "source", "time order"))
    dataset = load_dataset(**arguments)
    assert dataset.description == expected.description
    (copy,) = copies(arguments)
    manifest = load_manifest(REMOTE)
    assert verify(str(copy)) == manifest and len(manifest.shards) > 5
    assert {*storage.list_files(str(copy))} == {*storage.list_files(REMOTE)} == {MANIFEST, *manifest.files}

    read = []
    monkeypatch.setattr(staging, "copy_files", lambda *given: read.append(given))
    assert load_dataset(**arguments).description == expected.description
    assert copies(arguments) == [copy] and read == []


def test_data_that_was_prepared_again_is_copied_again(arguments, tmp_path):
    load_dataset(**arguments)
    storage.remove(REMOTE)
    changed = {"test_fraction": 0.3, "source": str(tmp_path / "source/source.parquet"), "data_dir": ""}
    prepare(REMOTE, {**arguments, **changed})
    assert load_dataset(**{**arguments, "test_fraction": 0.3}).description["num_ratings"]["test"] > 400
    assert len(copies(arguments)) == 2


def test_data_of_another_config_is_refused_before_it_is_copied(arguments):
    with pytest.raises(ConfigError, match=f"{REMOTE} was prepared with another config"):
        load_dataset(**{**arguments, "test_fraction": 0.3})
    assert not os.path.exists(arguments["data_dir"])


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_damaged_data_is_refused_and_leaves_no_copy(arguments, damage):
    name = [name for name in load_manifest(REMOTE).files if name.endswith("train.items.npy")][2]
    content = storage.read_bytes(f"{REMOTE}/{name}")
    if damage == "changed":
        storage.write_bytes(f"{REMOTE}/{name}", content[:-1] + bytes([content[-1] ^ 1]))
    else:
        storage.remove(f"{REMOTE}/{name}")
    with pytest.raises(StorageError, match=f"{re.escape(REMOTE)}/{name} of a prepared data set cannot be used"):
        load_dataset(**arguments)
    assert copies(arguments) == []
    storage.write_bytes(f"{REMOTE}/{name}", content)
    load_dataset(**arguments)
    assert len(copies(arguments)) == 1


def hold(path, entered, leave):
    with staging._locked(path):
        entered.set()
        leave.wait()


def test_a_second_process_waits_for_the_copy_of_the_first(tmp_path):
    context = multiprocessing.get_context("fork")
    path = str(tmp_path / "lock")
    entered, leave = ([context.Event() for _ in range(2)] for _ in range(2))
    processes = [context.Process(target=hold, args=(path, entered[n], leave[n]), daemon=True) for n in range(2)]
    processes[0].start()
    assert entered[0].wait(30)
    processes[1].start()
    assert not entered[1].wait(0.3)
    leave[0].set()
    assert entered[1].wait(30)
    leave[1].set()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0


def test_a_preparation_that_fails_on_gs_leaves_nothing_but_what_others_wrote(tmp_path):
    with pytest.raises(KeyError), writing.whole_or_not_at_all(REMOTE) as folder:
        assert folder == REMOTE
        storage.write_bytes(f"{REMOTE}/shards/one", b"1")
        raise KeyError
    assert [*storage.list_files(REMOTE)] == []
    storage.write_bytes(f"{REMOTE}/{MANIFEST}", b"{}")
    with pytest.raises(KeyError), writing.whole_or_not_at_all(REMOTE):
        raise KeyError
    assert storage.exists(f"{REMOTE}/{MANIFEST}")
    storage.remove(REMOTE)
