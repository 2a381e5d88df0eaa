/* future.h: Future, an outcome that is there one day: somebody sets it, and tasks wait for it.
 *
 * Who waits is parked at a waitlist, and is let go when it is set; what the await comes to is
 * looked up then. An outcome never changes once it is there.
 */
#ifndef SLEEPLOOP_SYNC_FUTURE_H
#define SLEEPLOOP_SYNC_FUTURE_H

#include "../base/compat.h"
#include "../base/ring.h"
#include "../core/args.h"
#include "../core/callbacks.h"
#include "../core/cancel.h"
#include "../core/cancelled.h"
#include "../core/failure.h"
#include "../core/loopobject.h"
#include "../core/report.h"
#include "../core/scopeobject.h"
#include "../core/scopetree.h"
#include "../core/state.h"
#include "../core/taskobject.h"
#include "../wait/calls.h"
#include "../wait/waitable.h"
#include "../wait/waitlist.h"
#include "../wait/waitobject.h"

enum future_state { FUTURE_PENDING, FUTURE_RETURNED, FUTURE_FAILED, FUTURE_CANCELLED };

typedef struct {
    SYNC_HEAD
    struct waitlist waitlist;
    PyObject *outcome;     /* owned: the result, the exception, or the scope that says who cancelled
                              it and why; NULL: pending, or the collector has been here */
    struct raised raised;  /* FAILED: of its exception, as it was given */
    struct unseen unseen;  /* FAILED, and nobody has asked for it: in the loop's ring */
    PyObject *callbacks;   /* owned list of calls that are to be made; NULL: none */
    uint8_t state;         /* enum future_state */
    uint8_t is_seen;       /* FAILED, and somebody has asked for it */
} FutureObject;

/* ---- the outcome ----------------------------------------------------------------------------- */

static void
future_mark_seen(FutureObject *future)
{
    future->is_seen = 1;
    if (link_in_ring(&future->unseen.link)) {
        link_remove(&future->unseen.link);
    }
}

/* Nobody can ask for the failure any more, or the run is over. loop: whose run raises it, or NULL.
 * Beware: runs Python. */
COLD static void
future_report_unseen(LoopObject *loop, PyObject *op)
{
    FutureObject *future = (FutureObject *)Py_NewRef(op);
    PyObject *exc = Py_NewRef(future->outcome);
    Py_XINCREF(loop);
    future_mark_seen(future);
    raised_restore(&future->raised, exc);
    if (loop != NULL && loop->errors != NULL) {
        loop_record_error(loop, exc);
    }
    PyObject *title = sync_title(op);
    log_exception(loop, "error",
                  title != NULL ? PyUnicode_FromFormat(
                      "%U failed and nobody retrieved its exception", title)
                                : NULL,
                  exc);
    Py_XDECREF(title);
    Py_DECREF(exc);
    Py_XDECREF(loop);
    Py_DECREF(future);
}

COLD static int
raise_future_is(FutureObject *future, const char *function, const char *what)
{
    raise_about(PyExc_RuntimeError, "%s: %U%s", function, (PyObject *)future, what);
    return -1;
}

/* The result of one that is done: a new reference, or NULL with its exception. */
static PyObject *
future_outcome(FutureObject *future)
{
    ModuleState *state = state_of_type(Py_TYPE(future));
    PyObject *title;
    if (future->outcome == NULL) {
        raise_future_is(future, "Future", " is garbage");
        return NULL;
    }
    switch (future->state) {
    case FUTURE_RETURNED:
        return Py_NewRef(future->outcome);
    case FUTURE_FAILED:
        future_mark_seen(future);
        raised_restore(&future->raised, future->outcome);
        PyErr_SetObject((PyObject *)Py_TYPE(future->outcome), future->outcome);
        return NULL;
    default:
        title = sync_title((PyObject *)future);
        raise_cancelled_steal(
            state, title != NULL ? PyUnicode_FromFormat("%U was cancelled", title) : NULL,
            (ScopeObject *)future->outcome);
        Py_XDECREF(title);
        return NULL;
    }
}

