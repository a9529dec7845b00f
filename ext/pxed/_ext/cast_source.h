/* The frames of an image where they lie: mapped packs, without a copy, held by counted references and no GIL.
 *
 * Only the kernel reads the mapping (sendmsg(2)): a page that cannot be read is EFAULT there and never a SIGBUS here. What
 * user space needs of a frame (parity) it preads. A thread of each source brings frames into memory before they are sent, so
 * that the thread that serves everybody does not wait for a disk; it also finds out which frames cannot be read.
 * Packs are append-only and may be unlinked meanwhile; one that is cut off all the same costs its frames, nothing else.
 */
#ifndef PXED_CAST_SOURCE_H
#define PXED_CAST_SOURCE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "thread.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22        /* Linux 5.14 */
#endif

#define PXED_CAST_ASKED 64           /* frames that wait for the reader; beyond that nobody needs them soon */

typedef struct {
    const uint8_t *data;
    size_t size;                     /* of the mapping */
    uint64_t end;                    /* of the file, as it was found last */
    int fd;
} pxed_cast_pack;

typedef struct {
    uint64_t offset;
    uint32_t stored;
    uint32_t pack;
} pxed_cast_frame;

/* Of a frame. Those that cannot be read stay so; what is stored of them is BAD + errno (ENODATA: the pack is cut off). */
enum { PXED_FRAME_COLD, PXED_FRAME_ASKED, PXED_FRAME_READY, PXED_FRAME_BAD };

typedef struct {
    unsigned refs;
    int read_ahead;                  /* 0: every frame counts as ready */
    uint32_t packs, frames, room;
    uint64_t bytes;
    pxed_cast_pack *pack;
    pxed_cast_frame *frame;
    uint8_t *state;
    pthread_mutex_t lock;            /* guards what follows */
    pthread_cond_t filled;
    uint32_t asked[PXED_CAST_ASKED];
    unsigned first, count;
    int reading, closed;             /* the thread runs; nobody holds the source */
} pxed_cast_source;

static inline pxed_cast_source *pxed_cast_source_new(int read_ahead) {
    pxed_cast_source *s = (pxed_cast_source *)calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->refs = 1;
    s->read_ahead = read_ahead;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->filled, NULL);
    return s;
}

static inline void pxed_cast_source_free(pxed_cast_source *s) {
    uint32_t i;
    for (i = 0; i < s->packs; i++) {
        munmap((void *)s->pack[i].data, s->pack[i].size);
        close(s->pack[i].fd);
    }
    pthread_cond_destroy(&s->filled);
    pthread_mutex_destroy(&s->lock);
    free(s->pack);
    free(s->frame);
    free(s->state);
    free(s);
}

static inline pxed_cast_source *pxed_cast_source_ref(pxed_cast_source *s) {
    __atomic_add_fetch(&s->refs, 1, __ATOMIC_RELAXED);
    return s;
}

/* The last reference leaves the freeing to the reader if there is one. */
static inline void pxed_cast_source_unref(pxed_cast_source *s) {
    int reading;
    if (!s || __atomic_sub_fetch(&s->refs, 1, __ATOMIC_ACQ_REL) != 0)
        return;
    pthread_mutex_lock(&s->lock);
    s->closed = 1;
    reading = s->reading;
    pthread_cond_signal(&s->filled);
    pthread_mutex_unlock(&s->lock);
    if (!reading)
        pxed_cast_source_free(s);
}

/* Maps a whole pack; `fd` stays the caller's. Its number, or -1 and errno. */
static inline int pxed_cast_add_pack(pxed_cast_source *s, int fd) {
    pxed_cast_pack *more = (pxed_cast_pack *)realloc(s->pack, (s->packs + 1) * sizeof *more);
    pxed_cast_pack *p;
    struct stat st;
    void *at;
    if (!more)
        return -1;
    s->pack = more;
    p = &more[s->packs];
    if (fstat(fd, &st) < 0)
        return -1;
    if (!S_ISREG(st.st_mode) || st.st_size == 0) {
        errno = EINVAL;
        return -1;
    }
    at = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        return -1;
    p->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (p->fd < 0) {
        munmap(at, (size_t)st.st_size);
        return -1;
    }
    p->data = (const uint8_t *)at;
    p->size = (size_t)st.st_size;
    p->end = (uint64_t)st.st_size;
    return (int)s->packs++;
}

