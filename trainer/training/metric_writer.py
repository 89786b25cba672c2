"""Where figures go: TensorBoard, metrics.jsonl, the console. One small class a sink, one that fans out.

Only the chief makes a writer that writes; the other workers get one without sinks.
"""

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich import progress
from rich.console import Console
from tensorboard.plugins.hparams import api as hparams_api
from tensorflow.core.util import event_pb2

from settings.errors import StorageError
from trainer import schema, storage
from trainer.compat import tf

# A record in an event file: its length and the checksum of that in front, its own checksum behind.
_RECORD_FRAME_SIZE = 8 + 4 + 4


class Sink:
    """What a sink can be told; each overrides what it has a use for."""

    def write_scalars(self, step: int, epoch: float, split: str, scalars: Mapping[str, float]) -> None:
        """Figures of one split. `epoch` is how often each list has been seen, with its fraction."""

    def write_text(self, step: int, split: str, tag: str, markdown: str) -> None:
        """A text, in Markdown."""

    def write_config(
        self, fields: Mapping[str, Any], hyperparameters: Mapping[str, Any], final_figures: Sequence[tuple[str, str]]
    ) -> None:
        """The resolved config by dotted name, and the (split, name) of the figures to show beside it."""

    def advance(self, step: int, steps_per_second: float) -> None:
        """Training has come to `step`."""

    def truncate_after(self, step: int) -> None:
        """Forgets all that was written for later steps, which a resumed run is about to take again."""

    def flush(self) -> None:
        """Makes what was written visible to readers."""

    def close(self) -> None:
        """Flushes and frees."""


class MetricWriter(Sink):
    """Tells every sink."""

    def __init__(self, sinks: Sequence[Sink]):
        self._sinks = sinks

    def write_scalars(self, step: int, epoch: float, split: str, scalars: Mapping[str, float]) -> None:
        for sink in self._sinks:
            sink.write_scalars(step, epoch, split, scalars)

    def write_text(self, step: int, split: str, tag: str, markdown: str) -> None:
        for sink in self._sinks:
            sink.write_text(step, split, tag, markdown)

    def write_config(
        self, fields: Mapping[str, Any], hyperparameters: Mapping[str, Any], final_figures: Sequence[tuple[str, str]]
    ) -> None:
        for sink in self._sinks:
            sink.write_config(fields, hyperparameters, final_figures)

    def advance(self, step: int, steps_per_second: float) -> None:
        for sink in self._sinks:
            sink.advance(step, steps_per_second)

    def truncate_after(self, step: int) -> None:
        for sink in self._sinks:
            sink.truncate_after(step)

    def flush(self) -> None:
        for sink in self._sinks:
            sink.flush()

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()


class TensorBoardSink(Sink):
    """Event files in LOGS/train, LOGS/validation and LOGS/test; hyperparameters in LOGS itself."""

    def __init__(self, folder: str):
        self._folder = folder
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    def write_scalars(self, step: int, epoch: float, split: str, scalars: Mapping[str, float]) -> None:
        with self._events(split, step):
            for name, value in scalars.items():
                tf.summary.scalar(name, value)

    def write_text(self, step: int, split: str, tag: str, markdown: str) -> None:
        with self._events(split, step):
            tf.summary.text(tag, markdown)

    def write_config(
        self, fields: Mapping[str, Any], hyperparameters: Mapping[str, Any], final_figures: Sequence[tuple[str, str]]
    ) -> None:
        # The HParams tab knows scalars and strings only.
        hparams = {name: str(value) if isinstance(value, tuple) else value for name, value in hyperparameters.items()}
        lines = [
            "| field | value |",
            "| --- | --- |",
            *(f"| {name} | `{value!r}` |" for name, value in fields.items()),
        ]
        with self._events("", 0):
            tf.summary.text("config", "\n".join(lines))
            hparams_api.hparams_config(
                hparams=[hparams_api.HParam(name) for name in hparams],
                metrics=[hparams_api.Metric(name, group=split) for split, name in final_figures],
            )
            hparams_api.hparams(hparams)

    def truncate_after(self, step: int) -> None:
        """Rewrites the event files that hold later steps, or a last record that a crash cut short."""
        for split in schema.SPLITS:
            folder = storage.join(self._folder, split)
            names = tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []
            for name in names:
                if name.startswith("events.out.tfevents."):
                    _truncate_events(storage.join(folder, name), step)

    def flush(self) -> None:
        with storage.writing(self._folder):
            for writer in self._writers.values():
                writer.flush()

    def close(self) -> None:
        with storage.writing(self._folder):
            for writer in self._writers.values():
                writer.close()

    @contextlib.contextmanager
    def _events(self, split: str, step: int) -> Iterator[None]:
        """Makes the summaries of the body events of a split and a step."""
        folder = storage.join(self._folder, split) if split else self._folder
        with storage.writing(folder):
            if split not in self._writers:
                self._writers[split] = tf.summary.create_file_writer(folder)
            with self._writers[split].as_default(step=step):
                yield


