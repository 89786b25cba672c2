"""What the TensorBoard sink writes, read back as raw events and by TensorBoard's own readers."""

import os
import subprocess

import numpy as np
import pytest
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.data.provider import ListHyperparametersResult
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.plugins.hparams.backend_context import Context
from tensorflow.core.util import event_pb2

from configs import default
from settings.errors import StorageError
from trainer.compat import tf
from trainer.config import flatten
from trainer.evaluation.statistics import Mean
from trainer.training.tensorboard_sink import TensorBoardSink, run_name_of


def build_sink(logs, run_name="runs/mine"):
    return TensorBoardSink(str(logs), run_name=run_name, main_metric="catalogue/mrr")


def test_a_full_disk_is_named_for_tensorboard_too(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting a small disk takes root")
    try:
        sink = build_sink(disk / "logs")
        with pytest.raises(StorageError, match=r"logs/train cannot be written: /.*No space left on device\. Make room"):
            for step in range(2000):
                sink.write_scalars(step, 0.1, "train", {"loss": 1.0})
                sink.flush()
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_folder_of_logs_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "logs").write_text("a file")
    with pytest.raises(StorageError, match=r"logs/train cannot be written: /.* is not a directory"):
        build_sink(tmp_path / "logs").write_scalars(1, 0.1, "train", {"loss": 1.0})


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
        (value.tag.split("/", 1)[1], event.step, float(tf.make_ndarray(value.tensor)))
        for event in events_in(folder)
        for value in event.summary.value
        if value.metadata.plugin_data.plugin_name == "scalars" or value.metadata.plugin_data.plugin_name == ""
    )


@pytest.fixture(params=["local", "ram"])
def logs(request, tmp_path):
    return str(tmp_path / "logs") if request.param == "local" else f"ram://{tmp_path.name}/logs"


def write_scalars(logs, steps, offset=0.0):
    sink = build_sink(logs)
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
    sink = build_sink(logs)
    sink.write_scalars(1, 0.1, "test", {"loss": 0.25})
    sink.flush()
    assert scalars_in(f"{logs}/test") == [("loss", 1, 0.25)]


@pytest.mark.parametrize("step", [0, 10, 15, 20, 30])
def test_after_a_resume_tensorboard_has_one_value_per_step(logs, step):
    write_scalars(logs, [10, 20, 30])
    resumed = build_sink(logs)
    resumed.truncate_after(step)
    taken_again = [again for again in (10, 20, 30, 40) if again > step]
    write_scalars(logs, taken_again, offset=0.5)
    expected = [float(kept) for kept in (10, 20, 30) if kept <= step] + [again + 0.5 for again in taken_again]
    assert [value for tag, _, value in scalars_in(f"{logs}/train") if tag == "loss"] == expected
    steps = [kept for kept in (10, 30) if kept <= step] + taken_again[::2]
    assert [at for _, at, _ in scalars_in(f"{logs}/validation")] == steps
    assert all("truncated" not in name for name in tf.io.gfile.listdir(f"{logs}/train"))


def test_the_catalogue_metrics_of_the_validation_that_it_resumes_after_are_kept(logs):
    sink = build_sink(logs)
    sink.write_scalars(20, 1.0, "validation", {"catalogue/mrr": 0.5})
    sink.close()
    build_sink(logs).truncate_after(20)
    assert scalars_in(f"{logs}/validation") == [("catalogue/mrr", 20, 0.5)]


def test_the_final_metrics_that_an_earlier_version_wrote_are_dropped(tmp_path):
    """It wrote those of the test to LOGS/test, and those of the validation to LOGS/validation."""
    for split, tag in (("test", "catalogue/mrr"), ("validation", "rated/mrr"), ("validation", "catalogue/mrr")):
        with tf.summary.create_file_writer(str(tmp_path / split)).as_default(step=20):
            tf.summary.scalar(tag, 0.5)
    build_sink(tmp_path).truncate_after(20)
    assert scalars_in(tmp_path / "validation") == [("mrr", 20, 0.5)]
    assert scalars_in(tmp_path / "test") == []


@pytest.mark.parametrize("cut", [1, 5, 30])
@pytest.mark.parametrize("step", [30, 20])
def test_an_incomplete_record_is_dropped(tmp_path, cut, step):
    logs = str(tmp_path)
    sink = build_sink(logs)
    for at in (10, 20, 30):
        sink.write_scalars(at, at / 10, "train", {"loss": float(at)})
    sink.close()
    (name,) = os.listdir(f"{logs}/train")
    path = f"{logs}/train/{name}"
    os.truncate(path, os.path.getsize(path) - cut)
    with pytest.raises(tf.errors.DataLossError):
        scalars_in(f"{logs}/train")
    build_sink(logs).truncate_after(step)
    assert scalars_in(f"{logs}/train") == [("loss", 10, 10.0), ("loss", 20, 20.0)]