/* The next frame: `stored` bytes at `offset` of pack number `pack`. 0, or -1 and errno: ENODATA when the pack is shorter. */
static inline int pxed_cast_add_frame(pxed_cast_source *s, uint32_t pack, uint64_t offset, uint32_t stored) {
    if (s->frames == s->room) {
        uint32_t room = s->room ? s->room * 2 : 256;
        pxed_cast_frame *frame = (pxed_cast_frame *)realloc(s->frame, room * sizeof *frame);
        uint8_t *state;
        if (!frame)
            return -1;
        s->frame = frame;
        state = (uint8_t *)realloc(s->state, room);
        if (!state)
            return -1;
        s->state = state;
        s->room = room;
    }
    if (offset > s->pack[pack].size || stored > s->pack[pack].size - offset) {
        errno = ENODATA;
        return -1;
    }
    s->state[s->frames] = s->read_ahead ? PXED_FRAME_COLD : PXED_FRAME_READY;
    s->frame[s->frames++] = (pxed_cast_frame){offset, stored, pack};
    s->bytes += stored;
    return 0;
}

static inline const uint8_t *pxed_cast_frame_data(const pxed_cast_source *s, uint32_t i) {
    return s->pack[s->frame[i].pack].data + s->frame[i].offset;
}

static inline uint32_t pxed_cast_frame_stored(const pxed_cast_source *s, uint32_t i) { return s->frame[i].stored; }

static inline int pxed_cast_frame_state(const pxed_cast_source *s, uint32_t i) {
    int state = __atomic_load_n(&s->state[i], __ATOMIC_ACQUIRE);
    return state < PXED_FRAME_BAD ? state : PXED_FRAME_BAD;
}

