/* tick.h: the Tick type, what every() gives.
 *
 * A tick holds no object but its type, and is outside of the collector as a Sleep is: seen by it,
 * each would cost a tenth more.
 */
#ifndef SLEEPLOOP_TIME_TICK_H
#define SLEEPLOOP_TIME_TICK_H

#include "../base/compat.h"
#include "../base/random.h"
#include "../core/args.h"
#include "../core/state.h"

typedef struct {
    PyObject_HEAD
    uint64_t index;
    int64_t due;       /* loop time, nanoseconds */
    int64_t lateness;  /* nanoseconds */
    uint64_t missed;
} TickObject;

static PyObject *
tick_new(ModuleState *state, uint64_t index, int64_t due, int64_t lateness, uint64_t missed)
{
    TickObject *self = PyObject_New(TickObject, state->TickType);
    if (self == NULL) {
        return NULL;
    }
    self->index = index;
    self->due = due;
    self->lateness = lateness;
    self->missed = missed;
    return (PyObject *)self;
}

static PyObject *
tick_get_index(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(((TickObject *)op)->index);
}

static PyObject *
tick_get_due(PyObject *op, void *Py_UNUSED(closure))
{
    return seconds_object(((TickObject *)op)->due);
}

static PyObject *
tick_get_due_ns(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromLongLong(((TickObject *)op)->due);
}

static PyObject *
tick_get_lateness(PyObject *op, void *Py_UNUSED(closure))
{
    return seconds_object(((TickObject *)op)->lateness);
}

static PyObject *
tick_get_missed(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(((TickObject *)op)->missed);
}

static PyObject *
tick_tp_repr(PyObject *op)
{
    TickObject *self = (TickObject *)op;
    PyObject *due = seconds_object(self->due), *lateness = seconds_object(self->lateness);
    PyObject *text = NULL;
    if (due != NULL && lateness != NULL) {
        text = PyUnicode_FromFormat("<Tick %llu due %S s, %S s late, %llu missed>",
                                    (unsigned long long)self->index, due, lateness,
                                    (unsigned long long)self->missed);
    }
    Py_XDECREF(due);
    Py_XDECREF(lateness);
    return text;
}

static PyObject *
tick_tp_richcompare(PyObject *op, PyObject *other, int how)
{
    if (Py_TYPE(other) != Py_TYPE(op) || (how != Py_EQ && how != Py_NE)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    const TickObject *a = (TickObject *)op, *b = (TickObject *)other;
    int same = a->index == b->index && a->due == b->due && a->lateness == b->lateness
               && a->missed == b->missed;
    return PyBool_FromLong(same == (how == Py_EQ));
}

static Py_hash_t
tick_tp_hash(PyObject *op)
{
    const TickObject *self = (TickObject *)op;
    Py_hash_t hash = (Py_hash_t)random_at((uint64_t)self->due, self->index);
    return hash != -1 ? hash : -2;
}

static void
tick_tp_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_Free(op);
    Py_DECREF(type);
}

PyDoc_STRVAR(tick_type_doc,
"What `async for` gets from every(): which tick it is, when it was due, and how late\n"
"it came. Ticks are equal if all of that is equal.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def main():\n"
"...     async for tick in sleeploop.every(0.5):\n"
"...         if tick.index == 3:\n"
"...             return tick\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"<Tick 3 due 1.5 s, 0.0 s late, 0 missed>\n");

static PyGetSetDef tick_getset[] = {
    {"index", tick_get_index, NULL,
     PyDoc_STR("Its number on the schedule, from 0; those of skipped ticks are left out."), NULL},
    {"due", tick_get_due, NULL,
     PyDoc_STR("Loop time in seconds at which it was due, its jitter included."), NULL},
    {"due_ns", tick_get_due_ns, NULL, PyDoc_STR("The same in nanoseconds."), NULL},
    {"lateness", tick_get_lateness, NULL,
     PyDoc_STR("Seconds of loop time from then until the task went on; never negative."), NULL},
    {"missed", tick_get_missed, NULL,
     PyDoc_STR("How many ticks were skipped right before it."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot tick_slots[] = {
    {Py_tp_doc, (void *)tick_type_doc},
    {Py_tp_dealloc, tick_tp_dealloc},
    {Py_tp_repr, tick_tp_repr},
    {Py_tp_richcompare, tick_tp_richcompare},
    {Py_tp_hash, tick_tp_hash},
    {Py_tp_getset, tick_getset},
    {0, NULL},
};

static PyType_Spec tick_spec = {
    .name = "sleeploop.Tick",
    .basicsize = sizeof(TickObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = tick_slots,
};

#endif /* SLEEPLOOP_TIME_TICK_H */
