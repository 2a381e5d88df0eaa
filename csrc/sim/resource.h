/* resource.h: Resource, so many servers of a model, which tasks request and release. */
#ifndef SLEEPLOOP_SIM_RESOURCE_H
#define SLEEPLOOP_SIM_RESOURCE_H

#include "../base/compat.h"
#include "../base/timerheap.h"
#include "../core/args.h"
#include "../core/sequence.h"
#include "../core/state.h"
#include "../core/taskobject.h"
#include "../wait/meter.h"
#include "../wait/part.h"
#include "../wait/waitable.h"
#include "request.h"
#include "slots.h"

/* 1 to MAX_CAPACITY. 0, or -1 with an exception. Beware: __index__() runs Python. */
static int
capacity_from_object(PyObject *obj, uint32_t *capacity)
{
    int64_t n;
    if (sync_count_from_object("Resource()", "capacity", obj, 1, COUNT_INT, &n) < 0) {
        return -1;
    }
    if (n > MAX_CAPACITY) {
        raise_about(PyExc_ValueError, "%s: capacity must be less than 2**31, not %U%s",
                    "Resource()", obj, "");
        return -1;
    }
    *capacity = (uint32_t)n;
    return 0;
}

static PyObject *
resource_tp_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    return type->tp_alloc(type, 0);
}

static int
resource_tp_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"capacity", PART_OPTION_NAMES, NULL};
    ResourceObject *resource = (ResourceObject *)op;
    PyObject *number = NULL;
    struct part_options options = {0};
    uint32_t capacity = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O" PART_OPTION_FORMAT ":Resource", names,
                                     &number, PART_OPTION_PLACES(options))
        || (number != NULL && capacity_from_object(number, &capacity) < 0)
        || part_options_check(op, resource->capacity > 0, "Resource()", &options) < 0) {
        return -1;
    }
    if (options.stats) {
        resource->meters = meters_new(op, &options, sizeof *resource->meters);
        if (resource->meters == NULL) {
            Py_XDECREF(options.name);
            return -1;
        }
    }
    part_made(op, &options);
    resource->capacity = capacity;
    return 0;
}

/* Who waits here is held by its task, and holds the resource. */
static int
resource_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    ResourceObject *resource = (ResourceObject *)op;
    Py_VISIT(Py_TYPE(op));
    for (uint32_t i = 0; i < resource->n_slots; i++) {
        if (resource->slots[i] != NULL && resource->slots[i]->is_owned) {
            Py_VISIT(resource->slots[i]);
        }
    }
    return 0;
}

/* Whoever waits for these slots is garbage as well. */
static int
resource_tp_clear(PyObject *op)
{
    ResourceObject *resource = (ResourceObject *)op;
    for (uint32_t i = 0; i < resource->n_slots; i++) {
        RequestObject *request = resource->slots[i];
        if (request == NULL || !request->is_owned) {
            continue;
        }
        Py_INCREF(request);
        (void)request_strip(request, REQUEST_RELEASED);
        resource->slots[i] = NULL;
        free_slot_push(resource, i);
        resource->held--;
        request_dismiss(request);
        Py_DECREF(request);
    }
    return 0;
}

static void
resource_tp_dealloc(PyObject *op)
{
    ResourceObject *resource = (ResourceObject *)op;
    PyObject_GC_UnTrack(op);
    sync_dies(op);
    assert(resource->held == 0);  /* whoever has a slot holds it */
    timerheap_clear(&resource->queue);
    PyMem_Free(resource->slots);
    PyMem_Free(resource->free);
    PyMem_Free(resource->ranks);
    meters_free(resource->meters);
    sync_free(op);
}

static PyObject *
resource_tp_repr(PyObject *op)
{
    return sync_repr_steal(op, resource_describe(op));
}

static PyObject *
resource_get_capacity(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(((ResourceObject *)op)->capacity);
}

static PyObject *
resource_get_in_use(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(((ResourceObject *)op)->held);
}

/* Beware: a collection may run Python in between, so that each step looks anew. */
static PyObject *
resource_get_users(PyObject *op, void *Py_UNUSED(closure))
{
    ResourceObject *resource = (ResourceObject *)op;
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; list != NULL && i < resource->n_slots; i++) {
        PyObject *request = Py_XNewRef((PyObject *)resource->slots[i]);
        if (request != NULL && PyList_Append(list, request) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(request);
    }
    PyObject *tuple = list != NULL ? PyList_AsTuple(list) : NULL;
    Py_XDECREF(list);
    return tuple;
}

