/* waitobject.h: what `await lock.acquire()` and its like await: how it begins, and how it ends.
 *
 * It asks its kind for what is wanted, and yields itself if that cannot be had at once: then its
 * task is parked at a waitlist. What was granted and is not taken, it gives back.
 */
#ifndef SLEEPLOOP_WAIT_WAITOBJECT_H
#define SLEEPLOOP_WAIT_WAITOBJECT_H

#include "../base/clock.h"
#include "../base/compat.h"
#include "../core/awaitable.h"
#include "../core/forgotten.h"
#include "../core/kinds.h"
#include "../core/loopobject.h"
#include "../core/scopetree.h"
#include "../core/state.h"
#include "../core/taskobject.h"
#include "../core/trace.h"
#include "waitlist.h"

/* ---- made, and given back -------------------------------------------------------------------- */

/* Of one that has just been allocated, or of what begins with one. waitlist: in `object`, or NULL for
 * a kind that parks by itself. value: owned by the wait from now on, or NULL. Steals value. */
static inline void
wait_init(WaitObject *self, const struct wait_kind *kind, PyObject *object, struct waitlist *waitlist,
          PyObject *value_steal)
{
    await_init((Awaitable *)self, kind->await.number);
    self->outcome = WAIT_OPEN;
    self->taken = self->parked = 0;
    self->object = (SyncObject *)Py_NewRef(object);
    self->value = value_steal;
    self->waitlist = waitlist;
    self->task = NULL;
    self->number = 0;
}

/* Likewise; steals value even if it fails. */
static WaitObject *
wait_new(ModuleState *state, const struct wait_kind *kind, PyObject *object, struct waitlist *waitlist,
         PyObject *value_steal)
{
    WaitObject *self = PyObject_GC_New(WaitObject, state->WaitType);
    if (self == NULL) {
        Py_XDECREF(value_steal);
        return NULL;
    }
    wait_init(self, kind, object, waitlist, value_steal);
    PyObject_GC_Track(self);
    awaitable_made(state, (PyObject *)self);
    return self;
}

COLD static void
wait_give_back(WaitObject *self)
{
    PyObject *saved = PyErr_GetRaisedException();
    wait_kind(self)->give_back(self);
    PyErr_SetRaisedException(saved);
}

/* Granted, and the task that it was granted to does not take it. Beware: may run Python, where
 * what dies with it does. */
static inline void
wait_not_taken(WaitObject *self)
{
    if (self->outcome == WAIT_GRANTED && !self->taken) {
        self->taken = 1;
        if (wait_kind(self)->give_back != NULL) {
            wait_give_back(self);
        }
    }
}

/* ---- awaited --------------------------------------------------------------------------------- */

/* The end of the await. */
static PySendResult
wait_finish(WaitObject *self, PyObject **result)
{
    const struct wait_kind *kind = wait_kind(self);
    self->state = AWAIT_DONE;
    self->taken = 1;
    if (self->outcome == WAIT_FAILED) {
        PyErr_SetObject((PyObject *)Py_TYPE(self->value), self->value);
        Py_CLEAR(self->value);  /* its traceback may lead to a frame that holds this */
        *result = NULL;
    }
    else if (kind->result != NULL) {
        *result = kind->result(self);
    }
    else if (self->value != NULL) {
        *result = self->value;
        self->value = NULL;
    }
    else {
        *result = Py_NewRef(Py_None);
    }
    if (*result == NULL) {
        self->taken = 0;  /* what was granted, and there was no memory to tell it */
        wait_not_taken(self);
        await_error_is_no_end(kind->await.function, PyExc_StopIteration);
        return PYGEN_ERROR;
    }
    return PYGEN_RETURN;
}

/* Granted, but there was no memory to tell it. Steals result; NULL: it was never awaited to its end. */
COLD static void
wait_not_told(Awaitable *op, PyObject *result_steal)
{
    WaitObject *self = (WaitObject *)op;
    if (result_steal != NULL) {
        self->taken = 0;
        if (result_steal == (PyObject *)self) {  /* a Request comes to itself */
            Py_DECREF(result_steal);
        }
        else {
            Py_XSETREF(self->value, result_steal);
        }
    }
    wait_not_taken(self);
}

