"""The launch config is checked by the same mechanism as the trainer's."""

from tests.launch.vertex.commands import refused, with_destination


def test_a_field_that_a_config_lacks_or_has_of_another_type_is_refused(capsys, tmp_path):
    path = tmp_path / "launch.py"
    start = "from configs.launch import default\ndef get_config():\n    config = default.get_config()\n"
    for line, says in (
        ("del config.scheduling.timeout_hours", "config.scheduling.timeout_hours is missing"),
        ("config.scheduling.patience = 3", "config.scheduling.patience is not a field"),
        (
            "del config.num_machines; config.num_machines = '3'",
            "config.num_machines='3' is of type str. It has to be of type int, like its default 1.",
        ),
    ):
        path.write_text(f"{start}    {line}\n    return config\n")
        assert says in refused(capsys, with_destination([f"--config={path}"], []))