static PyObject *
resource_get_queue(PyObject *op, void *Py_UNUSED(closure))
{
    ResourceObject *resource = (ResourceObject *)op;
    PyObject *tuple = NULL;
    do {  /* that may collect, and so change the queue (3.11) */
        Py_XSETREF(tuple, PyTuple_New((Py_ssize_t)resource->parked));
    } while (tuple != NULL && (size_t)PyTuple_GET_SIZE(tuple) != resource->parked);
    size_t len = resource->queue.len;  /* from here on nothing of Python's is allocated */
    struct timerheap_entry *entries = PyMem_Malloc((len > 0 ? len : 1) * sizeof *entries);
    if (tuple == NULL || entries == NULL) {
        Py_XDECREF(tuple);
        PyMem_Free(entries);
        return tuple == NULL ? NULL : PyErr_NoMemory();
    }
    if (len > 0) {
        memcpy(entries, resource->queue.heap, len * sizeof *entries);
        qsort(entries, len, sizeof *entries, timerheap_compare);
    }
    Py_ssize_t n = 0;
    for (size_t i = 0; i < len; i++) {
        struct timer *timer = resource->queue.slots[entries[i].slot].timer;
        if (timer != NULL) {
            PyTuple_SET_ITEM(tuple, n++, Py_NewRef(TASK_OF_TIMER(timer)->payload));
        }
    }
    assert(n == PyTuple_GET_SIZE(tuple));
    PyMem_Free(entries);
    return tuple;
}

/* ---- methods --------------------------------------------------------------------------------- */

PyDoc_STRVAR(resource_request_doc,
"request($self, /, priority=0, preempt=False)\n--\n\n"
"A Request: await it, or enter it by `async with`, to have a slot.\n"
"\n"
"priority: an int or a float, the lower, the more urgent; compared as a float. Who waits\n"
"gets a slot in this order; among equals, first come, first served.\n"
"preempt: if no slot is free, and nobody waits who comes first, take the slot of the\n"
"least urgent of those who are less urgent than this; of equals, of the one that got it\n"
"last. Its task gets an Interrupt whose cause is a Preempted.\n"
"\n"
"Raises TypeError or ValueError (nan) for a wrong priority, OverflowError for an int that\n"
"no float can hold. The await raises RuntimeError if tasks of another loop wait for the\n"
"resource or have slots, RequestCancelled after the request's cancel().\n");

static PyObject *
resource_py_request(PyObject *op, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    static const char *const names[] = {"priority", "preempt", NULL};
    const char *function = "Resource.request()";
    ModuleState *state = state_of_base(Py_TYPE(op));
    if (part_check_made(((ResourceObject *)op)->capacity > 0, "Resource") < 0) {
        return NULL;
    }
    if (n_args == 0 && kwnames == NULL) {
        return request_new(state, (ResourceObject *)op, 0, 1, 0);
    }
    PyObject *out[2];
    double priority = 0;
    if (args_parse(function, names, 2, 0, args, n_args, kwnames, out) < 0
        || (out[0] != NULL && priority_from_object(function, out[0], &priority) < 0)) {
        return NULL;
    }
    int preempts = out[1] != NULL ? PyObject_IsTrue(out[1]) : 0;
    if (preempts < 0) {
        return NULL;
    }
    return request_new(state, (ResourceObject *)op, priority,
                       out[0] == NULL || PyLong_Check(out[0]), preempts);
}

PyDoc_STRVAR(resource_stats_method_doc,
"stats($self, /)\n--\n\n"
"A ResourceStats: how many slots were in use, how many tasks waited, and for how long, in\n"
"seconds of loop time.\n"
"\n"
"Raises RuntimeError if the resource was made without stats=True, or if the tasks that use\n"
"it run in another thread.\n");

