"""open_beneath: names that are found, and every way out of the root, refused."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pxed._ext.files import open_beneath


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    tree = tmp_path / "root"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "file").write_bytes(b"inside")
    (tmp_path / "secret").write_bytes(b"outside")
    (tree / "link-in").symlink_to("sub/file")
    (tree / "link-out").symlink_to("../secret")
    (tree / "link-absolute").symlink_to(tmp_path / "secret")
    (tree / "dir-out").symlink_to("..")
    os.mkfifo(tree / "fifo")
    (tree / "proc").symlink_to("/proc/self/root")
    fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("name", ["sub/file", b"sub/file", "link-in", "sub/../sub/file", "./sub//file"])
def test_inside_is_opened(root: int, name: str | bytes) -> None:
    fd = open_beneath(root, name)
    try:
        assert os.read(fd, 100) == b"inside"
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("../secret", errno.EXDEV),
        ("sub/../../secret", errno.EXDEV),
        ("link-out", errno.EXDEV),
        ("link-absolute", errno.EXDEV),
        ("dir-out/secret", errno.EXDEV),
        ("/etc/passwd", errno.EXDEV),
        ("proc/etc/passwd", errno.EXDEV),
        ("missing", errno.ENOENT),
        ("", errno.ENOENT),
        ("sub", errno.EISDIR),
        ("fifo", errno.EINVAL),
        ("sub/file\0.txt", errno.EINVAL),
        ("a/" * 3000, errno.ENAMETOOLONG),
        ("n" * 300, errno.ENAMETOOLONG),
    ],
)
def test_refused(root: int, name: str, error: int) -> None:
    before = open_descriptors()
    with pytest.raises(OSError) as caught:
        open_beneath(root, name)
    assert caught.value.errno == error
    assert open_descriptors() == before
