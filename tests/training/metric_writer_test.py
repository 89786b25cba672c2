"""What the metric writer passes on, and what each sink except TensorBoard writes."""

import io
import json
import math
import os

import numpy as np
import pytest
from rich.console import Console

from configs import default
from settings.errors import DivergedError, StorageError
from settings.trainer_config import load_trainer_config
from trainer import storage
from trainer.compat import tf
from trainer.evaluation.statistics import Mean
from trainer.training import run as training_run
from trainer.training.metric_writer import ConsoleSink, JsonlSink, MetricWriter, Sink, TuningSink
from trainer.training.tensorboard_sink import TensorBoardSink
from trainer.workdir import Workdir


def tensorboard_sink(folder):
    return TensorBoardSink(str(folder), run_name="runs/mine", main_metric="mrr")


def final_metrics(**metrics):
    """A protocol with these metrics of the model, and those of a baseline, all 0."""
    by_scorer = {
        "model": {name: Mean(value, value, value, 5) for name, value in metrics.items()},
        "popularity": {name: Mean(0.0, 0.0, 0.0, 5) for name in metrics},
    }
    return {"rated": by_scorer}


def json_line(step, split="train", **metrics):
    return json.dumps({"step": step, "epoch": step / 10, "split": split, "metrics": metrics}) + "\n"


@pytest.fixture(params=["local", "ram"])
def jsonl_path(request, tmp_path):
    folder = str(tmp_path) if request.param == "local" else f"ram://{tmp_path.name}"
    tf.io.gfile.makedirs(folder)
    return f"{folder}/metrics.jsonl"


def test_jsonl_has_a_line_per_set_of_metrics_after_a_flush(jsonl_path):
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


def test_jsonl_is_valid_json_if_a_metric_is_not_finite(jsonl_path):
    sink = JsonlSink(jsonl_path)
    sink.write_scalars(1, 0.1, "train", {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 0.5})
    sink.close()

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

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
def test_jsonl_drops_later_steps_and_an_incomplete_line(jsonl_path, torn, step, kept):
    lines = [json_line(10, loss=1.0), json_line(10, "validation", loss=2.0), json_line(20, loss=3.0)]
    storage.write_bytes(jsonl_path, ("".join(lines) + torn).encode())
    sink = JsonlSink(jsonl_path)
    sink.truncate_after(step)
    sink.write_scalars(30, 3, "train", {"loss": 4.0})
    sink.close()
    assert storage.read_bytes(jsonl_path).decode() == "".join(lines[:kept]) + json_line(30, loss=4.0).replace(
        "3.0,", "3,"
    )


def test_jsonl_drops_the_final_metrics_of_the_step_that_it_resumes_after(jsonl_path):
    """They are written again after the same step, or after a later one if epochs were added."""
    kept = [json_line(10, "test", **{"rated/mrr": 0.4}), json_line(20), json_line(20, "validation", mrr=0.5)]
    final = json_line(20, "test", **{"rated/mrr": 0.5, "catalogue/mrr": 0.1})
    storage.write_bytes(jsonl_path, "".join([*kept, final, json_line(30)]).encode())
    JsonlSink(jsonl_path).truncate_after(20)
    assert storage.read_bytes(jsonl_path).decode() == "".join(kept)


def test_jsonl_keeps_the_catalogue_metrics_of_the_validation_that_it_resumes_after(jsonl_path):
    kept = json_line(20, "validation", loss=0.5, **{"catalogue/mrr": 0.4})
    storage.write_bytes(jsonl_path, kept.encode())
    JsonlSink(jsonl_path).truncate_after(20)
    assert storage.read_bytes(jsonl_path).decode() == kept


@pytest.mark.parametrize("line", [b"not JSON\n", b"[1]\n", b"{}\n", b"5\n", b"\xff\n", b'{"step": "1"}\n'])
def test_jsonl_with_a_foreign_line_is_refused_and_left_alone(jsonl_path, line):
    content = json_line(10).encode() + line + json_line(20).encode()
    storage.write_bytes(jsonl_path, content)
    with pytest.raises(StorageError, match=r"metrics.jsonl cannot be continued: .* Move the file elsewhere"):
        JsonlSink(jsonl_path).truncate_after(10)
    assert storage.read_bytes(jsonl_path) == content


def test_without_files_there_is_nothing_to_truncate(tmp_path):
    JsonlSink(str(tmp_path / "metrics.jsonl")).truncate_after(0)
    tensorboard_sink(tmp_path / "logs").truncate_after(0)
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def write(self, content):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.io.gfile.GFile, "write", write)
    sink = JsonlSink(str(tmp_path / "metrics.jsonl"))
    sink.write_scalars(1, 0.1, "train", {"loss": 1.0})
    with pytest.raises(StorageError, match=r"metrics.jsonl cannot be written: No space left"):
        sink.flush()


