"""A secret in the environment gets into nothing that a run writes."""

import pytest

from tests.conftest import train
from trainer.reporting import write_report

CANARY = "c4n4ry-of-the-environment"


@pytest.mark.promise(13, "secrets", "canaries are in no file")
def test_the_environment_of_a_run_is_in_none_of_its_files(tiny_config, tmp_path, monkeypatch, capfd):
    for name in ("PASSWORD", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "LISTWISE_CANARY"):
        monkeypatch.setenv(name, CANARY)
    assert train(tiny_config, tmp_path, report_fn=write_report) == 0
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"config.json", "metrics.jsonl", "report.html", "saved_model.pb"}
    assert any("tfevents" in path.name for path in files)
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []
    captured = capfd.readouterr()
    assert "ndcg" in captured.out and CANARY not in captured.out + captured.err
