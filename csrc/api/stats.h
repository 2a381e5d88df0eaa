/* stats.h: SleepingLoop.stats() and its result. */
#ifndef SLEEPLOOP_API_STATS_H
#define SLEEPLOOP_API_STATS_H

#include "../base/clock.h"
#include "../base/compat.h"
#include "../base/lateness.h"
#include "../core/args.h"
#include "../core/loopobject.h"
#include "../core/sequence.h"
#include "../core/state.h"

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
"What the loop has done so far, or since reset_stats(), a LoopStats. Lateness is 0 in\n"
"virtual time.\n"
"\n"
">>> import math, sleeploop\n"
">>> loop = sleeploop.SleepingLoop(sleeploop.sleep(1), speed=math.inf)\n"
">>> loop.run_until_complete()\n"
"[datetime.timedelta(seconds=1)]\n"
">>> stats = loop.stats()\n"
">>> stats.steps, stats.wakeups, stats.lateness_max\n"
"(2, 1, 0.0)\n");

/* Asked by another thread, the loop may be in the middle of a call, or of a wait. */
static PyObject *
loop_py_stats(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    LoopObject *loop = (LoopObject *)op;
    int64_t now = clock_monotonic();
    int64_t total = loop->real_total + (loop->tstate != NULL ? now - loop->real_started : 0);
    int64_t idle = loop->real_idle + (loop->idling ? now - loop->idle_began : 0);
    PyObject *values[] = {
        PyLong_FromUnsignedLongLong(loop->steps - loop->steps_before),
        PyLong_FromUnsignedLongLong(loop->wakeups - loop->wakeups_before),
        seconds_object(loop->late.max),
        seconds_object(lateness_quantile(&loop->late, 0.5)),
        seconds_object(lateness_quantile(&loop->late, 0.99)),
        seconds_object(idle),
        seconds_object(total - idle),
    };
    return struct_sequence_steal(loop->state->StatsType, values, Py_ARRAY_LENGTH(values));
}

PyDoc_STRVAR(loop_reset_stats_doc,
"reset_stats($self, /)\n--\n\n"
"Have stats() begin anew: all that it tells counts from now on, so that a fast phase of the\n"
"program does not hide a slow one.\n"
"\n"
"Raises RuntimeError in another thread than the one that runs the loop.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def main():\n"
"...     await sleeploop.sleep(1)\n"
"...     sleeploop.current_loop().reset_stats()\n"
"...     await sleeploop.sleep(1)\n"
"...     return sleeploop.current_loop().stats().wakeups\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"1\n");

static PyObject *
loop_py_reset_stats(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    LoopObject *loop = (LoopObject *)op;
    if (loop_need_thread(loop, "reset_stats()") < 0) {
        return NULL;
    }
    loop->steps_before = loop->steps;
    loop->wakeups_before = loop->wakeups;
    loop->late = (struct lateness){0};
    loop->real_started = clock_monotonic();
    loop->real_idle = loop->real_total = 0;
    Py_RETURN_NONE;
}

#endif /* SLEEPLOOP_API_STATS_H */
