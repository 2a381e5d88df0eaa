/* options.h: the arguments of SleepingLoop() and run(), all of them checked before any has
 * an effect.
 */
#ifndef SLEEPLOOP_API_OPTIONS_H
#define SLEEPLOOP_API_OPTIONS_H

#include "../base/clock.h"
#include "../base/compat.h"
#include "../base/shuffle.h"
#include "../core/args.h"
#include "../core/loopobject.h"
#include "../core/state.h"
#include "../core/trace.h"
#include "../core/walltime.h"

/* As they are given, borrowed; NULL: not. In the order of OPTION_NAMES. */
enum { OPTION_SPEED, OPTION_START, OPTION_DEBUG, OPTION_SEED, OPTION_STRICT, OPTION_SHUFFLE,
       OPTION_TRACE, N_OPTIONS };
#define OPTION_NAMES "speed", "start", "debug", "seed", "strict", "shuffle", "trace"

struct loop_options {
    double speed;
    int64_t wall_origin;
    int debug;
    PyObject *seed;           /* owned int */
    int64_t strict;           /* nanoseconds; TIME_FOREVER: it is not */
    struct shuffle *shuffle;  /* owned, or NULL */
    struct trace *trace;      /* owned, or NULL */
};

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

/* New int, an exact one, whose methods are its own. obj has an __index__(). Beware: runs it. */
static PyObject *
index_exact(PyObject *obj)
{
    PyObject *index = PyNumber_Index(obj);
    PyObject *number = index != NULL ? PyNumber_Long(index) : NULL;
    Py_XDECREF(index);
    return number;
}

/* seed=: an int that can be written down (sys.get_int_max_str_digits()), as loop.random() does.
 * New reference in *seed. */
static int
seed_from_object(PyObject *obj, PyObject **seed)
{
    int overflow = 0;
    if (obj == NULL || obj == Py_None) {
        *seed = PyLong_FromLong(0);
    }
    else if (!PyIndex_Check(obj)) {
        raise_about(PyExc_TypeError, "%s must be an int, not %U%s", "seed", obj, "");
        return -1;
    }
    else {
        *seed = index_exact(obj);
    }
    if (*seed != NULL) {
        (void)PyLong_AsLongLongAndOverflow(*seed, &overflow);
    }
    PyObject *text = overflow != 0 ? PyObject_Str(*seed) : NULL;
    if (overflow != 0 && text == NULL) {
        Py_CLEAR(*seed);
    }
    Py_XDECREF(text);
    return *seed != NULL ? 0 : -1;
}

/* strict=: seconds or a timedelta, not negative. */
static int
strict_from_object(ModuleState *state, PyObject *obj, int64_t *ns)
{
    *ns = TIME_FOREVER;
    if (obj == NULL || obj == Py_None) {
        return 0;
    }
    if (delay_from_object(state, "strict", obj, ns) < 0) {
        return -1;
    }
    if (*ns < 0) {
        raise_about(PyExc_ValueError, "%s must not be negative, as %U is%s", "strict", obj, "");
        return -1;
    }
    return 0;
}

/* Fills the choices from a tuple of ints. */
static int
shuffle_fill(struct shuffle *shuffle, PyObject *choices)
{
    Py_ssize_t n = PyTuple_GET_SIZE(choices);
    shuffle->choices = PyMem_New(uint16_t, n > 0 ? (size_t)n : 1);
    if (shuffle->choices == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    shuffle->len = shuffle->cap = (size_t)n;
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *item = PyTuple_GET_ITEM(choices, i);
        int overflow = 0;
        long choice = PyLong_Check(item) ? PyLong_AsLongAndOverflow(item, &overflow) : -1;
        if (choice < 0 || overflow || choice > UINT16_MAX) {
            raise_about(PyLong_Check(item) ? PyExc_ValueError : PyExc_TypeError,
                        "%s takes choices of 0 to 65535, not %U%s", "shuffle", item, "");
            return -1;
        }
        shuffle->choices[i] = (uint16_t)choice;
    }
    return 0;
}