def test_a_file_with_nothing_to_remove_is_not_rewritten(tmp_path):
    logs = str(tmp_path)
    write_scalars(logs, [10, 20])
    (name,) = os.listdir(f"{logs}/train")
    inode = os.stat(f"{logs}/train/{name}").st_ino
    build_sink(logs).truncate_after(20)
    assert os.stat(f"{logs}/train/{name}").st_ino == inode


def hparams_data(logs, kind):
    """The only record of a kind that the HParams tab reads."""
    values = [value for event in events_in(logs) for value in event.summary.value]
    (value,) = [value for value in values if value.tag == f"_hparams_/{kind}"]
    return plugin_data_pb2.HParamsPluginData.FromString(value.metadata.plugin_data.content)


def hparams_of(logs):
    return hparams_data(logs, "session_start_info").session_start_info


def texts_in(folder, tag):
    values = [value for event in events_in(folder) for value in event.summary.value if value.tag == tag]
    return [tf.make_ndarray(value.tensor).item().decode() for value in values]


def test_tensorboard_has_the_config_as_text_and_as_hyperparameters(tmp_path):
    fields = flatten(default.get_config().to_dict())
    hyperparameters = {name: fields[name] for name in ("optimizer.learning_rate", "data.source", "model.hidden_sizes")}
    sink = build_sink(tmp_path, run_name="tune/trials/0007")
    sink.write_config(fields, hyperparameters)
    sink.close()

    (text,) = texts_in(tmp_path, "3_config")
    assert "| optimizer.learning_rate | `0.003` |" in text.splitlines()
    assert "| model.hidden_sizes | `()` |" in text.splitlines()
    assert len(text.splitlines()) == 2 + len(fields)

    started = hparams_of(tmp_path)
    assert started.group_name == "tune/trials/0007"
    assert set(started.hparams) == set(hyperparameters)
    assert started.hparams["optimizer.learning_rate"].number_value == 0.003
    assert started.hparams["data.source"].string_value == "synthetic"
    assert started.hparams["model.hidden_sizes"].string_value == "()"


FINAL = {
    "catalogue": {
        "model": {"mrr": Mean(0.5, 0.4, 0.6, 5), "ndcg": Mean(0.25, 0.2, 0.3, 5)},
        "popularity": {"mrr": Mean(0.125, 0.1, 0.2, 5), "ndcg": Mean(0.0, 0.0, 0.0, 5)},
    }
}


def test_final_metrics_are_a_table_and_values_for_hparams(logs):
    """The baselines have the main metric alone."""
    sink = build_sink(logs)
    sink.write_final_metrics(30, 1.0, "test", FINAL)
    sink.close()
    (table,) = texts_in(logs, "1_final_metrics")
    assert table.splitlines() == [
        "**test, catalogue: 5 lists (± half of the 95% interval)**",
        "",
        "| | mrr | ndcg |",
        "| --- | ---: | ---: |",
        "| model | 0.5000 ± 0.1000 | 0.2500 ± 0.0500 |",
        "| popularity | 0.1250 ± 0.0500 | 0.0000 ± 0.0000 |",
    ]
    assert scalars_in(logs) == [
        ("catalogue/mrr/model", 30, 0.5),
        ("catalogue/mrr/popularity", 30, 0.125),
        ("catalogue/ndcg", 30, 0.25),
    ]


def test_tags_sort_as_the_views_of_tensorboard_need(tmp_path):
    sink = build_sink(tmp_path)
    metrics = ("loss", "relative_loss", "mrr", "catalogue/mrr", "learning_rate", "lists_per_second")
    sink.write_scalars(30, 1.0, "validation", dict.fromkeys(metrics, 0.5))
    sink.write_final_metrics(30, 1.0, "test", FINAL)
    sink.close()
    tags = [
        value.tag
        for folder in (tmp_path / "validation", tmp_path)
        for event in events_in(folder)
        for value in event.summary.value
        if value.metadata.plugin_data.plugin_name == "scalars"
    ]
    # Time Series sorts numbers by value, and opens the first two groups.
    groups = sorted({int(tag.split("_")[0]) for tag in tags})
    by_group = {group: {tag.split("/", 1)[1] for tag in tags if tag.startswith(f"{group}_")} for group in groups}
    assert by_group == {
        1: {"relative_loss", "catalogue/mrr"},
        2: {"mrr"},
        3: {"loss", "learning_rate", "lists_per_second"},
        10: {"catalogue/mrr/model", "catalogue/mrr/popularity"},
        11: {"catalogue/ndcg"},
    }
    # HParams sorts as text.
    assert sorted(tags)[0] == "10_final/catalogue/mrr/model"


def test_histograms_are_read_by_tensorboard(tmp_path):
    sink = build_sink(tmp_path)
    buckets = np.array([[0.0, 0.5, 3.0], [0.5, 1.0, 4.0]])
    sink.write_histograms(20, "validation", {"scores": buckets})
    sink.close()
    reader = EventAccumulator(str(tmp_path / "validation"))
    reader.Reload()
    (found,) = reader.Tensors("scores")
    assert found.step == 20
    np.testing.assert_array_equal(tf.make_ndarray(found.tensor_proto), buckets)
    assert reader.SummaryMetadata("scores").plugin_data.plugin_name == "histograms"


