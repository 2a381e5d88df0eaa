/* timerheap.h: the timers, a 4-ary min-heap of (when, seq).
 *
 * Knows no Python object and no task: an owner embeds a `struct timer` and gets
 * that same pointer back. Keys are two C integers; `seq` counts the pushes, so
 * that equal times leave in the order in which they came.
 *
 * An entry names its timer by a slot, not by a pointer. So a timer is cancelled
 * in O(1), by emptying its slot, and its owner may die at once; and moving an
 * entry writes to the heap alone, never to 100,000 scattered owners. A dead entry
 * is dropped when it comes to the top, or when there are more dead than living
 * and the heap is rebuilt; so it never wakes anybody, and the memory is bounded
 * by the living.
 *
 * Four children a node make the heap half as deep as two, and a node's children
 * are 64 bytes side by side (D. B. Johnson, "Priority queues with update and
 * finding minimum spanning trees", Information Processing Letters 4, 1975).
 */
#ifndef SLEEPLOOP_BASE_TIMERHEAP_H
#define SLEEPLOOP_BASE_TIMERHEAP_H

#include "compat.h"

#include <stdlib.h>

#define TIMER_IDLE ((UINT32_C(1) << 31) - 1)

struct timer {
    uint32_t slot : 31;  /* TIMER_IDLE unless it is armed */
    uint32_t kind : 1;   /* which kind of owner it is embedded in; the owners' business */
};

struct timerheap_entry {
    int64_t when;
    uint32_t seq;
    uint32_t slot;
};

union timerheap_slot {
    struct timer *timer;  /* in use: borrowed; NULL: cancelled, its entry is dead */
    uintptr_t next_free;  /* free: the next free slot */
};

struct timerheap {
    struct timerheap_entry *heap;
    union timerheap_slot *slots;
    size_t len;   /* entries, dead ones included; as many slots are in use */
    size_t cap;   /* of both arrays */
    size_t dead;
    size_t first_free;  /* slot; valid while len < cap */
    uint32_t next_seq;
};

#define TIMERHEAP_MIN_CAP 64

static inline void
timer_init(struct timer *timer, unsigned kind)
{
    *timer = (struct timer){.slot = TIMER_IDLE, .kind = kind & 1};
}

static inline int
timer_armed(const struct timer *timer)
{
    return timer->slot != TIMER_IDLE;
}

static inline int
timerheap_before(const struct timerheap_entry *a, const struct timerheap_entry *b)
{
    return a->when != b->when ? a->when < b->when : a->seq < b->seq;
}

/* Moves the hole at pos up until entry fits there. */
static inline void
timerheap_sift_up(struct timerheap *q, size_t pos, struct timerheap_entry entry)
{
    while (pos > 0) {
        size_t parent = (pos - 1) / 4;
        if (!timerheap_before(&entry, &q->heap[parent])) {
            break;
        }
        q->heap[pos] = q->heap[parent];
        pos = parent;
    }
    q->heap[pos] = entry;
}

/* Moves the hole at pos down until entry fits there. */
static inline void
timerheap_sift_down(struct timerheap *q, size_t pos, struct timerheap_entry entry)
{
    for (;;) {
        size_t child = 4 * pos + 1;
        if (child >= q->len) {
            break;
        }
        size_t end = child + 4 < q->len ? child + 4 : q->len;
        size_t grandchild = 4 * child + 1;
        if (grandchild + 16 <= q->len) {  /* on their way while the children are compared */
            for (size_t i = 0; i < 16; i += 4) {
                __builtin_prefetch(&q->heap[grandchild + i]);
            }
        }
        size_t least = child;
        for (size_t i = child + 1; i < end; i++) {
            if (timerheap_before(&q->heap[i], &q->heap[least])) {
                least = i;
            }
        }
        if (!timerheap_before(&q->heap[least], &entry)) {
            break;
        }
        q->heap[pos] = q->heap[least];
        pos = least;
    }
    q->heap[pos] = entry;
}

/* Room for cap > q->cap entries. 0, or -1 (without an exception set) when there is
 * no memory; nothing is lost then. */
static int
timerheap_grow(struct timerheap *q, size_t cap)
{
    if (cap >= TIMER_IDLE) {  /* a slot number has 31 bits */
        return -1;
    }
    struct timerheap_entry *heap = PyMem_Realloc(q->heap, cap * sizeof *heap);
    if (heap == NULL) {
        return -1;
    }
    q->heap = heap;
    union timerheap_slot *slots = PyMem_Realloc(q->slots, cap * sizeof *slots);
    if (slots == NULL) {
        return -1;  /* a heap that is larger than `cap` says does no harm */
    }
    q->slots = slots;
    assert(q->len == q->cap);  /* no slot was free, so the free ones are just the new */
    for (size_t i = q->cap; i < cap; i++) {
        slots[i].next_free = i + 1;
    }
    q->first_free = q->cap;
    q->cap = cap;
    return 0;
}

/* Gives memory back, if there is the memory to do so: new arrays, and for every
 * entry a new slot. */
static void
timerheap_shrink(struct timerheap *q, size_t cap)
{
    struct timerheap_entry *heap = PyMem_Malloc(cap * sizeof *heap);
    union timerheap_slot *slots = PyMem_Malloc(cap * sizeof *slots);
    if (heap == NULL || slots == NULL) {
        PyMem_Free(heap);
        PyMem_Free(slots);
        return;
    }
    assert(q->len <= cap);
    for (size_t i = 0; i < q->len; i++) {
        heap[i] = q->heap[i];
        slots[i] = q->slots[heap[i].slot];
        heap[i].slot = (uint32_t)i;
        if (slots[i].timer != NULL) {
            slots[i].timer->slot = (uint32_t)i & TIMER_IDLE;
        }
    }
    for (size_t i = q->len; i < cap; i++) {
        slots[i].next_free = i + 1;
    }
    q->first_free = q->len;
    q->cap = cap;
    PyMem_Free(q->heap);
    PyMem_Free(q->slots);
    q->heap = heap;
    q->slots = slots;
}

