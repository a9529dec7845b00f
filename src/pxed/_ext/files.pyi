"""Opening files below a root, so that no name can lead out of it (openat2)."""

def open_beneath(root_fd: int, name: str | bytes, *, cached: bool = False) -> int:
    """Open the regular file `name` below the directory `root_fd`, read-only; the caller owns the descriptor.

    Raises OSError: the kernel's errno, EXDEV when the name leads out, EISDIR for a directory, EINVAL for a NUL byte
    in the name or a file that is not regular. With `cached`, EAGAIN (BlockingIOError) when a disk would have to be
    asked where the file is.
    """
