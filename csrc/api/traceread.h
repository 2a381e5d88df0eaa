/* traceread.h: what a trace holds, as Python objects, for sleeploop/tracing.py. */
#ifndef SLEEPLOOP_API_TRACEREAD_H
#define SLEEPLOOP_API_TRACEREAD_H

#include "../base/compat.h"
#include "../core/args.h"
#include "../core/loopobject.h"
#include "../core/state.h"
#include "../core/taskobject.h"
#include "../core/trace.h"
#include "loopmembers.h"
#include "options.h"

/* How a task ended or why a scope was cancelled, for one list of words in tracing.py. */
static int
trace_how(const struct trace_event *event)
{
    switch (event->kind) {
    case TRACE_END:
        return 1 + event->how - TASK_RETURNED;
    case TRACE_CANCEL:
        return 4 + event->how;
    default:
        return 0;
    }
}

/* New tuple: (time in ns, kind, task, other, place, how, name, choice). */
static PyObject *
trace_row(const struct trace_event *event)
{
    PyObject *name = event->name != NULL ? event->name : Py_None;
    return Py_BuildValue("(LiIIIiOi)", (long long)event->time, (int)event->kind,
                         (unsigned)event->task, (unsigned)event->other, (unsigned)event->place,
                         trace_how(event), name, (int)event->choice);
}

/* New list of rows. What is allocated may let other Python code run (3.11), which adds events:
 * those are left out, and so are the ones that they overwrite. */
static PyObject *
trace_rows(const struct trace *trace)
{
    PyObject *rows = PyList_New(0);
    uint64_t end = trace->total;
    for (uint64_t i = end - trace_len(trace); rows != NULL && i < end; i++) {
        if (trace->total - i > trace->capacity) {
            continue;
        }
        struct trace_event event = trace->events[i % trace->capacity];
        Py_XINCREF(event.name);
        PyObject *row = trace_row(&event);
        Py_XDECREF(event.name);
        if (row == NULL || PyList_Append(rows, row) < 0) {
            Py_CLEAR(rows);
        }
        Py_XDECREF(row);
    }
    return rows;
}

/* New tuple: (file, line or -1, function). */
static PyObject *
place_object(struct trace_place place)
{
    PyCodeObject *code = (PyCodeObject *)place.code;
    int line = place.offset < 0 ? code->co_firstlineno : PyCode_Addr2Line(code, place.offset);
    PyObject *file = PyObject_GetAttrString(place.code, "co_filename");
    PyObject *name = file != NULL ? PyObject_GetAttrString(place.code, "co_qualname") : NULL;
    PyObject *row = name != NULL ? Py_BuildValue("(OiO)", file, line, name) : NULL;
    Py_XDECREF(name);
    Py_XDECREF(file);
    return row;
}

/* New list: the place of number 1 comes first. */
static PyObject *
trace_places(const struct trace *trace)
{
    PyObject *rows = PyList_New(0);
    for (uint32_t i = 0; rows != NULL && i < trace->n_places; i++) {
        PyObject *row = place_object(trace->places[i]);
        if (row == NULL || PyList_Append(rows, row) < 0) {
            Py_CLEAR(rows);
        }
        Py_XDECREF(row);
    }
    return rows;
}

/* New tuple: (name or None, function or None). */
static PyObject *
trace_name(TaskObject *task)
{
    PyObject *name = Py_NewRef(task->name != NULL ? task->name : Py_None);
    PyObject *code = task->coro != NULL ? trace_code_of(task->coro) : NULL;
    PyObject *function = code != NULL ? PyObject_GetAttrString(code, "co_qualname")
                                      : Py_NewRef(Py_None);
    PyObject *row = function != NULL ? PyTuple_Pack(2, name, function) : NULL;
    Py_XDECREF(function);
    Py_XDECREF(code);
    Py_DECREF(name);
    return row;
}

/* New dict of the tasks that have not finished, by number. */
static PyObject *
trace_names(LoopObject *loop)
{
    PyObject *tasks = loop_py_tasks((PyObject *)loop, NULL);
    PyObject *names = tasks != NULL ? PyDict_New() : NULL;
    for (Py_ssize_t i = 0; names != NULL && i < PyList_GET_SIZE(tasks); i++) {
        TaskObject *task = (TaskObject *)PyList_GET_ITEM(tasks, i);
        PyObject *number = PyLong_FromUnsignedLong(task->number);
        PyObject *row = number != NULL ? trace_name(task) : NULL;
        if (row == NULL || PyDict_SetItem(names, number, row) < 0) {
            Py_CLEAR(names);
        }
        Py_XDECREF(row);
        Py_XDECREF(number);
    }
    Py_XDECREF(tasks);
    return names;
}

/* NULL with TypeError or ValueError if it is none. */
static LoopObject *
traced_loop_borrowed(PyObject *module, const char *function, PyObject *op)
{
    ModuleState *state = PyModule_GetState(module);
    if (need_type(function, state->LoopType, op) < 0) {
        return NULL;
    }
    if (((LoopObject *)op)->trace == NULL) {
        PyErr_Format(PyExc_ValueError, "%s: this loop is not traced", function);
        return NULL;
    }
    return (LoopObject *)op;
}

PyDoc_STRVAR(trace_size_doc,
"_trace_size($module, loop, /)\n--\n\n"
"How many events of a traced loop there are, and how many have been overwritten.\n");

static PyObject *
module_py_trace_size(PyObject *module, PyObject *op)
{
    LoopObject *loop = traced_loop_borrowed(module, "_trace_size()", op);
    if (loop == NULL) {
        return NULL;
    }
    size_t left = trace_len(loop->trace);
    return Py_BuildValue("(nK)", (Py_ssize_t)left,
                         (unsigned long long)(loop->trace->total - left));
}

PyDoc_STRVAR(trace_rows_doc,
"_trace_rows($module, loop, /)\n--\n\n"
"What a traced loop has noted: (how many events there were, those that are left, their\n"
"places, the names of unfinished tasks); csrc/api/traceread.h says what each of them holds.\n");

static PyObject *
module_py_trace_rows(PyObject *module, PyObject *op)
{
    LoopObject *loop = traced_loop_borrowed(module, "_trace_rows()", op);
    if (loop == NULL) {
        return NULL;
    }
    uint64_t total = loop->trace->total;
    PyObject *rows = trace_rows(loop->trace);
    PyObject *places = rows != NULL ? trace_places(loop->trace) : NULL;
    PyObject *names = places != NULL ? trace_names(loop) : NULL;
    PyObject *all = names != NULL ? Py_BuildValue("(KOOO)", (unsigned long long)total, rows,
                                                  places, names)
                                  : NULL;
    Py_XDECREF(names);
    Py_XDECREF(places);
    Py_XDECREF(rows);
    return all;
}

PyDoc_STRVAR(trace_all_doc,
"_trace_all($module, capacity, callback, /)\n--\n\n"
"From now on trace every loop that is made, and call callback(loop) at the end of each run\n"
"of a traced one. 0 and None: no more.\n");

static PyObject *
module_py_trace_all(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    ModuleState *state = PyModule_GetState(module);
    size_t capacity;
    if (n_args != 2) {
        PyErr_SetString(PyExc_TypeError, "_trace_all() takes 2 arguments");
        return NULL;
    }
    if (trace_capacity_from_object(args[0], &capacity) < 0) {
        return NULL;
    }
    state->trace_capacity = capacity;
    Py_XSETREF(state->trace_callback, args[1] != Py_None ? Py_NewRef(args[1]) : NULL);
    Py_RETURN_NONE;
}

#endif /* SLEEPLOOP_API_TRACEREAD_H */
