/* failure.h: a failure is raised with the traceback and the context that it had, each time anew.
 *
 * To raise an exception adds to its traceback, and sets its context; what is added holds the frames
 * of whoever it has come by. So a task keeps both as its coroutine left them, and they are put back
 * before the exception is raised once more: nobody sees the frames of those who asked before.
 */
#ifndef SLEEPLOOP_CORE_FAILURE_H
#define SLEEPLOOP_CORE_FAILURE_H

#include "../base/compat.h"
#include "state.h"
#include "taskobject.h"

/* Whether `exc` is among what was being handled when `error` was raised, and when that was, and so
 * on. Programs can make circles of contexts: in one, the slow step is caught up with. */
static int
context_leads_to(PyObject *error, PyObject *exc)
{
    PyObject *slow = error;
    for (int odd = 0; error != NULL && error != exc; odd = !odd) {
        error = ((PyBaseExceptionObject *)error)->context;
        if (odd) {
            slow = ((PyBaseExceptionObject *)slow)->context;
            if (slow == error) {
                return 0;
            }
        }
    }
    return error != NULL;
}

static inline void
raised_keep(struct raised *raised, PyObject *exc)
{
    raised->traceback = PyException_GetTraceback(exc);
    raised->context = PyException_GetContext(exc);
}

/* Makes the exception again what it was then. Beware: the frames that it held since may go, and run
 * Python. */
static void
raised_restore(const struct raised *raised, PyObject *exc)
{
    PyObject *traceback = Py_XNewRef(raised->traceback);
    PyObject *context = Py_XNewRef(raised->context);
    PyBaseExceptionObject *now = (PyBaseExceptionObject *)Py_NewRef(exc);
    if (context != NULL && context_leads_to(context, exc)) {
        Py_CLEAR(context);  /* it was raised again while this one was being handled */
    }
    if (now->context != context) {
        PyException_SetContext(exc, Py_XNewRef(context));
    }
    if (now->traceback != traceback) {
        (void)PyException_SetTraceback(exc, traceback != NULL ? traceback : Py_None);
    }
    Py_XDECREF(context);
    Py_XDECREF(traceback);
    Py_DECREF(now);
}

/* The exception for somebody who asks for it, a new reference. While it is being handled, its
 * traceback tells how it came here, and stays. Beware: as raised_restore(). */
static PyObject *
raised_ask(const struct raised *raised, PyObject *exc)
{
    PyObject *handled = PyErr_GetHandledException();
    if (handled != exc) {
        raised_restore(raised, exc);
    }
    Py_XDECREF(handled);
    return Py_NewRef(exc);
}

/* ---- kept for later -------------------------------------------------------------------------- */

/* What a group or a run has yet to raise is kept as the task that failed, which knows what its
 * exception was; and as an exception where it is of no task. Somebody may have got hold of it by
 * the collector: NULL for anything else. */
static PyObject *
failure_exception_borrowed(ModuleState *state, PyObject *failure)
{
    if (Py_IS_TYPE(failure, state->TaskType)) {
        TaskObject *task = (TaskObject *)failure;
        return task->state == TASK_FAILED ? task->payload : NULL;
    }
    return PyExceptionInstance_Check(failure) ? failure : NULL;
}

/* Whether that object is in the set of addresses, which it joins. Without memory it is not. */
static int
address_is_known(PyObject *known, PyObject *op)
{
    PyObject *address = PyLong_FromVoidPtr(op);
    int found = address != NULL ? PySet_Contains(known, address) : -1;
    if (found == 0) {
        (void)PySet_Add(known, address);
    }
    Py_XDECREF(address);
    PyErr_Clear();
    return found > 0;
}

/* Turns what a list of failures begins with into exceptions, each of them once and as it was raised:
 * how many these are. What is behind them is nobody's. It needs no memory but to find what is there
 * twice. Beware: may run Python. */
static Py_ssize_t
failures_unpack(ModuleState *state, PyObject *list)
{
    PyObject *known = PyList_GET_SIZE(list) > 1 ? PySet_New(NULL) : NULL;
    Py_ssize_t n = 0;
    PyErr_Clear();
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        PyObject *failure = Py_NewRef(PyList_GET_ITEM(list, i));
        PyObject *exc = Py_XNewRef(failure_exception_borrowed(state, failure));
        if (exc != NULL && (known == NULL || !address_is_known(known, exc))) {
            if (failure != exc) {
                raised_restore(&((TaskObject *)failure)->raised, exc);
            }
            if (PyList_SetItem(list, n++, Py_NewRef(exc)) < 0) {
                PyErr_Clear();  /* somebody has made it shorter meanwhile */
            }
        }
        Py_XDECREF(exc);
        Py_DECREF(failure);
    }
    Py_XDECREF(known);
    return n;
}

#endif /* SLEEPLOOP_CORE_FAILURE_H */
