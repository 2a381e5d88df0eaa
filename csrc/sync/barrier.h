/* barrier.h: Barrier, at which a number of tasks wait for each other. */
#ifndef SLEEPLOOP_SYNC_BARRIER_H
#define SLEEPLOOP_SYNC_BARRIER_H

#include "../base/compat.h"
#include "../core/loopobject.h"
#include "../core/state.h"
#include "../core/taskobject.h"
#include "../wait/readyawaitable.h"
#include "../wait/waitable.h"
#include "../wait/waitlist.h"
#include "../wait/waitobject.h"

typedef struct {
    SYNC_HEAD
    struct waitlist waitlist;
    uint64_t parties;  /* so many are let go together; at least 1 */
    int is_broken;
} BarrierObject;

static PyObject *
barrier_tp_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"parties", "name", NULL};
    PyObject *obj, *name = NULL;
    int64_t parties;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$O:Barrier", names, &obj, &name)
        || sync_count_from_object("Barrier()", "parties", obj, 1, COUNT_INT, &parties) < 0) {
        return NULL;
    }
    BarrierObject *barrier = (BarrierObject *)sync_new("Barrier()", type, name);
    if (barrier != NULL) {
        waitlist_init(&barrier->waitlist);
        barrier->parties = (uint64_t)parties;
    }
    return (PyObject *)barrier;
}

static PyObject *
barrier_describe(PyObject *op)
{
    BarrierObject *barrier = (BarrierObject *)op;
    PyObject *title = sync_title(op);
    PyObject *text = title != NULL ? PyUnicode_FromFormat("%U with %zu of %llu there", title,
                                                          barrier->waitlist.count,
                                                          (unsigned long long)barrier->parties)
                                   : NULL;
    Py_XDECREF(title);
    return text;
}

static PyObject *
barrier_tp_repr(PyObject *op)
{
    BarrierObject *barrier = (BarrierObject *)op;
    PyObject *title = sync_title(op);
    PyObject *what = title != NULL
                         ? PyUnicode_FromFormat("%U of %llu%s", title,
                                                (unsigned long long)barrier->parties,
                                                barrier->is_broken ? " broken" : "")
                         : NULL;
    Py_XDECREF(title);
    return sync_repr_steal(op, what);
}

/* ---- waiting --------------------------------------------------------------------------------- */

enum barrier_phase { BARRIER_WAITS, BARRIER_WAS_RESET };

COLD static void
raise_broken_barrier(PyObject *op, const char *function, int was_reset)
{
    PyObject *title = sync_title(op);
    if (title != NULL) {
        PyErr_Format(state_of_type(Py_TYPE(op))->BrokenBarrierError, "%s: %U %s", function, title,
                     was_reset ? "was reset" : "is broken: abort() has been called");
        Py_DECREF(title);
    }
}

/* The last to come lets the others go, and goes on. What each of them has got is its place in
 * the order in which they came: nobody knows that before, as one of them may give up. */
static int
barrier_take(WaitObject *wait, LoopObject *Py_UNUSED(loop), TaskObject *Py_UNUSED(task))
{
    BarrierObject *barrier = (BarrierObject *)wait->object;
    WaitObject *other;
    if (barrier->is_broken) {
        raise_broken_barrier((PyObject *)barrier, await_kind(wait)->function, 0);
        return -1;
    }
    if (barrier->waitlist.count + 1 < barrier->parties) {
        return 0;
    }
    for (size_t i = 0; (other = waitlist_first(&barrier->waitlist)) != NULL; i++) {
        other->number = (double)i;
        wait_grant(other);
    }
    wait->number = (double)(barrier->parties - 1);
    return 1;
}

static PyObject *
barrier_result(WaitObject *wait)
{
    if (wait->outcome == WAIT_REFUSED) {
        raise_broken_barrier((PyObject *)wait->object, await_kind(wait)->function,
                             wait->phase == BARRIER_WAS_RESET);
        return NULL;
    }
    return PyLong_FromSize_t((size_t)wait->number);
}

static const struct wait_kind barrier_wait_kind = {
    WAIT_KIND(barrier_wait_kind, "Barrier.wait()"),
    .take = barrier_take,
    .result = barrier_result,
    .describe = barrier_describe,
};

static const struct wait_kind barrier_enter_kind = {
    WAIT_KIND(barrier_enter_kind, "async with Barrier()"),
    .take = barrier_take,
    .result = barrier_result,
    .describe = barrier_describe,
};

PyDoc_STRVAR(barrier_wait_doc,
"wait($self, /)\n--\n\n"
"Await it to wait until as many tasks do as the barrier has parties. Then all go on.\n"
"\n"
"Returns the task's place in the order in which they came, from 0: the last to come,\n"
"which goes on without switching tasks, has `parties` - 1. One that is cancelled while\n"
"it waits has not come.\n"
"\n"
"Raises BrokenBarrierError if the barrier is broken, or is reset meanwhile; RuntimeError\n"
"if tasks of another loop wait at it.\n");

static PyObject *
barrier_py_wait(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return (PyObject *)wait_new(state_of_type(Py_TYPE(op)), &barrier_wait_kind, op,
                                &((BarrierObject *)op)->waitlist, NULL);
}

