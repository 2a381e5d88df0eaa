/* store.h: the Store type: things that tasks bring and take, each task the first that it likes.
 * What is done with them is in offer.h.
 */
#ifndef SLEEPLOOP_SIM_STORE_H
#define SLEEPLOOP_SIM_STORE_H

#include "../base/compat.h"
#include "../base/objectring.h"
#include "../core/args.h"
#include "../core/loopobject.h"
#include "../core/state.h"
#include "../core/taskobject.h"
#include "../wait/handoff.h"
#include "../wait/meter.h"
#include "../wait/part.h"
#include "../wait/waitable.h"
#include "../wait/waitlist.h"
#include "../wait/waitobject.h"
#include "offer.h"

/* ---- described ------------------------------------------------------------------------------- */

/* New str: "Store 'shelf' (2 of 5 items)" */
static PyObject *
store_describe(PyObject *op)
{
    struct handoff *h = HANDOFF_OF(op);
    return handoff_describe(op, h->items.len, h->capacity, "");
}

static PyObject *
store_tp_repr(PyObject *op)
{
    return sync_repr_steal(op, store_describe(op));
}

/* ---- waiting --------------------------------------------------------------------------------- */

static int
store_take_put(WaitObject *wait, LoopObject *loop, TaskObject *Py_UNUSED(task))
{
    flow_meter_follow(HANDOFF_OF(wait->object)->meter, loop);
    int done = store_put((StoreObject *)wait->object, wait->value);
    if (done > 0) {
        Py_CLEAR(wait->value);
    }
    return done;
}

/* The second time, when it is about to be parked, no filter is asked if nothing has come since. */
static int
store_take_get(WaitObject *wait, LoopObject *loop, TaskObject *Py_UNUSED(task))
{
    StoreObject *self = (StoreObject *)wait->object;
    flow_meter_follow(self->hand.meter, loop);
    if (wait->number > 0 && (double)self->added < wait->number) {
        wait->number = (double)++self->moment;
        return 0;
    }
    PyObject *item, *filter = wait->value;
    int found = store_get(self, await_kind(wait)->function, filter, &item);
    if (found > 0) {
        handoff_lend(&self->hand, wait, item);
        Py_XDECREF(filter);
    }
    else if (found == 0) {
        wait->number = (double)++self->moment;
    }
    return found;
}

static PyObject *
store_get_result(WaitObject *wait)
{
    return handoff_settle(HANDOFF_OF(wait->object), wait);
}

/* To the front, and to the first who wants it. Beware: runs filters. */
static void
store_give_back(WaitObject *wait)
{
    StoreObject *self = (StoreObject *)wait->object;
    PyObject *item = handoff_settle(&self->hand, wait);
    if (handoff_keep(&self->hand, item, (PyObject *)self) < 0) {
        return;
    }
    self->new_front++;
    self->cursor++;
    self->added = ++self->moment;
    store_settle_if_idle(self);
}

static const struct wait_kind store_put_kind = {
    WAIT_KIND(store_put_kind, "Store.put()"),
    .take = store_take_put,
    .describe = store_describe,
};

static const struct wait_kind store_get_kind = {
    WAIT_KIND(store_get_kind, "Store.get()"),
    .take = store_take_get,
    .result = store_get_result,
    .give_back = store_give_back,
    .describe = store_describe,
};

/* ---- the type -------------------------------------------------------------------------------- */

static int
store_tp_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"capacity", PART_OPTION_NAMES, NULL};
    return handoff_make(op, args, kwargs, "Store", names, COUNT_OR_INF);
}

static void
store_tp_dealloc(PyObject *op)
{
    PyObject_GC_UnTrack(op);
    Py_TRASHCAN_BEGIN(op, store_tp_dealloc)
    sync_dies(op);
    handoff_free(op);
    Py_TRASHCAN_END
}

/* The argument of a get: 0, or -1 with a TypeError. NULL for None. */
static int
store_filter(const char *function, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames,
             PyObject **filter_borrowed)
{
    static const char *const names[] = {"filter", NULL};
    if (args_parse(function, names, 1, 0, args, n_args, kwnames, filter_borrowed) < 0) {
        return -1;
    }
    if (*filter_borrowed == Py_None) {
        *filter_borrowed = NULL;
    }
    if (*filter_borrowed != NULL && !PyCallable_Check(*filter_borrowed)) {
        raise_about(PyExc_TypeError, "%s: filter must be a function of an item, not %U%s", function,
                    *filter_borrowed, "");
        return -1;
    }
    return 0;
}

