/* meter.h: statistics of what tasks wait at: a level over time, and how long waits took.
 *
 * Only for objects that were made with stats=True; the others pay a look at a pointer. Times are
 * loop time in nanoseconds, read by whoever calls.
 */
#ifndef SLEEPLOOP_METER_H
#define SLEEPLOOP_METER_H

#include "sync.h"

/* How much there is of something. */
struct level_meter {
    int64_t began, last;  /* when the count began; when the level changed last */
    double area;          /* the integral of the level from `began` to `last`, in nanoseconds */
    double now, max;
};

/* How long those waited who have got something. */
struct wait_meter {
    uint64_t count, waited;  /* all of them; those who did not get it at once */
    double total;            /* nanoseconds: of many who wait long, more than 64 bits hold */
    int64_t max;
};

static inline void
level_meter_init(struct level_meter *meter, int64_t now, double level)
{
    *meter = (struct level_meter){.began = now, .last = now, .now = level, .max = level};
}

static inline void
level_meter_set(struct level_meter *meter, int64_t now, double level)
{
    if (now > meter->last) {  /* else: at the same time, or by another loop's clock */
        meter->area += meter->now * (double)(now - meter->last);
        meter->last = now;
    }
    meter->now = level;
    if (level > meter->max) {
        meter->max = level;
    }
}

/* waited: counts as 0 if it is negative, by a clock that has been set to another speed. */
static inline void
wait_meter_add(struct wait_meter *meter, int64_t waited, int had_to_wait)
{
    waited = waited > 0 ? waited : 0;
    meter->count++;
    meter->waited += (uint64_t)had_to_wait;
    meter->total += (double)waited;
    if (waited > meter->max) {
        meter->max = waited;
    }
}

/* The time of the current loop; if none runs here, `otherwise`. */
static int64_t
meter_now(ModuleState *state, int64_t otherwise)
{
    LoopObject *loop = current_loop_borrowed(state);
    return loop != NULL ? clock_now(&loop->clock) : otherwise;
}

/* ---- what some bring and others take --------------------------------------------------------- */

/* How much there is, and how long those waited who brought and who took. */
struct flow_meter {
    struct level_meter level;
    struct wait_meter puts, gets;
};

