/* sleep.h: the awaitables that wait for time to pass.
 *
 * An awaitable yields itself to our loop, which reads what it wants from its
 * fields; no datetime is built. On any other loop it speaks the protocol of the
 * teaching example instead: it yields the wake-up time as a datetime and is sent
 * the actual one. It never acts on the loop: it reads the clock and notes lateness.
 */
#ifndef SLEEPLOOP_SLEEP_H
#define SLEEPLOOP_SLEEP_H

#include "trap.h"
#include "walltime.h"

/* ---- the Sleep type -------------------------------------------------------------------------- */

static const char *
sleep_function(const SleepObject *self)
{
    static const char *const names[] = {
        [SLEEP_FOR] = "sleep()",
        [SLEEP_UNTIL] = "sleep_until()",
        [SLEEP_UNTIL_WALL] = "sleep_until()",
        [SLEEP_FOREVER] = "sleep_forever()",
        [SLEEP_CHECKPOINT] = "checkpoint()",
        [SLEEP_PARKED] = "_park()",
        [SLEEP_THREAD] = "_park_for_thread()",
    };
    return names[self->kind];
}

static inline PyObject *
sleep_new(ModuleState *state, enum sleep_kind kind, int64_t time)
{
    SleepObject *self = PyObject_New(SleepObject, state->SleepType);
    if (self == NULL) {
        return NULL;
    }
    self->time = time;
    self->started = 0;
    self->kind = (uint8_t)kind;
    self->state = TRAP_NEW;
    self->aware = self->excused = 0;
    awaitable_made(state, (PyObject *)self);
    return (PyObject *)self;
}

/* Whether a waiting sleep is that of the task. */
static inline int
sleep_is_of(const SleepObject *self, const LoopObject *loop, const TaskObject *task)
{
    return self->task_number == task->number && step_is_of(self->step, loop);
}

/* The loop time at which a waiting sleep is over; at or before `started`: at once. */
static inline int64_t
sleep_deadline(const LoopObject *loop, const SleepObject *self)
{
    switch (self->kind) {
    case SLEEP_FOR:
        return self->time <= 0 ? self->started : time_add(self->started, self->time);
    case SLEEP_UNTIL:
        return self->time;
    case SLEEP_UNTIL_WALL:
        return loop_time_of_wall(loop, self->time);
    case SLEEP_FOREVER:
    case SLEEP_PARKED:
    case SLEEP_THREAD:
        return TIME_FOREVER;
    default:
        return self->started;
    }
}

/* Whether the end of a sleep without a deadline may come from outside, by a signal. */
static inline int
sleep_may_be_signalled(ModuleState *state, PyObject *trap)
{
    return Py_TYPE(trap) != state->SleepType || ((SleepObject *)trap)->kind < SLEEP_PARKED;
}

/* Whether a thread will bring it about. */
static inline int
sleep_is_for_thread(ModuleState *state, PyObject *trap)
{
    return Py_TYPE(trap) == state->SleepType && ((SleepObject *)trap)->kind == SLEEP_THREAD;
}

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

/* On a loop that is not ours: yields a datetime. `started` is then in
 * microseconds since 1970. */
static PySendResult
sleep_begin_abroad(ModuleState *state, SleepObject *self, PyObject **result)
{
    self->excused = 1;  /* in case of an error: it has been awaited, in vain */
    if (self->kind == SLEEP_UNTIL) {
        need_current_loop_borrowed(state, "sleep_until() with a loop time");
        return PYGEN_ERROR;
    }
    self->started = wall_now();
    int64_t until = self->started;
    if (self->kind == SLEEP_FOREVER || self->time == TIME_FOREVER) {
        until = WALL_MAX;
    }
    else if (self->kind == SLEEP_FOR && self->time > 0) {
        until = time_add(until, self->time / NS_PER_US + (self->time % NS_PER_US > 0));
    }
    else if (self->kind == SLEEP_UNTIL_WALL) {
        until = self->time < WALL_MAX ? self->time : WALL_MAX;
    }
    *result = datetime_from_wall(state, until, self->aware ? state->utc : Py_None);
    if (*result != NULL) {
        *result = moment_with_advice_steal(*result, sleep_function(self));
    }
    if (*result == NULL) {
        return PYGEN_ERROR;
    }
    self->state = TRAP_WAITING_ABROAD;
    return PYGEN_NEXT;
}

