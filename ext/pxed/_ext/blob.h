/* Bytes that never change and that any thread may hold without Python: a counted reference, no GIL.
 *
 * Large ones are a copy in a sealed memfd (memfd_create(2), F_SEAL_*): nobody can shorten or change it, so reading the
 * mapping can never raise SIGBUS whatever happens to the file it came from. Small ones are on the heap, because every
 * mapping costs the kernel a page and one of its 65,530 map entries.
 */
#ifndef PXED_BLOB_H
#define PXED_BLOB_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#define PXED_BLOB_SMALL 65536

typedef struct {
    uint8_t *data;
    size_t size;
    size_t mapped;   /* bytes of mapping; 0: data is on the heap */
    int fd;          /* the memfd until it is sealed, then -1: the mapping keeps it alive; or a file without a copy */
    unsigned device; /* of a file without a copy: a number per device, for file_reader.h */
    int resident;    /* of such a file: it is in memory anyhow (tmpfs) */
    unsigned refs;
} pxed_blob;

/* A new writable blob of `size` bytes with one reference; NULL and errno when there is no memory. */
static inline pxed_blob *pxed_blob_new(size_t size) {
    pxed_blob *b = (pxed_blob *)calloc(1, sizeof *b);
    if (!b)
        return NULL;
    b->refs = 1;
    b->size = size;
    b->fd = -1;
    if (size <= PXED_BLOB_SMALL) {
        b->data = (uint8_t *)malloc(size ? size : 1);
        if (b->data)
            return b;
        errno = ENOMEM;
    } else {
        b->fd = memfd_create("pxed-blob", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        /* posix_fallocate: a full tmpfs is an error here, not a SIGBUS at the first write. */
        if (b->fd >= 0 && (errno = posix_fallocate(b->fd, 0, (off_t)size)) == 0) {
            b->data = (uint8_t *)mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, b->fd, 0);
            if (b->data != MAP_FAILED) {
                b->mapped = size;
                return b;
            }
        }
        if (b->fd >= 0) {
            int saved = errno;
            close(b->fd);
            errno = saved;
        }
    }
    free(b);
    return NULL;
}

static inline pxed_blob *pxed_blob_ref(pxed_blob *b) {
    __atomic_add_fetch(&b->refs, 1, __ATOMIC_RELAXED);
    return b;
}

static inline void pxed_blob_unref(pxed_blob *b) {
    if (!b || __atomic_sub_fetch(&b->refs, 1, __ATOMIC_ACQ_REL) != 0)
        return;
    if (b->mapped)
        munmap(b->data, b->mapped);
    else
        free(b->data);
    if (b->fd >= 0)
        close(b->fd);
    free(b);
}

/* Cuts the blob to `size` bytes (not more than it has) and makes it immutable. 0, or -1 and errno. */
static inline int pxed_blob_seal(pxed_blob *b, size_t size) {
    int tries = 0;
    b->size = size;
    if (!b->mapped)
        return 0;
    munmap(b->data, b->mapped);
    b->mapped = 0;
    b->data = NULL;
    if (ftruncate(b->fd, (off_t)size) < 0)
        return -1;
    /* EBUSY: the kernel itself holds a page for a moment (migration, scans of memory), and has waited 0.15 s for it. */
    while (fcntl(b->fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
        if (errno != EBUSY || ++tries == 20)
            return -1;
    if (size) {
        void *at = mmap(NULL, size, PROT_READ, MAP_SHARED, b->fd, 0);
        if (at == MAP_FAILED)
            return -1;
        b->data = (uint8_t *)at;
        b->mapped = size;
    }
    close(b->fd);
    b->fd = -1;
    return 0;
}

/* Reads the whole regular file fd, from its beginning, with pread. A file that shrinks meanwhile gives a shorter blob.
 * NULL and errno; EFBIG when it is longer than `limit`. */
static inline pxed_blob *pxed_blob_read(int fd, size_t limit) {
    struct stat st;
    size_t done = 0;
    pxed_blob *b;
    if (fstat(fd, &st) < 0)
        return NULL;
    if (!S_ISREG(st.st_mode)) {
        errno = EINVAL;
        return NULL;
    }
    if ((uint64_t)st.st_size > limit) {
        errno = EFBIG;
        return NULL;
    }
    b = pxed_blob_new((size_t)st.st_size);
    while (b && done < b->size) {
        size_t want = b->size - done > (1u << 20) ? (1u << 20) : b->size - done;
        ssize_t n = pread(fd, b->data + done, want, (off_t)done);
        if (n < 0 && errno != EINTR) {
            int saved = errno;
            pxed_blob_unref(b);
            errno = saved;
            return NULL;
        }
        if (n == 0)
            break;
        if (n > 0)
            done += (size_t)n;
    }
    if (b && pxed_blob_seal(b, done) < 0) {
        int saved = errno;
        pxed_blob_unref(b);
        errno = saved;
        return NULL;
    }
    return b;
}

/* No copy: the file itself, read as transfers go (file_reader.h). `data` is NULL. NULL and errno. */
static inline pxed_blob *pxed_blob_file(int fd) {
    struct stat st;
    struct statfs fs;
    pxed_blob *b;
    if (fstat(fd, &st) < 0)
        return NULL;
    if (!S_ISREG(st.st_mode)) {
        errno = EINVAL;
        return NULL;
    }
    b = (pxed_blob *)calloc(1, sizeof *b);
    if (!b)
        return NULL;
    b->refs = 1;
    b->size = (size_t)st.st_size;
    b->resident = fstatfs(fd, &fs) == 0 && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
    b->device = major(st.st_dev) + minor(st.st_dev);
    b->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (b->fd >= 0)
        return b;
    free(b);
    return NULL;
}

/* RFC 764 by way of RFC 1350: LF becomes CR LF, CR becomes CR NUL. */
static inline pxed_blob *pxed_blob_netascii(const pxed_blob *from) {
    size_t i, n = 0;
    pxed_blob *b;
    for (i = 0; i < from->size; i++)
        n += from->data[i] == '\n' || from->data[i] == '\r';
    b = pxed_blob_new(from->size + n);
    if (!b)
        return NULL;
    for (i = n = 0; i < from->size; i++) {
        uint8_t c = from->data[i];
        if (c == '\n')
            b->data[n++] = '\r';
        b->data[n++] = c;
        if (c == '\r')
            b->data[n++] = 0;
    }
    if (pxed_blob_seal(b, n) < 0) {
        int saved = errno;
        pxed_blob_unref(b);
        errno = saved;
        return NULL;
    }
    return b;
}

#endif
