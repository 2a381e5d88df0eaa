/* groupstart.h: `await group.start(function)`: a task that belongs to the one that waits, until it
 * calls started() and belongs to the group.
 */
#ifndef SLEEPLOOP_SCOPE_GROUPSTART_H
#define SLEEPLOOP_SCOPE_GROUPSTART_H

#include "../base/clock.h"
#include "../base/compat.h"
#include "../base/ring.h"
#include "../core/args.h"
#include "../core/awaitable.h"
#include "../core/cancel.h"
#include "../core/cancelled.h"
#include "../core/driver.h"
#include "../core/forgotten.h"
#include "../core/kinds.h"
#include "../core/loopobject.h"
#include "../core/ready.h"
#include "../core/scopeobject.h"
#include "../core/scopetree.h"
#include "../core/state.h"
#include "../core/task.h"
#include "../core/taskobject.h"
#include "../poll/idle.h"
#include "block.h"
#include "../wait/finish.h"

/* `await group.start(function, *args)` */
typedef struct {
    AWAIT_HEAD
    uint8_t is_counted;  /* in the group's `starting` */
    uint8_t has_started; /* started() has been called */
    GroupObject *group;  /* owned */
    PyObject *call;      /* owned: (function, args) until it is called */
    TaskObject *task;    /* owned: the new task while it is waited for */
    TaskObject *starter; /* owned: the task that waits, while it does */
    PyObject *value;     /* owned: what started() was given */
} StartObject;

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
    if (starter->state == TASK_PARKED && starter->payload == (PyObject *)self) {
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
        await_error_is_no_end("start()", PyExc_StopIteration);  /* of the function's */
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
    self->state = AWAIT_DONE;
    if (starter == NULL
        || (starter->state == TASK_PARKED && starter->payload == (PyObject *)self)) {
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
    self->state = AWAIT_DONE;
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
start_begin(ModuleState *state, Awaitable *op, PyObject **result)
{
    StartObject *self = (StartObject *)op;
    LoopObject *loop = group_need_open(state, self->group, "start()");
    TaskObject *starter = loop != NULL ? need_current_task_borrowed(state, "start()") : NULL;
    self->state = AWAIT_DONE;
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
    self->firm = self->task != NULL;
    return await_yield(op, loop, clock_about_now(&loop->clock), result);
}

static PySendResult
start_resume(Awaitable *op, LoopObject *loop, PyObject **result)
{
    StartObject *self = (StartObject *)op;
    TaskObject *starter = self->starter;
    if (starter != loop->current) {
        return await_used_up(op);
    }
    if ((starter->flags & TASK_CANCELLING) && self->value == NULL && self->task != NULL
        && task_done(self->task) && self->task->state != TASK_FAILED) {
        /* It ended because the one that waits was cancelled, or had no time left to start. */
        self->state = AWAIT_DONE;
        PyObject *exc = cancelled_error_new(loop->state, task_cancel_cause(starter));
        Py_CLEAR(self->task);
        start_resolve(self);
        PyErr_SetRaisedException(exc);
        return PYGEN_ERROR;
    }
    return start_end(loop->state, self, result);
}

static int
start_thrown(Awaitable *self, PyObject *Py_UNUSED(exc))
{
    start_give_up((StartObject *)self);
    return 1;
}

/* Until the new task says that it has started, or ends. No cancellation takes the one that waits
 * away: the new one is cancelled with it, and ends first. */
static enum parked
start_park(Awaitable *op, LoopObject *Py_UNUSED(loop), TaskObject *task)
{
    StartObject *self = (StartObject *)op;
    if (self->starter != task) {
        return PARK_REFUSED;
    }
    if (self->task == NULL || self->value != NULL || task_done(self->task)) {
        return PARK_READY;
    }
    chain_push(&self->task->waiters, &task->link);
    return PARKED;
}

static void
start_unpark(Awaitable *self, LoopObject *Py_UNUSED(loop), TaskObject *task)
{
    chain_remove(&((StartObject *)self)->task->waiters, &task->link);
}

static PyObject *
start_describe(Awaitable *self, LoopObject *Py_UNUSED(loop))
{
    PyObject *name = task_name(((StartObject *)self)->task);
    PyObject *text = name != NULL ? PyUnicode_FromFormat("waiting for task %R to start", name)
                                  : NULL;
    Py_XDECREF(name);
    return text;
}

static PyObject *
start_waits_on(Awaitable *self)
{
    return Py_NewRef((PyObject *)((StartObject *)self)->task);
}

static TaskObject *
start_child(const Awaitable *self)
{
    return ((const StartObject *)self)->task;
}

static uint32_t
start_blocker(const Awaitable *self)
{
    return ((const StartObject *)self)->task->number;
}

static PyObject *
start_graph_row(Awaitable *op)
{
    StartObject *self = (StartObject *)op;
    TaskObject *leaving = self->is_counted ? self->group->leaving : NULL;
    unsigned host = leaving != NULL ? leaving->number : 0;
    return Py_BuildValue("(s(II))", "start", (unsigned)self->task->number, host);
}

static const struct await_kind group_start_kind = {
    AWAIT_KIND(group_start_kind, "TaskGroup.start()"),
    .begin = start_begin,
    .resume = start_resume,
    .give_up = start_thrown,
    .park = start_park,
    .unpark = start_unpark,
    .describe = start_describe,
    .waits_on = start_waits_on,
    .blocker = start_blocker,
    .graph_row = start_graph_row,
    .child = start_child,
};

/* ---- the type -------------------------------------------------------------------------------- */

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
start_tp_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    if (await_dies(op) < 0) {
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

static PyType_Slot start_slots[] = {
    {Py_tp_doc, (void *)"What TaskGroup.start() returns; await it once."},
    {Py_tp_dealloc, start_tp_dealloc},
    {Py_tp_finalize, await_tp_finalize},
    {Py_tp_traverse, start_tp_traverse},
    {Py_tp_clear, start_tp_clear},
    {Py_tp_repr, await_tp_repr},
    AWAIT_SLOTS(PyObject_SelfIter),
    {Py_tp_methods, await_methods},
    {Py_tp_getset, await_getset},
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
    await_init((Awaitable *)start, group_start_kind_number);
    start->group = (GroupObject *)Py_NewRef(op);
    start->call = call;
    start->task = start->starter = NULL;
    start->value = NULL;
    start->is_counted = start->has_started = 0;
    PyObject_GC_Track(start);
    awaitable_made(state, (PyObject *)start);
    return (PyObject *)start;
}

#endif /* SLEEPLOOP_SCOPE_GROUPSTART_H */
