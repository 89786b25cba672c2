import math
from typing import get_args

import numpy as np
import pytest

from settings.errors import ConfigError
from settings.trainer_config.training import OptimizerName
from trainer.compat import keras, tf
from trainer.training.optimizers import build_optimizer, build_schedule

NAMES = [name for name in get_args(OptimizerName) if name != "auto"]  # `size_rules` chooses one of the others.


def constant(learning_rate):
    return build_schedule("constant", learning_rate=learning_rate, total_steps=10, warmup_steps=0)


def test_the_constant_schedule_is_constant():
    schedule = constant(0.3)
    assert isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule)
    assert [float(schedule(step)) for step in (0, 1, 10, 10**7)] == 4 * [np.float32(0.3)]


@pytest.mark.parametrize("warmup_steps", [0, 1, 20])
def test_warmup_cosine_follows_its_formula(warmup_steps):
    rate, total = 0.4, 100
    schedule = build_schedule(
        "warmup_cosine",
        learning_rate=rate,
        total_steps=total,
        warmup_steps=warmup_steps,
    )

    def expected(step):
        if step < warmup_steps:
            return rate * step / warmup_steps
        progress = min(1, (step - warmup_steps) / (total - warmup_steps))
        return rate * (1 + math.cos(math.pi * progress)) / 2

    for step in (0, 1, 10, 19, 20, 21, 60, 99, 100, 500):
        assert float(schedule(step)) == pytest.approx(expected(step), rel=1e-5, abs=1e-7), step
    assert float(schedule(warmup_steps)) == pytest.approx(rate)
    assert float(schedule((total + warmup_steps) // 2)) == pytest.approx(rate / 2, rel=0.02)
    assert float(schedule(total)) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_each_optimizer_descends_at_the_rate_of_its_schedule(name):
    warmup_steps = 0 if name == "ftrl" else 10
    schedule = build_schedule("warmup_cosine", learning_rate=0.5, total_steps=40, warmup_steps=warmup_steps)
    optimizer = build_optimizer(name, schedule, tables=[], weight_decay=0.01 if name == "adamw" else 0.0)
    assert optimizer.jit_compile is False
    variable = tf.Variable([[3.0, -2.0]])
    for step in range(40):
        before = variable.numpy()
        optimizer.apply_gradients([(2 * variable, variable)])
        if step == 0 and warmup_steps:
            assert np.all(np.abs(variable - before) < 1e-6)  # A warm-up starts at a rate of 0.
        # The rate that the step used, and the current rate.
        assert float(optimizer.learning_rate) == float(schedule(step))
        assert float(schedule(optimizer.iterations)) == float(schedule(step + 1))
    assert np.all(np.abs(variable) < [[3.0, 2.0]])


def test_the_options_change_the_steps_of_sgd():
    variables = [tf.Variable([1.0, 1.0]), tf.Variable([1.0])]
    gradients = [tf.constant([3.0, 0.0]), tf.constant([4.0])]

    def step_of(**options):
        for variable in variables:
            variable.assign(tf.ones_like(variable))
        optimizer = build_optimizer("sgd", constant(0.1), tables=[], **options)
        for _ in range(2):
            optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return np.concatenate(variables) - 1

    np.testing.assert_allclose(step_of(), [-0.6, 0.0, -0.8], rtol=1e-5)
    # The global norm of the gradients is 5.
    np.testing.assert_allclose(step_of(clip_norm=1.0), [-0.12, 0.0, -0.16], rtol=1e-5)
    np.testing.assert_allclose(step_of(clip_norm=10.0), [-0.6, 0.0, -0.8], rtol=1e-5)
    # Momentum adds half of the first step to the second.
    np.testing.assert_allclose(step_of(momentum=0.5), [-0.75, 0.0, -1.0], rtol=1e-5)
    # Decay of 0.2 at a learning rate of 0.1 removes 2% per step, with or without a gradient.
    np.testing.assert_allclose(step_of(weight_decay=0.2)[1], 0.98**2 - 1, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "ftrl"])
def test_every_optimizer_clips_and_decays(name):
    optimizer = build_optimizer(name, constant(0.1), tables=[], clip_norm=2.0, weight_decay=0.2)
    assert optimizer.global_clipnorm == 2.0
    variable = tf.Variable([[1.0, 1.0]])
    optimizer.apply_gradients([(tf.constant([[1.0, 0.0]]), variable)])
    assert float(variable[0, 1]) == pytest.approx(0.98, rel=1e-3)


@pytest.mark.parametrize("warmup_steps", [100, 101])
def test_a_warm_up_as_long_as_the_run_is_refused(warmup_steps):
    with pytest.raises(ConfigError) as error:
        build_schedule("warmup_cosine", learning_rate=0.1, total_steps=100, warmup_steps=warmup_steps)
    assert str(error.value) == (
        f"config.optimizer.warmup_steps={warmup_steps} cannot be used: it has to be below the 100 steps of the run. "
        "Lower it, or raise config.train.num_epochs."
    )
    build_schedule("warmup_cosine", learning_rate=0.1, total_steps=100, warmup_steps=99)
