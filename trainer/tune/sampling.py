"""Which values a trial tries: Optuna's TPE, as a function of the seed and the trials before it.

Nothing else has a state, so a search that was killed goes on with the trials that it would have had.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import optuna

from settings.search_space import SearchParameter
from trainer.tune.study import Trial

Values = dict[str, Any]
"""The values of a trial, by the dotted names of their fields."""

_SIGNIFICANT_DIGITS = 4

# After this many draws that were tried before or are not allowed, the next draws are uniform: the sampler can insist.
_NUM_MODEL_DRAWS = 10
# After this many draws the space counts as used up.
_MAX_DRAWS = 1000

_DIRECTIONS: dict[str, Literal["maximize", "minimize"]] = {"max": "maximize", "min": "minimize"}


def suggest(
    parameters: Sequence[SearchParameter],
    trials: Sequence[Trial],
    *,
    direction: str,
    seed: int,
    is_allowed: Callable[[Values], bool],
) -> Values | None:
    """Returns the values of the next trial.

    The sampler is the Tree-structured Parzen Estimator (Bergstra et al., Algorithms for Hyper-Parameter Optimization,
    NeurIPS 2011). Its first ten trials are random. Floats are rounded to four significant digits, so that they can be
    copied.

    Args:
      trials: the trials before, finished or failed, in order. The sampler leaves out those outside of the space.
      direction: `max` or `min`: which values of a trial are good.
      is_allowed: whether a trial can have these values together.

    Returns:
      Values that no earlier trial has; None if there are none left.
    """
    tried = [trial.parameters for trial in trials]
    study = _study(parameters, trials, direction)
    for draw in range(_MAX_DRAWS):
        draw_seed = int(np.random.SeedSequence([seed, len(trials), draw]).generate_state(1)[0])
        is_modelled = draw < _NUM_MODEL_DRAWS
        sampler = optuna.samplers.TPESampler if is_modelled else optuna.samplers.RandomSampler
        study.sampler = sampler(seed=draw_seed)
        trial = study.ask({parameter.field: _distribution(parameter) for parameter in parameters})
        # A trial that stays open would count as one that runs at the same time.
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        values = {parameter.field: decode(parameter, trial.params[parameter.field]) for parameter in parameters}
        if values not in tried and is_allowed(values):
            return values
    return None


def contains(parameter: SearchParameter, value: Any) -> bool:
    """Whether a search can try a value of the field."""
    if parameter.values is not None:
        return value in parameter.values
    low, high = parameter.tried
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and low <= value <= high and not (_is_integral(parameter) and value != int(value))


def _study(parameters: Sequence[SearchParameter], trials: Sequence[Trial], direction: str) -> optuna.Study:
    """The study in memory, after the trials."""
    study = optuna.create_study(direction=_DIRECTIONS[direction])
    distributions = {parameter.field: _distribution(parameter) for parameter in parameters}
    states = optuna.trial.TrialState
    for trial in trials:
        if not all(contains(parameter, trial.parameters[parameter.field]) for parameter in parameters):
            continue
        encoded = {parameter.field: _encode(parameter, trial.parameters[parameter.field]) for parameter in parameters}
        study.add_trial(
            optuna.trial.create_trial(
                params=encoded,
                distributions=distributions,
                value=trial.value,
                # The sampler ignores trials of state FAIL. A pruned trial counts as worse than any finished one, so it
                # learns to avoid what diverges.
                state=states.COMPLETE if trial.state == "finished" else states.PRUNED,
            )
        )
    return study


def _distribution(parameter: SearchParameter) -> optuna.distributions.BaseDistribution:
    """What Optuna draws from: a number of a range, or the position of a value. Numbers keep their order."""
    if parameter.values is not None:
        num_values = len(parameter.values)
        if parameter.is_numeric:
            return optuna.distributions.IntDistribution(0, num_values - 1)
        return optuna.distributions.CategoricalDistribution(range(num_values))
    low, high = parameter.tried
    is_log = parameter.scale == "log"
    if _is_integral(parameter):
        return optuna.distributions.IntDistribution(low, high, log=is_log)
    return optuna.distributions.FloatDistribution(low, high, log=is_log)


def _encode(parameter: SearchParameter, value: Any) -> Any:
    return value if parameter.values is None else parameter.values.index(value)


def decode(parameter: SearchParameter, drawn: Any) -> Any:
    """The value that a draw of the sampler stands for: of a float, four significant digits."""
    if parameter.values is not None:
        return parameter.values[drawn]
    if _is_integral(parameter):
        return drawn
    low, high = parameter.tried
    return float(min(max(round(drawn, _num_decimals(drawn, high - low)), low), high))


def _num_decimals(value: float, width: float) -> int:
    """The decimals that keep the significant digits of a value, and those of the range that it is from."""
    smallest = min(abs(value) or width, width)
    return _SIGNIFICANT_DIGITS - 1 - math.floor(math.log10(smallest))


def _is_integral(parameter: SearchParameter) -> bool:
    return parameter.range is not None and all(isinstance(end, int) for end in parameter.range)
