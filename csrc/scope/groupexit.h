/* groupexit.h: the end of an `async with TaskGroup()` block: it waits for the tasks, and raises what
 * has failed.
 */
#ifndef SLEEPLOOP_SCOPE_GROUPEXIT_H
#define SLEEPLOOP_SCOPE_GROUPEXIT_H

#include "../base/clock.h"
#include "../base/compat.h"
#include "../core/awaitable.h"
#include "../core/cancel.h"
#include "../core/cancelled.h"
#include "../core/failure.h"
#include "../core/forgotten.h"
#include "../core/kinds.h"
#include "../core/loopobject.h"
#include "../core/pending.h"
#include "../core/ready.h"
#include "../core/report.h"
#include "../core/scopeobject.h"
#include "../core/scopetree.h"
#include "../core/state.h"
#include "../core/taskobject.h"
#include "block.h"
#include "../wait/finish.h"

/* The end of `async with TaskGroup()` */
typedef struct {
    AWAIT_HEAD
    uint8_t is_own;      /* at the end of the body the group's own cancellation was in force */
    uint8_t is_other;    /* or that of a scope further out */
    GroupObject *group;  /* owned */
    PyObject *exc;       /* owned: what the block raised, or NULL */
} GroupExitObject;

static GroupExitObject *
groupexit_new(ModuleState *state, GroupObject *group, PyObject *exc)
{
    GroupExitObject *groupexit = PyObject_GC_New(GroupExitObject, state->GroupExitType);
    if (groupexit == NULL) {
        return NULL;
    }
    await_init((Awaitable *)groupexit, group_end_kind_number);
    groupexit->group = (GroupObject *)Py_NewRef(group);
    groupexit->exc = Py_XNewRef(exc);
    groupexit->is_own = groupexit->is_other = 0;
    groupexit->firm = 1;
    PyObject_GC_Track(groupexit);
    awaitable_made(state, (PyObject *)groupexit);
    return groupexit;
}

/* Raises what a group has kept, in one exception group. context: what is being handled, borrowed, or
 * NULL; what the group holds itself is not told twice. Beware: may run Python. */
static void
raise_group_errors(LoopObject *loop, PyObject *errors, PyObject *context)
{
    PyObject *all = PyList_CheckExact(errors) ? Py_NewRef(errors) : Py_BuildValue("[O]", errors);
    Py_ssize_t n = all != NULL ? failures_unpack(loop->state, all) : 0;
    PyObject *list = all != NULL ? PyList_GetSlice(all, 0, n) : NULL;
    PyObject *message =
        list != NULL ? PyUnicode_FromFormat("%zd error%s in a TaskGroup", n, n == 1 ? "" : "s")
                     : NULL;
    PyObject *group = message != NULL
                          ? PyObject_CallFunctionObjArgs(PyExc_BaseExceptionGroup, message, list,
                                                         NULL)
                          : NULL;
    for (Py_ssize_t i = 0; group != NULL && i < PyList_GET_SIZE(list); i++) {
        context = PyList_GET_ITEM(list, i) != context ? context : NULL;
    }
    Py_XDECREF(message);
    Py_XDECREF(list);
    Py_XDECREF(all);
    if (group != NULL) {
        PyException_SetContext(group, Py_XNewRef(context));
        PyErr_SetRaisedException(group);
        return;
    }
    PyObject *exc = PyErr_GetRaisedException();
    record_group_errors(loop, errors);  /* they must not get lost */
    PyErr_SetRaisedException(exc);
}

/* The group is empty and its scope has been left: what the block comes to. *caught: its own
 * exception is not raised any more. 0, or -1 with what is raised instead. */
static int
group_outcome(LoopObject *loop, GroupObject *group, TaskObject *task, PyObject *exc,
              int was_cancelled, int *caught)
{
    ModuleState *state = loop->state;
    ScopeObject *scope = group->scope;
    PyObject *rest = NULL;
    *caught = 0;
    if (exc != NULL && scope_take_own(state, scope, exc, &rest) < 0) {
        rest = PyErr_GetRaisedException();  /* of its split(): one more failure of the block */
    }
    else if (exc != NULL && rest != exc) {
        scope->flags |= SCOPE_CAUGHT;
        *caught = rest == NULL;
    }
    int is_cancel = rest != NULL && is_cancelled_error(state, rest)
                    && (was_cancelled || cancelled_error_scope(rest) != NULL);
    int stands_alone = rest != NULL && error_stands_alone(rest);
    int is_kept = rest != NULL && !is_cancel && !stands_alone;
    if (is_kept) {
        group_keep_error(loop, group, rest);
    }
    Py_XDECREF(rest);
    PyObject *errors = group->errors;
    group->errors = NULL;
    if (errors != NULL && stands_alone) {
        record_group_errors(loop, errors);
    }
    else if (errors != NULL) {
        /* The group's own cancellation came of what it raises now. */
        PyObject *context = exc == NULL ? PyErr_GetHandledException()
                            : is_kept   ? NULL
                            : *caught   ? Py_XNewRef(cancelled_error_replaced(state, exc))
                                        : Py_NewRef(exc);
        raise_group_errors(loop, errors, context);
        Py_XDECREF(context);
        Py_DECREF(errors);
        return -1;
    }
    Py_XDECREF(errors);
    if (*caught) {
        loop_note_swallowed(loop, exc);
    }
    if ((exc == NULL || *caught) && loop_looks_cancelled(loop, task)) {
        /* The end of the block is an await, too. */
        PyErr_SetRaisedException(cancelled_error_new(state, task_cancel_cause(task)));
        return -1;
    }
    return 0;
}

