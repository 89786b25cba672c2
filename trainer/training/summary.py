"""What a run prints about itself, and its speed."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from settings.visible_text import visible
from trainer.data import summary as data_summary
from trainer.data.dataset import Dataset
from trainer.evaluation import final_metrics
from trainer.training.loop import Trainer
from trainer.workdir import Workdir


def print_start(
    console: Console,
    dataset: Dataset,
    *,
    strategy_name: str,
    num_replicas: int,
    epoch_steps: int,
    total_steps: int,
    chosen: Mapping[str, Any],
    relevance_threshold: float,
) -> None:
    """Prints what is known of the data, its size and that of the run, and the values that follow from the size."""
    data = dataset.description
    notes = data_summary.describe_columns(data)
    if data_summary.has_dropped_rows(data):
        notes.append(data_summary.describe_rows(data))
    notes += data_summary.describe_unused_ratings(dataset)
    if warning := data_summary.describe_relevance(dataset, relevance_threshold):
        notes.append(warning)
    for note in notes:
        console.print(note, soft_wrap=True)
    ratings = ", ".join(f"{number:,} {split}" for split, number in data["num_ratings"].items())
    console.print(
        f"{visible(data['source'])}: {data['num_users']:,} users, {data['num_items']:,} items. Ratings: {ratings}.\n"
        f"{strategy_name} strategy with {num_replicas} replica{'s' if num_replicas > 1 else ''}. {total_steps:,} "
        f"steps, {epoch_steps:,} per epoch.",
        soft_wrap=True,
    )
    if chosen:
        values = ", ".join(f"{name} = {value}" for name, value in chosen.items())
        console.print(f"For data of this size: {values}.", soft_wrap=True)


def speed(trainer: Trainer, *, strategy_name: str, num_replicas: int) -> dict[str, Any] | None:
    """The speed of this process's part of the run; None after at most one call, because the first call compiles."""
    if not trainer.timed_steps:
        return None
    return {
        "strategy": strategy_name,
        "num_replicas": num_replicas,
        "steps_per_second": trainer.steps_per_second,
        "lists_per_second": trainer.steps_per_second * trainer.global_batch_size,
    }


def print_result(console: Console, result: dict[str, Any], *, paths: Workdir) -> None:
    """Prints the final metrics, the speed, the paths of model and report, warnings, and the verdict as the last line.

    Args:
      result: the content of result.json.
    """
    if result["held_out"]:
        final_metrics.print_protocols(console, result["held_out"], final_metrics.from_json(result["protocols"]))
        final_metrics.print_recommendations(console, result["held_out"], result["recommendations"])
    else:
        metrics = "  ".join(f"{name} {value:.4f}" for name, value in result["train"].items())
        console.print(f"On the training lists (no ratings were held out): {metrics}")
    if pace := result["speed"]:
        console.print(
            f"Speed: {pace['steps_per_second']:,.0f} steps and {pace['lists_per_second']:,.0f} lists per second."
        )
    console.print(
        f"The model of step {result['exported_step']:,} is in {paths.model}, and the report is {paths.report}.",
        soft_wrap=True,
    )
    for warning in result["warnings"]:
        console.print(warning, soft_wrap=True)
    console.print(result["verdict"]["sentence"], soft_wrap=True)
