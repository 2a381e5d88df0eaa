/* start.h: `await group.start(function)`: a task that belongs to the one that waits, until it
 * calls started() and belongs to the group.
 */
#ifndef SLEEPLOOP_START_H
#define SLEEPLOOP_START_H

#include "block.h"
#include "tasktype.h"

#define START_FUNCTION "TaskGroup.start()"

/* Whether the group takes tasks: its block has been entered and not left, nor torn off. */
static inline int
group_is_open(const GroupObject *group)
{
    return group->state == GROUP_OPEN && group->scope->state == SCOPE_ENTERED;
}

/* The loop of a group that takes tasks here and now, borrowed; NULL with RuntimeError. */
static LoopObject *
group_need_open(ModuleState *state, GroupObject *group, const char *function)
{
    LoopObject *loop = need_current_loop_borrowed(state, function);
    if (loop == NULL) {
        return NULL;
    }
    if (!group_is_open(group)) {
        PyErr_Format(PyExc_RuntimeError, "%s: this TaskGroup %s", function,
                     group->state == GROUP_NEW
                         ? "has not been entered; use it inside of its `async with` block"
                         : "is finished: its block has been left");
        return NULL;
    }
    if (scope_loop_borrowed(group->scope) != loop) {
        PyErr_Format(PyExc_RuntimeError, "%s: this TaskGroup belongs to another loop", function);
        return NULL;
    }
    return loop;
}

/* Nobody waits any more for the task that start() made. */
static void
start_resolve(StartObject *self)
{
    GroupObject *group = self->group;
    TaskObject *starter = self->starter;
    if (starter == NULL) {
        return;
    }
    self->starter = NULL;
    if (self->is_counted) {
        self->is_counted = 0;
        group->starting--;
        if (group->leaving != NULL) {
            LoopObject *loop = group->leaving->loop;
            group_check_empty(loop, group);
            if (loop->idling) {  /* in another thread: a coroutine was collected there */
                idle_wake(&loop->idle);
            }
        }
    }
    Py_DECREF(starter);
}

/* The task that start() made is one of the group's from now on, and the one that waits goes on.
 * Beware: may run Python in the end. */
static void
start_join_group(StartObject *self, LoopObject *loop)
{
    TaskObject *task = self->task, *starter = self->starter;
    ScopeObject *old = task_move(task, self->group->scope);
    task->flags &= (uint16_t)~TASK_STARTING;
    self->group->count++;
    for (TaskObject *t = task; t != NULL; t = task_starting_child(t, self->group->scope)) {
        ScopeObject *outermost = task_outermost_scope(t);
        if (outermost != NULL) {
            loop_spread(loop, outermost, CHANGE_MORE);
        }
        else {
            loop_cause_changed(loop, t);
        }
    }
    if (starter->state == TASK_START && starter->payload == (PyObject *)self) {
        loop_wake(loop, starter);
    }
    loop_rouse_suspended(loop);
    Py_XDECREF(old);
}

/* started(value). A plain function may call it before it returns its coroutine: then there is no
 * task yet, and start_begin() makes one of the group's. */
static PyObject *
start_started(PyObject *op, PyObject *const *args, Py_ssize_t n_args)
{
    StartObject *self = (StartObject *)op;
    if (n_args > 1) {
        PyErr_Format(PyExc_TypeError, "started() takes at most 1 argument, not %zd", n_args);
        return NULL;
    }
    if (self->has_started) {
        PyErr_SetString(PyExc_RuntimeError, "started() has been called before");
        return NULL;
    }
    LoopObject *loop = self->starter != NULL ? self->starter->loop : NULL;
    if (loop != NULL && loop_need_thread(loop, "started()") < 0) {
        return NULL;
    }
    if (loop == NULL || (self->task != NULL && task_done(self->task))) {
        PyErr_SetString(PyExc_RuntimeError,
                        "started(): nobody waits for it any more, as the task or its start() has "
                        "ended");
        return NULL;
    }
    if (self->starter->flags & TASK_CANCELLING) {
        Py_RETURN_NONE;  /* too late: start() raises CancelledError when the task has ended */
    }
    if (!group_is_open(self->group)) {  /* torn off: in there it would be out of reach */
        PyErr_SetString(PyExc_RuntimeError, "started(): the block of the TaskGroup is gone");
        return NULL;
    }
    self->value = Py_NewRef(n_args > 0 ? args[0] : Py_None);
    self->has_started = 1;
    if (self->task != NULL) {
        start_join_group(self, loop);
    }
    Py_RETURN_NONE;
}