def _truncate_events(path: str, step: int) -> None:
    # To the reader a record that was cut short is an error, after which there is nothing more.
    records = [record.numpy() for record in tf.data.TFRecordDataset(path).ignore_errors()]
    kept = [record for record in records if event_pb2.Event.FromString(record).step <= step]
    if sum(len(record) + _RECORD_FRAME_SIZE for record in kept) == tf.io.gfile.stat(path).length:
        return
    temporary = f"{path.rsplit('/', 1)[0]}/truncated.tmp"
    with storage.writing(path):
        with tf.io.TFRecordWriter(temporary) as writer:
            for record in kept:
                writer.write(record)
        tf.io.gfile.rename(temporary, path, overwrite=True)


class JsonlSink(Sink):
    """One JSON object a line: step, epoch, split, metrics, null where one is not finite. Written when flushed."""

    def __init__(self, path: str):
        self._path = path
        self._lines: list[str] = []

    def write_scalars(self, step: int, epoch: float, split: str, scalars: Mapping[str, float]) -> None:
        # JSON has no NaN.
        metrics = {name: value if math.isfinite(value) else None for name, value in scalars.items()}
        line = {"step": step, "epoch": round(epoch, 4), "split": split, "metrics": metrics}
        self._lines.append(json.dumps(line, allow_nan=False) + "\n")

    def truncate_after(self, step: int) -> None:
        """Drops the lines of later steps, and a last line that a crash cut short."""
        if not tf.io.gfile.exists(self._path):
            return
        lines = storage.read_bytes(self._path).splitlines(keepends=True)
        try:
            kept = [line for line in lines if line.endswith(b"\n") and json.loads(line)["step"] <= step]
        except (ValueError, LookupError, TypeError) as error:
            raise StorageError(
                f"{self._path} cannot be gone on with: a line of it is not what a run writes "
                f"({storage.reason(error)}). Move the file elsewhere; the run begins a new one."
            ) from error
        if kept != lines:
            storage.write_bytes(self._path, b"".join(kept))

    def flush(self) -> None:
        """Appends the lines since the last flush."""
        if self._lines:
            with storage.writing(self._path), tf.io.gfile.GFile(self._path, "a") as file:
                file.write("".join(self._lines))
            self._lines.clear()

    def close(self) -> None:
        self.flush()


class TuningSink(Sink):
    """The validation figures for the study that this run is a trial of: a JSON line each, in the file it reads.

    The format is that of the cloudml-hypertune package. A study compares numbers, so none that is not finite
    is told; a trial without any counts as infeasible.
    """

    def __init__(self, path: str, *, trial: str, clock: Callable[[], float] = time.time):
        self._path = path
        self._trial = trial
        self._clock = clock

    def write_scalars(self, step: int, epoch: float, split: str, scalars: Mapping[str, float]) -> None:
        if split != "validation":
            return
        told = {"timestamp": self._clock(), "trial": self._trial, "global_step": str(step)}
        finite = {name: value for name, value in scalars.items() if math.isfinite(value)}
        with storage.writing(self._path):
            os.makedirs(os.path.dirname(self._path) or ".", exist_ok=True)
            with open(self._path, "a", encoding="utf-8") as file:
                file.writelines(json.dumps({**told, name: str(float(value))}) + "\n" for name, value in finite.items())


class ConsoleSink(Sink):
    """A line for each set of figures; on a terminal also a bar with the rate and the time left."""

    def __init__(self, console: Console, *, first_step: int, total_steps: int):
        self._console = console
        self._total_steps = total_steps
        self._progress = progress.Progress(
            progress.TextColumn("step {task.completed:,.0f} of {task.total:,.0f}"),
            progress.BarColumn(),
            progress.TextColumn("{task.fields[rate]}"),
            progress.TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", completed=first_step, total=total_steps, rate="")
        self._progress.start()

    def advance(self, step: int, steps_per_second: float) -> None:
        # NaN until there is something to measure.
        rate = "" if math.isnan(steps_per_second) else f"{steps_per_second:,.0f} steps/s"
        self._progress.update(self._task, completed=step, rate=rate)

    def write_scalars(self, step: int, epoch: float, split: str, scalars: Mapping[str, float]) -> None:
        """`step 480  epoch 10.0  train  loss 748.1  ndcg 0.938 ...`"""
        if split == "test":
            return  # The table of final figures has them, with error bars and floors.
        width = len(f"{self._total_steps:,}")
        figures = "  ".join(f"{name} {_readable(name, value)}" for name, value in scalars.items())
        self._console.print(
            f"step {step:>{width},}  epoch {epoch:<6.4g} {split:<10}  {figures}",
            soft_wrap=True,
        )

    def close(self) -> None:
        self._progress.stop()


def _readable(name: str, value: float) -> str:
    if name.endswith("_per_second"):
        return f"{value:,.0f}"
    return f"{value:.4g}" if name == "learning_rate" else f"{value:.4f}" if abs(value) < 100 else f"{value:.2f}"
