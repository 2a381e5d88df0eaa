/* timeout.h: the functions that make a CancelScope with a limit, and the limit that holds now. */
#ifndef SLEEPLOOP_SCOPE_TIMEOUT_H
#define SLEEPLOOP_SCOPE_TIMEOUT_H

#include "../base/clock.h"
#include "../base/compat.h"
#include "../core/args.h"
#include "../core/scopeobject.h"
#include "../core/state.h"
#include "../core/taskobject.h"
#include "block.h"
#include "cancelscope.h"

static PyObject *
scope_from_args(PyObject *module, enum scope_maker maker, enum deadline_kind kind,
                PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    const char *function = scope_makers[maker];
    static const char *const names_after[] = {"delay", "shield", NULL};
    static const char *const names_at[] = {"when", "shield", NULL};
    PyObject *given[2];
    if (args_parse(function, kind == DEADLINE_AFTER ? names_after : names_at, 1, 1, args, n_args,
                   kwnames, given) < 0) {
        return NULL;
    }
    return scope_make(PyModule_GetState(module), function, kind, given[0], given[1], maker);
}

PyDoc_STRVAR(timeout_doc,
"timeout($module, delay, *, shield=False)\n--\n\n"
"A CancelScope that gives its block `delay` seconds and then raises TimeoutError.\n"
"\n"
"delay: seconds or a timedelta, counted from the moment at which the block is\n"
"entered; None or inf: no limit. Works as `with` and as `async with`.\n"
"\n"
"Raises TimeoutError when the deadline has ended the block; not when the block was\n"
"through before anything in it was interrupted, and not after cancel(). Raises\n"
"TypeError or ValueError for what is no delay, at the call.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def main():\n"
"...     try:\n"
"...         async with sleeploop.timeout(5):\n"
"...             await sleeploop.sleep(10)\n"
"...     except TimeoutError as error:\n"
"...         print(error)\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"timed out: the deadline at 5.0 s has passed\n");

static PyObject *
module_py_timeout(PyObject *module, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    return scope_from_args(module, BY_TIMEOUT, DEADLINE_AFTER, args, n_args, kwnames);
}

PyDoc_STRVAR(timeout_at_doc,
"timeout_at($module, when, *, shield=False)\n--\n\n"
"Like timeout(), until a moment: loop time in seconds, or a datetime.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def main():\n"
"...     try:\n"
"...         with sleeploop.timeout_at(5):\n"
"...             await sleeploop.sleep(10)\n"
"...     except TimeoutError:\n"
"...         return sleeploop.current_loop().time()\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"5.0\n");

static PyObject *
module_py_timeout_at(PyObject *module, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    return scope_from_args(module, BY_TIMEOUT_AT, DEADLINE_AT, args, n_args, kwnames);
}

PyDoc_STRVAR(move_on_after_doc,
"move_on_after($module, delay, *, shield=False)\n--\n\n"
"A CancelScope that gives its block `delay` seconds. What is not done by then is\n"
"cancelled, and the program moves on behind the block; `cancelled_caught` tells.\n"
"\n"
"delay: seconds or a timedelta, counted from the moment at which the block is\n"
"entered; None or inf: no limit.\n"
"\n"
"Raises TypeError or ValueError for what is no delay, at the call.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def main():\n"
"...     with sleeploop.move_on_after(5) as scope:\n"
"...         await sleeploop.sleep(10)\n"
"...     return scope.cancelled_caught\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"True\n");

static PyObject *
module_py_move_on_after(PyObject *module, PyObject *const *args, Py_ssize_t n_args,
                        PyObject *kwnames)
{
    return scope_from_args(module, BY_MOVE_ON_AFTER, DEADLINE_AFTER, args, n_args, kwnames);
}

PyDoc_STRVAR(move_on_at_doc,
"move_on_at($module, when, *, shield=False)\n--\n\n"
"Like move_on_after(), until a moment: loop time in seconds, or a datetime.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def main():\n"
"...     with sleeploop.move_on_at(5):\n"
"...         await sleeploop.sleep(10)\n"
"...     return sleeploop.current_loop().time()\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"5.0\n");

static PyObject *
module_py_move_on_at(PyObject *module, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    return scope_from_args(module, BY_MOVE_ON_AT, DEADLINE_AT, args, n_args, kwnames);
}

PyDoc_STRVAR(current_effective_deadline_doc,
"current_effective_deadline($module, /)\n--\n\n"
"The loop time in seconds at which the current task will be cancelled, as far as\n"
"is known now: the earliest deadline of the scopes around it, up to a shield. inf:\n"
"there is none; -inf: it has been cancelled.\n"
"\n"
"Raises RuntimeError outside of a task.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def main():\n"
"...     with sleeploop.timeout(10), sleeploop.timeout(20):\n"
"...         return sleeploop.current_effective_deadline()\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"10.0\n");

/* The deadline that holds where the task is: TIME_FOREVER: none; -TIME_FOREVER: cancelled. */
static int64_t
task_effective_deadline(TaskObject *task)
{
    int64_t deadline = TIME_FOREVER;
    if (task->flags & TASK_CANCELLING) {
        return -TIME_FOREVER;
    }
    for (const ScopeObject *s = task->scope; s != NULL; s = s->parent) {
        if (s->deadline < deadline && s->kind == DEADLINE_AT) {
            deadline = s->deadline;
        }
        if (s->flags & SCOPE_SHIELD) {
            break;
        }
    }
    return deadline;
}

static PyObject *
deadline_object(int64_t deadline)
{
    return deadline == -TIME_FOREVER ? PyFloat_FromDouble(-Py_HUGE_VAL)
                                     : moment_object(deadline);
}

static PyObject *
module_py_current_effective_deadline(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    TaskObject *task = need_current_task_borrowed(PyModule_GetState(module),
                                                  "current_effective_deadline()");
    return task != NULL ? deadline_object(task_effective_deadline(task)) : NULL;
}

#endif /* SLEEPLOOP_SCOPE_TIMEOUT_H */
