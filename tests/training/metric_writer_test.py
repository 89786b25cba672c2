import io
import json
import math
import os
import subprocess

import numpy as np
import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorflow.core.util import event_pb2

from configs import default
from settings.errors import StorageError
from trainer import storage
from trainer.compat import tf
from trainer.config import flatten
from trainer.training import run as training_run
from trainer.training.metric_writer import ConsoleSink, JsonlSink, MetricWriter, Sink, TensorBoardSink, TuningSink
from trainer.workdir import Workdir


def json_line(step, split="train", **metrics):
    return json.dumps({"step": step, "epoch": step / 10, "split": split, "metrics": metrics}) + "\n"


@pytest.fixture(params=["local", "ram"])
def jsonl_path(request, tmp_path):
    folder = str(tmp_path) if request.param == "local" else f"ram://{tmp_path.name}"
    tf.io.gfile.makedirs(folder)
    return f"{folder}/metrics.jsonl"


def test_jsonl_has_a_line_for_each_set_of_figures_once_flushed(jsonl_path):
    sink = JsonlSink(jsonl_path)
    sink.write_scalars(3, 1 / 3, "train", {"loss": 0.1, "ndcg@10": 1})
    assert not tf.io.gfile.exists(jsonl_path)
    sink.flush()
    sink.flush()
    sink.write_scalars(6, 2 / 3, "validation", {"loss": 2.5})
    sink.close()
    assert storage.read_bytes(jsonl_path).decode() == (
        '{"step": 3, "epoch": 0.3333, "split": "train", "metrics": {"loss": 0.1, "ndcg@10": 1}}\n'
        '{"step": 6, "epoch": 0.6667, "split": "validation", "metrics": {"loss": 2.5}}\n'
    )


def test_jsonl_stays_json_where_a_figure_is_not_finite(jsonl_path):
    sink = JsonlSink(jsonl_path)
    sink.write_scalars(1, 0.1, "train", {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 0.5})
    sink.close()

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    line = json.loads(storage.read_bytes(jsonl_path), parse_constant=refuse)
    assert line["metrics"] == {"a": None, "b": None, "c": None, "d": 0.5}


@pytest.mark.parametrize(
    ("torn", "step", "kept"),
    [
        ("", 20, 3),
        ("", 19, 2),
        ("", 10, 2),
        ("", 9, 0),
        (json_line(15)[:-1], 20, 3),
        ('{"ste', 15, 2),
        ("\0\0\0", 99, 3),
    ],
)
def test_jsonl_forgets_later_steps_and_a_line_cut_short(jsonl_path, torn, step, kept):
    lines = [json_line(10, loss=1.0), json_line(10, "validation", loss=2.0), json_line(20, loss=3.0)]
    storage.write_bytes(jsonl_path, ("".join(lines) + torn).encode())
    sink = JsonlSink(jsonl_path)
    sink.truncate_after(step)
    sink.write_scalars(30, 3, "train", {"loss": 4.0})
    sink.close()
    assert storage.read_bytes(jsonl_path).decode() == "".join(lines[:kept]) + json_line(30, loss=4.0).replace(
        "3.0,", "3,"
    )


@pytest.mark.parametrize("line", [b"not JSON\n", b"[1]\n", b"{}\n", b"5\n", b"\xff\n", b'{"step": "1"}\n'])
def test_jsonl_with_a_foreign_line_is_named_and_left_alone(jsonl_path, line):
    content = json_line(10).encode() + line + json_line(20).encode()
    storage.write_bytes(jsonl_path, content)
    with pytest.raises(StorageError, match=r"metrics.jsonl cannot be gone on with: .* Move the file elsewhere"):
        JsonlSink(jsonl_path).truncate_after(10)
    assert storage.read_bytes(jsonl_path) == content


