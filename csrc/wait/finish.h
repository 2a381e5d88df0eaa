/* finish.h: how a task ends: its outcome reaches those who wait for it, its group or the run,
 * and locks that it has are broken. Also where errors of the loop itself go.
 */
#ifndef SLEEPLOOP_WAIT_FINISH_H
#define SLEEPLOOP_WAIT_FINISH_H

#include "../base/compat.h"
#include "../base/ring.h"
#include "../base/timerheap.h"
#include "../core/callbacks.h"
#include "../core/cancel.h"
#include "../core/cancelled.h"
#include "../core/failure.h"
#include "../core/kinds.h"
#include "../core/loopobject.h"
#include "../core/pending.h"
#include "../core/ready.h"
#include "../core/report.h"
#include "../core/scopeobject.h"
#include "../core/scopetree.h"
#include "../core/task.h"
#include "../core/taskobject.h"
#include "../core/trace.h"
#include "waitlist.h"
#include "waitobject.h"

/* Even from a task that somebody might await: KeyboardInterrupt, SystemExit and their like. */
static int
error_ends_run(LoopObject *loop, PyObject *exc)
{
    return !PyErr_GivenExceptionMatches(exc, PyExc_Exception)
           && !PyErr_GivenExceptionMatches(exc, loop->state->CancelledError);
}

/* Those that are raised as they are, by a run as by a group. */
static int
error_stands_alone(PyObject *exc)
{
    return PyErr_GivenExceptionMatches(exc, PyExc_KeyboardInterrupt)
           || PyErr_GivenExceptionMatches(exc, PyExc_SystemExit);
}

/* Keeps a failure, a task that failed or an exception, for the group to raise. The first one
 * takes no memory: a group in which something failed must not seem to have gone well. */
static void
group_keep_error(LoopObject *loop, GroupObject *group, PyObject *failure)
{
    if (group->errors == NULL) {
        group->errors = Py_NewRef(failure);
        return;
    }
    if (!PyList_CheckExact(group->errors)) {
        PyObject *list = PyList_New(1);
        if (list != NULL && !PyList_CheckExact(group->errors)) {  /* still: that may collect (3.11) */
            PyList_SET_ITEM(list, 0, group->errors);
            group->errors = Py_NewRef(list);
        }
        Py_XDECREF(list);
    }
    if (!PyList_CheckExact(group->errors) || PyList_Append(group->errors, failure) < 0) {
        PyErr_Clear();
        loop_record_error(loop, failure);  /* no memory: it must not get lost */
    }
}

/* Leaves what a group has kept to the run. */
static void
record_group_errors(LoopObject *loop, PyObject *errors)
{
    if (!PyList_CheckExact(errors)) {
        loop_record_error(loop, errors);
        return;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(errors); i++) {
        loop_record_error(loop, PyList_GET_ITEM(errors, i));
    }
}

/* A group whose block is torn off will not raise what it has kept. Beware: may run Python. */
COLD static void
group_hand_errors_on(LoopObject *loop, GroupObject *group)
{
    PyObject *errors = group->errors;
    if (errors != NULL) {
        group->errors = NULL;
        record_group_errors(loop, errors);
        Py_DECREF(errors);
    }
}

/* The task has failed with exc, and what it has failed in is cancelled: the scope of a group. */
static void
loop_cancel_by_failure(LoopObject *loop, ScopeObject *scope, TaskObject *task, PyObject *exc)
{
    if (!(scope->flags & SCOPE_CANCELLED)) {
        scope->reason = Py_NewRef(exc);
        scope_set_culprit(scope, task);
        loop_cancel_scope(loop, scope, SOURCE_FAILURE);
    }
}

/* Wakes who waits for the group to be empty, once it is. */
static void
group_check_empty(LoopObject *loop, GroupObject *group)
{
    if (group->leaving != NULL && group->count == 0 && group->starting == 0) {
        loop_wake(loop, group->leaving);
    }
}

/* ---- locks that nobody releases any more ----------------------------------------------------- */

/* Its owner has ended in the middle of something, so nobody is to have the lock again. Whoever
 * waits for it, or at a Condition to have it afterwards, learns that now. */
