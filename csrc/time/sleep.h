/* sleep.h: the awaitables that wait for time to pass.
 *
 * Each is a row of the table of kinds, and yields itself to our loop; no datetime is built. On any
 * other loop it speaks the protocol of the teaching example instead: it yields the wake-up time as
 * a datetime and is sent the actual one.
 */
#ifndef SLEEPLOOP_TIME_SLEEP_H
#define SLEEPLOOP_TIME_SLEEP_H

#include "../base/clock.h"
#include "../base/compat.h"
#include "../base/lateness.h"
#include "../base/timerheap.h"
#include "../core/args.h"
#include "../core/awaitable.h"
#include "../core/forgotten.h"
#include "../core/kinds.h"
#include "../core/loopobject.h"
#include "../core/state.h"
#include "../core/taskobject.h"
#include "../core/walltime.h"

/* sleep(), sleep_until(), sleep_forever(), checkpoint(). Holds no object but its type, which the
 * collector does not see, as that would cost a tenth of each sleep; so one that lies in the module,
 * or waits in a task of a suspended loop that does, keeps the module. As a rule it lives for one
 * await. The same holds for a NextTick. */
struct SleepObject {
    AWAIT_HEAD         /* phase, until a datetime: whether that had a time zone */
    int64_t time;      /* nanoseconds to sleep; until: loop time in nanoseconds; until a datetime:
                          microseconds since 1970 UTC */
};

/* ---- parked in the heap ---------------------------------------------------------------------- */

/* In the heap, unless `when` has come or never will. */
static inline enum parked
task_park_until(LoopObject *loop, TaskObject *task, int64_t now, int64_t when)
{
    if (when <= now) {
        return PARK_READY;
    }
    if (when == TIME_FOREVER || timerheap_push(&loop->timers, &task->timer, when) == 0) {
        return PARKED;
    }
    PyErr_NoMemory();
    return PARK_FAILED;
}

/* The unpark() of all that may be there. */
static void
await_unpark_timer(Awaitable *Py_UNUSED(self), LoopObject *loop, TaskObject *task)
{
    if (timer_armed(&task->timer)) {
        timerheap_cancel(&loop->timers, &task->timer);
    }
}

/* What time it is, for what is about to be parked. One that was begun by hand in an earlier step may
 * be over by now: a timer for it would seem to be late. */
static inline int64_t
await_began(const Awaitable *self, const LoopObject *loop)
{
    return loop->awaited == self ? self->since : clock_now(&loop->clock);
}

/* The outside() of what may be parked without a wake-up time. */
static enum outside
await_waits_for_signal(const Awaitable *Py_UNUSED(self), const TaskObject *task)
{
    return timer_armed(&task->timer) ? OUTSIDE_NOTHING : OUTSIDE_SIGNAL;
}

/* New str: "sleeping until 3.0 s"; the clock may end before that. */
static PyObject *
await_describe_sleep(Awaitable *self, LoopObject *loop)
{
    int64_t when;
    if (await_kind(self)->wake_time(self, loop, &when) < 0) {
        return NULL;
    }
    PyObject *seconds = when <= TIME_END ? seconds_object(when) : NULL;
    PyObject *text = when > TIME_END ? PyUnicode_FromString("sleeping until cancelled")
                     : seconds != NULL ? PyUnicode_FromFormat("sleeping until %S s", seconds)
                                       : NULL;
    Py_XDECREF(seconds);
    return text;
}

/* ---- made ------------------------------------------------------------------------------------ */

static inline PyObject *
sleep_new(ModuleState *state, enum await_kind_number kind, int64_t time)
{
    SleepObject *self = state->spare_sleep;
    if (self != NULL) {
        state->spare_sleep = NULL;
        (void)PyObject_Init((PyObject *)self, state->SleepType);
    }
    else {
        self = PyObject_New(SleepObject, state->SleepType);
        if (self == NULL) {
            return NULL;
        }
    }
    await_init((Awaitable *)self, kind);
    self->time = time;
    awaitable_made(state, (PyObject *)self);
    return (PyObject *)self;
}

/* ---- on another loop ------------------------------------------------------------------------- */

/* The same moment, with advice for those whose loop knows no datetimes, and shows it in an error; or
 * itself, if there is no memory for that. Beware: runs Python. */
