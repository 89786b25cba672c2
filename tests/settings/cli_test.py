"""Output for people shows ids and titles as they are."""

from settings import cli


def test_brackets_and_colons_of_a_title_are_printed(capsys):
    title = "[bold]Rec[/bold] :smile: 100% " + "x" * 200
    cli.build_console().print(title, soft_wrap=True)
    assert capsys.readouterr().out == title + "\n"


def test_a_quiet_console_says_nothing(capsys):
    cli.build_console(quiet=True).print("figures")
    assert capsys.readouterr().out == ""
