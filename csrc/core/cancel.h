/* cancel.h: what a cancellation does: it spreads through the tree of scopes and takes the
 * tasks that it reaches from where they wait.
 *
 * The one rule of all races: what comes first, counts. A task that has been woken keeps
 * what it was woken for and is cancelled at its next await; one that has been taken from
 * where it waits raises CancelledError, and nothing wakes it any more. No function here
 * allocates, fails or runs Python.
 */
#ifndef SLEEPLOOP_CORE_CANCEL_H
#define SLEEPLOOP_CORE_CANCEL_H

#include "../base/clock.h"
#include "../base/compat.h"
#include "../base/ring.h"
#include "../base/timerheap.h"
#include "kinds.h"
#include "loopobject.h"
#include "ready.h"
#include "scopeobject.h"
#include "scopetree.h"
#include "taskobject.h"
#include "trace.h"

/* What holds in the task's innermost scope has been set anew. */
static void
loop_cause_changed(LoopObject *loop, TaskObject *task)
{
    int was_cancelling = task->flags & TASK_CANCELLING;
    task_update(task);
    if (!was_cancelling && (task->flags & TASK_CANCELLING) && task_interruptible(task)) {
        task->flags |= TASK_THROW_CANCEL;
        loop_wake(loop, task);
    }
}

/* Sets anew what holds from `scope` inwards, within its task. Scopes in which there are tasks join
 * the queue that ends at `tail`. Returns its new end. */
static ScopeObject **
loop_spread_inwards(LoopObject *loop, ScopeObject *scope, enum change change, ScopeObject **tail)
{
    for (;;) {
        if (!scope_update(scope, change)) {
            return tail;
        }
        if (!ring_empty(&scope->tasks)) {
            scope->queued = NULL;
            *tail = scope;
            tail = &scope->queued;
        }
        if (scope->inner == NULL) {
            break;
        }
        scope = scope->inner;
        if (scope->flags & SCOPE_SHIELD) {
            return tail;
        }
    }
    if (scope->task != NULL) {
        loop_cause_changed(loop, scope->task);
    }
    return tail;
}

/* A scope has been cancelled, got a deadline, got or lost a shield, or moved: whatever is inside
 * of it is told, outer tasks before inner ones, and tasks of one scope in the order of creation. It
 * stops at a shield, and where nothing changes; if there is less in force now, where nothing was. */
static void
loop_spread(LoopObject *loop, ScopeObject *scope, enum change change)
{
    ScopeObject *queue = NULL, **tail = &queue;
    tail = loop_spread_inwards(loop, scope, change, tail);
    for (ScopeObject *from = queue; from != NULL; from = from->queued) {
        for (struct link *l = from->tasks.next; l != &from->tasks; l = l->next) {
            TaskObject *task = TASK_OF_SIBLING(l);
            ScopeObject *outermost = task_outermost_scope(task);
            if (outermost != NULL && (outermost->flags & SCOPE_SHIELD)) {
                continue;
            }
            if (outermost != NULL) {
                tail = loop_spread_inwards(loop, outermost, change, tail);
            }
            else {
                loop_cause_changed(loop, task);
            }
        }
    }
}

/* Cancels a scope; the second time it does nothing. Its reason has been set before. */
static void
loop_cancel_scope(LoopObject *loop, ScopeObject *scope, enum cancel_source source)
{
    if (scope->flags & SCOPE_CANCELLED) {
        return;
    }
    scope->flags |= SCOPE_CANCELLED;
    scope->source = (uint8_t)source;
    scope->passed = scope->deadline;
    trace_cancel(loop, scope, scope->task != NULL ? scope->task->number : 0);
    if (timer_armed(&scope->timer)) {
        timerheap_cancel(&loop->timers, &scope->timer);
    }
    loop_spread(loop, scope, CHANGE_MORE);
}

/* Deadlines around the task have passed: the loop gets to them now. */
COLD static void
loop_cancel_late(LoopObject *loop, TaskObject *task)
{
    int64_t now = clock_now(&loop->clock);
    task->flags &= (uint16_t)~TASK_LATE;
    for (ScopeObject *s = task->scope; s != NULL; s = s->parent) {
        if (timer_armed(&s->timer) && s->deadline <= now) {
            loop_cancel_scope(loop, s, SOURCE_DEADLINE);
        }
        if (s->flags & SCOPE_SHIELD) {
            break;
        }
    }
}

/* Whether the task is being cancelled, for an await that ends without having yielded. */
static inline int
loop_looks_cancelled(LoopObject *loop, TaskObject *task)
{
    if (!task_may_go_on(task) && (task->flags & TASK_LATE)) {
        loop_cancel_late(loop, task);
    }
    return task->flags & TASK_CANCELLING;
}

/* A scope is cancelled because Python code asks for it, which is noted. Only then something may be
 * allocated, and what cannot be is left out. reason is borrowed, or NULL. */
static void
loop_cancel_by_call(LoopObject *loop, ScopeObject *scope, PyObject *reason)
{
    if (scope->flags & SCOPE_CANCELLED) {
        return;
    }
    scope_set_place(scope);
    if (loop != NULL) {
        trace_note(loop);
    }
    PyErr_Clear();
    if (scope->flags & SCOPE_CANCELLED) {  /* by a collection, while a frame was allocated (3.11) */
        return;
    }
    if (loop != NULL) {
        scope_set_culprit(scope, loop->current);
    }
    scope->reason = reason != NULL && reason != Py_None ? Py_NewRef(reason) : NULL;
    if (loop != NULL) {
        loop_cancel_scope(loop, scope, SOURCE_EXPLICIT);
    }
    else {
        scope->flags |= SCOPE_CANCELLED;
    }
}

/* Waits for the deadline of a scope that has been entered, or cancels it if that has
 * passed. 0, or -1 with MemoryError. */
static int
loop_arm_deadline(LoopObject *loop, ScopeObject *scope, int64_t now)
{
    assert(scope->state == SCOPE_ENTERED && !timer_armed(&scope->timer));
    if (scope->deadline == TIME_FOREVER || (scope->flags & SCOPE_CANCELLED)) {
        return 0;
    }
    if (scope->deadline <= now) {
        loop_cancel_scope(loop, scope, SOURCE_DEADLINE);
        return 0;
    }
    if (timerheap_push(&loop->timers, &scope->timer, scope->deadline) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

/* Starts the end: cancels all. The first reason is the one that is told, a str or the exception of
 * what failed; it is stolen, and NULL when there is none or making it failed. */
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
    loop->root->reason = reason_steal;
    loop_cancel_scope(loop, loop->root, SOURCE_SHUTDOWN);
}

#endif /* SLEEPLOOP_CORE_CANCEL_H */
