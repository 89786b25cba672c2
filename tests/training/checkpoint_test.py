import json
import os
import shutil

import numpy as np
import pytest
from absl import logging

from settings.errors import ConfigError, StorageError
from trainer import storage
from trainer.compat import keras, tf
from trainer.training import checkpoint
from trainer.training.checkpoint import Checkpointer

SIZE = 1000


class Run:
    """A model and an optimizer with slots, whose values tell after which step they were saved."""

    def __init__(self, folder, *, size=SIZE, dtype=tf.float32, keep=3, **options):
        self.weights = tf.Variable(tf.zeros([size], dtype), name="weights")
        self.optimizer = keras.optimizers.Adam(jit_compile=False)
        self.optimizer.build([self.weights])
        self.checkpointer = Checkpointer(
            folder,
            tf.train.Checkpoint(model=tf.Module(), weights=self.weights, optimizer=self.optimizer),
            keep=keep,
            **options,
        )

    def save(self, step, **options):
        for variable, value in zip(self.variables, self.values_after(step), strict=True):
            variable.assign(value)
        self.checkpointer.save(step, {"step": step, "sums": [[step / 3, 0.1]], "best_step": None}, **options)

    @property
    def variables(self):
        return [self.weights, *self.optimizer.variables]

    def values_after(self, step):
        rng = np.random.default_rng(step)
        return [tf.cast(100 * rng.normal(size=variable.shape), variable.dtype) for variable in self.variables]

    def is_after(self, step):
        return all(
            np.array_equal(variable, value)
            for variable, value in zip(self.variables, self.values_after(step), strict=True)
        )


@pytest.fixture(params=["local", "ram"])
def folder(request, tmp_path):
    return str(tmp_path / "checkpoints") if request.param == "local" else f"ram://{tmp_path.name}/checkpoints"


@pytest.fixture
def local_folder(tmp_path):
    return str(tmp_path / "checkpoints")


@pytest.fixture
def logged(monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "error", lambda message, *values: lines.append(message % values))
    return lines


def path_of(folder, step, suffix):
    return f"{folder}/step-{step:08d}.{suffix}"


DATA, INDEX, MANIFEST = "data-00000-of-00001", "index", "json"


def files_in(folder):
    return sorted(tf.io.gfile.listdir(folder))


def whole(*steps):
    return sorted(f"step-{step:08d}.{suffix}" for step in steps for suffix in (DATA, INDEX, MANIFEST))


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


def test_restores_the_step_asked_for(folder):
    run = Run(folder)
    run.save(10)
    run.save(20)
    other = Run(folder)
    assert other.checkpointer.restore(10).state["step"] == 10
    assert other.is_after(10)
    with pytest.raises(StorageError, match="step 15 has no readable manifest"):
        other.checkpointer.restore(15)


def test_a_run_without_checkpoints_has_nothing_to_restore(folder):
    run = Run(folder)
    assert run.checkpointer.restore_latest() is None
    assert run.checkpointer.steps() == []
    assert not tf.io.gfile.exists(folder)


def truncate(path, size_of):
    os.truncate(path, size_of(os.path.getsize(path)))


def flip_bit(path, position):
    content = bytearray(storage.read_bytes(path))
    content[int(position * len(content))] ^= 1
    with open(path, "wb") as file:
        file.write(content)