def test_there_may_be_nothing_to_forget(tmp_path):
    JsonlSink(str(tmp_path / "metrics.jsonl")).truncate_after(0)
    TensorBoardSink(str(tmp_path / "logs")).truncate_after(0)
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def write(self, content):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.io.gfile.GFile, "write", write)
    sink = JsonlSink(str(tmp_path / "metrics.jsonl"))
    sink.write_scalars(1, 0.1, "train", {"loss": 1.0})
    with pytest.raises(StorageError, match=r"metrics.jsonl cannot be written: No space left"):
        sink.flush()


def test_a_full_disk_is_named_for_tensorboard_too(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting a small disk takes root")
    try:
        sink = TensorBoardSink(str(disk / "logs"))
        with pytest.raises(StorageError, match=r"logs/train cannot be written: /.*No space left on device\. Make room"):
            for step in range(2000):
                sink.write_scalars(step, 0.1, "train", {"loss": 1.0})
                sink.flush()
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_folder_of_logs_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "logs").write_text("a file")
    with pytest.raises(StorageError, match=r"logs/train cannot be written: /.* is not a directory"):
        TensorBoardSink(str(tmp_path / "logs")).write_scalars(1, 0.1, "train", {"loss": 1.0})


def events_in(folder):
    """Every event in the event files of a folder; a record cut short is an error."""
    return [
        event_pb2.Event.FromString(record.numpy())
        for name in sorted(tf.io.gfile.listdir(folder))
        for record in tf.data.TFRecordDataset(f"{folder}/{name}")
    ]


def scalars_in(folder):
    """(tag, step, value) of every scalar."""
    return sorted(
        (value.tag, event.step, float(tf.make_ndarray(value.tensor)))
        for event in events_in(folder)
        for value in event.summary.value
        if value.metadata.plugin_data.plugin_name == "scalars" or value.tag in ("loss", "mrr")
    )


@pytest.fixture(params=["local", "ram"])
def logs(request, tmp_path):
    return str(tmp_path / "logs") if request.param == "local" else f"ram://{tmp_path.name}/logs"


def write_scalars(logs, steps, offset=0.0):
    sink = TensorBoardSink(logs)
    for step in steps:
        sink.write_scalars(step, step / 10, "train", {"loss": step + offset, "mrr": 0.5})
    for step in steps[::2]:
        sink.write_scalars(step, step / 10, "validation", {"loss": -step - offset})
    sink.close()


def test_tensorboard_has_each_scalar_at_its_step_and_split(logs):
    write_scalars(logs, [10, 20, 30])
    assert scalars_in(f"{logs}/train") == [
        *(("loss", step, float(step)) for step in (10, 20, 30)),
        *(("mrr", step, 0.5) for step in (10, 20, 30)),
    ]
    assert scalars_in(f"{logs}/validation") == [("loss", 10, -10.0), ("loss", 30, -30.0)]


def test_tensorboard_shows_what_was_flushed(logs):
    sink = TensorBoardSink(logs)
    sink.write_scalars(1, 0.1, "test", {"loss": 0.25})
    sink.flush()
    assert scalars_in(f"{logs}/test") == [("loss", 1, 0.25)]


@pytest.mark.parametrize("step", [0, 10, 15, 20, 30])
def test_after_a_resume_tensorboard_has_one_value_a_step(logs, step):
    write_scalars(logs, [10, 20, 30])
    resumed = TensorBoardSink(logs)
    resumed.truncate_after(step)
    taken_again = [again for again in (10, 20, 30, 40) if again > step]
    write_scalars(logs, taken_again, offset=0.5)
    expected = [float(kept) for kept in (10, 20, 30) if kept <= step] + [again + 0.5 for again in taken_again]
    assert [value for tag, _, value in scalars_in(f"{logs}/train") if tag == "loss"] == expected
    steps = [kept for kept in (10, 30) if kept <= step] + taken_again[::2]
    assert [at for _, at, _ in scalars_in(f"{logs}/validation")] == steps
    assert all("truncated" not in name for name in tf.io.gfile.listdir(f"{logs}/train"))


