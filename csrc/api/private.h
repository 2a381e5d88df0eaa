/* private.h: functions for the Python half of the package, and not for users. */
#ifndef SLEEPLOOP_API_PRIVATE_H
#define SLEEPLOOP_API_PRIVATE_H

#include "../base/clock.h"
#include "../base/compat.h"
#include "../core/args.h"
#include "../core/awaitable.h"
#include "../core/failure.h"
#include "../core/interrupt.h"
#include "../core/kinds.h"
#include "../core/loopobject.h"
#include "../core/pending.h"
#include "../core/pool.h"
#include "../core/ready.h"
#include "../core/scopeobject.h"
#include "../core/scopetree.h"
#include "../core/state.h"
#include "../core/taskobject.h"
#include "../poll/idle.h"
#include "../run/idlepass.h"
#include "../run/run.h"
#include "../scope/block.h"
#include "../scope/cancelscope.h"
#include "../scope/timeout.h"
#include "../time/sleep.h"
#include "../wait/join.h"
#include "loopmembers.h"

/* The loop, borrowed, or NULL with a TypeError. */
static LoopObject *
need_loop(PyObject *module, const char *function, PyObject *op)
{
    ModuleState *state = PyModule_GetState(module);
    return need_type(function, state->LoopType, op) == 0 ? (LoopObject *)op : NULL;
}

PyDoc_STRVAR(park_doc,
"_park($module, /)\n--\n\n"
"Sleep until another task cancels the scope around it. Unlike sleep_forever(), a\n"
"deadlock if there is no such task.\n");

static PyObject *
module_py_park(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    return sleep_new(PyModule_GetState(module), until_cancelled_kind_number, TIME_FOREVER);
}

PyDoc_STRVAR(park_for_thread_doc,
"_park_for_thread($module, /)\n--\n\n"
"Likewise until a thread has that scope cancelled, by call_soon_threadsafe(): meanwhile virtual\n"
"time stands still, and there is no deadlock.\n");

static PyObject *
module_py_park_for_thread(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    return sleep_new(PyModule_GetState(module), thread_kind_number, TIME_FOREVER);
}

PyDoc_STRVAR(wait_done_doc,
"_wait_done($module, task, /)\n--\n\n"
"Wait until a task has finished, without a look at its outcome.\n");

static PyObject *
module_py_wait_done(PyObject *module, PyObject *task)
{
    ModuleState *state = PyModule_GetState(module);
    return need_type("_wait_done()", state->TaskType, task) == 0
               ? join_new(state, (TaskObject *)task, wait_done_kind_number)
               : NULL;
}

PyDoc_STRVAR(has_failed_doc,
"_has_failed($module, task, /)\n--\n\n"
"Whether a task has ended by an exception, which nobody has seen by that.\n");

static PyObject *
module_py_has_failed(PyObject *module, PyObject *op)
{
    ModuleState *state = PyModule_GetState(module);
    return need_type("_has_failed()", state->TaskType, op) == 0
               ? PyBool_FromLong(((TaskObject *)op)->state == TASK_FAILED)
               : NULL;
}

PyDoc_STRVAR(watch_doc,
"_watch($module, coro, /)\n--\n\n"
"Run a coroutine in a task that nobody sees and nothing cancels, not even the end of\n"
"the run: it has to end when other tasks have. The task is returned for _unwatch().\n");

static PyObject *
module_py_watch(PyObject *module, PyObject *coro)
{
    ModuleState *state = PyModule_GetState(module);
    LoopObject *loop = need_current_loop_borrowed(state, "_watch()");
    if (loop == NULL || check_coroutine(state, "_watch()", coro) < 0) {
        return NULL;
    }
    return (PyObject *)loop_spawn(loop, coro, NULL, NULL, NULL, TASK_DAEMON | TASK_HIDDEN);
}

PyDoc_STRVAR(unwatch_doc,
"_unwatch($module, task, /)\n--\n\n"
"Raise Interrupt in such a task where it waits for another one; if it does not, it has to see\n"
"by itself that there is nothing to watch any more. From any thread.\n");

