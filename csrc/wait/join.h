/* join.h: `await task`: a task waits for another. */
#ifndef SLEEPLOOP_WAIT_JOIN_H
#define SLEEPLOOP_WAIT_JOIN_H

#include "../base/clock.h"
#include "../base/compat.h"
#include "../base/ring.h"
#include "../core/args.h"
#include "../core/awaitable.h"
#include "../core/kinds.h"
#include "../core/loopobject.h"
#include "../core/scopetree.h"
#include "../core/state.h"
#include "../core/task.h"
#include "../core/taskobject.h"

/* `await task` */
typedef struct {
    AWAIT_HEAD
    TaskObject *task;    /* owned */
} JoinObject;

static PyObject *
join_new(ModuleState *state, TaskObject *task, enum await_kind_number kind)
{
    JoinObject *join = PyObject_GC_New(JoinObject, state->JoinType);
    if (join == NULL) {
        return NULL;
    }
    await_init((Awaitable *)join, kind);
    join->excused = 1;  /* `task.__await__()` alone is no mistake */
    join->task = (TaskObject *)Py_NewRef(task);
    PyObject_GC_Track(join);
    return (PyObject *)join;
}

/* A join that can never end, or that the loop could not see end: -1 with RuntimeError. */
static int
join_check(ModuleState *state, TaskObject *task)
{
    LoopObject *loop = need_current_loop_borrowed(state, "awaiting a task");
    if (loop == NULL) {
        return -1;
    }
    if (task->loop != loop) {
        raise_about(PyExc_RuntimeError, "%s: %U%s", "await", (PyObject *)task,
                    " belongs to another loop");
        return -1;
    }
    if (task == loop->current) {
        raise_about(PyExc_RuntimeError, "%s: %U%s", "await", (PyObject *)task,
                    " cannot wait for itself");
        return -1;
    }
    return 0;
}

/* The task has ended, and this is its outcome, if it is asked for. */
static inline PySendResult
join_end(JoinObject *self, ModuleState *state, PyObject **result)
{
    self->state = AWAIT_DONE;
    *result = self->kind == wait_done_kind_number ? Py_NewRef(Py_None)
                                                  : task_outcome(state, self->task);
    return *result != NULL ? PYGEN_RETURN : PYGEN_ERROR;
}

static PySendResult
join_begin(ModuleState *state, Awaitable *op, PyObject **result)
{
    JoinObject *self = (JoinObject *)op;
    LoopObject *loop = self->task->loop;
    if (!task_done(self->task)) {
        if (join_check(state, self->task) < 0) {
            self->state = AWAIT_DONE;
            return PYGEN_ERROR;
        }
    }
    else {
        /* No need to wait; but what is to be raised at an await is raised at this one, too. */
        loop = current_loop_borrowed(state);
        if (loop == NULL || loop->current == NULL || task_may_go_on(loop->current)) {
            return join_end(self, state, result);
        }
    }
    return await_yield(op, loop, clock_about_now(&loop->clock), result);
}

static PySendResult
join_resume(Awaitable *self, LoopObject *loop, PyObject **result)
{
    return task_done(((JoinObject *)self)->task)
               ? join_end((JoinObject *)self, loop->state, result)
               : await_yield_again(self, loop, result);  /* resumed by hand */
}

/* Behind the others that wait for the same task. */
static enum parked
join_park(Awaitable *self, LoopObject *Py_UNUSED(loop), TaskObject *task)
{
    TaskObject *target = ((JoinObject *)self)->task;
    if (task_done(target)) {
        return PARK_READY;
    }
    chain_push(&target->waiters, &task->link);
    return PARKED;
}

static void
join_unpark(Awaitable *self, LoopObject *Py_UNUSED(loop), TaskObject *task)
{
    chain_remove(&((JoinObject *)self)->task->waiters, &task->link);
}

static PyObject *
join_waits_on(Awaitable *self)
{
    return Py_NewRef((PyObject *)((JoinObject *)self)->task);
}

static PyObject *
join_describe(Awaitable *self, LoopObject *Py_UNUSED(loop))
{
    PyObject *name = task_name(((JoinObject *)self)->task);
    PyObject *text = name != NULL ? PyUnicode_FromFormat("waiting for task %R", name) : NULL;
    Py_XDECREF(name);
    return text;
}

static uint32_t
join_blocker(const Awaitable *self)
{
    return ((const JoinObject *)self)->task->number;
}

static PyObject *
join_graph_row(Awaitable *self)
{
    return Py_BuildValue("(sI)", "join", (unsigned)join_blocker(self));
}

#define JOIN_KIND                                                                              \
    .begin = join_begin, .resume = join_resume, .park = join_park,            \
    .unpark = join_unpark, .describe = join_describe, .waits_on = join_waits_on,               \
    .blocker = join_blocker, .graph_row = join_graph_row

static const struct await_kind join_kind = {AWAIT_KIND(join_kind, "Task.__await__()"), JOIN_KIND};

/* Does not ask for the outcome, and leaves a failure unseen. */
static const struct await_kind wait_done_kind = {AWAIT_KIND(wait_done_kind, "_wait_done()"),
                                                 JOIN_KIND};

/* ---- the type -------------------------------------------------------------------------------- */

/* Without a tp_clear: a cycle through a join leads through its task, which breaks it. A
 * parked task finds the chain that it stands in by its join. */
static int
join_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((JoinObject *)op)->task);
    return 0;
}

static void
join_tp_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    if (await_dies(op) < 0) {
        return;
    }
    PyObject_GC_UnTrack(op);
    Py_DECREF(((JoinObject *)op)->task);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyType_Slot join_slots[] = {
    {Py_tp_doc, (void *)"What `await task` waits with."},
    {Py_tp_dealloc, join_tp_dealloc},
    {Py_tp_finalize, await_tp_finalize},
    {Py_tp_traverse, join_tp_traverse},
    {Py_tp_repr, await_tp_repr},
    AWAIT_SLOTS(PyObject_SelfIter),
    {Py_tp_methods, await_methods},
    {Py_tp_getset, await_getset},
    {0, NULL},
};

static PyType_Spec join_spec = {
    .name = "sleeploop.Join",
    .basicsize = sizeof(JoinObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = join_slots,
};

/* The await of a task itself. */
static PyObject *
task_am_await(PyObject *op)
{
    return join_new(state_of_type(Py_TYPE(op)), (TaskObject *)op, join_kind_number);
}

#endif /* SLEEPLOOP_WAIT_JOIN_H */