@pytest.mark.parametrize("cut", [1, 5, 30])
@pytest.mark.parametrize("step", [30, 20])
def test_a_record_that_was_cut_short_is_dropped(tmp_path, cut, step):
    logs = str(tmp_path)
    sink = TensorBoardSink(logs)
    for at in (10, 20, 30):
        sink.write_scalars(at, at / 10, "train", {"loss": float(at)})
    sink.close()
    (name,) = os.listdir(f"{logs}/train")
    path = f"{logs}/train/{name}"
    os.truncate(path, os.path.getsize(path) - cut)
    with pytest.raises(tf.errors.DataLossError):
        scalars_in(f"{logs}/train")
    TensorBoardSink(logs).truncate_after(step)
    assert scalars_in(f"{logs}/train") == [("loss", 10, 10.0), ("loss", 20, 20.0)]


def test_a_file_with_nothing_to_forget_is_not_rewritten(tmp_path):
    logs = str(tmp_path)
    write_scalars(logs, [10, 20])
    (name,) = os.listdir(f"{logs}/train")
    inode = os.stat(f"{logs}/train/{name}").st_ino
    TensorBoardSink(logs).truncate_after(20)
    assert os.stat(f"{logs}/train/{name}").st_ino == inode


def test_tensorboard_has_the_config_as_text_and_as_hyperparameters(tmp_path):
    logs = str(tmp_path)
    fields = flatten(default.get_config().to_dict())
    hyperparameters = {name: fields[name] for name in ("optimizer.learning_rate", "data.source", "model.hidden_sizes")}
    sink = TensorBoardSink(logs)
    sink.write_config(fields, hyperparameters, [("test", "rated/mrr"), ("train", "loss")])
    sink.close()

    values = {value.tag: value for event in events_in(logs) for value in event.summary.value}
    text = tf.make_ndarray(values["config"].tensor).item().decode()
    assert "| optimizer.learning_rate | `0.1` |" in text.splitlines()
    assert "| model.hidden_sizes | `()` |" in text.splitlines()
    assert len(text.splitlines()) == 2 + len(fields)

    def hparams_data(tag):
        return plugin_data_pb2.HParamsPluginData.FromString(values[tag].metadata.plugin_data.content)

    started = hparams_data("_hparams_/session_start_info").session_start_info.hparams
    assert set(started) == set(hyperparameters)
    assert started["optimizer.learning_rate"].number_value == 0.1
    assert started["data.source"].string_value == "synthetic"
    assert started["model.hidden_sizes"].string_value == "()"
    experiment = hparams_data("_hparams_/experiment").experiment
    assert [info.name for info in experiment.hparam_infos] == list(hyperparameters)
    assert [(info.name.group, info.name.tag) for info in experiment.metric_infos] == [
        ("test", "rated/mrr"),
        ("train", "loss"),
    ]


def test_tensorboards_own_reader_sees_texts_beside_scalars(tmp_path):
    sink = TensorBoardSink(str(tmp_path))
    sink.write_text(20, "validation", "recommendations", "| a |\n| - |")
    sink.write_scalars(20, 2.0, "validation", {"mrr": 0.75})
    sink.close()
    reader = EventAccumulator(str(tmp_path / "validation"))
    reader.Reload()
    (text,) = reader.Tensors("recommendations")
    assert (text.step, tf.make_ndarray(text.tensor_proto).item()) == (20, b"| a |\n| - |")
    (scalar,) = reader.Tensors("mrr")
    assert (scalar.step, tf.make_ndarray(scalar.tensor_proto).item()) == (20, 0.75)