static PyObject *
module_py_unwatch(PyObject *module, PyObject *op)
{
    ModuleState *state = PyModule_GetState(module);
    if (need_type("_unwatch()", state->TaskType, op) < 0) {
        return NULL;
    }
    TaskObject *task = (TaskObject *)op;
    LoopObject *loop = task->loop;
    if (!task_interruptible(task) || loop == NULL || loop->phase == LOOP_CLOSED) {
        Py_RETURN_NONE;
    }
    if (loop->tstate != NULL && !loop_is_of_thread(loop, PyThreadState_Get())) {
        PyObject *function = PyObject_GetAttrString(module, "_unwatch");
        PyObject *call[] = {function, op};
        PyObject *none = function != NULL ? loop_call_soon(loop, "_unwatch()", call, 2,
                                                           loop_check_usable)
                                          : NULL;
        Py_XDECREF(function);
        return none;
    }
    return task_interrupt(task, Py_None) == 0 ? Py_NewRef(Py_None) : NULL;
}

PyDoc_STRVAR(check_awaitable_doc,
"_check_awaitable($module, function, aw, /)\n--\n\n"
"On behalf of a function, raise what create_task() would raise about a coroutine, and\n"
"RuntimeError for a task that belongs to another loop than the one that is running.\n");

static PyObject *
module_py_check_awaitable(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    ModuleState *state = PyModule_GetState(module);
    const char *function = n_args == 2 && PyUnicode_Check(args[0]) ? PyUnicode_AsUTF8(args[0])
                                                                   : NULL;
    if (function == NULL) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "_check_awaitable() takes a str and an object");
        }
        return NULL;
    }
    if (!PyObject_TypeCheck(args[1], state->TaskType)) {
        return check_coroutine(state, function, args[1]) == 0 ? Py_NewRef(Py_None) : NULL;
    }
    TaskObject *task = (TaskObject *)args[1];
    LoopObject *loop = current_loop_borrowed(state);
    if (!task_done(task) && loop != NULL && task->loop != loop) {
        raise_about(PyExc_RuntimeError, "%s cannot wait for %U%s", function, args[1],
                    ", which belongs to another loop");
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(excuse_doc,
"_excuse($module, aw, /)\n--\n\n"
"Take an awaitable over: if it is one of ours, it is not said any more to be forgotten.\n");

static PyObject *
module_py_excuse(PyObject *module, PyObject *op)
{
    await_excuse(PyModule_GetState(module), op);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(task_tree_doc,
"_task_tree($module, loop, /)\n--\n\n"
"The tasks that have not finished, in order of creation: a list of (task, its number,\n"
"that of its parent or 0).\n");

static PyObject *
module_py_task_tree(PyObject *module, PyObject *op)
{
    if (need_loop(module, "_task_tree()", op) == NULL) {
        return NULL;
    }
    PyObject *tree = loop_py_tasks(op, NULL);
    for (Py_ssize_t i = 0; tree != NULL && i < PyList_GET_SIZE(tree); i++) {
        TaskObject *task = (TaskObject *)PyList_GET_ITEM(tree, i);
        PyObject *row = Py_BuildValue("OII", (PyObject *)task, (unsigned)task->number,
                                      (unsigned)task->parent);
        if (row == NULL || PyList_SetItem(tree, i, row) < 0) {
            Py_CLEAR(tree);
        }
    }
    return tree;
}

PyDoc_STRVAR(effective_deadline_doc,
"_effective_deadline($module, task, /)\n--\n\n"
"As current_effective_deadline(), of another task. It takes as long as scopes are around it, so it\n"
"is for the few of which a report tells.\n");

static PyObject *
module_py_effective_deadline(PyObject *module, PyObject *op)
{
    ModuleState *state = PyModule_GetState(module);
    return need_type("_effective_deadline()", state->TaskType, op) == 0
               ? deadline_object(task_effective_deadline((TaskObject *)op))
               : NULL;
}

PyDoc_STRVAR(running_task_doc,
"_running_task($module, loop, /)\n--\n\n"
"The task whose step is under way in a loop, or None; from any thread.\n");

static PyObject *
module_py_running_task(PyObject *module, PyObject *op)
{
    LoopObject *loop = need_loop(module, "_running_task()", op);
    if (loop == NULL) {
        return NULL;
    }
    TaskObject *task = loop->current;
    return Py_NewRef(task != NULL ? (PyObject *)task : Py_None);
}

PyDoc_STRVAR(need_loop_doc,
"_need_loop($module, function, /)\n--\n\n"
"The loop that is running, or RuntimeError on behalf of a function.\n");

static PyObject *
module_py_need_loop(PyObject *module, PyObject *function)
{
    const char *name = PyUnicode_AsUTF8(function);
    LoopObject *loop =
        name != NULL ? need_current_loop_borrowed(PyModule_GetState(module), name) : NULL;
    return Py_XNewRef((PyObject *)loop);
}

PyDoc_STRVAR(need_task_doc,
"_need_task($module, function, /)\n--\n\n"
"Likewise the task whose step is under way.\n");

static PyObject *
module_py_need_task(PyObject *module, PyObject *function)
{
    const char *name = PyUnicode_AsUTF8(function);
    TaskObject *task =
        name != NULL ? need_current_task_borrowed(PyModule_GetState(module), name) : NULL;
    return Py_XNewRef((PyObject *)task);
}

PyDoc_STRVAR(is_running_doc,
"_is_running($module, /)\n--\n\n"
"Whether a loop is running in this thread, so that no other one can be run.\n");

static PyObject *
module_py_is_running(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(running_loop_here_borrowed(PyModule_GetState(module)) != NULL);
}

PyDoc_STRVAR(closing_doc,
"_closing($module, loop, /)\n--\n\n"
"How many async generators a loop is closing; from any thread.\n");

static PyObject *
module_py_closing(PyObject *module, PyObject *op)
{
    LoopObject *loop = need_loop(module, "_closing()", op);
    if (loop == NULL) {
        return NULL;
    }
    size_t n = 0;
    for (struct link *l = loop->live.next; l != &loop->live; l = l->next) {
        const TaskObject *task = TASK_OF_REGISTERED(l);
        n += (task->flags & TASK_HIDDEN) && !PyCoro_CheckExact(task->coro);  /* see _watch() */
    }
    return PyLong_FromSize_t(n);
}

PyDoc_STRVAR(executor_doc,
"_executor($module, loop, new=None, /)\n--\n\n"
"What runs a loop's threads, or None; with an argument: the new one. It is dropped when\n"
"the run ends.\n");

static PyObject *
module_py_executor(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    if (n_args < 1 || n_args > 2) {
        PyErr_SetString(PyExc_TypeError, "_executor() takes a loop and perhaps an executor");
        return NULL;
    }
    LoopObject *loop = need_loop(module, "_executor()", args[0]);
    if (loop == NULL) {
        return NULL;
    }
    if (n_args == 2) {
        pool_drop(&loop->pool);
        loop->pool.executor = Py_NewRef(args[1]);
    }
    return Py_NewRef(loop->pool.executor != NULL ? loop->pool.executor : Py_None);
}

PyDoc_STRVAR(pool_thread_doc,
"_pool_thread($module, loop, /)\n--\n\n"
"Say of the current thread that it is one of those that run for a loop.\n");

static PyObject *
module_py_pool_thread(PyObject *module, PyObject *op)
{
    LoopObject *loop = need_loop(module, "_pool_thread()", op);
    if (loop == NULL) {
        return NULL;
    }
    pool_note_thread(&loop->pool);
    Py_RETURN_NONE;
}

#define POOL_CALL "sleeploop._pool_call"

static void
pool_call_ends(PyObject *capsule)
{
    LoopObject *loop = PyCapsule_GetPointer(capsule, POOL_CALL);
    if (loop->pool.calls > 0) {  /* else it was a call for the pool of the process before a fork */
        loop->pool.calls--;
        if (loop->idling) {  /* perhaps for nothing else: see loop_may_be_woken() */
            idle_wake(&loop->idle);
        }
    }
    Py_DECREF(loop);
}

PyDoc_STRVAR(pool_call_doc,
"_pool_call($module, loop, /)\n--\n\n"
"Count one more call for a loop's threads, until what this returns is dropped.\n");

static PyObject *
module_py_pool_call(PyObject *module, PyObject *op)
{
    LoopObject *loop = need_loop(module, "_pool_call()", op);
    PyObject *capsule = loop != NULL ? PyCapsule_New(loop, POOL_CALL, pool_call_ends) : NULL;
    if (capsule != NULL) {
        Py_INCREF(loop);
        loop->pool.calls++;
    }
    return capsule;
}

PyDoc_STRVAR(call_from_pool_doc,
"_call_from_pool($module, loop, function, /)\n--\n\n"
"loop.call_soon_threadsafe() for the threads that run for it: as long as tasks wait for them.\n");

static PyObject *
module_py_call_from_pool(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    LoopObject *loop = n_args == 2 ? need_loop(module, "_call_from_pool()", args[0]) : NULL;
    if (loop == NULL) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "_call_from_pool() takes a loop and a function");
        }
        return NULL;
    }
    return loop_call_soon(loop, "_call_from_pool()", args + 1, 1, loop_check_usable);
}

