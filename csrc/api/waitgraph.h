/* waitgraph.h: who waits for whom, for `sleeploop/_deadlocks.py`. Tells what there is, as numbers
 * of tasks, and judges nothing.
 */
#ifndef SLEEPLOOP_API_WAITGRAPH_H
#define SLEEPLOOP_API_WAITGRAPH_H

#include "../base/compat.h"
#include "../core/args.h"
#include "../core/kinds.h"
#include "../core/state.h"
#include "../core/taskobject.h"
#include "../wait/waitable.h"
#include "../wait/waitlist.h"
#include "../wait/waitobject.h"
#include "loopmembers.h"
#include "private.h"

/* New tuple (word, what): what the task waits for, as far as other tasks come into it. Borrows
 * nothing across an allocation but the task and its payload. */
static PyObject *
task_wait_row(TaskObject *task)
{
    Awaitable *await = task_await_borrowed(task);
    return await != NULL && await_kind(await)->graph_row != NULL
               ? await_kind(await)->graph_row(await)
               : Py_BuildValue("(sO)", "", Py_None);
}

PyDoc_STRVAR(wait_graph_doc,
"_wait_graph($module, loop, /)\n--\n\n"
"The tasks that have not finished, in order of creation: a list of (task, its number, how\n"
"it waits, what for), with numbers of tasks:\n"
"\n"
"'': for nothing that a certain task does; 'join': for a task; 'start': for a task to start,\n"
"and the number of the one that waits for that at the end of a group, or 0; 'group': for all of\n"
"a list; 'race': for one of a list; 'one': for what a task has; 'shared': for what several\n"
"have, see _blockers(): a key, the same for all that wait for the same.\n");

static PyObject *
module_py_wait_graph(PyObject *module, PyObject *op)
{
    if (need_loop(module, "find_deadlocks()", op) == NULL) {
        return NULL;
    }
    PyObject *graph = loop_py_tasks(op, NULL);
    for (Py_ssize_t i = 0; graph != NULL && i < PyList_GET_SIZE(graph); i++) {
        TaskObject *task = (TaskObject *)PyList_GET_ITEM(graph, i);
        PyObject *trap = Py_XNewRef(task->payload);
        PyObject *how = task_wait_row(task);
        PyObject *row = how != NULL ? Py_BuildValue("(OIOO)", (PyObject *)task,
                                                    (unsigned)task->number,
                                                    PyTuple_GET_ITEM(how, 0),
                                                    PyTuple_GET_ITEM(how, 1))
                                    : NULL;
        Py_XDECREF(how);
        Py_XDECREF(trap);
        if (row == NULL || PyList_SetItem(graph, i, row) < 0) {
            Py_CLEAR(graph);
        }
    }
    return graph;
}

/* The Wait by which the task is parked, borrowed; NULL: by none; or with a TypeError. */
static WaitObject *
wait_of_task_borrowed(PyObject *module, const char *function, PyObject *op)
{
    ModuleState *state = PyModule_GetState(module);
    if (need_type(function, state->TaskType, op) < 0) {
        return NULL;
    }
    return await_as_wait(task_await_borrowed((TaskObject *)op));
}

PyDoc_STRVAR(blockers_doc,
"_blockers($module, task, /)\n--\n\n"
"The numbers of the tasks any of which may give back what the task waits for, a list; empty if\n"
"that could be anybody.\n");

static PyObject *
module_py_blockers(PyObject *module, PyObject *op)
{
    WaitObject *wait = wait_of_task_borrowed(module, "_blockers()", op);
    if (wait == NULL || wait_kind(wait)->blockers == NULL) {
        return PyErr_Occurred() ? NULL : PyList_New(0);
    }
    PyObject *object = Py_NewRef(wait->object);
    PyObject *numbers = wait_kind(wait)->blockers(object);
    Py_DECREF(object);
    if (numbers == Py_None) {
        Py_SETREF(numbers, PyList_New(0));
    }
    return numbers;
}

PyDoc_STRVAR(describe_wait_doc,
"_describe_wait($module, task, /)\n--\n\n"
"What a task waits for that another has: its title, and the loop time in seconds since when it is\n"
"had; or a text that tells it all, and None. '' if it does not wait for such a thing.\n");

static PyObject *
module_py_describe_wait(PyObject *module, PyObject *op)
{
    WaitObject *wait = wait_of_task_borrowed(module, "_describe_wait()", op);
    if (wait == NULL) {
        return PyErr_Occurred() ? NULL : Py_BuildValue("(sO)", "", Py_None);
    }
    PyObject *object, *text, *since = NULL;
    if (wait_kind(wait)->held != NULL) {
        int64_t when;
        object = Py_NewRef(wait_kind(wait)->held(wait, &when));
        text = sync_title(object);
        since = text != NULL ? seconds_rounded(when) : NULL;
    }
    else {
        object = Py_NewRef(wait->object);
        text = wait_kind(wait)->describe(object);
        since = Py_NewRef(Py_None);
    }
    Py_DECREF(object);
    PyObject *pair = text != NULL && since != NULL ? PyTuple_Pack(2, text, since) : NULL;
    Py_XDECREF(text);
    Py_XDECREF(since);
    return pair;
}

#endif /* SLEEPLOOP_API_WAITGRAPH_H */
