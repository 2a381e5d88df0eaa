/* handoff.h: items that some tasks bring and others take: what queues, channels and stores share.
 *
 * An item goes straight to a task that waits for one, or else into the buffer, or else it waits
 * with the task that brings it. Whoever finds something may have it, and takes it from nobody, by
 * two rules that hold whenever anybody can look: tasks wait to get only while there is nothing to
 * be had, neither in the buffer nor from somebody who waits to put; and to put only while the
 * buffer is full. So whoever brings an item hands it over to who waits for one, and whoever takes
 * one lets the next one in. (Who waits at a Store may want another item than there is: offer.h.)
 *
 * An item may come back: its getter was given it, and never ran. Making room for that then could
 * fail, so it is made before an item goes in: the buffer has a place for each item that is in it or
 * `lent`, and one more, for that of a task which there is no memory to tell.
 */
#ifndef SLEEPLOOP_WAIT_HANDOFF_H
#define SLEEPLOOP_WAIT_HANDOFF_H

#include "../base/compat.h"
#include "../base/objectring.h"
#include "../core/state.h"
#include "meter.h"
#include "part.h"
#include "waitable.h"
#include "waitlist.h"
#include "waitobject.h"

struct handoff {
    struct objectring items;
    struct waitlist putters;      /* a putter's value is the item that it brings */
    struct waitlist getters;
    size_t capacity;           /* of the buffer; SIZE_MAX: no limit */
    size_t lent;               /* items that a task has been given and has not learned of */
    struct flow_meter *meter;  /* owned; NULL: no statistics */
    int lifo;                  /* the last item comes first */
};

/* A getter's wait->phase. */
enum { HANDOFF_ASKED, HANDOFF_LENT };

static void
handoff_init(struct handoff *h)
{
    waitlist_init(&h->putters);
    waitlist_init(&h->getters);
}

/* Room for one more item, wherever it goes: 0, or -1 with MemoryError. */
static inline int
handoff_reserve(struct handoff *h)
{
    return objectring_reserve_more(&h->items, h->lent + 2);
}

static inline void
handoff_measure(struct handoff *h)
{
    flow_meter_level(h->meter, (double)h->items.len);
}

/* ---- lent ------------------------------------------------------------------------------------ */

/* The item is the wait's, whose task may not have learned of it yet. Steals item. */
static inline void
handoff_lend(struct handoff *h, WaitObject *getter, PyObject *item_steal)
{
    getter->value = item_steal;
    getter->phase = HANDOFF_LENT;
    h->lent++;
}

/* And now it has, or never will: the item, which is the caller's. */
static inline PyObject *
handoff_settle(struct handoff *h, WaitObject *getter)
{
    PyObject *item = getter->value;
    getter->value = NULL;
    h->lent -= getter->phase;
    getter->phase = HANDOFF_ASKED;
    return item;
}

/* ---- in and out ------------------------------------------------------------------------------ */

/* The parked getter has the item. There is room for when it comes back. Steals item. */
static inline void
handoff_give(struct handoff *h, WaitObject *getter, PyObject *item_steal)
{
    handoff_lend(h, getter, item_steal);
    flow_meter_get(h->meter, getter);
    wait_grant(getter);
}

/* What the parked putter has put now: the caller's. */
static inline PyObject *
handoff_let_in(struct handoff *h, WaitObject *putter)
{
    PyObject *item = putter->value;
    putter->value = NULL;
    flow_meter_put(h->meter, putter);
    wait_grant(putter);
    return item;
}

/* To the first who waits for it, or into the buffer: 1; 0: it would have to wait; -1 with
 * MemoryError. Borrows item. */
static inline int
handoff_put(struct handoff *h, PyObject *item)
{
    WaitObject *getter = waitlist_first(&h->getters);
    if (getter == NULL && h->items.len >= h->capacity) {
        return 0;
    }
    if (handoff_reserve(h) < 0) {
        return -1;
    }
    if (getter != NULL) {
        handoff_give(h, getter, Py_NewRef(item));
    }
    else {
        objectring_push(&h->items, Py_NewRef(item));
    }
    if (h->meter != NULL) {
        flow_meter_put(h->meter, NULL);
        handoff_measure(h);
    }
    return 1;
}

/* *item: the next one, which is the caller's: 1; 0: there is none; -1 with MemoryError. There is
 * room for when it comes back. */
static inline int
handoff_take(struct handoff *h, PyObject **item)
{
    WaitObject *putter = waitlist_first(&h->putters);
    assert(putter == NULL || h->items.len >= h->capacity);
    if (putter != NULL && handoff_reserve(h) < 0) {
        return -1;
    }
    if (h->items.len > 0) {
        *item = h->lifo ? objectring_pop(&h->items) : objectring_pop_front(&h->items);
        if (putter != NULL && h->items.len < h->capacity) {
            objectring_push(&h->items, handoff_let_in(h, putter));
        }
    }
    else if (putter != NULL) {
        *item = handoff_let_in(h, putter);
    }
    else {
        return 0;
    }
    if (h->meter != NULL) {
        flow_meter_get(h->meter, NULL);
        handoff_measure(h);
    }
    return 1;
}

/* An item has come back: into the buffer, before all others: 0; or -1, and there is no room, as the
 * collector has taken it away. Steals item. op: whose it was, for the report. */
