/* clock.h: a loop's time, as int64 nanoseconds since its run began.
 *
 * One clock, four behaviours: real (speed 1), scaled (any other finite speed),
 * paused (speed 0), and virtual (speed inf), whose time stands still until it is made
 * to jump. All of it comes from CLOCK_MONOTONIC: a stepped wall clock moves nothing
 * here. Knows no Python object.
 */
#ifndef SLEEPLOOP_BASE_CLOCK_H
#define SLEEPLOOP_BASE_CLOCK_H

#include "compat.h"

#include <math.h>
#include <time.h>

#define NS_PER_SEC INT64_C(1000000000)
#define NS_PER_US INT64_C(1000)
#define TIME_FOREVER INT64_MAX        /* a deadline that never comes */
#define TIME_BEYOND (INT64_MAX - 1)   /* one that lies beyond the end of the clock: nor does that,
                                         but the clock may come to its end meanwhile */
#define TIME_END (INT64_MAX - 2)      /* where it stops, after 292 years */

enum clock_mode { CLOCK_REAL, CLOCK_SCALED, CLOCK_PAUSED, CLOCK_VIRTUAL };

struct clock {
    enum clock_mode mode;
    int started;     /* the run is on: time passes, if it does at this speed */
    int ticking;     /* it passes by itself */
    double speed;
    int64_t origin;  /* while ticking: the monotonic time at which loop time was `base` */
    int64_t base;    /* else: loop time */
    int64_t limit;   /* it stops there, at TIME_END if not before */
};

static inline int64_t
clock_read(clockid_t id)
{
    struct timespec ts;
    (void)clock_gettime(id, &ts);  /* cannot fail for the two clocks used here */
    return (int64_t)ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}

static inline int64_t
clock_monotonic(void)
{
    return clock_read(CLOCK_MONOTONIC);
}

/* a + b for b >= 0; more than TIME_END becomes TIME_BEYOND, if neither is for ever. */
static inline int64_t
time_add(int64_t a, int64_t b)
{
    if (a > TIME_END - b) {
        return a == TIME_FOREVER || b == TIME_FOREVER ? TIME_FOREVER : TIME_BEYOND;
    }
    return a + b;
}

/* From `then` to a later `now`, stopping at TIME_FOREVER: `then` may lie far before time 0. */
static inline int64_t
time_since(int64_t then, int64_t now)
{
    return then < now - TIME_FOREVER ? TIME_FOREVER : now - then;
}

/* Real elapsed time times a factor, rounded down. long double carries all 63
 * bits where the platform has them, so that years of uptime cost no resolution. */
static inline int64_t
time_scale(int64_t ns, long double factor)
{
    long double scaled = floorl((long double)ns * factor);
    return scaled >= (long double)TIME_FOREVER ? TIME_FOREVER : (int64_t)scaled;
}

/* Loop time while the monotonic clock reads `monotonic`. */
static inline int64_t
clock_at(const struct clock *clock, int64_t monotonic)
{
    int64_t elapsed = monotonic > clock->origin ? monotonic - clock->origin : 0;
    if (clock->mode != CLOCK_REAL) {
        elapsed = time_scale(elapsed, clock->speed);
    }
    int64_t now = time_add(clock->base, elapsed);
    return now < clock->limit ? now : clock->limit;
}

static inline int64_t
clock_now(const struct clock *clock)
{
    return clock->ticking ? clock_at(clock, clock_monotonic()) : clock->base;
}

/* A few milliseconds ago at most, for reports: a third of the price where the system
 * keeps such a clock. */
static inline int64_t
clock_about_now(const struct clock *clock)
{
#ifdef CLOCK_MONOTONIC_COARSE
    if (clock->ticking) {
        return clock_at(clock, clock_read(CLOCK_MONOTONIC_COARSE));
    }
#endif
    return clock_now(clock);
}

/* From now on it goes by what its fields say. */
static inline void
clock_rebase(struct clock *clock, int started, double speed)
{
    int64_t monotonic = clock_monotonic();
    if (clock->ticking) {
        clock->base = clock_at(clock, monotonic);
    }
    clock->origin = monotonic;
    clock->started = started;
    clock->speed = speed;
    clock->mode = isinf(speed)     ? CLOCK_VIRTUAL
                  : speed == 0.0   ? CLOCK_PAUSED
                  : speed == 1.0   ? CLOCK_REAL
                                   : CLOCK_SCALED;
    clock->ticking = started && clock->mode <= CLOCK_SCALED;
}

/* speed is not negative and not nan. */
static inline void
clock_init(struct clock *clock, double speed)
{
    *clock = (struct clock){.limit = TIME_END};
    clock_rebase(clock, 0, speed);
}

static inline void
clock_set_speed(struct clock *clock, double speed)
{
    clock_rebase(clock, clock->started, speed);
}

static inline void
clock_start(struct clock *clock)
{
    if (!clock->started) {
        clock_rebase(clock, 1, clock->speed);
    }
}

static inline void
clock_stop(struct clock *clock)
{
    clock_rebase(clock, 0, clock->speed);
}

/* Virtual time only: to `when`, never back. */
static inline void
clock_jump(struct clock *clock, int64_t when)
{
    assert(clock->mode == CLOCK_VIRTUAL);
    if (when > clock->base) {
        clock->base = when;
    }
}

/* The monotonic time at which loop time reaches `when`, for the idle wait. It
 * may be a rounding error early, never by much: the loop looks again. */
static inline int64_t
clock_real_deadline(const struct clock *clock, int64_t when)
{
    if (when == TIME_FOREVER || !clock->ticking) {
        return TIME_FOREVER;
    }
    int64_t left = when - clock->base;
    if (clock->mode == CLOCK_SCALED) {
        left = time_add(time_scale(left, 1.0L / clock->speed), 1);
    }
    return time_add(clock->origin, left > 0 ? left : 0);
}

#endif /* SLEEPLOOP_BASE_CLOCK_H */
