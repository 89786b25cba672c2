"""Damaged checkpoints: how they are found, what is restored instead, and that none of their files is deleted."""

import json
import os
import shutil

import numpy as np
import pytest

from settings.errors import ConfigError, StorageError
from tests.training.checkpoint_run import (
    DATA,
    FINGERPRINTS,
    INDEX,
    MANIFEST,
    SIZE,
    Run,
    contents_of,
    files_in,
    flip_bit,
    path_of,
    truncate,
    whole,
    write,
)
from trainer import storage
from trainer.compat import tf
from trainer.training import checkpoint_folder
from trainer.workdir import FORMAT_VERSION


def with_fields(path, **fields):
    """Rewrites a manifest with other fields and the checksum that belongs to them. None removes a field."""
    manifest = json.loads(storage.read_bytes(path)) | fields
    manifest = {name: value for name, value in manifest.items() if value is not None and name != "sha256"}
    write(path, json.dumps({**manifest, "sha256": checkpoint_folder.checksum(manifest)}))


def without(path, key):
    manifest = json.loads(storage.read_bytes(path))
    del manifest[key]
    write(path, json.dumps(manifest))


def with_another_state(path):
    manifest = json.loads(storage.read_bytes(path))
    manifest["state"]["sums"][0][0] += 1.0
    write(path, json.dumps(manifest))


def with_the_manifest_of_another_step(path):
    shutil.copy(path.replace("00000020", "00000010"), path)


DAMAGES = {
    "data cut by a byte": (DATA, lambda path: truncate(path, 1 - 1e-9)),
    "data cut by half": (DATA, lambda path: truncate(path, 0.5)),
    "data emptied": (DATA, lambda path: truncate(path, 0)),
    "data longer by a byte": (DATA, lambda path: os.truncate(path, os.path.getsize(path) + 1)),
    "a bit of the data": (DATA, flip_bit),
    "a bit of the index": (INDEX, flip_bit),
    "index cut by a byte": (INDEX, lambda path: truncate(path, 1 - 1e-9)),
    "index cut by half": (INDEX, lambda path: truncate(path, 0.5)),
    "index emptied": (INDEX, lambda path: truncate(path, 0)),
    "a bit of the state": (
        MANIFEST,
        lambda path: flip_bit(path, storage.read_bytes(path).index(b"6.6") / os.path.getsize(path)),
    ),
    "index deleted": (INDEX, os.remove),
    "data deleted": (DATA, os.remove),
    "manifest deleted": (MANIFEST, os.remove),
    "manifest empty": (MANIFEST, lambda path: write(path, "")),
    "manifest of garbage": (
        MANIFEST,
        lambda path: write(path, "\udcff\0{]".encode("utf-8", "surrogateescape").decode("latin-1")),
    ),
    "manifest cut by half": (MANIFEST, lambda path: truncate(path, 0.5)),
    "manifest of another type": (MANIFEST, lambda path: write(path, "[1, 2]")),
    "manifest a number": (MANIFEST, lambda path: write(path, "5")),
    "manifest without anything": (MANIFEST, lambda path: write(path, "{}")),
    **{
        f"manifest without {key}": (MANIFEST, lambda path, key=key: without(path, key))
        for key in ("files", "fingerprints", "format", "state", "step", "sha256", "variables")
    },
    "another state": (MANIFEST, with_another_state),
    "the manifest of another step": (MANIFEST, with_the_manifest_of_another_step),
}


@pytest.mark.promise(3, "damaged checkpoints", "set aside, and the one before used")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_is_used(local_folder, logged, damage):
    run = Run(local_folder)
    run.save(10)
    run.save(20)
    suffix, apply = DAMAGES[damage]
    apply(path_of(local_folder, 20, suffix))
    damaged = {name for name in files_in(local_folder) if "20." in name}

    other = Run(local_folder)
    assert other.checkpointer.restore_latest().state["step"] == 10
    assert other.is_after(10)
    assert files_in(local_folder) == ["damaged", *whole(10)]
    assert set(files_in(f"{local_folder}/damaged")) == damaged
    (line,) = logged
    assert "The checkpoint of step 20" in line and path_of(local_folder, 20, suffix) in line and "damaged/" in line


