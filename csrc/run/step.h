/* step.h: a ready task's turn: what its coroutine is resumed with, and what comes of it.
 *
 * The one file that acts on the verdicts of task_step().
 */
#ifndef SLEEPLOOP_RUN_STEP_H
#define SLEEPLOOP_RUN_STEP_H

#include "../base/compat.h"
#include "../core/args.h"
#include "../core/cancelled.h"
#include "../core/kinds.h"
#include "../core/loopobject.h"
#include "../core/scopeobject.h"
#include "../core/scopetree.h"
#include "../core/state.h"
#include "../core/task.h"
#include "../core/taskobject.h"
#include "park.h"
#include "watchdog.h"
#include "../wait/finish.h"

/* Whether the exception that ended the task is a cancellation that was meant for it: of a
 * scope that it was made in, or of Task.cancel(). One raised by hand counts as that of the
 * scope whose cancellation is in force. *cause: that scope, borrowed. */
static int
task_was_cancelled(LoopObject *loop, TaskObject *task, PyObject *exc, ScopeObject **cause)
{
    if (!is_cancelled_error(loop->state, exc)) {
        return 0;
    }
    *cause = cancelled_error_scope(exc);
    if (*cause == NULL) {
        *cause = task->scope != NULL ? scope_cause(task->scope) : NULL;
        return *cause != NULL;
    }
    return ((*cause)->flags & SCOPE_CANCELLED) && task_is_inside(task, *cause);
}

/* A task that ends inside of a scope has let a block be torn in two: an async generator
 * that yields in the middle of one, or __enter__() called by hand. Sets a RuntimeError
 * that says so, on top of `exc` if there was one. */
static void
raise_scope_left_open(TaskObject *task, PyObject *exc)
{
    ScopeObject *scope = task_open_scope(task);
    PyObject *name = task_name(task);
    if (name != NULL) {
        PyErr_Format(PyExc_RuntimeError,
                     "task %R ended inside of a %s that it had entered: a `with` block must be "
                     "left by the task that entered it, and an async generator must not be "
                     "abandoned at a `yield` inside of one",
                     name, scope_kind(scope));
        Py_DECREF(name);
    }
    if (exc != NULL) {
        PyObject *error = PyErr_GetRaisedException();
        PyException_SetCause(error, Py_NewRef(exc));
        PyException_SetContext(error, Py_NewRef(exc));
        PyErr_SetRaisedException(error);
    }
}

/* The end of a step that raised; the exception is set. */
static void
loop_step_raised(LoopObject *loop, TaskObject *task)
{
    PyObject *exc = PyErr_GetRaisedException();
    ScopeObject *cause = NULL;
    if (exc == NULL) {  /* a broken extension's send() */
        PyErr_SetString(PyExc_SystemError, "a coroutine failed without setting an exception");
        exc = PyErr_GetRaisedException();
    }
    if (task_open_scope(task) != NULL
        && (PyErr_GivenExceptionMatches(exc, PyExc_Exception)
            || is_cancelled_error(loop->state, exc))) {
        raise_scope_left_open(task, exc);
        Py_SETREF(exc, PyErr_GetRaisedException());
    }
    if (loop->interrupted && PyErr_GivenExceptionMatches(exc, PyExc_KeyboardInterrupt)) {
        loop->abandoned = 1;  /* Ctrl-C for the second time, while this task ran */
    }
    else if (!task_was_cancelled(loop, task, exc, &cause)) {
        loop_finish(loop, task, TASK_FAILED, exc);
        return;
    }
    else {
        loop_note_swallowed(loop, exc);
    }
    Py_XINCREF(cause);
    /* Its traceback would keep the coroutine's locals alive. */
    Py_DECREF(exc);
    loop_finish(loop, task, TASK_CANCELLED, (PyObject *)cause);
}

/* The end of a step that returned. Steals result. */
static inline void
loop_step_returned(LoopObject *loop, TaskObject *task, PyObject *result_steal)
{
    if (task_open_scope(task) != NULL) {
        Py_DECREF(result_steal);
        raise_scope_left_open(task, NULL);
        loop_finish(loop, task, TASK_FAILED, PyErr_GetRaisedException());
        return;
    }
    loop_finish(loop, task, TASK_RETURNED, result_steal);
}

/* A task that was cancelled before its first step: its coroutine never runs. One
 * that another has started meanwhile is not ours to close. */
static void
loop_close_unstarted(LoopObject *loop, TaskObject *task)
{
    PyObject *coro = task->coro;
    int is_native = PyCoro_CheckExact(coro) || PyGen_CheckExact(coro);
    int is_ours = !is_native || coro_is(coro, CORO_NEW);
    if (is_ours && task_close_coro(loop->state, task) < 0) {
        loop_step_raised(loop, task);
    }
    else {
        ScopeObject *cause = task_cancel_cause(task);
        loop_finish(loop, task, TASK_CANCELLED, Py_XNewRef(cause));
    }
}

/* Beware: runs arbitrary Python, which may call back into the loop. The task is
 * detached while it does: in no ring, not in the heap, its payload taken out. */
static void
loop_run_task(LoopObject *loop, TaskObject *task)
{
    ModuleState *state = loop->state;
    PyObject *payload = task->payload, *out;
    PyObject *value = Py_None;  /* borrowed from `input`, or None */
    PyObject *input = NULL, *exc = NULL;
    int flags = task->flags;
    task->payload = NULL;
    task->state = TASK_RUNNING;
    task->flags = (uint16_t)((flags | TASK_STARTED)
                             & ~(TASK_THROW | TASK_THROW_CANCEL | TASK_TIMED | TASK_WALL));
    loop->current = task;
    if (flags & TASK_WALL) {
        loop->wall_sleepers--;
    }

    if (flags & TASK_THROW) {
        exc = payload;
        payload = NULL;
    }
    else if (flags & TASK_THROW_CANCEL) {
        exc = cancelled_error_new(state, task_cancel_cause(task));
    }
    else if (!(flags & TASK_STARTED)) {
        if (flags & TASK_CANCELLING) {
            loop_close_unstarted(loop, task);
            goto done;
        }
        if (check_coroutine(state, "a task", task->coro) < 0) {  /* started behind our back */
            loop_step_raised(loop, task);
            goto done;
        }
    }
    else if (payload != NULL && await_kind((Awaitable *)payload)->input != NULL) {
        Awaitable *await = (Awaitable *)payload;
        switch (await_kind(await)->input(await, loop, task, flags & TASK_TIMED, &input)) {
        case INPUT_NOT_YET:
            goto done;
        case INPUT_THROW:
            exc = input;
            input = NULL;
            break;
        case INPUT_SEND:
            value = input != NULL ? input : Py_None;
            break;
        }
    }
    Py_CLEAR(payload);

    loop->steps++;
    loop->awaited = NULL;
    watchdog_step_begins(loop);
    enum step_verdict verdict = task_step(state, task, value, exc, &out);
    watchdog_step_ends(loop);
    switch (verdict) {
    case STEP_YIELDED:
        loop_park(loop, task, out);
        break;
    case STEP_RETURNED:
        loop_step_returned(loop, task, out);
        break;
    case STEP_RAISED:
        loop_step_raised(loop, task);
        break;
    }
done:
    loop->current = NULL;
    Py_XDECREF(payload);
    Py_XDECREF(input);
}

#endif /* SLEEPLOOP_RUN_STEP_H */
