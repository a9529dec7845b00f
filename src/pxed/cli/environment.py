"""`pxed environment`: the Linux imaging environment that machines boot for their work."""

from pathlib import Path

import click

from pxed.cli import Context, output, pass_context

output_option = click.option(
    "--output",
    "out_dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory of the environment; the configured one by default.",
)


@click.group()
def environment() -> None:
    """The Linux imaging environment: a signed Debian kernel and a small root filesystem with the agent."""


@environment.command()
@output_option
@click.option("--cache", type=click.Path(path_type=Path, file_okay=False), help="Where downloaded packages are kept.")
@pass_context
def build(context: Context, out_dir: Path | None, cache: Path | None) -> None:
    """Build the environment from the packages of this host's Debian release. Machines may boot meanwhile."""
    from pxed.environment import build as build_environment

    directory = out_dir or Path(context.config.environment_dir)
    built = build_environment(directory, output.note, cache)
    for name, count in built.bytes.items():
        click.echo(f"{directory / name}  {output.size(count)}  sha256 {built.sha256[name]}")
    click.echo(f"Linux {built.kernel}, {output.size(built.size)} in all, built in {output.duration(built.seconds)}.")


@environment.command()
@output_option
@output.json_option
@pass_context
def show(context: Context, out_dir: Path | None, as_json: bool) -> None:
    """What the built environment is made of."""
    from pxed.environment import show as show_environment

    directory = out_dir or Path(context.config.environment_dir)
    built = show_environment(directory)
    if as_json:
        output.print_json(built)
        return
    output.fields(
        [
            ("directory", directory),
            ("kernel", f"Linux {built.kernel}" + (", signed" if built.signed else ", not signed")),
            ("Debian", built.suite),
            ("Python", built.python),
            ("agent", built.pxed),
            ("modules", built.modules),
            ("firmware", "for wired network cards" if built.firmware else "none"),
            ("packages", len(built.packages)),
            *((name, f"{output.size(count)}  sha256 {built.sha256[name]}") for name, count in built.bytes.items()),
        ]
    )
