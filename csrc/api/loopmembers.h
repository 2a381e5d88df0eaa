/* loopmembers.h: the methods and attributes of SleepingLoop, but for those that make it run, which
 * are in drive.h.
 */
#ifndef SLEEPLOOP_API_LOOPMEMBERS_H
#define SLEEPLOOP_API_LOOPMEMBERS_H

#include "../base/clock.h"
#include "../base/compat.h"
#include "../base/timerheap.h"
#include "../core/args.h"
#include "../core/driver.h"
#include "../core/loopobject.h"
#include "../core/ready.h"
#include "../core/state.h"
#include "../core/task.h"
#include "../core/taskobject.h"
#include "../core/walltime.h"
#include "../wait/calls.h"

/* ---- methods --------------------------------------------------------------------------------- */

/* create_task() of the loop and of the module: loop is borrowed, and may run in another thread. */
static PyObject *
loop_create_task(LoopObject *loop, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    static const char *const names[] = {"coro", "name", "daemon", "context", NULL};
    PyObject *given[4], *name, *context;
    if (args_parse("create_task()", names, 1, 1, args, n_args, kwnames, given) < 0) {
        return NULL;
    }
    int daemon = given[2] != NULL ? PyObject_IsTrue(given[2]) : 0;
    if (daemon < 0 || check_coroutine(loop->state, "create_task()", given[0]) < 0
        || context_from_object(given[3], &context) < 0
        || loop_check_usable(loop, "create_task()") < 0  /* after them: they run Python */
        || loop_need_thread(loop, "create_task()") < 0
        || task_name_from_object(given[1], &name) < 0) {
        return NULL;
    }
    TaskObject *task =
        loop_spawn(loop, given[0], name, context, loop->root, daemon ? TASK_DAEMON : 0);
    Py_XDECREF(name);
    if (task != NULL) {
        loop_rouse_suspended(loop);
    }
    return (PyObject *)task;
}

PyDoc_STRVAR(loop_create_task_doc,
"create_task($self, coro, *, name=None, daemon=False, context=None)\n--\n\n"
"Run a coroutine as a task of this loop, before or during its run.\n"
"\n"
"See sleeploop.create_task(). Raises LoopClosedError after the run, and\n"
"RuntimeError in another thread than the one that runs the loop.\n");

static PyObject *
loop_py_create_task(PyObject *op, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    return loop_create_task((LoopObject *)op, args, n_args, kwnames);
}

PyDoc_STRVAR(loop_time_doc,
"time($self, /)\n--\n\n"
"Loop time: seconds since the run began, a float; 0.0 before. It passes `speed`\n"
"times as fast as real time and is never set back. After the run it stands still.\n");

static PyObject *
loop_py_time(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return seconds_object(clock_now(&((LoopObject *)op)->clock));
}

PyDoc_STRVAR(loop_time_ns_doc,
"time_ns($self, /)\n--\n\n"
"Loop time in nanoseconds, an int; exact, which time() is not after 104 days.\n");

static PyObject *
loop_py_time_ns(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromLongLong(clock_now(&((LoopObject *)op)->clock));
}

PyDoc_STRVAR(loop_now_doc,
"now($self, /, tz=None)\n--\n\n"
"Loop time as a datetime: `start` plus time(). At speed 1 without `start` it is\n"
"the system's wall clock. tz: a tzinfo; None: naive local time.\n");

static PyObject *
loop_py_now(PyObject *op, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    static const char *const names[] = {"tz", NULL};
    LoopObject *loop = (LoopObject *)op;
    PyObject *tz;
    if (args_parse("now()", names, 1, 0, args, n_args, kwnames, &tz) < 0) {
        return NULL;
    }
    return datetime_from_wall(loop->state, loop_wall_now(loop), tz != NULL ? tz : Py_None);
}

PyDoc_STRVAR(loop_tasks_doc,
"tasks($self, /)\n--\n\nThe tasks that have not finished, a new list in order of creation.\n");

