/* callbacks.h: what add_done_callback() has been given, until its task ends.
 *
 * It stands in a dict of the loop's, as tasks have no memory for what is so rare, in the form in
 * which calls.h makes calls: at the end of its task it joins those, and nothing need be made then.
 */
#ifndef SLEEPLOOP_CORE_CALLBACKS_H
#define SLEEPLOOP_CORE_CALLBACKS_H

#include "../base/compat.h"
#include "args.h"
#include "loopobject.h"
#include "task.h"
#include "taskobject.h"

/* 0 if it is (context, function, *arguments); else -1 with a SystemError: somebody has got hold of
 * a list of them by the collector, and changed it. */
static int
call_check(PyObject *call)
{
    if (PyTuple_CheckExact(call) && PyTuple_GET_SIZE(call) >= 2
        && PyContext_CheckExact(PyTuple_GET_ITEM(call, 0))) {
        return 0;
    }
    PyErr_SetString(PyExc_SystemError, "what the loop was to call is gone");
    return -1;
}

/* Makes the dict, if there is none yet. 0, or -1 with MemoryError. Beware: may collect (3.11). */
static int
callbacks_prepare(LoopObject *loop)
{
    if (loop->callbacks != NULL) {
        return 0;
    }
    PyObject *dict = PyDict_New();
    if (dict != NULL && loop->callbacks == NULL) {  /* still */
        loop->callbacks = Py_NewRef(dict);
    }
    Py_XDECREF(dict);
    return dict != NULL ? 0 : -1;
}

/* Those of a task, a new reference to their list; NULL: there are none, or with MemoryError. */
static PyObject *
callbacks_get(LoopObject *loop, PyObject *number)
{
    PyObject *list = number != NULL && loop->callbacks != NULL
                         ? PyDict_GetItemWithError(loop->callbacks, number)
                         : NULL;
    return list != NULL && PyList_CheckExact(list) ? Py_NewRef(list) : NULL;
}

/* Behind those that the task has. It has not ended, and the dict is there. new_list: an empty one,
 * in case it has none. 0, or -1 with MemoryError. */
static int
callbacks_add(LoopObject *loop, TaskObject *task, PyObject *call, PyObject *new_list)
{
    PyObject *number = PyLong_FromUnsignedLong(task->number);
    PyObject *list = callbacks_get(loop, number);
    int rc = -1;
    if (list != NULL) {
        rc = PyList_Append(list, call);
    }
    else if (!PyErr_Occurred() && PyList_Append(new_list, call) == 0) {
        rc = PyDict_SetItem(loop->callbacks, number, new_list);
    }
    if (rc == 0) {
        task->flags |= TASK_CALLS_BACK;
    }
    Py_XDECREF(list);
    Py_XDECREF(number);
    return rc;
}

/* Those of a list that call a function equal to this one, a new list; NULL with an exception.
 * Beware: compares, and that may change the list. */
static PyObject *
callbacks_equal(PyObject *list, PyObject *function)
{
    PyObject *all = PyList_GetSlice(list, 0, PyList_GET_SIZE(list));
    PyObject *equal = all != NULL ? PyList_New(0) : NULL;
    for (Py_ssize_t i = 0; equal != NULL && i < PyList_GET_SIZE(all); i++) {
        PyObject *call = Py_NewRef(PyList_GET_ITEM(all, i));
        int is_equal = call_check(call) == 0
                           ? PyObject_RichCompareBool(PyTuple_GET_ITEM(call, 1), function, Py_EQ)
                           : -1;
        if (is_equal < 0 || (is_equal > 0 && PyList_Append(equal, call) < 0)) {
            Py_CLEAR(equal);
        }
        Py_DECREF(call);
    }
    Py_XDECREF(all);
    return equal;
}