/* `value` is the actual time that the other loop sent, or anything else. */
static PySendResult
sleep_end_abroad(ModuleState *state, SleepObject *self, PyObject *value, PyObject **result)
{
    self->state = TRAP_DONE;
    int64_t now = wall_now();
    if (is_datetime(state, value) && wall_from_datetime(state, value, &now) < 0) {
        return PYGEN_ERROR;
    }
    int64_t us = now > self->started ? now - self->started : 0;
    if (us > TIME_FOREVER / NS_PER_US) {
        us = TIME_FOREVER / NS_PER_US;
    }
    *result = self->kind == SLEEP_CHECKPOINT ? Py_NewRef(Py_None)
                                             : timedelta_from_ns(state, us * NS_PER_US);
    return *result != NULL ? PYGEN_RETURN : PYGEN_ERROR;
}

static PySendResult
sleep_advance(PyObject *op, PyObject *value, PyObject **result)
{
    SleepObject *self = (SleepObject *)op;
    ModuleState *state = state_of_type(Py_TYPE(op));
    *result = NULL;
    if (self->state == TRAP_DONE) {
        return trap_used_up(sleep_function(self));
    }
    if (self->state == TRAP_WAITING_ABROAD) {
        return sleep_end_abroad(state, self, value, result);
    }
    LoopObject *loop = current_loop_borrowed(state);
    if (self->state == TRAP_NEW) {
        if (loop == NULL) {
            return sleep_begin_abroad(state, self, result);
        }
        self->started = clock_now(&loop->clock);
        self->task_number = loop->current != NULL ? loop->current->number : 0;
        self->step = loop->steps;
        self->state = TRAP_WAITING;
        *result = Py_NewRef(op);
        trace_await(loop, op);
        return PYGEN_NEXT;
    }
    if (loop == NULL || loop->current == NULL || !sleep_is_of(self, loop, loop->current)) {
        return trap_used_up(sleep_function(self));  /* the wake-up belongs to another task */
    }
    self->state = TRAP_DONE;
    if (self->kind == SLEEP_CHECKPOINT) {
        *result = Py_NewRef(Py_None);
        return PYGEN_RETURN;
    }
    int64_t now = clock_now(&loop->clock);
    if (loop->clock.mode != CLOCK_VIRTUAL && self->kind <= SLEEP_UNTIL) {
        int64_t deadline = sleep_deadline(loop, self);
        if (deadline > self->started) {
            lateness_add(&loop->late, now - deadline);
        }
    }
    *result = timedelta_from_ns(state, now > self->started ? now - self->started : 0);
    return *result != NULL ? PYGEN_RETURN : PYGEN_ERROR;
}

/* Each await asks for the iterator once: the place to notice a second await, which
 * would otherwise take the first one's wake-up. */
static PyObject *
sleep_tp_iter(PyObject *op)
{
    SleepObject *self = (SleepObject *)op;
    if (self->state != TRAP_NEW) {
        trap_used_up(sleep_function(self));
        return NULL;
    }
    return Py_NewRef(op);
}

static PyObject *
sleep_tp_iternext(PyObject *op)
{
    PyObject *result;
    PySendResult how = sleep_advance(op, Py_None, &result);
    if (how == PYGEN_RETURN && result != Py_None) {
        return stop_iteration_reused_steal(state_of_type(Py_TYPE(op)), result);
    }
    return trap_next_result(how, result);
}

static PyObject *
sleep_py_send(PyObject *op, PyObject *value)
{
    return trap_send(op, value, sleep_advance);
}

static PyObject *
sleep_py_throw(PyObject *op, PyObject *const *args, Py_ssize_t n_args)
{
    return trap_throw(&((SleepObject *)op)->state, args, n_args);
}

static PyObject *
sleep_py_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    ((SleepObject *)op)->state = TRAP_DONE;
    Py_RETURN_NONE;
}

