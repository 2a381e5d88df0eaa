/* task.h: the Task type, and one step of one task: send or throw -> a verdict.
 *
 * What a verdict means for the order of things is the loop's business.
 */
#ifndef SLEEPLOOP_TASK_H
#define SLEEPLOOP_TASK_H

#include "report.h"
#include "sleep.h"

/* New reference: the given name, or "Task-<number>". */
static PyObject *
task_name(TaskObject *task)
{
    return task->name != NULL ? Py_NewRef(task->name)
                              : PyUnicode_FromFormat("Task-%lu", (unsigned long)task->number);
}

/* A task that is in no ring yet. Borrows all its arguments; name may be NULL. */
static TaskObject *
task_new(ModuleState *state, LoopObject *loop, PyObject *coro, PyObject *name, int flags)
{
    PyObject *context = PyContext_CopyCurrent();
    if (context == NULL) {
        return NULL;
    }
    TaskObject *task = PyObject_GC_New(TaskObject, state->TaskType);
    if (task == NULL) {
        Py_DECREF(context);
        return NULL;
    }
    task->loop = (LoopObject *)Py_NewRef(loop);
    task->coro = Py_NewRef(coro);
    task->context = context;
    task->name = Py_XNewRef(name);
    task->payload = NULL;
    task->weakrefs = NULL;
    task->link = (struct link){NULL, NULL};
    task->registered = (struct link){NULL, NULL};
    ring_init(&task->waiters);
    timer_init(&task->timer);
    task->number = ++loop->next_number;
    task->state = TASK_READY;
    task->flags = (uint8_t)flags;
    PyObject_GC_Track(task);
    return task;
}

/* ---- one step -------------------------------------------------------------------------------- */

enum step_verdict { STEP_YIELDED, STEP_RETURNED, STEP_RAISED };

