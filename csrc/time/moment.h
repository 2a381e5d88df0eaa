/* moment.h: waiting for a moment of the wall clock: by sleep_until(datetime), or by a datetime that a
 * coroutine yields, as those of the teaching example do.
 *
 * On the system's wall clock that moment may still be ahead when the timer fires, as that clock and
 * the monotonic one do not run quite alike: then the task is parked anew.
 */
#ifndef SLEEPLOOP_TIME_MOMENT_H
#define SLEEPLOOP_TIME_MOMENT_H

#include "../base/clock.h"
#include "../base/compat.h"
#include "../base/lateness.h"
#include "../core/awaitable.h"
#include "../core/cancelled.h"
#include "../core/kinds.h"
#include "../core/loopobject.h"
#include "../core/pending.h"
#include "../core/ready.h"
#include "../core/scopetree.h"
#include "../core/state.h"
#include "../core/taskobject.h"
#include "../core/trace.h"
#include "../core/walltime.h"
#include "sleep.h"

/* A datetime that a coroutine has yielded, as those of the teaching example do. */
typedef struct {
    AWAIT_HEAD
    int64_t wall;        /* the same in microseconds since 1970 UTC */
    PyObject *datetime;  /* owned */
} MomentObject;

static enum parked
task_park_until_wall(LoopObject *loop, TaskObject *task, int64_t wall)
{
    enum parked parked =
        task_park_until(loop, task, clock_now(&loop->clock), loop_time_of_wall(loop, wall));
    if (loop->wall_is_system && parked != PARK_FAILED) {
        if (loop->wall_sleepers == 0) {
            loop->wall_lead = loop_wall_lead(loop);
        }
        loop->wall_sleepers++;
        task->flags |= TASK_WALL;
    }
    return parked;
}

/* What a task that was stopped since it was woken is to get instead, a new reference. */
static PyObject *
task_stopped_by(LoopObject *loop, TaskObject *task)
{
    PyObject *exc = task->flags & TASK_CANCELLING
                        ? cancelled_error_new(loop->state, task_cancel_cause(task))
                        : interrupts_take(loop, task);
    return exc != NULL ? exc : PyErr_GetRaisedException();
}

/* The first half of input(): the task of `self` goes on, or waits on. *now: what the wall clock
 * shows. */
static enum input
wall_input(Awaitable *self, LoopObject *loop, TaskObject *task, int64_t wall, int timed,
           PyObject **input, int64_t *now)
{
    *now = loop_wall_now(loop);
    if (loop->wall_is_system && *now < wall) {
        if (task_is_stopped(task)) {  /* since it was woken */
            *input = task_stopped_by(loop, task);
            return INPUT_THROW;
        }
        task->payload = Py_NewRef((PyObject *)self);
        switch (task_park_until_wall(loop, task, wall)) {
        case PARKED:
            task->state = TASK_PARKED;
            trace_park(loop, task, 0);
            return INPUT_NOT_YET;
        case PARK_READY:
            loop_make_ready(loop, task);
            trace_park(loop, task, 0);
            return INPUT_NOT_YET;
        default:
            Py_CLEAR(task->payload);
            *input = PyErr_GetRaisedException();
            return INPUT_THROW;
        }
    }
    if (timed && loop->clock.mode != CLOCK_VIRTUAL && *now - wall < TIME_FOREVER / NS_PER_US) {
        lateness_add(&loop->late, (*now - wall) * NS_PER_US);
    }
    return INPUT_SEND;
}

/* ---- sleep_until(datetime) ------------------------------------------------------------------- */

static enum parked
sleep_until_wall_park(Awaitable *self, LoopObject *loop, TaskObject *task)
{
    return task_park_until_wall(loop, task, ((SleepObject *)self)->time);
}

static enum input
sleep_until_wall_input(Awaitable *self, LoopObject *loop, TaskObject *task, int timed,
                       PyObject **input)
{
    int64_t now;
    return wall_input(self, loop, task, ((SleepObject *)self)->time, timed, input, &now);
}

static int
sleep_until_wall_wake_time(Awaitable *self, LoopObject *loop, int64_t *when)
{
    *when = loop_time_of_wall(loop, ((SleepObject *)self)->time);
    return 0;
}

