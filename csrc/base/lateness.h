/* lateness.h: how late sleeps and ticks ended, in a small histogram.
 *
 * Four buckets an octave of nanoseconds, as HdrHistogram does it with more: a
 * quantile read from it is at most a quarter too high and never too low. Knows
 * no Python object.
 */
#ifndef SLEEPLOOP_BASE_LATENESS_H
#define SLEEPLOOP_BASE_LATENESS_H

#include "compat.h"

#define LATENESS_BUCKETS (4 * 63)

struct lateness {
    uint64_t count;
    int64_t max;
    uint32_t buckets[LATENESS_BUCKETS];
};

/* ns < 4 stands for itself; above, the leading bit and the two that follow. */
static inline unsigned
lateness_bucket(uint64_t ns)
{
    if (ns < 4) {
        return (unsigned)ns;
    }
    unsigned octave = 63 - (unsigned)__builtin_clzll(ns);
    return 4 * (octave - 1) + (unsigned)((ns >> (octave - 2)) & 3);
}

/* The largest value that falls into the bucket. */
static inline int64_t
lateness_bucket_top(unsigned bucket)
{
    if (bucket < 4) {
        return bucket;
    }
    unsigned octave = bucket / 4 + 1;
    uint64_t start = (UINT64_C(4) + bucket % 4) << (octave - 2);
    return (int64_t)(start + (UINT64_C(1) << (octave - 2)) - 1);
}

static inline void
lateness_add(struct lateness *late, int64_t ns)
{
    if (ns < 0) {
        ns = 0;
    }
    if (ns > late->max) {
        late->max = ns;
    }
    late->count++;
    late->buckets[lateness_bucket((uint64_t)ns)]++;
}

/* The bucket top below which at least the share q of all wake-ups lies. */
static inline int64_t
lateness_quantile(const struct lateness *late, double q)
{
    uint64_t seen = 0;
    uint64_t wanted = (uint64_t)((double)late->count * q);
    for (unsigned i = 0; i < LATENESS_BUCKETS; i++) {
        seen += late->buckets[i];
        if (seen > wanted) {
            int64_t top = lateness_bucket_top(i);
            return top < late->max ? top : late->max;
        }
    }
    return late->max;
}

#endif /* SLEEPLOOP_BASE_LATENESS_H */