PyDoc_STRVAR(store_put_doc,
"put($self, item, /)\n--\n\n"
"Await it to put the item in, once there is room, behind those who wait for that. It is\n"
"offered at once to those who wait to get something, first come, first served.\n"
"\n"
"Raises RuntimeError if tasks of another loop wait for the store.\n");

static PyObject *
store_py_put(PyObject *op, PyObject *item)
{
    return handoff_wait_new(op, "Store", &store_put_kind, &HANDOFF_OF(op)->putters,
                            Py_NewRef(item));
}

PyDoc_STRVAR(store_get_doc,
"get($self, /, filter=None)\n--\n\n"
"Await it to take the first item out for which filter(item) is true, or the first of all.\n"
"\n"
"The filter is asked about what is there, and then about each item that is put in. What it\n"
"raises is raised by the await, whoever has put that item in. It may look at the store, and\n"
"put something in; it must not take anything out, which is a RuntimeError.\n"
"\n"
"Raises, at the call, TypeError if the filter cannot be called; when awaited, RuntimeError\n"
"if tasks of another loop wait for the store.\n");

static PyObject *
store_py_get(PyObject *op, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    PyObject *filter;
    return store_filter("Store.get()", args, n_args, kwnames, &filter) == 0
               ? handoff_wait_new(op, "Store", &store_get_kind, &HANDOFF_OF(op)->getters,
                                  Py_XNewRef(filter))
               : NULL;
}

PyDoc_STRVAR(store_put_nowait_doc,
"put_nowait($self, item, /)\n--\n\n"
"Put the item in at once.\n"
"\n"
"Raises WouldBlock if the store is full; RuntimeError if the tasks that use it run in another\n"
"thread.\n");

static PyObject *
store_py_put_nowait(PyObject *op, PyObject *item)
{
    const char *function = "Store.put_nowait()";
    int done = handoff_touch(op, "Store", function) == 0 ? store_put((StoreObject *)op, item) : -1;
    if (done == 0) {
        raise_would_block_steal(state_of_base(Py_TYPE(op))->WouldBlock, function,
                                store_describe(op));
    }
    return done > 0 ? Py_NewRef(Py_None) : NULL;
}

PyDoc_STRVAR(store_get_nowait_doc,
"get_nowait($self, /, filter=None)\n--\n\n"
"Take the first item out for which filter(item) is true, or the first of all, at once.\n"
"\n"
"Raises WouldBlock if there is none; what the filter raises; RuntimeError if the tasks that\n"
"use it run in another thread.\n");

static PyObject *
store_py_get_nowait(PyObject *op, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    const char *function = "Store.get_nowait()";
    PyObject *filter, *item;
    if (store_filter(function, args, n_args, kwnames, &filter) < 0
        || handoff_touch(op, "Store", function) < 0) {
        return NULL;
    }
    int found = store_get((StoreObject *)op, function, filter, &item);
    if (found == 0) {
        raise_would_block_steal(state_of_base(Py_TYPE(op))->WouldBlock, function,
                                store_describe(op));
    }
    return found > 0 ? item : NULL;
}

PyDoc_STRVAR(store_stats_doc,
"stats($self, /)\n--\n\n"
"A StoreStats: how many items there were, and how long tasks waited in put() and get(),\n"
"in seconds of loop time.\n"
"\n"
"Raises RuntimeError if the store was made without stats=True, or if the tasks that\n"
"use it run in another thread.\n");

static PyObject *
store_py_stats(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    ModuleState *state = state_of_base(Py_TYPE(op));
    return flow_stats_new(state, state->StoreStatsType, HANDOFF_OF(op)->meter,
                          "Store.stats()", op);
}

static PyObject *
store_get_items(PyObject *op, void *Py_UNUSED(closure))
{
    struct objectring *items = &HANDOFF_OF(op)->items;
    PyObject *tuple;
    for (;;) {
        size_t n = items->len;
        tuple = PyTuple_New((Py_ssize_t)n);
        if (tuple == NULL || items->len == n) {
            break;
        }
        Py_DECREF(tuple);  /* a collection has put something in */
    }
    for (size_t i = 0; tuple != NULL && i < items->len; i++) {
        PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, Py_NewRef(objectring_get(items, i)));
    }
    return tuple;
}

