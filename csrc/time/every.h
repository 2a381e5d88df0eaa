/* every.h: every(), the ticks of a periodic schedule for `async for`.
 *
 * Three types: the Every that people hold; the awaitable that each __anext__() returns, which
 * yields itself as a sleep does; and the Tick that comes of it. None holds an object of the
 * user's or the loop, so that none can be part of a cycle.
 *
 * What an await is going to give is decided when it begins, and becomes true only when it ends:
 * one that is cancelled has changed nothing.
 */
#ifndef SLEEPLOOP_TIME_EVERY_H
#define SLEEPLOOP_TIME_EVERY_H

#include "../base/clock.h"
#include "../base/compat.h"
#include "../base/lateness.h"
#include "../base/random.h"
#include "../base/schedule.h"
#include "../core/args.h"
#include "../core/awaitable.h"
#include "../core/forgotten.h"
#include "../core/kinds.h"
#include "../core/loopobject.h"
#include "../core/scopeobject.h"
#include "../core/state.h"
#include "../core/taskobject.h"
#include "../core/walltime.h"
#include "sleep.h"
#include "tick.h"

enum missed_policy { MISSED_SKIP, MISSED_BURST, MISSED_DELAY };

typedef struct EveryObject EveryObject;

/* One await of an Every. What it will give is decided when it begins; see every.h. */
typedef struct {
    AWAIT_HEAD
    EveryObject *every;    /* owned */
    uint64_t index;        /* while WAITING: of the tick to come */
    int64_t due;           /* likewise: loop time */
} NextTickObject;

/* every(). Holds no object either; what waits for it holds it. */
struct EveryObject {
    PyObject_HEAD
    struct schedule schedule;
    uint64_t next;          /* index of the first tick that has not come */
    NextTickObject *waiter; /* borrowed: the await that is under way, or NULL */
    NextTickObject *spare;  /* owned: memory for the next one, no object now; or NULL */
    uint64_t loop_number;   /* of the loop it has begun on; 0: of none yet */
    double period;          /* seconds */
    int64_t start;          /* as a deadline of this kind: */
    uint8_t start_kind;     /* enum deadline_kind */
    uint8_t missed;         /* enum missed_policy */
};

/* ---- the awaitable --------------------------------------------------------------------------- */

/* The first await: the schedule gets its place in loop time. */
static void
every_begin(EveryObject *every, LoopObject *loop, int64_t now)
{
    struct schedule *schedule = &every->schedule;
    every->loop_number = loop->number;
    if (every->start_kind == DEADLINE_AFTER) {
        schedule->base = now;
    }
    else if (every->start_kind == DEADLINE_WALL) {
        schedule->base = loop_time_at_wall(loop, every->start);
    }
    else {
        schedule->base = every->start;
    }
    if (schedule->jitter > 0) {
        uint64_t seed = PyLong_AsUnsignedLongLongMask(loop->seed);  /* an exact int: no error */
        schedule->seed = random_at(seed, loop->jitters++);
    }
}

static PySendResult
nexttick_begin(ModuleState *state, Awaitable *op, PyObject **result)
{
    NextTickObject *self = (NextTickObject *)op;
    EveryObject *every = self->every;
    LoopObject *loop = current_loop_borrowed(state);
    self->excused = 1;  /* in case of an error: it has been awaited, in vain */
    if (loop == NULL || loop->current == NULL) {
        (void)need_current_task_borrowed(state, "awaiting a tick of every()");
        return PYGEN_ERROR;
    }
    if (every->waiter != NULL) {
        PyErr_SetString(PyExc_RuntimeError,
                        "every(): its next tick is being waited for already, and one at a time can "
                        "do that; let each task have an every() of its own");
        return PYGEN_ERROR;
    }
    int64_t now = clock_now(&loop->clock);
    if (every->loop_number == 0) {
        every_begin(every, loop, now);
    }
    else if (every->loop_number != loop->number) {
        PyErr_SetString(PyExc_RuntimeError,
                        "every(): this one has begun on another loop; make a new one for each run");
        return PYGEN_ERROR;
    }
    self->index = every->next;
    self->due = schedule_due(&every->schedule, self->index);
    if (every->missed == MISSED_SKIP && self->due < now) {
        self->index = schedule_latest(&every->schedule, self->index, now);
        self->due = schedule_due(&every->schedule, self->index);
    }
    every->waiter = self;
    return await_yield(op, loop, now, result);
}

