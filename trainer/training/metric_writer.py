"""Writes metrics to metrics.jsonl, a tuning study and the console: one class per destination, and one that calls all.

The class for TensorBoard is in `tensorboard_sink.py`.
Only the chief's writer has destinations. The writers of the other workers have the watchdog alone.
"""

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
from rich.console import Console
from typing_extensions import Self

from settings.errors import StorageError
from settings.progress import Advance, build_bars, on_console, silent
from trainer import storage
from trainer.compat import tf
from trainer.evaluation.final_metrics import Protocols, final_scalars

_ALWAYS_ON_CONSOLE = ("loss", "learning_rate", "lists_per_second")


class Sink:
    """The calls that a sink can receive. Each sink overrides those that it uses."""

    def write_scalars(self, step: int, epoch: float, split: str, scalars: Mapping[str, float]) -> None:
        """Writes the metrics of one split. `epoch` is `step` in epochs, with a fraction."""

    def write_text(self, step: int, split: str, tag: str, markdown: str) -> None:
        """Writes a text in Markdown."""

    def write_final_metrics(self, step: int, epoch: float, split: str, protocols: Protocols) -> None:
        """Writes the metrics of the exported model and of the baselines at the end of the run."""

    def write_curves(self, step: int, split: str, scalars: Mapping[str, float]) -> None:
        """Writes what is only there to be looked at. It is in no record of the run."""

    def write_histograms(self, step: int, split: str, histograms: Mapping[str, np.ndarray]) -> None:
        """Writes histograms by name: float64 [num_buckets, 3], the lower end, the upper end and the count of each."""

    def write_config(self, fields: Mapping[str, Any], hyperparameters: Mapping[str, Any]) -> None:
        """Writes the config. It replaces the one that an earlier start of the run has written.

        Args:
          fields: all fields, with dotted names.
          hyperparameters: the fields that runs are compared by.
        """

    def advance(self, step: int, steps_per_second: float) -> None:
        """Shows that training has reached `step`."""

    def progress(self, what: str, total: int) -> Advance:
        """Begins to show a piece of work after or between the steps; see `settings.progress.Progress`."""
        return silent(what, total)

    def truncate_after(self, step: int) -> None:
        """Removes what a run that resumes after `step` writes again: later steps, and the final metrics of `step`.

        The final metrics are those named PROTOCOL/METRIC. A validation writes catalogue/METRIC as well, beside others.
        """

    def flush(self) -> None:
        """Makes everything visible to readers."""

    def close(self) -> None:
        """Flushes, and frees what the sink holds."""


