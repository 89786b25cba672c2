"""Runs one method of a protocol: its trials, then its test on each seed."""

import pathlib
from typing import Any

import numpy as np

from benchmarks.quality.data import Interactions, Split, TrainingData
from benchmarks.quality.method import Method
from benchmarks.quality.methods import METHODS
from benchmarks.quality.metrics import QueryMetrics, Scores, catalogue_metrics, rated_metrics
from benchmarks.quality.protocols import PROTOCOLS, Protocol
from benchmarks.quality.records import TEST, TRIAL, Record, Records
from benchmarks.quality.tuning import (
    Fit,
    Trial,
    best_of,
    num_trials_of,
    peak_memory_bytes,
    propose,
    search_digest,
    timed_fit,
)


def run_method(
    protocol_name: str, method_name: str, *, data_dir: pathlib.Path, output: pathlib.Path, num_trials: int
) -> None:
    """Does what is not yet in the records: trials with the validation ratings of the first seed, then all tests."""
    protocol, method, records = PROTOCOLS[protocol_name], METHODS[method_name], Records(output)
    first = protocol.load(data_dir, protocol.seeds[0])
    data = training_data(protocol, first, protocol.seeds[0], is_final=False)
    num_trials = num_trials_of(method, data, num_trials)
    search = search_digest(method, data, protocol.metrics)
    key: Record = {"protocol": protocol_name, "method": method_name, "search": search}

    trials = _tune(protocol, method, first, data, records, key, num_trials=num_trials)
    best = best_of(trials, method)
    key |= {"hyperparameters": best.hyperparameters, "num_trials": num_trials}
    for seed in protocol.seeds:
        split = protocol.load(data_dir, seed)
        of_seed = {**key, "seed": seed, "split": split.fingerprint()}
        if not records.find(TEST, **of_seed):
            _test(protocol, method, split, records, of_seed, validation_value=best.value)


def _tune(
    protocol: Protocol,
    method: Method,
    split: Split,
    data: TrainingData,
    records: Records,
    key: Record,
    *,
    num_trials: int,
) -> list[Trial]:
    """The trials of `key` in the records and, as far as there are too few, new ones."""
    key = {**key, "split": split.fingerprint()}
    trials = [Trial(record["hyperparameters"], record["value"]) for record in records.find(TRIAL, **key)]
    for number in range(len(trials), num_trials):
        hyperparameters = propose(method, data, trials)
        fit = timed_fit(method, data, hyperparameters)
        value = None
        if fit.fitted is not None:
            _, values = evaluate(protocol, split, fit.fitted.scores, is_final=False)
            value = float(np.mean(values[protocol.metrics[0]]))
        trials.append(Trial(hyperparameters, value))
        result = {"trial": number, "hyperparameters": hyperparameters, "value": value}
        records.append({"kind": TRIAL, **key, **result, **_cost(fit)})
        _print(key, f"trial {number + 1} of {num_trials}", value, fit)
    return trials[:num_trials]


def _test(
    protocol: Protocol,
    method: Method,
    split: Split,
    records: Records,
    key: Record,
    *,
    validation_value: float | None,
) -> None:
    fit = timed_fit(method, training_data(protocol, split, key["seed"], is_final=True), key["hyperparameters"])
    metrics = None
    if fit.fitted is not None:
        users, values = evaluate(protocol, split, fit.fitted.scores, is_final=True)
        metrics = {name: float(np.mean(column)) for name, column in values.items()}
        records.save_queries(queries_name(key["protocol"], key["method"], key["seed"]), users, values)
    records.append({"kind": TEST, **key, "validation_value": validation_value, "metrics": metrics, **_cost(fit)})
    _print(key, f"test of seed {key['seed']}", metrics and metrics[protocol.metrics[0]], fit)


def training_data(protocol: Protocol, split: Split, seed: int, *, is_final: bool) -> TrainingData:
    """What a method may know: without the validation ratings to fit in a trial, with them in the final fit."""
    return TrainingData(
        num_users=split.num_users,
        num_items=split.num_items,
        has_ratings=split.has_ratings,
        relevance_threshold=protocol.relevance_threshold,
        vector_size=protocol.vector_size,
        rated=protocol.rated,
        interactions=split.train.concatenate(split.validation) if is_final else split.train,
        seed=seed,
    )


def evaluate(protocol: Protocol, split: Split, scores: Scores, *, is_final: bool) -> QueryMetrics:
    """The metrics of each user: on the test ratings in the end, on the validation ratings before."""
    held_out = split.test if is_final else split.validation
    if protocol.rated:
        return rated_metrics(scores, held_out, relevance_threshold=protocol.relevance_threshold, names=protocol.metrics)
    earlier = split.train.concatenate(split.validation) if is_final else split.train

    def matrix(interactions: Interactions) -> Any:
        return interactions.matrix(split.num_users, split.num_items)

    relevant = held_out.take(held_out.ratings >= protocol.relevance_threshold)
    return catalogue_metrics(scores, excluded=matrix(earlier), relevant=matrix(relevant), names=protocol.metrics)


def queries_name(protocol: str, method: str, seed: int) -> str:
    """The name of the file with the test metrics of each user."""
    return f"{protocol}.{method}.{seed}"


def _cost(fit: Fit) -> Record:
    return {"seconds": fit.seconds, "peak_memory_bytes": peak_memory_bytes(), "error": fit.error}


def _print(key: Record, what: str, value: Any, fit: Fit) -> None:
    result = f"failed, {fit.error}" if value is None else f"{value:.4f}"
    print(f"{key['protocol']} {key['method']}: {what}: {result} after {fit.seconds:.1f} s", flush=True)