static PySendResult
wait_begin(ModuleState *state, Awaitable *op, PyObject **result)
{
    WaitObject *self = (WaitObject *)op;
    const struct wait_kind *kind = wait_kind(self);
    TaskObject *task = need_current_task_borrowed(state, kind->await.function);
    if (task == NULL || sync_enter(state, self->object, task->loop, kind->await.function) < 0) {
        self->excused = 1;  /* it can be awaited elsewhere, but need not be */
        return PYGEN_ERROR;
    }
    self->state = AWAIT_DONE;  /* so that no Python that take() runs awaits it as well */
    if (task_may_go_on(task)) {
        switch (kind->take(self, task->loop, task)) {
        case 1:
            self->outcome = WAIT_GRANTED;
            return wait_finish(self, result);
        case 0:
            break;
        default:
            await_error_is_no_end(kind->await.function, PyExc_StopIteration);
            return PYGEN_ERROR;
        }
    }
    self->task = task;
    return await_yield(op, task->loop, clock_about_now(&task->loop->clock), result);
}

static PySendResult
wait_resume(Awaitable *op, LoopObject *loop, PyObject **result)
{
    WaitObject *self = (WaitObject *)op;
    const struct wait_kind *kind = wait_kind(self);
    if (self->outcome == WAIT_OPEN || self->taken) {
        return await_used_up(op);  /* the wake-up was somebody else's, or it has been given back */
    }
    if (kind->resume != NULL && self->outcome != WAIT_FAILED) {
        switch (kind->resume(self, loop, loop->current, NULL)) {
        case 1:
            break;
        case 0:
            return await_yield_again(op, loop, result);
        default:
            self->state = AWAIT_DONE;
            await_error_is_no_end(kind->await.function, PyExc_StopIteration);
            return PYGEN_ERROR;
        }
    }
    return wait_finish(self, result);
}

static int
wait_give_up(Awaitable *op, PyObject *exc)
{
    WaitObject *self = (WaitObject *)op;
    LoopObject *loop = current_loop_borrowed(state_of_type(Py_TYPE(op)));
    if (exc == NULL || self->state != AWAIT_WAITING || wait_kind(self)->resume == NULL
        || self->parked || loop == NULL || loop->current == NULL || loop->current != self->task) {
        if (exc == NULL || self->state == AWAIT_WAITING) {
            wait_not_taken(self);
        }
        return 1;
    }
    int ended = wait_kind(self)->resume(self, loop, loop->current, exc);
    if (ended == 0) {
        trace_await_thrown(loop);
    }
    return ended;
}

/* ---- parked ---------------------------------------------------------------------------------- */

/* At its waitlist, unless what it waits for can be had meanwhile. Beware: the second question may run
 * Python, which may cancel the task, or end the wait. */
static enum parked
wait_park_task(Awaitable *op, LoopObject *loop, TaskObject *task)
{
    WaitObject *self = (WaitObject *)op;
    if (self->parked || self->object->loop_number != loop->number) {
        return PARK_REFUSED;  /* by hand, since it has begun */
    }
    int taken = self->outcome == WAIT_OPEN ? wait_kind(self)->take(self, loop, task) : 1;
    if (taken == 0 && self->outcome == WAIT_OPEN) {
        if (task_is_stopped(task) && !self->firm) {
            return PARK_STOPPED;
        }
        if (wait_park(self, task) == 0) {
            return PARKED;
        }
        taken = -1;
    }
    if (taken < 0) {
        await_error_is_no_end(await_kind(op)->function, PyExc_StopIteration);
        return PARK_FAILED;
    }
    if (self->outcome == WAIT_OPEN) {
        self->outcome = WAIT_GRANTED;
    }
    return PARK_READY;
}

/* The wait that it is, borrowed; NULL: it is none, or there is nothing. */
static inline WaitObject *
await_as_wait(Awaitable *self)
{
    return self != NULL && await_kind(self)->begin == wait_begin ? (WaitObject *)self : NULL;
}

static uint32_t
wait_blocker(const Awaitable *op)
{
    const WaitObject *self = (const WaitObject *)op;
    return wait_kind(self)->blocker != NULL ? wait_kind(self)->blocker(self) : 0;
}

/* An event, an item, a value may come of any thread; who has a lock is a task, and no thread. */
static enum outside
wait_outside(const Awaitable *self, const TaskObject *Py_UNUSED(task))
{
    return wait_kind((const WaitObject *)self)->blockers == NULL && wait_blocker(self) == 0
               ? OUTSIDE_THREAD
               : OUTSIDE_NOTHING;
}

