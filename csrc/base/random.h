/* random.h: a small random number generator, the same on every machine.
 *
 * splitmix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
 * OOPSLA 2014. One 64-bit word of state, every seed good. Knows no Python object.
 */
#ifndef SLEEPLOOP_BASE_RANDOM_H
#define SLEEPLOOP_BASE_RANDOM_H

#include "compat.h"

static inline uint64_t
random_next(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

/* The n-th number, from 0, of those that a generator would draw from `seed` on. */
static inline uint64_t
random_at(uint64_t seed, uint64_t n)
{
    uint64_t state = seed + n * UINT64_C(0x9E3779B97F4A7C15);
    return random_next(&state);
}

/* One of 0 to n - 1; for an n far below 2^32 as good as evenly. */
static inline uint32_t
random_below(uint64_t *state, uint32_t n)
{
    return (uint32_t)(((random_next(state) >> 32) * n) >> 32);
}

#endif /* SLEEPLOOP_BASE_RANDOM_H */
