/* semaphore.h: Semaphore and BoundedSemaphore, of which several tasks may have a unit. */
#ifndef SLEEPLOOP_SYNC_SEMAPHORE_H
#define SLEEPLOOP_SYNC_SEMAPHORE_H

#include "../base/compat.h"
#include "../core/loopobject.h"
#include "../core/scopetree.h"
#include "../core/state.h"
#include "../core/taskobject.h"
#include "../wait/inlinemethod.h"
#include "../wait/readyawaitable.h"
#include "../wait/waitable.h"
#include "../wait/waitlist.h"
#include "../wait/waitobject.h"

/* Holds no object but its name. While somebody waits, `value` is 0: a unit that comes back goes to
 * the first of them. `held` is by how much `value` is less than at first. */
typedef struct {
    SYNC_HEAD
    struct waitlist waitlist;
    InlineMethodObject enter, leave;
    int64_t value, initial;
    int is_bounded;
} SemaphoreObject;

static PyObject *semaphore_enter(PyObject *method, PyObject *const *args, size_t n_args,
                                 PyObject *kwnames);
static PyObject *semaphore_leave(PyObject *method, PyObject *const *args, size_t n_args,
                                 PyObject *kwnames);

/* Of both types. */
static PyObject *
semaphore_tp_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"value", "name", NULL};
    ModuleState *state = state_of_type(type);
    int is_bounded = type == state->BoundedSemaphoreType;
    PyObject *value = NULL, *name = NULL;
    int64_t initial = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs,
                                     is_bounded ? "|O$O:BoundedSemaphore" : "|O$O:Semaphore",
                                     names, &value, &name)) {
        return NULL;
    }
    const char *function = is_bounded ? "BoundedSemaphore()" : "Semaphore()";
    if (value != NULL && sync_count_from_object(function, "value", value, 0, COUNT_INT, &initial) < 0) {
        return NULL;
    }
    SemaphoreObject *semaphore = (SemaphoreObject *)sync_new(function, type, name);
    if (semaphore != NULL) {
        waitlist_init(&semaphore->waitlist);
        inline_method_init(state, &semaphore->enter, (PyObject *)semaphore, semaphore_enter);
        inline_method_init(state, &semaphore->leave, (PyObject *)semaphore, semaphore_leave);
        semaphore->value = semaphore->initial = initial;
        semaphore->is_bounded = is_bounded;
    }
    return (PyObject *)semaphore;
}

static int
semaphore_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    SemaphoreObject *semaphore = (SemaphoreObject *)op;
    int stopped = inline_methods_traverse(&semaphore->enter, &semaphore->leave, visit, arg);
    return stopped ? stopped : sync_tp_traverse(op, visit, arg);
}

static void
semaphore_tp_dealloc(PyObject *op)
{
    sync_dies(op);
    inline_methods_drop(&((SemaphoreObject *)op)->enter, &((SemaphoreObject *)op)->leave);
    sync_free(op);
}

/* In a report somebody waits, so it goes without saying that there is no unit left. */
static PyObject *
semaphore_describe(PyObject *op)
{
    return sync_title(op);
}

static PyObject *
semaphore_tp_repr(PyObject *op)
{
    SemaphoreObject *semaphore = (SemaphoreObject *)op;
    PyObject *title = sync_title(op), *what = NULL;
    if (title != NULL) {
        what = semaphore->is_bounded
                   ? PyUnicode_FromFormat("%U value %lld of %lld", title,
                                          (long long)semaphore->value,
                                          (long long)semaphore->initial)
                   : PyUnicode_FromFormat("%U value %lld", title, (long long)semaphore->value);
        Py_DECREF(title);
    }
    return sync_repr_steal(op, what);
}

/* ---- taken and given back -------------------------------------------------------------------- */

static inline void
semaphore_set(SemaphoreObject *semaphore, int64_t value)
{
    semaphore->value = value;
    semaphore->held = value < semaphore->initial ? (size_t)(semaphore->initial - value) : 0;
}

static int
semaphore_take(WaitObject *wait, LoopObject *Py_UNUSED(loop), TaskObject *Py_UNUSED(task))
{
    SemaphoreObject *semaphore = (SemaphoreObject *)wait->object;
    if (semaphore->value == 0) {
        return 0;
    }
    assert(semaphore->waitlist.count == 0);
    semaphore_set(semaphore, semaphore->value - 1);
    return 1;
}

/* To the first who waits, or back to the others; that one may do so is known. */
static inline void
semaphore_pass_on(SemaphoreObject *semaphore)
{
    WaitObject *next = waitlist_first(&semaphore->waitlist);
    if (next != NULL) {
        wait_grant(next);
    }
    else {
        semaphore_set(semaphore, semaphore->value + 1);
    }
}

/* More units than it may have. */
static inline int
semaphore_is_full(const SemaphoreObject *semaphore)
{
    return semaphore->value >= (semaphore->is_bounded ? semaphore->initial : INT64_MAX);
}

/* Meanwhile others may have released more than was theirs. */
static void
semaphore_give_back(WaitObject *wait)
{
    SemaphoreObject *semaphore = (SemaphoreObject *)wait->object;
    if (!semaphore_is_full(semaphore)) {
        semaphore_pass_on(semaphore);
    }
}

