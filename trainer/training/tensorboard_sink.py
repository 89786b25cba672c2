"""Writes a run for TensorBoard: LOGS/train and LOGS/validation have the curves, LOGS itself the config and the result.

What TensorBoard does with names decides the names here:

- It sorts the groups of tags by name, numbers by their value, and opens the first two. The number in front of a group
  puts the relative loss and the main metric first, and the learning rate and speed last.
- HParams sorts metrics by name as text and shows the first five, so that `10_final` comes before `1_learning`.
- HParams shows the fields that differ between runs first. It does so only where no run declares the fields of all runs
  (`hparams_config`), which a run cannot know.
"""

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.histogram import metadata as histogram_metadata
from tensorboard.plugins.hparams import api as hparams_api
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.util import tensor_util
from tensorflow.core.util import event_pb2

from settings.trainer_config.evaluation import CATALOGUE
from trainer import schema, storage
from trainer.compat import tf
from trainer.evaluation.final_metrics import Protocols, to_markdown
from trainer.training.metric_writer import Sink

# What an event file holds beside each record: its length, the checksum of the length, and its own checksum.
_RECORD_FRAME_BYTES = 8 + 4 + 4

_EVENT_FILE_PREFIX = "events.out.tfevents."

_LEARNING, _METRICS, _TRAINING, _FINAL, _FINAL_OTHER = "1_learning", "2_metrics", "3_training", "10_final", "11_final"

_TRAINING_NAMES = ("loss", "learning_rate", "lists_per_second")


class TensorBoardSink(Sink):
    """Event files in LOGS/train and LOGS/validation, and in LOGS itself what belongs to the whole run."""

    def __init__(self, folder: str, *, run_name: str, main_metric: str):
        """Writes nothing yet.

        Args:
          folder: LOGS.
          run_name: What HParams calls the run. Runs of the same name share a line there.
          main_metric: The metric of a validation that is shown first, such as catalogue/ndcg@10.
        """
        self._folder = folder
        self._run_name = run_name
        self._main_metric = main_metric
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    def write_scalars(self, step: int, epoch: float, split: str, scalars: Mapping[str, float]) -> None:
        self.write_curves(step, split, scalars)

    def write_curves(self, step: int, split: str, scalars: Mapping[str, float]) -> None:
        self._write(step, split, [_scalar(self._tag(name), value) for name, value in scalars.items()])

    def write_final_metrics(self, step: int, epoch: float, split: str, protocols: Protocols) -> None:
        """Writes the tables as text. The values are there for HParams, with the baselines of the main metric."""
        main_name = self._main_metric.removeprefix(CATALOGUE)
        values = [*text_pb("1_final_metrics", to_markdown(split, protocols)).value]
        for protocol, by_scorer in protocols.items():
            values += [
                _scalar(f"{_FINAL}/{protocol}/{main_name}/{scorer}", metrics[main_name].value)
                for scorer, metrics in by_scorer.items()
            ]
            values += [
                _scalar(f"{_FINAL_OTHER}/{protocol}/{name}", mean.value)
                for name, mean in by_scorer["model"].items()
                if name != main_name
            ]
        self._write(step, "", values)

    def write_histograms(self, step: int, split: str, histograms: Mapping[str, np.ndarray]) -> None:
        self._write(step, split, [_histogram(name, buckets) for name, buckets in histograms.items()])

    def write_text(self, step: int, split: str, tag: str, markdown: str) -> None:
        self._write(step, split, text_pb(f"2_{tag}", markdown).value)

    def write_config(self, fields: Mapping[str, Any], hyperparameters: Mapping[str, Any]) -> None:
        """Replaces the files in LOGS itself, with the config and the final metrics of an earlier start."""
        earlier = [] if "" in self._writers else _event_files(self._folder)
        # TensorBoard's HParams accepts only scalars and strings.
        hparams = {name: str(value) if isinstance(value, tuple) else value for name, value in hyperparameters.items()}
        lines = [
            "| field | value |",
            "| --- | --- |",
            *(f"| {name} | `{value!r}` |" for name, value in fields.items()),
        ]
        of_hparams = hparams_api.hparams_pb(hparams, trial_id=self._run_name).value
        self._write(0, "", [*text_pb("3_config", "\n".join(lines)).value, *of_hparams])
        # TensorBoard shows the first config that it finds.
        with storage.writing(self._folder):
            self._writers[""].flush()
            for path in earlier:
                tf.io.gfile.remove(path)

    def truncate_after(self, step: int) -> None:
        """Rewrites the event files that contain what is removed, or an incomplete record at the end."""
        for split in schema.SPLITS:
            for path in _event_files(storage.join(self._folder, split)):
                _truncate_events(path, step, split)

    def flush(self) -> None:
        with storage.writing(self._folder):
            for writer in self._writers.values():
                writer.flush()

    def close(self) -> None:
        with storage.writing(self._folder), contextlib.ExitStack() as stack:
            for writer in self._writers.values():
                stack.callback(writer.close)

    def _tag(self, name: str) -> str:
        group = (
            _LEARNING
            if name in ("relative_loss", self._main_metric)
            else _TRAINING
            if name in _TRAINING_NAMES
            else _METRICS
        )
        return f"{group}/{name}"

    def _write(self, step: int, split: str, values: Iterable[Summary.Value]) -> None:
        """Writes an event with these values to the event file of a split."""
        folder = storage.join(self._folder, split) if split else self._folder
        with storage.writing(folder):
            if split not in self._writers:
                self._writers[split] = tf.summary.create_file_writer(folder)
            with self._writers[split].as_default(step=step):
                # One call for all values. tf.summary has one for each, and they take longer than everything else here.
                tf.summary.experimental.write_raw_pb(Summary(value=values).SerializeToString())


