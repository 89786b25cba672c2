import math

import numpy as np
import pytest

from settings.errors import ConfigError
from trainer.compat import keras, tf
from trainer.training.optimizers import build_optimizer, build_schedule

NAMES = [
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "ftrl",
    "lion",
    "nadam",
    "rmsprop",
    "sgd",
]


def constant(learning_rate):
    return build_schedule("constant", learning_rate=learning_rate, total_steps=10, warmup_steps=0)


def test_the_constant_schedule_is_constant():
    schedule = constant(0.3)
    assert isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule)
    assert [float(schedule(step)) for step in (0, 1, 10, 10**7)] == 4 * [np.float32(0.3)]


@pytest.mark.parametrize("final_fraction", [0.0, 0.1])
@pytest.mark.parametrize("warmup_steps", [0, 1, 20])
def test_warmup_cosine_follows_its_formula(warmup_steps, final_fraction):
    rate, total = 0.4, 100
    schedule = build_schedule(
        "warmup_cosine",
        learning_rate=rate,
        total_steps=total,
        warmup_steps=warmup_steps,
        final_fraction=final_fraction,
    )

    def expected(step):
        if step < warmup_steps:
            return rate * step / warmup_steps
        progress = min(1, (step - warmup_steps) / (total - warmup_steps))
        return rate * (final_fraction + (1 - final_fraction) * (1 + math.cos(math.pi * progress)) / 2)

    for step in (0, 1, 10, 19, 20, 21, 60, 99, 100, 500):
        assert float(schedule(step)) == pytest.approx(expected(step), rel=1e-5, abs=1e-7), step
    # The milestones, in numbers.
    assert float(schedule(warmup_steps)) == pytest.approx(rate)
    assert float(schedule((total + warmup_steps) // 2)) == pytest.approx(rate * (1 + final_fraction) / 2, rel=0.02)
    assert float(schedule(total)) == pytest.approx(rate * final_fraction, abs=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_each_optimizer_descends_at_the_rate_of_its_schedule(name):
    warmup_steps = 0 if name == "ftrl" else 10
    schedule = build_schedule("warmup_cosine", learning_rate=0.5, total_steps=40, warmup_steps=warmup_steps)
    optimizer = build_optimizer(name, schedule, weight_decay=0.01 if name == "adamw" else 0.0)
    assert optimizer.jit_compile is False
    variable = tf.Variable([[3.0, -2.0]])
    for step in range(40):
        before = variable.numpy()
        optimizer.apply_gradients([(2 * variable, variable)])
        if step == 0 and warmup_steps:
            assert np.all(np.abs(variable - before) < 1e-6)  # A warm-up starts at 0.
        # What the step took, and what is the current rate.
        assert float(optimizer.learning_rate) == float(schedule(step))
        assert float(schedule(optimizer.iterations)) == float(schedule(step + 1))
    assert np.all(np.abs(variable) < [[3.0, 2.0]])


def test_sgd_takes_the_steps_that_its_options_say():
    variables = [tf.Variable([1.0, 1.0]), tf.Variable([1.0])]
    gradients = [tf.constant([3.0, 0.0]), tf.constant([4.0])]

    def step_of(**options):
        for variable in variables:
            variable.assign(tf.ones_like(variable))
        optimizer = build_optimizer("sgd", constant(0.1), **options)
        for _ in range(2):
            optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return np.concatenate(variables) - 1

    np.testing.assert_allclose(step_of(), [-0.6, 0.0, -0.8], rtol=1e-5)
    # All gradients together have norm 5.
    np.testing.assert_allclose(step_of(clip_norm=1.0), [-0.12, 0.0, -0.16], rtol=1e-5)
    np.testing.assert_allclose(step_of(clip_norm=10.0), [-0.6, 0.0, -0.8], rtol=1e-5)
    # The second step repeats half of the first.
    np.testing.assert_allclose(step_of(momentum=0.5), [-0.75, 0.0, -1.0], rtol=1e-5)
    # Decay of 0.2 at rate 0.1 takes a fiftieth, gradient or no.
    np.testing.assert_allclose(step_of(weight_decay=0.2)[1], 0.98**2 - 1, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "ftrl"])
def test_clipping_and_weight_decay_are_there_for_every_optimizer(name):
    optimizer = build_optimizer(name, constant(0.1), clip_norm=2.0, weight_decay=0.2)
    assert optimizer.global_clipnorm == 2.0
    variable = tf.Variable([[1.0, 1.0]])
    optimizer.apply_gradients([(tf.constant([[1.0, 0.0]]), variable)])
    assert float(variable[0, 1]) == pytest.approx(0.98, rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "cosine"}, "schedule"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"learning_rate": math.inf}, "learning_rate"),
        ({"warmup_steps": 100}, "warmup_steps"),
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"final_fraction": 1.5}, "final_fraction"),
        ({"final_fraction": math.nan}, "final_fraction"),
        ({"name": "constant", "warmup_steps": 5}, "warmup_steps"),
        ({"name": "constant", "warmup_steps": 0, "final_fraction": 0.5}, "final_fraction"),
    ],
    ids=str,
)
def test_a_schedule_that_cannot_be_is_refused(changes, field):
    options = {"name": "warmup_cosine", "learning_rate": 0.1, "total_steps": 100, "warmup_steps": 10}
    with pytest.raises(ConfigError, match=rf"^config\.optimizer\.{field} is "):
        build_schedule(**(options | changes))


def test_ftrl_cannot_start_at_rate_0():
    schedule = build_schedule("warmup_cosine", learning_rate=0.5, total_steps=40, warmup_steps=10)
    with pytest.raises(ConfigError, match=r"^config\.optimizer\.warmup_steps is above 0, but ftrl"):
        build_optimizer("ftrl", schedule)


@pytest.mark.parametrize(
    ("options", "field", "way_out"),
    [
        ({"name": "Adam"}, "name", "adamax, adamw"),
        ({"name": "adam", "momentum": 0.9}, "momentum", "rmsprop, sgd"),
        ({"name": "sgd", "momentum": 1.0}, "momentum", "below 1"),
        ({"name": "sgd", "momentum": -0.1}, "momentum", "from 0"),
        ({"name": "sgd", "clip_norm": -1.0}, "clip_norm", "positive"),
        ({"name": "sgd", "clip_norm": math.inf}, "clip_norm", "positive"),
        ({"name": "sgd", "weight_decay": math.nan}, "weight_decay", "positive"),
        ({"name": "adamw"}, "weight_decay", "to adam"),
        ({"name": "ftrl", "weight_decay": 0.1}, "weight_decay", "another"),
    ],
    ids=str,
)
def test_an_optimizer_that_cannot_be_is_refused(options, field, way_out):
    name = options.pop("name")
    with pytest.raises(ConfigError, match=rf"^config\.optimizer\.{field} is ") as error:
        build_optimizer(name, constant(0.1), **options)
    assert way_out in str(error.value)
