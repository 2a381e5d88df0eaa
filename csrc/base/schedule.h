/* schedule.h: when the ticks of a periodic schedule are due.
 *
 * Tick k is due at base + k * period, computed anew for each k, so that nothing adds up. The
 * period is a whole number of nanoseconds where it can be meant as one (0.1 s is exactly that,
 * whatever its double says); else its fraction of a nanosecond is kept beside it.
 *
 * Jitter is a random number for each tick, a function of the tick's index alone: asked for
 * again, or after others were skipped, it is the same. Knows no Python object.
 */
#ifndef SLEEPLOOP_BASE_SCHEDULE_H
#define SLEEPLOOP_BASE_SCHEDULE_H

#include "clock.h"
#include "compat.h"
#include "random.h"

struct schedule {
    int64_t base;         /* loop time of tick `base_index`, but for its jitter */
    uint64_t base_index;
    int64_t whole;        /* nanoseconds, at least 1; TIME_FOREVER: there is no second tick */
    double fraction;      /* what the period is longer than that, below 1 */
    int64_t jitter;       /* the delays are below this; 0: there are none */
    uint64_t seed;        /* of these delays */
};

/* `nearest` is `seconds` in whole nanoseconds, positive. */
static inline void
schedule_set_period(struct schedule *s, double seconds, int64_t nearest)
{
    s->whole = nearest;
    s->fraction = 0;
    if (nearest >= INT64_C(1) << 53 || (double)nearest / 1e9 == seconds || seconds < 1e-9) {
        return;  /* no double is nearer to that many nanoseconds; or it is the least there is */
    }
    double product = seconds * 1e9;
    double lost = fma(seconds, 1e9, -product);  /* in rounding: the two together are exact */
    double whole = floor(product);
    double fraction = (product - whole) + lost;
    if (fraction < 0) {
        whole -= 1;
        fraction += 1;
    }
    s->whole = (int64_t)whole;
    s->fraction = fraction;
}

/* When a tick is due that lies beyond the end of the clock. */
static inline int64_t
schedule_beyond(const struct schedule *s)
{
    return s->base == TIME_FOREVER || s->whole == TIME_FOREVER ? TIME_FOREVER : TIME_BEYOND;
}

/* Loop time at which tick k >= base_index is due; see also schedule_beyond(). Never
 * before tick k - 1, as no jitter is longer than the period. Times are subtracted as unsigned
 * numbers: a base may lie far in the past. */
static inline int64_t
schedule_due(const struct schedule *s, uint64_t k)
{
    uint64_t n = k - s->base_index, span;
    if (__builtin_mul_overflow(n, (uint64_t)s->whole, &span)) {
        return schedule_beyond(s);
    }
    if (s->fraction != 0
        && __builtin_add_overflow(span, (uint64_t)nearbyint((double)n * s->fraction), &span)) {
        return schedule_beyond(s);
    }
    if (s->base > TIME_END || span > (uint64_t)TIME_END - (uint64_t)s->base) {
        return schedule_beyond(s);
    }
    int64_t due = (int64_t)((uint64_t)s->base + span);
    return s->jitter == 0 ? due
                          : time_add(due, (int64_t)(random_at(s->seed, k) % (uint64_t)s->jitter));
}

/* The last tick that is due by `now`; tick k is. */
static inline uint64_t
schedule_latest(const struct schedule *s, uint64_t k, int64_t now)
{
    uint64_t last = s->base_index + ((uint64_t)now - (uint64_t)s->base) / (uint64_t)s->whole;
    while (k < last) {  /* tick k is due, and none after `last` is */
        uint64_t middle = last - (last - k) / 2;
        if (schedule_due(s, middle) <= now) {
            k = middle;
        }
        else {
            last = middle - 1;
        }
    }
    return k;
}

#endif /* SLEEPLOOP_BASE_SCHEDULE_H */