def test_a_study_gets_each_finite_validation_metric(tmp_path):
    path = tmp_path / "made" / "output.metrics"
    sink = TuningSink(str(path), trial="7", clock=iter([100.5, 200.5]).__next__)
    sink.write_scalars(3, 0.5, "validation", {"loss": 2, "ndcg@10": 0.25})
    # They are there before a flush, because the study reads them during the run.
    assert path.read_text().count("\n") == 2
    sink.write_scalars(3, 0.5, "train", {"ndcg@10": 0.9})
    sink.write_scalars(6, 1.0, "validation", {"loss": math.nan, "mrr": math.inf, "ndcg@10": np.float32(0.5)})
    sink.write_scalars(6, 1.0, "test", {"ndcg@10": 0.1})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"timestamp": 100.5, "trial": "7", "global_step": "3", "loss": "2.0"},
        {"timestamp": 100.5, "trial": "7", "global_step": "3", "ndcg@10": "0.25"},
        {"timestamp": 200.5, "trial": "7", "global_step": "6", "ndcg@10": "0.5"},
    ]


@pytest.mark.parametrize(("split", "expected"), [("validation", {"rated/mrr": "0.5"}), ("test", None)])
def test_a_study_gets_final_metrics_only_of_the_validation_split(tmp_path, split, expected):
    path = tmp_path / "output.metrics"
    TuningSink(str(path), trial="7", clock=lambda: 100.5).write_final_metrics(6, 1.0, split, final_metrics(mrr=0.5))
    lines = path.read_text().splitlines() if path.exists() else []
    common = {"timestamp": 100.5, "trial": "7", "global_step": "6"}
    assert [json.loads(line) for line in lines] == ([common | expected] if expected else [])


def test_jsonl_has_the_final_metrics_of_the_model(jsonl_path):
    sink = JsonlSink(jsonl_path)
    sink.write_final_metrics(6, 1.0, "test", final_metrics(mrr=0.5, ndcg=math.nan))
    sink.close()
    assert storage.read_bytes(jsonl_path).decode() == json_line(
        6, "test", **{"rated/mrr": 0.5, "rated/ndcg": None}
    ).replace('"epoch": 0.6', '"epoch": 1.0')


def test_the_trainer_writes_the_file_of_a_study_only_if_asked(tmp_path, monkeypatch):
    config = load_trainer_config(default.get_config())

    def validate(run):
        writer = training_run._build_writer(
            config, Workdir(str(tmp_path / run)), Console(quiet=True), 0, 10, is_chief=True
        )
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


def console_output(write, *, terminal=False, total_steps=1000, best_metric="ndcg@10"):
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=400, highlight=False)
    sink = ConsoleSink(console, first_step=0, total_steps=total_steps, best_metric=best_metric)
    write(sink)
    sink.close()
    return output.getvalue()


def test_without_a_terminal_the_console_shows_plain_lines():
    def write(sink):
        sink.advance(480, 1234.5)
        metrics = {"loss": 748.123, "ndcg@10": 0.93812, "learning_rate": 0.00012345, "lists_per_second": 39503.6}
        sink.write_scalars(480, 10.0, "train", metrics)
        sink.write_scalars(1000, 20.8333, "validation", {"loss": math.nan})
        sink.write_final_metrics(1000, 20.8333, "test", final_metrics(mrr=0.5))
        sink.write_curves(1000, "train", {"catalogue/ndcg@10": 0.5})

    assert console_output(write) == (
        "step   480  epoch 10     train       loss 748.12  ndcg@10 0.9381  learning_rate 0.0001234  "
        "lists_per_second 39,504\n"
        "step 1,000  epoch 20.83  validation  loss nan\n"
    )


@pytest.mark.parametrize(
    ("best_metric", "of_train", "of_validation"),
    [
        ("catalogue/mrr", "", "  catalogue/mrr 0.2000"),
        ("mrr", "  mrr 0.5000", "  mrr 0.4000"),
        ("loss", "", ""),
    ],
)
def test_the_console_shows_the_loss_and_the_metric_that_selects_the_best_checkpoint(
    best_metric, of_train, of_validation
):
    of_catalogue = {"catalogue/ndcg": 0.3, "catalogue/mrr": 0.2}

    def write(sink):
        pace = {"learning_rate": 0.001, "lists_per_second": 9000.0}
        sink.write_scalars(10, 1.0, "train", {"loss": 2.0, "ndcg": 0.7, "mrr": 0.5, **pace})
        sink.write_scalars(10, 1.0, "validation", {"loss": 3.0, "ndcg": 0.6, "mrr": 0.4, **of_catalogue})

    assert console_output(write, total_steps=20, best_metric=best_metric) == (
        f"step 10  epoch 1      train       loss 2.0000{of_train}  learning_rate 0.001  lists_per_second 9,000\n"
        f"step 10  epoch 1      validation  loss 3.0000{of_validation}\n"
    )


def test_on_a_terminal_a_bar_shows_step_and_rate():
    def write(sink):
        sink.advance(250, 4321.0)
        sink._progress.refresh()

    shown = console_output(write, terminal=True)
    assert "step 250 of 1,000" in shown
    assert "4,321 steps/s" in shown