static PyObject *
barrier_py_aenter(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return (PyObject *)wait_new(state_of_type(Py_TYPE(op)), &barrier_enter_kind, op,
                                &((BarrierObject *)op)->waitlist, NULL);
}

static PyObject *
barrier_py_aexit(PyObject *op, PyObject *const *args, Py_ssize_t n_args)
{
    PyObject *exc;
    return exit_args("Barrier.__aexit__()", args, n_args, &exc) == 0
               ? ready_awaitable_done(state_of_type(Py_TYPE(op)))
               : NULL;
}

/* ---- broken ---------------------------------------------------------------------------------- */

PyDoc_STRVAR(barrier_reset_doc,
"reset($self, /)\n--\n\n"
"As new: not broken, and nobody waits. Those who did get a BrokenBarrierError.\n"
"\n"
"Raises RuntimeError if the tasks that use the barrier run in another thread.\n");

static PyObject *
barrier_py_reset(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    BarrierObject *barrier = (BarrierObject *)op;
    if (sync_touch(state_of_type(Py_TYPE(op)), (SyncObject *)op, "Barrier.reset()") < 0) {
        return NULL;
    }
    barrier->is_broken = 0;
    waitlist_refuse_all(&barrier->waitlist, BARRIER_WAS_RESET);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(barrier_abort_doc,
"abort($self, /)\n--\n\n"
"Break the barrier: those who wait, and whoever comes until reset(), get a\n"
"BrokenBarrierError.\n"
"\n"
"Raises RuntimeError if the tasks that use the barrier run in another thread.\n");

static PyObject *
barrier_py_abort(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    BarrierObject *barrier = (BarrierObject *)op;
    if (sync_touch(state_of_type(Py_TYPE(op)), (SyncObject *)op, "Barrier.abort()") < 0) {
        return NULL;
    }
    barrier->is_broken = 1;
    waitlist_refuse_all(&barrier->waitlist, BARRIER_WAITS);
    Py_RETURN_NONE;
}

/* ---- the type -------------------------------------------------------------------------------- */

static PyObject *
barrier_get_parties(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(((BarrierObject *)op)->parties);
}

static PyObject *
barrier_get_broken(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((BarrierObject *)op)->is_broken);
}

PyDoc_STRVAR(barrier_type_doc,
"Barrier(parties, *, name=None)\n--\n\n"
"A point that so many tasks reach before any of them goes on; again and again.\n"
"\n"
"`await barrier.wait()`, or `async with barrier as index`, which waits at its beginning.\n"
"\n"
"parties: how many, an int of 1 or more.\n"
"name: a str, for the repr and for reports.\n"
"\n"
"Raises TypeError or ValueError for another number of parties.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def walk(name, seconds, summit):\n"
"...     await sleeploop.sleep(seconds)\n"
"...     index = await summit.wait()\n"
"...     print(name, 'was number', index, 'and goes down at', sleeploop.current_loop().time())\n"
">>> async def main():\n"
"...     summit = sleeploop.Barrier(2, name='summit')\n"
"...     await sleeploop.gather(walk('Anna', 3, summit), walk('Bert', 1, summit))\n"
">>> _ = sleeploop.run(main(), speed=math.inf)\n"
"Anna was number 1 and goes down at 3.0\n"
"Bert was number 0 and goes down at 3.0\n");

static PyMethodDef barrier_methods[] = {
    {"wait", barrier_py_wait, METH_NOARGS, barrier_wait_doc},
    {"reset", barrier_py_reset, METH_NOARGS, barrier_reset_doc},
    {"abort", barrier_py_abort, METH_NOARGS, barrier_abort_doc},
    {"__aenter__", barrier_py_aenter, METH_NOARGS,
     PyDoc_STR("__aenter__($self, /)\n--\n\nAs wait().")},
    {"__aexit__", (PyCFunction)(void (*)(void))barrier_py_aexit, METH_FASTCALL,
     PyDoc_STR("__aexit__($self, /, *args)\n--\n\nWaits for nobody.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef barrier_getset[] = {
    SYNC_GETTERS,
    {"parties", barrier_get_parties, NULL, PyDoc_STR("How many go on together."), NULL},
    {"broken", barrier_get_broken, NULL,
     PyDoc_STR("Whether abort() has been called, and reset() not since."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef barrier_members[] = {
    SYNC_WEAKLIST,
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot barrier_slots[] = {
    {Py_tp_doc, (void *)barrier_type_doc},
    {Py_tp_new, barrier_tp_new},
    {Py_tp_dealloc, sync_tp_dealloc},
    {Py_tp_traverse, sync_tp_traverse},
    {Py_tp_repr, barrier_tp_repr},
    {Py_tp_methods, barrier_methods},
    {Py_tp_getset, barrier_getset},
    {Py_tp_members, barrier_members},
    {0, NULL},
};

static PyType_Spec barrier_spec = {
    .name = "sleeploop.Barrier",
    .basicsize = sizeof(BarrierObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = barrier_slots,
};

#endif /* SLEEPLOOP_SYNC_BARRIER_H */
