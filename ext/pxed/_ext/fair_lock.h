/* A lock between a thread that takes it again and again and others that want it now and then: whoever comes next is next.
 *
 * pthread mutexes are not fair: a thread that unlocks and locks at once keeps the others out for as long as it likes.
 * Here the next one waits inside of the door, and the busy thread has to queue at the door behind it.
 */
#ifndef PXED_FAIR_LOCK_H
#define PXED_FAIR_LOCK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <stdint.h>
#include <time.h>

typedef struct {
    pthread_mutex_t door, room;
    pthread_cond_t news;
} pxed_fair_lock;

static inline void pxed_fair_init(pxed_fair_lock *l) {
    pthread_condattr_t attributes;
    pthread_mutex_init(&l->door, NULL);
    pthread_mutex_init(&l->room, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&l->news, &attributes);
    pthread_condattr_destroy(&attributes);
}

static inline void pxed_fair_destroy(pxed_fair_lock *l) {
    pthread_cond_destroy(&l->news);
    pthread_mutex_destroy(&l->room);
    pthread_mutex_destroy(&l->door);
}

static inline void pxed_fair_lock_it(pxed_fair_lock *l) {
    pthread_mutex_lock(&l->door);
    pthread_mutex_lock(&l->room);
    pthread_mutex_unlock(&l->door);
}

static inline void pxed_fair_unlock(pxed_fair_lock *l) { pthread_mutex_unlock(&l->room); }

static inline void pxed_fair_tell(pxed_fair_lock *l) { pthread_cond_signal(&l->news); }

static inline void pxed_fair_tell_all(pxed_fair_lock *l) { pthread_cond_broadcast(&l->news); }

/* When a wait of `seconds` from now ends. */
static inline struct timespec pxed_fair_until(double seconds) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += (time_t)seconds;
    t.tv_nsec += (long)((seconds - (double)(time_t)seconds) * 1e9);
    if (t.tv_nsec >= 1000000000) {
        t.tv_nsec -= 1000000000;
        t.tv_sec++;
    }
    return t;
}

/* The holder lets go of the lock until somebody tells, and has it again then; 0 when the time is over. */
static inline int pxed_fair_wait(pxed_fair_lock *l, const struct timespec *until) {
    return pthread_cond_timedwait(&l->news, &l->room, until) == 0;
}

#endif