static inline void
timerheap_free_slot(struct timerheap *q, uint32_t slot)
{
    q->slots[slot].next_free = q->first_free;
    q->first_free = slot;
}

/* Drops the dead entries. Linear, and due when they outnumber the living: O(1) for
 * each timer that was cancelled. */
static void
timerheap_drop_dead(struct timerheap *q)
{
    size_t living = 0;
    for (size_t i = 0; i < q->len; i++) {
        if (q->slots[q->heap[i].slot].timer != NULL) {
            q->heap[living++] = q->heap[i];
        }
        else {
            timerheap_free_slot(q, q->heap[i].slot);
        }
    }
    q->len = living;
    q->dead = 0;
    for (size_t i = living / 4 + 1; i-- > 0;) {  /* from the last parent up: a heap again */
        if (i < living) {
            timerheap_sift_down(q, i, q->heap[i]);
        }
    }
}

static int
timerheap_compare(const void *a, const void *b)
{
    return timerheap_before(a, b) ? -1 : timerheap_before(b, a);
}

/* Once in 2^32 pushes: numbers the entries anew. Sorted is also heap-ordered. */
static void
timerheap_renumber(struct timerheap *q)
{
    qsort(q->heap, q->len, sizeof *q->heap, timerheap_compare);
    for (size_t i = 0; i < q->len; i++) {
        q->heap[i].seq = (uint32_t)i;
    }
    q->next_seq = (uint32_t)q->len;
}

/* Arms an idle timer. 0, or -1 (without an exception set) when memory is short. */
static inline int
timerheap_push(struct timerheap *q, struct timer *timer, int64_t when)
{
    assert(!timer_armed(timer));
    if (q->len == q->cap
        && timerheap_grow(q, q->cap == 0 ? TIMERHEAP_MIN_CAP : q->cap + q->cap / 2) < 0) {
        return -1;
    }
    if (q->next_seq == UINT32_MAX) {
        timerheap_renumber(q);
    }
    uint32_t slot = (uint32_t)q->first_free;
    q->first_free = q->slots[slot].next_free;
    q->slots[slot].timer = timer;
    timer->slot = slot & TIMER_IDLE;
    q->len++;
    timerheap_sift_up(q, q->len - 1,
                  (struct timerheap_entry){.when = when, .seq = q->next_seq++, .slot = slot});
    return 0;
}

/* Keeps the dead from outnumbering the living, and the arrays from being too large. */
static inline void
timerheap_tidy(struct timerheap *q)
{
    if (q->dead > q->len / 2 && q->dead > TIMERHEAP_MIN_CAP / 2) {
        timerheap_drop_dead(q);
    }
    if (q->len < q->cap / 4 && q->cap > TIMERHEAP_MIN_CAP) {
        timerheap_shrink(q, q->cap / 2);
    }
}

/* Disarms an armed timer; its owner may die from now on. */
static inline void
timerheap_cancel(struct timerheap *q, struct timer *timer)
{
    assert(timer->slot < q->cap && q->slots[timer->slot].timer == timer);
    q->slots[timer->slot].timer = NULL;
    timer->slot = TIMER_IDLE;
    q->dead++;
    timerheap_tidy(q);
}

/* Takes the top entry out of the heap, dead or alive. */
static inline void
timerheap_drop_first(struct timerheap *q)
{
    timerheap_free_slot(q, q->heap[0].slot);
    q->len--;
    if (q->len > 0) {
        timerheap_sift_down(q, 0, q->heap[q->len]);
    }
}

static void
timerheap_drop_dead_first(struct timerheap *q)
{
    do {
        timerheap_drop_first(q);
        q->dead--;
    } while (q->len > 0 && q->slots[q->heap[0].slot].timer == NULL);
}

/* When the earliest living timer will fire. 0 if there is none, else 1. */
static inline int
timerheap_next(struct timerheap *q, int64_t *when)
{
    if (q->len > 0 && q->slots[q->heap[0].slot].timer == NULL) {
        timerheap_drop_dead_first(q);
    }
    if (q->len == 0) {
        return 0;
    }
    *when = q->heap[0].when;
    return 1;
}

/* Takes the earliest living timer, disarmed; timerheap_next() has just said 1. */
static inline struct timer *
timerheap_pop(struct timerheap *q)
{
    struct timer *timer = q->slots[q->heap[0].slot].timer;
    timer->slot = TIMER_IDLE;
    timerheap_drop_first(q);
    timerheap_tidy(q);
    return timer;
}

/* Looks ahead: a timer near the top, or NULL; i = 0 is the first, 1 to 4 are those
 * of which one will be second. */
static inline struct timer *
timerheap_glance(const struct timerheap *q, size_t i)
{
    return i < q->len ? q->slots[q->heap[i].slot].timer : NULL;
}

/* Disarms every timer and gives the memory back. */
static inline void
timerheap_clear(struct timerheap *q)
{
    for (size_t i = 0; i < q->len; i++) {
        struct timer *timer = q->slots[q->heap[i].slot].timer;
        if (timer != NULL) {
            timer->slot = TIMER_IDLE;
        }
    }
    PyMem_Free(q->heap);
    PyMem_Free(q->slots);
    *q = (struct timerheap){0};
}

#endif /* SLEEPLOOP_BASE_TIMERHEAP_H */
