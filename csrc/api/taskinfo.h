/* taskinfo.h: what a task tells of itself: its attributes, of which only the name can be set, and
 * its repr.
 */
#ifndef SLEEPLOOP_API_TASKINFO_H
#define SLEEPLOOP_API_TASKINFO_H

#include "../base/compat.h"
#include "../core/args.h"
#include "../core/kinds.h"
#include "../core/loopobject.h"
#include "../core/ready.h"
#include "../core/task.h"
#include "../core/taskobject.h"

/* ---- attributes ------------------------------------------------------------------------------ */

static PyObject *
task_get_name(PyObject *op, void *Py_UNUSED(closure))
{
    return task_name((TaskObject *)op);
}

static int
task_set_name(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    PyObject *name;
    if (task_name_from_object(value, &name) < 0) {
        return -1;
    }
    Py_XSETREF(((TaskObject *)op)->name, name);
    return 0;
}

static PyObject *
task_get_coro(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *coro = ((TaskObject *)op)->coro;
    return Py_NewRef(coro != NULL ? coro : Py_None);
}

static PyObject *
task_get_context(PyObject *op, void *Py_UNUSED(closure))
{
    TaskObject *task = (TaskObject *)op;
    if (task->context == NULL && task->loop != NULL) {
        return PyContext_CopyCurrent();  /* see _share_context() */
    }
    return Py_NewRef(task->context != NULL ? task->context : Py_None);
}

static PyObject *
task_get_daemon(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((TaskObject *)op)->flags & TASK_DAEMON);
}

static PyObject *
task_get_parent(PyObject *op, void *Py_UNUSED(closure))
{
    TaskObject *task = (TaskObject *)op;
    TaskObject *parent = task->loop != NULL && task->parent != 0
                             ? loop_find_task(task->loop, task->parent)
                             : NULL;
    return Py_NewRef(parent != NULL ? (PyObject *)parent : Py_None);
}

static PyObject *
task_get_created_at(PyObject *op, void *Py_UNUSED(closure))
{
    TaskObject *task = (TaskObject *)op;
    if (task->loop == NULL || task->loop->created == NULL) {
        Py_RETURN_NONE;
    }
    PyObject *number = PyLong_FromUnsignedLong(task->number);
    PyObject *stack =
        number != NULL ? PyDict_GetItemWithError(task->loop->created, number) : NULL;
    Py_XINCREF(stack);
    Py_XDECREF(number);
    return stack != NULL || PyErr_Occurred() ? stack : Py_NewRef(Py_None);
}

static PyObject *
task_get_waiting_since(PyObject *op, void *Py_UNUSED(closure))
{
    const Awaitable *await = task_await_borrowed((TaskObject *)op);
    return await != NULL ? seconds_object(await->since) : Py_NewRef(Py_None);
}

static PyObject *
task_get_wake_time(PyObject *op, void *Py_UNUSED(closure))
{
    TaskObject *task = (TaskObject *)op;
    Awaitable *await = task_await_borrowed(task);
    int64_t when;
    if (await == NULL || await_kind(await)->wake_time == NULL || task->loop == NULL) {
        Py_RETURN_NONE;
    }
    return await_kind(await)->wake_time(await, task->loop, &when) == 0 ? moment_object(when) : NULL;
}

static PyObject *
task_get_waiting_on(PyObject *op, void *Py_UNUSED(closure))
{
    Awaitable *await = task_await_borrowed((TaskObject *)op);
    if (await == NULL) {
        Py_RETURN_NONE;
    }
    return await_kind(await)->waits_on != NULL ? await_kind(await)->waits_on(await)
                                               : Py_NewRef((PyObject *)await);
}

/* ---- described ------------------------------------------------------------------------------- */

/* What the coroutine calls itself, for the repr; never fails for want of an attribute. */
static PyObject *
coro_description(PyObject *coro)
{
    if (coro == NULL) {
        return PyUnicode_FromString("?");
    }
    PyObject *name = PyObject_GetAttrString(coro, "__qualname__");
    if (name == NULL && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear();
    }
    else if (name == NULL || PyUnicode_Check(name)) {
        return name;
    }
    Py_XDECREF(name);
    return PyUnicode_FromFormat("%.100s object", Py_TYPE(coro)->tp_name);
}

static PyObject *
task_state_description(TaskObject *task)
{
    PyObject *detail, *text;
    switch (task->state) {
    case TASK_READY:
        return PyUnicode_FromString(task->flags & TASK_STARTED ? "ready" : "ready to start");
    case TASK_RUNNING:
        return PyUnicode_FromString("running");
    case TASK_PARKED: {
        Awaitable *await = (Awaitable *)Py_XNewRef(task->payload);  /* Python may wake the task */
        LoopObject *loop = (LoopObject *)Py_XNewRef((PyObject *)task->loop);
        text = await == NULL || loop == NULL ? PyUnicode_FromString("waiting")
                                             : await_kind(await)->describe(await, loop);
        Py_XDECREF(loop);
        Py_XDECREF(await);
        return text;
    }
    case TASK_RETURNED:
    case TASK_FAILED:
        detail = describe(task->payload != NULL ? task->payload : Py_None);
        text = detail != NULL
                   ? PyUnicode_FromFormat(
                         task->state == TASK_FAILED ? "failed with %U" : "returned %U", detail)
                   : NULL;
        Py_XDECREF(detail);
        return text;
    default:
        return PyUnicode_FromString("cancelled");
    }
}

static PyObject *
task_tp_repr(PyObject *op)
{
    TaskObject *task = (TaskObject *)op;
    int again = Py_ReprEnter(op);  /* a result may hold the task */
    if (again != 0) {
        return again > 0 ? PyUnicode_FromString("<Task ...>") : NULL;
    }
    PyObject *name = task_name(task);
    PyObject *coro = name != NULL ? coro_description(task->coro) : NULL;
    PyObject *doing = coro != NULL ? task_state_description(task) : NULL;
    PyObject *repr = NULL;
    if (doing != NULL) {
        int cancelling = (task->flags & TASK_CANCELLING) && !task_done(task);
        repr = PyUnicode_FromFormat("<Task %R %U: %U%s>", name, coro, doing,
                                    cancelling ? ", being cancelled" : "");
    }
    Py_XDECREF(doing);
    Py_XDECREF(coro);
    Py_XDECREF(name);
    Py_ReprLeave(op);
    return repr;
}

#endif /* SLEEPLOOP_API_TASKINFO_H */
