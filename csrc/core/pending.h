/* pending.h: interrupts that have to wait until their task's next await.
 *
 * They stand in a dict of the loop's, as tasks have no memory for what is so rare.
 */
#ifndef SLEEPLOOP_CORE_PENDING_H
#define SLEEPLOOP_CORE_PENDING_H

#include "../base/compat.h"
#include "loopobject.h"
#include "taskobject.h"

/* Behind those that the task is to get already. Steals exc; 0, or -1 with MemoryError. */
static int
interrupts_add(LoopObject *loop, TaskObject *task, PyObject *exc_steal)
{
    PyObject *number = PyLong_FromUnsignedLong(task->number), *list = NULL;
    if (number != NULL && loop->interrupts == NULL) {
        PyObject *dict = PyDict_New();
        if (loop->interrupts == NULL) {  /* still: that may collect (3.11) */
            loop->interrupts = dict;
        }
        else {
            Py_XDECREF(dict);
        }
    }
    if (number != NULL && loop->interrupts != NULL && !PyErr_Occurred()) {
        list = Py_XNewRef(PyDict_GetItemWithError(loop->interrupts, number));
        if (list == NULL && !PyErr_Occurred()) {
            list = PyList_New(0);
            if (list != NULL && PyDict_SetItem(loop->interrupts, number, list) < 0) {
                Py_CLEAR(list);
            }
        }
    }
    int rc = list != NULL ? PyList_Append(list, exc_steal) : -1;
    if (rc == 0 && !task_done(task)) {  /* a collection may have run Python */
        task->flags |= TASK_INTERRUPTED;
    }
    Py_XDECREF(list);
    Py_XDECREF(number);
    Py_DECREF(exc_steal);
    return rc;
}

/* The first that the task has yet to get; NULL with MemoryError set, or with a SystemError if
 * somebody has got hold of the lists by the collector and changed them. */
static PyObject *
interrupts_take(LoopObject *loop, TaskObject *task)
{
    PyObject *number = PyLong_FromUnsignedLong(task->number);
    PyObject *list = NULL, *exc = NULL;
    if (number != NULL && loop->interrupts != NULL) {
        list = Py_XNewRef(PyDict_GetItemWithError(loop->interrupts, number));
    }
    if (list != NULL && PyList_CheckExact(list) && PyList_GET_SIZE(list) > 0
        && PyExceptionInstance_Check(PyList_GET_ITEM(list, 0))) {
        exc = Py_NewRef(PyList_GET_ITEM(list, 0));
        if (PyList_GET_SIZE(list) > 1) {
            if (PyList_SetSlice(list, 0, 1, NULL) < 0) {
                Py_CLEAR(exc);
            }
        }
        else {
            task->flags &= (uint16_t)~TASK_INTERRUPTED;
            if (PyDict_DelItem(loop->interrupts, number) < 0) {
                PyErr_Clear();
                PyList_SetSlice(list, 0, 1, NULL);
            }
        }
    }
    else if (!PyErr_Occurred()) {
        task->flags &= (uint16_t)~TASK_INTERRUPTED;
        PyErr_SetString(PyExc_SystemError, "the task's interrupts are gone");
    }
    Py_XDECREF(list);
    Py_XDECREF(number);
    return exc;
}

/* One of them is not to come after all. Keeps what is set. */
COLD static void
interrupts_remove(LoopObject *loop, TaskObject *task, PyObject *exc)
{
    PyObject *saved = PyErr_GetRaisedException();
    PyObject *number = PyLong_FromUnsignedLong(task->number);
    PyObject *list = number != NULL && loop->interrupts != NULL
                         ? Py_XNewRef(PyDict_GetItemWithError(loop->interrupts, number))
                         : NULL;
    if (list != NULL && PyList_CheckExact(list)) {
        Py_ssize_t i = PyList_GET_SIZE(list) - 1;
        while (i >= 0 && PyList_GET_ITEM(list, i) != exc) {
            i--;
        }
        if (i >= 0 && PyList_SetSlice(list, i, i + 1, NULL) == 0 && PyList_GET_SIZE(list) == 0) {
            task->flags &= (uint16_t)~TASK_INTERRUPTED;
            (void)PyDict_DelItem(loop->interrupts, number);
        }
    }
    Py_XDECREF(list);
    Py_XDECREF(number);
    PyErr_Clear();
    PyErr_SetRaisedException(saved);
}

/* The task has ended. What it has not got, nobody gets. Beware: may run Python, as a cause dies. */
COLD static void
interrupts_drop(LoopObject *loop, TaskObject *task)
{
    PyObject *saved = PyErr_GetRaisedException();
    PyObject *number = PyLong_FromUnsignedLong(task->number);
    task->flags &= (uint16_t)~TASK_INTERRUPTED;
    if (number == NULL || loop->interrupts == NULL
        || PyDict_DelItem(loop->interrupts, number) < 0) {
        PyErr_Clear();  /* no memory to find them: they go with the loop */
    }
    Py_XDECREF(number);
    PyErr_SetRaisedException(saved);
}

#endif /* SLEEPLOOP_CORE_PENDING_H */
