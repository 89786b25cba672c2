"""What a save writes, keeps and deletes, and what a restore reads back."""

import os

import pytest

from settings.errors import ConfigError, StorageError
from tests.training.checkpoint_run import (
    DATA,
    INDEX,
    MANIFEST,
    MARKER,
    SIZE,
    Run,
    contents_of,
    files_in,
    path_of,
    whole,
    write,
)
from trainer import storage
from trainer.compat import tf
from trainer.training import checkpoint
from trainer.training.checkpoint import Checkpointer


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
        run.weights.assign_add(changed * tf.one_hot(5, SIZE))
        run.checkpointer.save(20, {"step": 20})
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
    os.mkdir(f"{folder}/step-{step:08d}_temp")
    write(f"{folder}/step-{step:08d}_temp/part-00000-of-00001.data", "x")


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


class Killed(BaseException):
    """Ends the code under test at once, like SIGKILL. No handler for errors catches it."""


KILL_POINTS = {"rename": tf.io.gfile, "remove": tf.io.gfile, "write_bytes": storage, "sync": storage}


@pytest.mark.parametrize("name", KILL_POINTS)
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("count", range(6))
def test_a_save_may_be_killed_anywhere(local_folder, monkeypatch, logged, name, done, count):
    """Two checkpoints are kept of 10, 20 and 30. The process is killed while it saves 30 and deletes 10."""
    run = Run(local_folder, keep=2)
    run.save(10)
    run.save(20)
    calls = iter(range(100))
    function = getattr(KILL_POINTS[name], name)

    def die(*arguments, **options):
        if next(calls) < count:
            return function(*arguments, **options)
        if done:
            function(*arguments, **options)
        raise Killed

    monkeypatch.setattr(KILL_POINTS[name], name, die)
    try:
        run.save(30)
    except Killed:
        killed = True
    else:
        killed = False
    monkeypatch.undo()
    other = Run(local_folder, keep=2)
    step = other.checkpointer.restore_latest().step
    assert step in (20, 30) and other.is_after(step)
    assert killed or files_in(local_folder) == whole(20, 30)
    other.save(40)
    assert files_in(local_folder) == whole(step, 40)


@pytest.mark.parametrize("leftover", ["step-00000010", "step-00000010.txt", "notes", "step-00000030_temp"])
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


@pytest.mark.parametrize("other_model", [{"size": SIZE - 1}, {"dtype": tf.float64}], ids=["shape", "type"])
def test_a_model_of_another_shape_is_refused_and_nothing_moved(local_folder, logged, other_model):
    Run(local_folder).save(10)
    with pytest.raises(ConfigError, match=r"step 10 .* another shape"):
        Run(local_folder, **other_model).checkpointer.restore_latest()
    assert files_in(local_folder) == whole(10)
    assert logged == []


@pytest.mark.parametrize("more", ["saved", "asked for"])
def test_a_model_with_other_variables_is_refused(local_folder, more):
    small = tf.train.Checkpoint(a=tf.Variable([1.0]))
    large = tf.train.Checkpoint(a=tf.Variable([1.0]), b=tf.Variable([2.0]))
    saved, asked_for = (large, small) if more == "saved" else (small, large)
    Checkpointer(local_folder, saved, keep=1).save(10, {})
    with pytest.raises(ConfigError, match="another shape"):
        Checkpointer(local_folder, asked_for, keep=1).restore_latest()
    assert files_in(local_folder) == whole(10)


def test_a_worker_that_is_not_the_chief_leaves_no_file(folder):
    Run(folder).save(10)
    worker = Run(folder, is_chief=False, worker_name="worker-1")
    worker.save(20)
    assert files_in(folder) == whole(10)


def test_a_worker_that_cannot_write_leaves_no_file_either(local_folder, monkeypatch):
    Run(local_folder).save(10)
    worker = Run(local_folder, is_chief=False, worker_name="worker-1")
    fail_half_way(monkeypatch)
    with pytest.raises(StorageError, match="step 20 cannot be written"):
        worker.save(20)
    assert files_in(local_folder) == whole(10)


def fail_half_way(monkeypatch):
    """Makes TensorFlow fail while it writes a checkpoint, as on a full disk."""

    def write_half(self, prefix):
        tf.io.gfile.makedirs(f"{prefix}_temp")
        write(f"{prefix}_temp/part-00000-of-00001.data", "x" * 100)
        write(f"{prefix}.{DATA}", "x" * 100)
        raise tf.errors.ResourceExhaustedError(None, None, f"{prefix}; No space left on device")

    monkeypatch.setattr(tf.train.Checkpoint, "write", write_half)


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

    monkeypatch.setattr(checkpoint, "_digest", digest)


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
