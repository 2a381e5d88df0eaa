/* block.h: how a `with` block of a scope is entered and left, and what its exception comes to.
 *
 * Says what is an error; the tree is changed by scopetree.h and cancel.h.
 */
#ifndef SLEEPLOOP_SCOPE_BLOCK_H
#define SLEEPLOOP_SCOPE_BLOCK_H

#include "../base/clock.h"
#include "../base/compat.h"
#include "../base/ring.h"
#include "../base/timerheap.h"
#include "../core/cancel.h"
#include "../core/cancelled.h"
#include "../core/loopobject.h"
#include "../core/scopeobject.h"
#include "../core/scopetree.h"
#include "../core/state.h"
#include "../core/task.h"
#include "../core/taskobject.h"
#include "../core/trace.h"
#include "../core/walltime.h"
#include "../poll/idle.h"
#include "../wait/finish.h"

/* The loop of a scope that has been entered, or NULL. */
static LoopObject *
scope_loop_borrowed(const ScopeObject *scope)
{
    return scope->task != NULL ? scope->task->loop : NULL;
}

/* Whether it is too late for the block, though no timer may have fired yet: a step that
 * looks at the time itself gets a true answer. */
static void
scope_check_deadline(ScopeObject *scope)
{
    LoopObject *loop = scope_loop_borrowed(scope);
    if (timer_armed(&scope->timer) && loop != NULL
        && loop_is_of_thread(loop, PyThreadState_Get())
        && scope->deadline <= clock_now(&loop->clock)) {
        loop_cancel_scope(loop, scope, SOURCE_DEADLINE);
    }
}

/* ---- entering -------------------------------------------------------------------------------- */

/* Makes the deadline one of loop time. */
static void
scope_fix_deadline(ScopeObject *scope, LoopObject *loop)
{
    if (scope->kind == DEADLINE_AFTER) {
        int64_t now = clock_now(&loop->clock);
        scope->deadline = scope->deadline <= 0 ? now : time_add(now, scope->deadline);
    }
    else if (scope->kind == DEADLINE_WALL) {
        scope->deadline = loop_time_of_wall(loop, scope->deadline);
    }
    scope->kind = DEADLINE_AT;
}

static const char *const scope_makers[] = {
    [BY_CANCEL_SCOPE] = "entering a CancelScope", [BY_TIMEOUT] = "timeout()",
    [BY_TIMEOUT_AT] = "timeout_at()",             [BY_MOVE_ON_AFTER] = "move_on_after()",
    [BY_MOVE_ON_AT] = "move_on_at()",
};

/* 0, or -1 with RuntimeError or MemoryError; then nothing has been entered. */
static int
scope_begin(ModuleState *state, ScopeObject *scope)
{
    TaskObject *task = need_current_task_borrowed(
        state, scope->group != NULL ? "entering a TaskGroup" : scope_makers[scope->maker]);
    if (task == NULL) {
        return -1;
    }
    if (scope->state != SCOPE_NEW) {
        PyErr_Format(PyExc_RuntimeError,
                     "this %s has been entered before: make a new one for each `with` block",
                     scope_kind(scope));
        return -1;
    }
    LoopObject *loop = task->loop;
    int was_cancelled = scope->flags & SCOPE_CANCELLED;
    scope_fix_deadline(scope, loop);
    scope_enter(scope, task);
    if (scope->deadline != TIME_FOREVER
        && loop_arm_deadline(loop, scope, clock_now(&loop->clock)) < 0) {
        scope_unlink(scope);
        Py_DECREF(scope);
        return -1;
    }
    task_update(task);
    if (loop->trace != NULL && was_cancelled) {
        trace_enter_cancelled(loop, scope);
    }
    return 0;
}

/* ---- leaving --------------------------------------------------------------------------------- */

/* Takes off the scopes inside of `scope` that its task has not left. Beware: what they hold may
 * run Python when it dies, which may leave this one as well. */
static void
scope_tear_inner(ScopeObject *scope)
{
    TaskObject *task = scope->task;
    while (scope->task == task && task->scope != scope) {
        loop_abandon_scope(task->loop, task->scope);
    }
}

/* Takes off a scope whose block is gone. Those inside of it stay: their blocks are not. */
static void
scope_take_off(ScopeObject *scope)
{
    TaskObject *task = (TaskObject *)Py_NewRef(scope->task);
    LoopObject *loop = task->loop;
    loop_abandon_scope(loop, scope);
    loop_cause_changed(loop, task);
    if (loop->idling) {  /* another thread did it: a coroutine was collected there */
        idle_wake(&loop->idle);
    }
    Py_DECREF(task);
}

