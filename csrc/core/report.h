/* report.h: where errors go that nobody is there to catch: to the run, or to the log.
 *
 * A run collects what it will raise in loop->errors; what cannot be raised is
 * logged by logging.getLogger("sleeploop"), and if even that fails it goes to
 * sys.unraisablehook. Nothing here raises.
 */
#ifndef SLEEPLOOP_CORE_REPORT_H
#define SLEEPLOOP_CORE_REPORT_H

#include "../base/compat.h"
#include "failure.h"
#include "loopobject.h"
#include "../poll/idle.h"

#define ERRORS_ROOM 4  /* so many can be noted even when memory has run out */

/* A list for what a run has failed with. The room is None, which failures_unpack() leaves out. */
static PyObject *
errors_new(void)
{
    PyObject *errors = PyList_New(ERRORS_ROOM);
    for (Py_ssize_t i = 0; errors != NULL && i < ERRORS_ROOM; i++) {
        PyList_SET_ITEM(errors, i, Py_NewRef(Py_None));
    }
    return errors;
}

/* Behind those that are in it. 0, or -1 with MemoryError. */
static int
errors_add(PyObject *errors, PyObject *failure)
{
    for (Py_ssize_t i = 0; i < ERRORS_ROOM && i < PyList_GET_SIZE(errors); i++) {
        if (PyList_GET_ITEM(errors, i) == Py_None) {
            return PyList_SetItem(errors, i, Py_NewRef(failure));
        }
    }
    return PyList_Append(errors, failure);
}

/* What came out of the logging is set: its handlers are the user's, and so is the repr() of what it
 * has put into words. Its errors are dropped, as logging itself does; what ends a run ends this one:
 * KeyboardInterrupt as Ctrl-C does. */
COLD static void
log_failed(LoopObject *loop)
{
    if (PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear();
        return;
    }
    PyObject *exc = PyErr_GetRaisedException();
    if (loop != NULL && loop->errors != NULL
        && PyErr_GivenExceptionMatches(exc, PyExc_KeyboardInterrupt)) {
        loop->abandoned = loop->abandoned || loop->interrupted;
        loop->interrupted = 1;
        if (loop->idling) {  /* a task has died in another thread */
            idle_wake(&loop->idle);
        }
    }
    else if (loop == NULL || loop->errors == NULL || errors_add(loop->errors, exc) < 0) {
        PyErr_SetRaisedException(Py_NewRef(exc));
        PyErr_WriteUnraisable(NULL);
    }
    Py_DECREF(exc);
}

/* Logs exc with its traceback, at a level: "error" or the like; `message` is a new reference that
 * is stolen, or NULL when making it failed. loop: whose run it is of, or NULL. Any exception that
 * is set stays as it is. */
static void
log_exception(LoopObject *loop, const char *level, PyObject *message_steal, PyObject *exc)
{
    PyObject *saved = NULL;
    if (message_steal == NULL) {
        PyErr_Clear();
    }
    else {
        saved = PyErr_GetRaisedException();
    }
    PyObject *logging = import_module("logging");
    PyObject *logger =
        logging != NULL ? PyObject_CallMethod(logging, "getLogger", "s", "sleeploop") : NULL;
    PyObject *log = logger != NULL ? PyObject_GetAttrString(logger, level) : NULL;
    PyObject *args = log != NULL && message_steal != NULL
                         ? Py_BuildValue("(sO)", "%s", message_steal)
                         : NULL;
    PyObject *kwargs = args != NULL ? Py_BuildValue("{sO}", "exc_info", exc) : NULL;
    PyObject *done = kwargs != NULL ? PyObject_Call(log, args, kwargs) : NULL;
    if (done == NULL) {
        if (PyErr_Occurred()) {
            log_failed(loop);
        }
        PyErr_SetRaisedException(Py_NewRef(exc));
        PyErr_WriteUnraisable(message_steal);
    }
    Py_XDECREF(done);
    Py_XDECREF(kwargs);
    Py_XDECREF(args);
    Py_XDECREF(log);
    Py_XDECREF(logger);
    Py_XDECREF(logging);
    Py_XDECREF(message_steal);
    PyErr_SetRaisedException(saved);
}

/* Notes a failure for the run to raise, a task that failed or an exception. */
static void
loop_record_error(LoopObject *loop, PyObject *failure)
{
    if (loop->errors != NULL) {
        if (errors_add(loop->errors, failure) == 0) {
            return;
        }
        PyErr_Clear();
        if (loop->unlisted == NULL) {  /* or else the run would seem to have gone well */
            loop->unlisted = Py_NewRef(failure);
            return;
        }
    }
    PyObject *exc = Py_XNewRef(failure_exception_borrowed(loop->state, failure));
    if (exc != NULL) {
        log_exception(loop, "error",
                      PyUnicode_FromString("an error that the run could not raise"), exc);
        Py_DECREF(exc);
    }
}

#endif /* SLEEPLOOP_CORE_REPORT_H */