/* For result() and exception(). 0, or -1 with a RuntimeError. */
static int
future_need_done(FutureObject *future, const char *function)
{
    return future->state != FUTURE_PENDING
               ? 0
               : raise_future_is(future, function, " has no outcome yet; 'await' it first");
}

/* ---- set ------------------------------------------------------------------------------------- */

/* The loop whose tasks use it, borrowed, if it has begun and not ended; or NULL. */
static LoopObject *
future_loop_borrowed(FutureObject *future)
{
    return begun_loop_borrowed(state_of_type(Py_TYPE(future)), future->loop_number);
}

/* 1 if the outcome can be set here and now, 0: it has one already; -1 with a RuntimeError, or a
 * LoopClosedError: there are callbacks, and nobody will make them. Beware: as sync_touch(). */
static int
future_may_settle(FutureObject *future, const char *function)
{
    ModuleState *state = state_of_type(Py_TYPE(future));
    if (sync_touch(state, (SyncObject *)future, function) < 0) {
        return -1;
    }
    if (future->state != FUTURE_PENDING) {
        return 0;
    }
    LoopObject *loop = future_loop_borrowed(future);
    if (future->callbacks != NULL && (loop == NULL || loop->refuses)) {
        raise_about(state->LoopClosedError, "%s: %U%s", function, (PyObject *)future,
                    " has callbacks, and the run of its loop is over");
        return -1;
    }
    if (loop == NULL && (loop = current_loop_borrowed(state)) != NULL) {
        future->loop_number = loop->number;  /* no task has used it yet; a failure is this run's */
    }
    return 1;
}

/* Likewise 0, or -1 with a RuntimeError also if it has one. */
static int
future_need_pending(FutureObject *future, const char *function)
{
    int may = future_may_settle(future, function);
    return may != 0 ? (may > 0 ? 0 : -1)
                    : raise_future_is(future, function, " has its outcome already");
}

/* It has its outcome, whose reference it owns: whoever waits goes on, and its callbacks are made in
 * the next pass. 0, or -1 with MemoryError: some are not made. Beware: as loop_tell_driver(). */
static int
future_settle_steal(FutureObject *future, enum future_state state, PyObject *outcome_steal)
{
    LoopObject *loop = future_loop_borrowed(future);
    PyObject *calls = future->callbacks;
    future->state = (uint8_t)state;
    future->outcome = outcome_steal;
    future->callbacks = NULL;
    future->held = 0;
    waitlist_grant_all(&future->waitlist);
    if (state == FUTURE_FAILED && loop != NULL) {
        ring_push(&loop->unseen_others, &future->unseen.link);
    }
    int rc = calls != NULL && loop != NULL ? calls_fall_due(loop, calls) : 0;
    Py_XDECREF(calls);
    return rc;
}

PyDoc_STRVAR(future_set_result_doc,
"set_result($self, result, /)\n--\n\n"
"Give it its outcome: who waits for it goes on, and gets the result.\n"
"\n"
"Raises RuntimeError if it has one already, or if the tasks that use it run in another\n"
"thread; LoopClosedError if it has callbacks and their run is over.\n");

