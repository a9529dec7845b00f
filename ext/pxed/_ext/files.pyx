"""Opening files below a root, so that no name can lead out of it (openat2(2), Linux 5.6 and later).

`..`, absolute names, and symbolic links that point out of the root all fail in the kernel, without a race between
check and use. Names are bytes to the kernel; a `str` is encoded as file names are (surrogateescape).
"""

import os

from libc.errno cimport EAGAIN, EINTR, EINVAL, ENAMETOOLONG, errno
from posix.fcntl cimport O_CLOEXEC, O_NONBLOCK, O_RDONLY
from posix.unistd cimport close

cdef extern from *:
    """
    #include <errno.h>
    #include <linux/openat2.h>
    #include <stdint.h>
    #include <string.h>
    #include <sys/stat.h>
    #include <sys/syscall.h>
    #include <unistd.h>

    static int pxed_open_beneath(int root, const char *path, int flags, int cached) {
        struct open_how how;
        int fd;
        memset(&how, 0, sizeof how);
        how.flags = (uint64_t)flags;
        how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | (cached ? RESOLVE_CACHED : 0u);
        fd = (int)syscall(SYS_openat2, root, path, &how, sizeof how);
        if (fd < 0 && cached && errno == EINVAL)
            errno = EAGAIN; /* before Linux 5.12 */
        return fd;
    }

    /* What fd is: 0 a regular file, else the errno that says why it is not. */
    static int pxed_regular_file_error(int fd) {
        struct stat st;
        if (fstat(fd, &st) < 0)
            return errno;
        return S_ISREG(st.st_mode) ? 0 : S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
    }
    """
    int pxed_open_beneath(int root, const char *path, int flags, int cached) nogil
    int pxed_regular_file_error(int fd) nogil

cdef enum:
    # PATH_MAX: the kernel refuses longer names as well; checked first so that a huge name is never walked.
    NAME_LIMIT = 4096
    # openat2 answers EAGAIN when a rename raced with a `..` in the name; a name that loses this often is refused.
    ATTEMPTS = 16


def open_beneath(int root_fd, name, *, bint cached=False) -> int:
    """Open the regular file `name` below the directory `root_fd`, read-only; the caller owns the descriptor.

    Raises OSError: ENOENT and so on from the kernel, EXDEV when the name leads out of the root, EISDIR for a
    directory, EINVAL for a name with a NUL byte and for a file that is neither regular nor a directory (a FIFO is
    not waited for: the file is opened with O_NONBLOCK). With `cached`, EAGAIN (BlockingIOError) when a disk would have
    to be asked where the file is.
    """
    cdef bytes path = os.fsencode(name)
    cdef const char *c_path = path
    cdef int fd = -1
    cdef int error = 0
    cdef int _attempt
    if b"\0" in path:
        error = EINVAL
    elif len(path) >= NAME_LIMIT:
        error = ENAMETOOLONG
    else:
        with nogil:
            for _attempt in range(ATTEMPTS):
                fd = pxed_open_beneath(root_fd, c_path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, cached)
                error = errno if fd < 0 else pxed_regular_file_error(fd)
                if fd >= 0 or (error != EINTR and (cached or error != EAGAIN)):
                    break
            if fd >= 0 and error != 0:
                close(fd)
    if error != 0:
        raise OSError(error, os.strerror(error), name)
    return fd