static PyObject *
loop_py_tasks(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    LoopObject *loop = (LoopObject *)op;
    PyObject *tasks = PyList_New(0);
    /* A collection in PyList_Append could run Python that finishes no task but may
     * add some: they join at the end, and no link of this walk leaves the ring. */
    for (struct link *l = loop->live.next; tasks != NULL && l != &loop->live; l = l->next) {
        if (TASK_OF_REGISTERED(l)->flags & TASK_HIDDEN) {
            continue;
        }
        if (PyList_Append(tasks, (PyObject *)TASK_OF_REGISTERED(l)) < 0) {
            Py_CLEAR(tasks);
        }
    }
    return tasks;
}

/* Has the loop call args[0] with the others. check: whether it takes calls. None, or NULL with an
 * exception. Beware: see loop_add_call(). */
static PyObject *
loop_call_soon(LoopObject *loop, const char *function, PyObject *const *args, Py_ssize_t n_args,
               int (*check)(LoopObject *, const char *))
{
    PyObject *context = PyContext_CopyCurrent();
    PyObject *call = context != NULL ? call_pack(context, args, n_args) : NULL;
    Py_XDECREF(context);
    PyObject *new_list = call != NULL ? PyList_New(0) : NULL;
    int rc = -1;
    if (new_list != NULL && check(loop, function) == 0) {
        if (loop_is_left_behind(loop)) {
            raise_runs_elsewhere(loop, function, "");
        }
        else {
            rc = loop_add_call(loop, call, new_list);
        }
    }
    Py_XDECREF(new_list);
    Py_XDECREF(call);
    return rc == 0 ? Py_NewRef(Py_None) : NULL;
}

PyDoc_STRVAR(loop_call_soon_threadsafe_doc,
"call_soon_threadsafe($self, function, /, *args)\n--\n\n"
"Have the loop call function(*args), in its own thread, in its next pass; the one thing\n"
"that another thread may do with a loop. Wakes the loop if it waits. Calls come in the\n"
"order in which they were given, in a copy of the caller's context. What the function\n"
"returns is dropped; what it raises ends the run, as in a signal handler.\n"
"\n"
"A loop knows nothing of a thread that has yet to call. In virtual time it goes on, and\n"
"reports a deadlock when all tasks wait; else it waits as long as there is another thread,\n"
"if a task waits for an Event or the like. Use to_thread() for a result that it is to wait\n"
"for.\n"
"\n"
"Raises TypeError for what cannot be called, and LoopClosedError after the run: once no task\n"
"is left, the loop makes the calls that it has been given, and takes no more.\n"
"\n"
">>> import threading, sleeploop\n"
">>> async def main():\n"
"...     loop = sleeploop.current_loop()\n"
"...     with sleeploop.CancelScope() as scope:\n"
"...         threading.Timer(0.01, loop.call_soon_threadsafe, [scope.cancel]).start()\n"
"...         await sleeploop.sleep_forever()\n"
"...     return 'woken'\n"
">>> sleeploop.run(main(), speed=1)\n"
"'woken'\n");

static PyObject *
loop_py_call_soon_threadsafe(PyObject *op, PyObject *const *args, Py_ssize_t n_args)
{
    LoopObject *loop = (LoopObject *)op;
    if (n_args == 0 || !PyCallable_Check(args[0])) {
        if (n_args == 0) {
            PyErr_SetString(PyExc_TypeError, "call_soon_threadsafe() needs a function to call");
        }
        else {
            raise_about(PyExc_TypeError, "%s takes a function, not %U%s", "call_soon_threadsafe()",
                        args[0], "");
        }
        return NULL;
    }
    return loop_call_soon(loop, "call_soon_threadsafe()", args, n_args, loop_check_accepts);
}

