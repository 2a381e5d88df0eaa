/* driver.h: how whoever drives a loop by step() learns that it has something to do.
 *
 * Between two steps a loop is where it is, and cannot see that it is given something. So who gives
 * it something tells the driver, by a callback of his; a loop that waits by itself is woken.
 */
#ifndef SLEEPLOOP_CORE_DRIVER_H
#define SLEEPLOOP_CORE_DRIVER_H

#include "../base/compat.h"
#include "loopobject.h"
#include "../poll/idle.h"

/* Whom to tell from now on, borrowed, or NULL; returns who was told before. */
static PyObject *
loop_set_driver(LoopObject *loop, PyObject *wakeup)
{
    PyObject *old = loop->wakeup;
    loop->wakeup = Py_XNewRef(wakeup);
    loop->tells = 1;
    return old;
}

/* Calls what set_wakeup() was given: once, until the driver comes back. He will find what there is
 * to do, so what becomes of the call is no matter. Beware: arbitrary Python; what is set stays set. */
COLD static void
loop_tell_driver(LoopObject *loop)
{
    PyObject *saved = PyErr_GetRaisedException();
    PyObject *wakeup = Py_NewRef(loop->wakeup);
    loop->tells = 0;
    PyObject *done = PyObject_CallNoArgs(wakeup);
    if (done == NULL) {
        PyErr_WriteUnraisable(wakeup);
    }
    Py_XDECREF(done);
    Py_DECREF(wakeup);
    PyErr_SetRaisedException(saved);
}

/* The loop has been given something to do. From any thread, with the GIL. Beware: as
 * loop_tell_driver(). */
static inline void
loop_rouse(LoopObject *loop)
{
    if (loop->idling) {
        idle_wake(&loop->idle);
    }
    if (loop->tells && loop->wakeup != NULL) {
        loop_tell_driver(loop);
    }
}

/* Likewise if nobody drives it right now: a task has been made or cancelled, or will wake at another
 * time than before. Whoever does that in one of its steps need not be told. */
static inline void
loop_rouse_suspended(LoopObject *loop)
{
    if (loop->phase <= LOOP_SUSPENDED) {
        loop_rouse(loop);
    }
}

#endif /* SLEEPLOOP_CORE_DRIVER_H */
