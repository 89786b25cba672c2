"""Prepared data of another config, damaged data and a preparation that fails: one paragraph, and nothing is left."""

import inspect
import json
import os
import re
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from settings.errors import ConfigError, StorageError
from tests.data.prepared.common import SMALL_SHARD, arguments_of, open_data, prepare
from trainer import schema, storage
from trainer.data.lists import RatingsByUser
from trainer.data.loading import load_source
from trainer.data.prepared import manifest, writing
from trainer.data.prepared.manifest import MANIFEST, is_prepared, verify
from trainer.data.ratings.columns import AUTO


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(writing, "SHARD_BYTES", SMALL_SHARD)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The arguments that open prepared data of several shards, which no test changes."""
    folder = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "SHARD_BYTES", SMALL_SHARD)
        return prepare(folder / "data", arguments_of(folder, "row order"))


@pytest.fixture
def opened(prepared, tmp_path):
    """The arguments that open a copy of it."""
    shutil.copytree(prepared["source"], tmp_path / "data")
    return {**prepared, "source": str(tmp_path / "data")}


CHANGES = {
    "columns": {"title": ""},
    "features": {"query": ("age",)},
    "duplicates": "count",
    "rating_range": (0.0, 4.0),
    "max_bad_fraction": 0.5,
    "item_identity": "title",
    "split_method": "last",
    "validation_source": "a.csv",
    "test_source": "b.csv",
    "validation_fraction": 0.2,
    "test_fraction": 0.2,
    "list_order": "time",
    "seed": 1,
}


def test_every_argument_that_shapes_the_data_is_compared():
    parameters = inspect.signature(load_source).parameters.keys()
    assert CHANGES.keys() == parameters - {"source", "data_dir", "list_size", "history_size"}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_field_is_refused_with_both_values(prepared, name):
    value = CHANGES[name]
    if isinstance(value, dict):
        value = {**prepared[name], **value}
    with pytest.raises(ConfigError) as refused:
        open_data(prepared, **{name: value})
    message = str(refused.value)
    assert message.startswith(f"{prepared['source']} was prepared with another config (")
    old, new = {
        "columns": ("'title'", "''"),
        "features": ("['age', 'groups']", "['age']"),
        "rating_range": ("[0.0, 5.0]", "[0.0, 4.0]"),
    }.get(name, (repr(prepared[name]), repr(value)))
    assert f"{old} → {new})" in message
    assert message.count("→") == 1 and "python -m trainer.prepare" in message
    assert (manifest._FIELD_OF[name] if name != "list_order" else "config.history.encoder") in message


def test_the_seed_may_change_where_nothing_is_random(tmp_path):
    opened = prepare(tmp_path / "last", arguments_of(tmp_path, "row order", split_method="last"))
    expected = load_source(**{**opened, "source": str(tmp_path / "source.parquet"), "seed": 9})
    assert open_data(opened, seed=9).description == expected.description
    opened = prepare(tmp_path / "given", arguments_of(tmp_path, "given"))
    with pytest.raises(ConfigError, match=r"config\.split\.seed \(or, if it is -1, config\.seed\): 0 → 9"):
        open_data(opened, seed=9)


def test_recognized_columns_are_those_that_the_data_was_prepared_with(tmp_path):
    """Data of an earlier version has the names that were the defaults, and no record of its columns."""
    arguments = arguments_of(tmp_path, "row order")
    named = {"user_id": "user_id", "item_id": "item_id", "rating": "rating", "timestamp": "timestamp", "title": ""}
    opened = prepare(tmp_path / "named", {**arguments, "columns": {**named, "genres": ""}})
    edit(opened["source"], lambda record: record["counts"].pop("columns"))
    automatic = dict.fromkeys([*named, "genres"], AUTO)
    description = open_data(opened, columns=automatic).description
    of_source = load_source(**{**arguments, "columns": automatic}).description
    # The data has no titles, and the source has some.
    differing = {schema.TITLES: of_source["fingerprints"][schema.TITLES]}
    assert description["fingerprints"] | differing == of_source["fingerprints"]
    with pytest.raises(ConfigError, match=r"config\.data\.columns\.title: '' → 'title'\)"):
        open_data(opened, columns={**automatic, "title": "title"})
    # But rows are not read as events, unless the config says so.
    opened = prepare(tmp_path / "events", arguments_of(tmp_path, "events"))
    with pytest.raises(ConfigError, match=r"config\.data\.columns\.rating: '' → 'auto'\)"):
        open_data(opened, columns=automatic)
    open_data(opened, columns={**automatic, "rating": ""})


def test_another_folder_of_tensorflow_datasets_is_the_same_data(prepared):
    assert open_data(prepared, data_dir="elsewhere").description == open_data(prepared).description


def files_in(folder):
    return sorted(os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names)


def test_a_missing_file_is_named(opened):
    for path in files_in(opened["source"]):
        if path.endswith(MANIFEST):
            continue
        os.rename(path, path + ".away")
        with pytest.raises(
            StorageError, match=f"{re.escape(path)}.*cannot be used: No such file.*prepare the data again"
        ):
            open_data(opened)
        os.rename(path + ".away", path)
    open_data(opened)


def test_a_file_of_another_size_is_named(opened):
    path = f"{opened['source']}/shards/00001-of-{len(os.listdir(opened['source'] + '/shards')):05d}/train.items.npy"
    size = os.path.getsize(path)
    os.truncate(path, size - 4)
    with pytest.raises(StorageError, match=f"{re.escape(path)}.*it has {size - 4:,} bytes instead of {size:,}"):
        open_data(opened)


def test_a_changed_byte_is_found_by_verification(opened):
    folder = opened["source"]
    assert len(verify(folder).files) == len(files_in(folder)) - 1
    for path in files_in(folder):
        if path.endswith(MANIFEST):
            continue
        with open(path, "r+b") as file:
            file.seek(-1, os.SEEK_END)
            last = file.read(1)
            file.seek(-1, os.SEEK_END)
            file.write(bytes([last[0] ^ 1]))
        for find in (lambda: verify(folder), lambda: open_data(opened)):
            with pytest.raises(StorageError, match=f"{re.escape(path)}.*its content has changed"):
                find()
        with open(path, "r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(last)
    verify(folder)


@pytest.mark.parametrize("name", ["test.ratings.npy", "test.offsets.npy"])
def test_arrays_that_do_not_fit_each_other_are_refused(opened, name):
    """The sizes in the manifest are as the files have them, as after an edit by hand."""
    path = next(path for path in files_in(opened["source"]) if path.endswith(f"/{name}"))
    np.save(path, np.load(path)[:-1])
    edit(
        opened["source"],
        lambda record: record["files"][os.path.relpath(path, opened["source"])].update(
            size=os.path.getsize(path), sha256=storage.sha256(path)
        ),
    )
    with pytest.raises(StorageError, match=f"{re.escape(path)}.*entries instead of"):
        open_data(opened)


def edit(folder, change):
    path = f"{folder}/{MANIFEST}"
    record = json.loads(storage.read_bytes(path))
    change(record)
    storage.write_bytes(path, json.dumps(manifest.sealed(record)).encode())


@pytest.mark.parametrize(
    ("change", "error_class", "says"),
    [
        (lambda record: record.update(format_version=1), ConfigError, "another version of this project .format 1;"),
        (lambda record: record.pop("format_version"), ConfigError, "another version of this project"),
        (lambda record: record.pop("shards"), StorageError, f"{MANIFEST}.*shards"),
        (lambda record: record.update(more=1), StorageError, f"{MANIFEST}.*'more'"),
        (
            lambda record: record["shards"][0].update(begin="a"),
            StorageError,
            f"{MANIFEST}.*its shards.0.begin cannot be",
        ),
        (lambda record: record.update(files=[1]), StorageError, f"{MANIFEST}.*its files cannot be"),
        (lambda record: record["shards"][0].pop("end"), StorageError, f"{MANIFEST}.*shards.0.end"),
    ],
)
def test_a_manifest_of_another_version_or_shape_is_refused(opened, change, error_class, says):
    edit(opened["source"], change)
    with pytest.raises(error_class, match=says):
        open_data(opened)


def test_a_count_that_was_changed_by_hand_is_found(opened):
    path = f"{opened['source']}/{MANIFEST}"
    record = json.loads(storage.read_bytes(path))
    record["counts"]["rows"]["used"] += 1
    storage.write_bytes(path, json.dumps(record).encode())
    with pytest.raises(StorageError, match=f"{MANIFEST}.*its content has changed since it was written"):
        open_data(opened)


def test_a_broken_manifest_is_named(opened):
    storage.write_bytes(f"{opened['source']}/{MANIFEST}", b'{"format": "list')
    with pytest.raises(StorageError, match=MANIFEST):
        open_data(opened)


def test_another_manifest_does_not_make_a_folder_prepared(tmp_path):
    arguments = arguments_of(tmp_path, "row order")
    storage.write_bytes(str(tmp_path / MANIFEST), b'{"format_version": 2, "files": {}}')
    assert not is_prepared(str(tmp_path)) and not is_prepared(arguments["source"]) and not is_prepared("synthetic")
    assert open_data(arguments, source=str(tmp_path)).description["num_items"] == 60


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("after", [1, 30])
def test_a_preparation_that_fails_leaves_nothing(tmp_path, small_shards, monkeypatch, error, after):
    arguments = arguments_of(tmp_path, "row order")
    before = files_in(tmp_path)
    save, calls = np.save, []

    def failing(*given):
        calls.append(given)
        if len(calls) == after:
            raise error
        save(*given)

    monkeypatch.setattr(np, "save", failing)
    with pytest.raises((StorageError, KeyboardInterrupt)) as caught:
        prepare(tmp_path / "data", arguments)
    if isinstance(error, OSError):
        assert isinstance(caught.value, StorageError) and "No space left on device" in str(caught.value)
    assert files_in(tmp_path) == before and not (tmp_path / "data").exists() and len(calls) == after


def test_a_folder_that_appears_meanwhile_is_left_alone(tmp_path, monkeypatch):
    arguments = arguments_of(tmp_path, "row order")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/precious").write_text("mine")
    with pytest.raises(StorageError, match="data cannot be written"):
        prepare(tmp_path / "data", arguments)
    assert (tmp_path / "data/precious").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["data", "source.parquet"]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30), st.integers(1, 400))
def test_shards_are_ranges_of_users_of_at_most_the_size_and_one_user(counts, shard_bytes):
    bytes_of_user = [(train + test) * 32 for train, test in counts]
    shards = writing.plan_shards(dict(zip(("train", "test"), np.array(counts).T, strict=True)), 32, shard_bytes)
    assert [shard.begin for shard in shards] == [0, *(shard.end for shard in shards[:-1])]
    assert shards[-1].end == len(counts)
    for shard in shards:
        assert shard.begin < shard.end
        assert sum(bytes_of_user[shard.begin : shard.end - 1]) < shard_bytes
        assert shard.num_ratings == {
            "train": sum(train for train, _ in counts[shard.begin : shard.end]),
            "test": sum(test for _, test in counts[shard.begin : shard.end]),
        }


def test_the_same_shard_is_written_wherever_its_users_come_from(tmp_path, opened):
    """A worker that has only the ratings of a shard writes the same bytes."""
    dataset = load_source(**arguments_of(tmp_path, "row order"))
    planned = manifest.load_manifest(opened["source"])
    last = planned.shards[-1]
    by_user = {
        name: RatingsByUser(
            lists.user_offsets(dataset.vocabulary.num_users),
            lists.items,
            lists.labels,
            dataset.timestamps[name],
            lists.features,
        )
        for name, lists in dataset.lists.items()
    }
    writing.write_shard(
        str(tmp_path / "alone"), {name: part.of_users(last.begin, last.end) for name, part in by_user.items()}
    )
    folder = f"{opened['source']}/shards/{len(planned.shards) - 1:05d}-of-{len(planned.shards):05d}"
    names = os.listdir(folder)
    assert sorted(os.listdir(tmp_path / "alone")) == sorted(names) and len(names) > 12
    for name in names:
        assert (tmp_path / "alone" / name).read_bytes() == storage.read_bytes(f"{folder}/{name}")
