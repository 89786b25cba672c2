"""The sides of the step benchmark compute the same, and it refuses to compare sides that do not."""

import shutil

import numpy as np
import pytest

from benchmarks import harness
from benchmarks.config import SYNTHETIC, tutorial_config
from benchmarks.planted import build_planted_dataset
from benchmarks.step import __main__ as step
from benchmarks.step.c import Epochs, compile_step
from benchmarks.step.job import EPSILON, INITIAL_SLOT, LEARNING_RATE, Job, load_job
from benchmarks.step.ours import export_job
from benchmarks.training import build_training
from settings.errors import ConfigError, DataError

PADDED, SIZE = 5, 4


@pytest.fixture
def job() -> Job:
    """Three batches of three lists with padding, a padding row, a query and items that repeat."""
    random = np.random.default_rng(3)
    labels = random.integers(0, 6, (3, 3, PADDED)).astype(np.float32)
    labels[np.arange(PADDED) >= random.integers(1, PADDED + 1, (3, 3, 1))] = -1.0
    labels[2, 2] = -1.0
    items = np.where(labels >= 0, random.integers(1, 6, labels.shape), 0).astype(np.int32)
    return Job(
        queries=np.array([[1, 2, 1], [3, 1, 2], [2, 3, 0]], np.int32),
        items=items,
        labels=labels,
        num_lists=np.array([3, 3, 2], np.float32),
        query_table=random.standard_normal((5, SIZE)).astype(np.float32),
        item_table=random.standard_normal((7, SIZE)).astype(np.float32),
    )


def epoch_of_numpy(job: Job, tables: list[np.ndarray], slots: list[np.ndarray]) -> float:
    """Updates float64 tables and slots as the formulas say, one list after the other. Returns the mean loss."""
    total = 0.0
    for queries, items, labels, num_lists in zip(job.queries, job.items, job.labels, job.num_lists, strict=True):
        gradients = [np.zeros_like(table) for table in tables]
        for query, of_list, stars in zip(queries, items, labels, strict=True):
            real = stars >= 0
            if not real.any():
                continue
            of_list, stars = of_list[real], stars[real].astype(np.float64)
            scores = tables[1][of_list] @ tables[0][query]
            probabilities = np.exp(scores) / np.exp(scores).sum()
            total -= (stars * np.log(probabilities)).sum()
            weights = (stars.sum() * probabilities - stars) / num_lists
            gradients[0][query] += weights @ tables[1][of_list]
            np.add.at(gradients[1], of_list, weights[:, None] * tables[0][query])
        for table, slot, gradient in zip(tables, slots, gradients, strict=True):
            slot += gradient**2
            table -= LEARNING_RATE * gradient / np.sqrt(slot + EPSILON)
    return total / job.num_lists.sum()


def reference(job: Job) -> tuple[list[float], list[np.ndarray]]:
    """The losses of two epochs and the tables after them."""
    tables = [table.astype(np.float64) for table in (job.query_table, job.item_table)]
    slots = [np.full_like(table, INITIAL_SLOT) for table in tables]
    return [epoch_of_numpy(job, tables, slots) for _ in range(2)], tables


@pytest.mark.skipif(not shutil.which("cc"), reason="there is no C compiler")
@pytest.mark.parametrize("touched_rows", [False, True])
@pytest.mark.parametrize("flags", [("-O1",), ("-O3", "-march=native", "-ffast-math")])
def test_c_trains_as_the_formulas_say(job, flags, touched_rows):
    losses, tables = reference(job)
    epochs = Epochs(job, compile_step(flags), touched_rows=touched_rows)
    np.testing.assert_allclose([epochs.take(), epochs.take()], losses, rtol=1e-5)
    for table, expected in zip(epochs.tables, tables, strict=True):
        np.testing.assert_allclose(table, expected, rtol=1e-3, atol=1e-5)
    assert np.nextafter(0.0, [1.0]) + 0.0 > 0, "The arithmetic of this process has changed."


def test_we_train_as_the_formulas_say(tmp_path):
    dataset = build_planted_dataset(num_users=5, num_items=9, list_size=4, lists_per_user=2)
    values = {"train.global_batch_size": 4, "list_size": 4, "model.embedding_size": SIZE}
    training = build_training(tutorial_config(SYNTHETIC | values), dataset=dataset)
    superbatch = next(training.superbatches())
    export_job(training, superbatch).save(str(tmp_path))
    job = load_job(str(tmp_path))
    assert job.num_lists.tolist() == [4, 4, 2]  # Ten lists, so the last batch has padding rows.

    losses, tables = reference(job)
    np.testing.assert_allclose([training.take_steps(superbatch), training.take_steps(superbatch)], losses, rtol=1e-5)
    after = export_job(training, superbatch)
    np.testing.assert_allclose(after.query_table, tables[0], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(after.item_table, tables[1], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("losses", [(1002.0, 1000.0), (1000.0, 997.9)])
def test_another_loss_or_another_fall_of_it_is_refused(losses):
    ours = {"losses": (1000.0, 998.0)}
    step.check_losses({step.OURS: ours, "same": {"losses": (1000.0, 998.01)}, "no losses": {}})
    with pytest.raises(DataError, match="other does not train the same model"):
        step.check_losses({step.OURS: ours, "other": {"losses": losses}})


def test_a_side_that_cannot_run_is_left_out_and_says_why(monkeypatch):
    sides = step.build_sides({}, "")
    monkeypatch.setattr(harness, "is_installed", lambda *packages: "jax" not in packages)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    chosen, notes = step.choose_sides(sides, ["tutorial", "jax", "torch", "c"])
    assert list(chosen) == [step.OURS, step.OURS_MEASURED, "PyTorch eager", "PyTorch eager, sparse gradients"]
    reasons = ["--data_dir is empty", "jax is not installed", *["there is no C compiler"] * 3]
    assert len(notes) == len(reasons)
    for note, reason in zip(notes, reasons, strict=True):
        assert f", because {reason}" in note
    assert step.choose_sides(step.build_sides({}, "/data"), ["tutorial"])[1] == []


def test_an_unknown_group_of_sides_is_refused():
    with pytest.raises(ConfigError, match="--sides contains 'java'"):
        step.choose_sides(step.build_sides({}, ""), ["java"])
