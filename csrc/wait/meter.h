/* meter.h: statistics of what tasks wait at: a level over time, and how long waits took.
 *
 * Only for objects that were made with stats=True; the others pay a look at a pointer. Times are
 * those of the object's stopwatch, in nanoseconds.
 */
#ifndef SLEEPLOOP_WAIT_METER_H
#define SLEEPLOOP_WAIT_METER_H

#include "../base/clock.h"
#include "../base/compat.h"
#include "../core/args.h"
#include "../core/loopobject.h"
#include "../core/sequence.h"
#include "../core/state.h"
#include "../core/stopwatch.h"
#include "part.h"
#include "waitlist.h"

/* How much there is of something. */
struct level_meter {
    int64_t last;  /* when the level changed last */
    double area;   /* the integral of the level until then, in nanoseconds */
    double now, max;
};

/* How long those waited who have got something. */
struct wait_meter {
    uint64_t count, waited;  /* all of them; those who did not get it at once */
    double total;            /* nanoseconds: of many who wait long, more than 64 bits hold */
    int64_t max;
};

static inline void
level_meter_set(struct level_meter *meter, const struct stopwatch *watch, double level)
{
    int64_t now = stopwatch_time(watch);
    meter->area += meter->now * (double)(now - meter->last);
    meter->last = now;
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

/* New memory for meters that begin with a stopwatch, all zero but that, which starts; freed by
 * meters_free(). NULL with MemoryError. */
static void *
meters_new(PyObject *op, const struct part_options *options, size_t size)
{
    struct stopwatch *watch = PyMem_Calloc(1, size);
    if (watch == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    stopwatch_start(watch, options->loop != NULL
                               ? options->loop
                               : current_loop_borrowed(state_of_base(Py_TYPE(op))));
    return watch;
}

/* meters: or NULL. */
static void
meters_free(void *meters)
{
    if (meters != NULL) {
        stopwatch_stop(meters);
        PyMem_Free(meters);
    }
}

/* ---- what some bring and others take --------------------------------------------------------- */

/* How much there is, and how long those waited who brought and who took. */
struct flow_meter {
    struct stopwatch watch;
    struct level_meter level;
    struct wait_meter puts, gets;
};

/* The object is made, with the options that have been checked. *meter: NULL unless it is wanted.
 * 0, or -1 with MemoryError. */
static int
flow_part_made(PyObject *op, struct part_options *options, double level, struct flow_meter **meter)
{
    if (options->stats) {
        *meter = meters_new(op, options, sizeof **meter);
        if (*meter == NULL) {
            Py_CLEAR(options->name);
            return -1;
        }
        (*meter)->level.now = (*meter)->level.max = level;
    }
    part_made(op, options);
    return 0;
}

/* A task of that loop is about to bring or take something. meter: may be NULL, here and below. */
static inline void
flow_meter_follow(struct flow_meter *meter, LoopObject *loop)
{
    if (meter != NULL) {
        stopwatch_follow(&meter->watch, loop);
    }
}

/* Likewise whoever need not wait for it. */
static inline void
flow_meter_touch(struct flow_meter *meter, ModuleState *state)
{
    if (meter != NULL) {
        stopwatch_touch(&meter->watch, current_loop_borrowed(state));
    }
}

/* The level is that from now on. */
static inline void
flow_meter_level(struct flow_meter *meter, double level)
{
    if (meter != NULL && level != meter->level.now) {
        level_meter_set(&meter->level, &meter->watch, level);
    }
}

/* wait: parked, and about to be granted; NULL: it was had at once. */
COLD static void
wait_meter_granted(struct wait_meter *meter, const WaitObject *wait)
{
    wait_meter_add(meter, wait != NULL ? clock_now(&wait->task->loop->clock) - wait->since : 0,
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

static PyObject *
level_stats_new(ModuleState *state, struct level_meter *meter, const struct stopwatch *watch)
{
    level_meter_set(meter, watch, meter->now);
    double span = (double)meter->last;
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
        level_stats_new(state, &meter->level, &meter->watch),
        wait_stats_new(state, &meter->puts),
        wait_stats_new(state, &meter->gets),
    };
    return struct_sequence_steal(type, values, 3);
}

#endif /* SLEEPLOOP_WAIT_METER_H */