static int
handoff_keep(struct handoff *h, PyObject *item_steal, PyObject *op)
{
    if (objectring_reserve(&h->items) < 0) {
        PyErr_WriteUnraisable(op);
        Py_DECREF(item_steal);
        return -1;
    }
    if (h->lifo) {
        objectring_push(&h->items, item_steal);
    }
    else {
        objectring_push_front(&h->items, item_steal);
    }
    return 0;
}

/* Likewise, or to the first who waits for one. */
static void
handoff_put_back(struct handoff *h, PyObject *item_steal, PyObject *op)
{
    WaitObject *getter = waitlist_first(&h->getters);
    if (getter != NULL) {
        handoff_give(h, getter, item_steal);
    }
    else if (handoff_keep(h, item_steal, op) == 0) {
        handoff_measure(h);
    }
}

/* ---- described ------------------------------------------------------------------------------- */

/* New str: the title of an object, and what the format makes of the rest: "Queue 'jobs' (empty)" */
static PyObject *
titled(PyObject *op, const char *format, ...)
{
    va_list rest;
    va_start(rest, format);
    PyObject *what = PyUnicode_FromFormatV(format, rest);
    va_end(rest);
    PyObject *title = what != NULL ? sync_title(op) : NULL;
    PyObject *text = title != NULL ? PyUnicode_Concat(title, what) : NULL;
    Py_XDECREF(title);
    Py_XDECREF(what);
    return text;
}

/* New str: "Store 'shelf' (2 of 5 items)". more: ", shut down", or "" */
static PyObject *
handoff_describe(PyObject *op, size_t n, size_t capacity, const char *more)
{
    return capacity == SIZE_MAX
               ? titled(op, " (%zu item%s%s)", n, n == 1 ? "" : "s", more)
               : titled(op, " (%zu of %zu item%s%s)", n, capacity, capacity == 1 ? "" : "s", more);
}

/* ---- what a Queue and a Store have in common ------------------------------------------------- */

typedef struct {
    SYNC_HEAD
    struct handoff hand;  /* its capacity is 0 until it has been made */
} HandoffObject;

#define HANDOFF_OF(op) (&((HandoffObject *)(op))->hand)

static PyObject *
handoff_tp_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    PyObject *op = type->tp_alloc(type, 0);
    if (op != NULL) {
        handoff_init(HANDOFF_OF(op));
    }
    return op;
}

/* Its __init__(), by the arguments `names`. The first is the capacity: COUNT_OR_0, 0 by default, or
 * COUNT_OR_INF, from 1. type: "Queue" */
static int
handoff_make(PyObject *op, PyObject *args, PyObject *kwargs, const char *type, char **names,
             enum count_kind kind)
{
    char function[32], format[32];
    PyOS_snprintf(function, sizeof function, "%s()", type);
    PyOS_snprintf(format, sizeof format, "|O" PART_OPTION_FORMAT ":%s", type);
    struct handoff *h = HANDOFF_OF(op);
    PyObject *capacity_obj = NULL;
    struct part_options options = {0};
    int64_t capacity = COUNT_UNLIMITED;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, format, names, &capacity_obj,
                                     PART_OPTION_PLACES(options))
        || (capacity_obj != NULL
            && sync_count_from_object(function, names[0], capacity_obj, kind == COUNT_OR_INF, kind,
                                      &capacity) < 0)
        || part_options_check(op, h->capacity > 0, function, &options) < 0
        || flow_part_made(op, &options, 0, &h->meter) < 0) {
        return -1;
    }
    h->capacity = capacity > 0 ? count_as_size(capacity) : SIZE_MAX;
    return 0;
}

/* What a method returns to be awaited. type: "Queue". Steals value, or fails with an exception. */
static inline PyObject *
handoff_wait_new(PyObject *op, const char *type, const struct wait_kind *kind, struct waitlist *waitlist,
                 PyObject *value_steal)
{
    if (part_check_made(HANDOFF_OF(op)->capacity > 0, type) < 0) {
        Py_XDECREF(value_steal);
        return NULL;
    }
    return (PyObject *)wait_new(state_of_base(Py_TYPE(op)), kind, op, waitlist, value_steal);
}

/* For methods that need no task, as sync_touch(). */
static int
handoff_touch(PyObject *op, const char *type, const char *function)
{
    ModuleState *state = state_of_base(Py_TYPE(op));
    if (part_check_made(HANDOFF_OF(op)->capacity > 0, type) < 0
        || sync_touch(state, (SyncObject *)op, function) < 0) {
        return -1;
    }
    flow_meter_touch(HANDOFF_OF(op)->meter, state);
    return 0;
}

static int
handoff_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    return objectring_traverse(&HANDOFF_OF(op)->items, visit, arg);
}

static int
handoff_tp_clear(PyObject *op)
{
    objectring_clear(&HANDOFF_OF(op)->items);
    return 0;
}

/* The end of its tp_dealloc. */
static void
handoff_free(PyObject *op)
{
    (void)handoff_tp_clear(op);
    meters_free(HANDOFF_OF(op)->meter);
    sync_free(op);
}

static PyStructSequence_Field handoff_stats_fields[] = {
    {"length", "a LevelStats: how many items were in it"},
    {"puts", "a WaitStats: how long those waited who have put an item in"},
    {"gets", "a WaitStats: how long those waited who have got one"},
    {NULL, NULL},
};

static PyMemberDef handoff_members[] = {
    SYNC_WEAKLIST,
    {NULL, 0, 0, 0, NULL},
};

#endif /* SLEEPLOOP_WAIT_HANDOFF_H */