static PyObject *
wait_describe(Awaitable *op, LoopObject *Py_UNUSED(loop))
{
    WaitObject *self = (WaitObject *)op;
    PyObject *object = Py_NewRef(self->object);  /* Python may let the wait go on to another one */
    PyObject *what = wait_kind(self)->describe(object);
    PyObject *text = what != NULL ? PyUnicode_FromFormat("waiting for %U", what) : NULL;
    Py_XDECREF(what);
    Py_DECREF(object);
    return text;
}

static PyObject *
wait_waits_on(Awaitable *self)
{
    return Py_NewRef((PyObject *)((WaitObject *)self)->object);
}

static PyObject *
wait_name(const Awaitable *self)
{
    return ((const WaitObject *)self)->object->name;
}

static PyObject *
wait_graph_row(Awaitable *op)
{
    const WaitObject *self = (WaitObject *)op;
    if (wait_kind(self)->blockers != NULL) {
        return Py_BuildValue("(s(nn))", "shared", (Py_ssize_t)(intptr_t)self->object,
                             (Py_ssize_t)(intptr_t)wait_kind(self));
    }
    unsigned number = wait_blocker(op);
    return number != 0 ? Py_BuildValue("(sI)", "one", number)
                       : Py_BuildValue("(sO)", "", Py_None);
}

/* What all rows of Waits begin with. */
#define WAIT_KIND(row, made_by)                                                                \
    .await = {                                                                                 \
        AWAIT_KIND(row, made_by), .begin = wait_begin, .resume = wait_resume,                  \
        .give_up = wait_give_up, .not_told = wait_not_told, .park = wait_park_task,            \
        .unpark = wait_unpark, .outside = wait_outside, .describe = wait_describe,        \
        .waits_on = wait_waits_on, .blocker = wait_blocker, .graph_row = wait_graph_row,       \
        .name = wait_name,                                                                     \
    }

/* ---- the type -------------------------------------------------------------------------------- */

/* Without a tp_clear, as a Join: a parked task finds the list in which it stands by its wait. A
 * cycle through one leads through its task, or through an object that breaks it. */
static int
wait_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((WaitObject *)op)->object);
    Py_VISIT(((WaitObject *)op)->value);
    return 0;
}

static void
wait_tp_finalize(PyObject *op)
{
    wait_not_taken((WaitObject *)op);
    await_tp_finalize(op);
}

static void
wait_tp_dealloc(PyObject *op)
{
    WaitObject *self = (WaitObject *)op;
    PyTypeObject *type = Py_TYPE(op);
    if (self->outcome == WAIT_GRANTED && !self->taken && PyObject_CallFinalizerFromDealloc(op) < 0) {
        return;
    }
    if (await_dies(op) < 0) {
        return;
    }
    PyObject_GC_UnTrack(op);
    assert(!self->parked);
    /* What is brought may be another wait that brings another, 100,000 in a row. */
    Py_TRASHCAN_BEGIN(op, wait_tp_dealloc)
    Py_XDECREF(self->value);
    Py_DECREF(self->object);
    type->tp_free(op);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

static PyObject *
wait_tp_repr(PyObject *op)
{
    static const char *const words[] = {
        [AWAIT_NEW] = "not awaited yet", [AWAIT_WAITING] = "waiting",
        [AWAIT_ABROAD] = "waiting", [AWAIT_DONE] = "done",
    };
    WaitObject *self = (WaitObject *)op;
    const char *advice = await_is_stray((Awaitable *)op) ? ", " STRAY_ADVICE : "";
    const struct wait_kind *kind = wait_kind(self);
    PyObject *what = kind->describe((PyObject *)self->object);
    PyObject *text = what != NULL ? PyUnicode_FromFormat("<%s of %U%s, %s>", kind->await.function,
                                                         what, advice, words[self->state])
                                  : NULL;
    Py_XDECREF(what);
    return text;
}

static PyType_Slot wait_slots[] = {
    {Py_tp_doc, (void *)"What waits at a Lock, a Queue and the like."},
    {Py_tp_dealloc, wait_tp_dealloc},
    {Py_tp_finalize, wait_tp_finalize},
    {Py_tp_traverse, wait_tp_traverse},
    {Py_tp_repr, wait_tp_repr},
    AWAIT_SLOTS(PyObject_SelfIter),
    {Py_tp_methods, await_methods},
    {Py_tp_getset, await_getset},
    {0, NULL},
};

static PyType_Spec wait_spec = {
    .name = "sleeploop.Wait",
    .basicsize = sizeof(WaitObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = wait_slots,
};

#endif /* SLEEPLOOP_WAIT_WAITOBJECT_H */