static const struct await_kind sleep_until_wall_kind = {
    AWAIT_KIND(sleep_until_wall_kind, "sleep_until()"),
    .is_sleep = 1,
    .reuses_end = 1,
    .begin = sleep_begin,
    .resume_abroad = sleep_resume_abroad,
    .resume = sleep_resume,
    .park = sleep_until_wall_park,
    .unpark = await_unpark_timer,
    .input = sleep_until_wall_input,
    .outside = await_waits_for_signal,
    .wake_time = sleep_until_wall_wake_time,
    .describe = await_describe_sleep,
};

/* ---- a datetime ------------------------------------------------------------------------------ */

/* What stands for a datetime that the task has yielded; NULL with an exception of the datetime's, or
 * MemoryError. Steals datetime. Beware: the conversion may run a time zone's Python. */
static Awaitable *
moment_new_steal(LoopObject *loop, TaskObject *task, PyObject *datetime_steal)
{
    int64_t wall;
    MomentObject *self = NULL;
    if (wall_from_deadline(loop->state, datetime_steal, &wall) == 0) {
        self = PyObject_GC_New(MomentObject, loop->state->MomentType);
    }
    if (self == NULL) {
        Py_DECREF(datetime_steal);
        return NULL;
    }
    await_init((Awaitable *)self, moment_kind_number);
    self->since = clock_about_now(&loop->clock);
    self->task_number = task->number;
    self->loop_number = (uint32_t)loop->number;
    self->state = AWAIT_DONE;  /* nobody awaits it */
    self->wall = wall;
    self->datetime = datetime_steal;
    PyObject_GC_Track(self);
    return (Awaitable *)self;
}

static PySendResult
moment_begin(ModuleState *Py_UNUSED(state), Awaitable *self, PyObject **Py_UNUSED(result))
{
    return await_used_up(self);
}

static PySendResult
moment_resume(Awaitable *self, LoopObject *Py_UNUSED(loop), PyObject **Py_UNUSED(result))
{
    return await_used_up(self);
}

static enum parked
moment_park(Awaitable *self, LoopObject *loop, TaskObject *task)
{
    return task_park_until_wall(loop, task, ((MomentObject *)self)->wall);
}

/* The coroutine is sent the time that it is. Its time zone may have changed its mind meanwhile. */
static enum input
moment_input(Awaitable *self, LoopObject *loop, TaskObject *task, int timed, PyObject **input)
{
    MomentObject *moment = (MomentObject *)self;
    int64_t now;
    if (wall_from_deadline(loop->state, moment->datetime, &moment->wall) < 0) {
        *input = PyErr_GetRaisedException();
        return INPUT_THROW;
    }
    enum input how = wall_input(self, loop, task, moment->wall, timed, input, &now);
    if (how == INPUT_SEND) {
        *input = datetime_like(loop->state, now, moment->datetime);
        if (*input == NULL) {
            *input = PyErr_GetRaisedException();
            return INPUT_THROW;
        }
    }
    return how;
}

static PyObject *
moment_waits_on(Awaitable *self)
{
    return Py_NewRef(((MomentObject *)self)->datetime);
}

static int
moment_wake_time(Awaitable *self, LoopObject *loop, int64_t *when)
{
    *when = loop_time_of_wall(loop, ((MomentObject *)self)->wall);
    return 0;
}

static const struct await_kind moment_kind = {
    AWAIT_KIND(moment_kind, "datetime"),
    .is_sleep = 1,
    .begin = moment_begin,
    .resume = moment_resume,
    .park = moment_park,
    .unpark = await_unpark_timer,
    .input = moment_input,
    .outside = await_waits_for_signal,
    .waits_on = moment_waits_on,
    .wake_time = moment_wake_time,
    .describe = await_describe_sleep,
};

static int
moment_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((MomentObject *)op)->datetime);
    return 0;
}

static void
moment_tp_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    Py_DECREF(((MomentObject *)op)->datetime);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyType_Slot moment_slots[] = {
    {Py_tp_doc, (void *)"What stands for a datetime that a coroutine has yielded."},
    {Py_tp_dealloc, moment_tp_dealloc},
    {Py_tp_traverse, moment_tp_traverse},
    AWAIT_SLOTS(PyObject_SelfIter),
    {0, NULL},
};

static PyType_Spec moment_spec = {
    .name = "sleeploop.Moment",
    .basicsize = sizeof(MomentObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = moment_slots,
};

#endif /* SLEEPLOOP_TIME_MOMENT_H */