/* Leaves the group's scope, which is its task's innermost one. */
static PySendResult
groupexit_end(LoopObject *loop, GroupExitObject *self, PyObject **result)
{
    GroupObject *group = self->group;
    TaskObject *task = group->scope->task;
    PyObject *exc = self->exc;
    int caught;
    self->exc = NULL;
    self->state = AWAIT_DONE;
    group->state = GROUP_CLOSED;
    /* Whose a CancelledError is that was raised by hand is settled while its cause holds. */
    scope_leave(group->scope);
    group->scope->cause = self->is_own ? group->scope : NULL;
    scope_forget_failure(group->scope);
    int rc = group_outcome(loop, group, task, exc, self->is_own || self->is_other, &caught);
    group->scope->cause = NULL;
    Py_XDECREF(exc);
    *result = rc == 0 ? Py_NewRef(caught ? Py_True : Py_None) : NULL;
    return rc == 0 ? PYGEN_RETURN : PYGEN_ERROR;
}

/* The block is over: its failure cancels the tasks. */
static PySendResult
groupexit_begin(ModuleState *state, Awaitable *op, PyObject **result)
{
    GroupExitObject *self = (GroupExitObject *)op;
    GroupObject *group = self->group;
    ScopeObject *scope = group->scope;
    LoopObject *loop = current_loop_borrowed(state);
    PyObject *torn = NULL;
    self->state = AWAIT_DONE;  /* for now: what follows may run Python, which may resume it */
    if (scope->state == SCOPE_ENTERED && loop != NULL && loop->current == scope->task
        && scope->task->scope != scope) {
        /* Scopes inside of it were not left. That is an error, but its tasks are waited for. */
        TaskObject *task = scope->task;
        PyErr_SetString(PyExc_RuntimeError,
                        "this TaskGroup is left in the wrong order: a block was entered inside of "
                        "it and has not been left; an async generator must not `yield` inside of "
                        "one");
        torn = PyErr_GetRaisedException();
        scope_tear_inner(scope);
        task_update(task);
        group_keep_error(loop, group, torn);
    }
    if (scope_check_leave(state, scope, self->exc) < 0) {
        Py_XDECREF(torn);
        if (PyErr_Occurred()) {
            return PYGEN_ERROR;
        }
        *result = Py_NewRef(Py_None);
        return PYGEN_RETURN;
    }
    self->is_own = scope_cause(scope) == scope;
    self->is_other = scope->cause != NULL && !self->is_own;
    PyObject *exc = self->exc != NULL ? self->exc : torn;
    if (exc != NULL) {
        loop_cancel_by_failure(loop, scope, scope->task, exc);
    }
    Py_XDECREF(torn);
    if (group->count == 0 && group->starting == 0) {
        return groupexit_end(loop, self, result);
    }
    return await_yield(op, loop, clock_about_now(&loop->clock), result);
}

/* The task waits there for tasks of its own, from where it is not taken, and has yet to get an
 * interrupt. That is a failure of the block: the tasks are cancelled, and when they have ended, the
 * group raises it. A group that gives way, as first_of() has one, leaves it to the next await; and
 * so does one that is being cancelled already. */
static void
groupexit_interrupted(Awaitable *self, LoopObject *loop, TaskObject *task)
{
    GroupObject *group = ((GroupExitObject *)self)->group;
    if (group->gives_way) {
        loop_cancel_scope(loop, group->scope, SOURCE_EXPLICIT);
    }
    else if (!(task->flags & TASK_CANCELLING)) {
        PyObject *exc = interrupts_take(loop, task);
        if (exc == NULL) {
            exc = PyErr_GetRaisedException();
        }
        group_keep_error(loop, group, exc);
        loop_cancel_by_failure(loop, group->scope, task, exc);
        Py_DECREF(exc);
    }
}

static PySendResult
groupexit_resume(Awaitable *op, LoopObject *loop, PyObject **result)
{
    GroupExitObject *self = (GroupExitObject *)op;
    GroupObject *group = self->group;
    if (group->scope->task != loop->current) {
        return await_used_up(op);  /* torn off meanwhile */
    }
    if (group->count > 0 || group->starting > 0) {
        return await_yield_again(op, loop, result);  /* resumed by hand */
    }
    if (loop->current->scope != group->scope) {
        PyErr_SetString(PyExc_RuntimeError, "__aexit__() was resumed inside of another block");
        return PYGEN_ERROR;
    }
    return groupexit_end(loop, self, result);
}

/* The end is given up, as when the coroutine is closed: what is left is cancelled. If it is closed,
 * as by the second Ctrl-C, what the block had failed with goes to the run, as nobody else is left to
 * raise it. */
