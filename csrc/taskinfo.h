/* taskinfo.h: what a task tells of itself: its attributes, of which only the name can be set, and
 * its repr.
 */
#ifndef SLEEPLOOP_TASKINFO_H
#define SLEEPLOOP_TASKINFO_H

#include "abandon.h"

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

/* Loop time at which a parked task began to wait; -1: that is not known. */
static int64_t
task_waiting_since(TaskObject *task)
{
    PyObject *trap = task->payload;
    if (!task_parked(task) || trap == NULL || task->loop == NULL) {
        return -1;
    }
    switch (task->state) {
    case TASK_JOIN:
        return ((JoinObject *)trap)->started;
    case TASK_START:
        return ((StartObject *)trap)->started;
    case TASK_LEAVE:
        return ((LeaveObject *)trap)->started;
    case TASK_WAIT:
    case TASK_REGAIN:
        return ((WaitObject *)trap)->started;
    default:
        if (Py_TYPE(trap) == task->loop->state->NextTickType) {
            return ((NextTickObject *)trap)->started;
        }
        return Py_TYPE(trap) == task->loop->state->SleepType ? ((SleepObject *)trap)->started : -1;
    }
}

static PyObject *
task_get_waiting_since(PyObject *op, void *Py_UNUSED(closure))
{
    int64_t since = task_waiting_since((TaskObject *)op);
    return since >= 0 ? seconds_object(since) : Py_NewRef(Py_None);
}

static PyObject *
task_get_wake_time(PyObject *op, void *Py_UNUSED(closure))
{
    TaskObject *task = (TaskObject *)op;
    PyObject *trap = task->payload;
    if (task->state == TASK_TIMER && task->loop != NULL && trap != NULL) {
        int64_t wall = 0;
        if (Py_TYPE(trap) == task->loop->state->SleepType) {
            return moment_object(sleep_deadline(task->loop, (SleepObject *)trap));
        }
        if (Py_TYPE(trap) == task->loop->state->NextTickType) {
            return moment_object(((NextTickObject *)trap)->due);
        }
        LoopObject *loop = task->loop;
        Py_INCREF(trap);  /* a time zone's Python may let go of either */
        Py_INCREF(loop);
        int rc = wall_from_deadline(loop->state, trap, &wall);
        int64_t when = loop_time_of_wall(loop, wall);
        Py_DECREF(trap);
        Py_DECREF(loop);
        return rc == 0 ? moment_object(when) : NULL;
    }
    if (task->state == TASK_FOREVER) {
        return PyFloat_FromDouble(Py_HUGE_VAL);
    }
    Py_RETURN_NONE;
}

static PyObject *
task_get_waiting_on(PyObject *op, void *Py_UNUSED(closure))
{
    TaskObject *task = (TaskObject *)op;
    if (!task_parked(task) || task->payload == NULL) {
        Py_RETURN_NONE;
    }
    switch (task->state) {
    case TASK_JOIN:
        return Py_NewRef(((JoinObject *)task->payload)->task);
    case TASK_START:
        return Py_NewRef(((StartObject *)task->payload)->task);
    case TASK_LEAVE:
        return Py_NewRef(((LeaveObject *)task->payload)->group);
    case TASK_WAIT:
    case TASK_REGAIN:
        return Py_NewRef(((WaitObject *)task->payload)->object);
    default:
        if (task->loop != NULL && Py_TYPE(task->payload) == task->loop->state->NextTickType) {
            return Py_NewRef(((NextTickObject *)task->payload)->every);
        }
        return Py_NewRef(task->payload);
    }
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

/* New str: what the end of an `async with TaskGroup()` waits for. */
static PyObject *
group_describe_wait(GroupObject *group)
{
    size_t n = group->count + group->starting;
    if (group->is_race) {
        return PyUnicode_FromFormat("waiting for the first of %zu task%s", n, n == 1 ? "" : "s");
    }
    return PyUnicode_FromFormat("waiting for the %zu task%s of its TaskGroup", n,
                                n == 1 ? "" : "s");
}

static PyObject *
task_state_description(TaskObject *task)
{
    PyObject *detail = NULL, *text = NULL;
    switch (task->state) {
    case TASK_READY:
        return PyUnicode_FromString(task->flags & TASK_STARTED ? "ready" : "ready to start");
    case TASK_RUNNING:
        return PyUnicode_FromString("running");
    case TASK_TIMER:
        detail = task_get_wake_time((PyObject *)task, NULL);
        if (detail != NULL && isinf(PyFloat_AS_DOUBLE(detail))) {  /* the clock ends before that */
            Py_DECREF(detail);
            return PyUnicode_FromString("sleeping until cancelled");
        }
        text = detail != NULL ? PyUnicode_FromFormat("sleeping until %S s", detail) : NULL;
        break;
    case TASK_FOREVER:
        if (task->payload == NULL || task->loop == NULL
            || sleep_may_be_signalled(task->loop->state, task->payload)) {
            return PyUnicode_FromString("sleeping until cancelled");
        }
        return PyUnicode_FromString(sleep_is_for_thread(task->loop->state, task->payload)
                                        ? "waiting for a thread"
                                        : "waiting to be woken");
    case TASK_JOIN:
        if (task->payload != NULL) {
            detail = task_name(((JoinObject *)task->payload)->task);
        }
        text = detail != NULL ? PyUnicode_FromFormat("waiting for task %R", detail) : NULL;
        break;
    case TASK_START:
        if (task->payload != NULL) {
            detail = task_name(((StartObject *)task->payload)->task);
        }
        text = detail != NULL ? PyUnicode_FromFormat("waiting for task %R to start", detail) : NULL;
        break;
    case TASK_LEAVE:
        return task->payload != NULL
                   ? group_describe_wait(((LeaveObject *)task->payload)->group)
                   : NULL;
    case TASK_WAIT:
    case TASK_REGAIN:
        if (task->payload != NULL) {
            WaitObject *wait = (WaitObject *)task->payload;
            PyObject *object = Py_NewRef(wait->object);  /* Python may wake the task */
            detail = wait->kind->describe(object);
            Py_DECREF(object);
        }
        text = detail != NULL ? PyUnicode_FromFormat("waiting for %U", detail) : NULL;
        break;
    case TASK_RETURNED:
    case TASK_FAILED:
        detail = describe(task->payload != NULL ? task->payload : Py_None);
        text = detail != NULL
                   ? PyUnicode_FromFormat(
                         task->state == TASK_FAILED ? "failed with %U" : "returned %U", detail)
                   : NULL;
        break;
    default:
        return PyUnicode_FromString("cancelled");
    }
    Py_XDECREF(detail);
    return text;
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

#endif /* SLEEPLOOP_TASKINFO_H */