/* Copies a frame. 0, or an errno; ENODATA: the pack has been cut off. */
static inline int pxed_cast_frame_read(const pxed_cast_source *s, uint32_t i, uint8_t *into) {
    const pxed_cast_frame *f = &s->frame[i];
    uint32_t done = 0;
    while (done < f->stored) {
        ssize_t n = pread(s->pack[f->pack].fd, into + done, f->stored - done, (off_t)(f->offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno;
        if (n == 0)
            return ENODATA;
        done += (uint32_t)n;
    }
    return 0;
}

/* Whether a frame's pack still reaches to its end. The page in which a file ends can be read to its own end, as zeros. */
static inline int pxed_cast_frame_is_whole(const pxed_cast_source *s, uint32_t i, uint64_t *end) {
    const pxed_cast_frame *f = &s->frame[i];
    struct stat st;
    if (fstat(s->pack[f->pack].fd, &st) < 0)
        return 1;                    /* not so on any file system of a disk; sending it says what it is */
    *end = (uint64_t)st.st_size;
    return f->offset + f->stored <= *end;
}

/* Brings a frame into memory and the page tables. 0, or an errno. */
static inline int pxed_cast_frame_fetch(const pxed_cast_source *s, uint32_t i) {
    const pxed_cast_frame *f = &s->frame[i];
    uint64_t from = f->offset & ~(uint64_t)(sysconf(_SC_PAGESIZE) - 1);
    uint64_t end;
    uint8_t *copy;
    int error;
    if (!pxed_cast_frame_is_whole(s, i, &end))
        return ENODATA;
    if (madvise((void *)(s->pack[f->pack].data + from), (size_t)(f->offset + f->stored - from), MADV_POPULATE_READ) == 0)
        return 0;
    /* An older kernel, or a bad page: reading it says which. */
    copy = (uint8_t *)malloc(f->stored);
    error = copy ? pxed_cast_frame_read(s, i, copy) : ENOMEM;
    free(copy);
    return error;
}

static inline void pxed_cast_frame_failed(pxed_cast_source *s, uint32_t i, int error) {
    __atomic_store_n(&s->state[i], (uint8_t)(PXED_FRAME_BAD + error), __ATOMIC_RELEASE);
}

/* The errno of a frame that cannot be read. */
static inline int pxed_cast_frame_error(const pxed_cast_source *s, uint32_t i) {
    return __atomic_load_n(&s->state[i], __ATOMIC_ACQUIRE) - PXED_FRAME_BAD;
}

static inline void pxed_cast_fetch_all(pxed_cast_source *s, const uint32_t *asked, unsigned count) {
    unsigned i;
    for (i = 0; i < count; i++) {  /* the disk sees them all at once */
        const pxed_cast_frame *f = &s->frame[asked[i]];
        posix_fadvise(s->pack[f->pack].fd, (off_t)f->offset, (off_t)f->stored, POSIX_FADV_WILLNEED);
    }
    for (i = 0; i < count; i++) {
        int error = pxed_cast_frame_fetch(s, asked[i]);
        if (error)
            pxed_cast_frame_failed(s, asked[i], error);
        else
            __atomic_store_n(&s->state[asked[i]], (uint8_t)PXED_FRAME_READY, __ATOMIC_RELEASE);
    }
}

static inline void *pxed_cast_reader_main(void *argument) {
    pxed_cast_source *s = (pxed_cast_source *)argument;
    uint32_t asked[PXED_CAST_ASKED];
    unsigned i, count;
    for (;;) {
        pthread_mutex_lock(&s->lock);
        while (!s->count && !s->closed)
            pthread_cond_wait(&s->filled, &s->lock);
        count = s->closed ? 0 : s->count;
        for (i = 0; i < count; i++)
            asked[i] = s->asked[(s->first + i) % PXED_CAST_ASKED];
        s->first = (s->first + count) % PXED_CAST_ASKED;
        s->count = 0;
        pthread_mutex_unlock(&s->lock);
        if (!count)
            break;
        pxed_cast_fetch_all(s, asked, count);
    }
    pxed_cast_source_free(s);
    return NULL;
}

/* A frame is wanted soon: the state it is in. Never waits. */
static inline int pxed_cast_frame_ask(pxed_cast_source *s, uint32_t i) {
    int state = pxed_cast_frame_state(s, i);
    if (state != PXED_FRAME_COLD)
        return state;
    pthread_mutex_lock(&s->lock);
    if (!s->reading)
        s->reading = pxed_thread_start(pxed_cast_reader_main, s) == 0;
    if (s->reading && s->count < PXED_CAST_ASKED) {
        s->asked[(s->first + s->count++) % PXED_CAST_ASKED] = i;
        s->state[i] = state = PXED_FRAME_ASKED;
        pthread_cond_signal(&s->filled);
    }
    pthread_mutex_unlock(&s->lock);
    return state;
}

/* It was sent: it may have left memory when it is wanted again. */
static inline void pxed_cast_frame_sent(pxed_cast_source *s, uint32_t i) {
    uint8_t ready = PXED_FRAME_READY;
    if (s->read_ahead)
        __atomic_compare_exchange_n(&s->state[i], &ready, PXED_FRAME_COLD, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

/* The kernel could not read a frame's bytes though they had been in memory: the state it is in. When its pack has been cut
 * off, the others behind that end are as bad. Else it is the disk's, and the reader will find out. For who sends; it is
 * not called by two threads at a time. */
static inline int pxed_cast_frame_faulted(pxed_cast_source *s, uint32_t i) {
    uint32_t pack = s->frame[i].pack, other;
    uint64_t end = 0;
    if (pxed_cast_frame_state(s, i) == PXED_FRAME_BAD)
        return PXED_FRAME_BAD;
    if (pxed_cast_frame_is_whole(s, i, &end)) {
        if (!s->read_ahead)
            pxed_cast_frame_failed(s, i, EFAULT);
        pxed_cast_frame_sent(s, i);
    } else if (end < s->pack[pack].end) {
        s->pack[pack].end = end;
        for (other = 0; other < s->frames; other++)
            if (s->frame[other].pack == pack && s->frame[other].offset + s->frame[other].stored > end)
                pxed_cast_frame_failed(s, other, ENODATA);
    } else {
        pxed_cast_frame_failed(s, i, ENODATA);   /* the reader had it in memory, and said so after that */
    }
    return pxed_cast_frame_state(s, i);
}

#endif
