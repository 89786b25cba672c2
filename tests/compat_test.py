"""Random numbers that depend on the seed, the step and the row; and an import that shows why it failed."""

import os
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from trainer.compat import stateless_random, tf, tfr

LABELS = tf.constant([[1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 2.0, 1.0, 1.0, 1.0]])
SCORES = tf.constant([[0.3, -0.2, 1.0, 0.0, 0.5, 2.0, -1.0, 0.1, -0.4, 0.7]])
# Those that draw from a Gumbel distribution, and ListMLE, which breaks ties of labels.
RANDOM_LOSSES = [
    "coupled_rankdistil_loss",
    "gumbel_approx_ndcg_loss",
    "list_mle_loss",
    "yeti_logistic_loss",
]


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("key", RANDOM_LOSSES)
def test_random_losses_are_a_function_of_seed_and_step(key, jit_compile):
    loss = tfr.keras.losses.get(key)

    def build():
        @tf.function(jit_compile=jit_compile)
        def evaluate(seed, step):
            with stateless_random(seed, step, tf.range(1), 1):
                return loss(LABELS, SCORES)

        return lambda seed, step: float(evaluate(tf.constant(seed), tf.constant(step, tf.int64)))

    interrupted, resumed = build(), build()
    values = {(seed, step): interrupted(seed, step) for seed, step in ((1, 0), (1, 1), (2, 0), (1, 2))}
    assert len(set(values.values())) == len(values)
    # In another order, and traced anew, as after a restart.
    assert {at: resumed(*at) for at in reversed(values)} == values


def test_each_row_of_the_global_batch_has_its_own_numbers():
    """A replica draws for its rows what one device draws for them, with several samples per row too."""

    def draw(rows, samples):
        with stateless_random(5, 9, rows, 6):
            return tf.random.uniform([len(rows) * samples, 3]).numpy()

    for samples in (1, 4):
        whole = draw(tf.range(6), samples)
        assert len(np.unique(whole)) == whole.size
        parts = [draw(tf.constant(rows), samples) for rows in ([0, 1], [2, 3], [4, 5])]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_two_draws_of_a_step_differ_and_are_uniform():
    with stateless_random(0, 0, tf.range(10_000), 10_000):
        first, second = tf.random.uniform([10_000]), tf.random.uniform([10_000], minval=2, maxval=4)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05
    np.testing.assert_allclose(np.quantile(first, [0.0, 0.25, 0.5, 1.0]), [0, 0.25, 0.5, 1], atol=0.03)
    np.testing.assert_allclose(np.quantile(second, [0.0, 0.25, 0.5, 1.0]), [2, 2.5, 3, 4], atol=0.06)


def test_ties_in_metrics_are_broken_the_same_way():
    scores = tf.zeros([1, 10])
    metrics = []
    for _ in range(5):
        metric = tfr.keras.metrics.NDCGMetric()
        with stateless_random(0, 0, tf.range(1), 1):
            metrics.append(float(metric(LABELS, scores)))
    assert len(set(metrics)) == 1


def test_the_stateful_function_is_restored_even_after_an_error():
    stateful = tf.random.uniform
    with pytest.raises(RuntimeError), stateless_random(0, 0, tf.range(1), 1):
        assert tf.random.uniform is not stateful
        raise RuntimeError
    assert tf.random.uniform is stateful
    with stateless_random(0, 0, tf.range(1), 1), stateless_random(0, 1, tf.range(1), 1):
        pass
    assert tf.random.uniform is stateful


@pytest.mark.parametrize("ending", ["os.abort()", "raise RuntimeError('no driver')"])
def test_what_native_code_prints_is_shown_if_the_import_fails(tmp_path, ending):
    """An abort leaves Python no chance to print what was held back."""
    package = tmp_path / "tensorflow"
    package.mkdir()
    (package / "__init__.py").write_text(f"import os\nos.write(2, b'the driver is too old\\n')\n{ending}\n")
    failed = subprocess.run(
        [sys.executable, "-c", "import trainer.compat"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        check=False,
    )
    assert failed.returncode != 0 and b"the driver is too old" in failed.stderr


def test_functions_that_are_traced_again_print_nothing(capfd, caplog):
    """As in a process that trains several models."""

    def double(value):
        return 2 * value

    for number in range(8):
        tf.function(double)(tf.constant(number))
    assert "retracing" not in capfd.readouterr().err + caplog.text


def test_a_machine_without_gpus_gets_no_error_of_cuda():
    """As in a notebook. Under absl, which the commands use, TensorFlow prints less."""
    script = "from trainer.compat import tf; print(float(tf.zeros([])))"
    found = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert (found.stdout, found.stderr) == ("0.0\n", "")
