"""What the TensorBoard sink writes, read back as raw events and by TensorBoard's own readers."""

import os
import subprocess

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorflow.core.util import event_pb2

from configs import default
from settings.errors import StorageError
from trainer.compat import tf
from trainer.config import flatten
from trainer.training.metric_writer import TensorBoardSink


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
        if "tfevents" in name
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


def test_each_scalar_has_its_step_and_split(logs):
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
def test_after_a_resume_tensorboard_has_one_value_per_step(logs, step):
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


def test_the_final_metrics_of_the_step_that_it_resumes_after_are_dropped(logs):
    sink = TensorBoardSink(logs)
    for step in (10, 20):
        sink.write_scalars(step, 1.0, "validation", {"mrr": 0.5})
        sink.write_scalars(step, 1.0, "validation", {"rated/mrr": 0.25})
    sink.close()
    TensorBoardSink(logs).truncate_after(20)
    assert scalars_in(f"{logs}/validation") == [("mrr", 10, 0.5), ("mrr", 20, 0.5), ("rated/mrr", 10, 0.25)]


def test_the_catalogue_metrics_of_the_validation_that_it_resumes_after_are_kept(logs):
    sink = TensorBoardSink(logs)
    for split in ("validation", "test"):
        sink.write_scalars(20, 1.0, split, {"catalogue/mrr": 0.5})
    sink.close()
    TensorBoardSink(logs).truncate_after(20)
    assert scalars_in(f"{logs}/validation") == [("catalogue/mrr", 20, 0.5)]
    assert scalars_in(f"{logs}/test") == []


@pytest.mark.parametrize("cut", [1, 5, 30])
@pytest.mark.parametrize("step", [30, 20])
def test_an_incomplete_record_is_dropped(tmp_path, cut, step):
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


def test_a_file_with_nothing_to_remove_is_not_rewritten(tmp_path):
    logs = str(tmp_path)
    write_scalars(logs, [10, 20])
    (name,) = os.listdir(f"{logs}/train")
    inode = os.stat(f"{logs}/train/{name}").st_ino
    TensorBoardSink(logs).truncate_after(20)
    assert os.stat(f"{logs}/train/{name}").st_ino == inode


def hparams_data(logs, kind):
    """The only record of a kind that the HParams tab reads."""
    values = [value for event in events_in(logs) for value in event.summary.value]
    (value,) = [value for value in values if value.tag == f"_hparams_/{kind}"]
    return plugin_data_pb2.HParamsPluginData.FromString(value.metadata.plugin_data.content)


def test_tensorboard_has_the_config_as_text_and_as_hyperparameters(tmp_path):
    logs = str(tmp_path)
    fields = flatten(default.get_config().to_dict())
    hyperparameters = {name: fields[name] for name in ("optimizer.learning_rate", "data.source", "model.hidden_sizes")}
    sink = TensorBoardSink(logs)
    sink.write_config(fields, hyperparameters, [("test", "rated/mrr"), ("train", "loss")])
    sink.close()

    values = {value.tag: value for event in events_in(logs) for value in event.summary.value}
    text = tf.make_ndarray(values["config"].tensor).item().decode()
    assert "| optimizer.learning_rate | `0.003` |" in text.splitlines()
    assert "| model.hidden_sizes | `()` |" in text.splitlines()
    assert len(text.splitlines()) == 2 + len(fields)

    started = hparams_data(logs, "session_start_info").session_start_info.hparams
    assert set(started) == set(hyperparameters)
    assert started["optimizer.learning_rate"].number_value == 0.003
    assert started["data.source"].string_value == "synthetic"
    assert started["model.hidden_sizes"].string_value == "()"
    experiment = hparams_data(logs, "experiment").experiment
    assert [info.name for info in experiment.hparam_infos] == list(hyperparameters)
    assert [(info.name.group, info.name.tag) for info in experiment.metric_infos] == [
        ("test", "rated/mrr"),
        ("train", "loss"),
    ]


def test_a_resumed_run_shows_its_new_config(logs):
    write_scalars(logs, [10])
    for num_epochs in (10, 20, 30):
        sink = TensorBoardSink(logs)
        fields = {"train.num_epochs": num_epochs, "seed": 0}
        sink.write_config(fields, fields, [("test", "rated/mrr")])
        sink.write_scalars(num_epochs, 1.0, "test", {"rated/mrr": 0.5})
        sink.close()
    hparams = hparams_data(logs, "session_start_info").session_start_info.hparams
    assert hparams["train.num_epochs"].number_value == 30
    assert len(hparams_data(logs, "experiment").experiment.hparam_infos) == 2
    values = [value for event in events_in(logs) for value in event.summary.value if value.tag == "config"]
    (text,) = [tf.make_ndarray(value.tensor).item().decode() for value in values]
    assert "| train.num_epochs | `30` |" in text.splitlines()
    assert scalars_in(f"{logs}/train") == [("loss", 10, 10.0), ("mrr", 10, 0.5)]
    assert [step for tag, step, _ in scalars_in(f"{logs}/test")] == [10, 20, 30]


def test_tensorboards_own_reader_sees_the_new_config(tmp_path):
    logs = str(tmp_path)
    for num_epochs in (10, 20):
        sink = TensorBoardSink(logs)
        sink.write_config({"train.num_epochs": num_epochs}, {"train.num_epochs": num_epochs}, [("test", "rated/mrr")])
        sink.close()
    reader = EventAccumulator(logs)
    reader.Reload()
    content = reader.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    started = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert started.hparams["train.num_epochs"].number_value == 20


def test_the_config_may_be_written_twice_by_one_process(tmp_path):
    sink = TensorBoardSink(str(tmp_path))
    for _ in range(2):
        sink.write_config({"seed": 0}, {"seed": 0}, [("test", "rated/mrr")])
    sink.close()
    assert any(value.tag == "config" for event in events_in(str(tmp_path)) for value in event.summary.value)


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