def test_setting_aside_that_was_interrupted_is_completed_at_the_next_start(local_folder, logged, monkeypatch):
    run = Run(local_folder)
    run.save(10)
    run.save(20)
    flip_bit(path_of(local_folder, 20, DATA))
    rename = storage.rename

    def rename_and_die(*arguments, **options):
        rename(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(storage, "rename", rename_and_die)
    with pytest.raises(KeyboardInterrupt):
        run.checkpointer.restore_latest()
    monkeypatch.setattr(storage, "rename", rename)
    assert Run(local_folder).checkpointer.restore_latest().step == 10
    assert files_in(local_folder) == ["damaged", *whole(10)]
    assert files_in(f"{local_folder}/damaged") == whole(20)


def test_a_damaged_checkpoint_is_not_restored_by_its_step(local_folder):
    run = Run(local_folder)
    run.save(10)
    flip_bit(path_of(local_folder, 10, DATA), 0.9)
    other = Run(local_folder)
    with pytest.raises(StorageError, match=f"step 10 is damaged: the content of {path_of(local_folder, 10, DATA)}"):
        other.checkpointer.restore(10)
    assert not np.any(other.model.weights)


ALL_LOST = {
    "tensors": (DATA, flip_bit, "content of .*data-00000-of-00001 has changed"),
    "manifests": (MANIFEST, os.remove, "step-00000020.json is missing"),
    "everything but the index": (DATA, lambda path: [os.remove(path), os.remove(path.replace(DATA, MANIFEST))], "json"),
}


@pytest.mark.parametrize("lost", ALL_LOST)
def test_if_all_are_damaged_every_start_stops_and_nothing_is_changed(local_folder, logged, lost):
    suffix, apply, says = ALL_LOST[lost]
    run = Run(local_folder)
    for step in (10, 20):
        run.save(step)
        apply(path_of(local_folder, step, suffix))
    before = contents_of(local_folder)

    # A job that is restarted automatically must not start again from step 0 either.
    for _ in range(2):
        with pytest.raises(StorageError, match=rf"^All checkpoints in {local_folder} are damaged\. .*{says}.* copy"):
            Run(local_folder).checkpointer.restore_latest()
        with pytest.raises(StorageError, match="are damaged"):
            Run(local_folder).checkpointer.restore_best(10, direction="max")
    assert contents_of(local_folder) == before


def test_a_run_whose_only_checkpoints_were_set_aside_does_not_start_again(local_folder, logged):
    run = Run(local_folder)
    run.save(10)
    run.save(20)
    flip_bit(path_of(local_folder, 20, INDEX))
    run.checkpointer.restore_latest()
    for suffix in (DATA, INDEX, MANIFEST):
        os.remove(path_of(local_folder, 10, suffix))
    with pytest.raises(StorageError, match=r"Steps \[20\] were moved to damaged/ earlier"):
        Run(local_folder).checkpointer.restore_latest()


@pytest.mark.parametrize("apply", [flip_bit, os.remove], ids=["changed", "deleted"])
@pytest.mark.parametrize("suffix", [DATA, INDEX, MANIFEST])
def test_a_file_that_is_copied_back_makes_the_checkpoint_usable_again(local_folder, logged, tmp_path, suffix, apply):
    run = Run(local_folder)
    run.save(10)
    shutil.copy(path_of(local_folder, 10, suffix), tmp_path / "copy")
    apply(path_of(local_folder, 10, suffix))
    with pytest.raises(StorageError):
        run.checkpointer.restore_latest()
    shutil.copy(tmp_path / "copy", path_of(local_folder, 10, suffix))
    other = Run(local_folder)
    assert other.checkpointer.restore_latest().step == 10
    assert other.is_after(10)


def test_only_the_chief_sets_aside(local_folder, logged):
    run = Run(local_folder)
    run.save(10)
    run.save(20)
    os.remove(path_of(local_folder, 20, INDEX))
    before = files_in(local_folder)
    worker = Run(local_folder, is_chief=False)
    assert worker.checkpointer.restore_latest().step == 10
    assert files_in(local_folder) == before


def test_saving_never_deletes_tensors_that_lost_their_manifest(local_folder):
    run = Run(local_folder, keep=1)
    run.save(10)
    os.remove(path_of(local_folder, 10, MANIFEST))
    before = contents_of(local_folder)
    run.save(20)
    run.save(30)
    assert contents_of(local_folder).items() >= before.items()
    assert files_in(local_folder) == sorted([*(name for name in whole(10) if "json" not in name), *whole(30)])


def save_with_values(run, values, best_step):
    for step, value in values.items():
        run.save(step, best_step=best_step if step >= best_step else None, validation_value=value)


@pytest.mark.parametrize(
    ("direction", "values", "next_best"),
    [
        ("max", {10: 0.5, 20: 0.9, 30: 0.7, 40: 0.6}, 30),
        ("min", {10: 0.5, 20: 0.1, 30: 0.7, 40: 0.6}, 10),
        ("max", {10: 0.7, 20: 0.9, 30: 0.7, 40: None}, 30),
        ("max", {10: None, 20: 0.9, 30: None, 40: None}, 40),
        ("max", {10: -5.0, 20: 0.9, 30: None, 40: float("nan")}, 10),
        ("min", {10: 5.0, 20: 0.9, 30: float("nan"), 40: float("-inf")}, 10),
    ],
)
@pytest.mark.parametrize("damage", ["a bit of the data", "manifest deleted", "index deleted", "manifest empty"])
def test_the_next_best_is_used_if_the_best_is_damaged(local_folder, logged, damage, direction, values, next_best):
    run = Run(local_folder, keep=4)
    save_with_values(run, values, best_step=20)
    assert run.checkpointer.restore_best(20, direction=direction).step == 20
    assert run.is_after(20) and logged == []

    suffix, apply = DAMAGES[damage]
    apply(path_of(local_folder, 20, suffix))
    for _ in range(2):  # Every restart gets the same.
        logged.clear()
        other = Run(local_folder)
        saved = other.checkpointer.restore_best(20, direction=direction)
        assert saved.step == next_best and other.is_after(next_best)
        assert logged[-1] == (
            f"The best checkpoint, of step 20, cannot be used. The next best, of step {next_best}, is used instead."
        )
        assert "The checkpoint of step 20 is damaged" in logged[0]
    assert not [name for name in files_in(local_folder) if "20" in name]


def test_the_next_best_is_one_that_is_not_damaged(local_folder, logged):
    run = Run(local_folder, keep=4)
    save_with_values(run, {10: 0.6, 20: 0.9, 30: 0.8, 40: 0.1}, best_step=20)
    flip_bit(path_of(local_folder, 20, DATA))
    os.remove(path_of(local_folder, 30, INDEX))
    other = Run(local_folder)
    assert other.checkpointer.restore_best(20, direction="max").step == 10
    assert other.is_after(10)
    assert sorted(files_in(f"{local_folder}/damaged")) == sorted(
        [*whole(20), *set(whole(30)) - {f"step-00000030.{INDEX}"}]
    )


@pytest.mark.parametrize(
    ("version", "says"),
    [
        (None, "an earlier version of this project .format 1;"),
        (FORMAT_VERSION - 1, f"an earlier version of this project .format {FORMAT_VERSION - 1};"),
        (FORMAT_VERSION + 1, f"a later version of this project .format {FORMAT_VERSION + 1};"),
    ],
)
def test_a_checkpoint_of_another_version_is_refused_and_left_alone(local_folder, logged, version, says):
    run = Run(local_folder)
    run.save(10)
    run.save(20)
    with_fields(path_of(local_folder, 20, MANIFEST), format_version=version)
    before = contents_of(local_folder)
    for restore in (run.checkpointer.restore_latest, lambda: run.checkpointer.restore(20)):
        with pytest.raises(ConfigError, match=f"The checkpoint of step 20 in .* was written by {says}"):
            restore()
    assert contents_of(local_folder) == before and logged == []


def test_a_manifest_of_another_format_is_refused_and_left_alone(local_folder, logged):
    Run(local_folder).save(10)
    with_fields(path_of(local_folder, 10, MANIFEST), format="another checkpoint")
    before = contents_of(local_folder)
    with pytest.raises(ConfigError, match=r"step 10 in .* has the format 'another checkpoint' instead of 'listwise"):
        Run(local_folder).checkpointer.restore_latest()
    assert contents_of(local_folder) == before and logged == []


ANOTHER_RUN = {
    "shape": (
        {"size": SIZE - 1},
        rf"model/weights: float32 \[{SIZE}\] → float32 \[{SIZE - 1}\]; .* the model: \w{{12}} →",
    ),
    "type": ({"dtype": tf.float64}, rf"model/weights: float32 \[{SIZE}\] → float64 \[{SIZE}\]"),
    "optimizer": (
        {"optimizer": "SGD"},
        r"optimizer/\S+: float32 .* the fingerprint of the optimizer: \w{12} → \w{12}",
    ),
    "fewer slots": ({"optimizer": "Adagrad"}, rf"optimizer/variables/2: float32 \[{SIZE}\] → none; the fingerprint"),
    "config": (
        {"fingerprints": FINGERPRINTS | {"config": "d" * 64}},
        "the fingerprint of the config: cccccccccccc → dddddddddddd. Nothing",
    ),
    # Of the same size: every shape is the same.
    "permuted vocabulary": (
        {"fingerprints": FINGERPRINTS | {"vocabulary": "9" * 64}},
        "the fingerprint of the vocabulary: 000000000000 → 999999999999. Nothing",
    ),
    "data of one kind less": (
        {"fingerprints": {name: FINGERPRINTS[name] for name in ("config", "vocabulary")}},
        "the fingerprint of the train lists: 111111111111 → none. Nothing",
    ),
}


@pytest.mark.parametrize("differs", ANOTHER_RUN)
def test_a_checkpoint_of_another_run_is_refused_and_nothing_is_touched(local_folder, logged, differs):
    options, says = ANOTHER_RUN[differs]
    for step in (10, 20):
        Run(local_folder).save(step)
    before = contents_of(local_folder)
    other = Run(local_folder, **options)
    values = [variable.numpy() for variable in other.variables]
    checkpointer = other.checkpointer
    for restore in (
        checkpointer.restore_latest,
        lambda: checkpointer.restore(20),
        lambda: checkpointer.restore_best(20, direction="max"),
    ):
        with pytest.raises(ConfigError, match=f"The checkpoint of step 20 in .* is of another run: .*{says}"):
            restore()
    assert contents_of(local_folder) == before and logged == []
    assert all(map(np.array_equal, values, other.variables))