static PyObject *
future_py_set_result(PyObject *op, PyObject *result)
{
    FutureObject *future = (FutureObject *)op;
    if (future_need_pending(future, "Future.set_result()") < 0
        || future_settle_steal(future, FUTURE_RETURNED, Py_NewRef(result)) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* What set_exception() was given, an instance or a class, as an instance: a new reference, or NULL
 * with a TypeError. Beware: to make it runs Python. */
static PyObject *
future_exception_from(PyObject *obj)
{
    PyObject *exc = PyExceptionClass_Check(obj) ? PyObject_CallNoArgs(obj) : Py_NewRef(obj);
    if (exc == NULL) {
        return NULL;
    }
    const char *why = PyExceptionInstance_Check(exc) ? NULL : "";
    if (why == NULL && PyErr_GivenExceptionMatches(exc, PyExc_StopIteration)) {
        why = ", which would end the await";
    }
    if (why != NULL) {
        raise_about(PyExc_TypeError, "%s takes an exception, not %U%s", "Future.set_exception()",
                    exc, why);
        Py_CLEAR(exc);
    }
    return exc;
}

PyDoc_STRVAR(future_set_exception_doc,
"set_exception($self, exception, /)\n--\n\n"
"Give it its outcome: who waits for it goes on, and the exception is raised there. If nobody\n"
"ever asks for it, it is logged, and raised by the run in the end, as of a task.\n"
"\n"
"exception: an instance, or a class that is called without arguments.\n"
"\n"
"Raises TypeError for anything else, and for a StopIteration; and what set_result() does.\n");

static PyObject *
future_py_set_exception(PyObject *op, PyObject *exception)
{
    FutureObject *future = (FutureObject *)op;
    PyObject *exc = future_exception_from(exception);
    if (exc == NULL || future_need_pending(future, "Future.set_exception()") < 0) {
        Py_XDECREF(exc);
        return NULL;
    }
    raised_keep(&future->raised, exc);
    return future_settle_steal(future, FUTURE_FAILED, exc) == 0 ? Py_NewRef(Py_None) : NULL;
}

PyDoc_STRVAR(future_cancel_doc,
"cancel($self, reason=None)\n--\n\n"
"Give it up: who waits for it goes on, and CancelledError is raised there. For a task that is\n"
"not cancelled itself, that is an error like any other. Return False if it has an outcome\n"
"already, else True.\n"
"\n"
"reason: anything; it is told by the exception.\n"
"\n"
"Raises RuntimeError if the tasks that use it run in another thread; LoopClosedError if it has\n"
"callbacks and their run is over.\n");

static PyObject *
future_py_cancel(PyObject *op, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    static const char *const names[] = {"reason", NULL};
    FutureObject *future = (FutureObject *)op;
    ModuleState *state = state_of_type(Py_TYPE(op));
    PyObject *reason;
    if (args_parse("Future.cancel()", names, 1, 0, args, n_args, kwnames, &reason) < 0) {
        return NULL;
    }
    ScopeObject *scope = scope_new(state);
    if (scope == NULL) {
        return NULL;
    }
    loop_cancel_by_call(NULL, scope, reason);
    LoopObject *loop = current_loop_borrowed(state);
    scope_set_culprit(scope, loop != NULL ? loop->current : NULL);
    int may = future_may_settle(future, "Future.cancel()");  /* after all that may run Python */
    if (may <= 0) {
        Py_DECREF(scope);
        return may == 0 ? Py_NewRef(Py_False) : NULL;
    }
    return future_settle_steal(future, FUTURE_CANCELLED, (PyObject *)scope) == 0
               ? Py_NewRef(Py_True)
               : NULL;
}

/* ---- asked for ------------------------------------------------------------------------------- */

PyDoc_STRVAR(future_result_doc,
"result($self, /)\n--\n\n"
"What set_result() was given.\n"
"\n"
"Raises what set_exception() was given, CancelledError after cancel(), and RuntimeError if it\n"
"has no outcome yet.\n");

static PyObject *
future_py_result(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FutureObject *future = (FutureObject *)op;
    return future_need_done(future, "Future.result()") == 0 ? future_outcome(future) : NULL;
}

PyDoc_STRVAR(future_exception_doc,
"exception($self, /)\n--\n\n"
"What set_exception() was given, or None if it has a result.\n"
"\n"
"Raises CancelledError after cancel(), and RuntimeError if it has no outcome yet.\n");

static PyObject *
future_py_exception(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FutureObject *future = (FutureObject *)op;
    if (future_need_done(future, "Future.exception()") < 0) {
        return NULL;
    }
    if (future->state == FUTURE_RETURNED) {
        Py_RETURN_NONE;
    }
    if (future->state == FUTURE_FAILED && future->outcome != NULL) {
        future_mark_seen(future);
        return raised_ask(&future->raised, future->outcome);
    }
    return future_outcome(future);
}

static PyObject *
future_py_done(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(((FutureObject *)op)->state != FUTURE_PENDING);
}

static PyObject *
future_py_cancelled(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(((FutureObject *)op)->state == FUTURE_CANCELLED);
}

/* ---- awaited --------------------------------------------------------------------------------- */

static int
future_take(WaitObject *wait, LoopObject *Py_UNUSED(loop), TaskObject *Py_UNUSED(task))
{
    return ((FutureObject *)wait->object)->state != FUTURE_PENDING;
}

static PyObject *
future_result(WaitObject *wait)
{
    return future_outcome((FutureObject *)wait->object);
}

static const struct wait_kind future_kind = {
    WAIT_KIND(future_kind, "Future.__await__()"),
    .take = future_take,
    .result = future_result,
    .describe = sync_title,
};

static PyObject *
future_am_await(PyObject *op)
{
    WaitObject *wait = wait_new(state_of_type(Py_TYPE(op)), &future_kind, op,
                                &((FutureObject *)op)->waitlist, NULL);
    if (wait != NULL) {
        wait->excused = 1;  /* `future.__await__()` alone is no mistake */
    }
    return (PyObject *)wait;
}

/* ---- callbacks ------------------------------------------------------------------------------- */

PyDoc_STRVAR(future_add_done_callback_doc,
"add_done_callback($self, fn, *, context=None)\n--\n\n"
"Have the loop call fn(future) in its next pass once the outcome is there, or soon if it is\n"
"there already: as add_done_callback() of a task.\n"
"\n"
"context: a contextvars.Context to call it in; None: a copy of the current one, made now.\n"
"\n"
"Until it has been called, tasks of another loop cannot use the future.\n"
"\n"
"Raises TypeError for what cannot be called, LoopClosedError when the run is over, and\n"
"RuntimeError in another thread than the one that runs the loop, for one that another loop\n"
"uses, or if the loop that uses it has gone and none runs here.\n");

static PyObject *
future_py_add_done_callback(PyObject *op, PyObject *const *args, Py_ssize_t n_args,
                            PyObject *kwnames)
{
    const char *function = "Future.add_done_callback()";
    FutureObject *future = (FutureObject *)op;
    ModuleState *state = state_of_type(Py_TYPE(op));
    PyObject *new_list;
    PyObject *call = callback_from_args(function, op, args, n_args, kwnames, &new_list);
    if (call == NULL) {
        return NULL;
    }
    int rc = sync_touch(state, (SyncObject *)op, function);
    LoopObject *loop = rc == 0 ? future_loop_borrowed(future) : NULL;
    if (rc == 0 && loop == NULL) {
        loop = need_current_loop_borrowed(state, function);
        rc = loop != NULL ? sync_enter(state, (SyncObject *)op, loop, function) : -1;
    }
    Py_XINCREF(loop);
    if (rc == 0 && loop_check_accepts(loop, function) < 0) {
        rc = -1;
    }
    if (rc == 0 && future->state != FUTURE_PENDING) {
        rc = loop_add_call(loop, call, new_list);
        loop->callbacks_due = loop->calls != NULL;  /* its driver may have had it made */
    }
    else if (rc == 0 && future->callbacks != NULL) {
        rc = PyList_Append(future->callbacks, call);
    }
    else if (rc == 0 && (rc = PyList_Append(new_list, call)) == 0) {
        future->callbacks = Py_NewRef(new_list);
        future->held = 1;  /* tasks of no other loop may use it now */
    }
    Py_XDECREF(loop);
    Py_DECREF(new_list);
    Py_DECREF(call);
    return rc == 0 ? Py_NewRef(Py_None) : NULL;
}

PyDoc_STRVAR(future_remove_done_callback_doc,
"remove_done_callback($self, fn, /)\n--\n\n"
"Take back what add_done_callback() was given: all that equals fn, and has not fallen due.\n"
"Return how many there were, an int.\n"
"\n"
"Raises RuntimeError in another thread than the one that runs the loop.\n");

static PyObject *
future_py_remove_done_callback(PyObject *op, PyObject *fn)
{
    FutureObject *future = (FutureObject *)op;
    if (sync_touch(state_of_type(Py_TYPE(op)), (SyncObject *)op, "Future.remove_done_callback()")
        < 0) {
        return NULL;
    }
    PyObject *list = Py_XNewRef(future->callbacks);
    PyObject *gone = list != NULL ? callbacks_equal(list, fn) : NULL;
    Py_ssize_t n = list != NULL && gone == NULL ? -1 : 0;
    if (gone != NULL && list == future->callbacks) {  /* else they have fallen due */
        n = callbacks_take_out(list, gone);
        if (PyList_GET_SIZE(list) == 0) {
            Py_CLEAR(future->callbacks);
            future->held = 0;
        }
    }
    Py_XDECREF(gone);
    Py_XDECREF(list);
    return n >= 0 ? PyLong_FromSsize_t(n) : NULL;
}

/* ---- the type -------------------------------------------------------------------------------- */

static PyObject *
future_tp_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"name", NULL};
    PyObject *name = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$O:Future", names, &name)) {
        return NULL;
    }
    FutureObject *future = (FutureObject *)sync_new("Future()", type, name);
    if (future != NULL) {
        LoopObject *loop = current_loop_borrowed(state_of_type(type));
        future->loop_number = loop != NULL ? loop->number : 0;
        future->unseen.owner = (PyObject *)future;
        future->unseen.report = future_report_unseen;
        waitlist_init(&future->waitlist);
    }
    return (PyObject *)future;
}

