"""What is gathered from the files of a planted run: numbers that are known."""

import json
import math

import pytest

from configs import default
from settings.errors import StorageError
from tests.reporting.planted import LINES, QUALITY, write_run
from trainer import storage
from trainer.reporting.comparing import compare
from trainer.reporting.contents import differences_from_baselines, gather
from trainer.reporting.curves import load_curves
from trainer.reporting.limits import limits_of


def test_the_files_of_a_run_are_told_as_they_are(tmp_path):
    config = default.get_config()
    config.train.num_epochs = 7
    found = gather(write_run(tmp_path / "mine", config=config))
    assert found.name == "mine" and (found.step, found.exported_step, found.split) == (40, 30, "test")
    assert found.data.dropped == {
        "earlier rows of the same user and item": 7,
        "bad: the rating is out of range": 3,
    }
    assert [(split.name, split.num_ratings, split.num_unknown) for split in found.data.splits] == [
        ("train", 800, 0),
        ("validation", 100, 0),
        ("test", 97, 3),
    ]
    assert (found.data.splits[0].first_day, found.data.splits[2].last_day) == ("1970-01-01", "1970-01-11")
    different = {field.name: (field.value, field.default, field.chosen) for field in found.fields if field.is_different}
    assert different == {"train.num_epochs": ("7", "0", ""), "model.embedding_size": ("0", "0", "128")}


def test_the_differences_are_those_of_the_planted_qualities(tmp_path):
    found = gather(write_run(tmp_path / "mine"))
    for protocol, scorers in QUALITY.items():
        differences = differences_from_baselines(found.queries[protocol])
        assert list(differences) == [scorer for scorer in scorers if scorer != "model"]
        for baseline, of_baseline in differences.items():
            expected = scorers["model"] - scorers[baseline]
            assert of_baseline["ndcg@10"].value == pytest.approx(expected, abs=1e-6)
            assert of_baseline["mrr"].value == pytest.approx(expected / 2, abs=1e-6)
            assert of_baseline["ndcg@10"].mean_b == pytest.approx(found.protocols[protocol]["model"]["ndcg@10"].value)


def test_the_curves_have_the_loss_and_the_metric_that_chose_the_step(tmp_path):
    found = gather(write_run(tmp_path / "mine")).curves
    assert [curve.name for curve in found.curves] == [
        "training loss",
        "validation loss",
        "validation catalogue/ndcg@10",
    ]
    assert found.curves[0].epochs == (1, 2, 3, 4) and found.curves[0].values == (90, 45, 30, 22.5)
    assert found.curves[2].values[-1] == pytest.approx(0.475) and found.exported_epoch == pytest.approx(3)


def test_final_metrics_are_no_point_of_a_curve_and_gaps_are_left_out(tmp_path):
    final = {"step": 40, "epoch": 4.0, "split": "validation", "metrics": {"catalogue/ndcg@10": 0.99}}
    broken = {"step": 15, "epoch": 1.5, "split": "train", "metrics": {"loss": None}}
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in [LINES[0], broken, *LINES[1:], final]))
    found = load_curves(str(path), best_metrics=["catalogue/ndcg@10"], exported_step=20)
    assert [len(curve.values) for curve in found.curves] == [4, 4, 4] and max(found.curves[2].values) < 0.5
    assert [curve.name for curve in load_curves(str(path), best_metrics=["loss"], exported_step=1).curves] == [
        "training loss",
        "validation loss",
    ]
    few = load_curves(str(path), best_metrics=["loss"], exported_step=1, max_points=2).curves[0]
    assert few.epochs == (1, 4)
    missing = load_curves(str(tmp_path / "none"), best_metrics=["loss"], exported_step=0)
    assert missing.curves == () and math.isnan(missing.exported_epoch)
    path.write_text("{")
    with pytest.raises(StorageError, match=r"metrics\.jsonl cannot be read as the JSON"):
        load_curves(str(path), best_metrics=["loss"], exported_step=1)


def limits(tmp_path, **options):
    return " ".join(limits_of(gather(write_run(tmp_path / "run", **options))))


