"""Finds on any machine, before anything is paid for, what would fail on an accelerator.

The doctor builds the share of one replica from the real config and data. It traces and compiles the steps here as they
would be compiled there. It trains nothing and leaves no files behind.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from rich.filesize import decimal
from rich.table import Table

from settings import cli
from settings.errors import ConfigError, UserError
from settings.trainer_config import TrainerConfig, load_trainer_config
from settings.trainer_config.training import TrainConfig
from trainer import config as config_lib
from trainer import storage
from trainer.compat import tf
from trainer.data.dataset import Dataset
from trainer.data.loading import load_dataset
from trainer.doctor import memory
from trainer.evaluation.evaluator import build_eval_call
from trainer.modeling import input_pipeline
from trainer.training import size_rules, steps
from trainer.training.learner import Learner, build_learner, check_replicas
from trainer.workdir import Workdir

# The error of XLA for an operation that it cannot compile.
_UNSUPPORTED = re.compile(r"on XLA_\w+: (?P<op>\w+) .*?\{\{node (?P<node>\S+)\}\}")


@dataclass(frozen=True)
class Finding:
    """One row of the table.

    Attributes:
      passed: None if it was not checked.
      says: what was found, and for a failure the way out.
    """

    check: str
    passed: bool | None
    says: str


@dataclass(frozen=True)
class Step:
    """A traced call of the run.

    Attributes:
      call: a `tf.function`.
      arguments: the arguments of one replica.
      nodes: every operation of its graph, including those of the functions that it calls.
    """

    name: str
    call: Any
    arguments: tuple[Any, ...]
    nodes: list[Any]


def examine(
    config: ConfigDict, *, strategy_name: str, num_replicas: int = 1, workdir: str = "", accelerator: str = ""
) -> list[Finding]:
    """Checks a run of `config`. Quick checks come first.

    Args:
      config: the config with its overrides, not yet checked.
      strategy_name: one of strategy.STRATEGIES. With `tpu` XLA has to compile a whole call, else the loop over
        steps and the metrics.
      num_replicas: of the run, over all its machines.
      workdir: of the run; empty to leave it unchecked.
      accelerator: one of memory.ACCELERATORS; empty to print the estimate of the memory without comparing it.
    """
    findings: list[Finding] = []

    def attempt(check: str, action: Callable[..., Any], *needs: Any, says: Callable[[Any], str] = str) -> Any:
        """Returns what `action(*needs)` returns; None if it fails, or if something that it needs is None."""
        if any(need is None for need in needs):
            findings.append(Finding(check, None, "It depends on a check above that failed."))
            return None
        try:
            found = action(*needs)
        except UserError as error:
            findings.append(Finding(check, False, str(error)))
            return None
        findings.append(Finding(check, True, says(found)))
        return found

    def load(config: TrainerConfig) -> Dataset:
        return load_dataset(**config_lib.dataset_arguments(config))

    def build_batches(config: TrainerConfig, dataset: Dataset, learner: Learner, _: int) -> dict[str, tf.data.Dataset]:
        return _build_batches(config, dataset, learner, num_replicas)

    def trace(config: TrainerConfig, learner: Learner, batches: dict[str, tf.data.Dataset]) -> list[Step]:
        return [trace_step(*call) for call in _build_calls(config, learner, batches, whole=strategy_name == "tpu")]

    def compare_memory(
        config: TrainerConfig,
        learner: Learner,
        batches: dict[str, tf.data.Dataset],
        replica_batch_size: int,
        _: str,
    ) -> str:
        sizes = {
            "weight_bytes": _num_bytes(learner.model.variables),
            "slot_bytes": _num_bytes(learner.optimizer.variables),
            "num_items": learner.model.num_items,
        }
        needed = memory.estimate_memory(
            config,
            superbatch_bytes=_num_bytes(list(batches["training"].element_spec.values())),
            batch_size=replica_batch_size,
            **sizes,
        )
        on_host = memory.estimate_host_memory(config, **sizes)
        listed = ", ".join(f"{purpose} {decimal(size)}" for purpose, size in on_host.items())
        return f"{memory.check_memory(needed, accelerator, strategy_name)} In the machine's own memory: {listed}."

    usable = attempt("config", load_trainer_config, config, says=lambda _: "All fields can be used.")
    replica_batch_size = attempt(
        "batch size",
        lambda usable: replica_batch_size_of(usable.train, strategy_name, num_replicas),
        usable,
        says=lambda size: f"{size:,} lists per step for each of {num_replicas:,} replicas.",
    )
    if workdir:
        attempt("workdir", lambda usable: check_workdir(workdir, usable), usable)
    dataset = attempt("data", load, usable, says=_describe_data)
    usable = attempt(
        "size of the data",
        lambda usable, dataset: size_rules.adapt(usable, dataset, epoch_steps=_epoch_steps(usable, dataset))[0],
        usable,
        dataset,
        says=lambda _: "All open fields have a value.",
    )
    learner = attempt("model", _build_learner, usable, dataset, says=_describe_learner)
    batches = attempt(
        "batches",
        build_batches,
        usable,
        dataset,
        learner,
        replica_batch_size,
        says=lambda built: f"For {' and '.join(built)}.",
    )
    constant_shapes = attempt("shapes of batches", check_batch_shapes, batches)
    attempt("types of batches", check_batch_types, batches)
    step_list = attempt("steps", trace, usable, learner, batches, says=lambda _: "They can be traced.")
    attempt("shapes in steps", check_step_shapes, step_list)
    attempt("compilation", check_compilation, step_list)
    attempt("memory", compare_memory, usable, learner, batches, replica_batch_size, constant_shapes)
    return findings


def replica_batch_size_of(config: TrainConfig, strategy_name: str, num_replicas: int) -> int:
    """Returns the per-replica batch size. Raises ConfigError if the replicas cannot share a batch equally."""
    if strategy_name == "default" and num_replicas > 1:
        raise ConfigError(
            f"--strategy=default runs on one device, and --num_replicas={num_replicas}. Use --strategy=mirrored for "
            "the devices of one machine."
        )
    check_replicas(config, strategy_name, num_replicas)
    return config.global_batch_size // num_replicas


def check_workdir(path: str, config: TrainerConfig) -> str:
    """Raises StorageError or ConfigError if a run of `config` could not write there."""
    with storage.writing(path):
        Workdir(path).check(config)
        if "://" in path:  # Only a write shows whether a bucket can be written.
            probe = storage.join(path, ".doctor")
            storage.write_bytes(probe, b"")
            tf.io.gfile.remove(probe)
    return f"{path} can be written."


def check_batch_shapes(batches: Mapping[str, tf.data.Dataset]) -> str:
    """Raises ConfigError if the shape of a feature is not constant. XLA cannot compile such a step."""
    for name, dataset in batches.items():
        for feature, spec in dataset.element_spec.items():
            if not spec.shape.is_fully_defined():
                raise ConfigError(
                    f"The feature {feature!r} of the batches for {name} has the shape {spec.shape}, which is not "
                    "constant. Pad it to a constant size in trainer/data/lists.py."
                )
    return "All are constant."


def check_batch_types(batches: Mapping[str, tf.data.Dataset]) -> str:
    """Raises ConfigError if a feature is not a dense tensor of numbers."""
    for name, dataset in batches.items():
        for feature, spec in dataset.element_spec.items():
            if not isinstance(spec, tf.TensorSpec):
                raise ConfigError(
                    f"The feature {feature!r} of the batches for {name} is a {spec.value_type.__name__}, which "
                    "accelerators do not support. Pad it to a dense tensor in trainer/data/lists.py."
                )
            if spec.dtype == tf.string:
                raise ConfigError(
                    f"The feature {feature!r} of the batches for {name} holds strings, which accelerators do not "
                    "support. Turn it into indices in trainer/data/vocabulary.py."
                )
    return "All are dense tensors of numbers."


def trace_step(name: str, call: Any, arguments: Sequence[Any]) -> Step:
    """Traces a `tf.function`. Raises ConfigError if that fails for any reason."""
    try:
        graph = call.get_concrete_function(*arguments).graph.as_graph_def(add_shapes=True)
    except Exception as error:
        raise ConfigError(
            f"The step for {name} cannot be traced: {_reason(error)}. A failed check above may be the cause. If not, "
            "run trainer.main --strategy=default --traceback to see where it fails."
        ) from error
    bodies = [graph.node, *(function.node_def for function in graph.library.function)]
    return Step(name, call, tuple(arguments), [node for nodes in bodies for node in nodes])


def check_step_shapes(traced: Sequence[Step]) -> str:
    """Raises ConfigError if the shape of a result depends on values.

    XLA may compile such an operation on a CPU, and refuse it elsewhere, or pad it at every step.
    """
    for step in traced:
        for node in step.nodes:
            shapes = [tf.TensorShape(shape) for shape in node.attr["_output_shapes"].list.shape]
            if unknown := [shape for shape in shapes if not shape.is_fully_defined()]:
                raise ConfigError(
                    f"In the step for {step.name} the result of {node.name} ({node.op}) has the shape {unknown[0]}, "
                    "which depends on values. Use tf.where, whose result keeps its shape, instead of tf.boolean_mask, "
                    "tf.unique and the like."
                )
    return "All are constant."


def check_compilation(traced: Sequence[Step]) -> str:
    """Raises ConfigError if XLA cannot compile a step, for example because of strings, or if the step fails."""
    for step in traced:
        try:
            step.call(*step.arguments)
        except Exception as error:
            raise ConfigError(
                f"XLA cannot compile the step for {step.name}: {_reason(error)}. Replace this operation, or move it "
                "out of the step into trainer/modeling/input_pipeline.py."
            ) from error
    return f"XLA compiles the steps for {' and '.join(step.name for step in traced)}."


def print_findings(findings: Sequence[Finding]) -> None:
    """Prints one row per check. On a terminal, long sentences are wrapped within their column."""
    words = {True: "pass", False: "FAIL", None: "not checked"}
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        table.add_row(words[finding.passed], finding.check, finding.says)
    cli.build_console().print(table)


def _reason(error: Exception) -> str:
    """The one line of TensorFlow's report that tells what is wrong."""
    text = str(error).strip()
    if unsupported := _UNSUPPORTED.search(text):
        return f"it has no {unsupported['op']} ({unsupported['node']})"
    if text.startswith("in user code:"):  # A traceback, whose last line is the error.
        return text.splitlines()[-1].strip().rstrip(".")
    return storage.reason(error)


