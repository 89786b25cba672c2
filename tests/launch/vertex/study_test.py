"""Mistakes in the parameters of a study."""

import pytest

from launch.vertex import __main__ as vertex
from tests.launch.vertex.commands import refused, with_destination

PARAMETER_MISTAKES = [
    ("learning_rate", "of the form"),
    ({"field": "optimizer.learning_rate"}, "of the form"),
    ({"field": "optimizer.learning_rate", "range": (0.1, 1.0), "values": (1.0,)}, "of the form"),
    ({"field": "optimizer.rate", "range": (0.1, 1.0)}, "config.optimizer.rate is not a field of the trainer's"),
    ({"field": "optimizer", "range": (0.1, 1.0)}, "config.optimizer is not a field"),
    ({"field": "optimizer.learning_rate", "range": (1.0, 0.1)}, "the lowest first"),
    ({"field": "optimizer.learning_rate", "range": (0.0, 1.0), "scale": "log"}, "above 0"),
    ({"field": "optimizer.learning_rate", "range": (0.1, 1.0), "scale": "cubic"}, "linear, log or reverse_log"),
    ({"field": "optimizer.learning_rate", "range": (0.1, float("inf"))}, "of the form"),
    ({"field": "optimizer.learning_rate", "values": ()}, "with at least one value"),
    ({"field": "model.embedding_size", "range": (8.5, 64)}, "config.model.embedding_size=8.5 is of type float"),
    ({"field": "model.embedding_size", "values": (64, 32)}, "in ascending order"),
    ({"field": "loss.key", "values": (1, 2)}, "config.loss.key=1 is of type int"),
    ({"field": "loss.key", "range": ("a", "b")}, "of the form"),
    ({"field": "loss.key", "values": ("a", "b"), "scale": "log"}, "linear"),
    (
        {"field": "candidates.method", "values": ("rated", "none")},
        "config.candidates.method='none' cannot be used",
    ),
    ({"field": "train.num_epochs", "range": (-1, 5)}, "config.train.num_epochs=-1 cannot be used"),
    ({"field": "optimizer.weight_decay", "values": (0.0, 0.1)}, "adamw is adam with weight decay"),
    ({"field": "model.hidden_sizes", "values": ("(64,)", "(64")}, "config.model.hidden_sizes='(64' is of type str"),
]


def write_study(folder, parameter, lines=""):
    path = folder / "study.py"
    path.write_text(
        "from configs.launch import tune\ninf = float('inf')\ndef get_config():\n"
        f"    config = tune.get_config()\n    config.study.parameters = ({parameter!r},)\n    {lines}\n"
        "    return config\n"
    )
    return path


@pytest.mark.parametrize(("parameter", "says"), PARAMETER_MISTAKES)
def test_a_parameter_that_cannot_be_tried_is_refused(parameter, says, capsys, tmp_path):
    path = write_study(tmp_path, parameter)
    assert says in refused(capsys, with_destination(["tune", f"--config={path}"], []))


def test_two_parameters_of_one_field_are_refused(capsys, tmp_path):
    path = tmp_path / "study.py"
    path.write_text(
        "from configs.launch import tune\ndef get_config():\n    config = tune.get_config()\n"
        "    config.study.parameters = 2 * config.study.parameters[:1]\n    return config\n"
    )
    assert "config.study.parameters has a field twice" in refused(
        capsys, with_destination(["tune", f"--config={path}"], [])
    )


def test_a_field_with_several_values_is_tried_as_on_the_command_line(capsys, tmp_path):
    path = write_study(tmp_path, {"field": "model.hidden_sizes", "values": ("()", "(64, 32)")})
    assert vertex.main(with_destination(["tune", f"--config={path}"], [])) == 0
    assert "(64, 32)" in capsys.readouterr().out


def test_bools_and_tuples_are_categories_as_on_the_command_line(capsys, tmp_path):
    for field, values in (("model.item_bias", (False, True)), ("model.hidden_sizes", ((), (64, 32)))):
        path = write_study(tmp_path, {"field": field, "values": values})
        assert vertex.main(with_destination(["tune", f"--config={path}"], [])) == 0
        printed = capsys.readouterr().out
        assert all(f"- {str(value)!r}" in printed or f"- {value}\n" in printed for value in values), printed


def test_every_batch_size_of_a_study_has_to_fit_the_accelerators(capsys, tmp_path):
    path = write_study(
        tmp_path,
        {"field": "train.global_batch_size", "values": (32, 65)},
        lines="config.accelerator_count = 2",
    )
    command = with_destination(["tune", f"--config={path}"], ["--strategy=mirrored"])
    assert "global_batch_size=65 cannot be divided among the 2 accelerators" in refused(capsys, command)