/* A scope is left by its task in the wrong order. It is taken off all the same, with those inside
 * of it: they would be in force where nobody can see them. */
static void
scope_tear_off(ScopeObject *scope)
{
    TaskObject *task = (TaskObject *)Py_NewRef(scope->task);
    scope_tear_inner(scope);
    if (scope->task == task) {
        scope_take_off(scope);
    }
    else {
        loop_cause_changed(task->loop, task);
    }
    Py_DECREF(task);
}

/* Whether a coroutine of the task is being closed between two calls that drive the loop: the
 * collector has found all of them and comes to the coroutine first, its task's own or one that
 * is awaited there; or somebody does it by hand. exc: what the block ends with, or NULL. */
static int
task_is_closed_outside(const TaskObject *task, PyObject *exc)
{
    return task->loop->phase == LOOP_SUSPENDED
           && ((exc != NULL && PyErr_GivenExceptionMatches(exc, PyExc_GeneratorExit))
               || coro_is(task->coro, CORO_RUNNING));
}

/* 0 if the scope can be left here and now, with exc or NULL. -1: it cannot, and a RuntimeError says
 * why, or it has been left by its task's end, or that of its loop, and there is nothing to say.
 *
 * Whoever leaves another task's block has made a mistake of his own: the block is as it was, and
 * its task does not notice. Only if a generator that has entered it is closed elsewhere, its block
 * is gone. */
static int
scope_check_leave(ModuleState *state, ScopeObject *scope, PyObject *exc)
{
    const char *kind = scope_kind(scope);
    if (scope->flags & SCOPE_QUIET) {
        return -1;
    }
    if (scope->state != SCOPE_ENTERED || scope->task == NULL) {  /* no task: a loop's root */
        PyErr_Format(PyExc_RuntimeError, "this %s %s", kind,
                     scope->state == SCOPE_NEW
                         ? "has not been entered"
                         : "has been left before, or was torn off by an outer one");
        return -1;
    }
    LoopObject *loop = current_loop_borrowed(state);
    TaskObject *task = scope->task;
    if (loop == NULL || task != loop->current) {
        int is_quiet = task_is_closed_outside(task, exc);
        Py_INCREF(task);
        if (is_quiet || (exc != NULL && PyErr_GivenExceptionMatches(exc, PyExc_GeneratorExit))) {
            scope_take_off(scope);
            task->flags |= is_quiet ? 0 : TASK_TORN;
        }
        PyObject *name = is_quiet ? NULL : task_name(task);
        if (name != NULL) {
            PyErr_Format(PyExc_RuntimeError,
                         "this %s was entered by task %R and cannot be left anywhere else; an "
                         "async generator must not be abandoned at a `yield` inside of one",
                         kind, name);
            Py_DECREF(name);
        }
        Py_DECREF(task);
        return -1;
    }
    if (task->scope != scope) {
        const char *other = scope_kind(task->scope);
        scope_tear_off(scope);
        PyErr_Format(PyExc_RuntimeError,
                     "this %s is left in the wrong order: a %s was entered inside of it and has "
                     "not been left; an async generator must not `yield` inside of one",
                     kind, other);
        return -1;
    }
    return 0;
}

/* Takes off the innermost scope of a task that is running. */
static inline void
scope_leave(ScopeObject *scope)
{
    TaskObject *task = scope->task;
    /* A start() was closed by hand; or Python that ran meanwhile, as of the exception, has
     * entered another scope. */
    if (!ring_empty(&scope->tasks) || task->scope != scope) {
        scope_tear_off(scope);
        return;
    }
    if (timer_armed(&scope->timer)) {
        timerheap_cancel(&task->loop->timers, &scope->timer);
    }
    scope_unlink(scope);
    task_update(task);
    Py_DECREF(scope);
}

/* Whether the exception is this scope's own cancellation; one raised by hand is whose
 * cancellation is in force. */
static int
scope_owns(ModuleState *state, ScopeObject *scope, PyObject *exc)
{
    if (!(scope->flags & SCOPE_CANCELLED) || !is_cancelled_error(state, exc)) {
        return 0;
    }
    ScopeObject *of = cancelled_error_scope(exc);
    return of != NULL ? of == scope : scope_cause(scope) == scope;
}