COLD static void
lock_break(LoopObject *loop, OwnedObject *lock)
{
    WaitObject *wait;
    link_remove(&lock->link);
    lock->owner = OWNER_GONE;
    lock->held--;
    while ((wait = waitlist_first(&lock->waitlist)) != NULL) {
        wait->outcome = WAIT_REFUSED;
        loop_wake(loop, wait->task);
    }
    for (struct link *l = loop->live.next; lock->held > 0 && l != &loop->live; l = l->next) {
        TaskObject *task = TASK_OF_REGISTERED(l);
        wait = await_as_wait(task_await_borrowed(task));
        if (wait != NULL && !wait->firm && wait_kind(wait)->needs != NULL
            && wait_kind(wait)->needs(wait) == (SyncObject *)lock) {
            wait->outcome = WAIT_REFUSED;
            loop_wake(loop, task);
        }
    }
}

/* The task has ended, and has locks: they are broken, now or when no async generator is being
 * closed: the task may have had them in the block of one that it has left unfinished. What it has
 * been handed without learning of it, its wait gives back. */
COLD static void
loop_leave_locks(LoopObject *loop, TaskObject *task)
{
    PyObject *name = task_name(task);
    PyErr_Clear();
    int left = task->locks;
    for (struct link *l = loop->locks.next, *next; left > 0 && l != &loop->locks; l = next) {
        OwnedObject *lock = OWNED_OF_LINK(l);
        next = l->next;
        if (lock->owner == task->number && lock->untold != lock->turn) {
            left -= left < LOCKS_MANY;
            Py_XSETREF(lock->left_by, Py_NewRef(name != NULL ? name : Py_None));
            if (loop->closers == 0) {
                lock_break(loop, lock);
            }
            else {
                loop->has_left_locks = 1;
            }
        }
    }
    Py_XDECREF(name);
}

/* The last generator has been closed. */
COLD static void
loop_break_left_locks(LoopObject *loop)
{
    loop->has_left_locks = 0;
    for (struct link *l = loop->locks.next, *next; l != &loop->locks; l = next) {
        OwnedObject *lock = OWNED_OF_LINK(l);
        next = l->next;
        if (lock->left_by != NULL && lock->owner != OWNER_GONE) {
            lock_break(loop, lock);
        }
    }
}

/* ---- the end of a task ----------------------------------------------------------------------- */

/* Takes a scope off while tasks that were made in it are still there: they are cancelled,
 * and from now on their failures are the loop's, as are those that its group has kept.
 * Beware: may run Python. */
static void
loop_abandon_scope(LoopObject *loop, ScopeObject *scope)
{
    GroupObject *group =
        scope->group != NULL && scope->group->state == GROUP_OPEN ? scope->group : NULL;
    ScopeObject *inner = scope->inner;
    uint32_t number = scope->task->number;
    scope_unlink(scope);
    if (inner != NULL) {
        loop_spread(loop, inner, CHANGE_LESS);
    }
    if (group != NULL) {
        group->state = GROUP_CLOSED;
    }
    if (!ring_empty(&scope->tasks) && !(scope->flags & SCOPE_CANCELLED)) {
        Py_XSETREF(scope->reason, PyUnicode_FromString("the block that it was made in is gone"));
        PyErr_Clear();
        scope->source = SOURCE_FAILURE;
        scope->flags |= SCOPE_CANCELLED;
        trace_cancel(loop, scope, number);
    }
    if (timer_armed(&scope->timer)) {
        timerheap_cancel(&loop->timers, &scope->timer);
    }
    loop_spread(loop, scope, CHANGE_LESS);
    scope_forget_failure(scope);
    if (group != NULL && scope->group == group) {  /* still: its reason may have died */
        group_hand_errors_on(loop, group);
    }
    Py_DECREF(scope);
}

static void loop_take_error(LoopObject *loop);

/* The task has ended, and that means something to others than those who wait for it. */
COLD static void
loop_tell_end(LoopObject *loop, TaskObject *task)
{
    if (!(task->flags & TASK_HIDDEN)) {
        PyObject *saved = PyErr_GetRaisedException();
        if (callbacks_fall_due(loop, task) < 0) {
            loop_take_error(loop);
        }
        PyErr_SetRaisedException(saved);
    }
    else if (--loop->closers == 0 && loop->has_left_locks) {
        loop_break_left_locks(loop);
    }
}

