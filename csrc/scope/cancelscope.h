/* cancelscope.h: the CancelScope type. */
#ifndef SLEEPLOOP_SCOPE_CANCELSCOPE_H
#define SLEEPLOOP_SCOPE_CANCELSCOPE_H

#include "../base/clock.h"
#include "../base/compat.h"
#include "../base/ring.h"
#include "../base/timerheap.h"
#include "../core/args.h"
#include "../core/cancel.h"
#include "../core/cancelled.h"
#include "../core/driver.h"
#include "../core/loopobject.h"
#include "../core/scopeobject.h"
#include "../core/scopetree.h"
#include "../core/state.h"
#include "../core/walltime.h"
#include "../wait/readyawaitable.h"
#include "block.h"

static PyObject *
scope_py_enter(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return scope_begin(state_of_type(Py_TYPE(op)), (ScopeObject *)op) == 0 ? Py_NewRef(op) : NULL;
}

static PyObject *
scope_py_exit(PyObject *op, PyObject *const *args, Py_ssize_t n_args)
{
    PyObject *exc;
    if (exit_args("__exit__()", args, n_args, &exc) < 0) {
        return NULL;
    }
    int caught = scope_end(state_of_type(Py_TYPE(op)), (ScopeObject *)op, exc);
    return caught >= 0 ? PyBool_FromLong(caught) : NULL;
}

static PyObject *
scope_py_aenter(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    ModuleState *state = state_of_type(Py_TYPE(op));
    PyObject *instant = ready_awaitable_new_steal(state, Py_NewRef(op), scope_take_back);
    if (instant != NULL && scope_begin(state, (ScopeObject *)op) < 0) {
        Py_CLEAR(instant);  /* last: what has been entered must be left */
    }
    return instant;
}

static PyObject *
scope_py_aexit(PyObject *op, PyObject *const *args, Py_ssize_t n_args)
{
    return ready_awaitable_new_steal(state_of_type(Py_TYPE(op)), scope_py_exit(op, args, n_args), NULL);
}

PyDoc_STRVAR(scope_cancel_doc,
"cancel($self, reason=None)\n--\n\n"
"Cancel the scope: every await inside of it raises CancelledError, until it is\n"
"left. The second time changes nothing, and so does cancelling one that was left.\n"
"Before it is entered, it takes effect then.\n"
"\n"
"reason: anything; it is told by the exception.\n"
"\n"
"Raises RuntimeError in another thread than the one that runs the loop.\n");

static PyObject *
scope_py_cancel(PyObject *op, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    static const char *const names[] = {"reason", NULL};
    ScopeObject *scope = (ScopeObject *)op;
    PyObject *reason;
    if (args_parse("cancel()", names, 1, 0, args, n_args, kwnames, &reason) < 0) {
        return NULL;
    }
    LoopObject *loop = scope_loop_borrowed(scope);
    if (loop != NULL && loop_need_thread(loop, "cancel()") < 0) {
        return NULL;
    }
    if (loop != NULL || scope->state == SCOPE_NEW) {
        LoopObject *here = current_loop_borrowed(state_of_type(Py_TYPE(op)));
        if (loop == NULL && here != NULL && !(scope->flags & SCOPE_CANCELLED)) {
            scope_set_culprit(scope, here->current);
        }
        loop_cancel_by_call(loop, scope, reason);
    }
    if (loop != NULL) {
        loop_rouse_suspended(loop);
    }
    Py_RETURN_NONE;
}

static PyObject *
scope_get_cancel_called(PyObject *op, void *Py_UNUSED(closure))
{
    scope_check_deadline((ScopeObject *)op);
    return PyBool_FromLong(((ScopeObject *)op)->flags & SCOPE_CANCELLED);
}

static PyObject *
scope_get_cancelled_caught(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((ScopeObject *)op)->flags & SCOPE_CAUGHT);
}