PyDoc_STRVAR(unseen_doc,
"_unseen($module, loop, /)\n--\n\n"
"What has failed and nobody has seen it: tasks, in the order in which they failed, and then\n"
"whatever else there is, likewise. Each has an exception(), which is to see it.\n");

static PyObject *
module_py_unseen(PyObject *module, PyObject *op)
{
    LoopObject *loop = need_loop(module, "_unseen()", op);
    PyObject *failed = loop != NULL ? PyList_New(0) : NULL;
    int rc = failed != NULL ? 0 : -1;
    /* As in loop_py_tasks(): a collection may make some more, at the end. */
    for (struct link *l = rc == 0 ? loop->unseen.next : NULL; rc == 0 && l != &loop->unseen;
         l = l->next) {
        rc = PyList_Append(failed, (PyObject *)TASK_OF_REGISTERED(l));
    }
    for (struct link *l = rc == 0 ? loop->unseen_others.next : NULL;
         rc == 0 && l != &loop->unseen_others; l = l->next) {
        rc = PyList_Append(failed, UNSEEN_OF_LINK(l)->owner);
    }
    if (rc < 0) {
        Py_CLEAR(failed);
    }
    return failed;
}

PyDoc_STRVAR(run_main_doc,
"_run_main($module, loop, /)\n--\n\n"
"What run() does, with a loop that was made for one coroutine: run it until that is done,\n"
"cancel the rest, and return its result.\n");

