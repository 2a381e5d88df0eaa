/* asyncgen.h: async generators that a run leaves unfinished are closed by the loop.
 *
 * CPython tells of each at its first iteration and when it is collected
 * (sys.set_asyncgen_hooks, PEP 525). A collected one is closed by a task of the
 * loop's own; those still alive at the end of the run are closed there, in the
 * order in which they were first iterated.
 */
#ifndef SLEEPLOOP_RUN_ASYNCGEN_H
#define SLEEPLOOP_RUN_ASYNCGEN_H

#include "../base/compat.h"
#include "../core/driver.h"
#include "../core/loopobject.h"
#include "../core/ready.h"
#include "../core/report.h"
#include "../core/taskobject.h"

static PyObject *
asyncgen_first(PyObject *op, PyObject *agen)
{
    LoopObject *loop = (LoopObject *)op;
    if (loop->asyncgens == NULL) {
        PyObject *weakref = import_module("weakref");
        PyObject *made =
            weakref != NULL ? PyObject_CallMethod(weakref, "WeakValueDictionary", NULL) : NULL;
        Py_XDECREF(weakref);
        if (made == NULL) {
            return NULL;
        }
        Py_XSETREF(loop->asyncgens, made);
    }
    PyObject *asyncgens = Py_NewRef(loop->asyncgens);
    PyObject *key = PyLong_FromUnsignedLongLong(loop->next_asyncgen++);
    int rc = key != NULL ? PyObject_SetItem(asyncgens, key, agen) : -1;
    Py_XDECREF(key);
    Py_DECREF(asyncgens);
    return rc == 0 ? Py_NewRef(Py_None) : NULL;
}

/* A task of the loop's own that runs agen.aclose(); nothing cancels it. */
static int
asyncgen_spawn_close(LoopObject *loop, PyObject *agen)
{
    PyObject *aclose = PyObject_CallMethodNoArgs(agen, loop->state->str_aclose);
    if (aclose == NULL) {
        return -1;
    }
    TaskObject *task = loop_spawn(loop, aclose, NULL, NULL, NULL,
                                  TASK_DAEMON | TASK_HIDDEN | TASK_CLOSER);
    Py_DECREF(aclose);
    if (task == NULL) {
        return -1;
    }
    loop->closers++;
    Py_DECREF(task);
    return 0;
}

/* Called when a generator is collected, in whichever thread that happens. */
static PyObject *
asyncgen_last(PyObject *op, PyObject *agen)
{
    LoopObject *loop = (LoopObject *)op;
    if (loop->phase == LOOP_CLOSED) {
        Py_RETURN_NONE;  /* the run is over, and has closed what there was to close */
    }
    if (asyncgen_spawn_close(loop, agen) < 0) {
        return NULL;
    }
    loop_rouse(loop);
    Py_RETURN_NONE;
}

static PyMethodDef asyncgen_first_def = {"asyncgen_first", asyncgen_first, METH_O, NULL};
static PyMethodDef asyncgen_last_def = {"asyncgen_last", asyncgen_last, METH_O, NULL};

/* sys.set_asyncgen_hooks(*hooks) */
static int
asyncgen_set_hooks(PyObject *hooks)
{
    PyObject *sys = import_module("sys");
    PyObject *set = sys != NULL ? PyObject_GetAttrString(sys, "set_asyncgen_hooks") : NULL;
    PyObject *args = set != NULL ? PySequence_Tuple(hooks) : NULL;
    PyObject *done = args != NULL ? PyObject_CallObject(set, args) : NULL;
    Py_XDECREF(done);
    Py_XDECREF(args);
    Py_XDECREF(set);
    Py_XDECREF(sys);
    return done != NULL ? 0 : -1;
}

/* Sets the loop's hooks for this thread. New reference to those that were set. */
static PyObject *
asyncgen_install(LoopObject *loop)
{
    PyObject *sys = import_module("sys");
    PyObject *old = sys != NULL ? PyObject_CallMethod(sys, "get_asyncgen_hooks", NULL) : NULL;
    PyObject *first = PyCFunction_New(&asyncgen_first_def, (PyObject *)loop);
    PyObject *last = PyCFunction_New(&asyncgen_last_def, (PyObject *)loop);
    PyObject *hooks =
        old != NULL && first != NULL && last != NULL ? PyTuple_Pack(2, first, last) : NULL;
    if (hooks == NULL || asyncgen_set_hooks(hooks) < 0) {
        Py_CLEAR(old);
    }
    Py_XDECREF(hooks);
    Py_XDECREF(last);
    Py_XDECREF(first);
    Py_XDECREF(sys);
    return old;
}

/* Starts closing those that are alive. How many there are, or -1. */
static Py_ssize_t
asyncgen_close_all(LoopObject *loop)
{
    if (loop->asyncgens == NULL) {
        return 0;
    }
    PyObject *asyncgens = loop->asyncgens;
    loop->asyncgens = NULL;
    PyObject *alive = PyMapping_Values(asyncgens);
    Py_DECREF(asyncgens);
    if (alive == NULL) {
        return -1;
    }
    Py_ssize_t n = PyList_GET_SIZE(alive);
    for (Py_ssize_t i = 0; i < n; i++) {
        if (asyncgen_spawn_close(loop, PyList_GET_ITEM(alive, i)) < 0) {
            PyObject *exc = PyErr_GetRaisedException();
            loop_record_error(loop, exc);
            Py_DECREF(exc);
        }
    }
    Py_DECREF(alive);
    return n;
}

#endif /* SLEEPLOOP_RUN_ASYNCGEN_H */
