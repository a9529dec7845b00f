"""`pxed serve`: the server, in the foreground."""

from pathlib import Path

import click

from pxed.cli import Context, pass_context


@click.command()
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="The same as the global option.")
@pass_context
def serve(context: Context, config_path: Path | None) -> None:
    """Run the server in the foreground, until SIGTERM or SIGINT; SIGHUP reads the configuration again."""
    if config_path is not None:
        context = Context(config_path)
    config = context.config  # before the imports below: a mistake in it is told at once
    import uvloop

    from pxed.app import run

    uvloop.run(run(config, context.config_path))
