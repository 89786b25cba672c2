"""Final metrics as plain values and as tables."""

import json

import numpy as np

from settings.cli import build_console
from trainer.evaluation import final_metrics
from trainer.evaluation.statistics import Mean

MEANS = {
    "rated": {
        "model": {"mrr": Mean(0.5, 0.4, 0.6, 1471, 12), "ndcg": Mean(0.75, 0.7, 0.8, 1483)},
        "random": {"mrr": Mean(0.25, 0.2, 0.3, 1471, 12), "ndcg": Mean(0.5, 0.45, 0.55, 1483)},
    },
    "catalogue": {"model": {"mrr": Mean(0.125, np.nan, np.nan, 1)}, "random": {"mrr": Mean(0.1, 0.05, 0.25, 1)}},
}


def test_metrics_survive_json():
    values = final_metrics.to_json(MEANS)
    assert values["rated"]["model"]["mrr"] == {
        "value": 0.5,
        "low": 0.4,
        "high": 0.6,
        "num_lists": 1471,
        "num_left_out": 12,
    }
    values["catalogue"]["model"]["mrr"] |= {"low": None, "high": None}  # As result.json has it.
    again = final_metrics.from_json(json.loads(json.dumps(values)))
    assert again["rated"] == MEANS["rated"]
    assert np.isnan(again["catalogue"]["model"]["mrr"].low) and again["catalogue"]["model"]["mrr"].value == 0.125


def test_scalars_are_those_of_the_model():
    assert final_metrics.final_scalars(MEANS) == {"rated/mrr": 0.5, "rated/ndcg": 0.75, "catalogue/mrr": 0.125}


def test_tables_say_what_the_numbers_are(capsys):
    final_metrics.print_protocols(build_console(), "test", MEANS)
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert " ".join(lines[0]) == (
        "test, rated: 1,471 to 1,483 lists; 12 without a relevant item left out (± half of the 95% interval)"
    )
    assert lines[1:4] == [
        ["mrr", "ndcg"],
        ["model", "0.5000", "±", "0.1000", "0.7500", "±", "0.0500"],
        ["random", "0.2500", "±", "0.0500", "0.5000", "±", "0.0500"],
    ]
    assert " ".join(lines[4]) == "test, catalogue: 1 lists (± half of the 95% interval)"
    assert lines[6] == ["model", "0.1250"]


def test_recommendations_have_a_row_per_scorer(capsys):
    final_metrics.print_recommendations(build_console(), "test", {})
    assert capsys.readouterr().out == ""
    found = {"model": {"coverage@10": 0.25, "mean_popularity@10": 1234.5}}
    final_metrics.print_recommendations(build_console(), "test", found)
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[1:] == [["coverage@10", "mean_popularity@10"], ["model", "0.25", "1,234"]]
