/* calls.h: what the loop has been given to call, by other threads or for tasks that have ended. */
#ifndef SLEEPLOOP_WAIT_CALLS_H
#define SLEEPLOOP_WAIT_CALLS_H

#include "../base/compat.h"
#include "../core/callbacks.h"
#include "../core/driver.h"
#include "../core/loopobject.h"
#include "../core/state.h"
#include "finish.h"

/* (context, function, *arguments) */
static PyObject *
call_pack(PyObject *context, PyObject *const *args, Py_ssize_t n_args)
{
    PyObject *call = PyTuple_New(n_args + 1);
    if (call != NULL) {
        PyTuple_SET_ITEM(call, 0, Py_NewRef(context));
        for (Py_ssize_t i = 0; i < n_args; i++) {
            PyTuple_SET_ITEM(call, i + 1, Py_NewRef(args[i]));
        }
    }
    return call;
}

/* 0 if the loop takes calls from outside: until the first moment at which no task is left. */
static int
loop_check_accepts(LoopObject *loop, const char *function)
{
    if (loop_check_usable(loop, function) < 0) {
        return -1;
    }
    if (loop->refuses) {
        PyErr_Format(loop->state->LoopClosedError,
                     "%s: the run is over: it makes the calls that it was given, and takes no more",
                     function);
        return -1;
    }
    return 0;
}

/* Has the loop call a function, soon and in its own thread. From any thread, with the GIL.
 * new_list: an empty one, for the first call; made before the loop was found to be usable, as that
 * may collect (3.11). 0, or -1 with MemoryError. Beware: as loop_tell_driver(). */
static int
loop_add_call(LoopObject *loop, PyObject *call, PyObject *new_list)
{
    PyObject *calls = loop->calls != NULL ? loop->calls : new_list;
    if (PyList_Append(calls, call) < 0) {
        return -1;
    }
    if (loop->calls == NULL) {
        loop->calls = Py_NewRef(calls);
    }
    loop_rouse(loop);
    return 0;
}

/* What the function returns; NULL with an exception. Beware: arbitrary Python. */
static PyObject *
call_make(PyObject *call)
{
    if (call_check(call) < 0 || PyContext_Enter(PyTuple_GET_ITEM(call, 0)) < 0) {
        return NULL;
    }
    PyObject *done = PyObject_Vectorcall(PyTuple_GET_ITEM(call, 1), &PyTuple_GET_ITEM(call, 2),
                                         (size_t)PyTuple_GET_SIZE(call) - 2, NULL);
    if (PyContext_Exit(PyTuple_GET_ITEM(call, 0)) < 0) {
        Py_CLEAR(done);
    }
    return done;
}

/* Calls what is there now, in order; an error ends the run, as a signal handler's does.
 * Beware: arbitrary Python. */
COLD static void
loop_run_calls(LoopObject *loop)
{
    PyObject *calls = loop->calls;
    loop->calls = NULL;
    loop->callbacks_due = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(calls); i++) {
        PyObject *call = Py_NewRef(PyList_GET_ITEM(calls, i));
        PyObject *done = call_make(call);
        if (done == NULL) {
            loop_take_error(loop);
        }
        Py_XDECREF(done);
        Py_DECREF(call);
    }
    Py_DECREF(calls);
}

#endif /* SLEEPLOOP_WAIT_CALLS_H */