/* For BaseExceptionGroup.split(): self is the scope. */
static PyObject *
scope_owns_for_split(PyObject *op, PyObject *exc)
{
    return PyBool_FromLong(scope_owns(state_of_type(Py_TYPE(op)), (ScopeObject *)op, exc));
}

static PyMethodDef scope_owns_def = {"owns", scope_owns_for_split, METH_O, NULL};

/* What is left of an exception when the scope's own cancellations have been taken out of
 * it. *rest: exc itself, or a part of the group that it is, or NULL if nothing is left; a new
 * reference. 0, or -1 with an exception set. */
static int
scope_take_own(ModuleState *state, ScopeObject *scope, PyObject *exc, PyObject **rest)
{
    *rest = NULL;
    if (scope_owns(state, scope, exc)) {
        return 0;
    }
    if (!(scope->flags & SCOPE_CANCELLED)
        || !PyObject_TypeCheck(exc, (PyTypeObject *)PyExc_BaseExceptionGroup)) {
        *rest = Py_NewRef(exc);
        return 0;
    }
    PyObject *owns = PyCFunction_New(&scope_owns_def, (PyObject *)scope);
    PyObject *module = owns != NULL ? import_module("sleeploop._groups") : NULL;
    PyObject *parts =
        module != NULL ? PyObject_CallMethod(module, "split", "OO", exc, owns) : NULL;
    Py_XDECREF(module);
    Py_XDECREF(owns);
    if (parts == NULL) {
        return -1;
    }
    int is_pair = PyTuple_Check(parts) && PyTuple_GET_SIZE(parts) == 2;
    PyObject *own = is_pair ? PyTuple_GET_ITEM(parts, 0) : Py_None;
    PyObject *others = is_pair ? PyTuple_GET_ITEM(parts, 1) : Py_None;
    if (own == Py_None || (others != Py_None && !PyExceptionInstance_Check(others))) {
        *rest = Py_NewRef(exc);  /* nothing of ours; or a subclass does what it likes */
    }
    else if (others != Py_None) {
        *rest = Py_NewRef(others);
    }
    Py_DECREF(parts);
    return 0;
}

/* The block of a timeout has been ended by its deadline. */
static void
raise_timeout(ScopeObject *scope, PyObject *exc)
{
    PyObject *text = scope_describe_deadline(scope);
    if (text == NULL) {
        return;
    }
    PyErr_Format(PyExc_TimeoutError, "timed out: %U", text);
    Py_DECREF(text);
    PyObject *error = PyErr_GetRaisedException();
    PyException_SetCause(error, Py_NewRef(exc));
    PyException_SetContext(error, Py_NewRef(exc));
    PyErr_SetRaisedException(error);
}

/* The block ends with exc, or NULL. 1: with nothing to raise any more, 0: as it did, -1: with
 * the exception that is set. */
static int
scope_end(ModuleState *state, ScopeObject *scope, PyObject *exc)
{
    if (scope_check_leave(state, scope, exc) < 0) {
        return PyErr_Occurred() ? -1 : 0;
    }
    LoopObject *loop = scope->task->loop;  /* which runs, and will not go */
    PyObject *rest = NULL;
    if (exc != NULL && scope_take_own(state, scope, exc, &rest) < 0) {
        PyObject *error = PyErr_GetRaisedException();
        if (scope->state == SCOPE_ENTERED) {
            scope_leave(scope);
        }
        PyErr_SetRaisedException(error);
        return -1;
    }
    if (scope->state == SCOPE_ENTERED) {  /* split() may have run Python that left it */
        scope_leave(scope);
    }
    if (exc == NULL || rest == exc) {
        Py_XDECREF(rest);
        return 0;
    }
    scope->flags |= SCOPE_CAUGHT;
    if (rest != NULL) {
        PyErr_SetRaisedException(rest);
        return -1;
    }
    if ((scope->flags & SCOPE_TIMEOUT) && scope->source == SOURCE_DEADLINE) {
        raise_timeout(scope, exc);
        return -1;
    }
    loop_note_swallowed(loop, exc);
    return 1;
}

/* The block does not begin after all. */
COLD static void
scope_take_back(PyObject *op)
{
    if (((ScopeObject *)op)->state == SCOPE_ENTERED) {
        scope_tear_off((ScopeObject *)op);
    }
}

#endif /* SLEEPLOOP_SCOPE_BLOCK_H */