static PyObject *
moment_with_advice_steal(PyObject *datetime, const char *function)
{
    PyObject *module = import_module("sleeploop._elsewhere");
    PyObject *moment =
        module != NULL ? PyObject_CallMethod(module, "moment", "Os", datetime, function) : NULL;
    Py_XDECREF(module);
    if (moment == NULL && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear();
        return datetime;
    }
    Py_DECREF(datetime);
    return moment;
}

/* On a loop that is not ours: yields a datetime. `since` is then in microseconds since 1970. */
static PySendResult
sleep_begin_abroad(ModuleState *state, Awaitable *self, PyObject **result)
{
    int64_t time = ((SleepObject *)self)->time;
    self->excused = 1;  /* in case of an error: it has been awaited, in vain */
    if (self->kind == sleep_until_kind_number) {
        need_current_loop_borrowed(state, "sleep_until() with a loop time");
        return PYGEN_ERROR;
    }
    self->since = wall_now();
    int64_t until = self->since;
    if (time == TIME_FOREVER) {
        until = WALL_MAX;
    }
    else if (self->kind == sleep_until_wall_kind_number) {
        until = time < WALL_MAX ? time : WALL_MAX;
    }
    else if (time > 0) {
        until = time_add(until, time / NS_PER_US + (time % NS_PER_US > 0));
    }
    *result = datetime_from_wall(state, until, self->phase ? state->utc : Py_None);
    if (*result != NULL) {
        *result = moment_with_advice_steal(*result, await_kind(self)->function);
    }
    if (*result == NULL) {
        return PYGEN_ERROR;
    }
    self->state = AWAIT_ABROAD;
    return PYGEN_NEXT;
}

/* `sent` is the actual time that the other loop sent, or anything else. */
static PySendResult
sleep_resume_abroad(Awaitable *self, PyObject *sent, PyObject **result)
{
    ModuleState *state = state_of_type(Py_TYPE(self));
    self->state = AWAIT_DONE;
    int64_t now = wall_now();
    if (is_datetime(state, sent) && wall_from_datetime(state, sent, &now) < 0) {
        return PYGEN_ERROR;
    }
    int64_t us = now > self->since ? now - self->since : 0;
    if (us > TIME_FOREVER / NS_PER_US) {
        us = TIME_FOREVER / NS_PER_US;
    }
    *result = self->kind == checkpoint_kind_number ? Py_NewRef(Py_None)
                                                   : timedelta_from_ns(state, us * NS_PER_US);
    return *result != NULL ? PYGEN_RETURN : PYGEN_ERROR;
}

/* ---- awaited --------------------------------------------------------------------------------- */

static PySendResult
sleep_begin(ModuleState *state, Awaitable *self, PyObject **result)
{
    LoopObject *loop = current_loop_borrowed(state);
    return loop != NULL ? await_yield(self, loop, clock_now(&loop->clock), result)
                        : sleep_begin_abroad(state, self, result);
}

/* How long it has been, by that time. */
static inline PySendResult
sleep_end(Awaitable *self, LoopObject *loop, int64_t now, PyObject **result)
{
    self->state = AWAIT_DONE;
    *result = timedelta_from_ns(loop->state, now > self->since ? now - self->since : 0);
    return *result != NULL ? PYGEN_RETURN : PYGEN_ERROR;
}

static PySendResult
sleep_resume(Awaitable *self, LoopObject *loop, PyObject **result)
{
    return sleep_end(self, loop, clock_now(&loop->clock), result);
}

/* Likewise of one that had a deadline. */
static inline PySendResult
sleep_resume_due(Awaitable *self, LoopObject *loop, int64_t deadline, PyObject **result)
{
    int64_t now = clock_now(&loop->clock);
    if (loop->clock.mode != CLOCK_VIRTUAL && deadline > self->since) {
        lateness_add(&loop->late, now - deadline);
    }
    return sleep_end(self, loop, now, result);
}

/* ---- the kinds: for a time ------------------------------------------------------------------- */

/* Loop time at which it is over; at or before `since`: at once. */
static inline int64_t
sleep_deadline(const Awaitable *self)
{
    int64_t time = ((const SleepObject *)self)->time;
    return time <= 0 ? self->since : time_add(self->since, time);
}

static enum parked
sleep_park(Awaitable *self, LoopObject *loop, TaskObject *task)
{
    return task_park_until(loop, task, await_began(self, loop), sleep_deadline(self));
}

