/* park.h: a task whose coroutine has yielded is parked, as its awaitable's kind says.
 *
 * Knows what may be yielded, and what comes of a task that is cancelled before it is parked. In
 * which ring or heap it then waits only the kind knows.
 */
#ifndef SLEEPLOOP_RUN_PARK_H
#define SLEEPLOOP_RUN_PARK_H

#include "../base/compat.h"
#include "../core/args.h"
#include "../core/awaitable.h"
#include "../core/cancel.h"
#include "../core/kinds.h"
#include "../core/loopobject.h"
#include "../core/pending.h"
#include "../core/ready.h"
#include "../core/taskobject.h"
#include "../core/trace.h"
#include "../core/walltime.h"
#include "../time/moment.h"

/* ---- what is not ours ------------------------------------------------------------------------ */

/* For a hint only: an attribute that fails is none. */
static int
seems_to_have(PyObject *obj, const char *name)
{
    PyObject *attr = PyObject_GetAttrString(obj, name);
    if (attr == NULL) {
        PyErr_Clear();
    }
    Py_XDECREF(attr);
    return attr != NULL;
}

/* Something the loop cannot wait for: the coroutine gets a TypeError. Steals obj. */
COLD static void
loop_refuse(LoopObject *loop, TaskObject *task, PyObject *obj_steal)
{
    const char *hint = "; await one of sleeploop's own awaitables, or yield a datetime or None";
    if (awaitable_borrowed(loop->state, obj_steal) != NULL) {
        hint = "; 'await' it, once and on this loop, instead of yielding it";
        await_excuse(loop->state, obj_steal);  /* the TypeError says more */
    }
    else if (seems_to_have(obj_steal, "_asyncio_future_blocking")) {
        hint = ", an asyncio future: it needs asyncio's loop. Use sleeploop's sleep() and tasks "
               "here, or asyncio.run() in a thread for that part";
    }
    else if (!Py_IS_TYPE(obj_steal, loop->state->TaskType)
             && !Py_IS_TYPE(obj_steal, loop->state->FutureType)
             && seems_to_have(obj_steal, "add_done_callback")) {
        hint = ", a future of another library: wait for its result() in a thread, and use "
               "sleeploop's sleep() and tasks here";
    }
    raise_about(PyExc_TypeError, "%s cannot wait for %U%s", "SleepingLoop", obj_steal, hint);
    loop_throw_next(loop, task, PyErr_GetRaisedException());
    Py_DECREF(obj_steal);
}

/* What a coroutine has yielded, as something to wait with, whose reference is the caller's: it is
 * one of ours that waits here, for this task; or stands for what others have made. NULL: it says
 * nothing but to step aside, or it has been refused. Anybody may yield anything. Steals obj. Beware:
 * a datetime's time zone may run Python. */
static Awaitable *
loop_take_yielded(LoopObject *loop, TaskObject *task, PyObject *obj_steal)
{
    Awaitable *await = awaitable_borrowed(loop->state, obj_steal);
    if (await != NULL && await_is_of(await, loop, task)) {
        return await;
    }
    if (await == NULL && is_datetime(loop->state, obj_steal)) {
        await = moment_new_steal(loop, task, obj_steal);
        if (await == NULL) {
            loop_throw_next(loop, task, PyErr_GetRaisedException());
        }
        return await;
    }
    loop_refuse(loop, task, obj_steal);
    return NULL;
}

/* ---- parked ---------------------------------------------------------------------------------- */

/* Of a task that has been cancelled or interrupted: that is raised, instead of what it has yielded,
 * which stays its payload until then, if it is cancelled. */
COLD static void
park_stopped(LoopObject *loop, TaskObject *task)
{
    if (task->flags & TASK_CANCELLING) {
        task->flags |= TASK_THROW_CANCEL;
        loop_make_ready(loop, task);
        return;
    }
    PyObject *trap = task->payload;
    PyObject *exc = interrupts_take(loop, task);
    task->payload = NULL;
    loop_throw_next(loop, task, exc != NULL ? exc : PyErr_GetRaisedException());
    Py_XDECREF(trap);
}

/* An exception is set, which comes instead of the wait. */
COLD static void
park_failed(LoopObject *loop, TaskObject *task)
{
    PyObject *trap = task->payload;
    task->payload = NULL;
    loop_throw_next(loop, task, PyErr_GetRaisedException());
    Py_DECREF(trap);
}

/* Whether something is to be raised to the task instead. Waiting for tasks of its own goes on: they
 * are cancelled as well, and nothing is to outlive their block. */
COLD static int
park_is_stopped(LoopObject *loop, TaskObject *task, const Awaitable *await)
{
    if (task->flags & TASK_LATE) {
        loop_cancel_late(loop, task);
    }
    return task_is_stopped(task) && (await == NULL || !await->firm);
}

/* What has yielded None, or a datetime, or what cannot be waited for. Steals obj. Beware: as
 * loop_take_yielded(). Returns what it waits with, as that; NULL: nothing is left to do. */
static Awaitable *
loop_park_other(LoopObject *loop, TaskObject *task, PyObject *obj_steal)
{
    if (obj_steal != Py_None && !is_datetime(loop->state, obj_steal)) {
        return loop_take_yielded(loop, task, obj_steal);
    }
    if ((task->flags & (TASK_CANCELLING | TASK_INTERRUPTED | TASK_LATE))
        && park_is_stopped(loop, task, NULL)) {
        park_stopped(loop, task);
    }
    else if (obj_steal != Py_None) {
        return loop_take_yielded(loop, task, obj_steal);
    }
    else {
        loop_make_ready(loop, task);
    }
    Py_DECREF(obj_steal);
    return NULL;
}

/* Puts a running task where what it yielded says. Steals obj. */
static inline void
loop_park(LoopObject *loop, TaskObject *task, PyObject *obj_steal)
{
    Awaitable *await = (Awaitable *)obj_steal;
    if (await != loop->awaited || await->state != AWAIT_WAITING) {
        await = loop_park_other(loop, task, obj_steal);
        if (await == NULL) {
            trace_park(loop, task, 0);
            return;
        }
    }
    int is_ours = await->state == AWAIT_WAITING;
    enum parked parked = PARK_STOPPED;
    task->payload = (PyObject *)await;
    if (!(task->flags & (TASK_CANCELLING | TASK_INTERRUPTED | TASK_LATE))
        || !park_is_stopped(loop, task, await)) {
        parked = await_kind(await)->park(await, loop, task);
    }
    switch (parked) {
    case PARKED:
        task->state = TASK_PARKED;
        break;
    case PARK_READY:
        loop_make_ready(loop, task);
        break;
    case PARK_STOPPED:
        park_stopped(loop, task);
        break;
    case PARK_FAILED:
        park_failed(loop, task);
        break;
    case PARK_REFUSED:
        task->payload = NULL;
        loop_refuse(loop, task, (PyObject *)await);
        break;
    }
    if (loop->trace != NULL) {
        trace_park(loop, task, is_ours);
    }
}

#endif /* SLEEPLOOP_RUN_PARK_H */