/* shuffle=: an int, the seed; or the choices themselves, as loop.schedule tells them. */
static int
shuffle_from_object(PyObject *obj, struct shuffle **out)
{
    *out = NULL;
    if (obj == NULL || obj == Py_None) {
        return 0;
    }
    PyObject *choices = NULL, *seed = NULL;
    if (!PyIndex_Check(obj) || PyBool_Check(obj)) {  /* a bool would be a seed that nobody means */
        choices = PyList_Check(obj) || PyTuple_Check(obj) ? PySequence_Tuple(obj) : NULL;
        if (choices == NULL) {
            if (!PyErr_Occurred()) {
                raise_about(PyExc_TypeError,
                            "%s must be an int, the seed, or a list or tuple of choices, not %U%s",
                            "shuffle", obj, "");
            }
            return -1;
        }
    }
    else if ((seed = index_exact(obj)) == NULL) {
        return -1;
    }
    struct shuffle *shuffle = PyMem_Calloc(1, sizeof *shuffle);
    int rc = shuffle != NULL ? 0 : -1;
    if (shuffle == NULL) {
        PyErr_NoMemory();
    }
    else if (choices != NULL) {
        rc = shuffle_fill(shuffle, choices);
    }
    else {
        shuffle->drawn = 1;
        shuffle->state = PyLong_AsUnsignedLongLongMask(seed);
        rc = PyErr_Occurred() ? -1 : 0;
    }
    Py_XDECREF(choices);
    Py_XDECREF(seed);
    if (rc < 0) {
        shuffle_free(shuffle);
        return -1;
    }
    *out = shuffle;
    return 0;
}

#define TRACE_DEFAULT 100000  /* events, of trace=True */

/* trace=: how many events to keep; NULL, None, False and 0: none. */
static int
trace_capacity_from_object(PyObject *obj, size_t *capacity)
{
    int overflow = 0;
    *capacity = 0;
    if (obj == NULL || obj == Py_None) {
        return 0;
    }
    if (!PyIndex_Check(obj)) {
        raise_about(PyExc_TypeError,
                    "%s must be None, a bool or the number of events to keep, not %U%s", "trace",
                    obj, "");
        return -1;
    }
    PyObject *number = index_exact(obj);
    if (number == NULL) {
        return -1;
    }
    long long n =
        obj == Py_True ? TRACE_DEFAULT : PyLong_AsLongLongAndOverflow(number, &overflow);
    Py_DECREF(number);
    if (overflow != 0 || n < 0 || n > TRACE_MAX) {
        raise_about(PyExc_ValueError, "%s must be from 0 to 2**31 events, not %U%s", "trace", obj,
                    "");
        return -1;
    }
    *capacity = (size_t)n;
    return 0;
}

static int
trace_from_object(ModuleState *state, PyObject *obj, struct trace **trace)
{
    size_t capacity;
    *trace = NULL;
    if (trace_capacity_from_object(obj, &capacity) < 0) {
        return -1;
    }
    if (obj == NULL || obj == Py_None) {
        capacity = state->trace_capacity;
    }
    if (capacity == 0) {
        return 0;
    }
    PyObject *module = import_module("sleeploop._stacks");
    PyObject *package = module != NULL ? PyObject_GetAttrString(module, "PACKAGE") : NULL;
    Py_XDECREF(module);
    if (package == NULL || !PyUnicode_Check(package)) {
        Py_XDECREF(package);
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "sleeploop._stacks.PACKAGE must be a str");
        }
        return -1;
    }
    *trace = trace_new(capacity, package);
    Py_DECREF(package);
    if (*trace == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

static void
options_clear(struct loop_options *options)
{
    Py_CLEAR(options->seed);
    shuffle_free(options->shuffle);
    trace_free(options->trace);
    options->shuffle = NULL;
    options->trace = NULL;
}

/* 0, or -1 with TypeError, ValueError or MemoryError; then there is nothing to clear.
 * Beware: may run Python. */
static int
options_parse(ModuleState *state, PyObject *const given[N_OPTIONS], struct loop_options *options)
{
    *options = (struct loop_options){0};
    if (speed_from_object(given[OPTION_SPEED], &options->speed) < 0
        || debug_from_object(given[OPTION_DEBUG], &options->debug) < 0
        || start_from_object(state, given[OPTION_START], options->speed,
                             &options->wall_origin) < 0
        || strict_from_object(state, given[OPTION_STRICT], &options->strict) < 0
        || seed_from_object(given[OPTION_SEED], &options->seed) < 0
        || shuffle_from_object(given[OPTION_SHUFFLE], &options->shuffle) < 0
        || trace_from_object(state, given[OPTION_TRACE], &options->trace) < 0) {
        options_clear(options);
        return -1;
    }
    return 0;
}

#endif /* SLEEPLOOP_API_OPTIONS_H */