static PySendResult
sleep_resume_after(Awaitable *self, LoopObject *loop, PyObject **result)
{
    return sleep_resume_due(self, loop, sleep_deadline(self), result);
}

static int
sleep_wake_time(Awaitable *self, LoopObject *Py_UNUSED(loop), int64_t *when)
{
    *when = sleep_deadline(self);
    return 0;
}

static const struct await_kind sleep_kind = {
    AWAIT_KIND(sleep_kind, "sleep()"),
    .is_sleep = 1,
    .reuses_end = 1,
    .begin = sleep_begin,
    .resume_abroad = sleep_resume_abroad,
    .resume = sleep_resume_after,
    .park = sleep_park,
    .unpark = await_unpark_timer,
    .outside = await_waits_for_signal,
    .wake_time = sleep_wake_time,
    .describe = await_describe_sleep,
};

/* ---- until a loop time ----------------------------------------------------------------------- */

static enum parked
sleep_until_park(Awaitable *self, LoopObject *loop, TaskObject *task)
{
    return task_park_until(loop, task, await_began(self, loop), ((SleepObject *)self)->time);
}

static PySendResult
sleep_until_resume(Awaitable *self, LoopObject *loop, PyObject **result)
{
    return sleep_resume_due(self, loop, ((SleepObject *)self)->time, result);
}

static int
sleep_until_wake_time(Awaitable *self, LoopObject *Py_UNUSED(loop), int64_t *when)
{
    *when = ((SleepObject *)self)->time;
    return 0;
}

static const struct await_kind sleep_until_kind = {
    AWAIT_KIND(sleep_until_kind, "sleep_until()"),
    .is_sleep = 1,
    .reuses_end = 1,
    .begin = sleep_begin,
    .resume_abroad = sleep_resume_abroad,
    .resume = sleep_until_resume,
    .park = sleep_until_park,
    .unpark = await_unpark_timer,
    .outside = await_waits_for_signal,
    .wake_time = sleep_until_wake_time,
    .describe = await_describe_sleep,
};

/* ---- not for a time -------------------------------------------------------------------------- */

static enum parked
checkpoint_park(Awaitable *Py_UNUSED(self), LoopObject *Py_UNUSED(loop),
                TaskObject *Py_UNUSED(task))
{
    return PARK_READY;
}

static PySendResult
checkpoint_resume(Awaitable *self, LoopObject *Py_UNUSED(loop), PyObject **result)
{
    self->state = AWAIT_DONE;
    *result = Py_NewRef(Py_None);
    return PYGEN_RETURN;
}

static const struct await_kind checkpoint_kind = {
    AWAIT_KIND(checkpoint_kind, "checkpoint()"),
    .is_sleep = 1,
    .begin = sleep_begin,
    .resume_abroad = sleep_resume_abroad,
    .resume = checkpoint_resume,
    .park = checkpoint_park,
};

static enum parked
forever_park(Awaitable *Py_UNUSED(self), LoopObject *Py_UNUSED(loop), TaskObject *Py_UNUSED(task))
{
    return PARKED;
}

static int
forever_wake_time(Awaitable *Py_UNUSED(self), LoopObject *Py_UNUSED(loop), int64_t *when)
{
    *when = TIME_FOREVER;
    return 0;
}

static const struct await_kind sleep_forever_kind = {
    AWAIT_KIND(sleep_forever_kind, "sleep_forever()"),
    .is_sleep = 1,
    .reuses_end = 1,
    .begin = sleep_begin,
    .resume_abroad = sleep_resume_abroad,
    .resume = sleep_resume,
    .park = forever_park,
    .outside = await_waits_for_signal,
    .wake_time = forever_wake_time,
    .describe = await_describe_sleep,
};

static PyObject *
until_cancelled_describe(Awaitable *Py_UNUSED(self), LoopObject *Py_UNUSED(loop))
{
    return PyUnicode_FromString("waiting to be woken");
}

/* Until another task cancels the scope around it: nothing else ever will. */
static const struct await_kind until_cancelled_kind = {
    AWAIT_KIND(until_cancelled_kind, "_park()"),
    .is_signal = 1,
    .reuses_end = 1,
    .begin = sleep_begin,
    .resume_abroad = sleep_resume_abroad,
    .resume = sleep_resume,
    .park = forever_park,
    .wake_time = forever_wake_time,
    .describe = until_cancelled_describe,
};