PyDoc_STRVAR(loop_set_wakeup_doc,
"set_wakeup($self, callback, /)\n--\n\n"
"Have callback() called when the loop is given something to do while nobody drives it: by\n"
"call_soon_threadsafe(), by the end of a call of to_thread(), or as a task is made, cancelled\n"
"or woken. So whoever drives it by step() may sleep until next_wake_time(). None: nobody is\n"
"told any more. Return the former callback, or None.\n"
"\n"
"It is called in whichever thread that happens, at once if there are calls already that the\n"
"loop has yet to make, and at most once from one step() to the next. It should see to it that\n"
"step() is called soon, as by asyncio's call_soon_threadsafe(). It must not raise: what it\n"
"raises goes to sys.unraisablehook, and what the loop has been given stays. It may be called\n"
"for nothing. The end of the run drops it.\n"
"\n"
"Raises TypeError for what cannot be called, and LoopClosedError after the run.\n"
"\n"
">>> import sleeploop\n"
">>> loop = sleeploop.SleepingLoop()\n"
">>> loop.set_wakeup(lambda: print('there is something to do'))\n"
">>> for i in range(2):\n"
"...     loop.call_soon_threadsafe(print, 'call', i)\n"
"there is something to do\n"
">>> loop.step()\n"
"call 0\n"
"call 1\n"
"True\n"
">>> loop.close()\n");

static PyObject *
loop_py_set_wakeup(PyObject *op, PyObject *callback)
{
    LoopObject *loop = (LoopObject *)op;
    if (callback != Py_None && !PyCallable_Check(callback)) {
        raise_about(PyExc_TypeError, "%s takes a function or None, not %U%s", "set_wakeup()",
                    callback, "");
        return NULL;
    }
    if (callback != Py_None && loop_check_usable(loop, "set_wakeup()") < 0) {
        return NULL;
    }
    loop->state->driven = 1;
    PyObject *old = loop_set_driver(loop, callback != Py_None ? callback : NULL);
    if (loop->wakeup != NULL && loop->calls != NULL) {
        loop_tell_driver(loop);
    }
    return old != NULL ? old : Py_NewRef(Py_None);
}

PyDoc_STRVAR(loop_random_doc,
"random($self, name, /)\n--\n\n"
"The stream of random numbers of that name, a random.Random, seeded with the loop's\n"
"`seed` and the name: each name has its own, whichever is asked for first and however\n"
"much is drawn from the others. The same object each time.\n"
"\n"
"Raises TypeError if name is no str.\n"
"\n"
">>> import sleeploop\n"
">>> a, b = sleeploop.SleepingLoop(seed=1), sleeploop.SleepingLoop(seed=1)\n"
">>> a.random('arrivals').random(), a.random('service').random()\n"
"(0.5567104043161017, 0.6604138987165914)\n"
">>> b.random('service').random(), b.random('arrivals').random()\n"
"(0.6604138987165914, 0.5567104043161017)\n");

static PyObject *
loop_py_random(PyObject *op, PyObject *name)
{
    LoopObject *loop = (LoopObject *)op;
    if (!PyUnicode_Check(name)) {
        raise_about(PyExc_TypeError, "%s takes the name of a stream, a str, not %U%s", "random()",
                    name, "");
        return NULL;
    }
    if (loop->initialised != LOOP_MADE) {
        PyErr_SetString(PyExc_RuntimeError, "SleepingLoop.__init__() was not called");
        return NULL;
    }
    PyObject *key = PyUnicode_FromObject(name);  /* an exact str: to look it up runs no Python */
    PyObject *stream = NULL, *module = NULL, *seed = NULL;
    if (key == NULL || (loop->streams == NULL && (loop->streams = PyDict_New()) == NULL)) {
        goto done;
    }
    stream = PyDict_GetItemWithError(loop->streams, key);
    if (stream != NULL || PyErr_Occurred()) {
        Py_XINCREF(stream);
        goto done;
    }
    /* A str as seed: random.seed() takes its SHA-512, the same in every version of Python. */
    module = import_module("random");
    seed = module != NULL ? PyUnicode_FromFormat("%S %U", loop->seed, key) : NULL;
    PyObject *made = seed != NULL ? PyObject_CallMethod(module, "Random", "O", seed) : NULL;
    if (made != NULL) {
        stream = PyDict_SetDefault(loop->streams, key, made);  /* another thread may have been here */
        Py_XINCREF(stream);
        Py_DECREF(made);
    }
done:
    Py_XDECREF(seed);
    Py_XDECREF(module);
    Py_XDECREF(key);
    return stream;
}

/* ---- attributes ------------------------------------------------------------------------------ */

static PyObject *
loop_get_speed(PyObject *op, void *Py_UNUSED(closure))
{
    return PyFloat_FromDouble(((LoopObject *)op)->clock.speed);
}

