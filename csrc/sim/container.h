/* container.h: Container, an amount of something that is brought and taken bit by bit. */
#ifndef SLEEPLOOP_SIM_CONTAINER_H
#define SLEEPLOOP_SIM_CONTAINER_H

#include "../base/compat.h"
#include "../core/args.h"
#include "../core/loopobject.h"
#include "../core/state.h"
#include "../core/taskobject.h"
#include "../wait/meter.h"
#include "../wait/part.h"
#include "../wait/waitable.h"
#include "../wait/waitlist.h"
#include "../wait/waitobject.h"

/* At rest the first of each list cannot go on: there is not enough for the getter, or no room for
 * the putter. Holds no object but its name, so it cannot be part of a cycle. */
typedef struct {
    SYNC_HEAD
    struct waitlist getters, putters;  /* how much is the number of a wait */
    double level, capacity;         /* above the capacity only by what was given back */
    struct flow_meter *meter;       /* owned; NULL: no statistics */
} ContainerObject;

/* ---- amounts --------------------------------------------------------------------------------- */

/* How much is to be put or got: 0, or -1 with an exception. what: "Container.put(): amount" */
static int
container_amount(ContainerObject *self, const char *what, PyObject *obj, double *amount)
{
    if (number_from_object(what, obj, amount) < 0
        || part_check_made(self->capacity > 0, "Container") < 0) {
        return -1;
    }
    if (!(*amount >= 0 && isfinite(*amount))) {
        raise_about(PyExc_ValueError, "%s must be 0 or more and finite, not %U%s", what, obj, "");
        return -1;
    }
    if (*amount > self->capacity) {
        PyObject *capacity = PyFloat_FromDouble(self->capacity);
        PyObject *text = describe(obj);
        if (text != NULL && capacity != NULL) {
            PyErr_Format(PyExc_ValueError,
                         "%s must be at most the capacity, %S, not %U: there is never so much",
                         what, capacity, text);
        }
        Py_XDECREF(text);
        Py_XDECREF(capacity);
        return -1;
    }
    return 0;
}

/* ---- described ------------------------------------------------------------------------------- */

/* New str: "Container 'tank' (level 3.5 of 10.0)" */
static PyObject *
container_describe(PyObject *op)
{
    ContainerObject *self = (ContainerObject *)op;
    PyObject *title = sync_title(op), *text = NULL;
    PyObject *level = PyFloat_FromDouble(self->level);
    PyObject *capacity = PyFloat_FromDouble(self->capacity);
    if (title != NULL && level != NULL && capacity != NULL) {
        text = isinf(self->capacity)
                   ? PyUnicode_FromFormat("%U (level %S)", title, level)
                   : PyUnicode_FromFormat("%U (level %S of %S)", title, level, capacity);
    }
    Py_XDECREF(title);
    Py_XDECREF(level);
    Py_XDECREF(capacity);
    return text;
}

static PyObject *
container_tp_repr(PyObject *op)
{
    return sync_repr_steal(op, container_describe(op));
}

/* ---- put and got ----------------------------------------------------------------------------- */

/* With no limit, what no float can tell does not fit. */
static inline int
container_has_room(const ContainerObject *self, double amount)
{
    double level = self->level + amount;
    return level <= self->capacity && isfinite(level);
}

/* Lets go whoever can go, until nobody can: those who get before those who put, as what one
 * leaves behind may be enough for the next. */
static void
container_settle(ContainerObject *self)
{
    for (;;) {
        WaitObject *wait = waitlist_first(&self->getters);
        if (wait != NULL && wait->number <= self->level) {
            self->level -= wait->number;
            flow_meter_get(self->meter, wait);
        }
        else {
            wait = waitlist_first(&self->putters);
            if (wait == NULL || !container_has_room(self, wait->number)) {
                break;
            }
            self->level += wait->number;
            flow_meter_put(self->meter, wait);
        }
        wait_grant(wait);
    }
    flow_meter_level(self->meter, self->level);
}

