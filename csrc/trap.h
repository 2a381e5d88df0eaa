/* trap.h: what all awaitables share: how one ends, by value or by exception, and
 * that it is used once.
 *
 * A value travels in a StopIteration, of three kinds: a whole one out of send(), whose caller may
 * look at it; a bare one out of tp_iternext, by which `await` takes it from 3.12 on; and there, for
 * what ends most often, one that serves again and again.
 */
#ifndef SLEEPLOOP_TRAP_H
#define SLEEPLOOP_TRAP_H

#include "forgotten.h"

/* Ends a tp_iternext or send() with a value, as `return value` ends a generator.
 * Built by hand since PyErr_SetObject unpacks tuples and takes exceptions as they
 * are. Always returns NULL. */
static PyObject *
stop_iteration_steal(PyObject *value)
{
    PyObject *exc = PyObject_CallOneArg(PyExc_StopIteration, value);
    Py_DECREF(value);
    if (exc != NULL) {
        PyErr_SetRaisedException(exc);
    }
    return NULL;
}

/* Ends a tp_iternext with a value. The interpreter takes the StopIteration apart at once, so it has
 * no `args`: it costs a tuple and two calls less. 0, and value is its own; -1 with MemoryError, and
 * it is still the caller's. */
static inline int
stop_iteration_bare(PyObject *value)
{
    PyTypeObject *type = (PyTypeObject *)PyExc_StopIteration;
    PyStopIterationObject *exc = (PyStopIterationObject *)type->tp_alloc(type, 0);
    if (exc == NULL) {
        return -1;
    }
    exc->args = PyTuple_New(0);  /* there is but one */
    exc->value = value;
    PyErr_SetRaisedException((PyObject *)exc);
    return 0;
}

/* Whether nobody else holds the exception and nothing has been attached to it. */
static inline int
stop_iteration_is_pristine(PyObject *op)
{
    PyStopIterationObject *exc = (PyStopIterationObject *)op;
    return Py_REFCNT(op) == 1 && exc->traceback == NULL && exc->context == NULL
           && exc->cause == NULL && exc->dict == NULL && PyTuple_GET_SIZE(exc->args) == 0;
}

/* Ends a tp_iternext with a timedelta, a Tick or a bool, which may stay in the one instance until
 * the next such end; another value, as an item of a queue, would be kept alive. Whoever drives an
 * awaitable by himself and catches the StopIteration keeps that. Always returns NULL. */
static inline PyObject *
stop_iteration_reused_steal(ModuleState *state, PyObject *value)
{
    PyObject *exc = state->stop_iteration;
    if (exc == NULL || !stop_iteration_is_pristine(exc)) {
        exc = PyObject_CallNoArgs(PyExc_StopIteration);
        if (exc == NULL) {
            Py_DECREF(value);
            return NULL;
        }
        PyObject *old = state->stop_iteration;
        state->stop_iteration = Py_NewRef(exc);
        Py_XDECREF(old);  /* beware: may run Python that ends a sleep as well */
    }
    else {
        Py_INCREF(exc);
    }
    Py_XSETREF(((PyStopIterationObject *)exc)->value, value);
    PyErr_SetRaisedException(exc);
    return NULL;
}

/* An error that would be taken for the end of an await (StopIteration) or of an `async for`
 * (StopAsyncIteration) becomes a RuntimeError, as it does in coroutines; others stay. */
COLD static void
trap_error_is_no_end(const char *function, PyObject *end)
{
    if (PyErr_ExceptionMatches(end)) {
        PyObject *exc = PyErr_GetRaisedException();
        PyErr_Format(PyExc_RuntimeError, "%s raised %s", function, Py_TYPE(exc)->tp_name);
        PyObject *error = PyErr_GetRaisedException();
        PyException_SetCause(error, Py_NewRef(exc));
        PyException_SetContext(error, exc);
        PyErr_SetRaisedException(error);
    }
}

typedef PySendResult (*trap_advance_fn)(PyObject *self, PyObject *value, PyObject **result);

/* What tp_iternext returns. A bare NULL is the short form of "ended with None". */
static inline PyObject *
trap_next_result(PySendResult how, PyObject *result)
{
    switch (how) {
    case PYGEN_NEXT:
        return result;
    case PYGEN_RETURN:
        if (result == Py_None) {
            Py_DECREF(result);
            return NULL;
        }
        return stop_iteration_steal(result);
    default:
        return NULL;
    }
}