def test_the_limits_follow_from_the_run(tmp_path):
    found = limits(tmp_path)
    assert "put given items in the order in which a user will like them: it is no better than the item mean" in found
    assert "Do not use it to recommend" not in found and "synthetic" not in found
    # The planted model is worse than popularity for users with few ratings only.
    assert "for users with 1 to 10 ratings: for them, popularity is at least as good (ndcg@10 0.1500 against" in found
    assert "users with 11" not in found
    assert "in the test, 10% of the items were recommended" in found
    assert "the catalogue metrics come from 60 lists" in found
    assert "ratings were held out at random" in found and "from 1970-01-01 to 1970-01-11" in found
    assert "ranks the 40 items of the training ratings" in found and "without a history" in found
    assert "Do not publish this page" in found


@pytest.mark.parametrize(
    ("options", "present", "absent"),
    [
        ({"source": "synthetic"}, "its ratings are synthetic", "no ratings"),
        ({"split": None}, "this run held out no ratings", "an experiment with users"),
        ({"split": "validation"}, "there was no test split", "held out no ratings"),
        ({"quality": {"rated": QUALITY["rated"]}}, "from the catalogue before this was measured", "at least as good"),
        (
            {"quality": {"catalogue": QUALITY["catalogue"]}, "has_ratings": False},
            "each event counts as liked",
            "put given items",
        ),
        ({"periods": {}}, "no others", "1970"),
        (
            {"quality": {"catalogue": {"model": -0.2, "popularity": 0.0, "random": -0.3}}},
            "recommend items from the catalogue: it is worse than popularity, which needs no model",
            "at least as good",
        ),
        (
            {"quality": {"catalogue": {"model": 0.2, "random": 0.0}}},
            "from the catalogue: the test does not tell whether it is any good",
            "it is better",
        ),
    ],
)
def test_the_limits_of_other_runs(tmp_path, options, present, absent):
    found = limits(tmp_path, **options)
    assert present in found and absent not in found


def test_a_split_by_time_is_a_forecast(tmp_path):
    config = default.get_config()
    config.split.method = "time"
    config.history.encoder = "none"
    config.model.query_embedding = True
    found = limits(tmp_path, config=config)
    assert "forecast" not in found and "it knows 60 users by their ids" in found


def test_runs_are_compared_with_the_first_one_and_the_best_with_the_next(tmp_path):
    qualities = {"a": 0.0, "b": 0.1, "c": 0.2}
    runs = [
        write_run(tmp_path / name, quality={"catalogue": {**QUALITY["catalogue"], "model": quality}})
        for name, quality in qualities.items()
    ]
    found = compare(runs)
    (protocol,) = found.protocols
    assert protocol.metric == "ndcg@10" and list(protocol.means) == ["A", "B", "C"]
    assert list(protocol.baselines) == ["popularity", "item_mean", "random"]
    values = {letter: differences["ndcg@10"].value for letter, differences in protocol.differences.items()}
    assert values == {"B": pytest.approx(0.1, abs=1e-6), "C": pytest.approx(0.2, abs=1e-6)}
    mean = {letter: metrics["ndcg@10"] for letter, metrics in protocol.means.items()}
    clause = f"recommends better than {{}}, the next of 3 runs (catalogue ndcg@10 {mean['C']} against"
    assert found.sentence.startswith(f"Verdict: {runs[2]} {clause.format(runs[1])} {mean['B'].value:.4f}).")
    assert found.headline.startswith(f"C {clause.format('B')}")
    assert protocol.best == {"ndcg@10": ["C"], "mrr": ["C"]} and found.fields == ()


def test_runs_that_chose_by_different_metrics_have_the_curves_of_both(tmp_path):
    config = default.get_config()
    config.eval.best_metric = "mrr"
    lines = [{**line, "metrics": {**line["metrics"], "mrr": 0.3}} for line in LINES]
    runs = [write_run(tmp_path / "a", lines=lines), write_run(tmp_path / "b", config=config, lines=lines)]
    names = ["training loss", "validation loss", "validation catalogue/ndcg@10", "validation mrr"]
    assert [[curve.name for curve in run.contents.curves.curves] for run in compare(runs).runs] == [names, names]


def test_only_fields_that_differ_are_compared(tmp_path):
    config = default.get_config()
    config.seed = 7
    config.data.source = "other.csv"
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", config=config)]
    assert {field.name: field.values for field in compare(runs).fields} == {
        "seed": ("0", "7"),
        "data.source": ("'synthetic'", "'other.csv'"),
    }


def test_a_damaged_result_is_refused(tmp_path):
    run = write_run(tmp_path / "run")
    storage.write_bytes(f"{run}/result.json", b'{"format_version": 5, "step": 3}')
    with pytest.raises(StorageError, match=r"result\.json cannot be read as the JSON that a run writes"):
        gather(run)