static enum parked
nexttick_park(Awaitable *self, LoopObject *loop, TaskObject *task)
{
    return task_park_until(loop, task, await_began(self, loop), ((NextTickObject *)self)->due);
}

/* However the await ends, if it has begun. */
static inline void
nexttick_ended(NextTickObject *self)
{
    self->state = AWAIT_DONE;
    if (self->every->waiter == self) {
        self->every->waiter = NULL;
    }
}

static int
nexttick_give_up(Awaitable *self, PyObject *Py_UNUSED(exc))
{
    nexttick_ended((NextTickObject *)self);
    return 1;
}

static PySendResult
nexttick_resume(Awaitable *op, LoopObject *loop, PyObject **result)
{
    NextTickObject *self = (NextTickObject *)op;
    EveryObject *every = self->every;
    int64_t now = clock_now(&loop->clock);
    if (now < self->due) {  /* somebody resumes it by hand; a tick is never early */
        *result = Py_NewRef((PyObject *)self);
        return PYGEN_NEXT;
    }
    nexttick_ended(self);
    *result = tick_new(loop->state, self->index, self->due, time_since(self->due, now),
                       self->index - every->next);
    if (*result == NULL) {
        return PYGEN_ERROR;
    }
    int was_overdue = self->due < self->since;
    if (was_overdue && every->missed == MISSED_DELAY) {
        every->schedule.base = now;
        every->schedule.base_index = self->index;
    }
    if (loop->clock.mode != CLOCK_VIRTUAL && self->due > self->since) {
        lateness_add(&loop->late, now - self->due);
    }
    every->next = self->index + 1;
    return PYGEN_RETURN;
}

static int
nexttick_wake_time(Awaitable *self, LoopObject *Py_UNUSED(loop), int64_t *when)
{
    *when = ((NextTickObject *)self)->due;
    return 0;
}

static PyObject *
nexttick_waits_on(Awaitable *self)
{
    return Py_NewRef((PyObject *)((NextTickObject *)self)->every);
}

static const struct await_kind tick_kind = {
    AWAIT_KIND(tick_kind, "Every.__anext__()"),
    .is_sleep = 1,
    .reuses_end = 1,
    .begin = nexttick_begin,
    .resume = nexttick_resume,
    .give_up = nexttick_give_up,
    .park = nexttick_park,
    .unpark = await_unpark_timer,
    .outside = await_waits_for_signal,
    .waits_on = nexttick_waits_on,
    .wake_time = nexttick_wake_time,
    .describe = await_describe_sleep,
};

/* ---- its type -------------------------------------------------------------------------------- */

static PyObject *
nexttick_tp_repr(PyObject *op)
{
    return await_is_stray((Awaitable *)op)
               ? await_stray_repr((Awaitable *)op)
               : PyUnicode_FromFormat("<next of %R>", ((NextTickObject *)op)->every);
}

static void
nexttick_tp_dealloc(PyObject *op)
{
    NextTickObject *self = (NextTickObject *)op;
    PyTypeObject *type = Py_TYPE(op);
    EveryObject *every = self->every;
    if (await_dies(op) < 0) {
        return;
    }
    nexttick_ended(self);
    if (every->spare == NULL) {  /* for the next: a tenth of what a tick costs */
        every->spare = self;
    }
    else {
        PyObject_Free(op);
    }
    Py_DECREF(every);
    Py_DECREF(type);
}

static PyType_Slot nexttick_slots[] = {
    {Py_tp_doc, (void *)"What __anext__() of an Every returns; `async for` awaits it, once."},
    {Py_tp_dealloc, nexttick_tp_dealloc},
    {Py_tp_finalize, await_tp_finalize},
    {Py_tp_repr, nexttick_tp_repr},
    AWAIT_SLOTS(await_tp_iter),
    {Py_tp_methods, await_methods},
    {Py_tp_getset, await_getset},
    {0, NULL},
};