/* .send(value) on top of am_send. */
static PyObject *
trap_send(PyObject *self, PyObject *value, trap_advance_fn advance)
{
    PyObject *result;
    switch (advance(self, value, &result)) {
    case PYGEN_NEXT:
        return result;
    case PYGEN_RETURN:
        return stop_iteration_steal(result);
    default:
        return NULL;
    }
}

/* Whether the task of that number has yielded the trap in the step that is under way, so that not our
 * loop has it, but one that runs in that step. */
static inline int
trap_is_stray(PyObject *trap, uint8_t trap_state, uint32_t task_number)
{
    ModuleState *state = state_of_type(Py_TYPE(trap));
    LoopObject *loop = trap_state == TRAP_WAITING ? current_loop_borrowed(state) : NULL;
    return loop != NULL && loop->current != NULL && loop->current->number == task_number;
}

/* What the repr of a stray says, since the other loop shows that in its error. */
#define STRAY_ADVICE                                                                           \
    "awaited on a loop that is not sleeploop's: await it in a coroutine that sleeploop.run() " \
    "or create_task() runs, or use that loop's own means"

/* New str, the repr of a stray. */
COLD static PyObject *
trap_stray_repr(const char *function)
{
    return PyUnicode_FromFormat("<sleeploop's %s, " STRAY_ADVICE ">", function);
}

/* The repr of those that have nothing else to say. */
static PyObject *
trap_repr(PyObject *trap, uint8_t trap_state, uint32_t task_number, const char *function)
{
    return trap_is_stray(trap, trap_state, task_number) ? trap_stray_repr(function)
                                                        : PyBaseObject_Type.tp_repr(trap);
}

/* Of a type whose awaitables are all made by one function, which is the closure: as a coroutine has
 * them. */
static PyObject *
trap_get_name(PyObject *Py_UNUSED(op), void *function)
{
    return name_of_function(function);
}

static PyObject *
trap_get_qualname(PyObject *Py_UNUSED(op), void *function)
{
    return qualname_of_function(function);
}

#define TRAP_NAME_GETTERS(function)                                                            \
    {"__name__", trap_get_name, NULL, PyDoc_STR("What it was made by."), (void *)(function)},  \
    {"__qualname__", trap_get_qualname, NULL, PyDoc_STR("What it was made by."),               \
     (void *)(function)}

static PySendResult
trap_used_up(const char *what)
{
    PyErr_Format(PyExc_RuntimeError, "this %s was awaited before: make a new one for each await",
                 what);
    return PYGEN_ERROR;
}

/* .throw(exception) or, as generators still take it, .throw(type, value, traceback). */
static PyObject *
trap_throw(uint8_t *state, PyObject *const *args, Py_ssize_t n_args)
{
    if (n_args < 1 || n_args > 3) {
        PyErr_Format(PyExc_TypeError, "throw() takes 1 to 3 arguments, not %zd", n_args);
        return NULL;
    }
    PyObject *exc = args[0];
    PyObject *value = n_args > 1 && args[1] != Py_None ? args[1] : NULL;
    if (PyExceptionClass_Check(exc)) {
        if (value != NULL && PyExceptionInstance_Check(value)) {
            exc = Py_NewRef(value);
        }
        else {
            exc = value != NULL ? PyObject_CallOneArg(exc, value) : PyObject_CallNoArgs(exc);
        }
    }
    else {
        Py_INCREF(exc);
    }
    if (exc == NULL) {
        return NULL;
    }
    if (!PyExceptionInstance_Check(exc)) {
        raise_about(PyExc_TypeError, "%s takes an exception, not %U%s", "throw()", exc, "");
        Py_DECREF(exc);
        return NULL;
    }
    if (n_args > 2 && args[2] != Py_None && PyException_SetTraceback(exc, args[2]) < 0) {
        Py_DECREF(exc);
        return NULL;
    }
    *state = TRAP_DONE;
    PyErr_SetRaisedException(exc);
    return NULL;
}

#endif /* SLEEPLOOP_TRAP_H */