static PyObject *
resource_py_stats(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    ResourceObject *resource = (ResourceObject *)op;
    ModuleState *state = state_of_base(Py_TYPE(op));
    struct resource_meters *meters = resource->meters;
    if (meter_check(state, meters, "Resource.stats()", op) < 0) {
        return NULL;
    }
    PyObject *values[] = {
        level_stats_new(state, &meters->in_use, &meters->watch),
        level_stats_new(state, &meters->queue, &meters->watch),
        wait_stats_new(state, &meters->waits),
    };
    return struct_sequence_steal(state->ResourceStatsType, values, 3);
}

/* ---- the types ------------------------------------------------------------------------------- */

PyDoc_STRVAR(resource_stats_doc, "What Resource.stats() returns.");

static PyStructSequence_Field resource_stats_fields[] = {
    {"in_use", "a LevelStats: slots in use"},
    {"queue", "a LevelStats: tasks that wait for one"},
    {"waits", "a WaitStats: how long those waited who have got one"},
    {NULL, NULL},
};

static PyStructSequence_Desc resource_stats_desc = {
    .name = "sleeploop.ResourceStats",
    .doc = resource_stats_doc,
    .fields = resource_stats_fields,
    .n_in_sequence = 3,
};

PyDoc_STRVAR(resource_type_doc,
"Resource(capacity=1, *, name=None, stats=False, loop=None)\n--\n\n"
"So many slots - servers, machines, beds - of which each task has one at a time, or more:\n"
"`async with resource.request() as slot`.\n"
"\n"
"The most urgent first; first come, first served among equals. A request may also take\n"
"the slot of a less urgent one.\n"
"\n"
"capacity: how many slots, an int of 1 or more, less than 2**31.\n"
"name: a str, for the repr and for reports.\n"
"stats: whether to keep what stats() tells.\n"
"loop: the SleepingLoop on whose time it counts; None: the one that is running, or else\n"
"    the first that uses it.\n"
"\n"
"Raises TypeError or ValueError for another capacity, LoopClosedError for a loop that has\n"
"run.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def customer(desk, name, priority):\n"
"...     async with desk.request(priority) as slot:\n"
"...         print(name, 'at', slot.since)\n"
"...         await sleeploop.sleep(3)\n"
">>> async def main():\n"
"...     desk = sleeploop.Resource(name='desk')\n"
"...     async with sleeploop.TaskGroup() as group:\n"
"...         for priority, name in enumerate(['Anna', 'Bert', 'Carl']):\n"
"...             group.create_task(customer(desk, name, -priority))\n"
"...         await sleeploop.sleep(1)\n"
"...         print(desk)\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"Anna at 0.0\n"
"<Resource 'desk' (1 of 1 in use by task 'Task-2'), 2 waiting>\n"
"Carl at 3.0\n"
"Bert at 6.0\n");

static PyMethodDef resource_methods[] = {
    {"request", (PyCFunction)(void (*)(void))resource_py_request, METH_FASTCALL | METH_KEYWORDS,
     resource_request_doc},
    {"stats", resource_py_stats, METH_NOARGS, resource_stats_method_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef resource_getset[] = {
    SYNC_GETTERS,
    {"capacity", resource_get_capacity, NULL, PyDoc_STR("How many slots there are."), NULL},
    {"in_use", resource_get_in_use, NULL, PyDoc_STR("How many of them are in use."), NULL},
    {"users", resource_get_users, NULL,
     PyDoc_STR("A tuple of the Requests that have a slot, by its number."), NULL},
    {"queue", resource_get_queue, NULL,
     PyDoc_STR("A tuple of the Requests that wait, in the order in which they will get a slot."),
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef resource_members[] = {
    SYNC_WEAKLIST,
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot resource_slots[] = {
    {Py_tp_doc, (void *)resource_type_doc},
    {Py_tp_new, resource_tp_new},
    {Py_tp_init, resource_tp_init},
    {Py_tp_dealloc, resource_tp_dealloc},
    {Py_tp_traverse, resource_tp_traverse},
    {Py_tp_clear, resource_tp_clear},
    {Py_tp_repr, resource_tp_repr},
    {Py_tp_methods, resource_methods},
    {Py_tp_getset, resource_getset},
    {Py_tp_members, resource_members},
    {0, NULL},
};

static PyType_Spec resource_spec = {
    .name = "sleeploop.Resource",
    .basicsize = sizeof(ResourceObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = resource_slots,
};

#endif /* SLEEPLOOP_SIM_RESOURCE_H */
