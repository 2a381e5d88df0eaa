/* functions.h: the module's functions that speak to a loop. */
#ifndef SLEEPLOOP_API_FUNCTIONS_H
#define SLEEPLOOP_API_FUNCTIONS_H

#include "../base/compat.h"
#include "../core/args.h"
#include "../core/loopobject.h"
#include "../core/ready.h"
#include "../core/state.h"
#include "../run/run.h"
#include "loop.h"
#include "loopmembers.h"
#include "options.h"

PyDoc_STRVAR(run_doc,
"run($module, coro, *, speed=None, start=None, debug=None, seed=0, strict=None,\n"
"    shuffle=None, trace=None)\n--\n\n"
"Run one main coroutine on a loop of its own and return its result. When it ends,\n"
"the tasks that are left are cancelled and run their cleanup.\n"
"\n"
"The other arguments and the errors are those of SleepingLoop() and its\n"
"run_until_complete().\n"
"\n"
">>> import math, sleeploop\n"
">>> async def main():\n"
"...     await sleeploop.sleep(24 * 3600)\n"
"...     return 'a day later'\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"'a day later'\n");

static PyObject *
module_py_run(PyObject *module, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    static const char *const names[] = {"coro", OPTION_NAMES, NULL};
    ModuleState *state = PyModule_GetState(module);
    PyObject *given[1 + N_OPTIONS];
    if (args_parse("run()", names, 1, 1, args, n_args, kwnames, given) < 0
        || check_coroutine(state, "run()", given[0]) < 0) {
        return NULL;
    }
    PyObject *coros = PyTuple_Pack(1, given[0]);
    LoopObject *loop = (LoopObject *)loop_tp_new(state->LoopType, NULL, NULL);
    PyObject *results = NULL;
    if (coros != NULL && loop != NULL
        && loop_init(loop, coros, given + 1, 1) == 0) {
        if (loop_check_runnable(loop, "run()") == 0) {
            results = loop_run(loop);
        }
        if (loop->phase == LOOP_NEW) {
            loop->phase = LOOP_CLOSED;
            loop_discard_tasks(loop);  /* it never ran: the coroutine is the caller's again */
        }
    }
    Py_XDECREF(coros);
    Py_XDECREF(loop);
    if (results == NULL) {
        return NULL;
    }
    PyObject *result = Py_NewRef(PyList_GET_ITEM(results, 0));
    Py_DECREF(results);
    return result;
}

PyDoc_STRVAR(create_task_doc,
"create_task($module, coro, *, name=None, daemon=False, context=None)\n--\n\n"
"Run a coroutine as a task of the current loop, beside the one that calls, and\n"
"return the Task. It starts in the next pass, in a copy of the current context.\n"
"\n"
"name: a str; the default is 'Task-<number>'. daemon: a run does not wait for it.\n"
"context: the contextvars.Context to run in, as it is; the default is a copy of the\n"
"current one.\n"
"A failure is raised in whoever awaits the task. If nobody can any more, or the\n"
"run ends, it is logged by logging.getLogger('sleeploop') and, unless the task is\n"
"a daemon, raised by the run. KeyboardInterrupt, SystemExit and other exceptions\n"
"that are no Exception end the run.\n"
"\n"
"Raises TypeError for what is no coroutine and RuntimeError without a running loop.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def child():\n"
"...     await sleeploop.sleep(5)\n"
"...     return 'done'\n"
">>> async def main():\n"
"...     task = sleeploop.create_task(child(), name='child')\n"
"...     return await task\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"'done'\n");

static PyObject *
module_py_create_task(PyObject *module, PyObject *const *args, Py_ssize_t n_args,
                      PyObject *kwnames)
{
    LoopObject *loop =
        need_current_loop_borrowed(PyModule_GetState(module), "create_task()");
    return loop != NULL ? loop_create_task(loop, args, n_args, kwnames) : NULL;
}

PyDoc_STRVAR(current_task_doc,
"current_task($module, /)\n--\n\n"
"The Task that is running in this thread.\n"
"\n"
"Raises RuntimeError where none is.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def main():\n"
"...     return sleeploop.current_task().name\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"'Task-1'\n");

static PyObject *
module_py_current_task(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    return Py_XNewRef(need_current_task_borrowed(PyModule_GetState(module), "current_task()"));
}

PyDoc_STRVAR(current_loop_doc,
"current_loop($module, /)\n--\n\n"
"The SleepingLoop that is running in this thread.\n"
"\n"
"Raises RuntimeError where none is.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def main():\n"
"...     await sleeploop.sleep(2.5)\n"
"...     return sleeploop.current_loop().time()\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"2.5\n");

static PyObject *
module_py_current_loop(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    return Py_XNewRef(need_current_loop_borrowed(PyModule_GetState(module), "current_loop()"));
}

PyDoc_STRVAR(get_running_loop_doc,
"get_running_loop($module, /)\n--\n\n"
"What asyncio calls current_loop().\n"
"\n"
"Raises RuntimeError where none is.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def main():\n"
"...     return sleeploop.get_running_loop() is sleeploop.current_loop()\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"True\n");

static PyObject *
module_py_get_running_loop(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    return Py_XNewRef(
        need_current_loop_borrowed(PyModule_GetState(module), "get_running_loop()"));
}

PyDoc_STRVAR(current_time_doc,
"current_time($module, /)\n--\n\n"
"Loop time of the current loop in seconds, a float: its time().\n"
"\n"
"Raises RuntimeError where no loop runs.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def main():\n"
"...     await sleeploop.sleep(2.5)\n"
"...     return sleeploop.current_time()\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"2.5\n");

static PyObject *
module_py_current_time(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    LoopObject *loop =
        need_current_loop_borrowed(PyModule_GetState(module), "current_time()");
    return loop != NULL ? loop_py_time((PyObject *)loop, NULL) : NULL;
}

#endif /* SLEEPLOOP_API_FUNCTIONS_H */
