/* drive.h: the methods of SleepingLoop that make it run. */
#ifndef SLEEPLOOP_API_DRIVE_H
#define SLEEPLOOP_API_DRIVE_H

#include "../base/clock.h"
#include "../base/compat.h"
#include "../base/timerheap.h"
#include "../core/args.h"
#include "../core/loopobject.h"
#include "../core/state.h"
#include "../core/task.h"
#include "../core/taskobject.h"
#include "../core/walltime.h"
#include "../run/idlepass.h"
#include "../run/run.h"

PyDoc_STRVAR(loop_run_until_complete_doc,
"run_until_complete($self, /)\n--\n\n"
"Run until all tasks but the daemons are done, and return the results of the\n"
"coroutines given to SleepingLoop(), a list in the order given. Once.\n"
"\n"
"If one of those fails, the others are cancelled, run their `finally` blocks, and\n"
"its exception is raised as it is; of several, an ExceptionGroup. Failures of\n"
"other tasks that nobody retrieved are raised, too.\n"
"\n"
"Raises DeadlockError if every task waits and nothing could wake one,\n"
"KeyboardInterrupt after Ctrl-C, LoopClosedError if the loop has run before,\n"
"RuntimeError inside another run, and OSError if there is no descriptor left to\n"
"wait with.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def double(x):\n"
"...     await sleeploop.sleep(10 - x)\n"
"...     return 2 * x\n"
">>> loop = sleeploop.SleepingLoop(double(1), double(2), speed=math.inf)\n"
">>> loop.run_until_complete(), loop.time()\n"
"([2, 4], 9.0)\n");

static PyObject *
loop_py_run_until_complete(PyObject *op, PyObject *const *args, Py_ssize_t n_args)
{
    if (n_args > 0) {  /* as asyncio's takes it */
        raise_about(PyExc_TypeError, "%s takes no arguments, not %U%s", "run_until_complete()",
                    args[0],
                    "; give coroutines to SleepingLoop(), or to its create_task(), and one that is "
                    "to be run alone to sleeploop.run()");
        return NULL;
    }
    LoopObject *loop = (LoopObject *)op;
    if (loop_check_runnable(loop, "run_until_complete()") < 0) {
        return NULL;
    }
    Py_INCREF(loop);  /* whatever runs may drop the caller's */
    PyObject *results = loop_run(loop);
    Py_DECREF(loop);
    return results;
}

/* What run_until() was given as a time, in *when. 0, or -1 with an exception set. */
static int
goal_from_object(LoopObject *loop, PyObject *obj, int64_t *when)
{
    int is_wall;
    if (moment_from_object(loop->state, "run_until()", obj, when, &is_wall) < 0) {
        if (PyErr_ExceptionMatches(PyExc_TypeError)) {
            raise_about(PyExc_TypeError,
                        "%s takes a loop time in seconds, a datetime or a Task, not %U%s",
                        "run_until()", obj, "");
        }
        return -1;
    }
    int64_t now = clock_now(&loop->clock);
    if (is_wall) {
        if (loop->wall_origin == WALL_AT_START && !loop->wall_is_system) {
            loop->wall_origin = wall_now();
        }
        *when = *when < loop_wall_now(loop) ? -1 : loop_time_of_wall(loop, *when);
    }
    if (*when > TIME_END) {
        raise_about(PyExc_ValueError, "%s: %U never comes%s", "run_until()", obj,
                    "; run_until_complete() runs to the end");
        return -1;
    }
    if (*when < now) {
        PyObject *text = seconds_object(now);
        if (text != NULL) {
            PyErr_Format(PyExc_ValueError, "run_until(): %R has passed, as it is %S s", obj, text);
            Py_DECREF(text);
        }
        return -1;
    }
    return 0;
}

PyDoc_STRVAR(loop_run_until_doc,
"run_until($self, when, /)\n--\n\n"
"Run until loop time is `when`, and suspend the loop: its tasks are as they are, loop\n"
"time stands still, and it can be driven on by any of these methods. Ends by itself only\n"
"through a failure.\n"
"\n"
"when: loop time in seconds, a datetime, or a Task of this loop: until that is done; then\n"
"return its result or raise its exception. Else return None, with time() exactly `when`.\n"
"All that was due until then has run; in virtual time also all that has followed from it,\n"
"while at a finite speed what is ready again then waits for the next call.\n"
"\n"
"What run_until_complete() raises ends the run, and is raised. But DeadlockError, when the\n"
"task waits and nothing could wake one, leaves the loop as it is. Raises TypeError for\n"
"anything else, ValueError for a time that has passed or never comes and for a task of\n"
"another loop, RuntimeError inside another run, LoopClosedError after the end.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def tick():\n"
"...     while True:\n"
"...         await sleeploop.sleep(60)\n"
"...         print('tick')\n"
">>> loop = sleeploop.SleepingLoop(tick(), speed=math.inf)\n"
">>> loop.run_until(90)\n"
"tick\n"
">>> loop.time(), loop.next_wake_time()\n"
"(90.0, 120.0)\n"
">>> loop.run_until(120)\n"
"tick\n"
">>> loop.close()\n");

