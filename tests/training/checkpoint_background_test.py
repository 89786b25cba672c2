"""Saving in the background: what is saved, who waits, and where an error goes."""

import threading

import numpy as np
import pytest

from settings.errors import ConfigError, DivergedError, StorageError
from tests.training.checkpoint_run import Run, fail_half_way, files_in, whole
from trainer.compat import tf


class HeldSave:
    """Saves that wait before they write."""

    def __init__(self):
        self.reached, self.released = threading.Event(), threading.Event()

    def __call__(self):
        self.reached.set()
        assert self.released.wait(timeout=60)


def test_a_save_is_of_the_moment_it_was_asked_for(local_folder):
    """The variables and the state change while it is written."""
    held = HeldSave()
    run = Run(local_folder, before_writing=held)
    state = {"step": 10, "sums": [[1.0, 2.0]]}
    run.begin_save(10)
    assert held.reached.wait(timeout=60)
    assert files_in_or_none(local_folder) is None
    for variable, value in zip(run.variables, run.values_after(20), strict=True):
        variable.assign(value)
    held.released.set()
    run.checkpointer.wait()
    run.checkpointer.save(20, state)
    state["sums"][0][0] = 5.0
    other = Run(local_folder)
    assert other.checkpointer.restore(10).step == 10 and other.is_after(10)
    run.checkpointer.wait()
    assert other.checkpointer.restore(20).state["sums"] == [[1.0, 2.0]] and other.is_after(20)


def files_in_or_none(folder):
    return files_in(folder) if tf.io.gfile.exists(folder) else None


def test_a_save_waits_for_the_save_before_it(local_folder):
    held = HeldSave()
    run = Run(local_folder, before_writing=held)
    run.begin_save(10)
    second = threading.Thread(target=run.begin_save, args=(20,))
    second.start()
    assert held.reached.wait(timeout=60)
    second.join(timeout=0.2)
    assert second.is_alive()
    held.released.set()
    second.join(timeout=60)
    run.checkpointer.wait()
    assert files_in(local_folder) == whole(10, 20)


@pytest.mark.parametrize("ask", ["save", "wait", "restore_latest"])
def test_the_error_of_a_save_is_raised_by_what_waits_for_it(local_folder, monkeypatch, ask):
    run = Run(local_folder)
    fail_half_way(monkeypatch)
    run.begin_save(10)
    asks = {
        "save": lambda: run.begin_save(20),
        "wait": run.checkpointer.wait,
        "restore_latest": run.checkpointer.restore_latest,
    }
    with pytest.raises(StorageError, match="step 10 cannot be written"):
        asks[ask]()
    monkeypatch.undo()
    run.save(30)
    assert run.checkpointer.steps() == [30]


def test_leaving_the_context_waits_and_the_first_error_goes_on(local_folder, logged, monkeypatch):
    held = HeldSave()
    held.released.set()
    with Run(local_folder, before_writing=held).checkpointer as checkpointer:
        checkpointer.save(10, {})
    assert checkpointer.steps() == [10]
    fail_half_way(monkeypatch)
    with pytest.raises(StorageError, match="step 20"), checkpointer:
        checkpointer.save(20, {})
    with pytest.raises(KeyError, match="planted"), checkpointer:
        checkpointer.save(30, {})
        raise KeyError("planted")
    (line,) = logged
    assert "The checkpoint of step 30 cannot be written" in line


def test_a_second_signal_does_not_wait_for_a_save(local_folder):
    held = HeldSave()
    run = Run(local_folder, before_writing=held)
    with pytest.raises(KeyboardInterrupt), run.checkpointer:
        run.begin_save(10)
        raise KeyboardInterrupt
    assert files_in_or_none(local_folder) is None
    held.released.set()
    run.checkpointer.wait()


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("index", [0, 2], ids=["weights", "slot"])
def test_what_is_not_finite_is_never_written(local_folder, number, index):
    run = Run(local_folder)
    run.save(10)
    run.variables[index].assign(tf.tensor_scatter_nd_update(run.variables[index], [[7]], [number]))
    name = ["model/weights", "", "optimizer/variables/1"][index]
    run.checkpointer.save(20, {})
    with pytest.raises(
        DivergedError, match=f"after step 20 {name} holds numbers that are not finite. This step was not"
    ):
        run.checkpointer.wait()
    assert files_in(local_folder) == whole(10)


def test_what_comes_before_and_after_writing(local_folder):
    events = []
    run = Run(
        local_folder,
        before_writing=lambda: events.append(files_in_or_none(local_folder)),
        after_writing=lambda: events.append(files_in(local_folder)),
    )
    run.save(10)
    assert events == [None, whole(10)]


def test_a_run_that_lost_its_workdir_writes_nothing(local_folder):
    def lost():
        raise ConfigError("taken over")

    run = Run(local_folder, before_writing=lost)
    run.begin_save(10)
    with pytest.raises(ConfigError, match="taken over"):
        run.checkpointer.wait()
    assert files_in_or_none(local_folder) is None
