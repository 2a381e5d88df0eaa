/* leave.h: the end of an `async with TaskGroup()` block: it waits for the tasks, and raises what
 * has failed.
 */
#ifndef SLEEPLOOP_LEAVE_H
#define SLEEPLOOP_LEAVE_H

#include "block.h"

#define LEAVE_FUNCTION "TaskGroup.__aexit__()"

static LeaveObject *
leave_new(ModuleState *state, GroupObject *group, PyObject *exc)
{
    LeaveObject *leave = PyObject_GC_New(LeaveObject, state->LeaveType);
    if (leave == NULL) {
        return NULL;
    }
    leave->group = (GroupObject *)Py_NewRef(group);
    leave->exc = Py_XNewRef(exc);
    leave->started = 0;
    leave->is_own = leave->is_other = leave->excused = 0;
    leave->state = TRAP_NEW;
    PyObject_GC_Track(leave);
    awaitable_made(state, (PyObject *)leave);
    return leave;
}

/* Raises what a group has kept, in one exception group. context: what is being handled, borrowed, or
 * NULL; what the group holds itself is not told twice. Beware: may run Python. */
static void
raise_group_errors(LoopObject *loop, PyObject *errors, PyObject *context)
{
    PyObject *list = PyList_CheckExact(errors) ? Py_NewRef(errors) : Py_BuildValue("[O]", errors);
    if (list != NULL) {
        failures_unpack(loop->state, list);
    }
    Py_ssize_t n = list != NULL ? PyList_GET_SIZE(list) : 0;
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
leave_end(LoopObject *loop, LeaveObject *self, PyObject **result)
{
    GroupObject *group = self->group;
    TaskObject *task = group->scope->task;
    PyObject *exc = self->exc;
    int caught;
    self->exc = NULL;
    self->state = TRAP_DONE;
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
leave_begin(ModuleState *state, LeaveObject *self, PyObject **result)
{
    GroupObject *group = self->group;
    ScopeObject *scope = group->scope;
    LoopObject *loop = current_loop_borrowed(state);
    PyObject *torn = NULL;
    self->state = TRAP_DONE;  /* for now: what follows may run Python, which may resume it */
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
        return leave_end(loop, self, result);
    }
    self->started = clock_about_now(&loop->clock);
    self->state = TRAP_WAITING;
    *result = Py_NewRef(self);
    trace_await(loop, (PyObject *)self);
    return PYGEN_NEXT;
}

static PySendResult
leave_advance(PyObject *op, PyObject *Py_UNUSED(sent), PyObject **result)
{
    LeaveObject *self = (LeaveObject *)op;
    ModuleState *state = state_of_type(Py_TYPE(op));
    GroupObject *group = self->group;
    *result = NULL;
    if (self->state == TRAP_NEW) {
        return leave_begin(state, self, result);
    }
    LoopObject *loop = current_loop_borrowed(state);
    if (self->state != TRAP_WAITING || loop == NULL || group->scope->task == NULL
        || loop->current != group->scope->task) {
        return trap_used_up("__aexit__()");
    }
    if (group->count > 0 || group->starting > 0) {
        *result = Py_NewRef(op);  /* resumed by hand */
        return PYGEN_NEXT;
    }
    if (group->scope->task->scope != group->scope) {
        PyErr_SetString(PyExc_RuntimeError, "__aexit__() was resumed inside of another block");
        return PYGEN_ERROR;
    }
    return leave_end(loop, self, result);
}

static PyObject *
leave_tp_iternext(PyObject *op)
{
    PyObject *result;
    PySendResult how = leave_advance(op, Py_None, &result);
    return trap_next_result(how, result);
}

static PyObject *
leave_py_send(PyObject *op, PyObject *value)
{
    return trap_send(op, value, leave_advance);
}

/* The end is given up, as when the coroutine is closed: what is left is cancelled. */
static void
leave_give_up(LeaveObject *self)
{
    ScopeObject *scope = self->group->scope;
    if (self->state == TRAP_WAITING && scope->state == SCOPE_ENTERED) {
        scope_tear_off(scope);
    }
    self->state = TRAP_DONE;
}

static PyObject *
leave_py_throw(PyObject *op, PyObject *const *args, Py_ssize_t n_args)
{
    LeaveObject *self = (LeaveObject *)op;
    uint8_t state = self->state;
    PyObject *result = trap_throw(&state, args, n_args);
    if (state == TRAP_DONE) {
        PyObject *exc = PyErr_GetRaisedException();
        leave_give_up(self);
        PyErr_SetRaisedException(exc);
    }
    return result;
}

/* Its coroutine is closed, as by the second Ctrl-C: what the block had failed with goes to the run,
 * as nobody else is left to raise it. */
static PyObject *
leave_py_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    LeaveObject *self = (LeaveObject *)op;
    ModuleState *state = state_of_type(Py_TYPE(op));
    LoopObject *loop = current_loop_borrowed(state);
    if (self->state == TRAP_WAITING && self->exc != NULL && loop != NULL && loop->errors != NULL
        && !is_cancelled_error(state, self->exc)
        && !PyErr_GivenExceptionMatches(self->exc, PyExc_GeneratorExit)) {
        loop_record_error(loop, self->exc);
    }
    leave_give_up(self);
    Py_RETURN_NONE;
}

static int
leave_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((LeaveObject *)op)->group);
    Py_VISIT(((LeaveObject *)op)->exc);
    return 0;
}

/* Leaves the group, which a parked task finds by this. */
static int
leave_tp_clear(PyObject *op)
{
    Py_CLEAR(((LeaveObject *)op)->exc);
    return 0;
}

static void
leave_tp_finalize(PyObject *op)
{
    LeaveObject *self = (LeaveObject *)op;
    awaitable_finalize(op, &self->state, self->excused, LEAVE_FUNCTION);
}

static void
leave_tp_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    if (awaitable_dies(op, ((LeaveObject *)op)->state) < 0) {
        return;
    }
    PyObject_GC_UnTrack(op);
    (void)leave_tp_clear(op);
    Py_DECREF(((LeaveObject *)op)->group);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyObject *
leave_tp_repr(PyObject *op)
{
    LeaveObject *self = (LeaveObject *)op;
    const TaskObject *task = self->group->scope->task;
    return trap_repr(op, self->state, task != NULL ? task->number : 0, LEAVE_FUNCTION);
}

static PyMethodDef leave_methods[] = {
    {"send", leave_py_send, METH_O, PyDoc_STR("send($self, value, /)\n--\n\nAs of a generator.")},
    {"throw", (PyCFunction)(void (*)(void))leave_py_throw, METH_FASTCALL,
     PyDoc_STR("throw($self, exception, /, *args)\n--\n\nAs of a generator.")},
    {"close", leave_py_close, METH_NOARGS, PyDoc_STR("close($self, /)\n--\n\nAs of a generator.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot leave_slots[] = {
    {Py_tp_doc, (void *)"What `async with TaskGroup()` waits with at its end."},
    {Py_tp_dealloc, leave_tp_dealloc},
    {Py_tp_finalize, leave_tp_finalize},
    {Py_tp_traverse, leave_tp_traverse},
    {Py_tp_clear, leave_tp_clear},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, leave_tp_iternext},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, leave_advance},
    {Py_tp_repr, leave_tp_repr},
    {Py_tp_methods, leave_methods},
    {0, NULL},
};

static PyType_Spec leave_spec = {
    .name = "sleeploop.Leave",
    .basicsize = sizeof(LeaveObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = leave_slots,
};

#endif /* SLEEPLOOP_LEAVE_H */