/* loop.speed = ... */
static int
loop_set_speed(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    LoopObject *loop = (LoopObject *)op;
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "speed cannot be deleted");
        return -1;
    }
    double speed = PyFloat_AsDouble(value);
    if (speed_check(SPEED_MUST, value, speed, 1) < 0 || loop_check_usable(loop, "speed") < 0
        || loop_need_thread(loop, "setting speed") < 0) {
        return -1;
    }
    clock_set_speed(&loop->clock, speed);
    if (loop->wall_origin == WALL_AT_START) {  /* not begun yet */
        loop->wall_is_system = loop->clock.mode == CLOCK_REAL;
    }
    else if (loop->wall_is_system && loop->clock.mode != CLOCK_REAL) {
        loop->wall_is_system = 0;  /* for good: from here on it is told by loop time */
        loop->wall_origin = wall_now() - clock_now(&loop->clock) / NS_PER_US;
    }
    loop_rouse_suspended(loop);
    return 0;
}

static PyObject *
loop_get_lag(PyObject *op, void *Py_UNUSED(closure))
{
    LoopObject *loop = (LoopObject *)op;
    int64_t when, now = clock_now(&loop->clock), lag = loop->lag;
    if (timerheap_next(&loop->timers, &when) && now - when > lag) {
        lag = now - when;
    }
    return seconds_object(lag);
}

static PyObject *
loop_get_schedule(PyObject *op, void *Py_UNUSED(closure))
{
    const struct shuffle *shuffle = ((LoopObject *)op)->shuffle;
    if (shuffle == NULL) {
        Py_RETURN_NONE;
    }
    if (shuffle->lost) {
        return PyErr_NoMemory();
    }
    size_t n = shuffle->made;
    PyObject *schedule = PyTuple_New((Py_ssize_t)n);
    for (size_t i = 0; schedule != NULL && i < n; i++) {
        PyObject *choice = PyLong_FromLong(shuffle->choices[i]);
        if (choice == NULL) {
            Py_CLEAR(schedule);
            break;
        }
        PyTuple_SET_ITEM(schedule, (Py_ssize_t)i, choice);
    }
    return schedule;
}

static PyObject *
loop_get_debug(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((LoopObject *)op)->debug);
}

static PyObject *
loop_get_trace(PyObject *op, void *Py_UNUSED(closure))
{
    if (((LoopObject *)op)->trace == NULL) {
        Py_RETURN_NONE;
    }
    PyObject *module = import_module("sleeploop.tracing");
    PyObject *trace = module != NULL ? PyObject_CallMethod(module, "Trace", "O", op) : NULL;
    Py_XDECREF(module);
    return trace;
}

static PyGetSetDef loop_getset[] = {
    {"speed", loop_get_speed, loop_set_speed,
     PyDoc_STR("How fast loop time passes, a float. Can be set, also during the run: 0 pauses,\n"
               "inf jumps from wake-up to wake-up. Loop time goes on from where it stands.\n"
               "Raises TypeError or ValueError for what is no speed, LoopClosedError after the\n"
               "run, and RuntimeError in another thread than the one that runs the loop."),
     NULL},
    {"lag", loop_get_lag, NULL,
     PyDoc_STR("How far the loop is behind its schedule, seconds of loop time, a float: by how\n"
               "much the oldest timer is late that has fired in this pass, or is due. 0.0 in\n"
               "virtual time."),
     NULL},
    {"schedule", loop_get_schedule, NULL,
     PyDoc_STR("With shuffle=: the choices made so far, a tuple of ints, one for each moment at\n"
               "which several tasks were ready: which of them went next, 0 for the first. As\n"
               "shuffle= of another loop it makes the same ones. Else None."),
     NULL},
    {"debug", loop_get_debug, NULL,
     PyDoc_STR("Whether tasks remember where they were made, and slow steps are logged."), NULL},
    {"trace", loop_get_trace, NULL,
     PyDoc_STR("What has happened so far, a sleeploop.tracing.Trace; None without trace=."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

#endif /* SLEEPLOOP_API_LOOPMEMBERS_H */
