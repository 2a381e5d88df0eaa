/* join.h: `await task`, a task waiting for another. */
#ifndef SLEEPLOOP_JOIN_H
#define SLEEPLOOP_JOIN_H

#include "task.h"

static PyObject *
join_new(ModuleState *state, TaskObject *task, int only_wait)
{
    JoinObject *join = PyObject_GC_New(JoinObject, state->JoinType);
    if (join == NULL) {
        return NULL;
    }
    join->task = (TaskObject *)Py_NewRef(task);
    join->started = 0;
    join->loop_number = 0;
    join->task_number = 0;
    join->state = TRAP_NEW;
    join->only_wait = (uint8_t)only_wait;
    PyObject_GC_Track(join);
    return (PyObject *)join;
}

static PyObject *
task_am_await(PyObject *op)
{
    return join_new(state_of_type(Py_TYPE(op)), (TaskObject *)op, 0);
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

static PySendResult
join_advance(PyObject *op, PyObject *Py_UNUSED(value), PyObject **result)
{
    JoinObject *self = (JoinObject *)op;
    ModuleState *state = state_of_type(Py_TYPE(op));
    *result = NULL;
    if (self->state == TRAP_DONE) {
        return trap_used_up("task's __await__()");
    }
    int wait = !task_done(self->task);
    LoopObject *loop = self->task->loop;
    if (wait && join_check(state, self->task) < 0) {
        self->state = TRAP_DONE;
        return PYGEN_ERROR;
    }
    if (!wait && self->state == TRAP_NEW) {
        /* No need to wait; but what is to be raised at an await is raised at this one, too. */
        loop = current_loop_borrowed(state);
        wait = loop != NULL && loop->current != NULL && !task_may_go_on(loop->current);
    }
    if (wait) {
        self->started = clock_about_now(&loop->clock);
        self->loop_number = loop->number;
        self->task_number = loop->current != NULL ? loop->current->number : 0;
        self->state = TRAP_WAITING;
        *result = Py_NewRef(op);
        trace_await(loop, op);
        return PYGEN_NEXT;
    }
    self->state = TRAP_DONE;
    *result = self->only_wait ? Py_NewRef(Py_None) : task_outcome(state, self->task);
    return *result != NULL ? PYGEN_RETURN : PYGEN_ERROR;
}

static PyObject *
join_tp_iternext(PyObject *op)
{
    PyObject *result;
    PySendResult how = join_advance(op, Py_None, &result);
    return trap_next_result(how, result);
}

static PyObject *
join_py_send(PyObject *op, PyObject *value)
{
    return trap_send(op, value, join_advance);
}

static PyObject *
join_py_throw(PyObject *op, PyObject *const *args, Py_ssize_t n_args)
{
    return trap_throw(&((JoinObject *)op)->state, args, n_args);
}

static PyObject *
join_py_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    ((JoinObject *)op)->state = TRAP_DONE;
    Py_RETURN_NONE;
}

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
    PyObject_GC_UnTrack(op);
    Py_DECREF(((JoinObject *)op)->task);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyObject *
join_tp_repr(PyObject *op)
{
    JoinObject *self = (JoinObject *)op;
    return trap_repr(op, self->state, self->task_number, "Task.__await__()");
}

static PyMethodDef join_methods[] = {
    {"send", join_py_send, METH_O, PyDoc_STR("send($self, value, /)\n--\n\nAs of a generator.")},
    {"throw", (PyCFunction)(void (*)(void))join_py_throw, METH_FASTCALL,
     PyDoc_STR("throw($self, exception, /, *args)\n--\n\nAs of a generator.")},
    {"close", join_py_close, METH_NOARGS, PyDoc_STR("close($self, /)\n--\n\nAs of a generator.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot join_slots[] = {
    {Py_tp_doc, (void *)"What `await task` waits with."},
    {Py_tp_dealloc, join_tp_dealloc},
    {Py_tp_traverse, join_tp_traverse},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, join_tp_iternext},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, join_advance},
    {Py_tp_repr, join_tp_repr},
    {Py_tp_methods, join_methods},
    {0, NULL},
};

static PyType_Spec join_spec = {
    .name = "sleeploop.Join",
    .basicsize = sizeof(JoinObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = join_slots,
};

#endif /* SLEEPLOOP_JOIN_H */