static PyObject *
loop_py_run_until(PyObject *op, PyObject *obj)
{
    LoopObject *loop = (LoopObject *)op;
    ModuleState *state = loop->state;
    int64_t when = TIME_END;
    TaskObject *task = NULL;
    if (loop_check_runnable(loop, "run_until()") < 0) {
        return NULL;
    }
    if (PyObject_TypeCheck(obj, state->TaskType)) {
        task = (TaskObject *)obj;
        if (task->loop != loop) {
            raise_about(PyExc_ValueError, "%s cannot wait for %U%s", "run_until()", obj,
                        ", which belongs to another loop");
            return NULL;
        }
    }
    else if (goal_from_object(loop, obj, &when) < 0
             || loop_check_runnable(loop, "run_until()") < 0) {  /* again: that may run Python */
        return NULL;
    }
    PyObject *result = NULL;
    Py_INCREF(loop);  /* whatever runs may drop the caller's */
    int how = loop_run_to(loop, task != NULL ? GOAL_TASK : GOAL_TIME, when, task, UINT64_MAX);
    if (how > 0 && loop->stalled) {
        raise_deadlock(loop);
    }
    else if (how > 0 && task != NULL) {
        result = task_outcome(state, task);
    }
    else if (how >= 0) {
        result = Py_NewRef(Py_None);
    }
    Py_DECREF(loop);
    return result;
}

PyDoc_STRVAR(loop_step_doc,
"step($self, /)\n--\n\n"
"Make one pass: what is ready runs, one step each, and what is due becomes ready first.\n"
"Return whether there was anything to do. In virtual time, if nothing is ready, the clock\n"
"jumps to the next wake-up; at a finite speed step() never waits, and loop time goes on\n"
"between the calls: whoever drives the loop calls again at next_wake_time().\n"
"\n"
"Raises as run_until() does.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def main():\n"
"...     await sleeploop.sleep(5)\n"
">>> loop = sleeploop.SleepingLoop(main(), speed=math.inf)\n"
">>> loop.step(), loop.time()\n"
"(True, 0.0)\n"
">>> loop.step(), loop.time()\n"
"(True, 5.0)\n"
">>> loop.step()\n"
"False\n");

static PyObject *
loop_py_step(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    LoopObject *loop = (LoopObject *)op;
    if (loop_check_runnable(loop, "step()") < 0) {
        return NULL;
    }
    Py_INCREF(loop);
    int how = loop_step(loop);
    Py_DECREF(loop);
    return how >= 0 ? PyBool_FromLong(how) : NULL;
}

PyDoc_STRVAR(loop_next_wake_time_doc,
"next_wake_time($self, /)\n--\n\n"
"Loop time in seconds at which the loop has something to do next, a float: time() if a\n"
"task is ready, else when the next timer is due; inf if nothing will happen by itself.\n");

static PyObject *
loop_py_next_wake_time(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    LoopObject *loop = (LoopObject *)op;
    int64_t when;
    if (loop->ready_len > 0 || loop->calls != NULL) {
        return seconds_object(clock_now(&loop->clock));
    }
    return timerheap_next(&loop->timers, &when) ? moment_object(when)
                                            : PyFloat_FromDouble(Py_HUGE_VAL);
}

PyDoc_STRVAR(loop_close_doc,
"close($self, /)\n--\n\n"
"End the run: cancel what is left, let it run its cleanup, and raise what failed and\n"
"nobody has seen. The results of the coroutines given to SleepingLoop() are dropped. What\n"
"has not started never does. The second time it does nothing.\n"
"\n"
"Raises RuntimeError while the loop is running.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def server():\n"
"...     try:\n"
"...         await sleeploop.sleep_forever()\n"
"...     finally:\n"
"...         print('stopped')\n"
">>> loop = sleeploop.SleepingLoop(server(), speed=math.inf)\n"
">>> loop.run_until(3600)\n"
">>> loop.close()\n"
"stopped\n");

static PyObject *
loop_py_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    LoopObject *loop = (LoopObject *)op;
    if (loop->phase == LOOP_CLOSED) {
        Py_RETURN_NONE;
    }
    if (loop_check_runnable(loop, "close()") < 0) {
        return NULL;
    }
    Py_INCREF(loop);
    PyObject *none = loop_close(loop);
    Py_DECREF(loop);
    return none;
}

#endif /* SLEEPLOOP_API_DRIVE_H */
