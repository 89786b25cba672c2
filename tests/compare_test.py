"""trainer.compare on planted metrics: differences that are known, and runs that must not be compared."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from settings.errors import ConfigError, StorageError
from trainer import compare, storage
from trainer.data.vocabulary import Vocabulary
from trainer.evaluation import comparison
from trainer.evaluation.query_metrics import QueryMetrics, write_queries
from trainer.evaluation.statistics import ListMetrics
from trainer.workdir import Workdir

NUM_USERS = 60
VOCABULARY = Vocabulary(users=pa.table({"user_id": [f"u{i}" for i in range(NUM_USERS + 1)]}), items=pa.table({}))
TEST_SET = {"users": "1", "held-out items": "2", "candidates": "3"}
# Users differ much more than scorers.
OF_USER = np.random.default_rng(0).uniform(0.2, 0.7, NUM_USERS)
NOISE = np.random.default_rng(1).normal(0, 0.02, NUM_USERS)
SCALES = {"ndcg@10": 1, "arp": 1, "mrr": 3, "recall@5": 4}
# What result.json must have, whatever a comparison needs of it.
RESULT = {
    "warnings": [],
    "step": 1,
    "exported_step": 1,
    "train": {},
    "speed": None,
    "verdict": {"sentence": "Verdict: none.", "protocols": {}},
    "protocols": {},
    "recommendations": {},
}


def metrics_of(names, quality):
    """`quality` is added to what each user has. A higher arp is worse."""
    of_user = OF_USER + quality + NOISE * (quality != 0)
    values = np.stack([SCALES[name] * of_user for name in names], axis=1).astype(np.float32)
    weights = np.ones_like(values)
    weights[:10] = 0  # Ten users have no relevant item.
    return ListMetrics(names, values, weights, num_left_out=4)


def write_run(folder, quality, *, names=("ndcg@10", "arp"), protocols=("catalogue",), split="test", **test_set):
    """A finished run whose model has this quality, with two baselines."""
    folder.mkdir()
    paths = Workdir(str(folder))
    paths.save_json(paths.result, {**RESULT, "held_out": split})
    scorers = {"model": quality, "popularity": -0.1, "item_mean": 0.02}
    metrics = QueryMetrics(
        np.arange(1, NUM_USERS + 1, dtype=np.int32),
        {scorer: metrics_of(names, of_scorer) for scorer, of_scorer in scorers.items()},
        TEST_SET | test_set,
    )
    write_queries(paths.queries, split, dict.fromkeys(protocols, metrics), VOCABULARY)
    return str(folder)


def compare_as_json(capsys, *workdirs, scorer_a=None, scorer_b=None):
    assert compare.main(workdirs, scorer_a=scorer_a, scorer_b=scorer_b, output_format="json") == 0
    return json.loads(capsys.readouterr().out)


def test_two_runs_are_compared_by_paired_tests(tmp_path, capsys):
    a, b = write_run(tmp_path / "a", 0), write_run(tmp_path / "b", 0.02)
    (result,) = compare_as_json(capsys, a, b)
    assert (result["protocol"], result["split"]) == ("catalogue", "test")
    assert (result["name_a"], result["name_b"]) == (f"{a}: model", f"{b}: model")
    found = result["differences"]["ndcg@10"]
    expected = np.mean(0.02 + NOISE[10:])
    assert found["value"] == pytest.approx(expected, abs=1e-6)
    assert found["mean_b"] - found["mean_a"] == pytest.approx(found["value"])
    assert found["low"] < expected < found["high"] and found["p_value"] < 0.001
    assert found["num_queries"] == NUM_USERS - 10
    # The other way round the sign changes.
    (swapped,) = compare_as_json(capsys, b, a)
    assert swapped["differences"]["ndcg@10"]["value"] == pytest.approx(-expected, abs=1e-6)


def test_one_run_is_compared_with_each_baseline(tmp_path, capsys):
    run = write_run(tmp_path / "run", 0.02, protocols=("rated", "catalogue"))
    results = compare_as_json(capsys, run)
    assert [(result["name_a"], result["protocol"]) for result in results] == [
        (f"{run}: popularity", "rated"),
        (f"{run}: popularity", "catalogue"),
        (f"{run}: item_mean", "rated"),
        (f"{run}: item_mean", "catalogue"),
    ]
    assert all(result["name_b"] == f"{run}: model" for result in results)
    better, same = results[0]["differences"]["ndcg@10"], results[2]["differences"]["ndcg@10"]
    assert better["value"] == pytest.approx(0.12, abs=1e-6) and better["p_value"] < 0.001
    assert same["value"] == 0 and same["p_value"] == 1


def test_scorers_can_be_chosen(tmp_path, capsys):
    a, b = write_run(tmp_path / "a", 0), write_run(tmp_path / "b", 0.3)
    results = compare_as_json(capsys, a, scorer_a="item_mean")
    assert [(result["name_a"], result["name_b"]) for result in results] == [(f"{a}: item_mean", f"{a}: model")]
    (result,) = compare_as_json(capsys, a, b, scorer_b="popularity")
    assert result["name_b"] == f"{b}: popularity"
    assert result["differences"]["ndcg@10"]["value"] < 0
    with pytest.raises(ConfigError, match=r"'ease' is not a scorer of .*a\. Use one of model, popularity, item_mean"):
        compare.main([a], scorer_a="ease", scorer_b=None, output_format="table")


def test_several_runs_are_one_table_with_the_best_marked(tmp_path, capsys):
    runs = [write_run(tmp_path / name, quality) for name, quality in (("a", 0.1), ("b", 0.3), ("c", 0.2))]
    (result,) = compare_as_json(capsys, *runs)
    assert list(result["means"]) == [*runs, "popularity", "item_mean"]
    mean = result["means"][runs[0]]["ndcg@10"]
    assert mean["value"] == pytest.approx(np.mean((OF_USER + 0.1 + NOISE)[10:]))
    assert mean["low"] < mean["value"] < mean["high"] and mean["num_left_out"] == 14
    # A lower mean rank is better.
    assert result["best"] == {"ndcg@10": [runs[1]], "arp": ["popularity"]}

    assert compare.main(runs, scorer_a=None, scorer_b=None, output_format="table") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == ["ndcg@10", "arp"]
    assert lines[2][0] == runs[0] and not any(cell.endswith("*") for cell in lines[2])
    assert lines[3][0] == runs[1] and lines[3][3].endswith("*") and not lines[3][6].endswith("*")
    with pytest.raises(ConfigError, match="only with one or two runs"):
        compare.main(runs, scorer_a="model", scorer_b=None, output_format="table")


def test_markdown_has_the_numbers_of_the_table(tmp_path, capsys):
    runs = [write_run(tmp_path / "a", 0), write_run(tmp_path / "b", 0.02)]
    printed = {}
    for output_format in ("table", "markdown"):
        assert compare.main(runs, scorer_a=None, scorer_b=None, output_format=output_format) == 0
        printed[output_format] = capsys.readouterr().out
    rows = [line.strip("| ").split(" | ") for line in printed["markdown"].splitlines() if line.startswith("| ndcg")]
    assert " ".join(rows[0]).split() in [line.split() for line in printed["table"].splitlines()]
    assert "|  | A | B | B - A | 95% interval | p-value | queries |" in printed["markdown"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"users": "9"}, "differ in the users of the protocol catalogue"),
        ({"candidates": "9", "held-out items": "9"}, "the candidates of the protocol catalogue; the held-out items"),
        ({"extra": "9"}, "differ in the extra of the protocol catalogue"),
        ({"split": "validation"}, "differ in the split, which is test and validation"),
        ({"protocols": ("rated",)}, "differ in the protocols, which are catalogue and rated"),
    ],
)
@pytest.mark.parametrize("num_runs", [2, 3])
def test_runs_with_other_test_sets_are_refused(tmp_path, options, message, num_runs):
    same = [write_run(tmp_path / f"same{i}", 0) for i in range(num_runs - 1)]
    other = write_run(tmp_path / "other", 0, **options)
    with pytest.raises(ConfigError, match=message):
        compare.main([*same, other], scorer_a=None, scorer_b=None, output_format="table")


def test_only_the_metrics_that_all_runs_have_are_compared(tmp_path, capsys):
    a = write_run(tmp_path / "a", 0, names=("ndcg@10", "mrr"))
    b = write_run(tmp_path / "b", 0.02, names=("mrr", "ndcg@10", "recall@5"))
    c = write_run(tmp_path / "c", 0.02, names=("recall@5",))
    (result,) = compare_as_json(capsys, a, b)
    assert list(result["differences"]) == ["ndcg@10", "mrr"]
    expected = np.mean(0.02 + NOISE[10:])
    for name, found in result["differences"].items():
        assert found["value"] == pytest.approx(SCALES[name] * expected, abs=1e-6)
    for runs in ([a, c], [a, b, c]):
        with pytest.raises(ConfigError, match=r"no metric in common: .*a has ndcg@10, mrr; .*c has recall@5"):
            compare.main(runs, scorer_a=None, scorer_b=None, output_format="table")


def test_a_folder_without_a_finished_run_is_refused(tmp_path):
    run = write_run(tmp_path / "a", 0)
    paths = Workdir(str(tmp_path / "b"))
    with pytest.raises(ConfigError, match="b cannot be compared: it has no result"):
        compare.main([run, paths.path], scorer_a=None, scorer_b=None, output_format="table")
    storage.make_folder(paths.path)
    paths.save_json(paths.result, {**RESULT, "held_out": None})
    with pytest.raises(ConfigError, match="held out no ratings"):
        comparison.load_run(paths.path)
    paths.save_json(paths.result, {**RESULT, "held_out": "test"})
    with pytest.raises(StorageError, match=r"queries\.parquet cannot be read"):
        comparison.load_run(paths.path)
    with pytest.raises(ConfigError, match="Name the workdirs"):
        compare.main([], scorer_a=None, scorer_b=None, output_format="table")
    with pytest.raises(ConfigError, match="named twice"):
        compare.main([run, run], scorer_a=None, scorer_b=None, output_format="table")


def test_the_command_line(tmp_path):
    """Positional workdirs and flags in any order; no TensorFlow."""
    run = write_run(tmp_path / "a", 0.02)
    program = (
        "import runpy, sys; sys.argv = ['compare', *sys.argv[1:]]\n"
        "try: runpy.run_module('trainer.compare', run_name='__main__')\n"
        "finally: assert 'tensorflow' not in sys.modules\n"
    )

    def call(*arguments):
        return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)

    done = call("--scorer_a=popularity", run, "--format=json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)[0]["differences"]["ndcg@10"]["value"] == pytest.approx(0.12, abs=1e-6)
    wrong = call(run, "--formats=json")
    assert (
        wrong.returncode == ConfigError.exit_code and "--formats is not a flag; did you mean --format?" in wrong.stderr
    )
    missing = call(str(tmp_path / "none"))
    assert missing.returncode == ConfigError.exit_code and "no result.json" in missing.stderr
