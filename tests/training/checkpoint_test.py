"""What a save writes, keeps and deletes, and what a restore reads back."""

import hashlib
import json
import os

import numpy as np
import pytest

from settings.errors import StorageError
from tests.conftest import mirrored_strategy
from tests.training.checkpoint_run import (
    DATA,
    FINGERPRINTS,
    INDEX,
    MANIFEST,
    MARKER,
    SIZE,
    Run,
    contents_of,
    fail_half_way,
    files_in,
    path_of,
    whole,
    write,
)
from trainer import storage
from trainer.compat import tf
from trainer.workdir import FORMAT_VERSION


@pytest.fixture(params=["local", "ram"])
def folder(request, tmp_path):
    return str(tmp_path / "checkpoints") if request.param == "local" else f"ram://{tmp_path.name}/checkpoints"


def test_restores_the_newest_exactly(folder):
    run = Run(folder)
    for step in (9, 10, 100_000_000):
        run.save(step)
    other = Run(folder)
    saved = other.checkpointer.restore_latest()
    assert (saved.step, saved.state) == (
        100_000_000,
        {"step": 100_000_000, "sums": [[1e8 / 3, 0.1]], "best_step": None},
    )
    assert other.is_after(100_000_000)


def test_restores_a_given_step(folder):
    run = Run(folder)
    run.save(10)
    run.save(20)
    other = Run(folder)
    assert other.checkpointer.restore(10).state["step"] == 10
    assert other.is_after(10)
    with pytest.raises(StorageError, match=r"step 15 is damaged: .*step-00000015.json is missing"):
        other.checkpointer.restore(15)


def test_a_run_without_checkpoints_has_nothing_to_restore(folder):
    run = Run(folder)
    assert run.checkpointer.restore_latest() is None
    assert run.checkpointer.steps() == []
    assert not tf.io.gfile.exists(folder)


def test_the_digest_depends_on_every_value(folder):
    digests = []
    for number, changed in enumerate([0.0, 0.0, 1e-3]):
        run = Run(f"{folder}-{number}")
        run.save(10)
        run.model.weights.assign_add(changed * tf.one_hot(5, SIZE))
        run.checkpointer.save(20, {"step": 20})
        run.checkpointer.wait()
        saved = run.checkpointer.restore_latest()
        assert saved.digest == run.checkpointer.restore(20).digest != run.checkpointer.restore(10).digest
        digests.append(saved.digest)
    assert digests[0] == digests[1] != digests[2]


def leave_an_interrupted_save(folder, step):
    """Creates what a save leaves if the process is killed before the manifest has its final name."""
    write(path_of(folder, step, MARKER), "")
    for suffix in (DATA, INDEX):
        write(path_of(folder, step, suffix), "cut short")
    write(f"{path_of(folder, step, MANIFEST)}.123.tmp", "{")
    for suffix in (DATA, INDEX):
        write(f"{path_of(folder, step, suffix)}.tempstate1234567890123", "x")


@pytest.mark.parametrize("next_step", [20, 30])
def test_an_interrupted_save_is_never_restored_and_the_next_save_deletes_it(local_folder, logged, next_step):
    run = Run(local_folder)
    run.save(10)
    leave_an_interrupted_save(local_folder, 20)
    other = Run(local_folder)
    assert other.checkpointer.restore_latest().step == 10
    assert other.is_after(10)
    assert logged == []
    other.save(next_step)
    assert files_in(local_folder) == whole(10, next_step)


def test_a_run_that_was_killed_in_its_first_save_starts_again(local_folder, logged):
    os.mkdir(local_folder)
    leave_an_interrupted_save(local_folder, 10)
    run = Run(local_folder)
    assert run.checkpointer.restore_latest() is None
    assert logged == []
    run.save(10)
    assert files_in(local_folder) == whole(10)


@pytest.mark.parametrize("leftover", ["step-00000010", "step-00000010.txt", "notes", "step-00000030.index.tempstate12"])
def test_files_that_no_save_wrote_are_never_deleted(local_folder, leftover):
    run = Run(local_folder, keep=1)
    run.save(10)
    write(f"{local_folder}/{leftover}", "mine")
    run.save(20)
    assert files_in(local_folder) == sorted([leftover, *whole(20)])


def test_tensors_without_a_manifest_are_moved_when_their_step_is_saved_again(local_folder):
    run = Run(local_folder)
    run.save(10)
    run.save(20)
    os.remove(path_of(local_folder, 20, MANIFEST))
    before = {os.path.basename(path): content for path, content in contents_of(local_folder).items() if "20" in path}
    run.save(20)
    assert files_in(local_folder) == ["damaged", *whole(10, 20)]
    after = {os.path.basename(path): content for path, content in contents_of(f"{local_folder}/damaged").items()}
    assert after == {name: content for name, content in before.items() if "step-00000020" in name}


@pytest.mark.parametrize(
    ("keep", "kept"), [(1, (20, 50)), (2, (20, 40, 50)), (4, (20, 30, 40, 50)), (9, (10, 20, 30, 40, 50))]
)
def test_the_newest_few_and_the_best_are_kept(folder, keep, kept):
    run = Run(folder, keep=keep)
    for step in (10, 20, 30, 40, 50):
        run.save(step, best_step=min(step, 20))
    assert run.checkpointer.steps() == list(kept)
    assert files_in(folder) == whole(*kept)


def test_without_a_best_only_the_newest_are_kept(folder):
    run = Run(folder, keep=1)
    run.save(10)
    run.save(20)
    assert files_in(folder) == whole(20)