static PyObject *
sleep_tp_repr(PyObject *op)
{
    SleepObject *self = (SleepObject *)op;
    ModuleState *state = state_of_type(Py_TYPE(op));
    PyObject *time, *text;
    if (trap_is_stray(op, self->state, self->task_number)) {
        return trap_stray_repr(sleep_function(self));
    }
    switch (self->kind) {
    case SLEEP_FOR:
    case SLEEP_UNTIL:
        if (self->time >= TIME_FOREVER) {
            return PyUnicode_FromString("<sleep until cancelled>");
        }
        time = seconds_object(self->time);
        break;
    case SLEEP_UNTIL_WALL:
        time = datetime_from_wall(state, self->time, self->aware ? state->utc : Py_None);
        if (time != NULL) {
            PyObject *iso = PyObject_Str(time);
            Py_SETREF(time, iso);
        }
        break;
    case SLEEP_FOREVER:
        return PyUnicode_FromString("<sleep_forever>");
    case SLEEP_PARKED:
        return PyUnicode_FromString("<until woken>");
    case SLEEP_THREAD:
        return PyUnicode_FromString("<until a thread is done>");
    default:
        return PyUnicode_FromString("<checkpoint>");
    }
    if (time == NULL) {
        return NULL;
    }
    text = self->kind == SLEEP_FOR     ? PyUnicode_FromFormat("<sleep %S s>", time)
           : self->kind == SLEEP_UNTIL ? PyUnicode_FromFormat("<sleep until %S s>", time)
                                       : PyUnicode_FromFormat("<sleep until %S>", time);
    Py_DECREF(time);
    return text;
}

static void
sleep_tp_finalize(PyObject *op)
{
    SleepObject *self = (SleepObject *)op;
    awaitable_finalize(op, &self->state, self->excused, sleep_function(self));
}

static void
sleep_tp_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    if (awaitable_dies(op, ((SleepObject *)op)->state) < 0) {
        return;
    }
    PyObject_Free(op);
    Py_DECREF(type);
}

/* As a coroutine has it, for reports on the task that runs it. */
static PyObject *
sleep_get_qualname(PyObject *op, void *Py_UNUSED(closure))
{
    return qualname_of_function(sleep_function((SleepObject *)op));
}

static PyObject *
sleep_get_name(PyObject *op, void *Py_UNUSED(closure))
{
    return name_of_function(sleep_function((SleepObject *)op));
}

static PyGetSetDef sleep_getset[] = {
    {"__name__", sleep_get_name, NULL, PyDoc_STR("What it was made by."), NULL},
    {"__qualname__", sleep_get_qualname, NULL, PyDoc_STR("What it was made by."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(sleep_type_doc,
"What sleep(), sleep_until(), sleep_forever() and checkpoint() return; await it once.");

static PyMethodDef sleep_methods[] = {
    {"send", sleep_py_send, METH_O, PyDoc_STR("send($self, value, /)\n--\n\nAs of a generator.")},
    {"throw", (PyCFunction)(void (*)(void))sleep_py_throw, METH_FASTCALL,
     PyDoc_STR("throw($self, exception, /, *args)\n--\n\nAs of a generator.")},
    {"close", sleep_py_close, METH_NOARGS, PyDoc_STR("close($self, /)\n--\n\nAs of a generator.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot sleep_slots[] = {
    {Py_tp_doc, (void *)sleep_type_doc},
    {Py_tp_dealloc, sleep_tp_dealloc},
    {Py_tp_finalize, sleep_tp_finalize},
    {Py_tp_repr, sleep_tp_repr},
    {Py_tp_iter, sleep_tp_iter},
    {Py_tp_iternext, sleep_tp_iternext},
    {Py_am_await, sleep_tp_iter},
    {Py_am_send, sleep_advance},
    {Py_tp_methods, sleep_methods},
    {Py_tp_getset, sleep_getset},
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
    return given[1] == NULL ? sleep_new(state, SLEEP_FOR, ns) : sleep_then(given[0], given[1]);
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
        return sleep_new(state, SLEEP_UNTIL, time);
    }
    PyObject *offset = PyObject_CallMethod(when, "utcoffset", NULL);
    if (offset == NULL) {
        return NULL;
    }
    PyObject *sleep = sleep_new(state, SLEEP_UNTIL_WALL, time);
    if (sleep != NULL) {
        ((SleepObject *)sleep)->aware = offset != Py_None;
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
    return sleep_new(PyModule_GetState(module), SLEEP_FOREVER, TIME_FOREVER);
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
    return sleep_new(PyModule_GetState(module), SLEEP_CHECKPOINT, 0);
}

#endif /* SLEEPLOOP_SLEEP_H */