/* 1: it has been put; 0: that has to wait. */
static int
container_put(ContainerObject *self, double amount)
{
    if (waitlist_first(&self->putters) != NULL || !container_has_room(self, amount)) {
        return 0;
    }
    self->level += amount;
    flow_meter_put(self->meter, NULL);
    container_settle(self);
    return 1;
}

static int
container_get(ContainerObject *self, double amount)
{
    if (waitlist_first(&self->getters) != NULL || amount > self->level) {
        return 0;
    }
    self->level -= amount;
    flow_meter_get(self->meter, NULL);
    container_settle(self);
    return 1;
}

static int
container_take_put(WaitObject *wait, LoopObject *loop, TaskObject *Py_UNUSED(task))
{
    flow_meter_follow(((ContainerObject *)wait->object)->meter, loop);
    return container_put((ContainerObject *)wait->object, wait->number);
}

static int
container_take_get(WaitObject *wait, LoopObject *loop, TaskObject *Py_UNUSED(task))
{
    flow_meter_follow(((ContainerObject *)wait->object)->meter, loop);
    return container_get((ContainerObject *)wait->object, wait->number);
}

static void
container_give_back(WaitObject *wait)
{
    ContainerObject *self = (ContainerObject *)wait->object;
    self->level += wait->number;
    container_settle(self);
}

/* The first may have held back those behind him. */
static void
container_left(WaitObject *wait)
{
    container_settle((ContainerObject *)wait->object);
}

static const struct wait_kind container_put_kind = {
    WAIT_KIND(container_put_kind, "Container.put()"),
    .take = container_take_put,
    .left = container_left,
    .describe = container_describe,
};

static const struct wait_kind container_get_kind = {
    WAIT_KIND(container_get_kind, "Container.get()"),
    .take = container_take_get,
    .give_back = container_give_back,
    .left = container_left,
    .describe = container_describe,
};

/* ---- the type -------------------------------------------------------------------------------- */

/* capacity= and level=: 0, or -1 with an exception. */
static int
container_limits(PyObject *capacity_obj, PyObject *level_obj, double *capacity, double *level)
{
    *capacity = Py_HUGE_VAL;
    *level = 0;
    if (capacity_obj != NULL) {
        if (number_from_object("Container(): capacity", capacity_obj, capacity) < 0) {
            return -1;
        }
        if (!(*capacity > 0)) {
            raise_about(PyExc_ValueError, "%s must be more than 0, not %U%s",
                        "Container(): capacity", capacity_obj, "");
            return -1;
        }
    }
    if (level_obj != NULL) {
        if (number_from_object("Container(): level", level_obj, level) < 0) {
            return -1;
        }
        if (!(*level >= 0 && *level <= *capacity && isfinite(*level))) {
            raise_about(PyExc_ValueError, "%s must be from 0 to the capacity and finite, not %U%s",
                        "Container(): level", level_obj, "");
            return -1;
        }
    }
    return 0;
}

static PyObject *
container_tp_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    ContainerObject *self = (ContainerObject *)type->tp_alloc(type, 0);
    if (self != NULL) {
        waitlist_init(&self->getters);
        waitlist_init(&self->putters);
    }
    return (PyObject *)self;
}

static int
container_tp_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"capacity", "level", PART_OPTION_NAMES, NULL};
    ContainerObject *self = (ContainerObject *)op;
    PyObject *capacity_obj = NULL, *level_obj = NULL;
    struct part_options options = {0};
    double capacity, level;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OO" PART_OPTION_FORMAT ":Container", names,
                                     &capacity_obj, &level_obj, PART_OPTION_PLACES(options))
        || container_limits(capacity_obj, level_obj, &capacity, &level) < 0
        || part_options_check(op, self->capacity > 0, "Container()", &options) < 0
        || flow_part_made(op, &options, level, &self->meter) < 0) {
        return -1;
    }
    self->capacity = capacity;
    self->level = level + 0.0;  /* -0.0 is 0.0 */
    return 0;
}

static void
container_tp_dealloc(PyObject *op)
{
    sync_dies(op);
    meters_free(((ContainerObject *)op)->meter);
    sync_free(op);
}