/* Takes those out of the list they were in. How many were still there, or -1 with an exception. */
static Py_ssize_t
callbacks_take_out(PyObject *list, PyObject *gone)
{
    Py_ssize_t n = 0;
    for (Py_ssize_t k = PyList_GET_SIZE(gone); k > 0; k--) {
        Py_ssize_t i = PyList_GET_SIZE(list) - 1;
        while (i >= 0 && PyList_GET_ITEM(list, i) != PyList_GET_ITEM(gone, k - 1)) {
            i--;
        }
        if (i >= 0) {  /* else it was taken away while they were compared */
            if (PyList_SetSlice(list, i, i + 1, NULL) < 0) {
                return -1;
            }
            n++;
        }
    }
    return n;
}

/* Takes the task's calls of such a function back. How many there were, or -1 with an exception.
 * Beware: as callbacks_equal(). */
static Py_ssize_t
callbacks_remove(LoopObject *loop, TaskObject *task, PyObject *function)
{
    PyObject *number = PyLong_FromUnsignedLong(task->number);
    PyObject *list = callbacks_get(loop, number);
    PyObject *gone = list != NULL ? callbacks_equal(list, function) : NULL;
    PyObject *now = gone != NULL ? callbacks_get(loop, number) : NULL;
    Py_ssize_t n = PyErr_Occurred()               ? -1
                   : list != NULL && now == list ? callbacks_take_out(list, gone)
                                                 : 0;  /* none, or they have fallen due */
    if (n > 0 && PyList_GET_SIZE(list) == 0) {
        task->flags &= (uint16_t)~TASK_CALLS_BACK;
        n = PyDict_DelItem(loop->callbacks, number) == 0 ? n : -1;
    }
    Py_XDECREF(now);
    Py_XDECREF(gone);
    Py_XDECREF(list);
    Py_XDECREF(number);
    return n;
}

/* What they were added to has come to its end: they join what the loop is to call, for the next
 * pass. list: borrowed, and nobody else's from now on. 0, or -1 with MemoryError. */
static int
calls_fall_due(LoopObject *loop, PyObject *list)
{
    int rc = 0;
    if (loop->calls == NULL) {
        loop->calls = Py_NewRef(list);
    }
    else {
        Py_ssize_t n = PyList_GET_SIZE(loop->calls);
        rc = PyList_SetSlice(loop->calls, n, n, list);
    }
    loop->callbacks_due = 1;
    return rc;
}

/* The task has ended. 0, or -1 with an exception. */
COLD static int
callbacks_fall_due(LoopObject *loop, TaskObject *task)
{
    PyObject *number = PyLong_FromUnsignedLong(task->number);
    PyObject *list = callbacks_get(loop, number);
    task->flags &= (uint16_t)~TASK_CALLS_BACK;
    if (list != NULL) {
        (void)PyDict_DelItem(loop->callbacks, number);
        (void)calls_fall_due(loop, list);
    }
    Py_XDECREF(list);
    Py_XDECREF(number);
    return PyErr_Occurred() ? -1 : 0;
}

/* What add_done_callback(fn, *, context=None) of an object was given, as a call of fn(op); and an
 * empty list, in case there is none yet to put it into. New references; NULL with an exception.
 * Beware: may collect (3.11). */
static PyObject *
callback_from_args(const char *function, PyObject *op, PyObject *const *args, Py_ssize_t n_args,
                   PyObject *kwnames, PyObject **new_list)
{
    static const char *const names[] = {"fn", "context", NULL};
    PyObject *given[2], *context;
    if (args_parse(function, names, 1, 1, args, n_args, kwnames, given) < 0
        || context_from_object(given[1], &context) < 0) {
        return NULL;
    }
    if (!PyCallable_Check(given[0])) {
        raise_about(PyExc_TypeError, "%s takes a function, not %U%s", function, given[0], "");
        return NULL;
    }
    context = context != NULL ? Py_NewRef(context) : PyContext_CopyCurrent();
    PyObject *call = context != NULL ? PyTuple_Pack(3, context, given[0], op) : NULL;
    *new_list = call != NULL ? PyList_New(0) : NULL;
    if (*new_list == NULL) {
        Py_CLEAR(call);
    }
    Py_XDECREF(context);
    return call;
}

#endif /* SLEEPLOOP_CORE_CALLBACKS_H */
