/* forgotten.h: what is made to be awaited, and never is, says so when it dies, as coroutines do.
 *
 * The warning is given by a finalizer, so that what warnings run, or an unraisable hook keeps, sees
 * an object that is whole. One that has been begun or closed is asked a question when it dies, and
 * pays nothing else.
 *
 * In a debug run, where each was made is kept by its address. Nothing is removed when one dies: the
 * next that is made at that address takes its place, and all of them go with the last such run.
 */
#ifndef SLEEPLOOP_CORE_FORGOTTEN_H
#define SLEEPLOOP_CORE_FORGOTTEN_H

#include "../base/compat.h"
#include "args.h"
#include "loopobject.h"
#include "state.h"

/* ---- where it was made ----------------------------------------------------------------------- */

#define ORIGIN_DEPTH 10  /* frames, as asyncio has of coroutines in debug mode */

/* The Python code that is running and what called it, the innermost last: a new list of (file, line,
 * function, None), or NULL with an exception. */
static PyObject *
origin_here(void)
{
    PyObject *origin = PyList_New(0);
    PyFrameObject *frame = origin != NULL ? PyThreadState_GetFrame(PyThreadState_Get()) : NULL;
    for (int n = 0; n < ORIGIN_DEPTH && frame != NULL && origin != NULL; n++) {
        PyCodeObject *code = PyFrame_GetCode(frame);
        PyObject *row = Py_BuildValue("(OiOO)", code->co_filename, PyFrame_GetLineNumber(frame),
                                      code->co_qualname, Py_None);
        if (row == NULL || PyList_Append(origin, row) < 0) {
            Py_CLEAR(origin);
        }
        Py_XDECREF(row);
        Py_DECREF(code);
        Py_SETREF(frame, PyFrame_GetBack(frame));
    }
    Py_XDECREF(frame);
    if (origin != NULL && PyList_Reverse(origin) < 0) {
        Py_CLEAR(origin);
    }
    return origin;
}

/* What cannot be noted is left out. Beware: a collection may run. Not COLD: all that makes an
 * awaitable calls it in the end, and would be taken for cold as well. */
static __attribute__((noinline)) void
origin_note(ModuleState *state, PyObject *op)
{
    PyObject *origin = origin_here();
    PyObject *address = origin != NULL ? PyLong_FromVoidPtr(op) : NULL;
    if (address != NULL && state->origins != NULL) {
        (void)PyDict_SetItem(state->origins, address, origin);
    }
    Py_XDECREF(address);
    Py_XDECREF(origin);
    PyErr_Clear();
}

/* A debug run is under way. Without memory for it, nothing is noted. */
COLD static void
origins_begin(ModuleState *state)
{
    if (state->origins == NULL) {
        PyObject *origins = PyDict_New();  /* beware: a collection may run (3.11) */
        Py_XSETREF(state->origins, origins);
        PyErr_Clear();
    }
}

/* Perhaps it was the last one. */
COLD static void
origins_end(ModuleState *state)
{
    for (struct link *l = state->begun.next; l != &state->begun; l = l->next) {
        if (LOOP_OF_BEGUN(l)->debug) {
            return;
        }
    }
    Py_CLEAR(state->origins);
}

/* Each awaitable is made known here when it is whole. */
static inline void
awaitable_made(ModuleState *state, PyObject *op)
{
    if (state->origins != NULL) {
        origin_note(state, op);
    }
}

/* What was noted of where it was made, a new reference; None if that is not known. */
static PyObject *
origin_of(PyObject *op)
{
    ModuleState *state = state_of_type(Py_TYPE(op));  /* NULL: the interpreter ends */
    PyObject *origin = NULL;
    if (state != NULL && state->origins != NULL) {
        PyObject *address = PyLong_FromVoidPtr(op);
        origin =
            address != NULL ? Py_XNewRef(PyDict_GetItemWithError(state->origins, address)) : NULL;
        Py_XDECREF(address);
    }
    PyErr_Clear();
    return origin != NULL ? origin : Py_NewRef(Py_None);
}

/* ---- never awaited --------------------------------------------------------------------------- */

/* 0, or -1 with an exception: warnings may be errors. In Python, for the reason that warn_dropped()
 * has; where nothing can be imported any more, CPython prints it by itself. */
COLD static int
warn_never_awaited(PyObject *name, PyObject *origin)
{
    PyObject *module = import_module("sleeploop._stacks");
    if (module == NULL) {
        PyErr_Clear();
        return PyErr_WarnFormat(PyExc_RuntimeWarning, 1, "coroutine '%U' was never awaited", name);
    }
    PyObject *done = PyObject_CallMethod(module, "warn_forgotten", "OO", name, origin);
    Py_DECREF(module);
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

/* Beware: runs Python. */
COLD static void
warn_forgotten(PyObject *op, const char *function)
{
    PyObject *saved = PyErr_GetRaisedException();
    PyObject *name = qualname_of_function(function);
    PyObject *origin = name != NULL ? origin_of(op) : NULL;
    if (origin == NULL || warn_never_awaited(name, origin) < 0) {
        PyErr_WriteUnraisable(op);
    }
    Py_XDECREF(origin);
    Py_XDECREF(name);
    PyErr_SetRaisedException(saved);
}

#endif /* SLEEPLOOP_CORE_FORGOTTEN_H */
