/* scopetree.h: the tree of cancel scopes: who is inside whom, and whose cancellation
 * reaches where.
 *
 * Knows the tree, and what of it reaches a task. What the task does then is the business of
 * cancel.h, and how people are told of it that of cancelled.h.
 *
 * A scope belongs to the task that has entered it. Outwards it holds the next scope:
 * of the same task, or that in which the task was made, up to the loop's root. To
 * enter and to leave one costs a few pointers, at any depth.
 */
#ifndef SLEEPLOOP_CORE_SCOPETREE_H
#define SLEEPLOOP_CORE_SCOPETREE_H

#include "../base/clock.h"
#include "../base/compat.h"
#include "../base/ring.h"
#include "../base/timerheap.h"
#include "kinds.h"
#include "loopobject.h"
#include "objects.h"
#include "scopeobject.h"
#include "state.h"
#include "taskobject.h"

static ScopeObject *
scope_new(ModuleState *state)
{
    ScopeObject *scope = PyObject_GC_New(ScopeObject, state->ScopeType);
    if (scope == NULL) {
        return NULL;
    }
    scope->parent = scope->inner = scope->cause = NULL;
    scope->task = NULL;
    ring_init(&scope->tasks);
    scope->deadline = TIME_FOREVER;
    scope->passed = 0;
    timer_init(&scope->timer, TIMER_OF_SCOPE);
    scope->state = SCOPE_NEW;
    scope->flags = 0;
    scope->kind = DEADLINE_AT;
    scope->maker = BY_CANCEL_SCOPE;
    scope->source = SOURCE_EXPLICIT;
    scope->reason = scope->by_name = scope->code = NULL;
    scope->by_number = 0;
    scope->line = 0;
    scope->group = NULL;
    scope->queued = NULL;
    PyObject_GC_Track(scope);
    return scope;
}

/* What is in force right outside of a scope and reaches it; NULL: nothing. */
static inline ScopeObject *
scope_outer_cause(const ScopeObject *scope)
{
    return !(scope->flags & SCOPE_SHIELD) && scope->parent != NULL ? scope->parent->cause : NULL;
}

/* One step outwards, among the cancelled scopes in force here; NULL: there is none further out. */
static inline ScopeObject *
scope_next_cause(const ScopeObject *scope)
{
    return scope->cause != scope ? scope->cause : scope_outer_cause(scope);
}

/* The outermost cancelled scope that is in force in a scope, or NULL. When an outer scope is
 * cancelled after inner ones, these are not told. So whoever asks goes from one to the next, and
 * shortens the way for all who come after him. */
static ScopeObject *
scope_cause(ScopeObject *scope)
{
    ScopeObject *outermost = scope->cause, *next;
    if (outermost == NULL) {
        return NULL;
    }
    while ((next = scope_next_cause(outermost)) != NULL) {
        outermost = next;
    }
    for (ScopeObject *s = scope; s != outermost; s = next) {
        next = scope_next_cause(s);
        s->cause = outermost;
    }
    return outermost;
}

/* Whether a deadline may come there: its own, or what reaches it from outside. */
static inline int
scope_has_limit(const ScopeObject *scope)
{
    return scope->deadline != TIME_FOREVER
           || (!(scope->flags & SCOPE_SHIELD) && scope->parent != NULL
               && (scope->parent->flags & SCOPE_LIMITED));
}

enum change {
    CHANGE_MORE,  /* there is a cancellation or a deadline more: what is cancelled stays as it is */
    CHANGE_LESS,  /* there may be one less: no cause from before holds */
};

/* Sets anew what holds in a scope. Whether that matters further in. */
static inline int
scope_update(ScopeObject *scope, enum change change)
{
    ScopeObject *before = scope->cause;
    ScopeObject *cause = change == CHANGE_MORE ? before : NULL;
    if (cause == NULL) {
        cause = scope_outer_cause(scope);
    }
    if (cause == NULL && (scope->flags & SCOPE_CANCELLED)) {
        cause = scope;
    }
    int flags = scope_has_limit(scope) ? scope->flags | SCOPE_LIMITED
                                       : scope->flags & ~SCOPE_LIMITED;
    int has_changed = cause != before || flags != scope->flags;
    scope->cause = cause;
    scope->flags = (uint8_t)flags;
    return has_changed || (change == CHANGE_LESS && before != NULL);
}

/* Likewise in a task: its flags tell of its innermost scope. */
static inline void
task_update(TaskObject *task)
{
    const ScopeObject *scope = task->scope;
    int flags = task->flags & ~(TASK_CANCELLING | TASK_LIMITED);
    if (scope != NULL) {
        flags |= scope->cause != NULL ? TASK_CANCELLING : 0;
        flags |= scope->flags & SCOPE_LIMITED ? TASK_LIMITED : 0;
    }
    task->flags = (uint16_t)flags;
}