def _build_learner(config: TrainerConfig, dataset: Dataset) -> Learner:
    total_steps = _epoch_steps(config, dataset) * config.train.num_epochs
    return build_learner(config, dataset, tf.distribute.get_strategy(), total_steps=total_steps, is_restored=True)


def _epoch_steps(config: TrainerConfig, dataset: Dataset) -> int:
    return input_pipeline.steps_per_epoch(dataset.lists["train"].num_lists, config.train.global_batch_size)


def _build_batches(
    config: TrainerConfig, dataset: Dataset, learner: Learner, num_replicas: int
) -> dict[str, tf.data.Dataset]:
    """The batches of the first replica of the run."""
    arguments: dict[str, Any] = {
        "global_batch_size": config.train.global_batch_size,
        "context": tf.distribute.InputContext(num_input_pipelines=num_replicas, num_replicas_in_sync=num_replicas),
    }
    train_lists = dataset.lists["train"]
    return {
        "training": input_pipeline.build_train_dataset(
            train_lists,
            np.zeros(1),
            steps_per_execution=config.train.steps_per_execution,
            seed=config.seed,
            negatives_fn=learner.negatives_fn,
            **arguments,
        ),
        "evaluation": input_pipeline.build_eval_dataset(dataset.lists.get("validation", train_lists), **arguments),
    }


