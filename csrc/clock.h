/* clock.h: a loop's time, as int64 nanoseconds since its run began.
 *
 * One clock, three behaviours: real (speed 1), scaled (any other finite speed)
 * and virtual (speed inf), whose time stands still until it is made to jump.
 * All of it comes from CLOCK_MONOTONIC: a stepped wall clock moves nothing here.
 * Knows no Python object.
 */
#ifndef SLEEPLOOP_CLOCK_H
#define SLEEPLOOP_CLOCK_H

#include "compat.h"

#include <math.h>
#include <time.h>

#define NS_PER_SEC INT64_C(1000000000)
#define NS_PER_US INT64_C(1000)
#define TIME_FOREVER INT64_MAX  /* a deadline that never comes */

enum clock_mode { CLOCK_REAL, CLOCK_SCALED, CLOCK_VIRTUAL };

struct clock {
    enum clock_mode mode;
    int running;
    double speed;
    int64_t origin;  /* the monotonic time at which loop time was 0 */
    int64_t frozen;  /* loop time while virtual, before the run (0) and after it */
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

/* a + b for b >= 0, stopping at TIME_FOREVER. */
static inline int64_t
time_add(int64_t a, int64_t b)
{
    return a > TIME_FOREVER - b ? TIME_FOREVER : a + b;
}

/* Real elapsed time times a factor, rounded down. long double carries all 63
 * bits where the platform has them, so that years of uptime cost no resolution. */
static inline int64_t
time_scale(int64_t ns, long double factor)
{
    long double scaled = floorl((long double)ns * factor);
    return scaled >= (long double)TIME_FOREVER ? TIME_FOREVER : (int64_t)scaled;
}

/* speed is positive and not nan. */
static inline void
clock_init(struct clock *clock, double speed)
{
    *clock = (struct clock){
        .mode = isinf(speed) ? CLOCK_VIRTUAL : speed == 1.0 ? CLOCK_REAL : CLOCK_SCALED,
        .speed = speed,
    };
}

/* Loop time while the monotonic clock reads `monotonic`. */
static inline int64_t
clock_at(const struct clock *clock, int64_t monotonic)
{
    int64_t elapsed = monotonic - clock->origin;
    return clock->mode == CLOCK_REAL ? elapsed : time_scale(elapsed, clock->speed);
}

static inline int64_t
clock_now(const struct clock *clock)
{
    if (clock->mode == CLOCK_VIRTUAL || !clock->running) {
        return clock->frozen;
    }
    return clock_at(clock, clock_monotonic());
}

/* A few milliseconds ago at most, for reports: a third of the price where the system
 * keeps such a clock. */
static inline int64_t
clock_about_now(const struct clock *clock)
{
#ifdef CLOCK_MONOTONIC_COARSE
    if (clock->mode != CLOCK_VIRTUAL && clock->running) {
        int64_t now = clock_at(clock, clock_read(CLOCK_MONOTONIC_COARSE));
        return now > 0 ? now : 0;
    }
#endif
    return clock_now(clock);
}

static inline void
clock_start(struct clock *clock)
{
    clock->origin = clock_monotonic();
    clock->running = 1;
}

static inline void
clock_stop(struct clock *clock)
{
    clock->frozen = clock_now(clock);
    clock->running = 0;
}

/* Virtual time only: to `when`, never back. */
static inline void
clock_jump(struct clock *clock, int64_t when)
{
    assert(clock->mode == CLOCK_VIRTUAL);
    if (when > clock->frozen) {
        clock->frozen = when;
    }
}

/* The monotonic time at which loop time reaches `when`, for the idle wait. It
 * may be a rounding error early, never by much: the loop looks again. */
static inline int64_t
clock_real_deadline(const struct clock *clock, int64_t when)
{
    if (when == TIME_FOREVER) {
        return TIME_FOREVER;
    }
    if (clock->mode == CLOCK_SCALED) {
        int64_t real = time_scale(when, 1.0L / clock->speed);
        when = time_add(real, 1);
    }
    return time_add(clock->origin, when);
}

#endif /* SLEEPLOOP_CLOCK_H */
