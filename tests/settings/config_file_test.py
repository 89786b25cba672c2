"""Whatever is wrong with a config file is one sentence."""

import pytest

from configs import default
from settings.config_file import check_config_file
from settings.errors import ConfigError


def test_a_config_passes():
    check_config_file(default.__file__)


def test_get_config_may_have_an_argument(tmp_path):
    path = tmp_path / "sized.py"
    path.write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config(size):\n"
        "    return ConfigDict({'size': {'small': 1}[size]})\n"
    )
    check_config_file(f"{path}:small")
    with pytest.raises(ConfigError, match="line 3, KeyError: 'large'"):
        check_config_file(f"{path}:large")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config():\n    raise ValueError('boom')", "cannot be loaded: line 2, ValueError: boom."),
        ("import nothing_there", "cannot be loaded: line 1, ModuleNotFoundError: No module named 'nothing_there'."),
        ("import sys\n\nsys.exit(0)", "cannot be loaded: line 3, it ends the program."),
        ("import sys\ndef get_config():\n    sys.exit(0)", "cannot be loaded: line 3, it ends the program."),
        ("def get_config(): return None", "returned NoneType instead of a ConfigDict"),
        ("def get_config(): return {'seed': 0}", "returned dict instead of a ConfigDict"),
        ("def get_config(size): return size", "cannot be loaded: TypeError: get_config\\(\\) missing 1 required"),
        ("get_config = 3", "it has no function get_config"),
        ("", "it has no function get_config"),
        ("def get_config(: pass", "is not a config: line 1, "),
        ("x = 'a\x00b'", "is not a config|cannot be loaded"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text, message, tmp_path):
    path = tmp_path / "config.py"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        check_config_file(str(path))
    assert str(caught.value).startswith(f"--config={path} ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing.py", "", "gs://bucket/config.py"])
def test_a_file_that_cannot_be_read_is_named(name, tmp_path):
    path = f"{tmp_path}/{name}" if "://" not in name else name
    with pytest.raises(ConfigError, match=f"--config={path} cannot be loaded: "):
        check_config_file(path)


def test_bytes_that_are_no_text_are_no_config(tmp_path):
    path = tmp_path / "config.py"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not a config"):
        check_config_file(str(path))