static PyType_Spec nexttick_spec = {
    .name = "sleeploop.NextTick",
    .basicsize = sizeof(NextTickObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = nexttick_slots,
};

/* ---- Every ----------------------------------------------------------------------------------- */

static const char *const missed_names[] = {
    [MISSED_SKIP] = "skip",
    [MISSED_BURST] = "burst",
    [MISSED_DELAY] = "delay",
};

static PyObject *
every_am_anext(PyObject *op)
{
    ModuleState *state = state_of_type(Py_TYPE(op));
    PyTypeObject *type = state->NextTickType;
    NextTickObject *next = ((EveryObject *)op)->spare;
    if (next != NULL) {
        ((EveryObject *)op)->spare = NULL;
        (void)PyObject_Init((PyObject *)next, type);
    }
    else {
        next = PyObject_New(NextTickObject, type);
        if (next == NULL) {
            return NULL;
        }
    }
    await_init((Awaitable *)next, tick_kind_number);
    next->every = (EveryObject *)Py_NewRef(op);
    next->index = 0;
    next->due = 0;
    awaitable_made(state, (PyObject *)next);
    return (PyObject *)next;
}

static PyObject *
every_get_period(PyObject *op, void *Py_UNUSED(closure))
{
    return PyFloat_FromDouble(((EveryObject *)op)->period);
}

static PyObject *
every_get_missed(PyObject *op, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(missed_names[((EveryObject *)op)->missed]);
}

static PyObject *
every_tp_repr(PyObject *op)
{
    EveryObject *self = (EveryObject *)op;
    PyObject *period = every_get_period(op, NULL), *due = NULL, *text = NULL;
    int64_t when = self->waiter != NULL ? self->waiter->due
                                        : schedule_due(&self->schedule, self->next);
    unsigned long long index = self->waiter != NULL ? self->waiter->index : self->next;
    if (period == NULL) {
        return NULL;
    }
    if (self->loop_number == 0) {
        text = PyUnicode_FromFormat("<every %S s, not begun>", period);
    }
    else if (when > TIME_END) {
        text = PyUnicode_FromFormat("<every %S s, next tick %llu never due>", period, index);
    }
    else if ((due = seconds_object(when)) != NULL) {
        text = PyUnicode_FromFormat("<every %S s, next tick %llu due %S s>", period, index, due);
    }
    Py_XDECREF(due);
    Py_DECREF(period);
    return text;
}

/* For the type alone; see sync_tp_traverse(). */
static int
every_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    return 0;
}

static void
every_tp_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    PyObject_Free(((EveryObject *)op)->spare);
    type->tp_free(op);
    Py_DECREF(type);
}

PyDoc_STRVAR(every_type_doc,
"What every() returns, an asynchronous iterator of Tick. It goes on where it was left,\n"
"and never ends.\n"
"\n"
">>> import sleeploop\n"
">>> sleeploop.every(0.1, missed='burst')\n"
"<every 0.1 s, not begun>\n");