static PyObject *
scope_get_shield(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((ScopeObject *)op)->flags & SCOPE_SHIELD);
}

/* -1 with a TypeError if `value` is NULL: the attribute is being deleted. */
static int
check_not_deleted(PyObject *value, const char *name)
{
    if (value == NULL) {
        PyErr_Format(PyExc_TypeError, "%s cannot be deleted", name);
        return -1;
    }
    return 0;
}

static int
scope_set_shield(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    ScopeObject *scope = (ScopeObject *)op;
    if (check_not_deleted(value, "shield") < 0) {
        return -1;
    }
    int shield = PyObject_IsTrue(value);
    LoopObject *loop = scope_loop_borrowed(scope);
    if (shield < 0 || (loop != NULL && loop_need_thread(loop, "setting shield") < 0)) {
        return -1;
    }
    scope->flags = (uint8_t)(shield ? scope->flags | SCOPE_SHIELD : scope->flags & ~SCOPE_SHIELD);
    if (loop != NULL) {
        loop_spread(loop, scope, shield ? CHANGE_LESS : CHANGE_MORE);
        loop_rouse_suspended(loop);
    }
    return 0;
}

static PyObject *
scope_get_deadline(PyObject *op, void *Py_UNUSED(closure))
{
    ScopeObject *scope = (ScopeObject *)op;
    int64_t deadline = scope->deadline;
    if (scope->kind != DEADLINE_AT) {
        LoopObject *loop =
            need_current_loop_borrowed(state_of_type(Py_TYPE(op)),
                                       "the deadline of a scope that has not been entered");
        if (loop == NULL) {
            return NULL;
        }
        deadline = scope->kind == DEADLINE_WALL ? loop_time_of_wall(loop, deadline)
                                                : time_add(clock_now(&loop->clock),
                                                           deadline > 0 ? deadline : 0);
    }
    return moment_object(deadline);
}

/* A new deadline; None: none. 0, or -1 with an exception set. */
static int
scope_change_deadline(ScopeObject *scope, const char *function, PyObject *value)
{
    ModuleState *state = state_of_type(Py_TYPE(scope));
    int64_t deadline = TIME_FOREVER;
    int is_wall = 0;
    if (value != Py_None
        && moment_from_object(state, function, value, &deadline, &is_wall) < 0) {
        return -1;
    }
    LoopObject *loop = scope_loop_borrowed(scope);
    if (loop != NULL && loop_need_thread(loop, function) < 0) {
        return -1;
    }
    scope->deadline = deadline;
    scope->kind = is_wall ? DEADLINE_WALL : DEADLINE_AT;
    if (loop == NULL) {
        return 0;
    }
    scope_fix_deadline(scope, loop);
    if (timer_armed(&scope->timer)) {
        timerheap_cancel(&loop->timers, &scope->timer);
    }
    if (loop_arm_deadline(loop, scope, clock_now(&loop->clock)) < 0) {
        return -1;
    }
    if (deadline != TIME_FOREVER) {  /* else its tasks may look at the time in vain */
        loop_spread(loop, scope, CHANGE_MORE);
    }
    loop_rouse_suspended(loop);
    return 0;
}

static int
scope_set_deadline(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    return check_not_deleted(value, "deadline") < 0
               ? -1
               : scope_change_deadline((ScopeObject *)op, "deadline", value);
}

PyDoc_STRVAR(scope_reschedule_doc,
"reschedule($self, when, /)\n--\n\n"
"Set the deadline, as asyncio.Timeout has it: loop time in seconds, a datetime,\n"
"or None for none.\n");

static PyObject *
scope_py_reschedule(PyObject *op, PyObject *when)
{
    return scope_change_deadline((ScopeObject *)op, "reschedule()", when) == 0
               ? Py_NewRef(Py_None)
               : NULL;
}

