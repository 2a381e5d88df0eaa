/* loop.h: the SleepingLoop type. */
#ifndef SLEEPLOOP_LOOP_H
#define SLEEPLOOP_LOOP_H

#include "drive.h"
#include "group.h"
#include "options.h"
#include "stats.h"
#include "timeout.h"

/* ---- making one ------------------------------------------------------------------------------ */

static PyObject *
loop_tp_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    PyObject *module = PyType_GetModuleByDef(type, &sleeploop_module);
    if (module == NULL) {
        return NULL;
    }
    LoopObject *loop = (LoopObject *)type->tp_alloc(type, 0);  /* all zero */
    if (loop == NULL) {
        return NULL;
    }
    loop->state = PyModule_GetState(module);
    loop->number = ++loop->state->loops_made;
    loop->root = scope_new(loop->state);
    if (loop->root == NULL) {
        Py_DECREF(loop);
        return NULL;
    }
    loop->root->state = SCOPE_ENTERED;
    ring_init(&loop->ready);
    ring_init(&loop->live);
    ring_init(&loop->unseen);
    clock_init(&loop->clock, 1.0);
    loop->strict = TIME_FOREVER;
    return (PyObject *)loop;
}

/* Beware: may run Python, which finds no trace any more. */
static void
loop_drop_trace(LoopObject *loop)
{
    struct trace *trace = loop->trace;
    loop->trace = NULL;
    trace_free(trace);
}

static int
compare_pointers(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t)*(void *const *)a, y = (uintptr_t)*(void *const *)b;
    return (x > y) - (x < y);
}

/* Whether all of a tuple's items can be run, each once. 0, or -1 with an exception set. */
static int
check_coroutines(ModuleState *state, PyObject *coros)
{
    Py_ssize_t n = PyTuple_GET_SIZE(coros);
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *coro = PyTuple_GET_ITEM(coros, i);
        if (n == 1 && (PyList_Check(coro) || PyTuple_Check(coro))) {
            raise_about(PyExc_TypeError, "%s takes coroutines one by one, not %U%s",
                        "SleepingLoop()", coro, "; unpack it: SleepingLoop(*coros)");
            return -1;
        }
        if (check_coroutine(state, "SleepingLoop()", coro) < 0) {
            return -1;
        }
    }
    if (n < 2) {
        return 0;
    }
    PyObject **sorted = PyMem_New(PyObject *, n);
    if (sorted == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    memcpy(sorted, &PyTuple_GET_ITEM(coros, 0), (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, compare_pointers);
    PyObject *twice = NULL;
    for (Py_ssize_t i = 1; i < n && twice == NULL; i++) {
        twice = sorted[i] == sorted[i - 1] ? sorted[i] : NULL;
    }
    PyMem_Free(sorted);
    if (twice != NULL) {
        raise_about(PyExc_RuntimeError, "%s was given the same coroutine twice: %U%s",
                    "SleepingLoop()", twice, "");
        return -1;
    }
    return 0;
}

/* coros: a tuple. given: see options.h. */
static int
loop_init(LoopObject *loop, PyObject *coros, PyObject *const given[N_OPTIONS], int main_only)
{
    struct loop_options options;
    /* Python code, which may call __init__() itself: nothing is changed before it is over. */
    if (options_parse(loop->state, given, &options) < 0) {
        return -1;
    }
    PyObject *roots = NULL;
    if (check_coroutines(loop->state, coros) < 0) {
        goto failed;
    }
    roots = PyTuple_New(PyTuple_GET_SIZE(coros));
    if (roots == NULL) {
        goto failed;
    }
    if (loop->initialised) {
        PyErr_SetString(PyExc_RuntimeError, "SleepingLoop.__init__() was called before");
        goto failed;
    }
    loop->initialised = LOOP_HALF_MADE;
    loop->debug = (uint8_t)options.debug;
    clock_init(&loop->clock, options.speed);
    loop->wall_origin = options.wall_origin;
    loop->wall_is_system =
        options.wall_origin == WALL_AT_START && loop->clock.mode == CLOCK_REAL;
    loop->strict = options.strict;
    loop->trace = options.trace;
    loop->main_only = (uint8_t)main_only;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(coros); i++) {
        TaskObject *task = loop_spawn(loop, PyTuple_GET_ITEM(coros, i), NULL, NULL, loop->root,
                                      TASK_ROOT);
        if (task == NULL) {
            loop_discard_tasks(loop);
            loop->initialised = 0;
            loop->trace = NULL;
            goto failed;
        }
        PyTuple_SET_ITEM(roots, i, (PyObject *)task);
    }
    loop->roots = roots;
    loop->seed = options.seed;
    loop->shuffle = options.shuffle;
    loop->initialised = LOOP_MADE;
    return 0;
failed:
    Py_XDECREF(roots);
    options_clear(&options);
    return -1;
}