static PyGetSetDef every_getset[] = {
    {"period", every_get_period, NULL, PyDoc_STR("Seconds from tick to tick."), NULL},
    {"missed", every_get_missed, NULL,
     PyDoc_STR("What happens with overdue ticks: 'skip', 'burst' or 'delay'."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot every_slots[] = {
    {Py_tp_doc, (void *)every_type_doc},
    {Py_tp_dealloc, every_tp_dealloc},
    {Py_tp_traverse, every_tp_traverse},
    {Py_tp_repr, every_tp_repr},
    {Py_am_aiter, PyObject_SelfIter},
    {Py_am_anext, every_am_anext},
    {Py_tp_getset, every_getset},
    {0, NULL},
};

static PyType_Spec every_spec = {
    .name = "sleeploop.Every",
    .basicsize = sizeof(EveryObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = every_slots,
};

/* ---- the function ---------------------------------------------------------------------------- */

/* *ns: the same in nanoseconds, rounded. What has a __float__() is asked for it once. */
static int
every_set_period(ModuleState *state, EveryObject *every, PyObject *obj, int64_t *ns)
{
    PyNumberMethods *methods = Py_TYPE(obj)->tp_as_number;
    int is_float = !PyLong_Check(obj) && methods != NULL && methods->nb_float != NULL;
    PyObject *number = is_float ? PyNumber_Float(obj) : Py_NewRef(obj);
    if (number == NULL) {
        return -1;
    }
    int rc = delay_from_object(state, "every()", number, ns);
    double seconds = is_float ? PyFloat_AS_DOUBLE(number) : 0;
    Py_DECREF(number);
    if (rc < 0) {
        return -1;
    }
    if (*ns <= 0 || isinf(seconds)) {
        raise_about(PyExc_ValueError, "%s: the period must be positive and finite, not %U%s",
                    "every()", obj, "");
        return -1;
    }
    every->period = is_float ? seconds : (double)*ns / 1e9;
    schedule_set_period(&every->schedule, every->period, *ns);
    return 0;
}

static int
every_set_start(ModuleState *state, EveryObject *every, PyObject *obj)
{
    every->start_kind = DEADLINE_AFTER;
    every->start = 0;
    if (obj == NULL || obj == Py_None) {
        return 0;
    }
    int is_wall;
    if (moment_from_object(state, "every(start=)", obj, &every->start, &is_wall) < 0) {
        return -1;
    }
    every->start_kind = is_wall ? DEADLINE_WALL : DEADLINE_AT;
    return 0;
}

static int
every_set_missed(EveryObject *every, PyObject *obj)
{
    if (obj == NULL) {
        every->missed = MISSED_SKIP;
        return 0;
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(missed_names); i++) {
        if (PyUnicode_Check(obj) && PyUnicode_CompareWithASCIIString(obj, missed_names[i]) == 0) {
            every->missed = (uint8_t)i;
            return 0;
        }
    }
    raise_about(PyExc_ValueError, "%s: missed must be 'skip', 'burst' or 'delay', not %U%s",
                "every()", obj, "");
    return -1;
}

/* `most`: the period in nanoseconds. */
static int
every_set_jitter(ModuleState *state, EveryObject *every, PyObject *obj, int64_t most)
{
    int64_t jitter = 0;
    if (obj != NULL && delay_from_object(state, "every(jitter=)", obj, &jitter) < 0) {
        return -1;
    }
    if (jitter < 0 || jitter > most) {
        raise_about(PyExc_ValueError,
                    "%s: jitter must not be negative, or longer than the period, but is %U%s",
                    "every()", obj, "");
        return -1;
    }
    every->schedule.jitter = jitter;
    return 0;
}

PyDoc_STRVAR(every_doc,
"every($module, period, *, start=None, missed='skip', jitter=0)\n--\n\n"
"An asynchronous iterator of ticks, one every `period`: `async for tick in every(1):`.\n"
"Tick k is due at start + k * period. That does not drift, however long the body of\n"
"the loop takes, and no tick is early. Each step is a checkpoint.\n"
"\n"
"period: seconds or a timedelta, positive and finite. start: when the first tick is\n"
"due, loop time in seconds or a datetime; the default is when it is first asked for.\n"
"missed: what happens with ticks that are overdue already when the next one is asked\n"
"for. 'skip': only the latest of them comes, at once, and tells how many it replaces;\n"
"'burst': all come, without waiting; 'delay': one comes at once, and the schedule goes\n"
"on from there. jitter: each tick is due later by a random time below this, the same\n"
"in each run with the loop's seed; not longer than the period.\n"
"\n"
"One task at a time can wait for a tick. A wait that is cancelled loses none.\n"
"\n"
"Raises TypeError and ValueError for wrong arguments, at the call; RuntimeError when\n"
"it is awaited without a running loop, on a second loop, or by two tasks at once.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def main():\n"
"...     async for tick in sleeploop.every(10):\n"
"...         print(tick)\n"
"...         if tick.index >= 4:\n"
"...             break\n"
"...         await sleeploop.sleep(5 if tick.index < 1 else 35)\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"<Tick 0 due 0.0 s, 0.0 s late, 0 missed>\n"
"<Tick 1 due 10.0 s, 0.0 s late, 0 missed>\n"
"<Tick 4 due 40.0 s, 5.0 s late, 2 missed>\n");

static PyObject *
module_py_every(PyObject *module, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    static const char *const names[] = {"period", "start", "missed", "jitter", NULL};
    ModuleState *state = PyModule_GetState(module);
    PyObject *given[4];
    if (args_parse("every()", names, 1, 1, args, n_args, kwnames, given) < 0) {
        return NULL;
    }
    EveryObject *every = PyObject_GC_New(EveryObject, state->EveryType);
    if (every == NULL) {
        return NULL;
    }
    every->schedule = (struct schedule){0};
    every->next = 0;
    every->loop_number = 0;
    every->waiter = NULL;
    every->spare = NULL;
    PyObject_GC_Track(every);
    int64_t ns;
    if (every_set_period(state, every, given[0], &ns) < 0
        || every_set_start(state, every, given[1]) < 0 || every_set_missed(every, given[2]) < 0
        || every_set_jitter(state, every, given[3], ns) < 0) {
        Py_DECREF(every);
        return NULL;
    }
    return (PyObject *)every;
}

#endif /* SLEEPLOOP_TIME_EVERY_H */