static PyObject *
store_get_capacity(PyObject *op, void *Py_UNUSED(closure))
{
    size_t capacity = HANDOFF_OF(op)->capacity;
    return count_object(capacity == SIZE_MAX ? COUNT_UNLIMITED : (int64_t)capacity);
}

static Py_ssize_t
store_sq_length(PyObject *op)
{
    return (Py_ssize_t)HANDOFF_OF(op)->items.len;
}

PyDoc_STRVAR(store_stats_type_doc, "What Store.stats() returns.");

static PyStructSequence_Desc store_stats_desc = {
    .name = "sleeploop.StoreStats",
    .doc = store_stats_type_doc,
    .fields = handoff_stats_fields,
    .n_in_sequence = 3,
};

PyDoc_STRVAR(store_type_doc,
"Store(capacity=math.inf, *, name=None, stats=False, loop=None)\n--\n\n"
"Things that tasks bring and take, each the first that it likes: tools, parcels, servers.\n"
"\n"
"First come, first served; but whoever waits for something that is not there does not hold\n"
"back those who want something else.\n"
"\n"
"capacity: how many items there can be, an int of 1 or more, or math.inf.\n"
"name: a str, for the repr and for reports.\n"
"stats: whether to keep what stats() tells.\n"
"loop: the SleepingLoop on whose time it counts; None: the one that is running, or else\n"
"    the first that uses it.\n"
"\n"
"Raises TypeError or ValueError for another capacity, LoopClosedError for a loop that has\n"
"run.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def dress(shelf, size):\n"
"...     shirt = await shelf.get(lambda shirt: shirt[0] == size)\n"
"...     print(shirt, 'at', sleeploop.current_loop().time())\n"
">>> async def main():\n"
"...     shelf = sleeploop.Store(5, name='shelf')\n"
"...     sleeploop.create_task(dress(shelf, 'L'))\n"
"...     sleeploop.create_task(dress(shelf, 'M'))\n"
"...     for shirt in ('S', 'blue'), ('M', 'red'), ('L', 'green'):\n"
"...         await sleeploop.sleep(1)\n"
"...         await shelf.put(shirt)\n"
"...     await sleeploop.checkpoint()\n"
"...     print(shelf, shelf.items)\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"('M', 'red') at 2.0\n"
"('L', 'green') at 3.0\n"
"<Store 'shelf' (1 of 5 items)> (('S', 'blue'),)\n");

static PyMethodDef store_methods[] = {
    {"put", store_py_put, METH_O, store_put_doc},
    {"get", (PyCFunction)(void (*)(void))store_py_get, METH_FASTCALL | METH_KEYWORDS,
     store_get_doc},
    {"put_nowait", store_py_put_nowait, METH_O, store_put_nowait_doc},
    {"get_nowait", (PyCFunction)(void (*)(void))store_py_get_nowait,
     METH_FASTCALL | METH_KEYWORDS, store_get_nowait_doc},
    {"stats", store_py_stats, METH_NOARGS, store_stats_doc},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS,
     PyDoc_STR("Store[int] is a Store of ints, for type checkers.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef store_getset[] = {
    SYNC_GETTERS,
    {"items", store_get_items, NULL,
     PyDoc_STR("What is in it, a tuple, in the order in which it was put in."), NULL},
    {"capacity", store_get_capacity, NULL,
     PyDoc_STR("How many items there can be, an int, or inf."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot store_slots[] = {
    {Py_tp_doc, (void *)store_type_doc},
    {Py_tp_new, handoff_tp_new},
    {Py_tp_init, store_tp_init},
    {Py_tp_dealloc, store_tp_dealloc},
    {Py_tp_traverse, handoff_tp_traverse},
    {Py_tp_clear, handoff_tp_clear},
    {Py_tp_repr, store_tp_repr},
    {Py_sq_length, store_sq_length},
    {Py_tp_methods, store_methods},
    {Py_tp_getset, store_getset},
    {Py_tp_members, handoff_members},
    {0, NULL},
};

static PyType_Spec store_spec = {
    .name = "sleeploop.Store",
    .basicsize = sizeof(StoreObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = store_slots,
};

#endif /* SLEEPLOOP_SIM_STORE_H */