static PyObject *
container_wait(PyObject *op, const struct wait_kind *kind, struct waitlist *waitlist, const char *what,
               PyObject *obj)
{
    double amount;
    if (container_amount((ContainerObject *)op, what, obj, &amount) < 0) {
        return NULL;
    }
    WaitObject *wait = wait_new(state_of_base(Py_TYPE(op)), kind, op, waitlist, NULL);
    if (wait != NULL) {
        wait->number = amount;
    }
    return (PyObject *)wait;
}

PyDoc_STRVAR(container_put_doc,
"put($self, amount, /)\n--\n\n"
"Await it to add the amount, once there is room for all of it, behind those who wait\n"
"to put something.\n"
"\n"
"Raises, at the call, TypeError or ValueError if the amount is no number, negative, not\n"
"finite, or more than the capacity; when awaited, RuntimeError if tasks of another loop\n"
"wait for the container.\n");

static PyObject *
container_py_put(PyObject *op, PyObject *amount)
{
    return container_wait(op, &container_put_kind, &((ContainerObject *)op)->putters,
                          "Container.put(): amount", amount);
}

PyDoc_STRVAR(container_get_doc,
"get($self, amount, /)\n--\n\n"
"Await it to take the amount, once there is so much, behind those who wait to get\n"
"something.\n"
"\n"
"Raises, at the call, TypeError or ValueError if the amount is no number, negative, not\n"
"finite, or more than the capacity; when awaited, RuntimeError if tasks of another loop\n"
"wait for the container.\n");

static PyObject *
container_py_get(PyObject *op, PyObject *amount)
{
    return container_wait(op, &container_get_kind, &((ContainerObject *)op)->getters,
                          "Container.get(): amount", amount);
}

static PyObject *
container_nowait(PyObject *op, int (*act)(ContainerObject *, double), const char *function,
                 const char *what, PyObject *obj)
{
    ModuleState *state = state_of_base(Py_TYPE(op));
    double amount;
    if (container_amount((ContainerObject *)op, what, obj, &amount) < 0
        || sync_touch(state, (SyncObject *)op, function) < 0) {
        return NULL;
    }
    flow_meter_touch(((ContainerObject *)op)->meter, state);
    if (act((ContainerObject *)op, amount)) {
        Py_RETURN_NONE;
    }
    PyObject *number = PyFloat_FromDouble(amount);
    PyObject *text = number != NULL ? container_describe(op) : NULL;
    if (text != NULL) {
        PyErr_Format(state->WouldBlock, "%s of %S would have to wait: %U", function, number, text);
        Py_DECREF(text);
    }
    Py_XDECREF(number);
    return NULL;
}

PyDoc_STRVAR(container_put_nowait_doc,
"put_nowait($self, amount, /)\n--\n\n"
"Add the amount at once.\n"
"\n"
"Raises WouldBlock if there is no room for all of it, or others wait to put something;\n"
"TypeError and ValueError as put() does; RuntimeError if the tasks that use it run in\n"
"another thread.\n");

static PyObject *
container_py_put_nowait(PyObject *op, PyObject *amount)
{
    return container_nowait(op, container_put, "Container.put_nowait()",
                            "Container.put_nowait(): amount", amount);
}

PyDoc_STRVAR(container_get_nowait_doc,
"get_nowait($self, amount, /)\n--\n\n"
"Take the amount at once.\n"
"\n"
"Raises WouldBlock if there is not so much, or others wait to get something; TypeError\n"
"and ValueError as get() does; RuntimeError if the tasks that use it run in another\n"
"thread.\n");

static PyObject *
container_py_get_nowait(PyObject *op, PyObject *amount)
{
    return container_nowait(op, container_get, "Container.get_nowait()",
                            "Container.get_nowait(): amount", amount);
}

PyDoc_STRVAR(container_stats_doc,
"stats($self, /)\n--\n\n"
"A ContainerStats: how much there was, and how long tasks waited in put() and get(),\n"
"in seconds of loop time.\n"
"\n"
"Raises RuntimeError if the container was made without stats=True, or if the tasks that\n"
"use it run in another thread.\n");

