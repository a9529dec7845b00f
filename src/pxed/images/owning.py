"""Whose the image store's files are: those of the owner of its directory, whoever writes them.

A server that has dropped to a user of its own must be able to read and remove what `pxed image import` wrote as root,
whatever root's umask is. So root gives every file and directory that it makes to the owner of the directory above,
and their modes are set, not left to the umask. For anybody else but root the owner is the writer, as always.

Root does not follow symbolic links of the store: its owner could lay one to any file of the host.
"""

import contextlib
import os
import stat
from pathlib import Path

__all__ = ["give", "make_directory", "open_file", "settle"]

FILE_MODE = 0o644
DIRECTORY_MODE = 0o755


def make_directory(path: Path) -> None:
    """Make a directory, and those above it, unless it exists. Raises OSError."""
    if path.is_dir():
        return
    make_directory(path.parent)
    try:
        path.mkdir()
    except FileExistsError:
        if not path.is_dir():  # somebody else was quicker is well, a file is not
            raise
        return
    path.chmod(DIRECTORY_MODE)
    if os.geteuid() == 0:
        above = path.parent.stat()
        os.chown(path, above.st_uid, above.st_gid, follow_symlinks=False)


def open_file(path: Path, flags: int, owner_of: Path) -> int:
    """A descriptor of a file of the store, made if it does not exist. It belongs to the owner of `owner_of`.

    `flags` are those of os.open. Raises OSError.
    """
    flags |= os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags | os.O_EXCL, FILE_MODE)
        made = True
    except FileExistsError:
        if flags & os.O_EXCL:
            raise
        descriptor = os.open(path, flags, FILE_MODE)
        made = False
    try:
        _settle(descriptor, os.fstat(descriptor), owner_of, made)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def settle(path: Path, owner_of: Path, made: bool) -> None:
    """The same for a file that something else opens; `made`: it is new. Raises OSError.

    With O_PATH, since a process that closes any other descriptor of an SQLite database loses its locks on it.
    """
    try:
        descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _settle(Path(f"/proc/self/fd/{descriptor}"), os.fstat(descriptor), owner_of, made)
    finally:
        os.close(descriptor)


def _settle(file: int | Path, status: os.stat_result, owner_of: Path, made: bool) -> None:
    # A second link could be the store owner's to a file that is not his.
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        return
    if made:
        os.chmod(file, FILE_MODE)  # noqa: PTH101 - also of a descriptor
    owner = owner_of.stat()
    if os.geteuid() == 0 and status.st_uid != owner.st_uid:
        os.chown(file, owner.st_uid, owner.st_gid)


def give(directory: Path, uid: int, gid: int) -> None:
    """Give a store to a user: its directory and every file of it, and nothing else that lies there. Raises OSError."""
    parts = [directory / "packs", directory / "manifests"]
    own = [directory, directory / "lock", *directory.glob("index.sqlite*"), *parts]
    for part in parts:
        own.extend(part.iterdir())
    for path in own:
        with contextlib.suppress(FileNotFoundError):  # an import or a removal runs beside
            os.chown(path, uid, gid, follow_symlinks=path == directory)