static PyMethodDef start_started_def = {
    "started", (PyCFunction)(void (*)(void))start_started, METH_FASTCALL,
    PyDoc_STR("started($self, value=None, /)\n--\n\n"
              "Hand value to the caller of TaskGroup.start(), and join the group.")};

/* New coroutine: function(*args, started=...). */
static PyObject *
start_call(ModuleState *state, StartObject *self)
{
    PyObject *call = self->call;
    self->call = NULL;
    PyObject *started = PyCFunction_New(&start_started_def, (PyObject *)self);
    PyObject *kwargs = started != NULL ? PyDict_New() : NULL;
    PyObject *coro = NULL;
    if (kwargs != NULL && PyDict_SetItemString(kwargs, "started", started) == 0) {
        coro = PyObject_Call(PyTuple_GET_ITEM(call, 0), PyTuple_GET_ITEM(call, 1), kwargs);
    }
    if (coro != NULL && check_coroutine(state, "start()", coro) < 0) {
        Py_CLEAR(coro);
    }
    Py_XDECREF(kwargs);
    Py_XDECREF(started);
    Py_DECREF(call);
    return coro;
}

/* Calls the function and makes the task: in the scope of the one that waits, until started(); in the
 * group if the function has called it already. 0, or -1 with an exception. */
static int
start_make_task(ModuleState *state, StartObject *self, LoopObject *loop, TaskObject *starter)
{
    GroupObject *group = self->group;
    PyObject *coro = start_call(state, self);
    if (coro == NULL) {
        trap_error_is_no_end("start()", PyExc_StopIteration);  /* of the function's */
        return -1;
    }
    if (self->starter != starter || loop->current != starter
        || group_need_open(state, group, "start()") == NULL) {
        if (!PyErr_Occurred()) {  /* the function did strange things */
            PyErr_SetString(PyExc_RuntimeError,
                            self->starter != starter ? "start() was closed by its function"
                                                     : "start(): its task does not run any more");
        }
        Py_DECREF(coro);
        return -1;
    }
    ScopeObject *scope = self->has_started ? group->scope : starter->scope;
    self->task = loop_spawn(loop, coro, NULL, NULL, scope, self->has_started ? 0 : TASK_STARTING);
    Py_DECREF(coro);
    if (self->task == NULL) {
        return -1;
    }
    if (self->has_started) {
        group->count++;
    }
    else {
        self->task->parent = group->scope->task->number;  /* as of the group's other tasks */
        group->starting++;
        self->is_counted = 1;
    }
    return 0;
}

/* Gives up waiting. The task goes on by itself, until the scope that it was made in is left. */
static void
start_give_up(StartObject *self)
{
    PyObject *call = self->call;
    TaskObject *task = self->task, *starter = self->starter;
    self->call = NULL;
    self->state = TRAP_DONE;
    if (starter == NULL
        || (starter->state == TASK_START && starter->payload == (PyObject *)self)) {
        task = NULL;  /* closed by hand, but still parked there: it has to find its way out */
    }
    else {
        self->task = NULL;
    }
    start_resolve(self);
    Py_XDECREF(call);
    Py_XDECREF(task);
}

/* The task has called started(), or has ended without. */
static PySendResult
start_end(ModuleState *state, StartObject *self, PyObject **result)
{
    TaskObject *task = self->task;
    self->state = TRAP_DONE;
    self->task = NULL;
    start_resolve(self);
    if (self->value != NULL) {
        *result = self->value;  /* so that it is not kept */
        self->value = NULL;
        Py_XDECREF(task);
        return PYGEN_RETURN;
    }
    if (task == NULL || !task_done(task)) {
        PyErr_SetString(PyExc_RuntimeError, "start() was resumed by somebody else than its loop");
    }
    else if (task->state == TASK_FAILED) {
        (void)task_outcome(state, task);
    }
    else {
        raise_about(PyExc_RuntimeError, "%s: %U%s", "start()", (PyObject *)task,
                    " ended without a call of started()");
    }
    Py_XDECREF(task);
    return PYGEN_ERROR;
}