static PyObject *
module_py_run_main(PyObject *module, PyObject *op)
{
    LoopObject *loop = need_loop(module, "_run_main()", op);
    if (loop == NULL || loop_check_runnable(loop, "run()") < 0) {
        return NULL;
    }
    if (PyTuple_GET_SIZE(loop->roots) != 1) {
        PyErr_SetString(PyExc_ValueError, "_run_main() takes a loop of one coroutine");
        return NULL;
    }
    loop->main_only = 1;
    Py_INCREF(loop);
    PyObject *results = loop_run(loop);
    Py_DECREF(loop);
    PyObject *result = results != NULL ? Py_NewRef(PyList_GET_ITEM(results, 0)) : NULL;
    Py_XDECREF(results);
    return result;
}

PyDoc_STRVAR(drive_doc,
"_drive($module, loop, limit=inf, passes=inf, /)\n--\n\n"
"Run until something in the loop calls _pause(), and suspend the loop: return True. Or\n"
"until loop time is `limit`, or after so many passes: False. Otherwise as run_until(task).\n");

static PyObject *
module_py_drive(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    int64_t limit = TIME_END;
    uint64_t passes = UINT64_MAX;
    int is_number = 1;
    if (n_args < 1 || n_args > 3) {
        PyErr_SetString(PyExc_TypeError, "_drive() takes a loop, a time and a number of passes");
        return NULL;
    }
    LoopObject *loop = need_loop(module, "_drive()", args[0]);
    if (loop == NULL
        || (n_args > 1 && ns_from_number("_drive()", args[1], &limit, &is_number) < 0)) {
        return NULL;
    }
    if (!is_number) {
        raise_about(PyExc_TypeError, "%s takes a loop time in seconds, not %U%s", "_drive()",
                    args[1], "");
        return NULL;
    }
    if (n_args > 2) {
        passes = PyLong_AsUnsignedLongLong(args[2]);
        if (PyErr_Occurred()) {
            return NULL;
        }
    }
    if (loop_check_runnable(loop, "_drive()") < 0) {
        return NULL;
    }
    PyObject *paused = NULL;
    int64_t now = clock_now(&loop->clock);
    limit = limit < TIME_END ? limit : TIME_END;
    Py_INCREF(loop);
    int how = loop_run_to(loop, GOAL_PAUSE, limit > now ? limit : now, NULL, passes);
    if (how > 0 && loop->stalled) {
        raise_deadlock(loop);
    }
    else if (how >= 0) {
        paused = PyBool_FromLong(how > 0 && loop->paused);
    }
    Py_DECREF(loop);
    return paused;
}

