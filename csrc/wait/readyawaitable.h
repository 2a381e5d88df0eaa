/* readyawaitable.h: an awaitable that has its value already, for `async with` something that need
 * not wait; and the arguments of __exit__().
 */
#ifndef SLEEPLOOP_WAIT_READYAWAITABLE_H
#define SLEEPLOOP_WAIT_READYAWAITABLE_H

#include "../base/compat.h"
#include "../core/args.h"
#include "../core/state.h"
#include "../core/stopiteration.h"

/* An awaitable that has its value already: `async with` something that need not wait. */
typedef struct {
    PyObject_HEAD
    PyObject *value;  /* owned; NULL: awaited */
    int is_shared;    /* the one of all that need not wait and come to None: awaited many times */
    void (*take_back)(PyObject *value);  /* if it cannot be handed over; NULL: nothing to do */
} ReadyAwaitableObject;

/* NULL, with the exception that is set, if value is NULL. Steals value. take_back(value) is
 * called when there is no memory to hand the value over, with no exception set. */
static PyObject *
ready_awaitable_new_steal(ModuleState *state, PyObject *value, void (*take_back)(PyObject *value))
{
    if (value == NULL) {
        return NULL;
    }
    ReadyAwaitableObject *made = PyObject_GC_New(ReadyAwaitableObject, state->ReadyAwaitableType);
    if (made == NULL) {
        Py_DECREF(value);
        return NULL;
    }
    made->value = value;
    made->is_shared = 0;
    made->take_back = take_back;
    PyObject_GC_Track(made);
    return (PyObject *)made;
}

/* The one that comes to None, again and again: nothing is made where nothing is waited for. */
static inline PyObject *
ready_awaitable_done(ModuleState *state)
{
    return Py_NewRef(state->done);
}

static PyObject *
ready_awaitable_done_new(ModuleState *state)
{
    PyObject *done = ready_awaitable_new_steal(state, Py_NewRef(Py_None), NULL);
    if (done != NULL) {
        ((ReadyAwaitableObject *)done)->is_shared = 1;
    }
    return done;
}

static PySendResult
ready_awaitable_advance(PyObject *op, PyObject *Py_UNUSED(sent), PyObject **result)
{
    ReadyAwaitableObject *self = (ReadyAwaitableObject *)op;
    if (self->is_shared) {
        *result = Py_NewRef(Py_None);
        return PYGEN_RETURN;
    }
    *result = self->value;
    self->value = NULL;
    if (*result == NULL) {
        PyErr_SetString(PyExc_RuntimeError,
                        "this __aenter__() or __aexit__() was awaited before: make a new one for "
                        "each await");
        return PYGEN_ERROR;
    }
    return PYGEN_RETURN;
}

static PyObject *
ready_awaitable_tp_iternext(PyObject *op)
{
    if (((ReadyAwaitableObject *)op)->is_shared) {
        return NULL;  /* the short form of "ended with None" */
    }
    ReadyAwaitableObject *self = (ReadyAwaitableObject *)op;
    PyObject *result;
    if (ready_awaitable_advance(op, Py_None, &result) == PYGEN_ERROR) {
        return NULL;
    }
    if (result != Py_None && stop_iteration_bare(result) == 0) {
        return NULL;
    }
    if (result != Py_None && self->take_back != NULL) {
        PyObject *exc = PyErr_GetRaisedException();
        self->take_back(result);
        PyErr_SetRaisedException(exc);
    }
    Py_DECREF(result);
    return NULL;
}

static int
ready_awaitable_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((ReadyAwaitableObject *)op)->value);
    return 0;
}

static int
ready_awaitable_tp_clear(PyObject *op)
{
    Py_CLEAR(((ReadyAwaitableObject *)op)->value);
    return 0;
}

static void
ready_awaitable_tp_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)ready_awaitable_tp_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyType_Slot ready_awaitable_slots[] = {
    {Py_tp_doc, (void *)"What `async with` awaits where there is nothing to wait for."},
    {Py_tp_dealloc, ready_awaitable_tp_dealloc},
    {Py_tp_traverse, ready_awaitable_tp_traverse},
    {Py_tp_clear, ready_awaitable_tp_clear},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, ready_awaitable_tp_iternext},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, ready_awaitable_advance},
    {0, NULL},
};

static PyType_Spec ready_awaitable_spec = {
    .name = "sleeploop.ReadyAwaitable",
    .basicsize = sizeof(ReadyAwaitableObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = ready_awaitable_slots,
};

/* The exception of __exit__(type, exception, traceback), borrowed; NULL: none. 0, or -1 with a
 * TypeError. */
static int
exit_args(const char *function, PyObject *const *args, Py_ssize_t n_args, PyObject **exc)
{
    if (n_args != 3) {
        PyErr_Format(PyExc_TypeError, "%s takes 3 arguments, not %zd", function, n_args);
        return -1;
    }
    *exc = args[1] != Py_None ? args[1] : NULL;
    if (*exc != NULL && !PyExceptionInstance_Check(*exc)) {
        raise_about(PyExc_TypeError, "%s takes an exception, not %U%s", function, *exc, "");
        return -1;
    }
    return 0;
}

#endif /* SLEEPLOOP_WAIT_READYAWAITABLE_H */