def write(path, content):
    with open(path, "w") as file:
        file.write(content)


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
    "data cut by a byte": (DATA, lambda path: truncate(path, lambda size: size - 1)),
    "data cut by half": (DATA, lambda path: truncate(path, lambda size: size // 2)),
    "data emptied": (DATA, lambda path: truncate(path, lambda size: 0)),
    "data longer by a byte": (DATA, lambda path: truncate(path, lambda size: size + 1)),
    "a bit of the data": (DATA, lambda path: flip_bit(path, 0.5)),
    "a bit of the index": (INDEX, lambda path: flip_bit(path, 0.5)),
    "a bit of the state": (
        MANIFEST,
        lambda path: flip_bit(path, storage.read_bytes(path).index(b"6.6") / os.path.getsize(path)),
    ),
    "index deleted": (INDEX, os.remove),
    "data deleted": (DATA, os.remove),
    "manifest empty": (MANIFEST, lambda path: write(path, "")),
    "manifest of garbage": (
        MANIFEST,
        lambda path: write(path, "\udcff\0{]".encode("utf-8", "surrogateescape").decode("latin-1")),
    ),
    "manifest cut by half": (MANIFEST, lambda path: truncate(path, lambda size: size // 2)),
    "manifest of another type": (MANIFEST, lambda path: write(path, "[1, 2]")),
    "manifest a number": (MANIFEST, lambda path: write(path, "5")),
    "manifest without anything": (MANIFEST, lambda path: write(path, "{}")),
    **{
        f"manifest without {key}": (MANIFEST, lambda path, key=key: without(path, key))
        for key in ("files", "state", "step", "sha256")
    },
    "another state": (MANIFEST, with_another_state),
    "the manifest of another step": (MANIFEST, with_the_manifest_of_another_step),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_set_aside_and_the_one_before_is_used(local_folder, logged, damage):
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


def test_what_was_set_aside_in_part_is_set_aside_at_the_next_start(local_folder, logged, monkeypatch):
    run = Run(local_folder)
    run.save(10)
    run.save(20)
    flip_bit(path_of(local_folder, 20, DATA), 0.5)
    rename = tf.io.gfile.rename

    def rename_and_die(*arguments, **options):
        rename(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(tf.io.gfile, "rename", rename_and_die)
    with pytest.raises(KeyboardInterrupt):
        run.checkpointer.restore_latest()
    monkeypatch.setattr(tf.io.gfile, "rename", rename)
    assert Run(local_folder).checkpointer.restore_latest().step == 10
    assert files_in(local_folder) == ["damaged", *whole(10)]
    assert files_in(f"{local_folder}/damaged") == whole(20)


def test_a_damaged_checkpoint_is_not_restored_when_asked_for(local_folder):
    run = Run(local_folder)
    run.save(10)
    flip_bit(path_of(local_folder, 10, DATA), 0.9)
    other = Run(local_folder)
    with pytest.raises(StorageError, match=f"step 10 is damaged: {path_of(local_folder, 10, DATA)}"):
        other.checkpointer.restore(10)
    assert not np.any(other.weights)


def test_with_none_whole_the_run_stops_each_time_and_nothing_is_deleted(local_folder, logged):
    run = Run(local_folder)
    contents = {}
    for step in (10, 20):
        run.save(step)
        flip_bit(path_of(local_folder, step, DATA), 0.5)
    for name in files_in(local_folder):
        contents[name] = storage.read_bytes(f"{local_folder}/{name}")

    # Started again, by hand or by what restarts failed jobs, it must not begin anew either.
    for _ in range(2):
        with pytest.raises(StorageError, match=r"None of the checkpoints .* steps \[10, 20\] were damaged"):
            Run(local_folder).checkpointer.restore_latest()
    assert files_in(local_folder) == ["damaged"]
    assert {name: storage.read_bytes(f"{local_folder}/damaged/{name}") for name in contents} == contents
    assert len(logged) == 2


def test_with_none_whole_one_that_is_copied_back_is_used(local_folder, logged, tmp_path):
    run = Run(local_folder)
    run.save(10)
    shutil.copytree(local_folder, tmp_path / "copy")
    flip_bit(path_of(local_folder, 10, DATA), 0.5)
    with pytest.raises(StorageError):
        run.checkpointer.restore_latest()
    shutil.copytree(tmp_path / "copy", local_folder, dirs_exist_ok=True)
    other = Run(local_folder)
    assert other.checkpointer.restore_latest().step == 10
    assert other.is_after(10)


def test_only_the_chief_sets_aside(local_folder, logged):
    run = Run(local_folder)
    run.save(10)
    run.save(20)
    os.remove(path_of(local_folder, 20, INDEX))
    before = files_in(local_folder)
    worker = Run(local_folder, is_chief=False, worker_name="worker-1")
    assert worker.checkpointer.restore_latest().step == 10
    assert files_in(local_folder) == before


def leave_a_save_cut_short(folder, step):
    """What a save leaves that is killed before its manifest has its name."""
    for suffix in (DATA, INDEX):
        shutil.copy(path_of(folder, 10, suffix), path_of(folder, step, suffix))
    write(f"{path_of(folder, step, MANIFEST)}.123.tmp", "{")
    os.mkdir(f"{folder}/step-{step:08d}_temp")
    write(f"{folder}/step-{step:08d}_temp/part-00000-of-00001.data", "x")


@pytest.mark.parametrize("next_step", [20, 30])
def test_a_save_that_was_cut_short_is_never_restored_and_is_cleaned_at_the_next(local_folder, logged, next_step):
    run = Run(local_folder)
    run.save(10)
    leave_a_save_cut_short(local_folder, 20)
    other = Run(local_folder)
    assert other.checkpointer.restore_latest().step == 10
    assert other.is_after(10)
    assert logged == []
    other.save(next_step)
    assert files_in(local_folder) == whole(10, next_step)


def test_only_a_save_that_was_cut_short_is_no_checkpoint(local_folder, logged):
    run = Run(local_folder)
    run.save(10)
    os.remove(path_of(local_folder, 10, MANIFEST))
    assert Run(local_folder).checkpointer.restore_latest() is None
    assert not tf.io.gfile.exists(f"{local_folder}/damaged")


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


def test_the_best_is_kept_that_the_run_needs_should_the_newest_be_damaged(local_folder, logged):
    run = Run(local_folder, keep=2)
    run.save(10, best_step=10)
    run.save(20, best_step=10)
    run.save(30, best_step=30)
    os.remove(path_of(local_folder, 30, INDEX))
    other = Run(local_folder, keep=2)
    assert other.checkpointer.restore_latest().step == 20
    other.checkpointer.restore(10)
    assert other.is_after(10)


def test_a_manifest_that_went_bad_meanwhile_does_not_stop_a_save(local_folder):
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


def test_a_worker_that_is_not_chief_leaves_no_file(folder):
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
    """Lets TensorFlow's own writing of a checkpoint find the disk full."""

    def write_half(self, prefix):
        tf.io.gfile.makedirs(f"{prefix}_temp")
        write(f"{prefix}_temp/part-00000-of-00001.data", "x" * 100)
        write(f"{prefix}.{DATA}", "x" * 100)
        raise tf.errors.ResourceExhaustedError(None, None, f"{prefix}; No space left on device")

    monkeypatch.setattr(tf.train.Checkpoint, "write", write_half)


def fail_at_the_manifest(monkeypatch):
    def write_bytes(path, content):
        raise StorageError(f"{path} cannot be written: No space left on device.")

    monkeypatch.setattr(storage, "write_bytes", write_bytes)


def fail_at_sync(monkeypatch):
    def sync(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(storage, "sync", sync)


def fail_at_reading_back(monkeypatch):
    def digest(path):
        raise tf.errors.UnknownError(None, None, "Input/output error")

    monkeypatch.setattr(checkpoint, "_digest", digest)


@pytest.mark.parametrize("fail", [fail_half_way, fail_at_the_manifest, fail_at_sync, fail_at_reading_back])
def test_a_save_that_fails_leaves_the_earlier_ones_whole_and_nothing_else(local_folder, monkeypatch, fail):
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


def test_all_has_reached_the_disk_before_the_manifest_is_written(local_folder, monkeypatch):
    run = Run(local_folder)
    events = []
    monkeypatch.setattr(storage, "sync", lambda path: events.append(path))
    monkeypatch.setattr(storage, "write_bytes", lambda path, content: events.append(path))
    run.save(10)
    assert events == [path_of(local_folder, 10, suffix) for suffix in (DATA, INDEX, MANIFEST)]


def test_the_manifest_is_written_last(local_folder, monkeypatch):
    run = Run(local_folder)
    seen = []
    write_bytes = storage.write_bytes

    def look_first(path, content):
        seen.extend(files_in(local_folder))
        write_bytes(path, content)

    monkeypatch.setattr(storage, "write_bytes", look_first)
    run.save(10)
    assert seen == sorted(f"step-00000010.{suffix}" for suffix in (DATA, INDEX))
