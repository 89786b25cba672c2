"""The plan of the calls: as long as possible, and past no step where work is due."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.training.schedule import Cadence, plan_calls

STEPS = st.integers(1, 200)


@st.composite
def plans(draw):
    """first_step, total_steps, steps_per_execution, cadences."""
    total_steps = draw(STEPS)
    first_step = draw(st.integers(0, total_steps))
    epoch_steps = draw(STEPS)
    every = draw(st.lists(st.integers(0, 60), max_size=3))
    cadences = [Cadence(steps, epoch_steps=epoch_steps, total_steps=total_steps) for steps in every]
    return first_step, total_steps, draw(st.integers(1, 70)), cadences


@settings(deadline=None, max_examples=200)
@given(plans())
def test_calls_cover_all_steps_and_pass_over_nothing_that_is_due(plan):
    first_step, total_steps, steps_per_execution, cadences = plan
    calls = plan_calls(first_step, total_steps, steps_per_execution=steps_per_execution, cadences=cadences)
    assert calls.dtype == np.int64
    assert (calls[0], calls[-1]) == (first_step, total_steps)
    assert calls.tolist() == [first_step] or (np.diff(calls) > 0).all()
    due = {step for step in range(first_step, total_steps + 1) if any(cadence(step) for cadence in cadences)}
    for begin, end in itertools.pairwise(calls.tolist()):
        assert end - begin <= steps_per_execution
        assert not due & set(range(begin + 1, end))
        # As long as can be.
        assert end - begin == steps_per_execution or end in due or end == total_steps


@settings(deadline=None, max_examples=200)
@given(plans(), st.data())
def test_going_on_from_the_end_of_a_call_the_calls_are_the_same(plan, data):
    _, total_steps, steps_per_execution, cadences = plan
    calls = plan_calls(0, total_steps, steps_per_execution=steps_per_execution, cadences=cadences).tolist()
    index = data.draw(st.integers(0, len(calls) - 1))
    assert (
        plan_calls(calls[index], total_steps, steps_per_execution=steps_per_execution, cadences=cadences).tolist()
        == calls[index:]
    )


def test_a_plan_for_fewer_steps_than_were_taken_has_no_call():
    assert plan_calls(20, 10, steps_per_execution=5, cadences=[]).tolist() == [20]


def test_a_cadence_is_due_every_so_many_steps_and_after_the_last():
    due = Cadence(4, epoch_steps=5, total_steps=10)
    assert [step for step in range(1, 11) if due(step)] == [4, 8, 10]
    once_an_epoch = Cadence(0, epoch_steps=5, total_steps=12)
    assert [step for step in range(1, 13) if once_an_epoch(step)] == [5, 10, 12]
