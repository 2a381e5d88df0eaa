/* cancelled.h: CancelledError, which knows whose cancellation it is.
 *
 * It holds the cancelled scope and nothing else: its message, and who did it where,
 * are put into words when somebody asks. The exception of what has failed is the scope's, and only
 * until its block is over.
 */
#ifndef SLEEPLOOP_CORE_CANCELLED_H
#define SLEEPLOOP_CORE_CANCELLED_H

#include "../base/compat.h"
#include "args.h"
#include "copies.h"
#include "scopeobject.h"
#include "scopetree.h"
#include "state.h"

typedef struct {
    PyBaseExceptionObject base;
    ScopeObject *scope;  /* owned: whose cancellation it is; NULL: of no scope's */
} CancelledErrorObject;

static int
is_cancelled_error(ModuleState *state, PyObject *exc)
{
    return PyObject_TypeCheck(exc, (PyTypeObject *)state->CancelledError);
}

/* The scope whose cancellation the exception is, borrowed; NULL: of no scope's. */
static inline ScopeObject *
cancelled_error_scope(PyObject *exc)
{
    return ((CancelledErrorObject *)exc)->scope;
}

/* New exception of a scope that has been cancelled (borrowed, or NULL). It is returned
 * whether it could be made or not: then it is a MemoryError. */
static PyObject *
cancelled_error_new(ModuleState *state, ScopeObject *scope)
{
    Py_XINCREF(scope);  /* now: to make an object may collect others (3.11) */
    PyObject *exc = PyObject_CallNoArgs(state->CancelledError);
    if (exc == NULL) {
        Py_XDECREF(scope);
        return PyErr_GetRaisedException();
    }
    ((CancelledErrorObject *)exc)->scope = scope;
    return exc;
}

/* Likewise, raised in somebody who asks for the result of what was cancelled. Steals message, or
 * passes its error on. */
static void
raise_cancelled_steal(ModuleState *state, PyObject *message, ScopeObject *scope)
{
    PyObject *exc = message != NULL ? PyObject_CallOneArg(state->CancelledError, message) : NULL;
    Py_XDECREF(message);
    if (exc != NULL) {
        ((CancelledErrorObject *)exc)->scope = (ScopeObject *)Py_XNewRef(scope);
        PyErr_SetObject(state->CancelledError, exc);
        Py_DECREF(exc);
    }
}

/* What was being handled when exc, a CancelledError or a group of them, was raised: an error that it
 * has taken the place of, as when a `finally` awaits, or one that had been caught: they look the
 * same. Borrowed; NULL: nothing was. */
static PyObject *
cancelled_error_replaced(ModuleState *state, PyObject *exc)
{
    PyObject *slow = exc;  /* programs can make circles of contexts */
    int odd = 0;
    do {
        exc = ((PyBaseExceptionObject *)exc)->context;
        if (odd) {
            slow = ((PyBaseExceptionObject *)slow)->context;
            if (slow == exc) {
                return NULL;
            }
        }
        odd = !odd;
    } while (exc != NULL && is_cancelled_error(state, exc));
    return exc;
}

/* ---- what has happened, in words --------------------------------------------------------------- */

/* New str: the name of the task that cancelled the scope; or None. */
static PyObject *
scope_culprit(const ScopeObject *scope)
{
    if (scope->by_name != NULL) {
        return Py_NewRef(scope->by_name);
    }
    if (scope->by_number == 0) {
        return Py_NewRef(Py_None);
    }
    return PyUnicode_FromFormat("Task-%lu", (unsigned long)scope->by_number);
}

/* New str: "file:line in function", where cancel() was called; or None. */
static PyObject *
scope_place(const ScopeObject *scope)
{
    if (scope->code == NULL) {
        return Py_NewRef(Py_None);
    }
    if (PyUnicode_Check(scope->code)) {
        return Py_NewRef(scope->code);
    }
    PyObject *text = NULL;
    PyObject *file = PyObject_GetAttrString(scope->code, "co_filename");
    PyObject *function =
        file != NULL ? PyObject_GetAttrString(scope->code, "co_qualname") : NULL;
    if (function != NULL) {
        text = PyUnicode_FromFormat("%U:%d in %U", file, scope->line, function);
    }
    Py_XDECREF(file);
    Py_XDECREF(function);
    return text;
}