/* *meter: NULL unless it is wanted; freed by PyMem_Free(). 0, or -1 with MemoryError. */
static int
flow_meter_new(ModuleState *state, int wanted, double level, struct flow_meter **meter)
{
    *meter = wanted ? PyMem_Calloc(1, sizeof(struct flow_meter)) : NULL;
    if (*meter != NULL) {
        level_meter_init(&(*meter)->level, meter_now(state, 0), level);
    }
    else if (wanted) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

/* The level is that from now on. meter: may be NULL, here and below. */
static inline void
flow_meter_level(struct flow_meter *meter, ModuleState *state, double level)
{
    if (meter != NULL && level != meter->level.now) {
        level_meter_set(&meter->level, meter_now(state, meter->level.last), level);
    }
}

/* wait: parked, and about to be granted; NULL: it was had at once. */
COLD static void
wait_meter_granted(struct wait_meter *meter, const WaitObject *wait)
{
    wait_meter_add(meter, wait != NULL ? clock_now(&wait->task->loop->clock) - wait->started : 0,
                   wait != NULL);
}

static inline void
flow_meter_put(struct flow_meter *meter, const WaitObject *wait)
{
    if (meter != NULL) {
        wait_meter_granted(&meter->puts, wait);
    }
}

static inline void
flow_meter_get(struct flow_meter *meter, const WaitObject *wait)
{
    if (meter != NULL) {
        wait_meter_granted(&meter->gets, wait);
    }
}

/* ---- what people see ------------------------------------------------------------------------- */

PyDoc_STRVAR(level_stats_doc, "How much there was of something, in the stats() of what has it.");

static PyStructSequence_Field level_stats_fields[] = {
    {"now", "how much there is"},
    {"max", "the most there has been"},
    {"mean", "the mean over loop time"},
    {NULL, NULL},
};

static PyStructSequence_Desc level_stats_desc = {
    .name = "sleeploop.LevelStats",
    .doc = level_stats_doc,
    .fields = level_stats_fields,
    .n_in_sequence = 3,
};

PyDoc_STRVAR(wait_stats_doc, "How long those waited who have got something, in stats().");

static PyStructSequence_Field wait_stats_fields[] = {
    {"count", "how many have got it"},
    {"waited", "how many of them did not get it at once"},
    {"mean", "seconds that they waited, the mean of all of them; 0 if there were none"},
    {"max", "the longest wait, in seconds"},
    {NULL, NULL},
};

static PyStructSequence_Desc wait_stats_desc = {
    .name = "sleeploop.WaitStats",
    .doc = wait_stats_doc,
    .fields = wait_stats_fields,
    .n_in_sequence = 4,
};

/* A struct sequence of these values, which it steals; NULL among them: an error is set. Python
 * leaves it to us to have the collector see it: a Preempted leads to a task. */
static PyObject *
struct_sequence_steal(PyTypeObject *type, PyObject **values, Py_ssize_t n)
{
    PyObject *result = PyStructSequence_New(type);
    for (Py_ssize_t i = 0; i < n; i++) {
        if (result == NULL || values[i] == NULL) {
            Py_CLEAR(result);
            Py_XDECREF(values[i]);
        }
        else {
            PyStructSequence_SetItem(result, i, values[i]);
        }
    }
    if (result != NULL && PyObject_IS_GC(result) && !PyObject_GC_IsTracked(result)) {
        PyObject_GC_Track(result);
    }
    return result;
}

static PyObject *
level_stats_new(ModuleState *state, struct level_meter *meter, int64_t now)
{
    level_meter_set(meter, now, meter->now);
    double span = (double)(meter->last - meter->began);
    PyObject *values[] = {
        PyFloat_FromDouble(meter->now),
        PyFloat_FromDouble(meter->max),
        PyFloat_FromDouble(span > 0 ? meter->area / span : meter->now),
    };
    return struct_sequence_steal(state->LevelStatsType, values, 3);
}

static PyObject *
wait_stats_new(ModuleState *state, const struct wait_meter *meter)
{
    double mean = meter->count > 0 ? meter->total / 1e9 / (double)meter->count : 0;
    PyObject *values[] = {
        PyLong_FromUnsignedLongLong(meter->count),
        PyLong_FromUnsignedLongLong(meter->waited),
        PyFloat_FromDouble(mean),
        seconds_object(meter->max),
    };
    return struct_sequence_steal(state->WaitStatsType, values, 4);
}

/* Whether stats() of the object has something to tell: 0, or -1 with a RuntimeError: it was made
 * without stats=True, so `meter` is NULL, or the tasks that use it run in another thread. */
static int
meter_check(ModuleState *state, const void *meter, const char *function, PyObject *op)
{
    if (meter == NULL) {
        raise_about(PyExc_RuntimeError, "%s: %U%s", function, op,
                    " keeps no statistics; make it with stats=True");
        return -1;
    }
    return sync_touch(state, (SyncObject *)op, function);
}

/* The three of a flow: a struct sequence of `type`, made by stats() of `op`. NULL with an
 * exception, as meter_check(). */
static PyObject *
flow_stats_new(ModuleState *state, PyTypeObject *type, struct flow_meter *meter,
               const char *function, PyObject *op)
{
    if (meter_check(state, meter, function, op) < 0) {
        return NULL;
    }
    PyObject *values[] = {
        level_stats_new(state, &meter->level, meter_now(state, meter->level.last)),
        wait_stats_new(state, &meter->puts),
        wait_stats_new(state, &meter->gets),
    };
    return struct_sequence_steal(type, values, 3);
}

#endif /* SLEEPLOOP_METER_H */
