"""A training run, in the order in which things happen."""

import contextlib
import itertools
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict

from rich.console import Console

from settings.cli import build_console
from settings.signals import Listener, stopped_by
from settings.trainer_config import TrainerConfig
from trainer import config as config_lib
from trainer import schema, storage
from trainer import strategy as strategy_lib
from trainer.compat import tf
from trainer.data import saved as saved_data
from trainer.data.dataset import Dataset
from trainer.data.loading import load_dataset
from trainer.evaluation import final_metrics, verdict
from trainer.evaluation import protocols as protocols_lib
from trainer.evaluation.query_metrics import write_queries
from trainer.evaluation.result import load_result
from trainer.modeling import input_pipeline
from trainer.reporting import write_report
from trainer.serving.export import Verifier, export_model, is_whole, verify_in_fresh_process
from trainer.training import divergence, resume, size_rules, snapshot, steps, summary
from trainer.training.checkpoint import Checkpointer, has_checkpoints
from trainer.training.diagnostics import build_diagnostics
from trainer.training.learner import Learner, build_learner, check_replicas, check_size_of_run
from trainer.training.loop import AFTER_TRAINING, RunState, StopSignal, Trainer
from trainer.training.metric_writer import ConsoleSink, JsonlSink, MetricWriter, Sink, TuningSink
from trainer.training.profile import Profiler
from trainer.training.projector import write_projector
from trainer.training.schedule import Schedule, plan
from trainer.training.tensorboard_sink import TensorBoardSink, run_name_of
from trainer.training.validation import build_validation, check_best_metric
from trainer.training.watchdog import WatchdogSink
from trainer.workdir import Workdir


