/* shuffle.h: which of several ready tasks goes next, when that is not to be the first.
 *
 * A schedule is a list of choices: one for each moment at which more than one task is ready,
 * 0 for the one that has waited longest. They are drawn at random from a seed, or given;
 * after the end of those that are given, all are 0. What was chosen is kept, so that a run
 * can be done again, and be made simpler. Knows no Python object.
 */
#ifndef SLEEPLOOP_BASE_SHUFFLE_H
#define SLEEPLOOP_BASE_SHUFFLE_H

#include "compat.h"
#include "random.h"
#include "ring.h"

/* So many are to choose from at most: to get at one is a walk along the ring. */
#define SHUFFLE_REACH 1000

struct shuffle {
    uint16_t *choices;  /* owned: those made, then those given that are still to come */
    size_t made, len, cap;
    uint64_t state;     /* of the generator */
    int drawn;          /* at random, from `state` */
    int lost;           /* there was no memory to keep one */
    uint16_t latest;    /* choice; 0 as well where there was nothing to choose */
};

static inline void
shuffle_free(struct shuffle *shuffle)
{
    if (shuffle != NULL) {
        PyMem_Free(shuffle->choices);
        PyMem_Free(shuffle);
    }
}

/* Room for one choice more. 0, or -1 without an exception set. */
static inline int
shuffle_reserve(struct shuffle *shuffle)
{
    if (shuffle->made < shuffle->cap) {
        return 0;
    }
    size_t cap = shuffle->cap + shuffle->cap / 2 + 64;
    uint16_t *choices = PyMem_Realloc(shuffle->choices, cap * sizeof *choices);
    if (choices == NULL) {
        return -1;
    }
    shuffle->choices = choices;
    shuffle->cap = cap;
    return 0;
}

/* One of 0 to n - 1. */
static inline uint16_t
shuffle_choose(struct shuffle *shuffle, size_t n)
{
    uint16_t most = (uint16_t)(n < SHUFFLE_REACH ? n : SHUFFLE_REACH), choice = 0;
    if (shuffle->drawn) {
        choice = (uint16_t)random_below(&shuffle->state, most);
    }
    else if (shuffle->made < shuffle->len) {
        choice = shuffle->choices[shuffle->made];
        choice = choice < most ? choice : most - 1;
    }
    if (shuffle_reserve(shuffle) < 0) {
        shuffle->lost = 1;
    }
    else {
        shuffle->choices[shuffle->made++] = choice;
    }
    return choice;
}

/* Takes one of the n > 0 links out of a ring. */
static inline struct link *
shuffle_pop(struct shuffle *shuffle, struct link *head, size_t n)
{
    struct link *link = head->next;
    shuffle->latest = n > 1 ? shuffle_choose(shuffle, n) : 0;
    for (size_t i = shuffle->latest; i > 0; i--) {
        link = link->next;
    }
    link_remove(link);
    return link;
}

#endif /* SLEEPLOOP_BASE_SHUFFLE_H */
