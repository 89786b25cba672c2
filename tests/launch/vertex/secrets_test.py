"""Secrets are refused, and never printed."""

import pytest

from launch.vertex import __main__ as vertex
from tests.launch.vertex.commands import COMMANDS, dry, refused, with_destination

CANARY = "c4n4ry" * 6
SECRET_ARGUMENTS = [
    f"--password={CANARY}",
    f"--db_password={CANARY}",
    f"--dbPassword={CANARY}",
    f"--api-key={CANARY}",
    f"--apikey={CANARY}",
    f"--config.data.access_key={CANARY}",
    f"--HF_TOKEN={CANARY}",
    f"--config.data.source=https://me:{CANARY}@example.com/ratings.csv",
    f"--note=ghp_{CANARY}",
    f"--note=AIza{CANARY}",
    f"--note=hf_{CANARY}",
    f"--note=sk-{CANARY}",
    f"--note=ya29.{CANARY}",
    f"--note=eyJ{CANARY}.eyJ{CANARY}.{CANARY}",
    "--note=AKIA" + "C4N4RY" * 2 + "ABCD",
    f"--note=-----BEGIN RSA PRIVATE KEY-----{CANARY}",
    f'--note={{"private_key": "{CANARY}"}}',
    f"ghp_{CANARY}",
    f"--ghp_{CANARY}",
]


@pytest.mark.parametrize("argument", SECRET_ARGUMENTS)
def test_a_secret_is_refused_and_not_repeated(argument, capsys, no_network):
    variable = argument.lstrip("-")
    for own, flags in (([], [argument]), ([f"--config.environment={(variable,)!r}"], [])):
        message = refused(capsys, with_destination(own, flags))
        assert "looks like a secret" in message
        assert "c4n4ry" not in message.lower()


def test_the_environment_of_the_shell_is_not_part_of_a_job(capsys, monkeypatch):
    for name in ("PASSWORD", "HF_TOKEN", "TF_CONFIG", "AIP_MODEL_DIR", "PROJECT", "CLOUD_ML_PROJECT_ID"):
        monkeypatch.setenv(name, CANARY)
    for name, command in COMMANDS.items():
        assert vertex.main(dry(command)) == 0, name
    captured = capsys.readouterr()
    assert "parent: projects/my-project" in captured.out
    assert CANARY not in captured.out + captured.err
