/* tasktype.h: the Task type: what people can do with a task. Its attributes are in taskinfo.h. */
#ifndef SLEEPLOOP_API_TASKTYPE_H
#define SLEEPLOOP_API_TASKTYPE_H

#include "taskinfo.h"
#include "../base/compat.h"
#include "../base/ring.h"
#include "../core/args.h"
#include "../core/callbacks.h"
#include "../core/cancel.h"
#include "../core/driver.h"
#include "../core/failure.h"
#include "../core/interrupt.h"
#include "../core/kinds.h"
#include "../core/loopobject.h"
#include "../core/scopeobject.h"
#include "../core/scopetree.h"
#include "../core/state.h"
#include "../core/task.h"
#include "../core/taskobject.h"
#include "../run/abandon.h"
#include "../wait/calls.h"
#include "../wait/join.h"
#include "../wait/waitlist.h"
#include "../wait/waitobject.h"

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
        return raised_ask(&task->raised, task->payload);
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

PyDoc_STRVAR(task_cancel_doc,
"cancel($self, reason=None)\n--\n\n"
"Cancel the task: from now on every await in it raises CancelledError, until it\n"
"ends. Return False if it has finished already, else True; also the second time,\n"
"which changes nothing.\n"
"\n"
"reason: anything; it is told by the exception. What has arrived for the task is\n"
"delivered first. A task that has not started never runs; its coroutine is closed.\n"
"\n"
"Raises RuntimeError in another thread than the one that runs the loop.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def main():\n"
"...     task = sleeploop.create_task(sleeploop.sleep(10), name='sleeper')\n"
"...     await sleeploop.sleep(1)\n"
"...     task.cancel('no time')\n"
"...     try:\n"
"...         await task\n"
"...     except sleeploop.CancelledError as error:\n"
"...         print(task.cancelled(), error.source_task, error.reason)\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"True Task-1 no time\n");

static PyObject *
task_py_cancel(PyObject *op, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    static const char *const names[] = {"reason", NULL};
    TaskObject *task = (TaskObject *)op;
    LoopObject *loop = task->loop;
    PyObject *reason;
    if (args_parse("cancel()", names, 1, 0, args, n_args, kwnames, &reason) < 0) {
        return NULL;
    }
    if (task_done(task) || loop == NULL || (task->flags & TASK_HIDDEN)) {
        Py_RETURN_FALSE;
    }
    if (loop_need_thread(loop, "cancel()") < 0) {
        return NULL;
    }
    ScopeObject *scope = (ScopeObject *)Py_XNewRef(task_cancel_scope(task));
    ScopeObject *old = NULL;
    if (scope == NULL) {
        scope = scope_new(loop->state);
        if (scope == NULL) {
            return NULL;
        }
        scope->flags = SCOPE_OF_TASK;
        TaskObject *child = task_outermost_scope(task) == NULL
                                ? task_starting_child(task, task->scope)
                                : NULL;
        if (child != NULL) {
            old = task_move(child, scope);  /* it belongs to the one that waits */
        }
        scope_enter_outermost(scope, task);
    }
    loop_cancel_by_call(loop, scope, reason);
    Py_XDECREF(old);
    Py_DECREF(scope);
    loop_rouse_suspended(loop);
    Py_RETURN_TRUE;
}

PyDoc_STRVAR(task_interrupt_doc,
"interrupt($self, cause=None)\n--\n\n"
"Raise Interrupt at the task's await, once, and take it from where it waits. Return\n"
"False if it has finished already, else True.\n"
"\n"
"cause: anything; the exception's `cause`. What has arrived for the task is delivered\n"
"first, and the Interrupt comes at the next await; so it does to a task that has not\n"
"started, or that waits for start(). At the end of a TaskGroup it is a failure of the\n"
"block. Several come one at a time, in order.\n"
"\n"
"Raises RuntimeError for the task that calls, and in another thread than the one\n"
"that runs the loop.\n");

static PyObject *
task_py_interrupt(PyObject *op, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    static const char *const names[] = {"cause", NULL};
    TaskObject *task = (TaskObject *)op;
    LoopObject *loop = task->loop;
    PyObject *cause;
    if (args_parse("interrupt()", names, 1, 0, args, n_args, kwnames, &cause) < 0) {
        return NULL;
    }
    if (task_done(task) || loop == NULL || (task->flags & TASK_HIDDEN)) {
        Py_RETURN_FALSE;
    }
    if (loop_need_thread(loop, "interrupt()") < 0) {
        return NULL;
    }
    if (task == loop->current) {
        PyErr_SetString(PyExc_RuntimeError,
                        "interrupt(): a task cannot interrupt itself; let it raise the exception");
        return NULL;
    }
    if (task_interrupt(task, cause != NULL ? cause : Py_None) < 0) {
        return NULL;
    }
    loop_rouse_suspended(loop);
    Py_RETURN_TRUE;
}

/* ---- callbacks ------------------------------------------------------------------------------- */

PyDoc_STRVAR(task_add_done_callback_doc,
"add_done_callback($self, fn, *, context=None)\n--\n\n"
"Have the loop call fn(task) when the task has finished, or soon if it has already.\n"
"\n"
"It is called in the loop's next pass, in the loop's thread: after the step in which the\n"
"task ends, at the same loop time, before any task that was waiting for it goes on.\n"
"Callbacks are called in the order in which they were added, each as often as it was,\n"
"also at the end of the run. What one returns is dropped; what it raises ends the run.\n"
"\n"
"context: a contextvars.Context to call it in; None: a copy of the current one, made now.\n"
"\n"
"Raises TypeError for what cannot be called, LoopClosedError after the run, and RuntimeError\n"
"in another thread than the one that runs the loop.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def main():\n"
"...     task = sleeploop.create_task(sleeploop.sleep(2, 'tea'))\n"
"...     task.add_done_callback(lambda task: print(task.result(), sleeploop.current_time()))\n"
"...     await task\n"
"...     print('drunk')\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"tea 2.0\n"
"drunk\n");

static PyObject *
task_py_add_done_callback(PyObject *op, PyObject *const *args, Py_ssize_t n_args,
                          PyObject *kwnames)
{
    const char *function = "add_done_callback()";
    TaskObject *task = (TaskObject *)op;
    PyObject *new_list;
    PyObject *call = callback_from_args(function, op, args, n_args, kwnames, &new_list);
    if (call == NULL) {
        return NULL;
    }
    LoopObject *loop = (LoopObject *)Py_XNewRef((PyObject *)task->loop);
    int rc = -1;
    if (loop == NULL || task->flags & TASK_HIDDEN) {
        PyErr_Format(PyExc_RuntimeError, "%s: this task is the loop's own, or garbage", function);
    }
    else if (callbacks_prepare(loop) == 0
             && loop_check_accepts(loop, function) == 0  /* after all that may collect */
             && loop_need_thread(loop, function) == 0) {
        if (!task_done(task)) {
            rc = callbacks_add(loop, task, call, new_list);
        }
        else {
            rc = loop_add_call(loop, call, new_list);
            loop->callbacks_due = loop->calls != NULL;  /* its driver may have had it made */
        }
    }
    Py_XDECREF(loop);
    Py_DECREF(new_list);
    Py_DECREF(call);
    return rc == 0 ? Py_NewRef(Py_None) : NULL;
}

PyDoc_STRVAR(task_remove_done_callback_doc,
"remove_done_callback($self, fn, /)\n--\n\n"
"Take back what add_done_callback() was given: all that equals fn, and has not fallen due by\n"
"the task's end. Return how many there were, an int.\n"
"\n"
"Raises RuntimeError in another thread than the one that runs the loop.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def main():\n"
"...     task = sleeploop.create_task(sleeploop.sleep(2))\n"
"...     task.add_done_callback(print)\n"
"...     return task.remove_done_callback(print), task.remove_done_callback(print)\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"(1, 0)\n");

static PyObject *
task_py_remove_done_callback(PyObject *op, PyObject *fn)
{
    TaskObject *task = (TaskObject *)op;
    LoopObject *loop = task->loop;
    if (loop == NULL || loop->callbacks == NULL) {
        return PyLong_FromLong(0);
    }
    if (loop_need_thread(loop, "remove_done_callback()") < 0) {
        return NULL;
    }
    Py_INCREF(loop);
    Py_ssize_t n = callbacks_remove(loop, task, fn);
    Py_DECREF(loop);
    return n >= 0 ? PyLong_FromSsize_t(n) : NULL;
}

/* ---- asyncio's names for attributes ----------------------------------------------------------- */

static PyObject *
task_py_get_name(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return task_get_name(op, NULL);
}

static PyObject *
task_py_set_name(PyObject *op, PyObject *name)
{
    return task_set_name(op, name, NULL) == 0 ? Py_NewRef(Py_None) : NULL;
}

static PyObject *
task_py_get_coro(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return task_get_coro(op, NULL);
}

static PyObject *
task_py_get_context(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return task_get_context(op, NULL);
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
    Py_VISIT(task->scope);
    if (task->state == TASK_FAILED) {
        Py_VISIT(task->raised.traceback);
        Py_VISIT(task->raised.context);
    }
    return 0;
}

/* What Task.created_at tells goes with the task. */
COLD static void
task_forget_creation(TaskObject *task)
{
    PyObject *saved = PyErr_GetRaisedException();
    PyObject *number = PyLong_FromUnsignedLong(task->number);
    if (number == NULL || PyDict_DelItem(task->loop->created, number) < 0) {
        PyErr_Clear();  /* no memory to find it, or there was none to note it */
    }
    Py_XDECREF(number);
    PyErr_SetRaisedException(saved);
}

static int
task_tp_clear(PyObject *op)
{
    TaskObject *task = (TaskObject *)op;
    if (task->loop != NULL && task->loop->created != NULL) {
        task_forget_creation(task);
    }
    task_mark_seen(task);  /* the ring's head is in the loop, which may die now */
    if (task->loop != NULL && !task_done(task)) {
        task->loop->phase = LOOP_CLOSED;  /* garbage as well, and must not step us any more */
    }
    WaitObject *wait = await_as_wait(task_await_borrowed(task));
    if (wait != NULL) {
        /* What it waits at may outlive the loop; those who wait behind it are garbage as well. */
        wait->outcome = WAIT_FAILED;
        wait_unpark((Awaitable *)wait, task->loop, task);
    }
    if (task->state == TASK_PARKED) {
        task->state = TASK_RUNNING;  /* its payload goes: nobody is to take it from where it waits */
    }
    scopes_drop(task_take_scopes(task));
    Py_CLEAR(task->coro);
    Py_CLEAR(task->context);
    Py_CLEAR(task->payload);
    if (task->state == TASK_FAILED) {
        Py_CLEAR(task->raised.traceback);
        Py_CLEAR(task->raised.context);
    }
    Py_CLEAR(task->loop);
    return 0;
}

static void
task_tp_finalize(PyObject *op)
{
    TaskObject *task = (TaskObject *)op;
    if (!task_done(task)) {
        if (task->loop != NULL) {
            loop_drop(task->loop);  /* which owns it, so is garbage as well */
        }
        return;
    }
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
    {"cancel", (PyCFunction)(void (*)(void))task_py_cancel, METH_FASTCALL | METH_KEYWORDS,
     task_cancel_doc},
    {"interrupt", (PyCFunction)(void (*)(void))task_py_interrupt, METH_FASTCALL | METH_KEYWORDS,
     task_interrupt_doc},
    {"cancelled", task_py_cancelled, METH_NOARGS, task_cancelled_doc},
    {"add_done_callback", (PyCFunction)(void (*)(void))task_py_add_done_callback,
     METH_FASTCALL | METH_KEYWORDS, task_add_done_callback_doc},
    {"remove_done_callback", task_py_remove_done_callback, METH_O, task_remove_done_callback_doc},
    {"get_name", task_py_get_name, METH_NOARGS, PyDoc_STR("get_name($self, /)\n--\n\nIts `name`.")},
    {"set_name", task_py_set_name, METH_O,
     PyDoc_STR("set_name($self, name, /)\n--\n\nSet its `name`, a str, or None for the default.")},
    {"get_coro", task_py_get_coro, METH_NOARGS, PyDoc_STR("get_coro($self, /)\n--\n\nIts `coro`.")},
    {"get_context", task_py_get_context, METH_NOARGS,
     PyDoc_STR("get_context($self, /)\n--\n\nIts `context`.")},
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
     PyDoc_STR("What the task waits for: a Task, a TaskGroup, a Lock, a Queue or the like, a\n"
               "sleep, an Every or a datetime; None if it does not wait."),
     NULL},
    {"created_at", task_get_created_at, NULL,
     PyDoc_STR("Where the task was made, a traceback.StackSummary, innermost last; None unless\n"
               "the loop runs with debug=True."),
     NULL},
    {"waiting_since", task_get_waiting_since, NULL,
     PyDoc_STR("Loop time in seconds at which it began to wait; None: it does not wait."),
     NULL},
    {"parent", task_get_parent, NULL,
     PyDoc_STR("The task that made it, for a task of a TaskGroup the one that opened the group;\n"
               "None: no task did, or it has finished."),
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef task_members[] = {
    {"__weaklistoffset__", Py_T_PYSSIZET, offsetof(TaskObject, weakrefs), Py_READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot task_slots[] = {
    {Py_tp_doc, (void *)task_type_doc},
    {Py_tp_dealloc, task_tp_dealloc},
    {Py_tp_finalize, task_tp_finalize},
    {Py_tp_traverse, task_tp_traverse},
    {Py_tp_clear, task_tp_clear},
    {Py_tp_repr, task_tp_repr},
    {Py_am_await, task_am_await},
    {Py_tp_methods, task_methods},
    {Py_tp_getset, task_getset},
    {Py_tp_members, task_members},
    {0, NULL},
};

static PyType_Spec task_spec = {
    .name = "sleeploop.Task",
    .basicsize = sizeof(TaskObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = task_slots,
};

#endif /* SLEEPLOOP_API_TASKTYPE_H */