def train_and_evaluate(
    config: TrainerConfig,
    *,
    strategy_name: str,
    workdir: str,
    tpu: str = "local",
    num_cpu_devices: int = 1,
    require_gpu: bool = False,
    verify_export: Verifier = verify_in_fresh_process,
    report_fn: Callable[[str], object] = write_report,
    evaluate_test: bool = True,
    quiet: bool = False,
    profile: int = 0,
) -> int:
    """Trains a model, or resumes its training. Then exports and evaluates it. Writes everything to `workdir`.

    Args:
      strategy_name, tpu, num_cpu_devices, require_gpu: see `strategy.build_strategy`.
      verify_export: checks the exported model.
      report_fn: writes the report of the run in a workdir.
      evaluate_test: False ends the run after training: the model is not exported, and the test split is not evaluated.
        A later call for the same workdir does both.
      quiet: prints nothing.
      profile: how many training calls to profile; see `profile.Profiler`.

    Returns:
      The exit code, 0.

    Raises:
      UserError: what is wrong with the config, the data, the workdir or the run.
    """
    # What can be refused is refused before anything slow, and before anything is written.
    paths = Workdir(workdir)
    paths.check(config)
    for source in (config.data.source, config.split.validation_source, config.split.test_source):
        storage.check_bucket(source)
    strategy = strategy_lib.build_strategy(
        strategy_name, tpu=tpu, num_cpu_devices=num_cpu_devices, require_gpu=require_gpu
    )
    is_chief = strategy_lib.is_chief(strategy)
    # Vertex AI sets it. All starts of a job have the same.
    job = os.environ.get("CLOUD_ML_JOB_ID", "")
    if is_chief:
        paths.check_free(job=job)
    num_replicas = strategy.num_replicas_in_sync
    check_replicas(config.train, strategy_name, num_replicas)

    dataset = load_dataset(**config_lib.dataset_arguments(config))
    epoch_steps = input_pipeline.steps_per_epoch(dataset.lists["train"].num_lists, config.train.global_batch_size)
    check_best_metric(config, dataset)
    given = config
    config, chosen = size_rules.adapt(given, dataset, epoch_steps=epoch_steps)
    check_size_of_run(config, list_size=dataset.lists["train"].list_size, epoch_steps=epoch_steps)
    total_steps = epoch_steps * config.train.num_epochs
    learner = build_learner(
        config, dataset, strategy, total_steps=total_steps, is_restored=has_checkpoints(paths.checkpoints)
    )

    with contextlib.ExitStack() as stack:
        stack.enter_context(strategy_lib.failing_fast(strategy))
        lock = stack.enter_context(paths.locked(job=job)) if is_chief else None
        checkpointer = stack.enter_context(
            Checkpointer(
                paths.checkpoints,
                snapshot.named_variables(model=learner.model, optimizer=learner.optimizer),
                keep=config.train.keep_checkpoints,
                fingerprints=resume.fingerprints(given, dataset),
                is_chief=is_chief,
                before_writing=lock.check if lock else None,
                after_writing=paths.record_checkpoint,
            )
        )
        state = resume.restore(config, paths, strategy, dataset, checkpointer, chosen=chosen, epoch_steps=epoch_steps)

        # Before anything is said, because it may be damaged.
        result = load_result(paths)
        console = build_console(quiet=quiet or not is_chief)
        summary.print_start(
            console,
            dataset,
            strategy_name=strategy_name,
            num_replicas=num_replicas,
            epoch_steps=epoch_steps,
            total_steps=total_steps,
            chosen=chosen,
            relevance_threshold=config.eval.relevance_threshold,
        )
        is_finished = state.is_finished(total_steps, config.train.early_stopping_patience)
        is_evaluated = result.get("step") == state.step
        is_exported = is_whole(paths.model, dataset.vocabulary) and saved_data.is_whole(paths)
        if is_finished and is_evaluated and is_exported:
            console.print("This run is finished. There is nothing left to do.")
            if is_chief and not storage.exists(paths.report):
                report_fn(workdir)
            summary.print_result(console, result, paths=paths)
            return 0
        if state.step:
            console.print(f"Resuming after step {state.step:,}.")
        if is_chief:
            change = paths.save_run(
                given,
                saved_data.describe_saved(dataset),
                strategy=strategy_name,
                num_replicas=num_replicas,
                chosen=chosen,
                first_step=state.step,
            )
            # With virtual replicas the weights do not depend on the strategy.
            if change and not config.train.deterministic_reduction:
                console.print(change, soft_wrap=True)
            saved_data.save(paths, dataset)
        # All workers have seen whether the run is finished.
        strategy_lib.barrier(strategy)
        if is_chief:
            # The end of the run writes them again. Until then, what is here is no result.
            storage.remove(paths.result)
            storage.remove(paths.report)

        writer = stack.enter_context(_build_writer(config, paths, console, state.step, total_steps, is_chief=is_chief))
        writer.truncate_after(state.step)
        writer.write_config(config_lib.flatten(config_lib.plain(config)), config_lib.hyperparameters(config))
        schedule = plan(config.train, first_step=state.step, epoch_steps=epoch_steps, total_steps=total_steps)
        trainer = _build_trainer(config, strategy, dataset, learner, state, writer, schedule, epoch_steps=epoch_steps)

        def save() -> None:
            checkpointer.save(
                state.step,
                asdict(state),
                best_step=state.best_step,
                validation_value=trainer.validation_value,
            )

        def wait_for_save() -> None:
            checkpointer.wait()
            # The other workers must not end before the chief has written the checkpoint, and may read it afterwards.
            strategy_lib.barrier(strategy)

        write_diagnostics = build_diagnostics(config, dataset, learner, writer, is_chief=is_chief)
        with (
            StopSignal(strategy_lib.build_any_worker(strategy)) as stop,
            Profiler(paths.logs, profile if is_chief else 0, console) as profiler,
        ):
            take_steps(
                trainer,
                schedule,
                patience=config.train.early_stopping_patience,
                after_validation=lambda: write_diagnostics(state.step),
                save=save,
                wait_for_save=wait_for_save,
                stop=stop,
                call_context=profiler.call,
            )
        stack.enter_context(Listener(AFTER_TRAINING))
        if state.step < total_steps:
            console.print(
                f"Stopped early: {config.eval.best_metric} did not improve in the last "
                f"{state.evaluations_since_best} validations.",
                soft_wrap=True,
            )
        if not evaluate_test:
            strategy_lib.barrier(strategy)
            return 0

        # The best checkpoint is exported and evaluated, or the last one if there was no validation. The export comes
        # first, so that a failed evaluation does not cost the model.
        exported_step = state.step
        if state.best_step is not None:
            exported_step = checkpointer.restore_best(state.best_step, direction=config.eval.best_direction).step
        if is_chief:
            export_model(
                learner.model,
                dataset.vocabulary,
                paths.model,
                query_source=dataset.query_source(*schema.SPLITS),
                sizes=learner.model_sizes,
                ranker_fn=learner.ranker_fn,
                verify=verify_export,
            )
            write_projector(paths.logs, learner.model.item_vectors, dataset.vocabulary)
        warnings = divergence.warnings_of(
            state.train_metrics["relative_loss"],
            state.best_relative_loss,
            has_equal_scores=divergence.has_equal_scores(learner.ranker, dataset.lists["train"]),
        )
        result = {
            "warnings": warnings,
            "step": state.step,
            "exported_step": exported_step,
            "exported_epoch": exported_step / epoch_steps,
            "train": state.train_metrics,
            "held_out": dataset.held_out_split,
            "verdict": verdict.to_json(verdict.NOTHING_HELD_OUT),
            "speed": summary.speed(trainer, strategy_name=strategy_name, num_replicas=num_replicas),
        }
        if dataset.held_out_split:
            evaluation = protocols_lib.evaluate_queries(
                strategy,
                learner.ranker,
                dataset,
                dataset.held_out_split,
                learner.metrics,
                progress=writer.progress,
                **config_lib.protocol_arguments(config, has_timestamps=dataset.has_timestamps),
            )
            protocols = protocols_lib.means_of(evaluation.protocols, seed=config.seed)
            writer.write_final_metrics(state.step, trainer.epoch, evaluation.split, protocols)
            result |= {
                "protocols": final_metrics.to_json(protocols),
                "recommendations": evaluation.recommendations,
                "breakdowns": evaluation.breakdowns,
                "verdict": verdict.to_json(
                    verdict.decide(
                        evaluation.split, evaluation.protocols, protocols, best_metric=config.eval.best_metric
                    )
                ),
            }
            if is_chief and evaluation.protocols:
                write_queries(paths.queries, evaluation.split, evaluation.protocols, dataset.vocabulary)
        writer.close()
        if is_chief:
            paths.save_json(paths.result, result)
            summary.print_result(console, result, paths=paths)
            # Last, so that a report that cannot be written does not cost the metrics.
            report_fn(workdir)
        strategy_lib.barrier(strategy)
    return 0


