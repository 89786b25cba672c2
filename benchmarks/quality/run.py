"""Runs one method of a protocol: its trials, then its test on each seed."""

import pathlib
from typing import Any

import numpy as np

from benchmarks.quality.data import Interactions, Split, TrainingData
from benchmarks.quality.methods import METHODS
from benchmarks.quality.metrics import QueryMetrics, Scores, catalogue_metrics, rated_metrics
from benchmarks.quality.protocols import PROTOCOLS, Protocol
from benchmarks.quality.records import TEST, TRIAL, Record, Records
from benchmarks.quality.tuning import (
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
    search: Record = {"protocol": protocol_name, "method": method_name, "search": search_digest(method, data)}

    trials = [
        Trial(record["hyperparameters"], record["value"], record["found"])
        for record in records.find(TRIAL, **search, split=first.fingerprint())
    ]
    num_trials = num_trials_of(method, data, num_trials)
    for number in range(len(trials), num_trials):
        hyperparameters = propose(method, data, trials)
        fit = timed_fit(method, data, hyperparameters)
        value, found = None, {}
        if fit.fitted is not None:
            _, values = evaluate(protocol, first, fit.fitted.scores, is_final=False)
            value, found = float(np.mean(values[protocol.metrics[0]])), fit.fitted.found
        trials.append(Trial(hyperparameters, value, found))
        records.append(
            {"kind": TRIAL, **search, "split": first.fingerprint(), "trial": number}
            | {"hyperparameters": hyperparameters, "found": found, "value": value}
            | _cost(fit.seconds, fit.error)
        )
        _print(protocol_name, method_name, f"trial {number + 1} of {num_trials}", value, fit.seconds)

    best = best_of(trials[:num_trials], method)
    hyperparameters = best.hyperparameters | best.found
    for seed in protocol.seeds:
        split = protocol.load(data_dir, seed)
        key: dict[str, Any] = {**search, "split": split.fingerprint(), "seed": seed, "hyperparameters": hyperparameters}
        if records.find(TEST, **key):
            continue
        fit = timed_fit(method, training_data(protocol, split, seed, is_final=True), hyperparameters)
        metrics = None
        if fit.fitted is not None:
            users, values = evaluate(protocol, split, fit.fitted.scores, is_final=True)
            metrics = {name: float(np.mean(column)) for name, column in values.items()}
            records.save_queries(queries_name(protocol_name, method_name, seed), users, values)
        records.append(
            {"kind": TEST, **key, "num_trials": num_trials, "validation_value": best.value, "metrics": metrics}
            | _cost(fit.seconds, fit.error)
        )
        value = metrics[protocol.metrics[0]] if metrics else None
        _print(protocol_name, method_name, f"test of seed {seed}", value, fit.seconds)


def training_data(protocol: Protocol, split: Split, seed: int, *, is_final: bool) -> TrainingData:
    """What a method may know: without the validation ratings to fit in a trial, with them in the final fit."""
    return TrainingData(
        num_users=split.num_users,
        num_items=split.num_items,
        has_ratings=split.has_ratings,
        relevance_threshold=protocol.relevance_threshold,
        vector_size=protocol.vector_size,
        interactions=split.train.concatenate(split.validation) if is_final else split.train,
        validation=None if is_final else split.validation,
        metric=protocol.metrics[0],
        rated=protocol.rated,
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


def _cost(seconds: float, error: str | None) -> Record:
    return {"seconds": seconds, "peak_memory_bytes": peak_memory_bytes(), "error": error}


def _print(protocol: str, method: str, what: str, value: float | None, seconds: float) -> None:
    result = "failed" if value is None else f"{value:.4f}"
    print(f"{protocol} {method}: {what}: {result} after {seconds:.1f} s", flush=True)