def test_a_resume_drops_all_that_is_written_again(logs):
    for first_step in (10, 20):
        sink = build_sink(logs)
        sink.truncate_after(first_step - 10)
        for step in range(first_step, 40, 10):
            sink.write_curves(step, "train", {"catalogue/mrr": 0.5})
            sink.write_histograms(step, "validation", {"scores": np.ones([1, 3])})
            sink.write_text(step, "validation", "recommendations", "| a |")
        sink.close()
    assert [step for _, step, _ in scalars_in(f"{logs}/train")] == [10, 20, 30]
    steps = {"scores": [], "2_recommendations": []}
    for event in events_in(f"{logs}/validation"):
        for value in event.summary.value:
            steps[value.tag].append(event.step)
    assert steps == {"scores": [10, 20, 30], "2_recommendations": [10, 20, 30]}


def test_a_resumed_run_shows_its_new_config_and_no_result_of_an_earlier_end(logs):
    write_scalars(logs, [10])
    for num_epochs in (10, 20, 30):
        sink = build_sink(logs)
        fields = {"train.num_epochs": num_epochs, "seed": 0}
        sink.write_config(fields, fields)
        if num_epochs < 30:
            sink.write_final_metrics(num_epochs, 1.0, "test", FINAL)
        sink.close()
    assert hparams_of(logs).hparams["train.num_epochs"].number_value == 30
    (text,) = texts_in(logs, "3_config")
    assert "| train.num_epochs | `30` |" in text.splitlines()
    assert texts_in(logs, "1_final_metrics") == [] and scalars_in(logs) == []
    assert scalars_in(f"{logs}/train") == [("loss", 10, 10.0), ("mrr", 10, 0.5)]


def test_tensorboard_puts_the_fields_that_differ_first(tmp_path):
    """As its HParams tab asks for them, over all runs of a folder. A run with `hparams_config` would prevent it."""
    for name, rate in (("a", 0.1), ("b", 0.2)):
        fields = {"data.source": "synthetic", "optimizer.learning_rate": rate, "seed": 0}
        sink = build_sink(tmp_path / name / "logs", run_name=name)
        sink.write_config(fields, fields)
        sink.write_scalars(10, 1.0, "validation", {"mrr": rate})
        sink.write_final_metrics(10, 1.0, "test", FINAL)
        sink.close()
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(tmp_path))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(tmp_path))
    context = Context(TBContext(data_provider=provider))
    metadata = context.hparams_metadata(RequestContext(), "")
    experiment = context.experiment_from_metadata(
        RequestContext(), "", True, metadata, ListHyperparametersResult(hyperparameters=[], session_groups=[])
    )
    fields = [(info.name, info.differs) for info in experiment.hparam_infos]
    assert fields == [("optimizer.learning_rate", True), ("data.source", False), ("seed", False)]
    metrics = [(metric.name.group, metric.name.tag) for metric in experiment.metric_infos]
    assert metrics == [
        ("", "10_final/catalogue/mrr/model"),
        ("", "10_final/catalogue/mrr/popularity"),
        ("", "11_final/catalogue/ndcg"),
        ("validation", "2_metrics/mrr"),
    ]


@pytest.mark.parametrize(
    ("workdir", "name"),
    [
        ("runs/mine", "runs/mine"),
        ("mine/", "mine"),
        ("./mine", "mine"),
        ("/home/me/runs/mine", "runs/mine"),
        ("gs://bucket/mine", "bucket/mine"),
        ("/runs/tune/trials/0007", "tune/trials/0007"),
        ("trials/0007", "trials/0007"),
    ],
)
def test_a_run_is_named_by_its_workdir(workdir, name):
    assert run_name_of(workdir) == name


def test_the_config_may_be_written_twice_by_one_process(tmp_path):
    sink = build_sink(tmp_path)
    for _ in range(2):
        sink.write_config({"seed": 0}, {"seed": 0})
    sink.close()
    assert texts_in(str(tmp_path), "3_config")


def test_tensorboards_own_reader_sees_texts_beside_scalars(tmp_path):
    sink = build_sink(tmp_path)
    sink.write_text(20, "validation", "recommendations", "| a |\n| - |")
    sink.write_scalars(20, 2.0, "validation", {"mrr": 0.75})
    sink.close()
    reader = EventAccumulator(str(tmp_path / "validation"))
    reader.Reload()
    (text,) = reader.Tensors("2_recommendations")
    assert (text.step, tf.make_ndarray(text.tensor_proto).item()) == (20, b"| a |\n| - |")
    (scalar,) = reader.Tensors("2_metrics/mrr")
    assert (scalar.step, tf.make_ndarray(scalar.tensor_proto).item()) == (20, 0.75)