static PyObject *
container_py_stats(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    ModuleState *state = state_of_base(Py_TYPE(op));
    return flow_stats_new(state, state->ContainerStatsType, ((ContainerObject *)op)->meter,
                          "Container.stats()", op);
}

PyDoc_STRVAR(container_stats_type_doc, "What Container.stats() returns.");

static PyStructSequence_Field container_stats_fields[] = {
    {"level", "a LevelStats: how much there was"},
    {"puts", "a WaitStats: how long those waited who have put something"},
    {"gets", "a WaitStats: how long those waited who have got something"},
    {NULL, NULL},
};

static PyStructSequence_Desc container_stats_desc = {
    .name = "sleeploop.ContainerStats",
    .doc = container_stats_type_doc,
    .fields = container_stats_fields,
    .n_in_sequence = 3,
};

PyDoc_STRVAR(container_type_doc,
"Container(capacity=math.inf, level=0.0, *, name=None, stats=False, loop=None)\n--\n\n"
"An amount of something that tasks bring and take: fuel in a tank, money in a till.\n"
"\n"
"First come, first served, among those who get and among those who put: whoever waits\n"
"for much holds back those behind him who want less.\n"
"\n"
"capacity: how much there can be, more than 0, in whatever unit you like.\n"
"level: how much there is at first, from 0 to the capacity.\n"
"name: a str, for the repr and for reports.\n"
"stats: whether to keep what stats() tells.\n"
"loop: the SleepingLoop on whose time it counts; None: the one that is running, or else\n"
"    the first that uses it.\n"
"\n"
"Raises TypeError or ValueError for another capacity or level, LoopClosedError for a loop\n"
"that has run.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def car(tank):\n"
"...     await tank.get(40)\n"
"...     print('filled up at', sleeploop.current_loop().time())\n"
">>> async def main():\n"
"...     tank = sleeploop.Container(100, level=10, name='tank')\n"
"...     sleeploop.create_task(car(tank))\n"
"...     await sleeploop.sleep(60)\n"
"...     print(tank)\n"
"...     await tank.put(80)\n"
"...     await sleeploop.checkpoint()\n"
"...     print(tank)\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"<Container 'tank' (level 10.0 of 100.0), 1 waiting>\n"
"filled up at 60.0\n"
"<Container 'tank' (level 50.0 of 100.0)>\n");

static PyMethodDef container_methods[] = {
    {"put", container_py_put, METH_O, container_put_doc},
    {"get", container_py_get, METH_O, container_get_doc},
    {"put_nowait", container_py_put_nowait, METH_O, container_put_nowait_doc},
    {"get_nowait", container_py_get_nowait, METH_O, container_get_nowait_doc},
    {"stats", container_py_stats, METH_NOARGS, container_stats_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef container_getset[] = {
    SYNC_GETTERS,
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef container_members[] = {
    SYNC_WEAKLIST,
    {"level", Py_T_DOUBLE, offsetof(ContainerObject, level), Py_READONLY,
     PyDoc_STR("How much there is, a float.")},
    {"capacity", Py_T_DOUBLE, offsetof(ContainerObject, capacity), Py_READONLY,
     PyDoc_STR("How much there can be, a float.")},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot container_slots[] = {
    {Py_tp_doc, (void *)container_type_doc},
    {Py_tp_new, container_tp_new},
    {Py_tp_init, container_tp_init},
    {Py_tp_dealloc, container_tp_dealloc},
    {Py_tp_traverse, sync_tp_traverse},
    {Py_tp_repr, container_tp_repr},
    {Py_tp_methods, container_methods},
    {Py_tp_getset, container_getset},
    {Py_tp_members, container_members},
    {0, NULL},
};

static PyType_Spec container_spec = {
    .name = "sleeploop.Container",
    .basicsize = sizeof(ContainerObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = container_slots,
};

#endif /* SLEEPLOOP_SIM_CONTAINER_H */
