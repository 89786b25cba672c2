"""A training run, in the order in which things happen."""

import itertools
import os
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from ml_collections import ConfigDict
from rich.console import Console

from settings.cli import build_console
from settings.errors import ConfigError, DivergedError
from trainer import config as config_lib
from trainer import strategy as strategy_lib
from trainer.compat import keras, tf
from trainer.data import splits
from trainer.data.dataset import Dataset, load_dataset
from trainer.data.lists import save_item_lists
from trainer.evaluation import metrics
from trainer.evaluation import protocols as protocols_lib
from trainer.evaluation.evaluator import Evaluator
from trainer.modeling import input_pipeline
from trainer.modeling.two_tower import TwoTowerModel
from trainer.schema import TITLE, UNKNOWN_INDEX, USER_ID
from trainer.serving.export import export_model
from trainer.training import losses, optimizers, steps
from trainer.training.checkpoint import Checkpointer
from trainer.training.loop import Cadence, RunState, StopSignal, TrainingLoop, plan_calls
from trainer.training.metric_writer import ConsoleSink, JsonlSink, MetricWriter, Sink, TensorBoardSink, TuningSink
from trainer.workdir import Workdir


@dataclass(frozen=True)
class Learner:
    """What learns, what it learns by, and what it is measured by.

    Attributes:
      model_sizes: all arguments of the model but the seed, for whoever builds it again.
    """

    model: TwoTowerModel
    model_sizes: dict[str, Any]
    optimizer: keras.optimizers.Optimizer
    schedule: keras.optimizers.schedules.LearningRateSchedule
    loss_fn: losses.LossFn
    metrics: list[metrics.RankingMetric]


def train_and_evaluate(
    config: ConfigDict, *, strategy_name: str, workdir: str, tpu: str = "local", num_cpu_devices: int = 1
) -> int:
    """Trains, or goes on training, then evaluates and exports; leaves all of it in `workdir`.

    Returns:
      The exit code, 0.

    Raises:
      UserError: what is wrong with the config, the data, the workdir or the run.
    """
    # All that can be refused is refused before anything slow, and before anything is written.
    config_lib.check_config(config)
    metrics.check_metrics(config.eval.metrics)
    optimizers.check_names(config.optimizer.name, config.optimizer.schedule)
    splits.check_split(config.split.method, config.split.validation_fraction, config.split.test_fraction)
    loss_fn = losses.build_loss(**config.loss, seed=config.seed)
    paths = Workdir(workdir)
    paths.check(config)
    strategy = strategy_lib.build_strategy(strategy_name, tpu=tpu, num_cpu_devices=num_cpu_devices)
    is_chief = strategy_lib.is_chief(strategy)
    if is_chief:
        paths.check_free()
    check_batch_size(config.train.global_batch_size, strategy.num_replicas_in_sync)

    dataset = load_dataset(**config_lib.dataset_arguments(config))
    epoch_steps = input_pipeline.steps_per_epoch(dataset.lists["train"].num_lists, config.train.global_batch_size)
    total_steps = epoch_steps * config.train.num_epochs
    learner = build_learner(config, dataset, strategy, loss_fn=loss_fn, total_steps=total_steps)

    with paths.locked() if is_chief else nullcontext():
        paths.check_data(dataset.description)
        checkpointer = Checkpointer(
            paths.checkpoints,
            tf.train.Checkpoint(model=learner.model, optimizer=learner.optimizer),
            keep=config.train.keep_checkpoints,
            is_chief=is_chief,
            worker_name=strategy_lib.worker_name(strategy),
        )
        saved = checkpointer.restore_latest()
        state = RunState(**saved.state) if saved else RunState()
        console = build_console(quiet=not is_chief)
        _print_start(console, dataset, strategy_name, strategy.num_replicas_in_sync, epoch_steps, total_steps)
        result = paths.load_result()
        if result.get("step") == state.step and state.is_finished(total_steps, config.train.early_stopping_patience):
            console.print("This run had finished; nothing is left to do.")
            _print_result(console, paths, result)
            return 0

        if is_chief:
            _save_run(paths, config, dataset)
        writer = _build_writer(paths, console, state.step, total_steps) if is_chief else MetricWriter([])
        writer.truncate_after(state.step)
        if saved:
            console.print(f"Going on after step {state.step:,}.")
        else:
            writer.write_config(
                config_lib.flatten(config.to_dict()),
                config_lib.hyperparameters(config),
                _final_figures(config, dataset),
            )

        loop = _build_loop(
            config,
            strategy=strategy,
            dataset=dataset,
            learner=learner,
            state=state,
            checkpointer=checkpointer,
            writer=writer,
            epoch_steps=epoch_steps,
            total_steps=total_steps,
        )
        loop.run()
        loop.stop.ignore()  # All steps are saved, and what follows can be done again at any time.

        # What is evaluated and exported is the best checkpoint, or the last where nothing was validated.
        if state.best_step is not None:
            checkpointer.restore(state.best_step)
        held_out = dataset.held_out_split
        protocols = {}
        if held_out:
            protocols = protocols_lib.evaluate_protocols(
                strategy,
                learner.model,
                dataset,
                held_out,
                learner.metrics,
                **config_lib.protocol_arguments(config),
            )
            final = protocols_lib.final_scalars(protocols)
            writer.write_scalars(state.step, state.step / epoch_steps, held_out, final)
        writer.close()
        if is_chief:
            export_model(learner.model, dataset.vocabulary, paths.model, sizes=learner.model_sizes)
            result = {
                "step": state.step,
                "exported_step": state.best_step or state.step,
                "train": state.train_figures,
                "held_out": held_out,
                "protocols": protocols_lib.to_json(protocols),
                "speed": _speed(loop, strategy_name, strategy.num_replicas_in_sync),
            }
            paths.save_json(paths.result, result)
            _print_result(console, paths, result)
        strategy_lib.barrier(strategy)
    return 0