static PyObject *
scope_tp_repr(PyObject *op)
{
    ScopeObject *scope = (ScopeObject *)op;
    static const char *const states[] = {"not entered", "entered", "left"};
    PyObject *until = PyUnicode_FromString("");
    if (until != NULL && scope->deadline <= TIME_END) {
        PyObject *time = scope->kind == DEADLINE_WALL
                             ? datetime_from_wall(state_of_type(Py_TYPE(op)), scope->deadline,
                                                  Py_None)
                             : seconds_object(scope->deadline);
        Py_SETREF(until, time == NULL ? NULL
                         : PyUnicode_FromFormat(
                               scope->kind == DEADLINE_AFTER  ? ", %S s from then on"
                               : scope->kind == DEADLINE_WALL ? ", deadline %S"
                                                              : ", deadline %S s",
                               time));
        Py_XDECREF(time);
    }
    PyObject *repr =
        until != NULL
            ? PyUnicode_FromFormat("<%s %s%U%s%s>", scope_kind(scope), states[scope->state], until,
                                   scope->flags & SCOPE_SHIELD ? ", shielded" : "",
                                   scope->flags & SCOPE_CANCELLED ? ", cancelled" : "")
            : NULL;
    Py_XDECREF(until);
    return repr;
}

static int
scope_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    ScopeObject *scope = (ScopeObject *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(scope->parent);
    Py_VISIT(scope->reason);
    return 0;
}

/* Leaves the chain of scopes as it is: there is no cycle in that, and others stand in it. */
static int
scope_tp_clear(PyObject *op)
{
    Py_CLEAR(((ScopeObject *)op)->reason);
    return 0;
}

static void
scope_tp_dealloc(PyObject *op)
{
    ScopeObject *scope = (ScopeObject *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    /* Thousands may be nested. */
    Py_TRASHCAN_BEGIN(op, scope_tp_dealloc)
    assert(ring_empty(&scope->tasks) && !timer_armed(&scope->timer));
    (void)scope_tp_clear(op);
    Py_CLEAR(scope->by_name);
    Py_CLEAR(scope->code);
    Py_CLEAR(scope->parent);
    type->tp_free(op);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

/* ---- making one ------------------------------------------------------------------------------ */

/* shield= and a deadline of that kind; either may be NULL. */
static PyObject *
scope_make(ModuleState *state, const char *function, enum deadline_kind kind, PyObject *when,
           PyObject *shield, enum scope_maker maker)
{
    int64_t time = TIME_FOREVER;
    int is_wall = 0;
    if (when == NULL || when == Py_None) {
        kind = DEADLINE_AT;
    }
    else if (kind == DEADLINE_AFTER ? delay_from_object(state, function, when, &time) < 0
                                    : moment_from_object(state, function, when, &time, &is_wall)
                                          < 0) {
        return NULL;
    }
    int shielded = shield != NULL ? PyObject_IsTrue(shield) : 0;
    ScopeObject *scope = shielded >= 0 ? scope_new(state) : NULL;
    if (scope != NULL) {
        scope->deadline = time;
        scope->kind = is_wall ? DEADLINE_WALL : (uint8_t)kind;
        scope->maker = (uint8_t)maker;
        scope->flags = (uint8_t)((shielded ? SCOPE_SHIELD : 0)
                                 | (maker == BY_TIMEOUT || maker == BY_TIMEOUT_AT ? SCOPE_TIMEOUT
                                                                                  : 0));
    }
    return (PyObject *)scope;
}

static PyObject *
scope_tp_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"deadline", "shield", NULL};
    PyObject *deadline = NULL, *shield = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$OO:CancelScope", names, &deadline, &shield)) {
        return NULL;
    }
    return scope_make(state_of_type(type), "deadline", DEADLINE_AT, deadline, shield,
                      BY_CANCEL_SCOPE);
}

