"""What would break on an accelerator, found on any machine, before anything is paid for.

One replica's share of the run is built from the real config and data, and its steps are traced and compiled
here as they would be there. Nothing is trained, and nothing is left behind.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from rich.table import Table

from settings import cli
from settings.errors import ConfigError, UserError
from trainer import config as config_lib
from trainer import storage
from trainer.compat import tf
from trainer.data.dataset import Dataset, load_dataset
from trainer.doctor.memory import check_memory, estimate_memory
from trainer.evaluation import metrics
from trainer.evaluation.evaluator import build_eval_call
from trainer.modeling import input_pipeline
from trainer.training import losses, steps
from trainer.training.run import Learner, build_learner, check_batch_size
from trainer.workdir import Workdir

# What XLA says of an operation it has no code for.
_UNSUPPORTED = re.compile(r"on XLA_\w+: (?P<op>\w+) .*?\{\{node (?P<node>\S+)\}\}")


@dataclass(frozen=True)
class Finding:
    """One row of the table.

    Attributes:
      passed: None where it was not checked.
      says: what was found; of a failure, with the way out.
    """

    check: str
    passed: bool | None
    says: str


@dataclass(frozen=True)
class Step:
    """A call of the run as it was traced.

    Attributes:
      call: a `tf.function`.
      arguments: what one replica calls it with.
      nodes: every operation of its graph, those of the functions within it included.
    """

    name: str
    call: Any
    arguments: tuple[Any, ...]
    nodes: list[Any]


def examine(
    config: ConfigDict, *, strategy_name: str, num_replicas: int = 1, workdir: str = "", accelerator: str = ""
) -> list[Finding]:
    """Checks a run of `config`, what is quick first.

    Args:
      strategy_name: one of strategy.STRATEGIES; with `tpu` all of a step has to compile, else its loop over steps.
      num_replicas: of the run, over all its machines.
      workdir: of the run; empty to leave it unchecked.
      accelerator: one of memory.ACCELERATORS; empty for an estimate of the memory that is compared with nothing.
    """
    findings: list[Finding] = []

    def attempt(check: str, action: Callable[..., Any], *needs: Any, says: Callable[[Any], str] = str) -> Any:
        """What `action(*needs)` returns; None where it fails, or where something that it needs is None."""
        if any(need is None for need in needs):
            findings.append(Finding(check, None, "It needs what failed above."))
            return None
        try:
            found = action(*needs)
        except UserError as error:
            findings.append(Finding(check, False, str(error)))
            return None
        findings.append(Finding(check, True, says(found)))
        return found

    def load(config: ConfigDict) -> Dataset:
        return load_dataset(**config_lib.dataset_arguments(config))

    def build_batches(dataset: Dataset, replica_batch_size: int) -> dict[str, tf.data.Dataset]:
        del replica_batch_size  # Needed only in that there is one.
        return _build_batches(config, dataset, num_replicas)

    def trace(learner: Learner, batches: dict[str, tf.data.Dataset]) -> list[Step]:
        return [trace_step(*call) for call in _build_calls(config, learner, batches, whole=strategy_name == "tpu")]

    def compare_memory(learner: Learner, replica_batch_size: int) -> str:
        needed = estimate_memory(
            weight_bytes=_num_bytes(learner.model.variables),
            slot_bytes=_num_bytes(learner.optimizer.variables),
            layer_sizes=(config.model.embedding_size, *config.model.hidden_sizes),
            batch_size=replica_batch_size,
            list_size=config.list_size,
            steps_per_execution=config.train.steps_per_execution,
            loss_key=config.loss.key,
            catalogue_size=learner.model.num_items if config.eval.num_catalogue_users else 0,
        )
        return check_memory(needed, accelerator, strategy_name)

    usable_config = attempt("config", check_config, config, says=lambda _: "Every field can be used.")
    replica_batch_size = attempt(
        "batch size",
        lambda usable: check_replicas(usable.train.global_batch_size, strategy_name, num_replicas),
        usable_config,
        says=lambda size: f"{size:,} lists a step for each of {num_replicas:,} replicas.",
    )
    if workdir:
        attempt("workdir", lambda usable: check_workdir(workdir, usable), usable_config)
    dataset = attempt("data", load, usable_config, says=_describe_data)
    learner = attempt("model", lambda data: _build_learner(config, data), dataset, says=_describe_learner)
    batches = attempt(
        "batches", build_batches, dataset, replica_batch_size, says=lambda built: f"For {' and '.join(built)}."
    )
    attempt("shapes of batches", check_batch_shapes, batches)
    attempt("types of batches", check_batch_types, batches)
    step_list = attempt("steps", trace, learner, batches, says=lambda _: "They can be traced.")
    attempt("shapes in steps", check_step_shapes, step_list)
    attempt("compilation", check_compilation, step_list)
    attempt("memory", compare_memory, learner, replica_batch_size)
    return findings


def check_config(config: ConfigDict) -> ConfigDict:
    """Raises ConfigError for whatever can be refused without data; returns the config."""
    config_lib.check_config(config)
    metrics.check_metrics(config.eval.metrics)
    losses.build_loss(**config.loss, seed=config.seed)
    return config


def check_replicas(global_batch_size: int, strategy_name: str, num_replicas: int) -> int:
    """The per-replica batch size; raises ConfigError where the replicas cannot share a batch."""
    if strategy_name == "default" and num_replicas > 1:
        raise ConfigError(
            f"--strategy=default runs on one device, not on --num_replicas={num_replicas}: use "
            "--strategy=mirrored for the devices of one machine."
        )
    check_batch_size(global_batch_size, num_replicas)
    return global_batch_size // num_replicas


def check_workdir(path: str, config: ConfigDict) -> str:
    """Raises StorageError or ConfigError where a run of `config` could not write there."""
    with storage.writing(path):
        Workdir(path).check(config)
        if "://" in path:  # Only a write tells whether one may write to a bucket.
            probe = storage.join(path, ".doctor")
            storage.write_bytes(probe, b"")
            tf.io.gfile.remove(probe)
    return f"{path} can be written."


def check_batch_shapes(batches: Mapping[str, tf.data.Dataset]) -> str:
    """Raises ConfigError where a feature's shape is known only when it is there: XLA has no code for that."""
    for name, dataset in batches.items():
        for feature, spec in dataset.element_spec.items():
            if not spec.shape.is_fully_defined():
                raise ConfigError(
                    f"The feature {feature!r} of the batches for {name} has the shape {spec.shape}, which is not "
                    "fully known beforehand: pad it to a constant size in trainer/input_pipeline.py."
                )
    return "All are constant."