/* Whether a deadline around the task has passed, though the loop has not got to it: its step has
 * taken so long. That is noted, and its scope cancelled when the task has yielded. */
static int
task_is_late(TaskObject *task)
{
    LoopObject *loop = task->loop;
    int64_t when, now;
    if (!loop->clock.ticking || !timerheap_next(&loop->timers, &when)
        || when > (now = clock_about_now(&loop->clock))) {
        return 0;  /* as a rule: nothing at all is due */
    }
    for (const ScopeObject *s = task->scope; s != NULL; s = s->parent) {
        if (timer_armed(&s->timer) && s->deadline <= now) {
            task->flags |= TASK_LATE;
            return 1;
        }
        if (s->flags & SCOPE_SHIELD) {
            break;
        }
    }
    return 0;
}

/* Whether an await that need not wait may end at once. If not, it has to yield: a cancellation
 * and an interrupt are raised at every await. So is a deadline, or a loop of such awaits would
 * outlive it; who has none does not look at the time. */
static inline int
task_may_go_on(TaskObject *task)
{
    return !(task->flags & (TASK_CANCELLING | TASK_INTERRUPTED | TASK_LIMITED))
           || (!task_is_stopped(task) && !task_is_late(task));
}

/* The outermost of the task's own scopes; NULL if it has none. */
static inline ScopeObject *
task_outermost_scope(const TaskObject *task)
{
    ScopeObject *found = NULL;
    for (ScopeObject *s = task->scope; s != NULL && s->task == task; s = s->parent) {
        found = s;
    }
    return found;
}

/* What Task.cancel() cancels; NULL if there has been none yet. */
static inline ScopeObject *
task_cancel_scope(const TaskObject *task)
{
    ScopeObject *s = task->scope;
    while (s != NULL && s->task == task && !(s->flags & SCOPE_OF_TASK)) {
        s = s->parent;
    }
    return s != NULL && s->task == task ? s : NULL;
}

/* The scope that the task was made in; NULL for the loop's own tasks. */
static inline ScopeObject *
task_base_scope(const TaskObject *task)
{
    ScopeObject *s = task->scope;
    while (s != NULL && s->task == task) {
        s = s->parent;
    }
    return s;
}

/* The innermost scope that the task's own code has entered and not left; NULL if there is none. */
static inline ScopeObject *
task_open_scope(const TaskObject *task)
{
    ScopeObject *s = task->scope;
    return s != NULL && s->task == task && !(s->flags & SCOPE_OF_TASK) ? s : NULL;
}

/* Whose cancellation interrupts the task. A shield may have been raised since it was
 * taken from where it waited; then the outermost one that there was. */
static inline ScopeObject *
task_cancel_cause(const TaskObject *task)
{
    ScopeObject *cause = task->scope != NULL ? scope_cause(task->scope) : NULL;
    if (cause == NULL) {
        for (ScopeObject *s = task->scope; s != NULL; s = s->parent) {
            cause = s->flags & SCOPE_CANCELLED ? s : cause;
        }
    }
    return cause;
}

/* Whether `scope` is where the task is now, or further out. */
static inline int
task_is_inside(const TaskObject *task, const ScopeObject *scope)
{
    ScopeObject *s = task->scope;
    if (s != NULL && scope_cause(s) == scope) {
        return 1;  /* as a rule */
    }
    while (s != NULL && s != scope) {
        s = s->parent;
    }
    return s != NULL;
}

/* A new scope, innermost in a task that is running. */
static inline void
scope_enter(ScopeObject *scope, TaskObject *task)
{
    ScopeObject *outer = task->scope;
    if (outer != NULL && outer->task == task) {
        outer->inner = scope;
    }
    scope->parent = outer;  /* the reference was the task's */
    task->scope = (ScopeObject *)Py_NewRef(scope);
    scope->task = task;
    scope->state = SCOPE_ENTERED;
    (void)scope_update(scope, CHANGE_MORE);
}

/* A new scope around all that the task does and has entered so far. */
static inline void
scope_enter_outermost(ScopeObject *scope, TaskObject *task)
{
    ScopeObject *inner = task_outermost_scope(task);
    ScopeObject **at = inner != NULL ? &inner->parent : &task->scope;
    scope->parent = *at;  /* the reference is handed on */
    *at = (ScopeObject *)Py_NewRef(scope);
    scope->inner = inner;
    scope->task = task;
    scope->state = SCOPE_ENTERED;  /* its cause is still to be spread */
}