/* The first send(). */
static PySendResult
start_begin(ModuleState *state, StartObject *self, PyObject **result)
{
    LoopObject *loop = group_need_open(state, self->group, "start()");
    TaskObject *starter = loop != NULL ? need_current_task_borrowed(state, "start()") : NULL;
    self->state = TRAP_DONE;
    if (starter == NULL) {
        return PYGEN_ERROR;
    }
    self->starter = (TaskObject *)Py_NewRef(starter);
    if (task_may_go_on(starter)) {
        if (start_make_task(state, self, loop, starter) < 0) {
            PyObject *exc = PyErr_GetRaisedException();
            start_give_up(self);
            Py_CLEAR(self->value);
            PyErr_SetRaisedException(exc);
            return PYGEN_ERROR;
        }
        if (self->has_started) {
            return start_end(state, self, result);
        }
    }
    self->started = clock_about_now(&loop->clock);
    self->state = TRAP_WAITING;
    *result = Py_NewRef(self);
    trace_await(loop, (PyObject *)self);
    return PYGEN_NEXT;
}

static PySendResult
start_advance(PyObject *op, PyObject *Py_UNUSED(sent), PyObject **result)
{
    StartObject *self = (StartObject *)op;
    ModuleState *state = state_of_type(Py_TYPE(op));
    *result = NULL;
    if (self->state == TRAP_NEW) {
        return start_begin(state, self, result);
    }
    if (self->state != TRAP_WAITING) {
        return trap_used_up("start()");
    }
    LoopObject *loop = current_loop_borrowed(state);
    TaskObject *starter = self->starter;
    if (loop == NULL || starter == NULL || loop->current != starter) {
        return trap_used_up("start()");
    }
    if ((starter->flags & TASK_CANCELLING) && self->value == NULL && self->task != NULL
        && task_done(self->task) && self->task->state != TASK_FAILED) {
        /* It ended because the one that waits was cancelled, or had no time left to start. */
        self->state = TRAP_DONE;
        PyObject *exc = cancelled_error_new(state, task_cancel_cause(starter));
        Py_CLEAR(self->task);
        start_resolve(self);
        PyErr_SetRaisedException(exc);
        return PYGEN_ERROR;
    }
    return start_end(state, self, result);
}

static PyObject *
start_tp_iternext(PyObject *op)
{
    PyObject *result;
    PySendResult how = start_advance(op, Py_None, &result);
    return trap_next_result(how, result);
}

static PyObject *
start_py_send(PyObject *op, PyObject *value)
{
    return trap_send(op, value, start_advance);
}

static PyObject *
start_py_throw(PyObject *op, PyObject *const *args, Py_ssize_t n_args)
{
    PyObject *result = trap_throw(&((StartObject *)op)->state, args, n_args);
    if (((StartObject *)op)->state == TRAP_DONE) {
        PyObject *exc = PyErr_GetRaisedException();
        start_give_up((StartObject *)op);
        PyErr_SetRaisedException(exc);
    }
    return result;
}

static PyObject *
start_py_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    start_give_up((StartObject *)op);
    Py_RETURN_NONE;
}

static int
start_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    StartObject *self = (StartObject *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->group);
    Py_VISIT(self->call);
    Py_VISIT(self->task);
    Py_VISIT(self->starter);
    Py_VISIT(self->value);
    return 0;
}

/* Leaves the task: the one that is parked at it finds it by this. */
static int
start_tp_clear(PyObject *op)
{
    Py_CLEAR(((StartObject *)op)->call);
    Py_CLEAR(((StartObject *)op)->value);
    return 0;
}

static void
start_tp_finalize(PyObject *op)
{
    StartObject *self = (StartObject *)op;
    awaitable_finalize(op, &self->state, self->excused, START_FUNCTION);
}

static void
start_tp_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    if (awaitable_dies(op, ((StartObject *)op)->state) < 0) {
        return;
    }
    PyObject_GC_UnTrack(op);
    start_give_up((StartObject *)op);
    (void)start_tp_clear(op);
    Py_XDECREF(((StartObject *)op)->task);
    Py_DECREF(((StartObject *)op)->group);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyObject *
start_tp_repr(PyObject *op)
{
    StartObject *self = (StartObject *)op;
    uint32_t number = self->starter != NULL ? self->starter->number : 0;
    return trap_repr(op, self->state, number, START_FUNCTION);
}

static PyGetSetDef start_getset[] = {
    TRAP_NAME_GETTERS(START_FUNCTION),
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef start_methods[] = {
    {"send", start_py_send, METH_O, PyDoc_STR("send($self, value, /)\n--\n\nAs of a generator.")},
    {"throw", (PyCFunction)(void (*)(void))start_py_throw, METH_FASTCALL,
     PyDoc_STR("throw($self, exception, /, *args)\n--\n\nAs of a generator.")},
    {"close", start_py_close, METH_NOARGS, PyDoc_STR("close($self, /)\n--\n\nAs of a generator.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot start_slots[] = {
    {Py_tp_doc, (void *)"What TaskGroup.start() returns; await it once."},
    {Py_tp_dealloc, start_tp_dealloc},
    {Py_tp_finalize, start_tp_finalize},
    {Py_tp_traverse, start_tp_traverse},
    {Py_tp_clear, start_tp_clear},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, start_tp_iternext},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, start_advance},
    {Py_tp_repr, start_tp_repr},
    {Py_tp_methods, start_methods},
    {Py_tp_getset, start_getset},
    {0, NULL},
};

static PyType_Spec start_spec = {
    .name = "sleeploop.Start",
    .basicsize = sizeof(StartObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = start_slots,
};

PyDoc_STRVAR(group_start_doc,
"start($self, async_fn, /, *args)\n--\n\n"
"Run `async_fn(*args, started=started)` as a task, wait until it calls\n"
"`started(value)`, and return that value. The rest of it runs on in the group.\n"
"\n"
"Until then the task belongs to the one that waits: what it raises, `await` raises,\n"
"and when the one that waits is cancelled, so is the task. A task that ends without\n"
"a call of started() is a RuntimeError. The group stays open meanwhile. A plain\n"
"function may call it, too, before it returns its coroutine.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def server(port, *, started):\n"
"...     await sleeploop.sleep(1)\n"
"...     started(f'listening on {port}')\n"
"...     await sleeploop.sleep(10)\n"
">>> async def main():\n"
"...     async with sleeploop.TaskGroup() as group:\n"
"...         print(await group.start(server, 80), sleeploop.current_loop().time())\n"
"...     print(sleeploop.current_loop().time())\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"listening on 80 1.0\n"
"11.0\n");

static PyObject *
group_py_start(PyObject *op, PyObject *const *args, Py_ssize_t n_args)
{
    ModuleState *state = state_of_type(Py_TYPE(op));
    if (n_args < 1) {
        PyErr_SetString(PyExc_TypeError, "start() is missing the argument 'async_fn'");
        return NULL;
    }
    if (!PyCallable_Check(args[0])) {
        raise_about(PyExc_TypeError, "%s takes an async function and its arguments, not %U%s",
                    "start()", args[0], PyCoro_CheckExact(args[0]) ? "; do not call it" : "");
        return NULL;
    }
    PyObject *rest = PyTuple_New(n_args - 1);
    if (rest == NULL) {
        return NULL;
    }
    for (Py_ssize_t i = 1; i < n_args; i++) {
        PyTuple_SET_ITEM(rest, i - 1, Py_NewRef(args[i]));
    }
    PyObject *call = PyTuple_Pack(2, args[0], rest);
    Py_DECREF(rest);
    StartObject *start = call != NULL ? PyObject_GC_New(StartObject, state->StartType) : NULL;
    if (start == NULL) {
        Py_XDECREF(call);
        return NULL;
    }
    start->group = (GroupObject *)Py_NewRef(op);
    start->call = call;
    start->task = start->starter = NULL;
    start->value = NULL;
    start->is_counted = start->has_started = start->excused = 0;
    start->started = 0;
    start->state = TRAP_NEW;
    PyObject_GC_Track(start);
    awaitable_made(state, (PyObject *)start);
    return (PyObject *)start;
}

#endif /* SLEEPLOOP_START_H */
