"""The command line: `pxed [--config FILE] NOUN VERB`.

This module holds the frame only: the group, its global options, what every command shares (`Context`) and how errors
are said. Each command lives in a module of its own that is imported when the command is used, so that `pxed --help`
costs little; the one-line helps stand in `COMMANDS` for the same reason.

A command takes the shared object with `@pass_context`. What the operator can mend is one clear sentence on stderr and
exit code 1, never a traceback; any other exception is a bug and is shown as one.
"""

from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from pxed.errors import PxedError
from pxed.text import printable

if TYPE_CHECKING:
    from pxed.cli.client import Client
    from pxed.config import Config

__all__ = ["DEFAULT_CONFIG", "Context", "main", "pass_context"]

DEFAULT_CONFIG = "/etc/pxed/pxed.toml"


class Command(NamedTuple):
    """Where a command is found, and its line in `pxed --help`."""

    target: str  # "module:attribute"
    help: str


COMMANDS: dict[str, Command] = {
    "serve": Command("pxed.cli.serve:serve", "Run the server."),
    "status": Command("pxed.cli.status:status", "Show the running server."),
    "top": Command("pxed.cli.top:top", "Show transfers and rates, live."),
    "check": Command("pxed.cli.check:check", "Say what is wrong on this host."),
    "machine": Command("pxed.cli.machine:machine", "Machines: list, show, add, rm."),
    "job": Command("pxed.cli.job:job", "Jobs: add, list, show, watch, cancel, retry."),
    "image": Command("pxed.cli.image:image", "Images: import, list, show, verify, export, rm."),
    "session": Command("pxed.cli.session:session", "Multicast sessions: list, show, watch, start."),
    "environment": Command("pxed.cli.environment:environment", "The Linux imaging environment: build it."),
    "bench": Command("pxed.cli.bench:bench", "Measure this server, and others beside it."),
    "agent": Command("pxed.cli.agent:agent", "The imaging agent; runs inside the environment."),
}


class Context:
    """What the commands share; everything in it is made on first use."""

    def __init__(self, config_path: Path) -> None:
        self.config_path = config_path

    @cached_property
    def config(self) -> "Config":
        """The checked configuration. Raises ConfigError."""
        from pxed.config import load

        return load(self.config_path)

    @cached_property
    def client(self) -> "Client":
        """A client of the running server's admin API, over its unix socket."""
        from pxed.cli.client import Client

        return Client(self.config.server.socket)


pass_context = click.make_pass_decorator(Context)


class Failure(click.ClickException):
    """An error of ours, said the way every error is said: on stderr, after the program's name, exit code 1."""

    def show(self, file: Any = None) -> None:
        message = printable(self.message, keep="\n")
        click.echo(f"pxed: {message}", err=True, file=file)


class LazyGroup(click.Group):
    """Knows every command's name and help, imports a command only to run it."""

    def __init__(self, *arguments: Any, entries: Mapping[str, Command], **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._entries = entries

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self._entries.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in self._entries.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PxedError as error:
            raise Failure(str(error)) from error


@click.group(cls=LazyGroup, entries=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    default=DEFAULT_CONFIG,
    show_default=True,
    envvar="PXED_CONFIG",
    help="The configuration file.",
)
@click.version_option(package_name="pxed", message="%(prog)s %(version)s")
@click.pass_context
def main(ctx: click.Context, config_path: Path) -> None:
    """Boot and image machines over the network."""
    ctx.obj = Context(config_path)
