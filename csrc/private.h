/* private.h: what the Python half of the package needs of this one. Not for users. */
#ifndef SLEEPLOOP_PRIVATE_H
#define SLEEPLOOP_PRIVATE_H

#include "traceread.h"

PyDoc_STRVAR(park_doc,
"_park($module, /)\n--\n\n"
"Sleep until another task cancels the scope around it. Unlike sleep_forever(), a\n"
"deadlock if there is no such task.\n");

static PyObject *
module_py_park(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    return sleep_new(PyModule_GetState(module), SLEEP_PARKED, TIME_FOREVER);
}

PyDoc_STRVAR(wait_done_doc,
"_wait_done($module, task, /)\n--\n\n"
"Wait until a task has finished, without a look at its outcome.\n");

static PyObject *
module_py_wait_done(PyObject *module, PyObject *task)
{
    ModuleState *state = PyModule_GetState(module);
    return need_type("_wait_done()", state->TaskType, task) == 0
               ? join_new(state, (TaskObject *)task, 1)
               : NULL;
}

PyDoc_STRVAR(watch_doc,
"_watch($module, coro, /)\n--\n\n"
"Run a coroutine in a task that nobody sees and nothing cancels, not even the end of\n"
"the run. It has to end when other tasks have.\n");

static PyObject *
module_py_watch(PyObject *module, PyObject *coro)
{
    ModuleState *state = PyModule_GetState(module);
    LoopObject *loop = need_current_loop_borrowed(state, "_watch()");
    if (loop == NULL || check_coroutine(state, "_watch()", coro) < 0) {
        return NULL;
    }
    TaskObject *task = loop_spawn(loop, coro, NULL, NULL, NULL, TASK_DAEMON | TASK_HIDDEN);
    if (task == NULL) {
        return NULL;
    }
    Py_DECREF(task);
    Py_RETURN_NONE;
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

PyDoc_STRVAR(task_tree_doc,
"_task_tree($module, loop, /)\n--\n\n"
"The tasks that have not finished, in order of creation: a list of (task, its number,\n"
"that of its parent or 0, its effective deadline).\n");

static PyObject *
module_py_task_tree(PyObject *module, PyObject *op)
{
    ModuleState *state = PyModule_GetState(module);
    if (need_type("_task_tree()", state->LoopType, op) < 0) {
        return NULL;
    }
    PyObject *tree = loop_py_tasks(op, NULL);
    for (Py_ssize_t i = 0; tree != NULL && i < PyList_GET_SIZE(tree); i++) {
        TaskObject *task = (TaskObject *)PyList_GET_ITEM(tree, i);
        PyObject *deadline = deadline_object(task_effective_deadline(task));
        PyObject *row = deadline != NULL
                            ? Py_BuildValue("OIIN", (PyObject *)task, (unsigned)task->number,
                                            (unsigned)task->parent, deadline)
                            : NULL;
        if (row == NULL || PyList_SetItem(tree, i, row) < 0) {
            Py_CLEAR(tree);
        }
    }
    return tree;
}

PyDoc_STRVAR(running_task_doc,
"_running_task($module, loop, /)\n--\n\n"
"The task whose step is under way in a loop, or None; from any thread.\n");

static PyObject *
module_py_running_task(PyObject *module, PyObject *op)
{
    ModuleState *state = PyModule_GetState(module);
    if (need_type("_running_task()", state->LoopType, op) < 0) {
        return NULL;
    }
    TaskObject *task = ((LoopObject *)op)->current;
    return Py_NewRef(task != NULL ? (PyObject *)task : Py_None);
}

/* For the functions below: the loop, borrowed, or NULL with a TypeError. */
static LoopObject *
need_loop(PyObject *module, const char *function, PyObject *op)
{
    ModuleState *state = PyModule_GetState(module);
    return need_type(function, state->LoopType, op) == 0 ? (LoopObject *)op : NULL;
}

PyDoc_STRVAR(thread_begins_doc,
"_thread_begins($module, loop, /)\n--\n\n"
"A thread works for the loop: virtual time stands still, and there is no deadlock.\n");

static PyObject *
module_py_thread_begins(PyObject *module, PyObject *op)
{
    LoopObject *loop = need_loop(module, "_thread_begins()", op);
    if (loop == NULL) {
        return NULL;
    }
    loop->threads++;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(thread_ends_doc,
"_thread_ends($module, loop, /)\n--\n\n"
"Its result has arrived. To be called by the loop, with call_soon_threadsafe().\n");

static PyObject *
module_py_thread_ends(PyObject *module, PyObject *op)
{
    LoopObject *loop = need_loop(module, "_thread_ends()", op);
    if (loop == NULL) {
        return NULL;
    }
    loop->threads -= loop->threads > 0;
    Py_RETURN_NONE;
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
        Py_XSETREF(loop->executor, Py_NewRef(args[1]));
    }
    return Py_NewRef(loop->executor != NULL ? loop->executor : Py_None);
}

PyDoc_STRVAR(unseen_doc,
"_unseen($module, loop, /)\n--\n\n"
"The failed tasks whose failure nobody has seen, in the order in which they failed.\n");

static PyObject *
module_py_unseen(PyObject *module, PyObject *op)
{
    LoopObject *loop = need_loop(module, "_unseen()", op);
    PyObject *tasks = loop != NULL ? PyList_New(0) : NULL;
    /* As in loop_py_tasks(): a collection may make some more, at the end. */
    for (struct link *l = tasks != NULL ? loop->unseen.next : NULL; l != NULL && l != &loop->unseen;
         l = l->next) {
        if (PyList_Append(tasks, (PyObject *)TASK_OF_REGISTERED(l)) < 0) {
            Py_CLEAR(tasks);
            break;
        }
    }
    return tasks;
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

#endif /* SLEEPLOOP_PRIVATE_H */