/* Takes an entered scope out of its task's, wherever among them it is. The reference
 * by which it was held becomes the caller's; the causes are still to be set anew. */
static inline void
scope_unlink(ScopeObject *scope)
{
    TaskObject *task = scope->task;
    ScopeObject *outer = scope->parent, *inner = scope->inner;
    *(inner != NULL ? &inner->parent : &task->scope) = outer;
    if (outer != NULL && outer->task == task) {
        outer->inner = inner;
    }
    scope->parent = scope->inner = scope->cause = NULL;
    scope->task = NULL;
    scope->state = SCOPE_LEFT;
}

/* Joins or changes the place where a task was made: `base` is borrowed. Returns the
 * former base, whose reference becomes the caller's. */
static inline ScopeObject *
task_set_base(TaskObject *task, ScopeObject *base)
{
    ScopeObject *outermost = task_outermost_scope(task);
    ScopeObject **at = outermost != NULL ? &outermost->parent : &task->scope;
    ScopeObject *old = *at;
    *at = (ScopeObject *)Py_XNewRef(base);
    if (link_in_ring(&task->sibling)) {
        link_remove(&task->sibling);
    }
    if (base != NULL) {
        ring_push(&base->tasks, &task->sibling);
    }
    return old;
}

/* The task that this one waits for in TaskGroup.start(), if it was made in the scope `base`,
 * borrowed; else NULL. It belongs to the one that waits. */
static TaskObject *
task_starting_child(const TaskObject *task, const ScopeObject *base)
{
    const Awaitable *await = task_await_borrowed(task);
    TaskObject *child =
        await != NULL && await_kind(await)->child != NULL ? await_kind(await)->child(await) : NULL;
    return child != NULL && (child->flags & TASK_STARTING) && !task_done(child)
                   && task_base_scope(child) == base
               ? child
               : NULL;
}

/* Likewise for the task and those that it takes with it: the one that it waits for in
 * start(), and so on. */
static ScopeObject *
task_move(TaskObject *task, ScopeObject *to)
{
    ScopeObject *from = task_base_scope(task);
    TaskObject *child = task_starting_child(task, from);
    ScopeObject *old = task_set_base(task, to);
    while (child != NULL) {
        TaskObject *next = task_starting_child(child, from);
        Py_XDECREF(task_set_base(child, to));  /* not the last reference: `old` is one */
        child = next;
    }
    return old;
}

/* The scopes that a task has left open when it ends are as good as left. */
COLD static void
task_forget_scopes(TaskObject *task)
{
    for (ScopeObject *s = task->scope; s != NULL && s->task == task; s = s->parent) {
        if (timer_armed(&s->timer) && task->loop != NULL) {
            timerheap_cancel(&task->loop->timers, &s->timer);
        }
        if (s->group != NULL) {
            s->group->state = GROUP_CLOSED;
        }
        s->task = NULL;
        s->inner = s->cause = NULL;
        s->state = SCOPE_LEFT;
        s->flags |= SCOPE_QUIET;
    }
}

/* Takes a task that has ended, or never will, out of the tree. Returns its hold on the
 * scopes around it, for scopes_drop(). */
static inline ScopeObject *
task_take_scopes(TaskObject *task)
{
    ScopeObject *scopes = task->scope;
    if (scopes != NULL && scopes->task == task) {
        task_forget_scopes(task);
    }
    task->scope = NULL;
    if (link_in_ring(&task->sibling)) {
        link_remove(&task->sibling);
    }
    return scopes;
}

/* Beware: what a scope holds may run Python when it dies. */
static inline void
scopes_drop(ScopeObject *scopes_steal)
{
    while (scopes_steal != NULL) {
        ScopeObject *outer = NULL;
        if (scopes_steal->flags & SCOPE_QUIET) {
            outer = scopes_steal->parent;
            scopes_steal->parent = NULL;
        }
        Py_DECREF(scopes_steal);
        scopes_steal = outer;
    }
}

/* ---- who did it, and where ------------------------------------------------------------------- */

/* Notes which task did it; its name, as the task itself is not to be kept alive. */
static void
scope_set_culprit(ScopeObject *scope, TaskObject *task)
{
    if (task != NULL) {
        Py_XSETREF(scope->by_name, Py_XNewRef(task->name));
        scope->by_number = task->number;
    }
}

/* Notes the Python code that is calling. */
static void
scope_set_place(ScopeObject *scope)
{
    PyFrameObject *frame = PyEval_GetFrame();  /* borrowed */
    if (frame != NULL) {
        Py_XSETREF(scope->code, (PyObject *)PyFrame_GetCode(frame));
        scope->line = PyFrame_GetLineNumber(frame);
    }
}

#endif /* SLEEPLOOP_CORE_SCOPETREE_H */