static PyObject *
future_tp_repr(PyObject *op)
{
    FutureObject *future = (FutureObject *)op;
    int again = Py_ReprEnter(op);  /* a result may hold the future */
    if (again != 0) {
        return again > 0 ? PyUnicode_FromString("<Future ...>") : NULL;
    }
    static const char *const words[] = {
        [FUTURE_PENDING] = "%U pending", [FUTURE_RETURNED] = "%U with result %U",
        [FUTURE_FAILED] = "%U failed with %U", [FUTURE_CANCELLED] = "%U cancelled",
    };
    int is_told = future->state == FUTURE_RETURNED || future->state == FUTURE_FAILED;
    PyObject *title = sync_title(op);
    PyObject *outcome = title == NULL ? NULL
                        : is_told && future->outcome != NULL ? describe(future->outcome)
                                                             : Py_NewRef(Py_None);
    PyObject *what =
        outcome != NULL ? PyUnicode_FromFormat(words[future->state], title, outcome) : NULL;
    Py_XDECREF(outcome);
    Py_XDECREF(title);
    PyObject *repr = sync_repr_steal(op, what);
    Py_ReprLeave(op);
    return repr;
}

static int
future_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    FutureObject *future = (FutureObject *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(future->outcome);
    Py_VISIT(future->raised.traceback);
    Py_VISIT(future->raised.context);
    Py_VISIT(future->callbacks);
    return 0;
}