static const struct wait_kind semaphore_acquire_kind = {
    WAIT_KIND(semaphore_acquire_kind, "Semaphore.acquire()"),
    .take = semaphore_take,
    .result = wait_result_true,
    .give_back = semaphore_give_back,
    .describe = semaphore_describe,
};

static const struct wait_kind semaphore_enter_kind = {
    WAIT_KIND(semaphore_enter_kind, "async with Semaphore()"),
    .take = semaphore_take,
    .give_back = semaphore_give_back,
    .describe = semaphore_describe,
};

COLD static void
raise_semaphore_is_full(SemaphoreObject *semaphore, const char *function)
{
    PyObject *title = sync_title((PyObject *)semaphore);
    if (title == NULL) {
        return;
    }
    if (semaphore->is_bounded) {
        PyErr_Format(PyExc_ValueError, "%s: %U has all of its units (%lld) already", function,
                     title, (long long)semaphore->initial);
    }
    else {
        PyErr_Format(PyExc_OverflowError, "%s: %U cannot have more units than it has", function,
                     title);
    }
    Py_DECREF(title);
}

/* 0, or -1 with an exception. */
static inline int
semaphore_release(ModuleState *state, SemaphoreObject *semaphore, const char *function)
{
    if (sync_touch(state, (SyncObject *)semaphore, function) < 0) {
        return -1;
    }
    if (semaphore_is_full(semaphore)) {
        raise_semaphore_is_full(semaphore, function);
        return -1;
    }
    semaphore_pass_on(semaphore);
    return 0;
}

/* As of a Lock: a unit that is free is had when the block is entered. */
static PyObject *
semaphore_enter(PyObject *method, PyObject *const *Py_UNUSED(args), size_t n_args,
                PyObject *kwnames)
{
    SemaphoreObject *semaphore = (SemaphoreObject *)((InlineMethodObject *)method)->of;
    ModuleState *state = state_of_type(Py_TYPE(semaphore));
    const char *function = semaphore_enter_kind.await.function;
    if (inline_method_check_args("Semaphore.__aenter__()", 0, n_args, kwnames) < 0) {
        return NULL;
    }
    TaskObject *task = need_current_task_borrowed(state, function);
    if (task == NULL || sync_enter(state, (SyncObject *)semaphore, task->loop, function) < 0) {
        return NULL;
    }
    if (semaphore->value > 0 && task_may_go_on(task)) {
        semaphore_set(semaphore, semaphore->value - 1);
        return ready_awaitable_done(state);
    }
    return (PyObject *)wait_new(state, &semaphore_enter_kind, (PyObject *)semaphore,
                                &semaphore->waitlist, NULL);
}

static PyObject *
semaphore_leave(PyObject *method, PyObject *const *Py_UNUSED(args), size_t n_args,
                PyObject *kwnames)
{
    SemaphoreObject *semaphore = (SemaphoreObject *)((InlineMethodObject *)method)->of;
    ModuleState *state = state_of_type(Py_TYPE(semaphore));
    if (inline_method_check_args("Semaphore.__aexit__()", 3, n_args, kwnames) < 0
        || semaphore_release(state, semaphore, semaphore_enter_kind.await.function) < 0) {
        return NULL;
    }
    return ready_awaitable_done(state);
}

/* ---- the types ------------------------------------------------------------------------------- */

PyDoc_STRVAR(semaphore_acquire_doc,
"acquire($self, /)\n--\n\n"
"Await it to have a unit, behind those who wait for one. Returns True.\n"
"\n"
"A unit that is free is had without switching tasks; a cancellation is raised even then.\n"
"\n"
"Raises RuntimeError if tasks of another loop have units or wait for them.\n");

static PyObject *
semaphore_py_acquire(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return (PyObject *)wait_new(state_of_type(Py_TYPE(op)), &semaphore_acquire_kind, op,
                                &((SemaphoreObject *)op)->waitlist, NULL);
}

PyDoc_STRVAR(semaphore_acquire_nowait_doc,
"acquire_nowait($self, /)\n--\n\n"
"Have a unit at once.\n"
"\n"
"Raises WouldBlock if none is free, RuntimeError if no loop runs, or if tasks of\n"
"another loop have units or wait for them.\n");

