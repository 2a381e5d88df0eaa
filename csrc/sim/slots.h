/* slots.h: a resource's slots: who has which, and who gets the next one.
 *
 * Slots are numbered from 0, and who comes gets the lowest free one. While somebody waits, none is
 * free: what is given back goes to the first in the queue in the same moment. The queue is a heap
 * in which the tasks stand by their timers, which nobody else needs while they wait: the most
 * urgent first, and first in, first out among equals.
 *
 * A request is its own awaitable: it begins with a WaitObject. Once its task knows that it has a
 * slot, the resource owns it, so that a slot is never free because somebody let go of a reference.
 * Before, it does not: a grant that nobody ever learns of dies with its request, and is undone.
 */
#ifndef SLEEPLOOP_SIM_SLOTS_H
#define SLEEPLOOP_SIM_SLOTS_H

#include "../base/clock.h"
#include "../base/compat.h"
#include "../base/timerheap.h"
#include "../core/loopobject.h"
#include "../core/ready.h"
#include "../core/stopwatch.h"
#include "../core/task.h"
#include "../core/taskobject.h"
#include "../wait/meter.h"
#include "../wait/waitable.h"
#include "../wait/waitlist.h"

#define NO_SLOT UINT32_MAX
#define MAX_CAPACITY INT32_MAX

enum request_fate {
    REQUEST_OPEN,      /* it has not been awaited, or waits, or has a slot */
    REQUEST_CANCELLED, /* by cancel(), before it had one */
    REQUEST_LEFT,      /* its await has ended without one */
    REQUEST_RELEASED,  /* its slot has been given back */
    REQUEST_PREEMPTED, /* its slot has been taken away */
};

/* `wait.object` is the resource, `wait.number` the priority. */
typedef struct {
    WaitObject wait;
    TaskObject *user;   /* owned while it is parked, or has a slot: the task that does */
    int64_t since;      /* loop time at which it got its slot */
    uint64_t turn;      /* how many slots had been given away before this one */
    uint32_t slot;      /* or NO_SLOT */
    uint32_t rank;      /* while it has a slot, and there are ranks: its place among them */
    uint8_t fate;       /* enum request_fate */
    uint8_t is_owned;   /* by the resource */
    uint8_t is_int;     /* its priority was given as an int */
    uint8_t preempts;   /* it may take the slot of one that is less urgent */
} RequestObject;

struct resource_meters {
    struct stopwatch watch;
    struct level_meter in_use, queue;
    struct wait_meter waits;
};

/* `held` counts the slots in use. */
typedef struct {
    SYNC_HEAD
    uint32_t capacity;
    uint32_t n_slots;        /* those that have ever been in use; the others are free */
    uint32_t room;           /* of these arrays */
    uint32_t n_free;
    RequestObject **slots;   /* n_slots of them: who has it, owned if is_owned, or NULL: free */
    uint32_t *free;          /* heap of those that are free again, the lowest number first */
    RequestObject **ranks;   /* heap of those who have a slot, the first to lose it on top,
                                borrowed; NULL: nobody has asked to preempt yet */
    uint32_t n_ranks;
    struct timerheap queue;      /* the timers of the tasks that wait, by request_key() */
    uint64_t turns;          /* how many slots have been given away */
    struct resource_meters *meters;  /* owned; NULL: stats=False */
} ResourceObject;

static inline ResourceObject *
request_resource(const RequestObject *request)
{
    return (ResourceObject *)request->wait.object;
}

/* ---- free slots ------------------------------------------------------------------------------ */

static inline void
free_slot_push(ResourceObject *resource, uint32_t slot)
{
    uint32_t *heap = resource->free, at = resource->n_free++;
    while (at > 0 && heap[(at - 1) / 2] > slot) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = slot;
}