static enum parked
thread_park(Awaitable *Py_UNUSED(self), LoopObject *loop, TaskObject *Py_UNUSED(task))
{
    loop->threads++;
    return PARKED;
}

static void
thread_unpark(Awaitable *Py_UNUSED(self), LoopObject *loop, TaskObject *Py_UNUSED(task))
{
    loop->threads--;
}

static enum outside
thread_outside(const Awaitable *Py_UNUSED(self), const TaskObject *Py_UNUSED(task))
{
    return OUTSIDE_WORK;
}

static PyObject *
thread_describe(Awaitable *Py_UNUSED(self), LoopObject *Py_UNUSED(loop))
{
    return PyUnicode_FromString("waiting for a thread");
}

/* Likewise, but a thread is at work and will have it cancelled. */
static const struct await_kind thread_kind = {
    AWAIT_KIND(thread_kind, "_park_for_thread()"),
    .is_signal = 1,
    .reuses_end = 1,
    .begin = sleep_begin,
    .resume_abroad = sleep_resume_abroad,
    .resume = sleep_resume,
    .park = thread_park,
    .unpark = thread_unpark,
    .outside = thread_outside,
    .wake_time = forever_wake_time,
    .describe = thread_describe,
};

/* ---- the type -------------------------------------------------------------------------------- */

static PyObject *
sleep_tp_repr(PyObject *op)
{
    const Awaitable *self = (Awaitable *)op;
    int64_t time = ((SleepObject *)op)->time;
    ModuleState *state = state_of_type(Py_TYPE(op));
    PyObject *what = NULL, *text = NULL;
    if (await_is_stray(self)) {
        return await_stray_repr(self);
    }
    switch (self->kind) {
    case sleep_kind_number:
    case sleep_until_kind_number:
        if (time >= TIME_FOREVER) {
            return PyUnicode_FromString("<sleep until cancelled>");
        }
        what = seconds_object(time);
        break;
    case sleep_until_wall_kind_number:
        what = datetime_from_wall(state, time, self->phase ? state->utc : Py_None);
        if (what != NULL) {
            Py_SETREF(what, PyObject_Str(what));
        }
        break;
    case sleep_forever_kind_number:
        return PyUnicode_FromString("<sleep_forever>");
    case until_cancelled_kind_number:
        return PyUnicode_FromString("<until woken>");
    case thread_kind_number:
        return PyUnicode_FromString("<until a thread is done>");
    default:
        return PyUnicode_FromString("<checkpoint>");
    }
    if (what != NULL) {
        text = self->kind == sleep_kind_number ? PyUnicode_FromFormat("<sleep %S s>", what)
               : self->kind == sleep_until_kind_number
                   ? PyUnicode_FromFormat("<sleep until %S s>", what)
                   : PyUnicode_FromFormat("<sleep until %S>", what);
        Py_DECREF(what);
    }
    return text;
}

static void
sleep_tp_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    if (await_dies(op) < 0) {
        return;
    }
    ModuleState *state = state_if_there(type);
    if (state != NULL && state->spare_sleep == NULL) {  /* for the next: a twentieth of its cost */
        state->spare_sleep = (SleepObject *)op;
    }
    else {
        PyObject_Free(op);
    }
    Py_DECREF(type);
}

PyDoc_STRVAR(sleep_type_doc,
"What sleep(), sleep_until(), sleep_forever() and checkpoint() return; await it once.");

static PyType_Slot sleep_slots[] = {
    {Py_tp_doc, (void *)sleep_type_doc},
    {Py_tp_dealloc, sleep_tp_dealloc},
    {Py_tp_finalize, await_tp_finalize},
    {Py_tp_repr, sleep_tp_repr},
    AWAIT_SLOTS(await_tp_iter),
    {Py_tp_methods, await_methods},
    {Py_tp_getset, await_getset},
    {0, NULL},
};