static PyObject *
semaphore_py_acquire_nowait(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    SemaphoreObject *semaphore = (SemaphoreObject *)op;
    ModuleState *state = state_of_type(Py_TYPE(op));
    const char *function = "Semaphore.acquire_nowait()";
    LoopObject *loop = need_current_loop_borrowed(state, function);
    if (loop == NULL || sync_enter(state, (SyncObject *)op, loop, function) < 0) {
        return NULL;
    }
    if (semaphore->value == 0) {
        PyObject *title = sync_title(op);
        raise_would_block_steal(state->WouldBlock, function,
                                title != NULL
                                    ? PyUnicode_FromFormat("%U has no unit left", title)
                                    : NULL);
        Py_XDECREF(title);
        return NULL;
    }
    semaphore_set(semaphore, semaphore->value - 1);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(semaphore_release_doc,
"release($self, /)\n--\n\n"
"Give a unit to the task that has waited longest, which has it from now on; if none\n"
"waits, the value goes up by one. Who calls it need not have acquired anything.\n"
"\n"
"Raises ValueError if a BoundedSemaphore would have more units than at first,\n"
"RuntimeError if the tasks that use the semaphore run in another thread.\n");

static PyObject *
semaphore_py_release(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    SemaphoreObject *semaphore = (SemaphoreObject *)op;
    const char *function =
        semaphore->is_bounded ? "BoundedSemaphore.release()" : "Semaphore.release()";
    return semaphore_release(state_of_type(Py_TYPE(op)), semaphore, function) == 0
               ? Py_NewRef(Py_None)
               : NULL;
}

static PyObject *
semaphore_py_locked(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(((SemaphoreObject *)op)->value == 0);
}

static PyObject *
semaphore_get_value(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromLongLong(((SemaphoreObject *)op)->value);
}

PyDoc_STRVAR(semaphore_type_doc,
"Semaphore(value=1, *, name=None)\n--\n\n"
"So many units, of which each task may have one for a while: `async with semaphore`.\n"
"\n"
"First come, first served. A unit belongs to nobody: whoever likes may release() one,\n"
"and so there may be more than at first. A CapacityLimiter knows who has what.\n"
"\n"
"value: how many units there are at first, an int of 0 or more.\n"
"name: a str, for the repr and for reports.\n"
"\n"
"Raises TypeError or ValueError for another value.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def fetch(semaphore, page):\n"
"...     async with semaphore:\n"
"...         await sleeploop.sleep(2)\n"
"...         print(page, 'at', sleeploop.current_loop().time())\n"
">>> async def main():\n"
"...     semaphore = sleeploop.Semaphore(2, name='site')\n"
"...     async with sleeploop.TaskGroup() as group:\n"
"...         for page in 'abc':\n"
"...             group.create_task(fetch(semaphore, page))\n"
"...         await sleeploop.sleep(1)\n"
"...         print(semaphore)\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"<Semaphore 'site' value 0, 1 waiting>\n"
"a at 2.0\n"
"b at 2.0\n"
"c at 4.0\n");

PyDoc_STRVAR(bounded_semaphore_type_doc,
"BoundedSemaphore(value=1, *, name=None)\n--\n\n"
"A Semaphore that never has more units than at first: a release() too many is a\n"
"ValueError, so that a mistake comes to light.\n"
"\n"
"value: how many units there are, an int of 0 or more.\n"
"name: a str, for the repr and for reports.\n"
"\n"
"Raises TypeError or ValueError for another value.\n"
"\n"
">>> import sleeploop\n"
">>> semaphore = sleeploop.BoundedSemaphore(2, name='site')\n"
">>> semaphore.release()\n"
"Traceback (most recent call last):\n"
"ValueError: BoundedSemaphore.release(): BoundedSemaphore 'site' has all of its units (2) already\n");

static PyMethodDef semaphore_methods[] = {
    {"acquire", semaphore_py_acquire, METH_NOARGS, semaphore_acquire_doc},
    {"acquire_nowait", semaphore_py_acquire_nowait, METH_NOARGS, semaphore_acquire_nowait_doc},
    {"release", semaphore_py_release, METH_NOARGS, semaphore_release_doc},
    {"locked", semaphore_py_locked, METH_NOARGS,
     PyDoc_STR("locked($self, /)\n--\n\nWhether acquire() would have to wait.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef semaphore_getset[] = {
    SYNC_GETTERS,
    {"value", semaphore_get_value, NULL, PyDoc_STR("How many units are free."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef semaphore_members[] = {
    SYNC_WEAKLIST,
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot semaphore_slots[] = {
    {Py_tp_doc, (void *)semaphore_type_doc},
    {Py_tp_new, semaphore_tp_new},
    {Py_tp_dealloc, semaphore_tp_dealloc},
    {Py_tp_traverse, semaphore_tp_traverse},
    {Py_tp_repr, semaphore_tp_repr},
    {Py_tp_methods, semaphore_methods},
    {Py_tp_getset, semaphore_getset},
    {Py_tp_members, semaphore_members},
    {0, NULL},
};

/* BASETYPE for BoundedSemaphore only; finish_types() takes it away again. */
static PyType_Spec semaphore_spec = {
    .name = "sleeploop.Semaphore",
    .basicsize = sizeof(SemaphoreObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = semaphore_slots,
};

static PyType_Slot bounded_semaphore_slots[] = {
    {Py_tp_doc, (void *)bounded_semaphore_type_doc},
    {Py_tp_new, semaphore_tp_new},
    {Py_tp_dealloc, semaphore_tp_dealloc},
    {Py_tp_traverse, semaphore_tp_traverse},
    {0, NULL},
};

static PyType_Spec bounded_semaphore_spec = {
    .name = "sleeploop.BoundedSemaphore",
    .basicsize = sizeof(SemaphoreObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = bounded_semaphore_slots,
};

#endif /* SLEEPLOOP_SYNC_SEMAPHORE_H */