static int
future_tp_clear(PyObject *op)
{
    FutureObject *future = (FutureObject *)op;
    future_mark_seen(future);
    Py_CLEAR(future->outcome);
    Py_CLEAR(future->raised.traceback);
    Py_CLEAR(future->raised.context);
    Py_CLEAR(future->callbacks);
    return 0;
}

static void
future_tp_finalize(PyObject *op)
{
    FutureObject *future = (FutureObject *)op;
    if (future->state == FUTURE_FAILED && !future->is_seen) {
        PyObject *saved = PyErr_GetRaisedException();
        future_report_unseen(future_loop_borrowed(future), op);
        PyErr_SetRaisedException(saved);
    }
}

static void
future_tp_dealloc(PyObject *op)
{
    if (PyObject_CallFinalizerFromDealloc(op) < 0) {
        return;  /* a log handler kept it */
    }
    PyObject_GC_UnTrack(op);
    /* A future may hold the last reference to the next, 100,000 in a row. */
    Py_TRASHCAN_BEGIN(op, future_tp_dealloc)
    sync_dies(op);
    (void)future_tp_clear(op);
    sync_free(op);
    Py_TRASHCAN_END
}

PyDoc_STRVAR(future_type_doc,
"Future(*, name=None)\n--\n\n"
"An outcome that is there one day: `await future` waits until somebody has called\n"
"set_result(), set_exception() or cancel(). Any number of tasks can wait for it, and each can be\n"
"cancelled alone: that does not touch the future.\n"
"\n"
"name: a str, for the repr and for reports.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def cook(soup):\n"
"...     await sleeploop.sleep(3)\n"
"...     soup.set_result('leek')\n"
">>> async def main():\n"
"...     soup = sleeploop.Future(name='soup')\n"
"...     sleeploop.create_task(cook(soup))\n"
"...     print(soup)\n"
"...     print(await soup, 'at', sleeploop.current_time())\n"
"...     print(soup)\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"<Future 'soup' pending>\n"
"leek at 3.0\n"
"<Future 'soup' with result 'leek'>\n");