static int
groupexit_give_up(Awaitable *op, PyObject *exc)
{
    GroupExitObject *self = (GroupExitObject *)op;
    ScopeObject *scope = self->group->scope;
    ModuleState *state = state_of_type(Py_TYPE(op));
    LoopObject *loop = current_loop_borrowed(state);
    if (exc == NULL && self->state == AWAIT_WAITING && self->exc != NULL && loop != NULL
        && loop->errors != NULL && !is_cancelled_error(state, self->exc)
        && !PyErr_GivenExceptionMatches(self->exc, PyExc_GeneratorExit)) {
        loop_record_error(loop, self->exc);
    }
    if (self->state == AWAIT_WAITING && scope->state == SCOPE_ENTERED) {
        scope_tear_off(scope);
    }
    self->state = AWAIT_DONE;
    return 1;
}

/* Until the group is empty. Its task is not taken away: the others are cancelled with it, and end
 * first. */
static enum parked
groupexit_park(Awaitable *self, LoopObject *loop, TaskObject *task)
{
    GroupObject *group = ((GroupExitObject *)self)->group;
    if (group->scope->task != task) {
        return PARK_REFUSED;  /* torn off since the await has begun */
    }
    if (group->count == 0 && group->starting == 0) {
        return PARK_READY;
    }
    group->leaving = task;
    if (task->flags & TASK_INTERRUPTED) {
        groupexit_interrupted(self, loop, task);
    }
    return PARKED;
}

static void
groupexit_unpark(Awaitable *self, LoopObject *Py_UNUSED(loop), TaskObject *Py_UNUSED(task))
{
    ((GroupExitObject *)self)->group->leaving = NULL;
}

/* New str: what the end of the block waits for. */
static PyObject *
groupexit_describe(Awaitable *self, LoopObject *Py_UNUSED(loop))
{
    const GroupObject *group = ((GroupExitObject *)self)->group;
    size_t n = group->count + group->starting;
    const char *s = n == 1 ? "" : "s";
    return group->is_race
               ? PyUnicode_FromFormat("waiting for the first of %zu task%s", n, s)
               : PyUnicode_FromFormat("waiting for the %zu task%s of its TaskGroup", n, s);
}

static PyObject *
groupexit_waits_on(Awaitable *self)
{
    return Py_NewRef((PyObject *)((GroupExitObject *)self)->group);
}

/* The numbers of the group's tasks that have not finished. */
static PyObject *
groupexit_graph_row(Awaitable *self)
{
    GroupObject *group = ((GroupExitObject *)self)->group;
    PyObject *numbers = PyList_New(0);
    struct link *tasks = &group->scope->tasks;
    for (struct link *l = tasks->next; numbers != NULL && l != tasks; l = l->next) {
        TaskObject *task = TASK_OF_SIBLING(l);
        if (!(task->flags & TASK_STARTING)) {
            numbers_append(&numbers, task);
        }
    }
    return numbers != NULL ? Py_BuildValue("(sN)", group->is_race ? "race" : "group", numbers)
                           : NULL;
}

static const struct await_kind group_end_kind = {
    AWAIT_KIND(group_end_kind, "TaskGroup.__aexit__()"),
    .begin = groupexit_begin,
    .resume = groupexit_resume,
    .give_up = groupexit_give_up,
    .park = groupexit_park,
    .unpark = groupexit_unpark,
    .interrupted = groupexit_interrupted,
    .describe = groupexit_describe,
    .waits_on = groupexit_waits_on,
    .graph_row = groupexit_graph_row,
};

/* ---- the type -------------------------------------------------------------------------------- */

static int
groupexit_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((GroupExitObject *)op)->group);
    Py_VISIT(((GroupExitObject *)op)->exc);
    return 0;
}

/* Leaves the group, which a parked task finds by this. */
static int
groupexit_tp_clear(PyObject *op)
{
    Py_CLEAR(((GroupExitObject *)op)->exc);
    return 0;
}

static void
groupexit_tp_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    if (await_dies(op) < 0) {
        return;
    }
    PyObject_GC_UnTrack(op);
    (void)groupexit_tp_clear(op);
    Py_DECREF(((GroupExitObject *)op)->group);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyType_Slot groupexit_slots[] = {
    {Py_tp_doc, (void *)"What `async with TaskGroup()` waits with at its end."},
    {Py_tp_dealloc, groupexit_tp_dealloc},
    {Py_tp_finalize, await_tp_finalize},
    {Py_tp_traverse, groupexit_tp_traverse},
    {Py_tp_clear, groupexit_tp_clear},
    {Py_tp_repr, await_tp_repr},
    AWAIT_SLOTS(PyObject_SelfIter),
    {Py_tp_methods, await_methods},
    {Py_tp_getset, await_getset},
    {0, NULL},
};

static PyType_Spec groupexit_spec = {
    .name = "sleeploop.GroupExit",
    .basicsize = sizeof(GroupExitObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = groupexit_slots,
};

#endif /* SLEEPLOOP_SCOPE_GROUPEXIT_H */
