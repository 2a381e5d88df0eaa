/* stopiteration.h: how an await ends with a value: in a StopIteration, made in one of three ways.
 *
 * A whole one out of send(), whose caller may look at it; a bare one out of tp_iternext, by which
 * `await` takes it from 3.12 on; and there, for what ends most often, one that serves again and
 * again. A plain call of the type, for each, would make a switch between tasks 45 % dearer.
 *
 * The last two need to know the public struct PyStopIterationObject and BaseException's: that
 * StopIteration's `value` stands by itself, and that one made without __init__() has `args`, which
 * nothing but __init__() and BaseException's own methods ever set. So it is in 3.11 to 3.15.
 */
#ifndef SLEEPLOOP_CORE_STOPITERATION_H
#define SLEEPLOOP_CORE_STOPITERATION_H

#include "../base/compat.h"
#include "state.h"

/* Ends a tp_iternext or send() with a value, as `return value` ends a generator.
 * Built by hand since PyErr_SetObject unpacks tuples and takes exceptions as they
 * are. Always returns NULL. */
static PyObject *
stop_iteration_steal(PyObject *value)
{
    PyObject *exc = PyObject_CallOneArg(PyExc_StopIteration, value);
    Py_DECREF(value);
    if (exc != NULL) {
        PyErr_SetRaisedException(exc);
    }
    return NULL;
}

/* Ends a tp_iternext with a value. The interpreter takes the StopIteration apart at once, so it has
 * no `args`: it costs a tuple and two calls less. 0, and value is its own; -1 with MemoryError, and
 * it is still the caller's. */
static inline int
stop_iteration_bare(PyObject *value)
{
    PyTypeObject *type = (PyTypeObject *)PyExc_StopIteration;
    PyStopIterationObject *exc = (PyStopIterationObject *)type->tp_alloc(type, 0);
    if (exc == NULL) {
        return -1;
    }
    exc->args = PyTuple_New(0);  /* there is but one */
    exc->value = value;
    PyErr_SetRaisedException((PyObject *)exc);
    return 0;
}

/* Whether nobody else holds the exception and nothing has been attached to it. */
static inline int
stop_iteration_is_pristine(PyObject *op)
{
    PyStopIterationObject *exc = (PyStopIterationObject *)op;
    return Py_REFCNT(op) == 1 && exc->traceback == NULL && exc->context == NULL
           && exc->cause == NULL && exc->dict == NULL && PyTuple_GET_SIZE(exc->args) == 0;
}

/* Ends a tp_iternext with a timedelta, a Tick or a bool, which may stay in the one instance until
 * the next such end; another value, as an item of a queue, would be kept alive. Whoever drives an
 * awaitable by himself and catches the StopIteration keeps that. Always returns NULL. */
static inline PyObject *
stop_iteration_reused_steal(ModuleState *state, PyObject *value)
{
    PyObject *exc = state->stop_iteration;
    if (exc == NULL || !stop_iteration_is_pristine(exc)) {
        exc = PyObject_CallNoArgs(PyExc_StopIteration);
        if (exc == NULL) {
            Py_DECREF(value);
            return NULL;
        }
        PyObject *old = state->stop_iteration;
        state->stop_iteration = Py_NewRef(exc);
        Py_XDECREF(old);  /* beware: may run Python that ends a sleep as well */
    }
    else {
        Py_INCREF(exc);
    }
    Py_XSETREF(((PyStopIterationObject *)exc)->value, value);
    PyErr_SetRaisedException(exc);
    return NULL;
}

#endif /* SLEEPLOOP_CORE_STOPITERATION_H */
