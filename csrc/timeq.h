/* timeq.h: the timers, a 4-ary min-heap of (when, seq, timer).
 *
 * Knows no Python object and no task: an owner embeds a `struct timer` and gets
 * that same pointer back. Keys are two C integers; `seq` counts the pushes, so
 * that equal times leave in the order in which they came. Every entry tells its
 * timer where it stands, so a cancelled timer is taken out at once: it holds no
 * memory, wakes nobody and never makes a virtual clock jump.
 *
 * Four children a node make the heap half as deep as two, and a node's children
 * lie side by side (D. B. Johnson, "Priority queues with update and finding
 * minimum spanning trees", Information Processing Letters 4, 1975).
 */
#ifndef SLEEPLOOP_TIMEQ_H
#define SLEEPLOOP_TIMEQ_H

#include "compat.h"

#define TIMER_IDLE UINT32_MAX

struct timer {
    uint32_t pos;  /* index in the heap, or TIMER_IDLE */
};

struct timeq_entry {
    int64_t when;
    uint64_t seq;
    struct timer *timer;  /* borrowed: an owner removes its timer before it dies */
};

struct timeq {
    struct timeq_entry *heap;
    size_t len, cap;
    uint64_t next_seq;
};

#define TIMEQ_MIN_CAP 16

static inline void
timer_init(struct timer *timer)
{
    timer->pos = TIMER_IDLE;
}

static inline int
timer_armed(const struct timer *timer)
{
    return timer->pos != TIMER_IDLE;
}

static inline int
timeq_before(const struct timeq_entry *a, const struct timeq_entry *b)
{
    return a->when != b->when ? a->when < b->when : a->seq < b->seq;
}

static inline void
timeq_place(struct timeq *q, size_t pos, struct timeq_entry entry)
{
    q->heap[pos] = entry;
    entry.timer->pos = (uint32_t)pos;
}

/* Moves the hole at pos up until entry fits there. */
static inline void
timeq_sift_up(struct timeq *q, size_t pos, struct timeq_entry entry)
{
    while (pos > 0) {
        size_t parent = (pos - 1) / 4;
        if (!timeq_before(&entry, &q->heap[parent])) {
            break;
        }
        timeq_place(q, pos, q->heap[parent]);
        pos = parent;
    }
    timeq_place(q, pos, entry);
}

/* Moves the hole at pos down until entry fits there. */
static inline void
timeq_sift_down(struct timeq *q, size_t pos, struct timeq_entry entry)
{
    for (;;) {
        size_t child = 4 * pos + 1;
        if (child >= q->len) {
            break;
        }
        size_t end = child + 4 < q->len ? child + 4 : q->len;
        size_t least = child;
        for (size_t i = child + 1; i < end; i++) {
            if (timeq_before(&q->heap[i], &q->heap[least])) {
                least = i;
            }
        }
        if (!timeq_before(&q->heap[least], &entry)) {
            break;
        }
        timeq_place(q, pos, q->heap[least]);
        pos = least;
    }
    timeq_place(q, pos, entry);
}

/* 0, or -1 (without an exception set) when there is no memory for cap entries;
 * the heap is then as it was. */
static int
timeq_resize(struct timeq *q, size_t cap)
{
    if (cap > TIMER_IDLE) {  /* a position has 32 bits */
        return -1;
    }
    struct timeq_entry *heap = PyMem_Realloc(q->heap, cap * sizeof *heap);
    if (heap == NULL) {
        return -1;
    }
    q->heap = heap;
    q->cap = cap;
    return 0;
}

/* Arms an idle timer. 0, or -1 (without an exception set) when memory is short. */
static inline int
timeq_push(struct timeq *q, struct timer *timer, int64_t when)
{
    assert(!timer_armed(timer));
    if (q->len == q->cap
        && timeq_resize(q, q->cap < TIMEQ_MIN_CAP ? TIMEQ_MIN_CAP : q->cap + q->cap / 2) < 0) {
        return -1;
    }
    q->len++;
    timeq_sift_up(q, q->len - 1,
                  (struct timeq_entry){.when = when, .seq = q->next_seq++, .timer = timer});
    return 0;
}

/* Disarms an armed timer. */
static inline void
timeq_remove(struct timeq *q, struct timer *timer)
{
    size_t pos = timer->pos;
    assert(pos < q->len && q->heap[pos].timer == timer);
    struct timeq_entry last = q->heap[--q->len];
    timer->pos = TIMER_IDLE;
    if (pos < q->len) {  /* the last entry fills the gap, and may belong above or below it */
        if (pos > 0 && timeq_before(&last, &q->heap[(pos - 1) / 4])) {
            timeq_sift_up(q, pos, last);
        }
        else {
            timeq_sift_down(q, pos, last);
        }
    }
    if (q->len < q->cap / 4 && q->cap > TIMEQ_MIN_CAP) {
        (void)timeq_resize(q, q->cap / 2);  /* shrinking is a kindness: no harm if it fails */
    }
}

/* The earliest entry, or NULL; valid until the heap changes. */
static inline const struct timeq_entry *
timeq_peek(const struct timeq *q)
{
    return q->len > 0 ? &q->heap[0] : NULL;
}

/* When an armed timer will fire. */
static inline int64_t
timeq_when(const struct timeq *q, const struct timer *timer)
{
    assert(timer->pos < q->len && q->heap[timer->pos].timer == timer);
    return q->heap[timer->pos].when;
}

/* Disarms every timer and gives the memory back. */
static inline void
timeq_clear(struct timeq *q)
{
    for (size_t i = 0; i < q->len; i++) {
        q->heap[i].timer->pos = TIMER_IDLE;
    }
    PyMem_Free(q->heap);
    q->heap = NULL;
    q->len = q->cap = 0;
}

#endif /* SLEEPLOOP_TIMEQ_H */