static PyMethodDef future_methods[] = {
    {"set_result", future_py_set_result, METH_O, future_set_result_doc},
    {"set_exception", future_py_set_exception, METH_O, future_set_exception_doc},
    {"cancel", (PyCFunction)(void (*)(void))future_py_cancel, METH_FASTCALL | METH_KEYWORDS,
     future_cancel_doc},
    {"result", future_py_result, METH_NOARGS, future_result_doc},
    {"exception", future_py_exception, METH_NOARGS, future_exception_doc},
    {"done", future_py_done, METH_NOARGS,
     PyDoc_STR("done($self, /)\n--\n\nWhether it has its outcome, in whichever way.")},
    {"cancelled", future_py_cancelled, METH_NOARGS,
     PyDoc_STR("cancelled($self, /)\n--\n\nWhether cancel() has been called before it had one.")},
    {"add_done_callback", (PyCFunction)(void (*)(void))future_py_add_done_callback,
     METH_FASTCALL | METH_KEYWORDS, future_add_done_callback_doc},
    {"remove_done_callback", future_py_remove_done_callback, METH_O,
     future_remove_done_callback_doc},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS,
     PyDoc_STR("Future[int], for type checkers.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef future_getset[] = {
    SYNC_GETTERS,
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef future_members[] = {
    SYNC_WEAKLIST,
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot future_slots[] = {
    {Py_tp_doc, (void *)future_type_doc},
    {Py_tp_new, future_tp_new},
    {Py_tp_dealloc, future_tp_dealloc},
    {Py_tp_finalize, future_tp_finalize},
    {Py_tp_traverse, future_tp_traverse},
    {Py_tp_clear, future_tp_clear},
    {Py_tp_repr, future_tp_repr},
    {Py_am_await, future_am_await},
    {Py_tp_methods, future_methods},
    {Py_tp_getset, future_getset},
    {Py_tp_members, future_members},
    {0, NULL},
};

static PyType_Spec future_spec = {
    .name = "sleeploop.Future",
    .basicsize = sizeof(FutureObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = future_slots,
};

#endif /* SLEEPLOOP_SYNC_FUTURE_H */
