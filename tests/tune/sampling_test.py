"""What the sampler draws."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tune.planted import LEARNING_RATE, parameters, planted_value
from trainer.tune import sampling
from trainer.tune.sampling import contains, suggest
from trainer.tune.study import Trial

RANGES = st.tuples(st.floats(1e-6, 1e3), st.floats(1.001, 1e3)).map(lambda pair: (pair[0], pair[0] * pair[1]))
INT_RANGES = st.tuples(st.integers(1, 50), st.integers(1, 50)).map(lambda pair: (pair[0], sum(pair)))
ONE_PARAMETER = st.one_of(
    st.tuples(st.just("range"), st.one_of(RANGES, INT_RANGES)),
    st.tuples(st.just("values"), st.sets(st.integers(0, 99), min_size=1).map(lambda drawn: tuple(sorted(drawn)))),
    st.tuples(st.just("values"), st.sampled_from([("a", "b", "c"), (False, True), ((), (1,), (1, 2))])),
)


@settings(max_examples=20, deadline=None)
@given(st.lists(ONE_PARAMETER, min_size=1, max_size=4), st.sampled_from(["linear", "log"]), st.integers(0, 2**31 - 1))
def test_drawn_values_are_in_the_space_new_and_a_function_of_seed_and_trials(drawn, scale, seed):
    space = parameters(
        *(
            {"field": f"f{number}", form: tried, "scale": scale if form == "range" else "linear"}
            for number, (form, tried) in enumerate(drawn)
        )
    )

    def draw(trials):
        return suggest(space, trials, direction="max", seed=seed, is_allowed=lambda values: True)

    trials = []
    for number in range(1, 14):  # The first ten are random, the others are not.
        values = draw(trials)
        if values is None:
            assert number > math.prod(_num_values(parameter) for parameter in space)
            break
        assert values == draw(trials)
        assert all(contains(parameter, values[parameter.field]) for parameter in space)
        assert values not in [trial.parameters for trial in trials]
        state = "failed" if number % 4 == 0 else "finished"
        trials.append(Trial(number, values, state, number / 7 if state == "finished" else None))


def _num_values(parameter):
    if parameter.values is not None:
        return len(parameter.values)
    low, high = parameter.range
    return high - low + 1 if isinstance(low, int) and isinstance(high, int) else math.inf


def test_rounding_does_not_leave_the_range():
    (parameter,) = parameters({"field": "a", "range": (1.00004, 1.99996)})
    assert [sampling.decode(parameter, drawn) for drawn in (1.00004, 1.5, 1.99996)] == [1.00004, 1.5, 1.99996]
    assert sampling.decode(parameter, 1.123456789) == 1.1235


def test_another_seed_draws_other_values():
    draws = [suggest(parameters(), [], direction="max", seed=seed, is_allowed=lambda values: True) for seed in range(5)]
    assert all(a != b for a, b in itertools.combinations(draws, 2))


def test_a_log_scale_draws_each_power_of_ten_equally_often():
    space = parameters(LEARNING_RATE)
    draws = [
        suggest(space, [], direction="max", seed=seed, is_allowed=lambda values: True)["optimizer.learning_rate"]
        for seed in range(400)
    ]
    counts = np.histogram(np.log10(draws), bins=[-4, -3, -2, -1, 0])[0]
    assert counts.sum() == 400 and counts.min() > 70  # 100 expected, with a standard deviation of 9.


def test_a_small_space_is_tried_exactly_once_without_what_is_not_allowed():
    space = parameters({"field": "a", "values": (1, 2, 3)}, {"field": "b", "values": ("x", "y")})
    trials = []
    while values := suggest(
        space, trials, direction="min", seed=3, is_allowed=lambda values: values != {"a": 2, "b": "y"}
    ):
        trials.append(Trial(len(trials) + 1, values, "finished", 0.5))
    tried = {(trial.parameters["a"], trial.parameters["b"]) for trial in trials}
    assert tried == {(1, "x"), (1, "y"), (2, "x"), (3, "x"), (3, "y")} and len(trials) == 5


@pytest.mark.parametrize("direction", ["max", "min"])
def test_the_sampler_moves_to_the_planted_optimum_and_away_from_failures(direction):
    """The later half of a search is better than its random start, whichever way is good, and fails less often."""
    sign = 1 if direction == "max" else -1
    starts, ends, failed_starts, failed_ends = [], [], 0, 0
    for seed in range(4):
        trials = []
        for number in range(1, 41):
            values = suggest(parameters(), trials, direction=direction, seed=seed, is_allowed=lambda values: True)
            has_failed = values["model.embedding_size"] > 34
            value = None if has_failed else sign * planted_value(values)
            trials.append(Trial(number, values, "failed" if has_failed else "finished", value))
        starts += [sign * trial.value for trial in trials[:10] if trial.value is not None]
        ends += [sign * trial.value for trial in trials[-15:] if trial.value is not None]
        failed_starts += sum(trial.state == "failed" for trial in trials[:10])
        failed_ends += sum(trial.state == "failed" for trial in trials[-15:])
    assert np.mean(ends) > np.mean(starts) + 0.2
    assert failed_ends / 15 < failed_starts / 10 / 2
