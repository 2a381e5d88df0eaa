/* timeq_driver.c: csrc/base/timerheap.h as a library for tests/test_timeq.py, with its asserts on.
 *
 * Each timer is embedded in an owner of its own, which is overwritten and freed as
 * soon as the queue has let go of it: whoever touches it later is found out.
 */
#ifdef NDEBUG
#error "the asserts are what this is for"
#endif

#include "base/compat.h"

/* Memory can be made to run short. */
static int starving;

static void *
driver_malloc(size_t size)
{
    return starving ? NULL : PyMem_Malloc(size);
}

static void *
driver_realloc(void *memory, size_t size)
{
    return starving ? NULL : PyMem_Realloc(memory, size);
}

#undef PyMem_Malloc
#undef PyMem_Realloc
#define PyMem_Malloc driver_malloc
#define PyMem_Realloc driver_realloc
#include "base/timerheap.h"
#undef PyMem_Malloc

#define EXPORT __attribute__((visibility("default")))

struct owner {
    int64_t id;
    struct timer timer;
    int64_t id_again;
};

#define OWNER_OF(t) ((struct owner *)((char *)(t) - offsetof(struct owner, timer)))

static void
owner_free(struct owner *owner)
{
    assert(!timer_armed(&owner->timer));
    memset(owner, 0xdd, sizeof *owner);
    PyMem_Free(owner);
}

EXPORT void
driver_starve(int on)
{
    starving = on;
}

EXPORT struct timerheap *
driver_new(void)
{
    return PyMem_Calloc(1, sizeof(struct timerheap));
}

/* The armed timers are the caller's to cancel first, or to free afterwards. */
EXPORT void
driver_clear(struct timerheap *q)
{
    timerheap_clear(q);
    assert(q->heap == NULL && q->slots == NULL && q->len == 0 && q->cap == 0 && q->dead == 0);
}

EXPORT void
driver_free(struct timerheap *q)
{
    driver_clear(q);
    PyMem_Free(q);
}

/* The new timer's owner; NULL when memory is short. */
EXPORT struct owner *
driver_push(struct timerheap *q, int64_t when, int64_t id)
{
    struct owner *owner = PyMem_Calloc(1, sizeof *owner);
    assert(owner != NULL);
    owner->id = owner->id_again = id;
    timer_init(&owner->timer, 0);
    if (timerheap_push(q, &owner->timer, when) < 0) {
        owner_free(owner);
        return NULL;
    }
    assert(timer_armed(&owner->timer));
    return owner;
}

EXPORT void
driver_cancel(struct timerheap *q, struct owner *owner)
{
    timerheap_cancel(q, &owner->timer);
    owner_free(owner);
}

/* An owner whose timer a driver_clear() has disarmed. */
EXPORT void
driver_free_owner(struct owner *owner)
{
    owner_free(owner);
}

EXPORT int
driver_next(struct timerheap *q, int64_t *when)
{
    return timerheap_next(q, when);
}

/* The id of the earliest timer, or -1. */
EXPORT int64_t
driver_pop(struct timerheap *q)
{
    int64_t when;
    if (!timerheap_next(q, &when)) {
        return -1;
    }
    struct owner *owner = OWNER_OF(timerheap_pop(q));
    int64_t id = owner->id;
    owner_free(owner);
    return id;
}

EXPORT size_t driver_len(const struct timerheap *q) { return q->len; }
EXPORT size_t driver_cap(const struct timerheap *q) { return q->cap; }
EXPORT size_t driver_dead(const struct timerheap *q) { return q->dead; }
EXPORT uint32_t driver_next_seq(const struct timerheap *q) { return q->next_seq; }

/* As if there had been that many pushes. */
EXPORT void
driver_set_next_seq(struct timerheap *q, uint32_t seq)
{
    assert(seq >= q->next_seq);
    q->next_seq = seq;
}

/* What is wrong with the queue; NULL when nothing is. */
static const char *
check_entries(const struct timerheap *q, unsigned char *used)
{
    size_t dead = 0;
    for (size_t i = 0; i < q->len; i++) {
        const struct timerheap_entry *entry = &q->heap[i];
        if (i > 0 && timerheap_before(entry, &q->heap[(i - 1) / 4])) {
            return "an entry comes before its parent";
        }
        if (entry->seq >= q->next_seq) {
            return "an entry's number is yet to be given";
        }
        if (entry->slot >= q->cap) {
            return "an entry's slot does not exist";
        }
        if (used[entry->slot]++) {
            return "two entries share a slot";
        }
        const struct timer *timer = q->slots[entry->slot].timer;
        if (timer == NULL) {
            dead++;
        }
        else if (timer->slot != entry->slot) {
            return "a timer does not know its slot";
        }
        else if (OWNER_OF(timer)->id != OWNER_OF(timer)->id_again) {
            return "a slot's timer has no owner any more";
        }
    }
    return dead == q->dead ? NULL : "the dead are miscounted";
}

static const char *
check_free_slots(const struct timerheap *q, unsigned char *used)
{
    size_t slot = q->first_free;
    for (size_t n = q->len; n < q->cap; n++) {
        if (slot >= q->cap) {
            return "the free list ends too early";
        }
        if (used[slot]++) {
            return "a free slot is in use, or free twice";
        }
        slot = q->slots[slot].next_free;
    }
    return NULL;
}

EXPORT const char *
driver_check(const struct timerheap *q)
{
    if (q->len > q->cap) {
        return "more entries than there is room for";
    }
    unsigned char *used = PyMem_Calloc(q->cap + 1, 1);
    assert(used != NULL);
    const char *wrong = check_entries(q, used);
    if (wrong == NULL) {
        wrong = check_free_slots(q, used);
    }
    PyMem_Free(used);
    return wrong;
}