/* What the message of an error calls it. */
static const char *
scope_kind(const ScopeObject *scope)
{
    return scope->group != NULL             ? "TaskGroup"
           : scope->flags & SCOPE_TIMEOUT ? "timeout"
                                            : "CancelScope";
}

/* New str: "cancelled by task 'main' at file:line in function: reason". */
static PyObject *
scope_describe_cancel(const ScopeObject *scope)
{
    PyObject *by = scope_culprit(scope);
    PyObject *at = by != NULL ? scope_place(scope) : NULL;
    PyObject *text = at != NULL ? PyUnicode_FromString("cancelled") : NULL;
    if (text != NULL && by != Py_None) {
        Py_SETREF(text, PyUnicode_FromFormat("%U by task %R", text, by));
    }
    if (text != NULL && at != Py_None) {
        Py_SETREF(text, PyUnicode_FromFormat("%U at %U", text, at));
    }
    if (text != NULL && scope->reason != NULL) {
        PyObject *why =
            PyUnicode_Check(scope->reason) ? Py_NewRef(scope->reason) : describe(scope->reason);
        Py_SETREF(text, why != NULL ? PyUnicode_FromFormat("%U: %U", text, why) : NULL);
        Py_XDECREF(why);
    }
    Py_XDECREF(at);
    Py_XDECREF(by);
    return text;
}

/* New str: the deadline that has passed. */
static PyObject *
scope_describe_deadline(const ScopeObject *scope)
{
    PyObject *seconds = seconds_object(scope->passed);
    PyObject *text = seconds != NULL
                         ? PyUnicode_FromFormat("the deadline at %S s has passed", seconds)
                         : NULL;
    Py_XDECREF(seconds);
    return text;
}

static PyObject *cancelled_error_tp_repr(PyObject *op);

/* Whether an exception's repr() is short and runs nobody's code. */
static int
repr_is_plain(PyObject *exc)
{
    reprfunc repr = Py_TYPE(exc)->tp_repr;
    PyObject *args = ((PyBaseExceptionObject *)exc)->args;
    if (repr == cancelled_error_tp_repr && cancelled_error_scope(exc) == NULL) {
        repr = ((PyTypeObject *)PyExc_BaseException)->tp_repr;  /* raised by hand */
    }
    if (repr != ((PyTypeObject *)PyExc_BaseException)->tp_repr || !PyTuple_CheckExact(args)
        || PyTuple_GET_SIZE(args) > 4) {
        return 0;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(args); i++) {
        PyObject *arg = PyTuple_GET_ITEM(args, i);
        int is_large = 0;
        if (PyLong_CheckExact(arg)) {
            (void)PyLong_AsLongAndOverflow(arg, &is_large);
        }
        else {
            is_large = PyUnicode_CheckExact(arg) ? PyUnicode_GET_LENGTH(arg) > 200
                                                 : arg != Py_None && !PyFloat_CheckExact(arg);
        }
        if (is_large) {
            return 0;
        }
    }
    return 1;
}

/* New str: "task 'name' failed with Error()"; or only with "Error". Beware: the former may run the
 * exception's repr(). */
static PyObject *
scope_describe_failure(const ScopeObject *scope, PyObject *exc, int in_full)
{
    PyObject *text = NULL;
    PyObject *by = scope_culprit(scope);
    PyObject *what = by == NULL ? NULL : in_full ? describe(exc) : PyType_GetName(Py_TYPE(exc));
    if (what != NULL) {
        text = by != Py_None ? PyUnicode_FromFormat("task %R failed with %U", by, what)
                             : PyUnicode_FromFormat("the run failed with %U", what);
    }
    Py_XDECREF(what);
    Py_XDECREF(by);
    return text;
}

/* The exception of what failed and so cancelled the scope, borrowed; NULL if nothing did, or it is
 * forgotten. */
static inline PyObject *
scope_failure_borrowed(const ScopeObject *scope)
{
    return scope->source >= SOURCE_FAILURE && scope->reason != NULL
                   && PyExceptionInstance_Check(scope->reason)
               ? scope->reason
               : NULL;
}

