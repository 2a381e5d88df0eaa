/* stats.h: SleepingLoop.stats() and its result. */
#ifndef SLEEPLOOP_STATS_H
#define SLEEPLOOP_STATS_H

#include "args.h"

PyDoc_STRVAR(stats_type_doc, "What SleepingLoop.stats() returns.");

static PyStructSequence_Field stats_fields[] = {
    {"steps", "how many times a coroutine was resumed"},
    {"wakeups", "how many timers have fired"},
    {"lateness_max", "seconds of loop time by which the latest wake-up was late"},
    {"lateness_p50", "the median, at most a quarter too high"},
    {"lateness_p99", "the 99th percentile, at most a quarter too high"},
    {"idle_time", "real seconds in which nothing could run"},
    {"busy_time", "real seconds of the run that were not idle"},
    {NULL, NULL},
};

static PyStructSequence_Desc stats_desc = {
    .name = "sleeploop.LoopStats",
    .doc = stats_type_doc,
    .fields = stats_fields,
    .n_in_sequence = 7,
};

PyDoc_STRVAR(loop_stats_doc,
"stats($self, /)\n--\n\n"
"What the loop has done so far, a LoopStats. Lateness is 0 in virtual time.\n"
"\n"
">>> import math, sleeploop\n"
">>> loop = sleeploop.SleepingLoop(sleeploop.sleep(1), speed=math.inf)\n"
">>> loop.run_until_complete()\n"
"[datetime.timedelta(seconds=1)]\n"
">>> stats = loop.stats()\n"
">>> stats.steps, stats.wakeups, stats.lateness_max\n"
"(2, 1, 0.0)\n");

static PyObject *
loop_py_stats(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    LoopObject *loop = (LoopObject *)op;
    int64_t total = loop->tstate != NULL ? clock_monotonic() - loop->real_started
                                         : loop->real_total;
    PyObject *values[] = {
        PyLong_FromUnsignedLongLong(loop->steps),
        PyLong_FromUnsignedLongLong(loop->wakeups),
        seconds_object(loop->late.max),
        seconds_object(lateness_quantile(&loop->late, 0.5)),
        seconds_object(lateness_quantile(&loop->late, 0.99)),
        seconds_object(loop->real_idle),
        seconds_object(total - loop->real_idle),
    };
    PyObject *stats = PyStructSequence_New(loop->state->StatsType);
    for (size_t i = 0; i < Py_ARRAY_LENGTH(values); i++) {
        if (stats == NULL || values[i] == NULL) {
            Py_CLEAR(stats);
            Py_XDECREF(values[i]);
        }
        else {
            PyStructSequence_SetItem(stats, (Py_ssize_t)i, values[i]);  /* steals */
        }
    }
    return stats;
}

#endif /* SLEEPLOOP_STATS_H */
