/* loop.h: the SleepingLoop type. */
#ifndef SLEEPLOOP_API_LOOP_H
#define SLEEPLOOP_API_LOOP_H

#include "drive.h"
#include "loopmembers.h"
#include "options.h"
#include "stats.h"
#include "../base/clock.h"
#include "../base/compat.h"
#include "../base/ring.h"
#include "../base/shuffle.h"
#include "../base/timerheap.h"
#include "../core/args.h"
#include "../core/loopobject.h"
#include "../core/pool.h"
#include "../core/ready.h"
#include "../core/scopeobject.h"
#include "../core/scopetree.h"
#include "../core/state.h"
#include "../core/stopwatch.h"
#include "../core/taskobject.h"
#include "../core/trace.h"
#include "../poll/idle.h"
#include "../run/abandon.h"
#include "../run/run.h"

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
    ring_init(&loop->stopwatches);
    ring_init(&loop->locks);
    ring_init(&loop->unseen_others);  /* all three before anything can fail: see tp_dealloc */
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
    PyObject **sorted = PyMem_New(PyObject *, (size_t)n);
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

/* ---- repr, life ------------------------------------------------------------------------------ */

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
    Py_VISIT(loop->interrupts);
    Py_VISIT(loop->callbacks);
    Py_VISIT(loop->created);
    Py_VISIT(loop->calls);
    Py_VISIT(loop->streams);
    Py_VISIT(loop->pool.executor);
    Py_VISIT(loop->wakeup);
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
    Py_CLEAR(loop->interrupts);
    Py_CLEAR(loop->callbacks);
    Py_CLEAR(loop->created);
    Py_CLEAR(loop->calls);
    Py_CLEAR(loop->streams);
    pool_drop(&loop->pool);
    Py_CLEAR(loop->wakeup);
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
    loop_forget(loop);
    if (loop->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    (void)loop_tp_clear(op);
    if (loop->stopwatches.next != NULL) {
        loop_stop_watches(loop);
    }
    while (ring_pop(&loop->locks) != NULL || ring_pop(&loop->unseen_others) != NULL) {
    }
    loop_drop_trace(loop);
    Py_XDECREF(loop->root);  /* not in tp_clear: its tasks may outlive that */
    Py_XDECREF(loop->seed);
    shuffle_free(loop->shuffle);
    idle_close(&loop->idle);
    timerheap_clear(&loop->timers);
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
    {"run_until_complete", (PyCFunction)(void (*)(void))loop_py_run_until_complete,
     METH_FASTCALL, loop_run_until_complete_doc},
    {"create_task", (PyCFunction)(void (*)(void))loop_py_create_task,
     METH_FASTCALL | METH_KEYWORDS, loop_create_task_doc},
    {"time", loop_py_time, METH_NOARGS, loop_time_doc},
    {"time_ns", loop_py_time_ns, METH_NOARGS, loop_time_ns_doc},
    {"now", (PyCFunction)(void (*)(void))loop_py_now, METH_FASTCALL | METH_KEYWORDS, loop_now_doc},
    {"tasks", loop_py_tasks, METH_NOARGS, loop_tasks_doc},
    {"stats", loop_py_stats, METH_NOARGS, loop_stats_doc},
    {"reset_stats", loop_py_reset_stats, METH_NOARGS, loop_reset_stats_doc},
    {"run_until", loop_py_run_until, METH_O, loop_run_until_doc},
    {"step", loop_py_step, METH_NOARGS, loop_step_doc},
    {"next_wake_time", loop_py_next_wake_time, METH_NOARGS, loop_next_wake_time_doc},
    {"close", loop_py_close, METH_NOARGS, loop_close_doc},
    {"set_wakeup", loop_py_set_wakeup, METH_O, loop_set_wakeup_doc},
    {"call_soon_threadsafe", (PyCFunction)(void (*)(void))loop_py_call_soon_threadsafe,
     METH_FASTCALL, loop_call_soon_threadsafe_doc},
    {"random", loop_py_random, METH_O, loop_random_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef loop_members[] = {
    {"__weaklistoffset__", Py_T_PYSSIZET, offsetof(LoopObject, weakrefs), Py_READONLY, NULL},
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

#endif /* SLEEPLOOP_API_LOOP_H */