/* The block is over, or the run, and the exception is no more the scope's: frames in its traceback
 * may lead back here. What words can be had for nothing are kept. Beware: may run Python, when
 * it dies. */
static void
scope_forget_failure(ScopeObject *scope)
{
    PyObject *exc = scope_failure_borrowed(scope);
    if (exc != NULL) {
        scope->reason = scope_describe_failure(scope, exc, repr_is_plain(exc));
        PyErr_Clear();
        Py_DECREF(exc);
    }
}

/* New str: why a scope has been cancelled. */
static PyObject *
scope_describe_cause(const ScopeObject *scope)
{
    if (scope->source == SOURCE_EXPLICIT) {
        return scope_describe_cancel(scope);
    }
    if (scope->source == SOURCE_DEADLINE) {
        return scope_describe_deadline(scope);
    }
    PyObject *exc = Py_XNewRef(scope_failure_borrowed(scope));
    if (exc != NULL) {
        PyObject *text = scope_describe_failure(scope, exc, 1);
        Py_DECREF(exc);
        return text;
    }
    if (scope->reason != NULL) {
        return Py_NewRef(scope->reason);
    }
    return PyUnicode_FromString(scope->source == SOURCE_FAILURE ? "another task failed"
                                                                : "the run is over");
}

/* ---- its text -------------------------------------------------------------------------------- */

static PyObject *
cancelled_error_tp_str(PyObject *op)
{
    CancelledErrorObject *self = (CancelledErrorObject *)op;
    PyObject *text = ((PyTypeObject *)PyExc_BaseException)->tp_str(op);
    if (text == NULL || self->scope == NULL) {
        return text;
    }
    PyObject *cause = scope_describe_cause(self->scope);
    if (cause == NULL) {
        Py_DECREF(text);
        return NULL;
    }
    if (PyUnicode_GET_LENGTH(text) == 0) {
        Py_DECREF(text);
        return cause;
    }
    Py_SETREF(text, PyUnicode_FromFormat("%U: %U", text, cause));
    Py_DECREF(cause);
    return text;
}

static PyObject *
cancelled_error_tp_repr(PyObject *op)
{
    if (((CancelledErrorObject *)op)->scope == NULL) {
        return ((PyTypeObject *)PyExc_BaseException)->tp_repr(op);
    }
    PyObject *name = PyObject_GetAttrString((PyObject *)Py_TYPE(op), "__name__");
    PyObject *text = name != NULL ? cancelled_error_tp_str(op) : NULL;
    PyObject *repr = text != NULL ? PyUnicode_FromFormat("%S(%R)", name, text) : NULL;
    Py_XDECREF(name);
    Py_XDECREF(text);
    return repr;
}

/* ---- attributes ------------------------------------------------------------------------------ */

static PyObject *
cancelled_error_get_reason(PyObject *op, void *Py_UNUSED(closure))
{
    ScopeObject *scope = cancelled_error_scope(op);
    if (scope != NULL && scope->source >= SOURCE_FAILURE) {
        return scope_describe_cause(scope);
    }
    return Py_NewRef(scope != NULL && scope->reason != NULL ? scope->reason : Py_None);
}

static const char *const source_names[] = {
    [SOURCE_EXPLICIT] = "explicit",
    [SOURCE_DEADLINE] = "deadline",
    [SOURCE_FAILURE] = "failure",
    [SOURCE_SHUTDOWN] = "shutdown",
};

static PyObject *
cancelled_error_get_source(PyObject *op, void *Py_UNUSED(closure))
{
    ScopeObject *scope = cancelled_error_scope(op);
    return PyUnicode_FromString(scope != NULL ? source_names[scope->source] : "unknown");
}

static PyObject *
cancelled_error_get_source_task(PyObject *op, void *Py_UNUSED(closure))
{
    ScopeObject *scope = cancelled_error_scope(op);
    return scope != NULL ? scope_culprit(scope) : Py_NewRef(Py_None);
}

static PyObject *
cancelled_error_get_where(PyObject *op, void *Py_UNUSED(closure))
{
    ScopeObject *scope = cancelled_error_scope(op);
    return scope != NULL ? scope_place(scope) : Py_NewRef(Py_None);
}