static inline uint32_t
free_slot_pop(ResourceObject *resource)
{
    uint32_t *heap = resource->free, n = --resource->n_free;
    uint32_t lowest = heap[0], moved = heap[n], at = 0;
    for (uint32_t child = 1; child < n; child = 2 * at + 1) {
        child += (uint32_t)(child + 1 < n && heap[child + 1] < heap[child]);
        if (moved <= heap[child]) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moved;
    return lowest;
}

/* Room for one more slot, in `free` as well: to give back must not fail. 0, or -1 with
 * MemoryError. */
COLD static int
slots_grow(ResourceObject *resource)
{
    uint32_t room = resource->room + resource->room / 2 + 4;
    room = room < resource->capacity ? room : resource->capacity;
    RequestObject **slots = PyMem_Realloc(resource->slots, room * sizeof *slots);
    if (slots != NULL) {
        resource->slots = slots;
        uint32_t *free = PyMem_Realloc(resource->free, room * sizeof *free);
        if (free != NULL) {
            resource->free = free;
            RequestObject **ranks =
                resource->ranks != NULL ? PyMem_Realloc(resource->ranks, room * sizeof *ranks)
                                        : NULL;
            if (ranks != NULL || resource->ranks == NULL) {
                resource->ranks = ranks;
                resource->room = room;
                return 0;
            }
        }
    }
    PyErr_NoMemory();
    return -1;
}

/* Room for who comes next, if a slot is free. 0, or -1 with MemoryError. */
static inline int
slots_reserve(ResourceObject *resource)
{
    return resource->n_free > 0 || resource->n_slots < resource->room ? 0 : slots_grow(resource);
}

/* The lowest free one; there is room. */
static inline uint32_t
slots_pick(ResourceObject *resource)
{
    return resource->n_free > 0 ? free_slot_pop(resource) : resource->n_slots++;
}

/* ---- described ------------------------------------------------------------------------------- */

/* New str: " by task 'a', task 'b'", or "" if nobody has a slot. */
static PyObject *
resource_describe_users(const ResourceObject *resource)
{
    PyObject *text = PyUnicode_FromString("");
    size_t shown = 0;
    for (uint32_t slot = 0; text != NULL && shown < HOLDERS_SHOWN && slot < resource->n_slots; slot++) {
        if (resource->slots[slot] == NULL) {
            continue;
        }
        PyObject *name = task_name(resource->slots[slot]->user);
        Py_SETREF(text, name != NULL ? PyUnicode_FromFormat("%U%s task %R", text,
                                                            shown++ == 0 ? " by" : ",", name)
                                     : NULL);
        Py_XDECREF(name);
    }
    if (text != NULL && resource->held > shown) {
        Py_SETREF(text, PyUnicode_FromFormat("%U and %zu more", text, resource->held - shown));
    }
    return text;
}

/* New str: "Resource 'desk' (2 of 2 in use by task 'a', task 'b')" */
static PyObject *
resource_describe(PyObject *op)
{
    ResourceObject *resource = (ResourceObject *)op;
    PyObject *title = sync_title(op), *text = NULL;
    PyObject *by = title != NULL ? resource_describe_users(resource) : NULL;
    if (by != NULL) {
        text = PyUnicode_FromFormat("%U (%zu of %lu in use%U)", title, resource->held,
                                    (unsigned long)resource->capacity, by);
        Py_DECREF(by);
    }
    Py_XDECREF(title);
    return text;
}

/* ---- who would lose a slot first ------------------------------------------------------------- */

/* The less urgent one; of equals, the one that got its slot last. */
static inline int
request_is_worse(const RequestObject *a, const RequestObject *b)
{
    return a->wait.number != b->wait.number ? a->wait.number > b->wait.number : a->turn > b->turn;
}

static inline void
rank_put(ResourceObject *resource, uint32_t at, RequestObject *request)
{
    resource->ranks[at] = request;
    request->rank = at;
}

/* Finds the place of a request, of which `at` is free, and the order right but for that. */
static void
rank_settle(ResourceObject *resource, uint32_t at, RequestObject *request)
{
    RequestObject **ranks = resource->ranks;
    while (at > 0 && request_is_worse(request, ranks[(at - 1) / 2])) {
        rank_put(resource, at, ranks[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (uint32_t child = 2 * at + 1; child < resource->n_ranks; child = 2 * at + 1) {
        child += (uint32_t)(child + 1 < resource->n_ranks
                            && request_is_worse(ranks[child + 1], ranks[child]));
        if (!request_is_worse(ranks[child], request)) {
            break;
        }
        rank_put(resource, at, ranks[child]);
        at = child;
    }
    rank_put(resource, at, request);
}

static inline void
rank_add(ResourceObject *resource, RequestObject *request)
{
    uint32_t at = resource->n_ranks++;
    rank_settle(resource, at, request);
}

static inline void
rank_remove(ResourceObject *resource, RequestObject *request)
{
    RequestObject *last = resource->ranks[--resource->n_ranks];
    if (last != request) {
        rank_settle(resource, request->rank, last);
    }
}

/* From now on there are ranks. 0, or -1 with MemoryError. */
COLD static int
ranks_begin(ResourceObject *resource)
{
    resource->ranks = PyMem_New(RequestObject *, resource->room);
    if (resource->ranks == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (uint32_t i = 0; i < resource->n_slots; i++) {
        if (resource->slots[i] != NULL) {
            rank_add(resource, resource->slots[i]);
        }
    }
    return 0;
}

/* The first to lose its slot of those who are less urgent than `priority` and not the owner's, at
 * that place of the heap or below; NULL: there is none. */
static RequestObject *
ranks_find(const ResourceObject *resource, uint32_t at, double priority, const TaskObject *owner)
{
    RequestObject *other = at < resource->n_ranks ? resource->ranks[at] : NULL;
    if (other == NULL || other->wait.number <= priority || other->user != owner) {
        return other != NULL && other->wait.number > priority ? other : NULL;
    }
    RequestObject *one = ranks_find(resource, 2 * at + 1, priority, owner);
    RequestObject *two = ranks_find(resource, 2 * at + 2, priority, owner);
    return one == NULL || (two != NULL && request_is_worse(two, one)) ? two : one;
}

/* ---- the queue ------------------------------------------------------------------------------- */

/* Integers in the order of their priorities; -0.0 is 0.0. */
static inline int64_t
request_key(const RequestObject *request)
{
    double priority = request->wait.number + 0.0;
    int64_t key;
    memcpy(&key, &priority, sizeof key);
    return key < 0 ? key ^ INT64_MAX : key;
}

/* Who is next, borrowed; NULL: nobody waits. */
static inline RequestObject *
queue_first(ResourceObject *resource)
{
    int64_t key;
    if (!timerheap_next(&resource->queue, &key)) {
        return NULL;
    }
    return (RequestObject *)TASK_OF_TIMER(timerheap_glance(&resource->queue, 0))->payload;
}

static inline void
queue_count(ResourceObject *resource, double change)
{
    if (resource->meters != NULL) {
        struct level_meter *meter = &resource->meters->queue;
        level_meter_set(meter, &resource->meters->watch, meter->now + change);
    }
}

static int
request_park(WaitObject *wait, TaskObject *task)
{
    RequestObject *request = (RequestObject *)wait;
    ResourceObject *resource = request_resource(request);
    if (timerheap_push(&resource->queue, &task->timer, request_key(request)) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    request->user = (TaskObject *)Py_NewRef(task_owner_borrowed(task));
    queue_count(resource, 1);
    return 0;
}

/* Its task is alive, and held by others than the request. */
static void
request_unpark(WaitObject *wait, TaskObject *task)
{
    RequestObject *request = (RequestObject *)wait;
    ResourceObject *resource = request_resource(request);
    timerheap_cancel(&resource->queue, &task->timer);
    queue_count(resource, -1);
    if (request->slot == NO_SLOT) {
        request->fate = wait->outcome == WAIT_REFUSED ? REQUEST_CANCELLED : REQUEST_LEFT;
        Py_CLEAR(request->user);
    }
}

/* ---- given away, and back -------------------------------------------------------------------- */

static inline void
slot_fill(ResourceObject *resource, uint32_t slot, RequestObject *request, LoopObject *loop)
{
    resource->slots[slot] = request;
    request->slot = slot;
    request->turn = resource->turns++;
    request->since = clock_about_now(&loop->clock);
    if (resource->ranks != NULL) {
        rank_add(resource, request);
    }
    if (resource->meters != NULL) {
        int has_waited = request->wait.parked;
        int64_t waited = has_waited ? request->since - request->wait.since : 0;
        wait_meter_add(&resource->meters->waits, waited, has_waited);
    }
}

static inline void
slots_count(ResourceObject *resource)
{
    if (resource->meters != NULL) {
        level_meter_set(&resource->meters->in_use, &resource->meters->watch,
                        (double)resource->held);
    }
}

/* A free slot, for which there is room, to a request of this task that did not have to wait. */
static inline void
slot_give(ResourceObject *resource, RequestObject *request, TaskObject *task)
{
    request->user = (TaskObject *)Py_NewRef(task_owner_borrowed(task));
    resource->held++;
    slot_fill(resource, slots_pick(resource), request, task->loop);
    slots_count(resource);
}

/* To the first in the queue, or to nobody. */
static inline void
slot_pass_on(ResourceObject *resource, uint32_t slot)
{
    RequestObject *next = queue_first(resource);
    if (next != NULL) {
        slot_fill(resource, slot, next, next->wait.task->loop);
        wait_grant(&next->wait);
        return;
    }
    resource->slots[slot] = NULL;
    free_slot_push(resource, slot);
    resource->held--;
    slots_count(resource);
}

/* Takes the slot from a request, which the caller holds; the slot has no owner yet. What the
 * request owned is left to request_dismiss(). */
static inline uint32_t
request_strip(RequestObject *request, enum request_fate fate)
{
    uint32_t slot = request->slot;
    if (request_resource(request)->ranks != NULL) {
        rank_remove(request_resource(request), request);
    }
    request->slot = NO_SLOT;
    request->fate = (uint8_t)fate;
    return slot;
}

/* Lets go of what was held because of a slot that has a new owner, or none. Beware: the task may
 * die. */
static inline void
request_dismiss(RequestObject *request)
{
    TaskObject *user = request->user;
    int is_owned = request->is_owned;
    request->user = NULL;
    request->is_owned = 0;
    if (is_owned) {
        Py_DECREF(request);
    }
    Py_XDECREF(user);
}

/* Beware: see request_dismiss(). The caller holds the request. */
static inline void
request_give_back(RequestObject *request)
{
    ResourceObject *resource = request_resource(request);
    slot_pass_on(resource, request_strip(request, REQUEST_RELEASED));
    request_dismiss(request);
}

#endif /* SLEEPLOOP_SIM_SLOTS_H */