def check_batch_types(batches: Mapping[str, tf.data.Dataset]) -> str:
    """Raises ConfigError where a feature is not a dense tensor of numbers."""
    for name, dataset in batches.items():
        for feature, spec in dataset.element_spec.items():
            if not isinstance(spec, tf.TensorSpec):
                raise ConfigError(
                    f"The feature {feature!r} of the batches for {name} is a {spec.value_type.__name__}, which "
                    "accelerators do not have: pad it to a dense tensor in trainer/input_pipeline.py."
                )
            if spec.dtype == tf.string:
                raise ConfigError(
                    f"The feature {feature!r} of the batches for {name} holds strings, which accelerators do not "
                    "have: turn it into indices in trainer/vocabulary.py."
                )
    return "All are dense tensors of numbers."


def trace_step(name: str, call: Any, arguments: Sequence[Any]) -> Step:
    """Traces a `tf.function`; raises ConfigError where that fails, for whatever reason."""
    try:
        graph = call.get_concrete_function(*arguments).graph.as_graph_def(add_shapes=True)
    except Exception as error:
        raise ConfigError(
            f"The step for {name} cannot be traced: {_reason(error)}. What is above in this table may say "
            "why; else trainer.main --strategy=default --traceback shows where."
        ) from error
    bodies = [graph.node, *(function.node_def for function in graph.library.function)]
    return Step(name, call, tuple(arguments), [node for nodes in bodies for node in nodes])