/* ---- copies and pickles ---------------------------------------------------------------------- */

/* A copy is of the same scope, which catches it as well. */
static PyObject *
cancelled_error_py_deepcopy(PyObject *op, PyObject *memo)
{
    PyObject *twin = error_copied(op, memo);
    if (twin != NULL && Py_IS_TYPE(twin, Py_TYPE(op))) {
        Py_XSETREF(((CancelledErrorObject *)twin)->scope,
                   (ScopeObject *)Py_XNewRef(cancelled_error_scope(op)));
    }
    return twin;
}

static PyObject *
cancelled_error_py_copy(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return cancelled_error_py_deepcopy(op, Py_None);
}

/* A pickle holds what there is to be told of the scope: cancelled_error_py_setstate() gets it. */
static PyObject *
cancelled_error_py_reduce(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    ScopeObject *scope = cancelled_error_scope(op);
    if (scope == NULL) {
        return error_reduced(op, Py_None);
    }
    Py_INCREF(scope);
    PyObject *told = Py_BuildValue("(NNNNL)", cancelled_error_get_source(op, NULL),
                                   cancelled_error_get_reason(op, NULL), scope_culprit(scope),
                                   scope_place(scope), (long long)scope->passed);
    Py_DECREF(scope);
    PyObject *reduced = told != NULL ? error_reduced(op, told) : NULL;
    Py_XDECREF(told);
    return reduced;
}

/* What the words of a message are made of, which has to be a str: a new exact one, or NULL for
 * None. 0, or -1 with a TypeError. */
static int
told_from_object(const char *what, PyObject *obj, PyObject **text)
{
    *text = NULL;
    if (obj == Py_None) {
        return 0;
    }
    if (!PyUnicode_Check(obj)) {
        raise_about(PyExc_TypeError, "a CancelledError's %s must be a str or None, not %U%s", what,
                    obj, "");
        return -1;
    }
    *text = PyUnicode_FromObject(obj);
    return *text != NULL ? 0 : -1;
}

/* A scope that nobody will ever enter, and of which just as much is known. Anything may have been
 * given. */
static ScopeObject *
scope_from_told(ModuleState *state, const char *source, PyObject *reason, PyObject *by,
                PyObject *where, int64_t passed)
{
    ScopeObject *scope = scope_new(state);
    if (scope == NULL) {
        return NULL;
    }
    size_t n = 0;
    while (n < Py_ARRAY_LENGTH(source_names) && strcmp(source, source_names[n]) != 0) {
        n++;
    }
    if (n == Py_ARRAY_LENGTH(source_names)) {
        PyErr_Format(PyExc_ValueError, "a CancelledError's source cannot be '%.100s'", source);
        Py_DECREF(scope);
        return NULL;
    }
    scope->state = SCOPE_LEFT;
    scope->flags = SCOPE_CANCELLED;
    scope->source = (uint8_t)n;
    scope->passed = passed;
    if (scope->source == SOURCE_EXPLICIT && reason != Py_None) {
        scope->reason = Py_NewRef(reason);
    }
    if ((scope->source != SOURCE_EXPLICIT
         && told_from_object("reason", reason, &scope->reason) < 0)
        || told_from_object("source_task", by, &scope->by_name) < 0
        || told_from_object("where", where, &scope->code) < 0) {
        Py_DECREF(scope);
        return NULL;
    }
    return scope;
}

/* state: (attributes, source, reason, source_task, where, passed), or the attributes alone. */
static PyObject *
cancelled_error_py_setstate(PyObject *op, PyObject *given)
{
    PyObject *attributes = given;
    ScopeObject *scope = NULL;
    if (PyTuple_Check(given)) {
        const char *source;
        PyObject *reason, *by, *where;
        long long passed;
        PyObject *module = PyType_GetModuleByDef(Py_TYPE(op), &sleeploop_module);
        if (module == NULL
            || !PyArg_ParseTuple(given, "OsOOOL;a CancelledError's state has other items",
                                 &attributes, &source, &reason, &by, &where, &passed)) {
            return NULL;
        }
        if (cancelled_error_scope(op) != NULL) {
            PyErr_SetString(PyExc_ValueError,
                            "this CancelledError knows already whose cancellation it is");
            return NULL;
        }
        scope = scope_from_told(PyModule_GetState(module), source, reason, by, where, passed);
        if (scope == NULL) {
            return NULL;
        }
    }
    PyObject *done = PyObject_CallMethod(PyExc_BaseException, "__setstate__", "OO", op, attributes);
    if (done != NULL && scope != NULL) {
        Py_XSETREF(((CancelledErrorObject *)op)->scope, (ScopeObject *)Py_NewRef(scope));
    }
    Py_XDECREF(scope);
    return done;
}

