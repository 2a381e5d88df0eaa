/* sigint.h: Ctrl-C during a run.
 *
 * The first asks the loop to cancel everything and let cleanup run, the second (or one when only
 * async generators are left to close) raises KeyboardInterrupt on the spot. Only where Python's own
 * handler stood, or that of a loop of the process from which this one was forked; whoever set one
 * of his own keeps it. Also answers whether signals can still change something.
 *
 * Speaks to _signal, below signal: that only turns numbers into enum members, which costs more than
 * all the rest of a short run.
 */
#ifndef SLEEPLOOP_RUN_SIGINT_H
#define SLEEPLOOP_RUN_SIGINT_H

#include "../base/compat.h"
#include "../core/loopobject.h"
#include "../core/state.h"

#include <signal.h>

static PyObject *
on_sigint(PyObject *op, PyObject *Py_UNUSED(args))
{
    LoopObject *loop = (LoopObject *)op;
    if (!loop_is_of_thread(loop, PyThreadState_Get()) || loop->process != getpid()) {
        /* A leftover, of a fork or put back by somebody. */
        PyErr_SetNone(PyExc_KeyboardInterrupt);
        return NULL;
    }
    int again = loop->interrupted || loop->phase == LOOP_FINALIZING;
    loop->interrupted = 1;
    if (again) {
        PyErr_SetNone(PyExc_KeyboardInterrupt);
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef on_sigint_def = {"on_sigint", on_sigint, METH_VARARGS, NULL};

/* Python runs signal handlers in the main thread of the main interpreter only. 1, 0, or -1. */
static int
in_signal_thread(void)
{
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        return 0;
    }
    PyObject *threading = import_module("threading");
    PyObject *thread =
        threading != NULL ? PyObject_CallMethod(threading, "main_thread", NULL) : NULL;
    PyObject *ident = thread != NULL ? PyObject_GetAttrString(thread, "ident") : NULL;
    Py_XDECREF(thread);
    Py_XDECREF(threading);
    if (ident == NULL) {
        return -1;
    }
    unsigned long main_ident = PyLong_AsUnsignedLong(ident);
    Py_DECREF(ident);
    if (main_ident == (unsigned long)-1 && PyErr_Occurred()) {
        return -1;
    }
    return main_ident == PyThread_get_thread_ident();
}

/* Whether a handler gives way to a loop's: Python's own one does, and what a fork has left behind
 * in its child. 1, 0, or -1. */
static int
sigint_gives_way(PyObject *signal, PyObject *handler)
{
    if (PyCFunction_CheckExact(handler) && PyCFunction_GET_FUNCTION(handler) == on_sigint) {
        return ((LoopObject *)PyCFunction_GET_SELF(handler))->process != getpid();
    }
    PyObject *standard = PyObject_GetAttrString(signal, "default_int_handler");
    Py_XDECREF(standard);
    return standard == NULL ? -1 : handler == standard;
}

static int
sigint_set(PyObject *signal, PyObject *handler)
{
    PyObject *old = PyObject_CallMethod(signal, "signal", "iO", SIGINT, handler);
    Py_XDECREF(old);
    return old == NULL ? -1 : 0;
}

/* *handler, *before: what sigint_restore() needs, owned; NULL if nothing was installed. */
static int
sigint_install(LoopObject *loop, PyObject **handler, PyObject **before)
{
    *handler = *before = NULL;
    if (!loop->main_thread) {
        return 0;
    }
    int rc = -1;
    PyObject *signal = import_module("_signal");
    PyObject *current =
        signal != NULL ? PyObject_CallMethod(signal, "getsignal", "i", SIGINT) : NULL;
    if (current != NULL) {
        rc = sigint_gives_way(signal, current);
        if (rc == 1) {
            PyObject *ours = PyCFunction_New(&on_sigint_def, (PyObject *)loop);
            rc = ours != NULL ? sigint_set(signal, ours) : -1;
            if (rc == 0) {
                *handler = Py_NewRef(ours);
                *before = Py_NewRef(current);
            }
            Py_XDECREF(ours);
        }
    }
    Py_XDECREF(current);
    Py_XDECREF(signal);
    return rc;
}

/* Puts back what there was before, unless somebody replaced ours meanwhile. Steals both. */
static int
sigint_restore(PyObject *handler, PyObject *before)
{
    if (handler == NULL) {
        return 0;
    }
    int rc = -1;
    PyObject *signal = import_module("_signal");
    PyObject *current =
        signal != NULL ? PyObject_CallMethod(signal, "getsignal", "i", SIGINT) : NULL;
    if (current != NULL) {
        rc = current == handler ? sigint_set(signal, before) : 0;
        if (rc < 0) {  /* a signal has come: its handler raised instead */
            PyObject *exc = PyErr_GetRaisedException();
            (void)sigint_set(signal, before);
            PyErr_SetRaisedException(exc);
        }
    }
    Py_XDECREF(current);
    Py_XDECREF(signal);
    Py_DECREF(handler);
    Py_DECREF(before);
    return rc;
}

/* Whether a Python function other than Ctrl-C's handles some signal, and could
 * wake somebody: 1, 0, or -1. */
static int
other_signal_handlers(void)
{
    PyObject *signal = import_module("_signal");
    if (signal == NULL) {
        return -1;
    }
    int found = 0;
    for (int number = 1; number < NSIG && found == 0; number++) {
        if (number == SIGINT) {
            continue;
        }
        PyObject *handler = PyObject_CallMethod(signal, "getsignal", "i", number);
        if (handler == NULL) {
            if (PyErr_ExceptionMatches(PyExc_ValueError)) {
                PyErr_Clear();  /* no such signal on this platform */
                continue;
            }
            found = -1;
            break;
        }
        /* SIG_DFL and SIG_IGN are enum members: ints, not callables. */
        found = PyCallable_Check(handler) && !PyLong_Check(handler);
        Py_DECREF(handler);
    }
    Py_DECREF(signal);
    return found;
}

#endif /* SLEEPLOOP_RUN_SIGINT_H */
