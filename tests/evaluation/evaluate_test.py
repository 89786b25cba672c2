"""trainer.evaluate from end to end: the exported model has the metrics that its run ended with."""

import json
from types import SimpleNamespace

import pytest

from settings.errors import ConfigError
from tests.conftest import train
from trainer import evaluate
from trainer.evaluation import final_metrics


@pytest.fixture
def evaluated(monkeypatch):
    """Collects what `evaluate.main` prints: (split, protocols)."""
    found = []
    print_protocols = final_metrics.print_protocols

    def print_and_keep(console, split, results):
        found.append((split, final_metrics.to_json(results)))
        print_protocols(console, split, results)

    monkeypatch.setattr(final_metrics, "print_protocols", print_and_keep)
    return found


def test_evaluating_a_run_gives_the_metrics_that_it_ended_with(tiny_config, tmp_path, monkeypatch, capsys, evaluated):
    tiny_config.train.num_epochs = 1
    tiny_config.eval.metrics = ("ndcg@5", "mrr")
    tiny_config.eval.num_catalogue_users = 20
    workdir = tmp_path / "run"
    assert train(tiny_config, str(workdir)) == 0
    result = json.loads((workdir / "result.json").read_text())
    assert list(result["protocols"]) == ["rated", "catalogue"]

    capsys.readouterr()
    evaluated.clear()  # The run has printed its metrics too.
    monkeypatch.setattr(evaluate.flags, "FLAGS", SimpleNamespace(workdir=str(workdir)))
    assert evaluate.main() == 0
    ((split, again),) = evaluated
    assert split == result["held_out"] == "test"
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == result["verdict"]["sentence"]
    for protocol, by_scorer in result["protocols"].items():
        num_lists = sorted({mean["num_lists"] for mean in by_scorer["model"].values()})
        assert f"test, {protocol}: {' to '.join(map(str, num_lists))} lists" in printed
        assert list(by_scorer) == ["model", "popularity", "item_mean", "random"]
        for scorer, metrics in by_scorer.items():
            for name, mean in metrics.items():
                assert again[protocol][scorer][name] == pytest.approx(mean, rel=1e-5, abs=1e-6), (protocol, scorer)
            margins = {name: (mean["high"] - mean["low"]) / 2 for name, mean in again[protocol][scorer].items()}
            cells = [f"{again[protocol][scorer][name]['value']:.4f} ± {margin:.4f}" for name, margin in margins.items()]
            assert [scorer, *" ".join(cells).split()] in [line.split() for line in printed.splitlines()]

    path = workdir / "data.json"
    data = json.loads(path.read_text())
    data["fingerprints"]["test lists"] = "0" * 64
    path.write_text(json.dumps(data))
    with pytest.raises(ConfigError, match="test lists"):
        evaluate.main()


def test_a_workdir_without_a_model_is_refused_before_the_data_is_read(tiny_config, tmp_path, monkeypatch):
    tiny_config.train.num_epochs = 1
    tiny_config.split.method = "none"
    tiny_config.eval.best_metric = "loss"
    assert train(tiny_config, str(tmp_path)) == 0
    monkeypatch.setattr(evaluate.flags, "FLAGS", SimpleNamespace(workdir=str(tmp_path)))
    with pytest.raises(ConfigError, match=r"held out no ratings \(config.split.method='none'\)"):
        evaluate.main()

    for file in sorted((tmp_path / "model").rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    monkeypatch.setattr("trainer.data.loading.load_dataset", lambda **_: pytest.fail("The data was read."))
    with pytest.raises(ConfigError, match="no exported model"):
        evaluate.main()
