/* interrupt.h: what task.interrupt() does: an exception at the task's await, once.
 *
 * Unlike a cancellation it is an event, not a state: each call is raised once, in the order in
 * which they were made. A task that waits is taken from where it waits. One that does not - it has
 * been woken, it runs, it has not started, or it waits where nothing may take it away - gets it at
 * its next await.
 */
#ifndef SLEEPLOOP_INTERRUPT_H
#define SLEEPLOOP_INTERRUPT_H

#include "cancel.h"

PyDoc_STRVAR(interrupt_doc,
"Raised at the await of a task on which interrupt() has been called, once for each\n"
"call. `cause` is what interrupt() was given.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def machine():\n"
"...     try:\n"
"...         await sleeploop.sleep(8)\n"
"...     except sleeploop.Interrupt as interrupt:\n"
"...         print(interrupt.cause, 'at', sleeploop.current_loop().time())\n"
">>> async def main():\n"
"...     task = sleeploop.create_task(machine())\n"
"...     await sleeploop.sleep(3)\n"
"...     task.interrupt('broken')\n"
"...     await task\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"broken at 3.0\n");

static PyObject *
interrupt_get_cause(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *args = ((PyBaseExceptionObject *)op)->args;
    return Py_NewRef(args != NULL && PyTuple_GET_SIZE(args) > 0 ? PyTuple_GET_ITEM(args, 0)
                                                                : Py_None);
}

static PyGetSetDef interrupt_cause_def = {
    "cause", interrupt_get_cause, NULL,
    PyDoc_STR("What interrupt() was given, or None."), NULL,
};

/* ---- those that have to wait ----------------------------------------------------------------- */

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
    if (number != NULL && loop->interrupts != NULL) {
        list = Py_XNewRef(PyDict_GetItemWithError(loop->interrupts, number));
        if (list == NULL) {
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
    PyObject *list = number != NULL && loop->interrupts != NULL
                         ? PyDict_GetItemWithError(loop->interrupts, number)
                         : NULL;
    PyObject *exc = NULL;
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
    Py_XDECREF(number);
    return exc;
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

/* ---- waiting for several ---------------------------------------------------------------------- */

/* The task waits at the end of a block from where it is not taken. If that is first_of()'s or
 * all_of()'s, its tasks are: then it raises what has to wait. Runs no Python. */
static void
loop_give_way(LoopObject *loop, TaskObject *task)
{
    GroupObject *group = ((LeaveObject *)task->payload)->group;
    if (group->gives_way) {
        loop_cancel_scope(loop, group->scope, SOURCE_EXPLICIT);
    }
}

/* ---- the call -------------------------------------------------------------------------------- */

/* Raises Interrupt(cause) in the task, which has not ended, at its await or at the next. 0, or -1
 * with MemoryError, and then nothing has happened. Beware: what it waited with may run Python
 * when it dies. */
static int
task_interrupt(TaskObject *task, PyObject *cause)
{
    LoopObject *loop = task->loop;
    PyObject *exc = PyObject_CallOneArg(loop->state->Interrupt, cause);
    if (exc == NULL) {
        return -1;
    }
    if (!task_interruptible(task)) {
        int rc = interrupts_add(loop, task, exc);
        if (rc == 0 && task->state == TASK_LEAVE) {
            loop_give_way(loop, task);
        }
        return rc;
    }
    loop_wake(loop, task);
    PyObject *trap = task->payload;
    task->payload = exc;
    task->flags |= TASK_THROW;
    Py_XDECREF(trap);
    return 0;
}

#endif /* SLEEPLOOP_INTERRUPT_H */