def take_steps(
    trainer: Trainer,
    schedule: Schedule,
    *,
    patience: int,
    after_validation: Callable[[], None],
    save: Callable[[], None],
    wait_for_save: Callable[[], None],
    stop: StopSignal,
    call_context: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
) -> None:
    """Takes all steps, or fewer if early stopping ends the training. This is the training loop.

    Args:
      patience: validations without an improvement before it stops; 0 for never.
      after_validation: is called after each validation.
      save: begins to save a checkpoint of the trainer's state.
      wait_for_save: waits until the last checkpoint is written. It is before the function ends.
      call_context: what each training call happens in.

    Raises:
      DivergedError: the loss is no longer finite. Nothing is saved from then on.
      Stopped: SIGTERM or Ctrl-C arrived. The state is saved.
    """
    state = trainer.state
    for begin, end in itertools.pairwise(schedule.calls.tolist()):
        if state.is_finished(schedule.total_steps, patience):
            break
        with call_context():
            trainer.train(begin, end)
        if schedule.log_due(end):
            trainer.log()
        improved = False
        if trainer.validate_fn and schedule.eval_due(end):
            improved = trainer.validate()
            after_validation()
        # Before the checkpoint: a resume keeps what was written up to the step of the checkpoint, and no more.
        trainer.writer.flush()
        # Asked once. A signal that arrives later is handled after the next call.
        stopping = stop.of_any_worker()
        is_finished = state.is_finished(schedule.total_steps, patience)
        if improved or schedule.checkpoint_due(end) or stopping is not None or is_finished:
            save()
        if stopping is not None:
            wait_for_save()
            raise stopped_by(
                stopping, f"Stopped by {{}} after step {end}; it is saved. The same command resumes the run."
            )
    wait_for_save()
    # A signal during the last save.
    if stopping := stop.of_any_worker():
        raise stopped_by(stopping, AFTER_TRAINING)


def _build_trainer(
    config: TrainerConfig,
    strategy: tf.distribute.Strategy,
    dataset: Dataset,
    learner: Learner,
    state: RunState,
    writer: MetricWriter,
    schedule: Schedule,
    *,
    epoch_steps: int,
) -> Trainer:
    """Connects the batches, the training step and the validation."""
    global_batch_size = config.train.global_batch_size
    batches = input_pipeline.distribute(
        strategy,
        lambda context: input_pipeline.build_train_dataset(
            dataset.lists["train"],
            schedule.calls[:-1],
            global_batch_size=global_batch_size,
            steps_per_execution=schedule.steps_per_execution,
            seed=config.seed,
            context=context,
            negatives_fn=learner.negatives_fn,
        ),
    )
    train_call = steps.build_train_call(
        strategy,
        learner.model,
        learner.optimizer,
        learner.objective,
        learner.train_metrics,
        num_virtual=config.train.deterministic_reduction,
    )
    return Trainer(
        state=state,
        train_call=train_call,
        batches=iter(batches),
        learning_rate_fn=learner.schedule,
        metric_names=["loss", *(metric.name for metric in learner.train_metrics), "relative_loss"],
        epoch_steps=epoch_steps,
        global_batch_size=global_batch_size,
        validate_fn=build_validation(config, strategy, dataset, learner, progress=writer.progress),
        best_metric=config.eval.best_metric,
        best_direction=config.eval.best_direction,
        writer=writer,
    )


def _build_writer(
    config: TrainerConfig, paths: Workdir, console: Console, first_step: int, total_steps: int, *, is_chief: bool
) -> MetricWriter:
    """Builds the writer of the chief. The writer of another worker writes nothing, but is watched as well."""
    watchdog = WatchdogSink(config.train.stall_timeout_seconds, first_step=first_step)
    watchdog.start()
    if not is_chief:
        return MetricWriter([watchdog])
    best_metric = config.eval.best_metric
    # The last metric that a validation measures of each kind is of the catalogue, if it measures that at all.
    main_metric = best_metric if best_metric != "loss" else config.eval.measured[-len(config.eval.metrics)]
    sinks: list[Sink] = [
        watchdog,
        TensorBoardSink(paths.logs, run_name=run_name_of(paths.path), main_metric=main_metric),
        JsonlSink(paths.metrics),
        ConsoleSink(console, best_metric=best_metric, first_step=first_step, total_steps=total_steps),
    ]
    # Vertex AI sets it in each trial of a hyperparameter-tuning job.
    if path := os.environ.get("CLOUD_ML_HP_METRIC_FILE"):
        sinks.append(TuningSink(path, trial=os.environ.get("CLOUD_ML_TRIAL_ID", "")))
    return MetricWriter(sinks)