PyDoc_STRVAR(scope_type_doc,
"CancelScope(*, deadline=inf, shield=False)\n--\n\n"
"A block that can be cancelled, by cancel() or by its deadline. From then on every\n"
"await inside of it raises CancelledError, until the block is left; there it ends.\n"
"\n"
"deadline: loop time in seconds, or a datetime; inf or None: none.\n"
"shield: hold back the cancellations of what is outside.\n"
"\n"
"Used once, as `with` or `async with`, inside of a task. Tasks of a TaskGroup that\n"
"is opened inside of the block belong to it; others do not.\n"
"\n"
"Raises TypeError or ValueError for what is no deadline. Leaving it in another\n"
"task, or before a block inside of it, is a RuntimeError.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def main():\n"
"...     with sleeploop.CancelScope(deadline=2.5) as scope:\n"
"...         while True:\n"
"...             await sleeploop.sleep(1)\n"
"...     print(scope.cancelled_caught, sleeploop.current_loop().time())\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"True 2.5\n");

PyDoc_STRVAR(scope_when_doc,
"when($self, /)\n--\n\n"
"The deadline as asyncio.Timeout has it: loop time in seconds, or None for none.\n");

static PyObject *
scope_py_when(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return ((ScopeObject *)op)->deadline <= TIME_END ? scope_get_deadline(op, NULL)
                                                     : Py_NewRef(Py_None);
}

PyDoc_STRVAR(scope_expired_doc,
"expired($self, /)\n--\n\n"
"Whether the deadline has cancelled the block.\n");

static PyObject *
scope_py_expired(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    ScopeObject *scope = (ScopeObject *)op;
    scope_check_deadline(scope);
    return PyBool_FromLong((scope->flags & SCOPE_CANCELLED) && scope->source == SOURCE_DEADLINE);
}

static PyMethodDef scope_methods[] = {
    {"__enter__", scope_py_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))scope_py_exit, METH_FASTCALL, NULL},
    {"__aenter__", scope_py_aenter, METH_NOARGS, NULL},
    {"__aexit__", (PyCFunction)(void (*)(void))scope_py_aexit, METH_FASTCALL, NULL},
    {"cancel", (PyCFunction)(void (*)(void))scope_py_cancel, METH_FASTCALL | METH_KEYWORDS,
     scope_cancel_doc},
    {"reschedule", scope_py_reschedule, METH_O, scope_reschedule_doc},
    {"when", scope_py_when, METH_NOARGS, scope_when_doc},
    {"expired", scope_py_expired, METH_NOARGS, scope_expired_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef scope_getset[] = {
    {"cancel_called", scope_get_cancel_called, NULL,
     PyDoc_STR("Whether the scope has been cancelled, by cancel() or by its deadline."), NULL},
    {"cancelled_caught", scope_get_cancelled_caught, NULL,
     PyDoc_STR("Whether the scope's own CancelledError has ended the block, or a task of its\n"
               "group."),
     NULL},
    {"deadline", scope_get_deadline, scope_set_deadline,
     PyDoc_STR("Loop time in seconds at which the scope is cancelled, a float; inf: none. Can be\n"
               "set at any time, also to a datetime. It does not undo a cancellation."),
     NULL},
    {"shield", scope_get_shield, scope_set_shield,
     PyDoc_STR("Whether cancellations of what is outside are held back. Can be set at any time."),
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot scope_slots[] = {
    {Py_tp_doc, (void *)scope_type_doc},
    {Py_tp_new, scope_tp_new},
    {Py_tp_dealloc, scope_tp_dealloc},
    {Py_tp_traverse, scope_tp_traverse},
    {Py_tp_clear, scope_tp_clear},
    {Py_tp_repr, scope_tp_repr},
    {Py_tp_methods, scope_methods},
    {Py_tp_getset, scope_getset},
    {0, NULL},
};

static PyType_Spec scope_spec = {
    .name = "sleeploop.CancelScope",
    .basicsize = sizeof(ScopeObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = scope_slots,
};

#endif /* SLEEPLOOP_SCOPE_CANCELSCOPE_H */
