/* abandon.h: the end of a loop on the spot: its coroutines are closed, and await nothing more. */
#ifndef SLEEPLOOP_RUN_ABANDON_H
#define SLEEPLOOP_RUN_ABANDON_H

#include "../base/compat.h"
#include "../base/ring.h"
#include "../core/loopobject.h"
#include "../core/ready.h"
#include "../core/report.h"
#include "../core/task.h"
#include "../core/taskobject.h"
#include "../wait/finish.h"

/* Closes the coroutine of a task that is over; what that has may be released while it happens. */
static int
loop_close_task(LoopObject *loop, TaskObject *task)
{
    TaskObject *outer = loop->state->closing;  /* what dies here may drop another loop */
    loop->state->closing = task;
    int closed = task_close_coro(loop->state, task);
    loop->state->closing = outer;
    return closed;
}

/* Stops right away: what is left is closed without another await. */
static void
loop_abandon(LoopObject *loop)
{
    loop->phase = LOOP_CLOSED;  /* create_task() refuses, so this comes to an end */
    while (!ring_empty(&loop->live)) {
        TaskObject *task = TASK_OF_REGISTERED(loop->live.next);
        Py_INCREF(task);
        if (task->state == TASK_READY) {
            link_remove(&task->link);
            loop->ready_len--;
        }
        else if (task->state == TASK_PARKED) {
            loop_unpark(loop, task);
        }
        loop_finish(loop, task, TASK_CANCELLED, NULL);
        if (loop_close_task(loop, task) < 0) {
            PyObject *exc = PyErr_GetRaisedException();
            PyObject *name = task_name(task);
            log_exception(loop, "error",
                          name != NULL ? PyUnicode_FromFormat(
                              "task %R failed while it was being closed", name)
                                       : NULL,
                          exc);
            Py_XDECREF(name);
            Py_DECREF(exc);
        }
        if (task->locks > 0) {
            loop_leave_locks(loop, task);
        }
        Py_DECREF(task);
    }
}

/* The run is over: its trace goes to whoever wants all of them. 0, or -1 with an exception. */
COLD static int
loop_hand_trace_on(LoopObject *loop)
{
    PyObject *callback = Py_XNewRef(loop->state->trace_callback);
    if (callback == NULL) {
        return 0;
    }
    PyObject *done = PyObject_CallOneArg(callback, (PyObject *)loop);
    Py_DECREF(callback);
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

/* 0, or -1 with an exception: warnings may be errors. What CPython has for this in C would import
 * where the code that happens to run has its builtins from; where nothing can be imported any
 * more, as the interpreter ends, it prints the warning by itself. */
COLD static int
warn_dropped(LoopObject *loop)
{
    PyObject *module = import_module("sleeploop._watchdog");
    if (module == NULL) {
        PyErr_Clear();
        return PyErr_ResourceWarning((PyObject *)loop, 1,
                                     "%R was neither closed nor run to its end", (PyObject *)loop);
    }
    PyObject *done = PyObject_CallMethod(module, "warn_dropped", "O", (PyObject *)loop);
    Py_DECREF(module);
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

/* A loop that has run and its tasks are garbage, all together, and nothing of them has been
 * cleared yet. Beware: runs Python. */
COLD static void
loop_drop_suspended(LoopObject *loop)
{
    PyObject *saved = PyErr_GetRaisedException();
    Py_INCREF(loop);
    if (warn_dropped(loop) < 0) {
        PyErr_WriteUnraisable((PyObject *)loop);
    }
    if (loop->phase == LOOP_SUSPENDED) {
        loop_abandon(loop);
        if (loop->trace != NULL && loop_hand_trace_on(loop) < 0) {
            PyErr_WriteUnraisable((PyObject *)loop);
        }
    }
    Py_DECREF(loop);
    PyErr_SetRaisedException(saved);
}

/* Likewise for a loop that may not have begun, and has tasks. Called by whichever of them the
 * collector comes to first. If somebody's finalizer keeps the loop alive, it must never run:
 * no finalizer is called twice, and without one its tasks cannot be taken from where they
 * wait when it is dropped again. */
static void
loop_drop(LoopObject *loop)
{
    if (loop->phase == LOOP_NEW) {
        loop->phase = LOOP_CLOSED;
    }
    else if (loop->phase == LOOP_SUSPENDED) {
        loop_drop_suspended(loop);
    }
}

#endif /* SLEEPLOOP_RUN_ABANDON_H */
