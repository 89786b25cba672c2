"""What counts as a secret, and that none gets out."""

import pytest

from configs import default
from settings import cli
from settings.errors import ConfigError, StorageError
from settings.secrets import has_secret, is_secret_name, mask, mask_argument
from settings.trainer_config import load_trainer_config
from tests.launch.vertex.secrets_test import CANARY, SECRET_ARGUMENTS


@pytest.mark.parametrize("name", ["--password", "--dbPassword", "HF_TOKEN", "--api-key", "AWS_SECRET_ACCESS_KEY"])
def test_the_name_of_a_secret_is_one(name):
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    ["--config.tokenizer", "--num_tokens", "--keyboard", "--config.loss.key", "--secretary", "--compass", "TF_MONKEY"],
)
def test_a_harmless_name_is_not_a_secret(name):
    assert not is_secret_name(name)


@pytest.mark.parametrize("argument", SECRET_ARGUMENTS)
def test_nothing_of_a_secret_is_left_in_an_argument(argument):
    assert "c4n4ry" not in mask_argument(argument).lower()


SIGNED = [
    f"https://storage.googleapis.com/b/r.csv?X-Goog-Date=1&X-Goog-Signature={CANARY}&x=1",
    f"https://b.s3.amazonaws.com/r.csv?X-Amz-Security-Token={CANARY}",
    f"https://a.blob.core.windows.net/b/r.csv?sv=2020&sig={CANARY}",
]
URLS = [f"https://me:{CANARY}@example.com/ratings.csv", f"s3://key:{CANARY}@bucket/ratings.csv", *SIGNED]


@pytest.mark.parametrize("url", URLS)
def test_a_source_with_a_password_or_a_signature_is_refused_and_not_repeated(url):
    config = default.get_config()
    config.data.source = url
    with pytest.raises(ConfigError, match=r"^config\.data.source looks like a secret") as caught:
        load_trainer_config(config)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("text", ["gs://bucket/ratings.csv", "/data/a@b:c/r.csv", "s3://b/r.csv?versionId=1234567890"])
def test_a_harmless_path_stays_as_it_is(text):
    assert not has_secret(text) and mask(text) == text


@pytest.mark.parametrize("error", [StorageError, ZeroDivisionError])
@pytest.mark.parametrize("secret", [*URLS, f"ghp_{CANARY}", f"-----BEGIN RSA PRIVATE KEY-----\n{CANARY}\n{CANARY}"])
def test_an_error_message_has_no_secret(error, secret, capsys):
    def main():
        raise error(f"{secret} cannot be read.")

    assert cli.report_errors(main) in (70, 74)
    captured = capsys.readouterr()
    assert "***" in captured.err and CANARY not in captured.out + captured.err