def _build_calls(
    config: TrainerConfig, learner: Learner, batches: Mapping[str, tf.data.Dataset], *, whole: bool
) -> list[tuple[str, Any, tuple[Any, ...]]]:
    """The calls of the run with their names and arguments. With `whole`, XLA compiles all of them, as on a TPU."""
    strategy = tf.distribute.get_strategy()
    train_call = steps.build_train_call(
        strategy,
        learner.model,
        learner.optimizer,
        learner.objective,
        learner.train_metrics,
        num_virtual=config.train.deterministic_reduction,
    )
    eval_call = build_eval_call(
        strategy,
        learner.model,
        learner.metrics,
        global_batch_size=config.train.global_batch_size,
        losses_fn=learner.objective.evaluate,
    )
    arguments = {
        "training": (train_call, (tf.constant(0, tf.int64), tf.constant(1))),
        "evaluation": (eval_call, ()),
    }
    return [
        (
            name,
            tf.function(call, jit_compile=True, autograph=False) if whole else call,
            (next(iter(batches[name])), *rest),
        )
        for name, (call, rest) in arguments.items()
    ]


def _describe_data(dataset: Dataset) -> str:
    data = dataset.description
    return f"{data['source']}: {data['num_users']:,} users, {data['num_items']:,} items."


def _describe_learner(learner: Learner) -> str:
    return f"{sum(variable.shape.num_elements() for variable in learner.model.trainable_variables):,} weights."


def _num_bytes(tensors: Sequence["tf.Variable | tf.TensorSpec"]) -> int:
    return sum(tensor.shape.num_elements() * tensor.dtype.size for tensor in tensors)
