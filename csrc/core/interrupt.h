/* interrupt.h: what task.interrupt() does: an exception at the task's await, once.
 *
 * Unlike a cancellation it is an event, not a state: each call is raised once, in the order in
 * which they were made. A task that waits is taken from where it waits; at the end of a group its
 * tasks are, and it gets it when they have ended. One that does not wait - it has been woken, it
 * runs, it has not started, or it waits where nothing may take it away - gets it at its next await.
 */
#ifndef SLEEPLOOP_CORE_INTERRUPT_H
#define SLEEPLOOP_CORE_INTERRUPT_H

#include "../base/compat.h"
#include "kinds.h"
#include "loopobject.h"
#include "pending.h"
#include "ready.h"
#include "taskobject.h"

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

/* ---- the call -------------------------------------------------------------------------------- */

/* What can fail of it comes first, so that whoever has more to do can do it in between: between
 * these two nothing runs Python that is not theirs.
 *
 * The exception; NULL with MemoryError, and then nothing has happened. If the task has to wait for
 * it, it stands where those do. Beware: a collection may run Python. */
static PyObject *
interrupt_prepare(TaskObject *task, PyObject *cause)
{
    PyObject *exc = PyObject_CallOneArg(task->loop->state->Interrupt, cause);
    if (exc != NULL && !task_interruptible(task)
        && interrupts_add(task->loop, task, Py_NewRef(exc)) < 0) {
        Py_CLEAR(exc);
    }
    return exc;
}

/* It is not to come after all. Steals exc. */
COLD static void
interrupt_take_back(TaskObject *task, PyObject *exc_steal)
{
    if (!task_done(task) && !task_interruptible(task)) {
        interrupts_remove(task->loop, task, exc_steal);
    }
    Py_DECREF(exc_steal);
}

/* Raises it in the task, which has not ended, at its await or at the next. Steals exc. Beware: what
 * the task waited with may run Python when it dies. */
static void
interrupt_deliver(TaskObject *task, PyObject *exc_steal)
{
    LoopObject *loop = task->loop;
    if (task_interruptible(task)) {
        loop_wake(loop, task);
        PyObject *trap = task->payload;
        task->payload = exc_steal;
        task->flags |= TASK_THROW;
        Py_XDECREF(trap);
        return;
    }
    Py_DECREF(exc_steal);
    Awaitable *await = task_await_borrowed(task);
    if (await != NULL && await_kind(await)->interrupted != NULL) {
        await_kind(await)->interrupted(await, loop, task);
    }
}

/* Raises Interrupt(cause) in a task that has not ended. 0, or -1 with MemoryError. Beware: as both
 * of these. */
static int
task_interrupt(TaskObject *task, PyObject *cause)
{
    PyObject *exc = interrupt_prepare(task, cause);
    if (exc == NULL) {
        return -1;
    }
    interrupt_deliver(task, exc);
    return 0;
}

#endif /* SLEEPLOOP_CORE_INTERRUPT_H */
