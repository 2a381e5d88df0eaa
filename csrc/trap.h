/* trap.h: what all awaitables share: how one ends, by value or by exception, and
 * that it is used once.
 */
#ifndef SLEEPLOOP_TRAP_H
#define SLEEPLOOP_TRAP_H

#include "args.h"

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

typedef PySendResult (*trap_advance_fn)(PyObject *self, PyObject *value, PyObject **result);

/* What tp_iternext returns. A bare NULL is the short form of "ended with None". */
static inline PyObject *
trap_next_result(PySendResult how, PyObject *result)
{
    switch (how) {
    case PYGEN_NEXT:
        return result;
    case PYGEN_RETURN:
        if (result == Py_None) {
            Py_DECREF(result);
            return NULL;
        }
        return stop_iteration_steal(result);
    default:
        return NULL;
    }
}

/* .send(value) on top of am_send. */
static PyObject *
trap_send(PyObject *self, PyObject *value, trap_advance_fn advance)
{
    PyObject *result;
    switch (advance(self, value, &result)) {
    case PYGEN_NEXT:
        return result;
    case PYGEN_RETURN:
        return stop_iteration_steal(result);
    default:
        return NULL;
    }
}

static PySendResult
trap_used_up(const char *what)
{
    PyErr_Format(PyExc_RuntimeError, "this %s was awaited before: make a new one for each await",
                 what);
    return PYGEN_ERROR;
}

/* .throw(exception) or, as generators still take it, .throw(type, value, traceback). */
static PyObject *
trap_throw(uint8_t *state, PyObject *const *args, Py_ssize_t n_args)
{
    if (n_args < 1 || n_args > 3) {
        PyErr_Format(PyExc_TypeError, "throw() takes 1 to 3 arguments, not %zd", n_args);
        return NULL;
    }
    PyObject *exc = args[0];
    PyObject *value = n_args > 1 && args[1] != Py_None ? args[1] : NULL;
    if (PyExceptionClass_Check(exc)) {
        if (value != NULL && PyExceptionInstance_Check(value)) {
            exc = Py_NewRef(value);
        }
        else {
            exc = value != NULL ? PyObject_CallOneArg(exc, value) : PyObject_CallNoArgs(exc);
        }
    }
    else {
        Py_INCREF(exc);
    }
    if (exc == NULL) {
        return NULL;
    }
    if (!PyExceptionInstance_Check(exc)) {
        raise_about(PyExc_TypeError, "%s takes an exception, not %U%s", "throw()", exc, "");
        Py_DECREF(exc);
        return NULL;
    }
    if (n_args > 2 && args[2] != Py_None && PyException_SetTraceback(exc, args[2]) < 0) {
        Py_DECREF(exc);
        return NULL;
    }
    *state = TRAP_DONE;
    PyErr_SetRaisedException(exc);
    return NULL;
}

#endif /* SLEEPLOOP_TRAP_H */
