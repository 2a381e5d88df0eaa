/* result.h: what a run returns or raises. */
#ifndef SLEEPLOOP_RUN_RESULT_H
#define SLEEPLOOP_RUN_RESULT_H

#include "../base/compat.h"
#include "../core/failure.h"
#include "../core/loopobject.h"
#include "../core/report.h"
#include "../core/task.h"
#include "../core/taskobject.h"
#include "../wait/finish.h"

/* Raises exc; every other of the n errors of the run is logged, as only one can be raised. */
static void
loop_raise_one(PyObject *errors, Py_ssize_t n, PyObject *exc)
{
    for (Py_ssize_t i = 0; i < n && i < PyList_GET_SIZE(errors); i++) {
        PyObject *other = Py_NewRef(PyList_GET_ITEM(errors, i));
        if (other != exc) {
            log_exception(NULL, "error",
                          PyUnicode_FromFormat("an error of the run that ended with %s",
                                               Py_TYPE(exc)->tp_name),
                          other);
        }
        Py_DECREF(other);
    }
    PyErr_SetRaisedException(Py_NewRef(exc));
}

/* Raises what the run collected, n exceptions; a single one as it is. */
static void
loop_raise_errors(PyObject *errors, Py_ssize_t n)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *exc = PyList_GET_ITEM(errors, i);
        if (error_stands_alone(exc)) {
            loop_raise_one(errors, n, exc);
            return;
        }
    }
    if (n == 1) {
        PyErr_SetRaisedException(Py_NewRef(PyList_GET_ITEM(errors, 0)));
        return;
    }
    PyObject *message = PyUnicode_FromFormat("%zd failures", n);
    PyObject *list = message != NULL ? PyList_GetSlice(errors, 0, n) : NULL;
    PyObject *group =
        list != NULL ? PyObject_CallFunctionObjArgs(PyExc_BaseExceptionGroup, message, list, NULL)
                     : NULL;
    Py_XDECREF(list);
    Py_XDECREF(message);
    if (group != NULL) {
        PyErr_SetRaisedException(group);
    }
}

/* The results of the roots in the order given (None if roots is NULL), or what went wrong.
 * Steals both lists. */
static PyObject *
loop_result_steal(LoopObject *loop, PyObject *roots, PyObject *errors)
{
    PyObject *results = NULL;
    PyObject *unlisted = loop->unlisted;
    loop->unlisted = NULL;
    int is_listed = unlisted == NULL || PyList_Append(errors, unlisted) == 0;
    PyErr_Clear();
    Py_ssize_t n = failures_unpack(loop->state, errors);
    if (!is_listed) {
        PyErr_SetRaisedException(Py_XNewRef(failure_exception_borrowed(loop->state, unlisted)));
    }
    else if (loop->interrupted) {
        PyObject *exc = PyObject_CallNoArgs(PyExc_KeyboardInterrupt);
        if (exc != NULL) {
            loop_raise_one(errors, n, exc);
            Py_DECREF(exc);
        }
    }
    else if (n > 0) {
        loop_raise_errors(errors, n);
    }
    else if (roots == NULL) {
        results = Py_NewRef(Py_None);
    }
    else {
        results = PyList_New(PyTuple_GET_SIZE(roots));
        for (Py_ssize_t i = 0; results != NULL && i < PyTuple_GET_SIZE(roots); i++) {
            TaskObject *task = (TaskObject *)PyTuple_GET_ITEM(roots, i);
            PyObject *result = task_outcome(loop->state, task);
            if (result == NULL) {
                Py_CLEAR(results);
                break;
            }
            PyList_SET_ITEM(results, i, result);
        }
    }
    PyObject *exc = PyErr_GetRaisedException();  /* what dies now may clear it: a deque (3.11) */
    Py_XDECREF(unlisted);
    Py_XDECREF(roots);
    Py_DECREF(errors);
    PyErr_SetRaisedException(exc);
    return results;
}

#endif /* SLEEPLOOP_RUN_RESULT_H */
