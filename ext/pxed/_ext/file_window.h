/* A stretch of a file that is too large for a copy in memory, read as a transfer comes to it.
 *
 * pread(2), never a mapping: a file that is cut meanwhile gives a short read, not a SIGBUS. The reader is a thread that
 * serves thousands of other transfers, so it takes what the page cache has (RWF_NOWAIT, preadv2(2)) and lets the kernel
 * fetch the rest meanwhile.
 */
#ifndef PXED_FILE_WINDOW_H
#define PXED_FILE_WINDOW_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>

#define PXED_WINDOW_BYTES 65536       /* some 44 blocks: what a few turns of a transfer need */
#define PXED_WINDOW_AHEAD (1 << 20)   /* what the kernel is asked to fetch */
#define PXED_WINDOW_PATIENCE 250      /* tries some 4 ms apart; then a read that waits: no cache keeps these pages */

typedef struct {
    uint8_t *data;      /* allocated by the first read */
    uint64_t at;        /* offset in the file */
    size_t size;
    uint64_t serial;    /* of the batch that slices were last given to */
    unsigned waits;
} pxed_window;

enum { PXED_WINDOW_READY, PXED_WINDOW_BUSY, PXED_WINDOW_LATER, PXED_WINDOW_FAILED };

static inline ssize_t pxed_window_pread(const pxed_window *w, int fd, uint64_t offset) {
    struct iovec piece = {w->data, PXED_WINDOW_BYTES};
    ssize_t n = -1;
    errno = EOPNOTSUPP;
    if (w->waits < PXED_WINDOW_PATIENCE)
        n = preadv2(fd, &piece, 1, (off_t)offset, RWF_NOWAIT);
    if (n < 0 && errno == EOPNOTSUPP)
        n = pread(fd, w->data, PXED_WINDOW_BYTES, (off_t)offset);
    return n;
}

/* Makes bytes offset..offset+size of `fd` available at pxed_window_slice. BUSY: batch `serial` still needs what is here;
 * LATER: the disk has not answered; FAILED: the file has become shorter, a read error, or no memory. */
static inline int pxed_window_read(pxed_window *w, int fd, uint64_t offset, size_t size, uint64_t serial) {
    struct stat st;
    ssize_t n;
    if (!w->data || offset < w->at || offset + size > w->at + w->size) {
        if (w->serial == serial)
            return PXED_WINDOW_BUSY;
        if (!w->data && !(w->data = (uint8_t *)malloc(PXED_WINDOW_BYTES)))
            return PXED_WINDOW_FAILED;
        w->size = 0;
        n = pxed_window_pread(w, fd, offset);
        if (n >= 0 && (size_t)n < size && (fstat(fd, &st) < 0 || (uint64_t)st.st_size < offset + size))
            return PXED_WINDOW_FAILED;
        if ((n < 0 && errno == EAGAIN) || (n >= 0 && (size_t)n < size && w->waits < PXED_WINDOW_PATIENCE)) {
            if (w->waits++ == 0)
                posix_fadvise(fd, (off_t)offset, PXED_WINDOW_AHEAD, POSIX_FADV_WILLNEED);
            return PXED_WINDOW_LATER;
        }
        if (n < 0 && errno == EINTR)
            return PXED_WINDOW_LATER;
        if (n < 0 || (size_t)n < size)
            return PXED_WINDOW_FAILED;
        w->at = offset;
        w->size = (size_t)n;
        w->waits = 0;
    }
    w->serial = serial;
    return PXED_WINDOW_READY;
}

static inline const uint8_t *pxed_window_slice(const pxed_window *w, uint64_t offset) { return w->data + (offset - w->at); }

#endif