/* ---- life ------------------------------------------------------------------------------------ */

static int
cancelled_error_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((CancelledErrorObject *)op)->scope);
    return ((PyTypeObject *)PyExc_BaseException)->tp_traverse(op, visit, arg);
}

static int
cancelled_error_tp_clear(PyObject *op)
{
    Py_CLEAR(((CancelledErrorObject *)op)->scope);
    return ((PyTypeObject *)PyExc_BaseException)->tp_clear(op);
}

static void
cancelled_error_tp_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    Py_TRASHCAN_BEGIN(op, cancelled_error_tp_dealloc)
    (void)cancelled_error_tp_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

PyDoc_STRVAR(cancelled_error_doc,
"Raised at the await of a task that has been cancelled: at every one, until the\n"
"scope that was cancelled has been left. That scope catches it; let it through.\n"
"\n"
"A BaseException, so that `except Exception` does not swallow it. Its message tells\n"
"who cancelled, where and why; so do `source`, `source_task`, `where` and `reason`.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def main():\n"
"...     with sleeploop.CancelScope() as scope:\n"
"...         scope.cancel('enough')\n"
"...         try:\n"
"...             await sleeploop.sleep(1)\n"
"...         except sleeploop.CancelledError as error:\n"
"...             print(error.source, error.source_task, error.reason)\n"
"...             raise\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"explicit Task-1 enough\n");

static PyGetSetDef cancelled_error_getset[] = {
    {"reason", cancelled_error_get_reason, NULL,
     PyDoc_STR("What cancel() was given, or a str that says what happened; None: nothing."), NULL},
    {"source", cancelled_error_get_source, NULL,
     PyDoc_STR("'explicit': cancel() was called; 'deadline': it passed; 'failure': another task\n"
               "of the group failed; 'shutdown': the run ends; 'unknown': raised by hand."),
     NULL},
    {"source_task", cancelled_error_get_source_task, NULL,
     PyDoc_STR("The name of the task that called cancel() or failed; None: it was no task."), NULL},
    {"where", cancelled_error_get_where, NULL,
     PyDoc_STR("Where cancel() was called: 'file:line in function', or None."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef cancelled_error_methods[] = {
    {"__copy__", cancelled_error_py_copy, METH_NOARGS, COPY_DOC},
    {"__deepcopy__", cancelled_error_py_deepcopy, METH_O, DEEPCOPY_DOC},
    {"__reduce__", cancelled_error_py_reduce, METH_NOARGS, REDUCE_DOC},
    {"__setstate__", cancelled_error_py_setstate, METH_O,
     PyDoc_STR("__setstate__($self, state, /)\n--\n\nFor pickle.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot cancelled_error_slots[] = {
    {Py_tp_doc, (void *)cancelled_error_doc},
    {Py_tp_dealloc, cancelled_error_tp_dealloc},
    {Py_tp_traverse, cancelled_error_tp_traverse},
    {Py_tp_clear, cancelled_error_tp_clear},
    {Py_tp_str, cancelled_error_tp_str},
    {Py_tp_repr, cancelled_error_tp_repr},
    {Py_tp_methods, cancelled_error_methods},
    {Py_tp_getset, cancelled_error_getset},
    {0, NULL},
};

static PyType_Spec cancelled_error_spec = {
    .name = "sleeploop.CancelledError",
    .basicsize = sizeof(CancelledErrorObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = cancelled_error_slots,
};

#endif /* SLEEPLOOP_CORE_CANCELLED_H */
