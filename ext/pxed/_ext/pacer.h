/* A token bucket that several threads may share: one word of state, changed by compare-and-swap.
 *
 * The word is a time: when a line of this rate would have carried all that was taken so far. It may lie in the past by
 * at most the depth of the bucket, and never in the future. So in any time t no more than rate * t + burst passes.
 */
#ifndef PXED_PACER_H
#define PXED_PACER_H

#include <stdint.h>

typedef struct {
    uint64_t rate;      /* bytes per second; 0: no limit */
    uint64_t depth;     /* ns that the line may have stood idle and catch up with */
    uint64_t carried;   /* ns */
} pxed_pacer;

/* What a bucket holds: line time for a thread that sleeps between two sends, and never less than a few datagrams. */
#define PXED_PACER_DEPTH UINT64_C(2000000)
#define PXED_PACER_LEAST_BURST UINT64_C(32768)

static inline uint64_t pxed_pacer_time(uint64_t rate, uint64_t bytes) {
    return (bytes * UINT64_C(1000000000) + rate - 1) / rate;
}

/* May be called while others take. */
static inline void pxed_pacer_set_rate(pxed_pacer *p, uint64_t rate) {
    uint64_t least = rate ? pxed_pacer_time(rate, PXED_PACER_LEAST_BURST) : 0;
    __atomic_store_n(&p->depth, least > PXED_PACER_DEPTH ? least : PXED_PACER_DEPTH, __ATOMIC_RELAXED);
    __atomic_store_n(&p->rate, rate, __ATOMIC_RELAXED);
}

static inline uint64_t pxed_pacer_burst(const pxed_pacer *p) {
    return (uint64_t)((double)p->rate * (double)p->depth / 1e9);
}

/* Whether `bytes` may leave now; they count as sent then. More than the burst at once costs what the burst does. */
static inline int pxed_pacer_take(pxed_pacer *p, uint64_t bytes, uint64_t now) {
    uint64_t rate = __atomic_load_n(&p->rate, __ATOMIC_RELAXED);
    uint64_t depth = __atomic_load_n(&p->depth, __ATOMIC_RELAXED);
    uint64_t carried, cost, from;
    if (!rate)
        return 1;
    cost = pxed_pacer_time(rate, bytes);
    if (cost > depth)
        cost = depth;
    carried = __atomic_load_n(&p->carried, __ATOMIC_RELAXED);
    do {
        from = now > depth && carried < now - depth ? now - depth : carried;
        if (from + cost > now)
            return 0;
    } while (!__atomic_compare_exchange_n(&p->carried, &carried, from + cost, 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return 1;
}

/* Of a `take` that came to nothing. */
static inline void pxed_pacer_give_back(pxed_pacer *p, uint64_t bytes) {
    uint64_t rate = __atomic_load_n(&p->rate, __ATOMIC_RELAXED);
    uint64_t depth = __atomic_load_n(&p->depth, __ATOMIC_RELAXED);
    uint64_t cost = rate ? pxed_pacer_time(rate, bytes) : 0;
    __atomic_sub_fetch(&p->carried, cost > depth ? depth : cost, __ATOMIC_RELAXED);
}

/* When it is worth coming back after a refused `take`: half the bucket is full then. */
static inline uint64_t pxed_pacer_ready_at(const pxed_pacer *p) {
    if (!__atomic_load_n(&p->rate, __ATOMIC_RELAXED))
        return 0;
    return __atomic_load_n(&p->carried, __ATOMIC_RELAXED) + __atomic_load_n(&p->depth, __ATOMIC_RELAXED) / 2;
}

#endif
