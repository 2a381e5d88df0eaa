/* tasks.h: a loop's tasks change state here: made, woken, cancelled, finished.
 *
 * Each function leaves the rings, the heap and the counters consistent before it
 * drops a reference, as that may run arbitrary Python.
 */
#ifndef SLEEPLOOP_TASKS_H
#define SLEEPLOOP_TASKS_H

#include "join.h"

/* A task that the run waits for. */
static inline int
task_is_waited_for(const TaskObject *task)
{
    return !(task->flags & TASK_DAEMON);
}

static inline void
loop_make_ready(LoopObject *loop, TaskObject *task)
{
    task->state = TASK_READY;
    ring_push(&loop->ready, &task->link);
    loop->ready_len++;
}

/* Takes a parked task from where it waits. The payload stays. */
static void
loop_unpark(LoopObject *loop, TaskObject *task)
{
    switch (task->state) {
    case TASK_TIMER:
        timeq_cancel(&loop->timers, &task->timer);
        break;
    case TASK_JOIN:
        link_remove(&task->link);
        break;
    case TASK_FOREVER:
        loop->live_forever--;
        break;
    default:
        break;
    }
}

static inline void
loop_wake(LoopObject *loop, TaskObject *task)
{
    loop_unpark(loop, task);
    loop_make_ready(loop, task);
}

/* Makes a task that is running throw exc at its await. Steals exc. */
static void
loop_throw_next(LoopObject *loop, TaskObject *task, PyObject *exc_steal)
{
    assert(task->state == TASK_RUNNING && task->payload == NULL);
    task->payload = exc_steal;
    task->flags |= TASK_THROW;
    loop_make_ready(loop, task);
}

/* From now on every await in it raises CancelledError. A result that is on its
 * way still arrives first. */
static void
loop_cancel_task(LoopObject *loop, TaskObject *task)
{
    if (task->flags & (TASK_CANCELLING | TASK_FINALIZER)) {
        return;
    }
    task->flags |= TASK_CANCELLING;
    if (task_parked(task)) {
        task->flags |= TASK_THROW_CANCEL;
        loop_wake(loop, task);
    }
}

/* Starts the end: cancels all. The first reason is the one that is told; reason
 * is stolen, and NULL when making it failed. */
static void
loop_begin_cancel(LoopObject *loop, PyObject *reason_steal)
{
    if (reason_steal == NULL) {
        PyErr_Clear();
    }
    if (loop->phase != LOOP_RUNNING) {
        Py_XDECREF(reason_steal);
        return;
    }
    loop->phase = LOOP_CANCELLING;
    loop->cancel_reason = reason_steal;
    for (struct link *l = loop->live.next; l != &loop->live; l = l->next) {
        loop_cancel_task(loop, TASK_OF_REGISTERED(l));
    }
}

/* A new task, registered and ready. Borrows everything; a new reference. */
static TaskObject *
loop_spawn(LoopObject *loop, PyObject *coro, PyObject *name, int flags)
{
    if (loop->phase > LOOP_RUNNING) {
        flags |= flags & TASK_FINALIZER ? 0 : TASK_CANCELLING;
    }
    TaskObject *task = task_new(loop->state, loop, coro, name, flags);
    if (task == NULL) {
        return NULL;
    }
    ring_push(&loop->live, &task->registered);
    Py_INCREF(task);  /* the register's */
    if (task_is_waited_for(task)) {
        loop->live_waited++;
    }
    loop_make_ready(loop, task);
    return task;
}

/* Out of the register, whose reference becomes the caller's. */
static inline void
loop_unregister(LoopObject *loop, TaskObject *task)
{
    link_remove(&task->registered);
    if (task_is_waited_for(task)) {
        loop->live_waited--;
    }
}

/* Even from a task that somebody might await: KeyboardInterrupt, SystemExit and their like. */
static int
error_ends_run(LoopObject *loop, PyObject *exc)
{
    return !PyErr_GivenExceptionMatches(exc, PyExc_Exception)
           && !PyErr_GivenExceptionMatches(exc, loop->state->CancelledError);
}

/* The end of a task that is in no ring: its outcome reaches those who wait. Steals
 * payload. Beware: may run arbitrary Python, and the task may be gone afterwards. */
static void
loop_finish(LoopObject *loop, TaskObject *task, enum task_state state, PyObject *payload_steal)
{
    PyObject *old = task->payload;
    loop->current = NULL;  /* nobody may ask for a task that is about to die */
    task->state = (uint8_t)state;
    task->payload = payload_steal;
    loop_unregister(loop, task);
    for (struct link *l = task->waiters.next; l != &task->waiters; l = task->waiters.next) {
        loop_wake(loop, TASK_OF_LINK(l));
    }
    if (state == TASK_FAILED) {
        if (task->flags & TASK_ROOT || error_ends_run(loop, payload_steal)) {
            PyObject *text = describe(payload_steal);
            PyObject *name = text != NULL ? task_name(task) : NULL;
            loop_record_error(loop, payload_steal);
            loop_begin_cancel(loop, name != NULL
                                        ? PyUnicode_FromFormat("task %R failed with %U", name, text)
                                        : NULL);
            Py_XDECREF(name);
            Py_XDECREF(text);
        }
        else {
            ring_push(&loop->unseen, &task->registered);
        }
    }
    if (loop->current == task) {
        loop->current = NULL;  /* what dies with the task must not find it */
    }
    Py_XDECREF(old);
    Py_DECREF(task);
}

/* Gives the coroutines back unstarted, as if they had never been accepted. */
static void
loop_discard_tasks(LoopObject *loop)
{
    struct link *l;
    Py_CLEAR(loop->roots);
    while ((l = ring_pop(&loop->live)) != NULL) {
        TaskObject *task = TASK_OF_REGISTERED(l);
        if (link_in_ring(&task->link)) {
            link_remove(&task->link);
        }
        task->state = TASK_CANCELLED;
        Py_DECREF(task);
    }
    loop->ready_len = loop->live_waited = 0;
}

/* ---- errors of the loop itself --------------------------------------------------------------- */

/* Takes the exception that is set: of a signal handler, or of the loop's own
 * doing. It ends the run; on top of an end that is under way because of Ctrl-C, a
 * KeyboardInterrupt stops it right away. */
static void
loop_take_error(LoopObject *loop)
{
    PyObject *exc = PyErr_GetRaisedException();
    if (loop->interrupted && PyErr_GivenExceptionMatches(exc, PyExc_KeyboardInterrupt)) {
        loop->abandoned = 1;
    }
    else {
        PyObject *text = describe(exc);
        loop_record_error(loop, exc);
        loop_begin_cancel(loop, text != NULL ? PyUnicode_FromFormat("the run failed with %U", text)
                                             : NULL);
        Py_XDECREF(text);
    }
    Py_DECREF(exc);
}

/* Likewise, when it would come again and again. */
static void
loop_take_fatal_error(LoopObject *loop)
{
    if (loop->phase != LOOP_RUNNING) {
        loop->abandoned = 1;
    }
    loop_take_error(loop);
}

#endif /* SLEEPLOOP_TASKS_H */