PyDoc_STRVAR(pause_doc,
"_pause($module, loop, /)\n--\n\n"
"Have _drive() return after this pass, and return True; False if the run is ending, so that\n"
"nobody will drive the loop on.\n");

static PyObject *
module_py_pause(PyObject *module, PyObject *op)
{
    LoopObject *loop = need_loop(module, "_pause()", op);
    if (loop == NULL) {
        return NULL;
    }
    loop->paused = 1;
    return PyBool_FromLong(loop->phase <= LOOP_RUNNING);
}

PyDoc_STRVAR(stop_doc,
"_stop($module, loop, /)\n--\n\n"
"As loop.close(), but no coroutine gets another await: what is left is closed.\n");

static PyObject *
module_py_stop(PyObject *module, PyObject *op)
{
    LoopObject *loop = need_loop(module, "_stop()", op);
    if (loop == NULL || loop_check_runnable(loop, "_stop()") < 0) {
        return NULL;
    }
    Py_INCREF(loop);
    PyObject *none = loop_stop(loop);
    Py_DECREF(loop);
    return none;
}

PyDoc_STRVAR(in_group_doc,
"_in_group($module, task, /)\n--\n\n"
"Whether a task that has not finished belongs to a TaskGroup whose block is open, which sees\n"
"to its end.\n");

static PyObject *
module_py_in_group(PyObject *module, PyObject *op)
{
    ModuleState *state = PyModule_GetState(module);
    if (need_type("_in_group()", state->TaskType, op) < 0) {
        return NULL;
    }
    ScopeObject *base = task_base_scope((TaskObject *)op);
    return PyBool_FromLong(base != NULL && base->group != NULL
                           && base->group->state == GROUP_OPEN);
}

PyDoc_STRVAR(suspended_loop_doc,
"_suspended_loop($module, /)\n--\n\n"
"The loop that this thread has driven last, of those that can go on; or None.\n");