static PyType_Spec sleep_spec = {
    .name = "sleeploop.Sleep",
    .basicsize = sizeof(SleepObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = sleep_slots,
};

/* ---- the module's functions ------------------------------------------------------------------ */

PyDoc_STRVAR(sleep_doc,
"sleep($module, delay, result=None)\n--\n\n"
"Sleep for `delay` and return the time really slept, a datetime.timedelta; or\n"
"`result`, if one is given.\n"
"\n"
"delay: seconds (int, float, anything with __float__ or __index__; the loop works\n"
"in whole nanoseconds) or a timedelta. Never early: when it returns, at least\n"
"`delay` has passed on the loop's clock. Zero or less steps aside once; inf, and\n"
"what is past 292 years, sleeps until cancelled.\n"
"\n"
"Raises TypeError for anything else and ValueError for nan, at the call.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def main():\n"
"...     return await sleeploop.sleep(3600)\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"datetime.timedelta(seconds=3600)\n");

/* With a result it is a coroutine: a Sleep holds no object. */
COLD static PyObject *
sleep_then(PyObject *delay, PyObject *result)
{
    PyObject *module = import_module("sleeploop._asyncio_names");
    PyObject *coro =
        module != NULL ? PyObject_CallMethod(module, "sleep", "OO", delay, result) : NULL;
    Py_XDECREF(module);
    return coro;
}

static PyObject *
module_py_sleep(PyObject *module, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    static const char *const names[] = {"delay", "result", NULL};
    ModuleState *state = PyModule_GetState(module);
    PyObject *given[2];
    int64_t ns;
    if (n_args == 1 && kwnames == NULL) {
        given[0] = args[0];
        given[1] = NULL;
    }
    else if (args_parse("sleep()", names, 2, 1, args, n_args, kwnames, given) < 0) {
        return NULL;
    }
    if (delay_from_object(state, "sleep()", given[0], &ns) < 0) {
        return NULL;
    }
    return given[1] == NULL ? sleep_new(state, sleep_kind_number, ns) : sleep_then(given[0], given[1]);
}

PyDoc_STRVAR(sleep_until_doc,
"sleep_until($module, when, /)\n--\n\n"
"Sleep until `when` and return the time really slept, a datetime.timedelta.\n"
"\n"
"when: loop time in seconds, as loop.time() tells it, or a datetime (naive: local\n"
"time), as loop.now() tells it. A moment that has passed steps aside once.\n"
"\n"
"Raises TypeError for anything else and ValueError for nan, at the call.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def main():\n"
"...     await sleeploop.sleep_until(90)\n"
"...     return sleeploop.current_loop().time()\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"90.0\n");

static PyObject *
module_py_sleep_until(PyObject *module, PyObject *when)
{
    ModuleState *state = PyModule_GetState(module);
    int64_t time;
    int is_wall;
    if (moment_from_object(state, "sleep_until()", when, &time, &is_wall) < 0) {
        return NULL;
    }
    if (!is_wall) {
        return sleep_new(state, sleep_until_kind_number, time);
    }
    PyObject *offset = PyObject_CallMethod(when, "utcoffset", NULL);
    if (offset == NULL) {
        return NULL;
    }
    PyObject *sleep = sleep_new(state, sleep_until_wall_kind_number, time);
    if (sleep != NULL) {
        ((SleepObject *)sleep)->phase = offset != Py_None;
    }
    Py_DECREF(offset);
    return sleep;
}

PyDoc_STRVAR(sleep_forever_doc,
"sleep_forever($module, /)\n--\n\n"
"Sleep until cancelled.\n"
"\n"
"At a finite speed the loop waits, for a signal if for nothing else. At speed=inf\n"
"the run ends with DeadlockError once every task waits and there is no timer,\n"
"unless a Python function handles some signal other than Ctrl-C's.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def server():\n"
"...     try:\n"
"...         await sleeploop.sleep_forever()\n"
"...     finally:\n"
"...         print('closed')\n"
">>> async def main():\n"
"...     sleeploop.create_task(server(), daemon=True)\n"
"...     await sleeploop.sleep(60)\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"closed\n");

static PyObject *
module_py_sleep_forever(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    return sleep_new(PyModule_GetState(module), sleep_forever_kind_number, TIME_FOREVER);
}

PyDoc_STRVAR(checkpoint_doc,
"checkpoint($module, /)\n--\n\n"
"Step aside once: every task that is ready now runs before this one goes on.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def count(name):\n"
"...     for i in range(2):\n"
"...         print(name, i)\n"
"...         await sleeploop.checkpoint()\n"
">>> sleeploop.SleepingLoop(count('a'), count('b'), speed=math.inf).run_until_complete()\n"
"a 0\n"
"b 0\n"
"a 1\n"
"b 1\n"
"[None, None]\n");

static PyObject *
module_py_checkpoint(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    return sleep_new(PyModule_GetState(module), checkpoint_kind_number, 0);
}

#endif /* SLEEPLOOP_TIME_SLEEP_H */