/* coro.close(); an error is left set. */
static int
task_close_coro(ModuleState *state, TaskObject *task)
{
    PyObject *done = PyObject_CallMethodNoArgs(task->coro, state->str_close);
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

/* The value of the StopIteration that is set, which it clears. NULL on error: making
 * an instance of it may fail for want of memory, and that is then what is set. */
static PyObject *
take_stop_iteration(void)
{
    PyObject *exc = PyErr_GetRaisedException();
    if (!PyErr_GivenExceptionMatches(exc, PyExc_StopIteration)) {
        PyErr_SetRaisedException(exc);
        return NULL;
    }
    PyObject *value = Py_XNewRef(((PyStopIterationObject *)exc)->value);
    Py_DECREF(exc);
    return value != NULL ? value : Py_NewRef(Py_None);
}

static enum step_verdict
task_throw_into_coro(ModuleState *state, TaskObject *task, PyObject *exc_steal, PyObject **out)
{
    *out = PyObject_CallMethodOneArg(task->coro, state->str_throw, exc_steal);
    Py_DECREF(exc_steal);
    if (*out != NULL) {
        return STEP_YIELDED;
    }
    if (PyErr_ExceptionMatches(PyExc_StopIteration)) {
        *out = take_stop_iteration();
        return *out != NULL ? STEP_RETURNED : STEP_RAISED;
    }
    return STEP_RAISED;
}

/* A step that could not be made, or not be ended properly: the coroutine is
 * closed, and the exception that is set is the task's. */
static enum step_verdict
task_step_failed(ModuleState *state, TaskObject *task)
{
    PyObject *exc = PyErr_GetRaisedException();
    if (task_close_coro(state, task) < 0) {
        PyErr_WriteUnraisable(task->coro);
    }
    PyErr_SetRaisedException(exc);
    return STEP_RAISED;
}

/* Resumes the coroutine in its context: with exc thrown if there is one, else
 * with value sent. *out is what it yielded or returned, a new reference; when it
 * raised, *out is NULL and the exception is set. Steals exc.
 * Beware: runs arbitrary Python. */
static inline enum step_verdict
task_step(ModuleState *state, TaskObject *task, PyObject *value, PyObject *exc_steal,
          PyObject **out)
{
    enum step_verdict verdict;
    *out = NULL;
    if (PyContext_Enter(task->context) < 0) {
        Py_XDECREF(exc_steal);
        return task_step_failed(state, task);
    }
    if (exc_steal != NULL) {
        verdict = task_throw_into_coro(state, task, exc_steal, out);
    }
    else {
        switch (PyIter_Send(task->coro, value, out)) {
        case PYGEN_NEXT:
            verdict = STEP_YIELDED;
            break;
        case PYGEN_RETURN:
            verdict = STEP_RETURNED;
            break;
        default:
            verdict = STEP_RAISED;
            break;
        }
    }
    if (PyContext_Exit(task->context) < 0) {
        Py_CLEAR(*out);
        return task_step_failed(state, task);
    }
    return verdict;
}

/* ---- the outcome ----------------------------------------------------------------------------- */

/* The result of a task that is done: a new reference, or NULL with its exception set. */
static PyObject *
task_outcome(ModuleState *state, TaskObject *task)
{
    switch (task->state) {
    case TASK_RETURNED:
        return Py_NewRef(task->payload);
    case TASK_FAILED:
        task_mark_seen(task);
        /* As `raise` does, so that an exception in flight here becomes its context. */
        PyErr_SetObject((PyObject *)Py_TYPE(task->payload), task->payload);
        return NULL;
    default: {
        PyObject *name = task_name(task);
        if (name != NULL) {
            PyErr_Format(state->CancelledError, "task %R was cancelled", name);
            Py_DECREF(name);
        }
        return NULL;
    }
    }
}

static int
task_need_done(TaskObject *task)
{
    if (task_done(task)) {
        return 0;
    }
    raise_about(PyExc_RuntimeError, "%s: the task has not finished: %U%s", "Task",
                (PyObject *)task, "; 'await' it first");
    return -1;
}

PyDoc_STRVAR(task_result_doc,
"result($self, /)\n--\n\n"
"What the coroutine returned.\n"
"\n"
"Raises what it raised, CancelledError if it was cancelled, and RuntimeError if\n"
"the task has not finished.\n");

static PyObject *
task_py_result(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    TaskObject *task = (TaskObject *)op;
    return task_need_done(task) < 0 ? NULL : task_outcome(state_of_type(Py_TYPE(op)), task);
}

PyDoc_STRVAR(task_exception_doc,
"exception($self, /)\n--\n\n"
"What the coroutine raised, or None if it returned.\n"
"\n"
"Raises CancelledError if the task was cancelled, and RuntimeError if it has not\n"
"finished.\n");

static PyObject *
task_py_exception(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    TaskObject *task = (TaskObject *)op;
    if (task_need_done(task) < 0) {
        return NULL;
    }
    if (task->state == TASK_FAILED) {
        task_mark_seen(task);
        return Py_NewRef(task->payload);
    }
    if (task->state == TASK_CANCELLED) {
        return task_outcome(state_of_type(Py_TYPE(op)), task);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(task_done_doc,
             "done($self, /)\n--\n\nWhether the task has finished, in whichever way.");

static PyObject *
task_py_done(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(task_done((TaskObject *)op));
}

PyDoc_STRVAR(task_cancelled_doc,
             "cancelled($self, /)\n--\n\nWhether the task has finished by being cancelled.");

static PyObject *
task_py_cancelled(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(((TaskObject *)op)->state == TASK_CANCELLED);
}

/* ---- attributes ------------------------------------------------------------------------------ */

static PyObject *
task_get_name(PyObject *op, void *Py_UNUSED(closure))
{
    return task_name((TaskObject *)op);
}

/* Checks a name and makes it an exact str. NULL for None. 0, or -1 with a TypeError. */
static int
task_name_from_object(PyObject *obj, PyObject **name)
{
    *name = NULL;
    if (obj == NULL || obj == Py_None) {
        return 0;
    }
    if (!PyUnicode_Check(obj)) {
        raise_about(PyExc_TypeError, "%s must be a str, not %U%s", "a task's name", obj, "");
        return -1;
    }
    *name = PyUnicode_FromObject(obj);
    return *name != NULL ? 0 : -1;
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
    PyObject *context = ((TaskObject *)op)->context;
    return Py_NewRef(context != NULL ? context : Py_None);
}

static PyObject *
task_get_daemon(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((TaskObject *)op)->flags & TASK_DAEMON);
}

static PyObject *
task_get_wake_time(PyObject *op, void *Py_UNUSED(closure))
{
    TaskObject *task = (TaskObject *)op;
    PyObject *trap = task->payload;
    if (task->state == TASK_TIMER && task->loop != NULL && trap != NULL) {
        int64_t wall = 0;
        if (Py_TYPE(trap) == task->loop->state->SleepType) {
            return seconds_object(sleep_deadline(task->loop, (SleepObject *)trap));
        }
        LoopObject *loop = task->loop;
        Py_INCREF(trap);  /* a time zone's Python may let go of either */
        Py_INCREF(loop);
        int rc = wall_from_deadline(loop->state, trap, &wall);
        int64_t when = loop_time_of_wall(loop, wall);
        Py_DECREF(trap);
        Py_DECREF(loop);
        return rc == 0 ? seconds_object(when) : NULL;
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
    if (task->state == TASK_JOIN) {
        return Py_NewRef(((JoinObject *)task->payload)->task);
    }
    return Py_NewRef(task->payload);
}

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
    PyObject *detail = NULL, *text = NULL;
    switch (task->state) {
    case TASK_READY:
        return PyUnicode_FromString(task->flags & TASK_STARTED ? "ready" : "ready to start");
    case TASK_RUNNING:
        return PyUnicode_FromString("running");
    case TASK_TIMER:
        detail = task_get_wake_time((PyObject *)task, NULL);
        text = detail != NULL ? PyUnicode_FromFormat("sleeping until %S s", detail) : NULL;
        break;
    case TASK_FOREVER:
        return PyUnicode_FromString("sleeping until cancelled");
    case TASK_JOIN:
        if (task->payload != NULL) {
            detail = task_name(((JoinObject *)task->payload)->task);
        }
        text = detail != NULL ? PyUnicode_FromFormat("waiting for task %R", detail) : NULL;
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
    PyObject *coro = coro_description(task->coro);
    PyObject *doing = name != NULL && coro != NULL ? task_state_description(task) : NULL;
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

/* ---- life ------------------------------------------------------------------------------------ */

static int
task_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    TaskObject *task = (TaskObject *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(task->loop);
    Py_VISIT(task->coro);
    Py_VISIT(task->context);
    Py_VISIT(task->payload);
    return 0;
}

static int
task_tp_clear(PyObject *op)
{
    TaskObject *task = (TaskObject *)op;
    task_mark_seen(task);  /* the ring's head is in the loop, which may die now */
    if (task->loop != NULL && !task_done(task)) {
        task->loop->phase = LOOP_CLOSED;  /* garbage as well, and must not step us any more */
    }
    Py_CLEAR(task->coro);
    Py_CLEAR(task->context);
    Py_CLEAR(task->payload);
    Py_CLEAR(task->loop);
    return 0;
}

static void
task_tp_finalize(PyObject *op)
{
    TaskObject *task = (TaskObject *)op;
    if (task->state == TASK_FAILED && link_in_ring(&task->registered)) {
        PyObject *saved = PyErr_GetRaisedException();
        task_report_unseen(task);
        PyErr_SetRaisedException(saved);
    }
}

static void
task_tp_dealloc(PyObject *op)
{
    TaskObject *task = (TaskObject *)op;
    if (PyObject_CallFinalizerFromDealloc(op) < 0) {
        return;  /* a log handler kept it */
    }
    PyObject_GC_UnTrack(op);
    /* A task may hold the last reference to the next, 100,000 in a row. */
    Py_TRASHCAN_BEGIN(op, task_tp_dealloc)
    if (task->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    (void)task_tp_clear(op);
    Py_CLEAR(task->name);
    PyTypeObject *type = Py_TYPE(op);
    type->tp_free(op);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

PyDoc_STRVAR(task_type_doc,
"A coroutine that the loop runs. create_task() makes one; `await task` waits for\n"
"it and returns its result or raises its exception.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def work():\n"
"...     await sleeploop.sleep(2)\n"
"...     return 42\n"
">>> async def main():\n"
"...     task = sleeploop.create_task(work(), name='worker')\n"
"...     await sleeploop.sleep(1)\n"
"...     print(task.name, task.done(), task.wake_time, task.waiting_on)\n"
"...     print(await task, task)\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"worker False 2.0 <sleep 2.0 s>\n"
"42 <Task 'worker' work: returned 42>\n");

static PyMethodDef task_methods[] = {
    {"result", task_py_result, METH_NOARGS, task_result_doc},
    {"exception", task_py_exception, METH_NOARGS, task_exception_doc},
    {"done", task_py_done, METH_NOARGS, task_done_doc},
    {"cancelled", task_py_cancelled, METH_NOARGS, task_cancelled_doc},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS,
     PyDoc_STR("Task[T] in annotations.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef task_getset[] = {
    {"name", task_get_name, task_set_name,
     PyDoc_STR("The task's name, a str. Can be set; None: the default name again."), NULL},
    {"coro", task_get_coro, NULL, PyDoc_STR("The coroutine."), NULL},
    {"context", task_get_context, NULL,
     PyDoc_STR("The contextvars.Context that the coroutine runs in."), NULL},
    {"daemon", task_get_daemon, NULL,
     PyDoc_STR("Whether a run ends without waiting for this task."), NULL},
    {"wake_time", task_get_wake_time, NULL,
     PyDoc_STR("Loop time in seconds at which the task will wake; inf: until it is cancelled; "
               "None: it does not sleep."),
     NULL},
    {"waiting_on", task_get_waiting_on, NULL,
     PyDoc_STR("What the task waits for: a Task, a sleep or a datetime; None if it does not wait."),
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef task_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(TaskObject, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

#endif /* SLEEPLOOP_TASK_H */
