/* A disk that hangs, to be preloaded: reads of files of SLOW_SIZE bytes wait until the FIFO SLOW_GATE has a writer, and
 * such a file is never in the page cache. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int is_slow(int fd) {
    struct stat st;
    return fstat(fd, &st) == 0 && st.st_size == atoll(getenv("SLOW_SIZE"));
}

ssize_t pread(int fd, void *data, size_t size, off_t offset) {
    ssize_t (*real)(int, void *, size_t, off_t) = (ssize_t (*)(int, void *, size_t, off_t))dlsym(RTLD_NEXT, "pread");
    if (is_slow(fd))
        close(open(getenv("SLOW_GATE"), O_RDONLY | O_CLOEXEC));
    return real(fd, data, size, offset);
}

ssize_t preadv2(int fd, const struct iovec *pieces, int count, off_t offset, int flags) {
    ssize_t (*real)(int, const struct iovec *, int, off_t, int) =
        (ssize_t (*)(int, const struct iovec *, int, off_t, int))dlsym(RTLD_NEXT, "preadv2");
    if ((flags & RWF_NOWAIT) && is_slow(fd)) {
        errno = EAGAIN;
        return -1;
    }
    return real(fd, pieces, count, offset, flags);
}

/* What they are called where off_t has been asked to be of 64 bits, as Python's headers do. */
ssize_t pread64(int fd, void *data, size_t size, off_t offset) __attribute__((alias("pread")));
ssize_t preadv64v2(int fd, const struct iovec *pieces, int count, off_t offset, int flags)
    __attribute__((alias("preadv2")));