def check_batch_size(global_batch_size: int, num_replicas: int) -> None:
    """Raises ConfigError where the replicas cannot share a batch."""
    if global_batch_size % num_replicas:
        next_size = -(-global_batch_size // num_replicas) * num_replicas
        raise ConfigError(
            f"config.train.global_batch_size={global_batch_size} cannot be divided among {num_replicas} "
            f"replicas: use a multiple of {num_replicas}, such as {next_size}."
        )


def build_learner(
    config: ConfigDict,
    dataset: Dataset,
    strategy: tf.distribute.Strategy,
    *,
    loss_fn: losses.LossFn,
    total_steps: int,
) -> Learner:
    """Builds all that learning takes, with the variables on the strategy's devices.

    Raises:
      ConfigError: there is no such optimizer or metric, or not with these options or these items.
    """
    schedule = optimizers.build_schedule(
        config.optimizer.schedule,
        learning_rate=config.optimizer.learning_rate,
        warmup_steps=config.optimizer.warmup_steps,
        total_steps=total_steps,
    )
    model_sizes = {
        "num_queries": dataset.vocabulary.num_users,
        "num_items": dataset.vocabulary.num_items,
        "embedding_size": config.model.embedding_size,
        "hidden_sizes": config.model.hidden_sizes,
    }
    ranking_metrics = metrics.build_metrics(
        config.eval.metrics,
        relevance_threshold=config.eval.relevance_threshold,
        item_subtopics=dataset.vocabulary.item_genres(),
    )
    with strategy.scope():
        model = TwoTowerModel(**model_sizes, seed=config.seed)
        optimizer = optimizers.build_optimizer(
            config.optimizer.name,
            schedule,
            clip_norm=config.optimizer.clip_norm,
            weight_decay=config.optimizer.weight_decay,
            momentum=config.optimizer.momentum,
        )
        optimizer.build(model.trainable_variables)
    return Learner(model, model_sizes, optimizer, schedule, loss_fn, ranking_metrics)


def _save_run(paths: Workdir, config: ConfigDict, dataset: Dataset) -> None:
    paths.save_run(config, dataset.description)
    dataset.vocabulary.save(paths.vocabulary)
    save_item_lists(paths.seen, *dataset.items_by_user("train"))


def _build_loop(
    config: ConfigDict,
    *,
    strategy: tf.distribute.Strategy,
    dataset: Dataset,
    learner: Learner,
    state: RunState,
    checkpointer: Checkpointer,
    writer: MetricWriter,
    epoch_steps: int,
    total_steps: int,
) -> TrainingLoop:
    batch_shape = {"list_size": config.list_size, "global_batch_size": config.train.global_batch_size}
    log_due, eval_due, checkpoint_due = (
        Cadence(every_steps, epoch_steps=epoch_steps, total_steps=total_steps)
        for every_steps in (
            config.train.log_every_steps,
            config.train.eval_every_steps,
            config.train.checkpoint_every_steps,
        )
    )
    cadences = [log_due, eval_due, checkpoint_due]
    # No call can be longer than from one due step to the next, and batches beyond would be made for nothing.
    steps_per_execution = min(config.train.steps_per_execution, *(cadence.every_steps for cadence in cadences))
    calls = plan_calls(state.step, total_steps, steps_per_execution=steps_per_execution, cadences=cadences)
    batches = strategy.distribute_datasets_from_function(
        lambda context: input_pipeline.build_train_dataset(
            dataset.lists["train"],
            calls[:-1],
            **batch_shape,
            steps_per_execution=steps_per_execution,
            seed=config.seed,
            context=context,
        )
    )
    model, ranking_metrics = learner.model, learner.metrics
    train_call = steps.build_train_call(
        strategy, model, learner.optimizer, learner.loss_fn, ranking_metrics, steps_per_execution=steps_per_execution
    )
    validator = None
    if "validation" in dataset.lists:
        validator = Evaluator(
            strategy, model, dataset.lists["validation"], ranking_metrics, **batch_shape, loss_fn=learner.loss_fn
        )

    def after_validation(step: int) -> None:
        if config.eval.num_sample_users:
            text = _sample_recommendations(model, dataset, config.eval.num_sample_users)
            writer.write_text(step, "validation", "recommendations", text)

    def save(state: RunState) -> None:
        _require_finite([*model.variables, *learner.optimizer.variables], state.step)
        checkpointer.save(state.step, asdict(state), best_step=state.best_step)
        strategy_lib.barrier(strategy)

    stop = StopSignal()
    if strategy_lib.num_workers(strategy) == 1:
        # Workers are told to stop one by one, and a save needs all of them: a cluster ends at once.
        stop.listen()
    return TrainingLoop(
        state=state,
        train_call=train_call,
        batches=iter(batches),
        calls=calls,
        epoch_steps=epoch_steps,
        global_batch_size=config.train.global_batch_size,
        schedule=learner.schedule,
        names=["loss", *(metric.name for metric in ranking_metrics)],
        log_due=log_due,
        eval_due=eval_due,
        checkpoint_due=checkpoint_due,
        validate=validator.evaluate if validator else None,
        after_validation=after_validation,
        save=save,
        writer=writer,
        best_metric=config.eval.best_metric,
        best_direction=config.eval.best_direction,
        patience=config.train.early_stopping_patience,
        stop=stop,
    )


def _require_finite(variables: list[tf.Variable], step: int) -> None:
    for variable in variables:
        if variable.dtype.is_floating and not tf.reduce_all(tf.math.is_finite(variable)):
            raise DivergedError(
                f"Training diverged: after step {step} the variable {variable.name} holds numbers that are not "
                "finite. This step was not saved. Lower config.optimizer.learning_rate or set "
                "config.optimizer.clip_norm, and use a new --workdir."
            )


def _build_writer(paths: Workdir, console: Console, first_step: int, total_steps: int) -> MetricWriter:
    sinks: list[Sink] = [
        TensorBoardSink(paths.logs),
        JsonlSink(paths.metrics),
        ConsoleSink(console, first_step=first_step, total_steps=total_steps),
    ]
    # Set by Vertex AI in each trial of a hyperparameter-tuning job.
    if path := os.environ.get("CLOUD_ML_HP_METRIC_FILE"):
        sinks.append(TuningSink(path, trial=os.environ.get("CLOUD_ML_TRIAL_ID", "")))
    return MetricWriter(sinks)


def _final_figures(config: ConfigDict, dataset: Dataset) -> list[tuple[str, str]]:
    """What stands beside the hyperparameters in TensorBoard: (split, name) of each figure."""
    held_out = dataset.held_out_split
    names = config.eval.metrics
    return [(held_out, f"rated/{name}") for name in names] if held_out else [("train", name) for name in names]


def _sample_recommendations(model: TwoTowerModel, dataset: Dataset, num_users: int) -> str:
    """A Markdown table: a column for each of some users, spread over all, with what they have not rated."""
    vocabulary = dataset.vocabulary
    users = np.unique(np.linspace(1, vocabulary.num_users - 1, num_users, dtype=np.int32))
    offsets, seen = dataset.items_by_user("train")
    scores = model.score_all(tf.constant(users)).numpy()
    columns = []
    for row, user in zip(scores, users, strict=True):
        row[seen[offsets[user] : offsets[user + 1]]] = -np.inf
        row[UNKNOWN_INDEX] = -np.inf
        best = [item for item in np.argsort(-row, kind="stable")[:5] if np.isfinite(row[item])]
        titles = vocabulary.items[TITLE].take(pa.array(best, pa.int32())).to_pylist()
        columns.append([" ".join(title.replace("|", "\\|").split()) for title in titles])
    ids = vocabulary.users[USER_ID].take(users).to_pylist()
    lines = [["rank", *(f"user {user_id}" for user_id in ids)], ["---"] * (len(ids) + 1)]
    lines += [
        [str(rank), *titles] for rank, titles in enumerate(itertools.zip_longest(*columns, fillvalue=""), start=1)
    ]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _print_start(
    console: Console,
    dataset: Dataset,
    strategy_name: str,
    num_replicas: int,
    epoch_steps: int,
    total_steps: int,
) -> None:
    said = dataset.description
    ratings = ", ".join(f"{number:,} {split}" for split, number in said["num_ratings"].items())
    console.print(
        f"{said['source']}: {said['num_users']:,} users, {said['num_items']:,} items; ratings: {ratings}.\n"
        f"{strategy_name} strategy, {num_replicas} replica{'s' if num_replicas > 1 else ''}; {total_steps:,} "
        f"steps, {epoch_steps:,} an epoch.",
        soft_wrap=True,
    )


def _speed(loop: TrainingLoop, strategy_name: str, num_replicas: int) -> dict[str, Any] | None:
    """Of this process's part of the run; None where that was at most one call, which compiles."""
    if not loop.timed_steps:
        return None
    return {
        "strategy": strategy_name,
        "num_replicas": num_replicas,
        "steps_per_second": loop.steps_per_second,
        "lists_per_second": loop.steps_per_second * loop.global_batch_size,
    }


def _print_result(console: Console, paths: Workdir, result: dict[str, Any]) -> None:
    if result["held_out"]:
        protocols_lib.print_protocols(console, result["held_out"], protocols_lib.from_json(result["protocols"]))
    else:
        figures = "  ".join(f"{name} {value:.4f}" for name, value in result["train"].items())
        console.print(f"On the lists that were trained on (none were held out): {figures}")
    if speed := result["speed"]:
        pace = f"{speed['steps_per_second']:,.0f} steps and {speed['lists_per_second']:,.0f} lists a second. "
    else:
        pace = ""
    console.print(f"{pace}The model of step {result['exported_step']:,} is in {paths.model}.")
