"""The command line's frame: every command is there, helps are true, nothing is imported before it is used."""

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from pxed.cli import COMMANDS, main
from pxed.errors import InternalError, OperatorError


def commands(group: click.Group, *names: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command of the tree with its words."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*names, name), command
        if isinstance(command, click.Group):
            yield from commands(command, *names, name)


TREE = dict(commands(main))


@pytest.mark.parametrize("words", TREE, ids=" ".join)
def test_every_command_has_help(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, [*words, "--help"])
    assert result.exit_code == 0
    assert TREE[words].help


@pytest.mark.parametrize("words", [w for w in TREE if w[-1] in ("list", "show", "check")], ids=" ".join)
def test_every_listing_has_json(words: tuple[str, ...]) -> None:
    assert "--json" in [option for parameter in TREE[words].params for option in parameter.opts]


def test_help_imports_no_command() -> None:
    code = (
        "import sys; from pxed.cli import main; main(['--help'], standalone_mode=False);"
        "print([m for m in sys.modules if m.startswith('pxed.') or m in ('rich', 'litestar', 'msgspec', 'asyncio')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['pxed.errors', 'pxed.text', 'pxed.cli']"
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


def test_errors_of_ours_are_a_sentence_and_bugs_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(error: Exception) -> click.Command:
        @click.command()
        def fail() -> None:
            raise error

        return fail

    for error, message in ((OperatorError("Mend it."), "pxed: Mend it.\n"), (InternalError("Ours."), "pxed: Ours.\n")):
        monkeypatch.setattr(main, "get_command", lambda ctx, name, error=error: failing(error))
        result = CliRunner().invoke(main, ["x"])
        assert (result.exit_code, result.stderr) == (1, message)
    monkeypatch.setattr(main, "get_command", lambda ctx, name: failing(ZeroDivisionError("a bug")))
    assert isinstance(CliRunner().invoke(main, ["x"]).exception, ZeroDivisionError)