def test_a_study_is_told_each_finite_validation_figure_as_it_reads_them(tmp_path):
    path = tmp_path / "made" / "output.metrics"
    sink = TuningSink(str(path), trial="7", clock=iter([100.5, 200.5]).__next__)
    sink.write_scalars(3, 0.5, "validation", {"loss": 2, "ndcg@10": 0.25})
    # Already there, though nothing was flushed: the study reads along.
    assert path.read_text().count("\n") == 2
    sink.write_scalars(3, 0.5, "train", {"ndcg@10": 0.9})
    sink.write_scalars(6, 1.0, "validation", {"loss": math.nan, "mrr": math.inf, "ndcg@10": np.float32(0.5)})
    sink.write_scalars(6, 1.0, "test", {"ndcg@10": 0.1})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"timestamp": 100.5, "trial": "7", "global_step": "3", "loss": "2.0"},
        {"timestamp": 100.5, "trial": "7", "global_step": "3", "ndcg@10": "0.25"},
        {"timestamp": 200.5, "trial": "7", "global_step": "6", "ndcg@10": "0.5"},
    ]


def test_the_trainer_writes_the_file_of_a_study_only_where_it_is_asked_to(tmp_path, monkeypatch):
    def validate(run):
        writer = training_run._build_writer(Workdir(str(tmp_path / run)), Console(quiet=True), 0, 10)
        writer.write_scalars(10, 1.0, "validation", {"ndcg@10": 0.75})
        writer.close()

    path = tmp_path / "output.metrics"
    monkeypatch.delenv("CLOUD_ML_HP_METRIC_FILE", raising=False)
    validate("alone")
    assert not path.exists()
    monkeypatch.setenv("CLOUD_ML_HP_METRIC_FILE", str(path))
    monkeypatch.setenv("CLOUD_ML_TRIAL_ID", "3")
    validate("trial")
    (line,) = map(json.loads, path.read_text().splitlines())
    assert (line["trial"], line["global_step"], line["ndcg@10"]) == ("3", "10", "0.75")


def console_output(write, *, terminal=False, total_steps=1000):
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=400, highlight=False)
    sink = ConsoleSink(console, first_step=0, total_steps=total_steps)
    write(sink)
    sink.close()
    return output.getvalue()


def test_the_console_shows_a_plain_line_where_it_is_no_terminal():
    def write(sink):
        sink.advance(480, 1234.5)
        figures = {"loss": 748.123, "ndcg@10": 0.93812, "learning_rate": 0.00012345, "lists_per_second": 39503.6}
        sink.write_scalars(480, 10.0, "train", figures)
        sink.write_scalars(1000, 20.8333, "validation", {"loss": math.nan})
        sink.write_scalars(1000, 20.8333, "test", {"loss": 1.0})

    assert console_output(write) == (
        "step   480  epoch 10     train       loss 748.12  ndcg@10 0.9381  learning_rate 0.0001234  "
        "lists_per_second 39,504\n"
        "step 1,000  epoch 20.83  validation  loss nan\n"
    )


def test_on_a_terminal_a_bar_shows_step_and_rate():
    def write(sink):
        sink.advance(250, 4321.0)
        sink._progress.refresh()

    shown = console_output(write, terminal=True)
    assert "step 250 of 1,000" in shown
    assert "4,321 steps/s" in shown


def test_on_a_terminal_no_rate_is_shown_before_it_is_known():
    def write(sink):
        sink.advance(250, math.nan)
        sink._progress.refresh()

    shown = console_output(write, terminal=True)
    assert "step 250 of 1,000" in shown
    assert "steps/s" not in shown


def test_every_sink_is_told_everything():
    calls = {
        "write_scalars": (1, 0.1, "train", {"loss": 1.0}),
        "write_text": (1, "train", "tag", "text"),
        "write_config": ({"seed": 0, "list_size": 9}, {"seed": 0}, [("test", "mrr")]),
        "advance": (1, 2.0),
        "truncate_after": (1,),
        "flush": (),
        "close": (),
    }
    assert set(calls) == {name for name in vars(Sink) if not name.startswith("_")}
    told = []

    class Listener(Sink):
        def __init__(self, name):
            self.name = name

    for method in calls:
        setattr(Listener, method, lambda self, *values, method=method: told.append((self.name, method, values)))
    writer = MetricWriter([Listener("first"), Listener("second")])
    for method, values in calls.items():
        getattr(writer, method)(*values)
    assert told == [(name, method, values) for method, values in calls.items() for name in ("first", "second")]