def check_step_shapes(traced: Sequence[Step]) -> str:
    """Raises ConfigError where an operation's result has a shape that depends on values.

    XLA may well compile such an operation on a CPU, and refuse it, or pad it at every step, elsewhere.
    """
    for step in traced:
        for node in step.nodes:
            shapes = [tf.TensorShape(shape) for shape in node.attr["_output_shapes"].list.shape]
            if unknown := [shape for shape in shapes if not shape.is_fully_defined()]:
                raise ConfigError(
                    f"In the step for {step.name} the result of {node.name} ({node.op}) has the shape {unknown[0]}, "
                    "which depends on values: mask with tf.where, whose result keeps its shape, in place of "
                    "tf.boolean_mask, tf.unique and the like."
                )
    return "All are constant."


def check_compilation(traced: Sequence[Step]) -> str:
    """Raises ConfigError where XLA cannot compile a step, as one that handles strings, or where it then fails."""
    for step in traced:
        try:
            step.call(*step.arguments)
        except Exception as error:
            raise ConfigError(
                f"XLA cannot compile the step for {step.name}: {_reason(error)}. Replace the operation that "
                "it names, or move it out of the step into trainer/input_pipeline.py."
            ) from error
    return f"XLA compiles the steps for {' and '.join(step.name for step in traced)}."


def print_findings(findings: Sequence[Finding]) -> None:
    """A row a check; on a terminal, long sentences are folded under themselves."""
    words = {True: "pass", False: "FAIL", None: "not checked"}
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        table.add_row(words[finding.passed], finding.check, finding.says)
    cli.build_console().print(table)


def _reason(error: Exception) -> str:
    """The one line that says what is wrong, of what TensorFlow reports about a step."""
    text = str(error).strip()
    if unsupported := _UNSUPPORTED.search(text):
        return f"it has no {unsupported['op']} ({unsupported['node']})"
    if text.startswith("in user code:"):  # A traceback, whose last line is the error.
        return text.splitlines()[-1].strip().rstrip(".")
    return storage.reason(error)


def _build_learner(config: ConfigDict, dataset: Dataset) -> Learner:
    num_lists = dataset.lists["train"].num_lists
    epoch_steps = input_pipeline.steps_per_epoch(num_lists, config.train.global_batch_size)
    return build_learner(
        config,
        dataset,
        tf.distribute.get_strategy(),
        loss_fn=losses.build_loss(**config.loss, seed=config.seed),
        total_steps=epoch_steps * config.train.num_epochs,
    )


def _build_batches(config: ConfigDict, dataset: Dataset, num_replicas: int) -> dict[str, tf.data.Dataset]:
    """What the first replica of the run gets."""
    arguments: dict[str, Any] = {
        "list_size": config.list_size,
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
            **arguments,
        ),
        "evaluation": input_pipeline.build_eval_dataset(dataset.lists.get("validation", train_lists), **arguments),
    }


def _build_calls(
    config: ConfigDict, learner: Learner, batches: Mapping[str, tf.data.Dataset], *, whole: bool
) -> list[tuple[str, Any, tuple[Any, ...]]]:
    """The calls of the run with their names and arguments; `whole` has XLA compile all of them, as a TPU does."""
    strategy = tf.distribute.get_strategy()
    train_call = steps.build_train_call(
        strategy,
        learner.model,
        learner.optimizer,
        learner.loss_fn,
        learner.metrics,
        steps_per_execution=config.train.steps_per_execution,
    )
    eval_call = build_eval_call(strategy, learner.model, learner.metrics, loss_fn=learner.loss_fn)
    arguments = {
        "training": (train_call, (tf.constant(0, tf.int64), tf.constant(1))),
        "evaluation": (eval_call, ()),
    }
    return [
        (name, tf.function(call, jit_compile=True) if whole else call, (next(iter(batches[name])), *rest))
        for name, (call, rest) in arguments.items()
    ]


def _describe_data(dataset: Dataset) -> str:
    said = dataset.description
    return f"{said['source']}: {said['num_users']:,} users, {said['num_items']:,} items."


def _describe_learner(learner: Learner) -> str:
    return f"{sum(variable.shape.num_elements() for variable in learner.model.trainable_variables):,} weights."


def _num_bytes(variables: Sequence[tf.Variable]) -> int:
    return sum(variable.shape.num_elements() * variable.dtype.size for variable in variables)
