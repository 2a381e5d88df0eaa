/* loop.h: the SleepingLoop type. */
#ifndef SLEEPLOOP_LOOP_H
#define SLEEPLOOP_LOOP_H

#include "group.h"
#include "run.h"
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
    return (PyObject *)loop;
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

/* What loop time 0 stands for. A fixed moment at speed inf, so that two runs tell
 * the same; the wall clock itself at speed 1; else where that stands at the start. */
static int
start_from_object(ModuleState *state, PyObject *start, double speed, int64_t *wall_origin)
{
    PyObject *fixed = NULL;
    if (start != NULL && start != Py_None) {
        if (!is_datetime(state, start)) {
            raise_about(PyExc_TypeError, "%s must be a datetime, not %U%s", "start", start, "");
            return -1;
        }
        fixed = Py_NewRef(start);
    }
    else if (isinf(speed)) {
        fixed = PyObject_CallFunction(state->datetime_type, "iii", 2000, 1, 1);
        if (fixed == NULL) {
            return -1;
        }
    }
    else {
        *wall_origin = WALL_AT_START;
        return 0;
    }
    int rc = wall_from_datetime(state, fixed, wall_origin);
    if (rc == 0 && (*wall_origin < WALL_MIN || *wall_origin > WALL_MAX)) {
        raise_about(PyExc_ValueError, "%s: %U is too near to an end of the calendar%s", "start",
                    fixed, "");
        rc = -1;
    }
    Py_DECREF(fixed);
    return rc;
}

static int
loop_init(LoopObject *loop, PyObject *coros, PyObject *speed_obj, PyObject *start,
          PyObject *debug_obj, int main_only)
{
    double speed;
    int64_t wall_origin;
    int debug;
    /* Python code, which may call __init__() itself: nothing is changed before it is over. */
    if (speed_from_object(speed_obj, &speed) < 0 || debug_from_object(debug_obj, &debug) < 0
        || start_from_object(loop->state, start, speed, &wall_origin) < 0
        || check_coroutines(loop->state, coros) < 0) {
        return -1;
    }
    if (loop->initialised) {
        PyErr_SetString(PyExc_RuntimeError, "SleepingLoop.__init__() was called before");
        return -1;
    }
    PyObject *roots = PyTuple_New(PyTuple_GET_SIZE(coros));
    if (roots == NULL) {
        return -1;
    }
    loop->initialised = LOOP_HALF_MADE;
    loop->debug = (uint8_t)debug;
    clock_init(&loop->clock, speed);
    loop->wall_origin = wall_origin;
    loop->wall_is_system = wall_origin == WALL_AT_START && loop->clock.mode == CLOCK_REAL;
    loop->main_only = (uint8_t)main_only;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(coros); i++) {
        TaskObject *task = loop_spawn(loop, PyTuple_GET_ITEM(coros, i), NULL, NULL, loop->root,
                                      TASK_ROOT);
        if (task == NULL) {
            loop_discard_tasks(loop);
            loop->initialised = 0;
            Py_DECREF(roots);
            return -1;
        }
        PyTuple_SET_ITEM(roots, i, (PyObject *)task);
    }
    loop->roots = roots;
    loop->initialised = LOOP_MADE;
    return 0;
}

static int
loop_tp_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"speed", "start", "debug", NULL};
    PyObject *speed = NULL, *start = NULL, *debug = NULL;
    PyObject *none = PyTuple_New(0);  /* the coroutines take all positions */
    if (none == NULL) {
        return -1;
    }
    int ok = PyArg_ParseTupleAndKeywords(none, kwargs, "|$OOO:SleepingLoop", names, &speed, &start,
                                         &debug);
    Py_DECREF(none);
    return ok ? loop_init((LoopObject *)op, args, speed, start, debug, 0) : -1;
}

/* ---- methods --------------------------------------------------------------------------------- */

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
loop_py_run_until_complete(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    LoopObject *loop = (LoopObject *)op;
    if (loop_check_runnable(loop, "run_until_complete()") < 0) {
        return NULL;
    }
    Py_INCREF(loop);  /* whatever runs may drop the caller's */
    PyObject *results = loop_run(loop);
    Py_DECREF(loop);
    return results;
}

/* 0 if a task can be added here and now. */
static int
loop_check_accepts(LoopObject *loop)
{
    if (loop->initialised != LOOP_MADE) {
        PyErr_SetString(PyExc_RuntimeError, "SleepingLoop.__init__() was not called");
        return -1;
    }
    if (loop->phase == LOOP_CLOSED) {
        PyErr_SetString(loop->state->LoopClosedError,
                        "create_task(): this loop has run already; make a new SleepingLoop");
        return -1;
    }
    return loop_need_thread(loop, "create_task()");
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
        || loop_check_accepts(loop) < 0  /* after them: they run Python */
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

/* ---- attributes, repr, life ------------------------------------------------------------------ */

static PyObject *
loop_get_speed(PyObject *op, void *Py_UNUSED(closure))
{
    return PyFloat_FromDouble(((LoopObject *)op)->clock.speed);
}

static PyObject *
loop_get_debug(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((LoopObject *)op)->debug);
}

static PyObject *
loop_tp_repr(PyObject *op)
{
    static const char *const phases[] = {"not started", "running", "cancelling", "finalizing",
                                         "closed"};
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
    return 0;
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
    Py_XDECREF(loop->root);  /* not in tp_clear: its tasks may outlive that */
    idle_close(&loop->idle);
    timeq_clear(&loop->timers);
    type->tp_free(op);
    Py_DECREF(type);
}

PyDoc_STRVAR(loop_type_doc,
"SleepingLoop(*coros, speed=None, start=None, debug=None)\n--\n\n"
"An event loop for coroutines that sleep. It runs once, in one thread.\n"
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
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef loop_getset[] = {
    {"speed", loop_get_speed, NULL, PyDoc_STR("How fast loop time passes, a float."), NULL},
    {"debug", loop_get_debug, NULL,
     PyDoc_STR("Whether tasks remember where they were made, and slow steps are logged."), NULL},
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