static PyObject *
module_py_suspended_loop(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    ModuleState *state = PyModule_GetState(module);
    for (struct link *l = state->begun.prev; l != &state->begun; l = l->prev) {
        LoopObject *loop = LOOP_OF_BEGUN(l);
        if (loop->phase == LOOP_SUSPENDED
            && loop->thread_ident == PyThread_get_thread_ident()) {
            return Py_NewRef(loop);
        }
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(share_context_doc,
"_share_context($module, task, /)\n--\n\n"
"Have a task that has not started run in the context of whoever drives the loop, instead of\n"
"one of its own.\n");

static PyObject *
module_py_share_context(PyObject *module, PyObject *op)
{
    ModuleState *state = PyModule_GetState(module);
    if (need_type("_share_context()", state->TaskType, op) < 0) {
        return NULL;
    }
    if (((TaskObject *)op)->flags & TASK_STARTED) {
        PyErr_SetString(PyExc_RuntimeError, "_share_context(): the task has started");
        return NULL;
    }
    Py_CLEAR(((TaskObject *)op)->context);
    Py_RETURN_NONE;
}

/* ---- what a task does in pieces, each of them as if it was a task of its own ------------------ */

PyDoc_STRVAR(piece_scope_doc,
"_piece_scope($module, shield, /)\n--\n\n"
"A new CancelScope for a part of what a task does. While it is the innermost one of these that\n"
"the task has entered, Task.cancel() cancels it, instead of the task.\n");

static PyObject *
module_py_piece_scope(PyObject *module, PyObject *shield)
{
    PyObject *scope = scope_make(PyModule_GetState(module), "_piece_scope()", DEADLINE_AT, NULL,
                                 shield, BY_CANCEL_SCOPE);
    if (scope != NULL) {
        ((ScopeObject *)scope)->flags |= SCOPE_OF_TASK;
    }
    return scope;
}

PyDoc_STRVAR(open_blocks_doc,
"_open_blocks($module, /)\n--\n\n"
"The scopes that the current task has entered and not left, the outermost first; also those\n"
"of groups.\n");

static PyObject *
module_py_open_blocks(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    TaskObject *task = need_current_task_borrowed(PyModule_GetState(module), "_open_blocks()");
    PyObject *blocks = task != NULL ? PyList_New(0) : NULL;
    if (blocks == NULL) {
        return NULL;
    }
    for (ScopeObject *s = task_outermost_scope(task); s != NULL; s = s->inner) {
        if (PyList_Append(blocks, (PyObject *)s) < 0) {
            Py_DECREF(blocks);
            return NULL;
        }
    }
    return blocks;
}

PyDoc_STRVAR(tear_off_doc,
"_tear_off($module, scope, /)\n--\n\n"
"Take off a scope that the current task has entered, and all inside of it. Their tasks are\n"
"cancelled, and to leave one of them later means nothing.\n");

static PyObject *
module_py_tear_off(PyObject *module, PyObject *op)
{
    ModuleState *state = PyModule_GetState(module);
    TaskObject *task = need_current_task_borrowed(state, "_tear_off()");
    if (task == NULL || need_type("_tear_off()", state->ScopeType, op) < 0) {
        return NULL;
    }
    ScopeObject *scope = (ScopeObject *)op;
    if (scope->task != task) {
        PyErr_SetString(PyExc_RuntimeError, "_tear_off(): the task has not entered this scope");
        return NULL;
    }
    for (ScopeObject *s = scope; s != NULL; s = s->inner) {
        s->flags |= SCOPE_QUIET;
    }
    scope_tear_off(scope);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(begin_piece_doc,
"_begin_piece($module, /)\n--\n\n"
"Have the current task forget what has been before: it will not get the interrupts that wait\n"
"for its next await, and _was_torn() is False.\n");

static PyObject *
module_py_begin_piece(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    TaskObject *task = need_current_task_borrowed(PyModule_GetState(module), "_begin_piece()");
    if (task == NULL) {
        return NULL;
    }
    task->flags &= (uint16_t)~TASK_TORN;
    if (task->flags & TASK_INTERRUPTED) {
        interrupts_drop(task->loop, task);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(was_torn_doc,
"_was_torn($module, /)\n--\n\n"
"Whether somebody else has tried to leave a block that the current task has entered, which\n"
"takes it off: the task that closes an abandoned async generator.\n");

static PyObject *
module_py_was_torn(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    TaskObject *task = need_current_task_borrowed(PyModule_GetState(module), "_was_torn()");
    return task != NULL ? PyBool_FromLong(task->flags & TASK_TORN) : NULL;
}

PyDoc_STRVAR(take_errors_doc,
"_take_errors($module, loop, /)\n--\n\n"
"What the run of a suspended loop would raise in the end: failures of tasks that are gone\n"
"and that nobody has seen. It will not raise them any more.\n");

static PyObject *
module_py_take_errors(PyObject *module, PyObject *op)
{
    LoopObject *loop = need_loop(module, "_take_errors()", op);
    if (loop == NULL) {
        return NULL;
    }
    PyObject *fresh = PyList_New(0);
    if (fresh == NULL || loop->errors == NULL) {
        return fresh;
    }
    PyObject *errors = loop->errors;
    loop->errors = fresh;
    PyObject *list = PyList_GetSlice(errors, 0, failures_unpack(loop->state, errors));
    if (list != NULL) {
        Py_DECREF(errors);
    }
    else {
        Py_SETREF(loop->errors, errors);  /* no memory to tell: they stay */
    }
    return list;
}

#endif /* SLEEPLOOP_API_PRIVATE_H */
