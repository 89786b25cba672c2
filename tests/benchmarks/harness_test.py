"""What the benchmarks share: processes, counts, planted data, the stopwatch of the whole job."""

import json
import os

import numpy as np
import pytest

from benchmarks import counts, harness, reading, recommending
from benchmarks.planted import build_planted_dataset
from benchmarks.ratings_file import write_ratings
from benchmarks.whole_job import Stopwatch
from settings.errors import DataError


def test_a_side_runs_in_a_process_of_its_own_with_its_environment(monkeypatch):
    outcome = harness.run_side("os:getenv", environment={"OF_THE_SIDE": "1"}, key="OF_THE_SIDE")
    assert outcome.value == "1"
    assert outcome.peak_bytes > 1 << 20


def test_the_error_of_a_side_is_raised():
    with pytest.raises(harness.SideFailed, match=r"step_flops failed: (?s:.*)unexpected keyword argument 'colour'"):
        harness.run_side("benchmarks.counts:step_flops", colour=1)


def test_a_report_ends_with_one_json_line(capsys):
    harness.report("planted", ("side", "seconds"), [("ours", "1.0")], notes=["Install .[peers]."], seconds=[1.25])
    *table, line = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {"benchmark": "planted", "device": harness.device_name(), "seconds": [1.25]}
    assert any("ours" in row and "1.0" in row for row in table)
    assert "Install .[peers]." in table


def test_the_device_has_the_processor_and_the_gpus(tmp_path):
    (tmp_path / "cpuinfo").write_text(
        "processor\t: 0\nmodel name\t: A CPU: 2\nprocessor\t: 1\nmodel name\t: A CPU: 2\n"
    )
    assert harness.device_name(tmp_path) == f"A CPU: 2, {os.cpu_count()} cores"
    for number in "01":
        gpu = tmp_path / "driver/nvidia/gpus" / number
        gpu.mkdir(parents=True)
        (gpu / "information").write_text(f"Model: \t\t GPU {number}\nIRQ:   \t\t 1\n")
    assert harness.device_name(tmp_path) == f"A CPU: 2, {os.cpu_count()} cores and GPU 0 and GPU 1"


def test_counts_of_a_step():
    sizes = {"batch_size": 2, "list_size": 3, "size": 5, "num_updated_rows": 7}
    # For each of 30 numbers of entries: 3 multiplications and additions; for each of 35 updated numbers: 7.
    assert counts.step_flops(**sizes) == 30 * 6 + 35 * 7
    assert counts.step_bytes(**sizes) == 4 * (30 * 3 + 35 * 6)


@pytest.mark.parametrize("num_replicas", [1, 2, 4])
def test_all_reduce_bytes_are_those_of_a_ring(num_replicas):
    num_numbers = 12
    part = num_numbers // num_replicas
    # R − 1 rounds that add parts up and R − 1 that pass the sums on. Each sends one part of 4-byte numbers.
    sent = sum(4 * part for _ in range(2 * (num_replicas - 1)))
    assert counts.all_reduce_bytes(num_replicas=num_replicas, num_numbers=num_numbers) == sent


def test_a_phase_does_not_count_the_phases_within_it():
    now = [0.0]
    stopwatch = Stopwatch(clock=lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    inner = stopwatch.watch(lambda: wait(2.0), lambda: "inner")

    def twice_and_more():
        inner()
        wait(1.0)
        inner()

    stopwatch.watch(twice_and_more, lambda: "outer")()
    assert stopwatch.seconds == {"inner": 4.0, "outer": 1.0}
    assert stopwatch.calls == {"inner": 2, "outer": 1}


def test_planted_lists_are_full_and_mostly_of_few_items():
    dataset = build_planted_dataset(num_users=50, num_items=1000, list_size=20, history_size=30)
    features = dataset.lists["train"].gather(np.arange(dataset.lists["train"].num_lists))
    assert features["items"].shape == (100, 20)
    assert features["items"].min() >= 1
    assert features["items"].max() <= 1000
    assert np.median(features["items"]) < 100  # The logarithm of the rank is uniform, so half are below √1000.
    assert features["history"].shape == (100, 30)
    counted = dataset.vocabulary.items["num_ratings"].to_numpy()
    np.testing.assert_array_equal(counted, np.bincount(features["items"].reshape(-1), minlength=1001))


def test_reading_makes_the_lists_of_a_file(tmp_path):
    path = str(tmp_path / "ratings.csv")
    write_ratings(path, 5000, num_users=100, num_items=400)
    sizes = np.unique(np.genfromtxt(path, delimiter=",", names=True)["user_id"], return_counts=True)[1]
    assert reading.read(path)["num_lists"] == sum(-(-sizes // 100))


def test_other_recommendations_are_refused(tmp_path):
    items = np.arange(100).reshape(10, 10)
    np.save(tmp_path / "ours.npy", items)
    np.save(tmp_path / "implicit.npy", items)
    recommending.check_same(str(tmp_path))
    items[3, 0] = 7
    np.save(tmp_path / "implicit.npy", items)
    with pytest.raises(DataError, match="different items to 10"):
        recommending.check_same(str(tmp_path))