class MetricWriter(Sink):
    """Passes every call to each of its sinks. As a context manager, it closes them, also after an error."""

    def __init__(self, sinks: Sequence[Sink]):
        self._sinks = sinks

    def write_scalars(self, step: int, epoch: float, split: str, scalars: Mapping[str, float]) -> None:
        for sink in self._sinks:
            sink.write_scalars(step, epoch, split, scalars)

    def write_text(self, step: int, split: str, tag: str, markdown: str) -> None:
        for sink in self._sinks:
            sink.write_text(step, split, tag, markdown)

    def write_final_metrics(self, step: int, epoch: float, split: str, protocols: Protocols) -> None:
        for sink in self._sinks:
            sink.write_final_metrics(step, epoch, split, protocols)

    def write_curves(self, step: int, split: str, scalars: Mapping[str, float]) -> None:
        for sink in self._sinks:
            sink.write_curves(step, split, scalars)

    def write_histograms(self, step: int, split: str, histograms: Mapping[str, np.ndarray]) -> None:
        for sink in self._sinks:
            sink.write_histograms(step, split, histograms)

    def write_config(self, fields: Mapping[str, Any], hyperparameters: Mapping[str, Any]) -> None:
        for sink in self._sinks:
            sink.write_config(fields, hyperparameters)

    def advance(self, step: int, steps_per_second: float) -> None:
        for sink in self._sinks:
            sink.advance(step, steps_per_second)

    def progress(self, what: str, total: int) -> Advance:
        advances = [sink.progress(what, total) for sink in self._sinks]

        def advance(number: int) -> None:
            for of_sink in advances:
                of_sink(number)

        return advance

    def truncate_after(self, step: int) -> None:
        for sink in self._sinks:
            sink.truncate_after(step)

    def flush(self) -> None:
        for sink in self._sinks:
            sink.flush()

    def close(self) -> None:
        # ExitStack closes the others even if one cannot be closed.
        with contextlib.ExitStack() as stack:
            for sink in reversed(self._sinks):
                stack.callback(sink.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        # The error in the body is the one to report. A full disk, for example, makes closing fail too.
        with contextlib.suppress(StorageError):
            self.close()


def _are_final(names: Collection[str]) -> bool:
    # A validation has other metrics beside those of the whole catalogue.
    return bool(names) and all("/" in name for name in names)


class JsonlSink(Sink):
    """One JSON object per line: step, epoch, split and metrics. A metric that is not finite is null.

    Lines are written to the file by `flush`.
    """

    def __init__(self, path: str):
        self._path = path
        self._lines: list[str] = []

    def write_scalars(self, step: int, epoch: float, split: str, scalars: Mapping[str, float]) -> None:
        # JSON has no NaN.
        metrics = {name: value if math.isfinite(value) else None for name, value in scalars.items()}
        line = {"step": step, "epoch": round(epoch, 4), "split": split, "metrics": metrics}
        self._lines.append(json.dumps(line, allow_nan=False) + "\n")

    def write_final_metrics(self, step: int, epoch: float, split: str, protocols: Protocols) -> None:
        """Writes the metrics of the model as one line, with the names PROTOCOL/METRIC."""
        self.write_scalars(step, epoch, split, final_scalars(protocols))

    def truncate_after(self, step: int) -> None:
        """Removes the lines of later steps, the final metrics of `step`, and an incomplete last line."""
        if not tf.io.gfile.exists(self._path):
            return
        lines = storage.read_bytes(self._path).splitlines(keepends=True)
        try:
            kept = [line for line in lines if line.endswith(b"\n") and self._is_kept(json.loads(line), step)]
        except (ValueError, LookupError, TypeError) as error:
            raise StorageError(
                f"{self._path} cannot be continued: it contains a line that no run has written "
                f"({storage.reason(error)}). Move the file elsewhere, and the run starts a new one."
            ) from error
        if kept != lines:
            storage.write_bytes(self._path, b"".join(kept))

    @staticmethod
    def _is_kept(line: dict[str, Any], step: int) -> bool:
        return line["step"] < step or (line["step"] == step and not _are_final(line["metrics"]))

    def flush(self) -> None:
        """Appends the lines since the last flush."""
        if self._lines:
            with storage.writing(self._path), tf.io.gfile.GFile(self._path, "a") as file:
                file.write("".join(self._lines))
            self._lines.clear()

    def close(self) -> None:
        self.flush()


class TuningSink(Sink):
    """The validation metrics for a hyperparameter-tuning study: one JSON object per line and metric.

    The format is that of the cloudml-hypertune package. A metric that is not finite is left out. The study counts a
    trial without metrics as infeasible.
    """

    def __init__(self, path: str, *, trial: str, clock: Callable[[], float] = time.time):
        self._path = path
        self._trial = trial
        self._clock = clock

    def write_scalars(self, step: int, epoch: float, split: str, scalars: Mapping[str, float]) -> None:
        if split != "validation":
            return
        common = {"timestamp": self._clock(), "trial": self._trial, "global_step": str(step)}
        finite = {name: value for name, value in scalars.items() if math.isfinite(value)}
        with storage.writing(self._path):
            os.makedirs(os.path.dirname(self._path) or ".", exist_ok=True)
            with open(self._path, "a", encoding="utf-8") as file:
                for name, value in finite.items():
                    file.write(json.dumps({**common, name: str(float(value))}) + "\n")

    def write_final_metrics(self, step: int, epoch: float, split: str, protocols: Protocols) -> None:
        self.write_scalars(step, epoch, split, final_scalars(protocols))


class ConsoleSink(Sink):
    """One short line per set of metrics. On a terminal also progress bars, which hide the cursor until `close`."""

    def __init__(self, console: Console, *, first_step: int, total_steps: int, best_metric: str):
        """Starts the progress bar.

        Args:
          console: where to print.
          first_step: steps that were taken before.
          total_steps: steps of the whole run.
          best_metric: the only metric to show beside the loss. The other sinks have all.
        """
        self._console = console
        self._total_steps = total_steps
        self._best_metric = best_metric
        self._progress = build_bars(console)
        self._task = self._progress.add_task("step", completed=first_step, total=total_steps, rate="")
        self._progress.start()

    def advance(self, step: int, steps_per_second: float) -> None:
        # The rate is NaN before the first measurement.
        rate = "" if math.isnan(steps_per_second) else f"{steps_per_second:,.0f} steps/s"
        self._progress.update(self._task, completed=step, rate=rate)

    def progress(self, what: str, total: int) -> Advance:
        return on_console(self._console, self._progress)(what, total)

    def write_scalars(self, step: int, epoch: float, split: str, scalars: Mapping[str, float]) -> None:
        """`step 480  epoch 10  validation  loss 13.3254  catalogue/ndcg@10 0.1450`"""
        width = len(f"{self._total_steps:,}")
        metrics = "  ".join(
            f"{name} {_readable(name, value)}"
            for name, value in scalars.items()
            if name in (self._best_metric, *_ALWAYS_ON_CONSOLE)
        )
        self._console.print(
            f"step {step:>{width},}  epoch {epoch:<6.4g} {split:<10}  {metrics}",
            soft_wrap=True,
        )

    def close(self) -> None:
        self._progress.stop()


def _readable(name: str, value: float) -> str:
    if name.endswith("_per_second"):
        return f"{value:,.0f}"
    return f"{value:.4g}" if name == "learning_rate" else f"{value:.4f}" if abs(value) < 100 else f"{value:.2f}"