def _scalar(tag: str, value: float) -> Summary.Value:
    return scalar_pb(tag, value).value[0]


def _histogram(tag: str, buckets: np.ndarray) -> Summary.Value:
    return Summary.Value(
        tag=tag,
        tensor=tensor_util.make_tensor_proto(buckets, np.float64),
        metadata=histogram_metadata.create_summary_metadata(display_name=None, description=None),
    )


def run_name_of(workdir: str) -> str:
    """The last two parts of a path, such as runs/mine; of a trial the last three, such as tune/trials/0007.

    The last part alone would not tell runs/a/seed0 from runs/b/seed0.
    """
    parts = [part for part in workdir.split("://")[-1].split("/") if part not in ("", ".")]
    return "/".join(parts[-3:] if parts[-2:-1] == ["trials"] else parts[-2:])


def _event_files(folder: str) -> list[str]:
    names = tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []
    return [storage.join(folder, name) for name in names if name.startswith(_EVENT_FILE_PREFIX)]


def _truncate_events(path: str, step: int, split: str) -> None:
    # An incomplete record is an error to the reader, and nothing follows it.
    records = [record.numpy() for record in tf.data.TFRecordDataset(path).ignore_errors()]
    kept = [record for record in records if _is_kept(event_pb2.Event.FromString(record), step, split)]
    if sum(len(record) + _RECORD_FRAME_BYTES for record in kept) == tf.io.gfile.stat(path).length:
        return
    temporary = f"{path.rsplit('/', 1)[0]}/truncated.tmp"
    with storage.writing(path):
        with tf.io.TFRecordWriter(temporary) as writer:
            for record in kept:
                writer.write(record)
        tf.io.gfile.rename(temporary, path, overwrite=True)


def _is_kept(event: event_pb2.Event, step: int, split: str) -> bool:
    # Earlier versions wrote the final metrics to LOGS/SPLIT, and gave each value an event of its own.
    are_final = split == "test" or any(value.tag.startswith("rated/") for value in event.summary.value)
    return event.step < step or (event.step == step and not are_final)