static int
loop_tp_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {OPTION_NAMES, NULL};
    PyObject *given[N_OPTIONS] = {NULL};
    PyObject *none = PyTuple_New(0);  /* the coroutines take all positions */
    if (none == NULL) {
        return -1;
    }
    int ok = PyArg_ParseTupleAndKeywords(none, kwargs, "|$OOOOOOO:SleepingLoop", names,
                                         &given[0], &given[1], &given[2], &given[3], &given[4],
                                         &given[5], &given[6]);
    Py_DECREF(none);
    return ok ? loop_init((LoopObject *)op, args, given, 0) : -1;
}

/* ---- methods --------------------------------------------------------------------------------- */

/* 0 if the loop has not come to its end. */
static int
loop_check_usable(LoopObject *loop, const char *function)
{
    if (loop->initialised != LOOP_MADE) {
        PyErr_SetString(PyExc_RuntimeError, "SleepingLoop.__init__() was not called");
        return -1;
    }
    if (loop->phase == LOOP_CLOSED) {
        PyErr_Format(loop->state->LoopClosedError,
                     "%s: this loop has run already; make a new SleepingLoop", function);
        return -1;
    }
    return 0;
}

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

PyDoc_STRVAR(loop_call_soon_threadsafe_doc,
"call_soon_threadsafe($self, function, /, *args)\n--\n\n"
"Have the loop call function(*args), in its own thread, in its next pass; the one thing\n"
"that another thread may do with a loop. Wakes the loop if it waits. Calls come in the\n"
"order in which they were given, in a copy of the caller's context. What the function\n"
"returns is dropped; what it raises ends the run, as in a signal handler.\n"
"\n"
"A loop in virtual time knows nothing of a thread that has yet to call: it goes on, or\n"
"reports a deadlock. Use to_thread() for a result that it is to wait for.\n"
"\n"
"Raises TypeError for what cannot be called, and LoopClosedError after the run.\n"
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
    PyObject *context = PyContext_CopyCurrent();
    PyObject *call = context != NULL ? call_pack(context, args, n_args) : NULL;
    Py_XDECREF(context);
    PyObject *new_list = call != NULL ? PyList_New(0) : NULL;
    int rc = new_list == NULL || loop_check_usable(loop, "call_soon_threadsafe()") < 0
                     || loop_add_call(loop, call, new_list) < 0
                 ? -1
                 : 0;
    Py_XDECREF(new_list);
    Py_XDECREF(call);
    return rc == 0 ? Py_NewRef(Py_None) : NULL;
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
    module = PyImport_ImportModule("random");
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

/* ---- attributes, repr, life ------------------------------------------------------------------ */

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
    if (speed_check("speed", value, speed, 1) < 0 || loop_check_usable(loop, "speed") < 0
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
    return 0;
}

static PyObject *
loop_get_lag(PyObject *op, void *Py_UNUSED(closure))
{
    LoopObject *loop = (LoopObject *)op;
    int64_t when, now = clock_now(&loop->clock), lag = loop->lag;
    if (timeq_next(&loop->timers, &when) && now - when > lag) {
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
    PyObject *module = PyImport_ImportModule("sleeploop.tracing");
    PyObject *trace = module != NULL ? PyObject_CallMethod(module, "Trace", "O", op) : NULL;
    Py_XDECREF(module);
    return trace;
}

static PyObject *
loop_tp_repr(PyObject *op)
{
    static const char *const phases[] = {"not started", "suspended",  "running",
                                         "cancelling",  "finalizing", "closed"};
    LoopObject *loop = (LoopObject *)op;
    PyObject *time = seconds_object(clock_now(&loop->clock));
    PyObject *speed = loop_get_speed(op, NULL);
    PyObject *repr = NULL;
    if (time != NULL && speed != NULL) {
        Py_ssize_t n = 0;
        for (struct link *l = loop->live.next; l != &loop->live; l = l->next) {
            n += !(TASK_OF_REGISTERED(l)->flags & TASK_HIDDEN);
        }
        repr = PyUnicode_FromFormat("<%s %s at %R s, speed %R, %zd task%s>",
                                    Py_TYPE(op)->tp_name, phases[loop->phase], time, speed, n,
                                    n == 1 ? "" : "s");
    }
    Py_XDECREF(speed);
    Py_XDECREF(time);
    return repr;
}

static int
loop_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    LoopObject *loop = (LoopObject *)op;
    Py_VISIT(Py_TYPE(op));
    if (loop->live.next != NULL) {  /* NULL: tp_alloc has only just tracked it */
        for (struct link *l = loop->live.next; l != &loop->live; l = l->next) {
            Py_VISIT(TASK_OF_REGISTERED(l));
        }
    }
    Py_VISIT(loop->root);
    Py_VISIT(loop->roots);
    Py_VISIT(loop->errors);
    Py_VISIT(loop->unlisted);
    Py_VISIT(loop->asyncgens);
    Py_VISIT(loop->created);
    Py_VISIT(loop->calls);
    Py_VISIT(loop->streams);
    Py_VISIT(loop->executor);
    return 0;
}

static int
loop_tp_clear(PyObject *op)
{
    LoopObject *loop = (LoopObject *)op;
    loop->phase = LOOP_CLOSED;
    if (loop->live.next != NULL) {
        loop_discard_tasks(loop);
    }
    Py_CLEAR(loop->errors);
    Py_CLEAR(loop->unlisted);
    Py_CLEAR(loop->asyncgens);
    Py_CLEAR(loop->created);
    Py_CLEAR(loop->calls);
    Py_CLEAR(loop->streams);
    Py_CLEAR(loop->executor);
    return 0;
}

/* A loop that was neither run to its end nor closed is garbage. */
static void
loop_tp_finalize(PyObject *op)
{
    LoopObject *loop = (LoopObject *)op;
    if (!ring_empty(&loop->live)) {
        loop_drop(loop);
    }
}

static void
loop_tp_dealloc(PyObject *op)
{
    LoopObject *loop = (LoopObject *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (loop->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    (void)loop_tp_clear(op);
    loop_drop_trace(loop);
    Py_XDECREF(loop->root);  /* not in tp_clear: its tasks may outlive that */
    Py_XDECREF(loop->seed);
    shuffle_free(loop->shuffle);
    idle_close(&loop->idle);
    timeq_clear(&loop->timers);
    type->tp_free(op);
    Py_DECREF(type);
}

PyDoc_STRVAR(loop_type_doc,
"SleepingLoop(*coros, speed=None, start=None, debug=None, seed=0, strict=None,\n"
"             shuffle=None, trace=None)\n--\n\n"
"An event loop for coroutines that sleep. It runs once, in one thread at a time.\n"
"\n"
"coros: coroutines, or anything with send, throw and close.\n"
"speed: how fast loop time passes: 1.0 is real time, 60 a minute a second,\n"
"    math.inf as fast as the machine can go: whenever nothing can run, the clock\n"
"    jumps to the next wake-up. The default is the environment variable\n"
"    SLEEPLOOP_SPEED, or else 1.0.\n"
"start: the datetime that loop time 0 stands for (naive: local time). The\n"
"    default is the wall clock, and at speed inf the first of January 2000.\n"
"debug: each task remembers where it was made, and a step that holds the loop for\n"
"    more than 100 ms is logged while it does. The default is the environment\n"
"    variable SLEEPLOOP_DEBUG, 1 or 0, or else False.\n"
"seed: an int, from which the streams of random() and the jitter of every() are made.\n"
"strict: seconds of loop time, or a timedelta: the run fails with LagError once the\n"
"    loop is further behind its schedule than that.\n"
"shuffle: an int: of several tasks that are ready the next one is drawn at random,\n"
"    with this seed, instead of first in, first out; or the `schedule` of another\n"
"    loop, to draw the same again.\n"
"trace: True, or how many events to keep: `trace` then tells what the tasks did, the\n"
"    last 100,000 events or as many.\n"
"\n"
"Raises TypeError for what is no coroutine, speed or datetime, ValueError for a\n"
"speed that is not positive, and RuntimeError for a coroutine that has been\n"
"started elsewhere or is given twice; nothing has been started then.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def countdown(name, n, delay=0):\n"
"...     await sleeploop.sleep(delay)\n"
"...     while n > 0:\n"
"...         print(name, n)\n"
"...         await sleeploop.sleep(1)\n"
"...         n -= 1\n"
">>> loop = sleeploop.SleepingLoop(countdown('A', 2), countdown('B', 1, delay=1), speed=math.inf)\n"
">>> loop.run_until_complete()\n"
"A 2\n"
"B 1\n"
"A 1\n"
"[None, None]\n"
">>> loop\n"
"<sleeploop.SleepingLoop closed at 2.0 s, speed inf, 0 tasks>\n");

static PyMethodDef loop_methods[] = {
    {"run_until_complete", loop_py_run_until_complete, METH_NOARGS, loop_run_until_complete_doc},
    {"create_task", (PyCFunction)(void (*)(void))loop_py_create_task,
     METH_FASTCALL | METH_KEYWORDS, loop_create_task_doc},
    {"time", loop_py_time, METH_NOARGS, loop_time_doc},
    {"time_ns", loop_py_time_ns, METH_NOARGS, loop_time_ns_doc},
    {"now", (PyCFunction)(void (*)(void))loop_py_now, METH_FASTCALL | METH_KEYWORDS, loop_now_doc},
    {"tasks", loop_py_tasks, METH_NOARGS, loop_tasks_doc},
    {"stats", loop_py_stats, METH_NOARGS, loop_stats_doc},
    {"run_until", loop_py_run_until, METH_O, loop_run_until_doc},
    {"step", loop_py_step, METH_NOARGS, loop_step_doc},
    {"next_wake_time", loop_py_next_wake_time, METH_NOARGS, loop_next_wake_time_doc},
    {"close", loop_py_close, METH_NOARGS, loop_close_doc},
    {"call_soon_threadsafe", (PyCFunction)(void (*)(void))loop_py_call_soon_threadsafe,
     METH_FASTCALL, loop_call_soon_threadsafe_doc},
    {"random", loop_py_random, METH_O, loop_random_doc},
    {NULL, NULL, 0, NULL},
};

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

static PyMemberDef loop_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(LoopObject, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot loop_slots[] = {
    {Py_tp_doc, (void *)loop_type_doc},
    {Py_tp_new, loop_tp_new},
    {Py_tp_init, loop_tp_init},
    {Py_tp_dealloc, loop_tp_dealloc},
    {Py_tp_finalize, loop_tp_finalize},
    {Py_tp_traverse, loop_tp_traverse},
    {Py_tp_clear, loop_tp_clear},
    {Py_tp_repr, loop_tp_repr},
    {Py_tp_methods, loop_methods},
    {Py_tp_getset, loop_getset},
    {Py_tp_members, loop_members},
    {0, NULL},
};

static PyType_Spec loop_spec = {
    .name = "sleeploop.SleepingLoop",
    .basicsize = sizeof(LoopObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = loop_slots,
};

#endif /* SLEEPLOOP_LOOP_H */
