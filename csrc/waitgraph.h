/* waitgraph.h: who waits for whom, for `sleeploop/_deadlocks.py`. Tells what there is, as numbers
 * of tasks, and judges nothing.
 */
#ifndef SLEEPLOOP_WAITGRAPH_H
#define SLEEPLOOP_WAITGRAPH_H

#include "sync/sync.h"

/* New list of the numbers of the group's tasks that have not finished. */
static PyObject *
group_numbers(GroupObject *group)
{
    PyObject *numbers = PyList_New(0);
    struct link *tasks = &group->scope->tasks;
    for (struct link *l = tasks->next; numbers != NULL && l != tasks; l = l->next) {
        TaskObject *task = TASK_OF_SIBLING(l);
        if (!(task->flags & TASK_STARTING)) {
            numbers_append(&numbers, task);
        }
    }
    return numbers;
}

/* New tuple (word, what): what the task waits for, as far as other tasks come into it. Borrows
 * nothing across an allocation but the task and its payload. */
static PyObject *
task_wait_row(TaskObject *task)
{
    PyObject *trap = task_parked(task) ? task->payload : NULL;
    if (trap == NULL) {
        return Py_BuildValue("(sO)", "", Py_None);
    }
    switch (task->state) {
    case TASK_JOIN:
        return Py_BuildValue("(sI)", "join", (unsigned)((JoinObject *)trap)->task->number);
    case TASK_START: {
        StartObject *start = (StartObject *)trap;
        TaskObject *leaving = start->is_counted ? start->group->leaving : NULL;
        unsigned host = leaving != NULL ? leaving->number : 0;
        unsigned number = start->task != NULL ? start->task->number : 0;
        return Py_BuildValue("(s(II))", "start", number, host);
    }
    case TASK_LEAVE: {
        GroupObject *group = ((LeaveObject *)trap)->group;
        PyObject *numbers = group_numbers(group);
        return numbers != NULL ? Py_BuildValue("(sN)", group->is_race ? "race" : "group", numbers)
                               : NULL;
    }
    case TASK_WAIT:
    case TASK_REGAIN: {
        WaitObject *wait = (WaitObject *)trap;
        if (wait->kind->blockers != NULL) {
            return Py_BuildValue("(s(nn))", "shared", (Py_ssize_t)(intptr_t)wait->object,
                                 (Py_ssize_t)(intptr_t)wait->kind);
        }
        unsigned number = wait->kind->blocker != NULL ? wait->kind->blocker(wait) : 0;
        return number != 0 ? Py_BuildValue("(sI)", "one", number)
                           : Py_BuildValue("(sO)", "", Py_None);
    }
    default:
        return Py_BuildValue("(sO)", "", Py_None);
    }
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
    TaskObject *task = (TaskObject *)op;
    return task->state == TASK_WAIT || task->state == TASK_REGAIN ? (WaitObject *)task->payload
                                                                  : NULL;
}

PyDoc_STRVAR(blockers_doc,
"_blockers($module, task, /)\n--\n\n"
"The numbers of the tasks any of which may give back what the task waits for, a list; empty if\n"
"that could be anybody.\n");

static PyObject *
module_py_blockers(PyObject *module, PyObject *op)
{
    WaitObject *wait = wait_of_task_borrowed(module, "_blockers()", op);
    if (wait == NULL || wait->kind->blockers == NULL) {
        return PyErr_Occurred() ? NULL : PyList_New(0);
    }
    PyObject *object = Py_NewRef(wait->object);
    PyObject *numbers = wait->kind->blockers(object);
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
    if (wait->kind->held != NULL) {
        int64_t when;
        object = Py_NewRef(wait->kind->held(wait, &when));
        text = sync_title(object);
        since = text != NULL ? seconds_rounded(when) : NULL;
    }
    else {
        object = Py_NewRef(wait->object);
        text = wait->kind->describe(object);
        since = Py_NewRef(Py_None);
    }
    Py_DECREF(object);
    PyObject *pair = text != NULL && since != NULL ? PyTuple_Pack(2, text, since) : NULL;
    Py_XDECREF(text);
    Py_XDECREF(since);
    return pair;
}

#endif /* SLEEPLOOP_WAITGRAPH_H */
