"""`pxed image`: import, list, show, verify, export, rm.

All but `rm` work on the store directory itself, with or without a running server: a server sees an image from the
moment that its import is complete. `rm` asks the server, which knows whether a job wants the image.
"""

import socket
import time
from pathlib import Path
from urllib.parse import quote

import click

from pxed.cli import Context, output, pass_context
from pxed.errors import OperatorError
from pxed.images.chunk import CHUNK, DEFAULT_LEVEL
from pxed.images.library import Image, Library
from pxed.images.pipeline import Progress
from pxed.images.proving import BadImage
from pxed.images.source import FORMATS

__all__ = ["image"]

BAD_SHOWN = 20
"""Damaged chunks named for each image in the plain listing; --json names all."""


@click.group()
def image() -> None:
    """Images: what machines are restored from."""


@image.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="The image's name.")
@click.option("--format", "image_format", type=click.Choice(FORMATS), help="The file's format; found out if not given.")
@click.option(
    "--sector-size", type=click.Choice(["512", "4096"]), help="Of the disk; by its GPT if not given, else 512."
)
@click.option("--level", type=click.IntRange(1, 19), default=DEFAULT_LEVEL, show_default=True, help="zstd level.")
@click.option("--replace", is_flag=True, help="The name may be in use: it then means the new image.")
@output.json_option
@pass_context
def import_(
    context: Context,
    file: Path,
    name: str,
    image_format: str | None,
    sector_size: str | None,
    level: int,
    replace: bool,
    as_json: bool,
) -> None:
    """Import a disk FILE: raw, qcow2, vmdk, vhdx, vhd or vdi, or a block device."""
    begun = time.monotonic()
    with Library(context.config.images_dir) as library, output.progress(f"import {name}") as show:
        done = library.import_image(
            file,
            name,
            _two(show),
            image_format=image_format,
            sector=int(sector_size) if sector_size else None,
            replace=replace,
            level=level,
        )
    if as_json:
        output.print_json(done)
        return
    new = done.image
    click.echo(
        f"{new.name}: image {new.id[:12]}, a disk of {output.size(new.size)}, "
        f"{output.size(new.data_size)} stored ({output.size(done.written)} new), "
        f"{output.duration(time.monotonic() - begun)}"
    )
    if done.replaced:
        output.note(
            f"The image that had this name before is kept as {done.replaced[:12]}; "
            f"`pxed image rm {done.replaced[:12]}` removes it."
        )


@image.command("list")
@output.json_option
@pass_context
def list_(context: Context, as_json: bool) -> None:
    """All images."""
    with Library(context.config.images_dir) as library:
        images = library.list()
    if as_json:
        output.print_json(images)
        return
    output.table(
        ("name", "id", "disk", "stored", "table", "imported"),
        [
            (
                one.name,
                one.id[:12],
                output.size(one.size),
                output.size(one.data_size),
                _table(one),
                output.when(one.created),
            )
            for one in images
        ],
        empty="There is no image; `pxed image import FILE --name NAME` makes one.",
    )


@image.command()
@click.argument("key", metavar="NAME|ID")
@output.json_option
@pass_context
def show(context: Context, key: str, as_json: bool) -> None:
    """One image and its partitions."""
    with Library(context.config.images_dir) as library:
        one = library.get(key)
        table = library.manifest(one.id).table
    if as_json:
        output.print_json({"image": one, "table": table})
        return
    output.fields(
        [
            ("name", one.name),
            ("id", one.id),
            ("disk", f"{output.size(one.size)} ({one.size} bytes), sectors of {one.sector}"),
            ("in use", output.size(one.stored_chunks * CHUNK)),
            ("stored", f"{output.size(one.data_size)} in {output.count(one.stored_chunks, 'chunk')}"),
            ("table", " ".join(part for part in (_table(one), table.id) if part)),
            ("imported", f"{output.when(one.created)} from {one.source} ({one.format})"),
        ]
    )
    if table.partitions:
        output.table(
            ("number", "start", "size", "type", "name", "uuid"),
            [(p.number, p.start, output.size(p.size), p.type, p.name, p.uuid) for p in table.partitions],
        )


@image.command()
@click.argument("key", metavar="[NAME|ID]", required=False)
@output.json_option
@pass_context
def verify(context: Context, key: str | None, as_json: bool) -> None:
    """Prove every stored chunk of one image, or of all. Exit code 1 when something is damaged."""
    with Library(context.config.images_dir) as library, output.progress("verify") as show_progress:
        found = library.verify(key, _two(show_progress))
    if as_json:
        output.print_json(found)
    else:
        click.echo(
            f"{output.count(found.images, 'image')}, {output.count(found.chunks, 'chunk')}, "
            f"{output.size(found.stored)} read"
        )
        for bad in found.bad:
            _say_bad(bad)
        if not found.bad:
            click.echo("All is well.")
    click.get_current_context().exit(1 if found.bad else 0)


@image.command()
@click.argument("key", metavar="NAME|ID")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--replace", is_flag=True, help="FILE may exist: it is replaced once the export is complete.")
@pass_context
def export(context: Context, key: str, file: Path, replace: bool) -> None:
    """Write an image to a sparse raw FILE."""
    with Library(context.config.images_dir) as library, output.progress(f"export {key}") as show_progress:
        library.export(key, file, _two(show_progress), replace=replace)


@image.command()
@click.argument("key", metavar="NAME|ID")
@pass_context
def rm(context: Context, key: str) -> None:
    """Remove an image, unless a job wants it. By name: one name of it; by id: the image with all its names."""
    if not key.strip():
        raise OperatorError("Say which image: by its name or its id.")
    if _is_listening(context.config.server.socket):
        context.client.delete(f"/images/{quote(key, safe='')}")
        click.echo(f"{key}: removed")
        return
    output.note("No server is running: removing without asking whether a job wants it.")
    with Library(context.config.images_dir) as library:
        done = library.remove(key)
    if done.names:
        click.echo(f"{key}: removed; image {done.id[:12]} is still there as {', '.join(done.names)}")
    elif done.trouble:
        click.echo(f"{key}: removed")
        output.note(f"Its space could not be given back; the next removal tries again. {done.trouble}")
    elif done.freed is None:
        click.echo(f"{key}: removed; an import is running, the next removal gives its space back")
    else:
        click.echo(f"{key}: removed, {output.size(done.freed)} given back")


def _two(show: output.Progress) -> Progress:
    """The library tells also what is stored, which the bar does not show."""
    return lambda done, total, _stored: show(done, total)


def _is_listening(path: str) -> bool:
    """Whether somebody answers at a unix socket; a file that a killed server left behind does not count.

    A refused permission does: then there is a server, and its client's error says what is wrong.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            return False
        except OSError:
            return True
    return True


def _say_bad(bad: BadImage) -> None:
    title = f"{bad.name or '(no name)'} ({bad.id[:12]})"
    if bad.reason:
        click.echo(f"{title}: {bad.reason}")
        return
    click.echo(
        f"{title}: {output.count(len(bad.chunks), 'damaged chunk')}; "
        "import the same disk again, with --replace, to mend it"
    )
    for chunk in bad.chunks[:BAD_SHOWN]:
        where = f", partition {chunk.partition}" if chunk.partition else ""
        click.echo(f"  chunk {chunk.index} at byte {chunk.offset}{where}: {chunk.reason}")
    if len(bad.chunks) > BAD_SHOWN:
        click.echo(f"  … and {len(bad.chunks) - BAD_SHOWN} more; --json names them all")


def _table(one: Image) -> str:
    return f"{one.label}, {output.count(one.partitions, 'partition')}" if one.label else "none"