def test_the_best_as_of_each_kept_checkpoint_is_kept(local_folder, logged):
    run = Run(local_folder, keep=2)
    run.save(10, best_step=10)
    run.save(20, best_step=10)
    run.save(30, best_step=30)
    os.remove(path_of(local_folder, 30, INDEX))
    other = Run(local_folder, keep=2)
    assert other.checkpointer.restore_latest().step == 20
    other.checkpointer.restore(10)
    assert other.is_after(10)


def test_a_damaged_manifest_does_not_prevent_a_save(local_folder):
    run = Run(local_folder)
    run.save(10)
    write(path_of(local_folder, 10, MANIFEST), "")
    run.save(20)
    assert run.checkpointer.steps() == [10, 20]


def test_a_worker_that_is_not_the_chief_writes_nothing(folder):
    Run(folder).save(10)
    worker = Run(folder, is_chief=False)
    worker.save(20)
    assert files_in(folder) == whole(10)
    assert worker.checkpointer.restore_latest().step == 10 and worker.is_after(10)


def fail_at(suffix):
    def fail(monkeypatch):
        write_bytes = storage.write_bytes

        def refuse(path, content):
            if path.endswith(suffix):
                raise StorageError(f"{path} cannot be written: No space left on device.")
            write_bytes(path, content)

        monkeypatch.setattr(storage, "write_bytes", refuse)

    return fail


def fail_at_sync(monkeypatch):
    def sync(path):
        if path.endswith(INDEX):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(storage, "sync", sync)


def fail_at_reading_back(monkeypatch):
    def digest(path):
        raise tf.errors.UnknownError(None, None, "Input/output error")

    monkeypatch.setattr(storage, "sha256", digest)


@pytest.mark.parametrize(
    "fail",
    [fail_half_way, fail_at(f".{MARKER}"), fail_at(f".{MANIFEST}"), fail_at_sync, fail_at_reading_back],
    ids=["tensors", "marker", "manifest", "sync", "reading back"],
)
def test_a_failed_save_leaves_only_the_earlier_checkpoints(local_folder, monkeypatch, fail):
    run = Run(local_folder, keep=1)
    run.save(10)
    fail(monkeypatch)
    with pytest.raises(StorageError, match=r"step 20 cannot be written .*(No space left|Input/output error)"):
        run.save(20)
    monkeypatch.undo()
    assert files_in(local_folder) == whole(10)
    other = Run(local_folder)
    assert other.checkpointer.restore_latest().step == 10
    assert other.is_after(10)
    other.save(20)
    assert other.checkpointer.steps() == [10, 20]


def test_the_marker_is_on_the_disk_before_the_tensors_and_the_manifest_after_them(local_folder, monkeypatch):
    run = Run(local_folder)
    events = []
    write_bytes, sync = storage.write_bytes, storage.sync

    def record_write(path, content):
        events.append((path, files_in(local_folder)))
        write_bytes(path, content)

    def record_sync(path):
        if path.startswith(f"{local_folder}/step-") and not path.endswith(".tmp"):
            events.append((path, None))
        sync(path)

    monkeypatch.setattr(storage, "write_bytes", record_write)
    monkeypatch.setattr(storage, "sync", record_sync)
    run.save(10)
    data, index, manifest, marker = (path_of(local_folder, 10, kind) for kind in (DATA, INDEX, MANIFEST, MARKER))
    names = sorted(os.path.basename(path) for path in (data, index, marker))
    assert events == [(marker, []), (data, None), (index, None), (manifest, names)]


def test_the_manifest_tells_what_the_checkpoint_is_of(local_folder):
    run = Run(local_folder)
    run.save(10, best_step=10, validation_value=0.5)
    manifest = json.loads(storage.read_bytes(path_of(local_folder, 10, MANIFEST)))
    assert manifest.keys() == {
        *("format", "format_version", "step", "best_step", "validation_value", "state", "fingerprints", "variables"),
        *("files", "sha256"),
    }
    assert (manifest["format"], manifest["format_version"]) == ("listwise checkpoint", FORMAT_VERSION)
    assert manifest["fingerprints"].keys() == {*FINGERPRINTS, "model", "optimizer"}
    assert manifest["fingerprints"].items() >= FINGERPRINTS.items()
    reader = tf.train.load_checkpoint(f"{local_folder}/step-00000010")
    shapes, types = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    assert manifest["variables"] == {name: f"{types[name].name} {shapes[name]}" for name in shapes}
    assert len(shapes) == 1 + len(run.optimizer.variables) + 1  # Keras keeps the learning rate of the last step too.
    np.testing.assert_array_equal(reader.get_tensor("model/weights"), run.model.weights)
    for name in (DATA, INDEX):
        content = storage.read_bytes(path_of(local_folder, 10, name))
        assert manifest["files"][f"step-00000010.{name}"] == {
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }


@pytest.mark.parametrize("num_replicas", [2, 4])
def test_replicas_are_saved_once_and_all_restored(local_folder, num_replicas):
    strategy = mirrored_strategy(num_replicas)
    with strategy.scope():
        run, other = Run(local_folder), Run(local_folder)
    run.save(10)
    assert other.checkpointer.restore_latest().step == 10
    for variable, value in zip(other.variables, run.values_after(10), strict=True):
        assert len(variable.values) == num_replicas
        assert all(np.array_equal(replica, value) for replica in variable.values)
    # On one device it goes on.
    alone = Run(local_folder)
    alone.checkpointer.restore_latest()
    assert alone.is_after(10)