/* The end of a task that is in no ring: its outcome reaches those who wait. Steals
 * payload. Beware: may run arbitrary Python, and the task may be gone afterwards. */
static void
loop_finish(LoopObject *loop, TaskObject *task, enum task_state state, PyObject *payload_steal)
{
    PyObject *old = task->payload;
    ScopeObject *base = task_base_scope(task);
    GroupObject *group = base != NULL && !(task->flags & TASK_STARTING) ? base->group : NULL;
    Py_XINCREF(group);
    if (task->flags & TASK_INTERRUPTED) {
        interrupts_drop(loop, task);
    }
    loop->current = NULL;  /* nobody may ask for a task that is about to die */
    task->state = (uint8_t)state;
    task->payload = payload_steal;
    if (state == TASK_FAILED) {
        raised_keep(&task->raised, task->payload);
    }
    loop_unregister(loop, task);
    trace_end(loop, task);
    for (ScopeObject *s = task->scope; s != base;) {
        if (!ring_empty(&s->tasks) || (s->group != NULL && s->group->errors != NULL)) {
            /* It dies in the middle of `async with TaskGroup()`. */
            s->flags |= SCOPE_QUIET;
            loop_abandon_scope(loop, s);
            s = task->scope;  /* anew: what has died may have left others */
        }
        else {
            s = s->parent;
        }
    }
    ScopeObject *scopes = task_take_scopes(task);
    while (task->waiters != NULL) {
        loop_wake(loop, TASK_OF_LINK(task->waiters));
    }
    if (state == TASK_FAILED) {
        if (group != NULL && group->state == GROUP_OPEN && !error_stands_alone(payload_steal)) {
            group_keep_error(loop, group, (PyObject *)task);
            loop_cancel_by_failure(loop, group->scope, task, payload_steal);
        }
        else if (task->flags & TASK_ROOT || error_ends_run(loop, payload_steal)) {
            loop_record_error(loop, (PyObject *)task);
            scope_set_culprit(loop->root, loop->phase == LOOP_RUNNING ? task : NULL);
            loop_begin_cancel(loop, Py_NewRef(payload_steal));
        }
        else {
            ring_push(&loop->unseen, &task->registered);
        }
    }
    if (group != NULL) {
        if (state == TASK_CANCELLED && payload_steal == (PyObject *)group->scope) {
            group->scope->flags |= SCOPE_CAUGHT;
        }
        group->count--;
        group_check_empty(loop, group);
    }
    if (task->locks > 0 && loop->phase != LOOP_CLOSED) {
        loop_leave_locks(loop, task);  /* now that its failure has cancelled whom it cancels */
    }
    if (task->flags & (TASK_CLOSER | TASK_CALLS_BACK)) {
        loop_tell_end(loop, task);
    }
    if (loop->current == task) {
        loop->current = NULL;  /* what dies with the task must not find it */
    }
    trace_ended(loop);
    scopes_drop(scopes);
    Py_XDECREF(group);
    Py_XDECREF(old);
    Py_DECREF(task);
}

/* ---- what a cancellation has taken the place of ---------------------------------------------- */

/* A CancelledError ends here, and with it an error that it came on top of: one that was under way
 * when a `finally` awaited, or that had been caught. In a debug run that is told. Beware: runs
 * Python. */
static inline void
loop_note_swallowed(LoopObject *loop, PyObject *cancelled)
{
    if (loop->debug) {
        PyObject *error = Py_XNewRef(cancelled_error_replaced(loop->state, cancelled));
        if (error != NULL) {
            log_exception(loop, "debug",
                          PyUnicode_FromString("a cancellation that has ended here came on top of "
                                               "this error, which is raised no more"),
                          error);
            Py_DECREF(error);
        }
    }
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
        loop_record_error(loop, exc);
        loop_begin_cancel(loop, Py_NewRef(exc));
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

#endif /* SLEEPLOOP_WAIT_FINISH_H */