def test_on_a_terminal_the_rate_is_shown_once_it_is_known():
    def write(sink):
        sink.advance(250, math.nan)
        sink._progress.refresh()

    shown = console_output(write, terminal=True)
    assert "step 250 of 1,000" in shown
    assert "steps/s" not in shown


def test_on_a_terminal_other_work_has_a_bar_beside_that_of_the_steps():
    def write(sink):
        advance = sink.progress("users", 30)
        advance(10)
        sink._progress.refresh()

    shown = console_output(write, terminal=True)
    assert "users 10 of 30" in shown
    assert "step 0 of 1,000" in shown


def test_progress_reaches_every_sink():
    received = []

    class Listener(Sink):
        def progress(self, what, total):
            return lambda number: received.append((what, total, number))

    advance = MetricWriter([Listener(), Sink(), Listener()]).progress("users", 3)
    advance(2)
    assert received == [("users", 3, 2)] * 2


def test_every_sink_receives_every_call():
    calls = {
        "write_scalars": (1, 0.1, "train", {"loss": 1.0}),
        "write_text": (1, "train", "tag", "text"),
        "write_final_metrics": (1, 0.1, "test", {}),
        "write_curves": (1, "train", {"mrr": 1.0}),
        "write_histograms": (1, "train", {"scores": np.zeros([1, 3])}),
        "write_config": ({"seed": 0, "list_size": 9}, {"seed": 0}),
        "advance": (1, 2.0),
        "progress": ("users", 3),
        "truncate_after": (1,),
        "flush": (),
        "close": (),
    }
    assert set(calls) == {name for name in vars(Sink) if not name.startswith("_")}
    received = []

    class Listener(Sink):
        def __init__(self, name):
            self.name = name

    for method in calls:
        setattr(Listener, method, lambda self, *values, method=method: received.append((self.name, method, values)))
    writer = MetricWriter([Listener("first"), Listener("second")])
    for method, values in calls.items():
        getattr(writer, method)(*values)
    assert received == [(name, method, values) for method, values in calls.items() for name in ("first", "second")]


class Recorder(Sink):
    """Records when it is closed, and then fails if it has an error."""

    def __init__(self, closed, error=None):
        self.closed, self.error = closed, error

    def close(self):
        self.closed.append(self)
        if self.error:
            raise self.error


def test_the_writer_closes_its_sinks_at_the_end_of_the_with_block():
    closed = []
    with MetricWriter([Recorder(closed), Recorder(closed)]) as writer:
        assert isinstance(writer, MetricWriter) and not closed
    assert len(closed) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt(), DivergedError("diverged"), StorageError("disk full")])
def test_after_an_error_all_sinks_are_closed_and_that_error_is_reported(error):
    closed = []
    sinks = [Recorder(closed), Recorder(closed, StorageError("the disk is still full")), Recorder(closed)]
    with pytest.raises(type(error)) as raised, MetricWriter(sinks):
        raise error
    assert raised.value is error
    assert closed == sinks


@pytest.mark.parametrize("terminal", [False, True])
def test_all_sinks_may_be_closed_twice(tmp_path, terminal):
    """The run closes its writer before it writes the result, and the with block closes it again."""
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=100)
    tensorboard, jsonl = tensorboard_sink(tmp_path), JsonlSink(str(tmp_path / "metrics.jsonl"))
    with MetricWriter(
        [tensorboard, jsonl, ConsoleSink(console, first_step=0, total_steps=10, best_metric="loss")]
    ) as writer:
        writer.write_scalars(5, 0.5, "test", {"loss": 1.0})
        writer.close()
        first = output.getvalue(), (tmp_path / "metrics.jsonl").read_text()
    assert (output.getvalue(), (tmp_path / "metrics.jsonl").read_text()) == first
    assert first[1].count("\n") == 1


def test_an_error_in_closing_is_reported_after_all_sinks_are_closed():
    closed = []
    sinks = [Recorder(closed), Recorder(closed, StorageError("the disk is full")), Recorder(closed)]
    with pytest.raises(StorageError, match="the disk is full"), MetricWriter(sinks):
        pass
    assert closed == sinks


HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), DivergedError("diverged"), StorageError("disk full")])
def test_after_an_error_the_cursor_is_visible(tmp_path, error):
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=100)
    jsonl = JsonlSink(str(tmp_path / "no folder" / "metrics.jsonl"))  # Closing it fails.
    with (
        pytest.raises(type(error)),
        MetricWriter([jsonl, ConsoleSink(console, first_step=0, total_steps=10, best_metric="loss")]) as writer,
    ):
        writer.advance(5, 100.0)
        writer.write_scalars(5, 0.5, "train", {"loss": 1.0})
        raise error
    shown = output.getvalue()
    assert HIDE_CURSOR in shown and shown.rindex(SHOW_CURSOR) > shown.rindex(HIDE_CURSOR)
