/* task.h: a task, and one step of it: send or throw -> a verdict.
 *
 * What a verdict means for the order of things is the loop's business; what people
 * can ask of a task is in tasktype.h.
 */
#ifndef SLEEPLOOP_CORE_TASK_H
#define SLEEPLOOP_CORE_TASK_H

#include "../base/compat.h"
#include "../base/ring.h"
#include "../base/timerheap.h"
#include "args.h"
#include "awaitable.h"
#include "cancelled.h"
#include "failure.h"
#include "loopobject.h"
#include "objects.h"
#include "report.h"
#include "scopeobject.h"
#include "state.h"
#include "taskobject.h"

/* New reference: the given name, or "Task-<number>". */
static PyObject *
task_name(TaskObject *task)
{
    return task->name != NULL ? Py_NewRef(task->name)
                              : PyUnicode_FromFormat("Task-%lu", (unsigned long)task->number);
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

/* context=: NULL for None. 0, or -1 with a TypeError. */
static int
context_from_object(PyObject *obj, PyObject **context_borrowed)
{
    *context_borrowed = obj == Py_None ? NULL : obj;
    if (*context_borrowed != NULL && !PyContext_CheckExact(obj)) {
        raise_about(PyExc_TypeError, "%s must be a contextvars.Context, not %U%s", "context", obj,
                    "");
        return -1;
    }
    return 0;
}

/* A task that is in no ring and in no scope yet. Borrows all its arguments; name may be
 * NULL, and so may context: a copy of the current one. */
static TaskObject *
task_new(ModuleState *state, LoopObject *loop, PyObject *coro, PyObject *name, PyObject *context,
         int flags)
{
    context = context != NULL ? Py_NewRef(context) : PyContext_CopyCurrent();
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
    task->sibling = (struct link){NULL, NULL};
    task->waiters = NULL;
    task->scope = NULL;
    timer_init(&task->timer, TIMER_OF_TASK);
    task->number = ++loop->next_number;
    task->parent = 0;
    task->state = TASK_READY;
    task->locks = 0;
    task->flags = (uint16_t)flags;
    PyObject_GC_Track(task);
    if (!PyCoro_CheckExact(coro)) {
        await_excuse(state, coro);
    }
    return task;
}

/* Marks a task's failure as seen. */
static inline void
task_mark_seen(TaskObject *task)
{
    if (task->state == TASK_FAILED && link_in_ring(&task->registered)) {
        link_remove(&task->registered);
    }
}

/* A failure that nobody can retrieve any more: logged, and raised by the run
 * unless the task is a daemon. */
static void
task_report_unseen(TaskObject *task)
{
    task_mark_seen(task);
    raised_restore(&task->raised, task->payload);
    PyObject *exc = Py_NewRef(task->payload);
    if (task->loop != NULL && task->loop->errors != NULL && !(task->flags & TASK_DAEMON)) {
        loop_record_error(task->loop, exc);
    }
    PyObject *name = task_name(task);
    log_exception(task->loop, "error",
                  name != NULL ? PyUnicode_FromFormat(
                      "task %R failed and nobody retrieved its exception", name)
                               : NULL,
                  exc);
    Py_XDECREF(name);
    Py_DECREF(exc);
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

/* Resumes the coroutine in its context, or in that of now: with exc thrown if there is one, else
 * with value sent. *out is what it yielded or returned, a new reference; when it
 * raised, *out is NULL and the exception is set. Steals exc.
 * Beware: runs arbitrary Python. */
static inline enum step_verdict
task_step(ModuleState *state, TaskObject *task, PyObject *value, PyObject *exc_steal,
          PyObject **out)
{
    enum step_verdict verdict;
    *out = NULL;
    if (task->context != NULL && PyContext_Enter(task->context) < 0) {
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
    if (task->context != NULL && PyContext_Exit(task->context) < 0) {
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
        raised_restore(&task->raised, task->payload);
        /* As `raise` does, so that an exception in flight here becomes its context. */
        PyErr_SetObject((PyObject *)Py_TYPE(task->payload), task->payload);
        return NULL;
    default: {
        PyObject *name = task_name(task);
        raise_cancelled_steal(state,
                              name != NULL ? PyUnicode_FromFormat("task %R was cancelled", name)
                                           : NULL,
                              (ScopeObject *)task->payload);
        Py_XDECREF(name);
        return NULL;
    }
    }
}

#endif /* SLEEPLOOP_CORE_TASK_H */
