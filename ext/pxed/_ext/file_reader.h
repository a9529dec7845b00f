/* Files that are too large for a copy in memory, read as their transfers go.
 *
 * With pread(2), never through a mapping: a file that is cut meanwhile gives a short read, not a SIGBUS. The thread that
 * serves thousands of transfers takes what the page cache has (RWF_NOWAIT, preadv2(2)) and never waits for a disk. What
 * is not there, threads of our own fetch: a few for each device, so that one that hangs holds up nobody else's. File
 * systems that know no RWF_NOWAIT (NFS, FUSE) are read by those threads alone.
 */
#ifndef PXED_FILE_READER_H
#define PXED_FILE_READER_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "blob.h"
#include "thread.h"

#define PXED_LANES 8                  /* devices are dealt to these */
#define PXED_LANE_READERS 4           /* threads of a lane: disks like some requests at a time */
#define PXED_LANE_FETCHES 128         /* of a lane, asked for and kept: 64 MiB of all lanes at most */
#define PXED_LANE_KEPT 32             /* beyond so many a fetch is given up as soon as it has served one turn */
#define PXED_FETCH_BYTES 65536        /* some 44 blocks */
#define PXED_FETCH_AHEAD (1 << 20)    /* what the kernel is told to read meanwhile */

typedef struct pxed_fetch {
    struct pxed_fetch *next;          /* in its lane */
    pxed_blob *blob;
    uint64_t offset;
    size_t size;                      /* bytes read */
    int state;                        /* 0: not read yet; 1: read; -1: cannot be read */
    int refs;                         /* the transfer's and the reader's */
    uint8_t data[PXED_FETCH_BYTES];
} pxed_fetch;

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t filled;
    pxed_fetch *first, *last;
    unsigned readers, idle;
    unsigned fetches;                 /* that exist */
} pxed_lane;

static pxed_lane pxed_lanes[PXED_LANES] = {
    [0 ... PXED_LANES - 1] = {.lock = PTHREAD_MUTEX_INITIALIZER, .filled = PTHREAD_COND_INITIALIZER},
};

static inline pxed_lane *pxed_lane_of(const pxed_blob *b) { return &pxed_lanes[b->device % PXED_LANES]; }

static inline void pxed_fetch_release(pxed_fetch *f) {
    if (!f || __atomic_sub_fetch(&f->refs, 1, __ATOMIC_ACQ_REL) != 0)
        return;
    __atomic_sub_fetch(&pxed_lane_of(f->blob)->fetches, 1, __ATOMIC_RELAXED);
    pxed_blob_unref(f->blob);
    free(f);
}

static inline void pxed_fetch_now(pxed_fetch *f) {
    int state = 1;
    posix_fadvise(f->blob->fd, (off_t)f->offset, PXED_FETCH_AHEAD, POSIX_FADV_WILLNEED);
    while (f->size < PXED_FETCH_BYTES) {
        ssize_t n = pread(f->blob->fd, f->data + f->size, PXED_FETCH_BYTES - f->size, (off_t)(f->offset + f->size));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && f->size == 0)
            state = -1;
        if (n <= 0)
            break;
        f->size += (size_t)n;
    }
    __atomic_store_n(&f->state, state, __ATOMIC_RELEASE);
}

static inline void *pxed_reader_main(void *argument) {
    pxed_lane *lane = (pxed_lane *)argument;
    pxed_fetch *f;
    for (;;) {
        pthread_mutex_lock(&lane->lock);
        lane->idle++;
        while (!lane->first)
            pthread_cond_wait(&lane->filled, &lane->lock);
        lane->idle--;
        f = lane->first;
        lane->first = f->next;
        pthread_mutex_unlock(&lane->lock);
        if (__atomic_load_n(&f->refs, __ATOMIC_ACQUIRE) > 1)  /* somebody still wants it */
            pxed_fetch_now(f);
        pxed_fetch_release(f);
    }
    return NULL;
}

/* Has bytes at `offset` of `blob` read; NULL when that many are being read already, or without memory. */
static inline pxed_fetch *pxed_fetch_ask(pxed_blob *blob, uint64_t offset) {
    pxed_lane *lane = pxed_lane_of(blob);
    pxed_fetch *f;
    if (__atomic_load_n(&lane->fetches, __ATOMIC_RELAXED) >= PXED_LANE_FETCHES)
        return NULL;
    f = (pxed_fetch *)malloc(sizeof *f);
    if (!f)
        return NULL;
    memset(f, 0, offsetof(pxed_fetch, data));
    f->blob = pxed_blob_ref(blob);
    f->offset = offset;
    f->refs = 2;
    __atomic_add_fetch(&lane->fetches, 1, __ATOMIC_RELAXED);
    pthread_mutex_lock(&lane->lock);
    if (!lane->idle && lane->readers < PXED_LANE_READERS && pxed_thread_start(pxed_reader_main, lane) == 0)
        lane->readers++;
    if (!lane->readers) {
        pthread_mutex_unlock(&lane->lock);
        f->refs = 1;
        pxed_fetch_release(f);
        return NULL;
    }
    if (lane->first)
        lane->last->next = f;
    else
        lane->first = f;
    lane->last = f;
    pthread_cond_signal(&lane->filled);
    pthread_mutex_unlock(&lane->lock);
    return f;
}

enum { PXED_READ_LATER = -1, PXED_READ_FAILED = -2 };

/* Copies bytes at `offset` of `blob` to `into`: at least `least`, at most `size`; returns how many. LATER: a reader fetches
 * them, which *fetch remembers. FAILED: the file has become shorter, or an error of the disk. Never waits. */
static inline int pxed_file_read(pxed_blob *blob, pxed_fetch **fetch, uint64_t offset, uint8_t *into, size_t least,
                                 size_t size) {
    pxed_fetch *f = *fetch;
    struct iovec piece = {into, size};
    struct stat st;
    ssize_t n;
    if (f) {
        int state = __atomic_load_n(&f->state, __ATOMIC_ACQUIRE);
        uint64_t end = f->offset + f->size;
        int failed = state < 0 || (f->offset == offset && f->size < least);
        if (state == 0)
            return PXED_READ_LATER;
        if (!failed && offset >= f->offset && offset + least <= end) {
            n = (ssize_t)(size < end - offset ? size : end - offset);
            memcpy(into, f->data + (offset - f->offset), (size_t)n);
            if (offset + (size_t)n < end
                && __atomic_load_n(&pxed_lane_of(blob)->fetches, __ATOMIC_RELAXED) <= PXED_LANE_KEPT)
                return (int)n;
            *fetch = NULL;
            pxed_fetch_release(f);
            return (int)n;
        }
        *fetch = NULL;
        pxed_fetch_release(f);
        if (failed)
            return PXED_READ_FAILED;
    }
    n = preadv2(blob->fd, &piece, 1, (off_t)offset, blob->resident ? 0 : RWF_NOWAIT);
    if (n >= 0 && (size_t)n >= least)
        return (int)n;
    if (n >= 0 && fstat(blob->fd, &st) == 0 && (uint64_t)st.st_size < offset + least)
        return PXED_READ_FAILED;
    *fetch = pxed_fetch_ask(blob, offset);
    return PXED_READ_LATER;
}

#endif
