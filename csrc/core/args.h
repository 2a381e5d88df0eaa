/* args.h: between Python's values and C's, with errors that name the value. */
#ifndef SLEEPLOOP_CORE_ARGS_H
#define SLEEPLOOP_CORE_ARGS_H

#include "../base/clock.h"
#include "../base/compat.h"
#include "state.h"

/* repr(obj) for an error message: cut short, and without an error of its own. New reference, or
 * NULL with what is nobody's to swallow: Ctrl-C and its like, or no memory or stack is left. */
static PyObject *
describe(PyObject *obj)
{
    PyObject *text = PyUnicode_FromFormat("%.200R", obj);
    if (text == NULL && PyErr_ExceptionMatches(PyExc_Exception)
        && !PyErr_ExceptionMatches(PyExc_MemoryError)
        && !PyErr_ExceptionMatches(PyExc_RecursionError)) {
        PyErr_Clear();
        text = PyUnicode_FromFormat("<%.100s object>", Py_TYPE(obj)->tp_name);
    }
    return text;
}

/* Raises `type`, in place of what may be set; format takes the function's name (%s),
 * the object (%U) and tail (%s). */
static void
raise_about(PyObject *type, const char *format, const char *function, PyObject *obj,
            const char *tail)
{
    PyErr_Clear();  /* a repr may run Python */
    PyObject *text = describe(obj);
    if (text != NULL) {
        PyErr_Format(type, format, function, text, tail);
        Py_DECREF(text);
    }
}

static int
need_type(const char *function, PyTypeObject *type, PyObject *obj)
{
    if (!PyObject_TypeCheck(obj, type)) {
        raise_about(PyExc_TypeError, "%s cannot take %U%s", function, obj, "");
        return -1;
    }
    return 0;
}

/* Parses METH_FASTCALL | METH_KEYWORDS arguments. names lists the parameters,
 * NULL at the end; the first n_positional may be given by position, the first
 * n_required must be given. Fills out[] with borrowed references, NULL where an
 * argument is missing. 0, or -1 with a TypeError. */
static int
args_parse(const char *function, const char *const *names, Py_ssize_t n_positional,
           Py_ssize_t n_required, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames,
           PyObject **out)
{
    if (n_args > n_positional) {
        PyErr_Format(PyExc_TypeError, "%s takes %zd positional argument%s but %zd were given",
                     function, n_positional, n_positional == 1 ? "" : "s", n_args);
        return -1;
    }
    Py_ssize_t n_names = 0;
    for (; names[n_names] != NULL; n_names++) {
        out[n_names] = n_names < n_args ? args[n_names] : NULL;
    }
    Py_ssize_t n_kwargs = kwnames != NULL ? PyTuple_GET_SIZE(kwnames) : 0;
    for (Py_ssize_t k = 0; k < n_kwargs; k++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, k);
        Py_ssize_t i = 0;
        while (i < n_names && PyUnicode_CompareWithASCIIString(name, names[i]) != 0) {
            i++;
        }
        if (i == n_names) {
            PyErr_Format(PyExc_TypeError, "%s got an unexpected keyword argument %R", function,
                         name);
            return -1;
        }
        if (out[i] != NULL) {
            PyErr_Format(PyExc_TypeError, "%s got multiple values for argument '%s'", function,
                         names[i]);
            return -1;
        }
        out[i] = args[n_args + k];
    }
    for (Py_ssize_t i = 0; i < n_required; i++) {
        if (out[i] == NULL) {
            PyErr_Format(PyExc_TypeError, "%s is missing the argument '%s'", function, names[i]);
            return -1;
        }
    }
    return 0;
}

/* The nearest nanosecond; what lies outside of int64 becomes TIME_FOREVER, or
 * -TIME_FOREVER. A positive time never becomes zero. -1 and ValueError for nan. */
static inline int
ns_from_double(const char *function, double seconds, int64_t *ns)
{
    if (isnan(seconds)) {
        PyErr_Format(PyExc_ValueError, "%s: the time must be a number, not nan", function);
        return -1;
    }
    /* Whole seconds and the fraction are both exact; their product by 1e9 would not be. */
    double whole = floor(seconds);
    if (whole >= (double)(TIME_FOREVER / NS_PER_SEC)) {
        *ns = TIME_FOREVER;
    }
    else if (whole <= -(double)(TIME_FOREVER / NS_PER_SEC)) {
        *ns = -TIME_FOREVER;
    }
    else {
        *ns = (int64_t)whole * NS_PER_SEC + (int64_t)nearbyint((seconds - whole) * 1e9);
        if (*ns == 0 && seconds > 0) {
            *ns = 1;
        }
    }
    return 0;
}

/* A number as a C double; an int that is too large becomes inf. 0, or -1 with a TypeError. */
static int
number_from_object(const char *what, PyObject *obj, double *number)
{
    PyNumberMethods *methods = Py_TYPE(obj)->tp_as_number;
    if (methods == NULL || (methods->nb_float == NULL && methods->nb_index == NULL)) {
        raise_about(PyExc_TypeError, "%s must be a number, not %U%s", what, obj, "");
        return -1;
    }
    *number = PyFloat_AsDouble(obj);
    if (*number == -1.0 && PyErr_Occurred()) {
        if (!PyLong_Check(obj) || !PyErr_ExceptionMatches(PyExc_OverflowError)) {
            return -1;
        }
        PyErr_Clear();
        int overflow;
        (void)PyLong_AsLongAndOverflow(obj, &overflow);
        *number = overflow * Py_HUGE_VAL;
    }
    return 0;
}

static PyObject *
seconds_object(int64_t ns)
{
    return PyFloat_FromDouble((double)ns / 1e9);
}

/* A moment of loop time: inf if the clock ends before that. */
static PyObject *
moment_object(int64_t ns)
{
    return ns > TIME_END ? PyFloat_FromDouble(Py_HUGE_VAL) : seconds_object(ns);
}

static inline int
ns_from_int(PyObject *number, int64_t *ns)
{
    int overflow;
    long long seconds = PyLong_AsLongLongAndOverflow(number, &overflow);
    if (seconds == -1 && !overflow && PyErr_Occurred()) {
        return -1;
    }
    const int64_t limit = TIME_FOREVER / NS_PER_SEC;
    if (overflow > 0 || (!overflow && seconds >= limit)) {
        *ns = TIME_FOREVER;
    }
    else if (overflow < 0 || seconds <= -limit) {
        *ns = -TIME_FOREVER;
    }
    else {
        *ns = seconds * NS_PER_SEC;
    }
    return 0;
}

/* As below, of what is neither exactly a float nor an int. */
static int
ns_from_other(const char *function, PyObject *number, int64_t *ns, int *is_number)
{
    PyNumberMethods *methods = Py_TYPE(number)->tp_as_number;
    if (methods != NULL && methods->nb_float != NULL) {
        double seconds = PyFloat_AsDouble(number);
        if (seconds == -1.0 && PyErr_Occurred()) {
            return -1;
        }
        return ns_from_double(function, seconds, ns);
    }
    if (PyIndex_Check(number)) {
        PyObject *index = PyNumber_Index(number);
        if (index == NULL) {
            return -1;
        }
        int rc = ns_from_int(index, ns);
        Py_DECREF(index);
        return rc;
    }
    *is_number = 0;
    return 0;
}

/* A number of seconds: int, float, or anything with __index__ or __float__.
 * *is_number is 0, and 0 is returned, if the object is nothing of the kind. */
static HOT int
ns_from_number(const char *function, PyObject *number, int64_t *ns, int *is_number)
{
    *is_number = 1;
    if (PyFloat_CheckExact(number)) {
        return ns_from_double(function, PyFloat_AS_DOUBLE(number), ns);
    }
    if (PyLong_Check(number)) {
        return ns_from_int(number, ns);
    }
    return ns_from_other(function, number, ns, is_number);
}

/* New str: "Lock.acquire" for "Lock.acquire()". */
static PyObject *
qualname_of_function(const char *function)
{
    size_t n = strlen(function);
    if (n > 2 && strcmp(function + n - 2, "()") == 0) {
        n -= 2;
    }
    return PyUnicode_FromStringAndSize(function, (Py_ssize_t)n);
}

/* New str: "acquire" for the same. */
static PyObject *
name_of_function(const char *function)
{
    const char *dot = strrchr(function, '.');
    return qualname_of_function(dot != NULL ? dot + 1 : function);
}

static void
not_a_coroutine(const char *function, PyObject *obj)
{
    const char *hint = "";
    if (PyFunction_Check(obj) || PyMethod_Check(obj) || PyCFunction_Check(obj)) {
        hint = "; call it first, f() instead of f";
    }
    else if (PyAsyncGen_CheckExact(obj)) {
        hint = "; an async generator is iterated with 'async for' inside a coroutine";
    }
    else if (Py_TYPE(obj)->tp_as_async != NULL && Py_TYPE(obj)->tp_as_async->am_await != NULL) {
        hint = "; await it inside an 'async def' function instead";
    }
    raise_about(PyExc_TypeError, "%s takes a coroutine, not %U%s", function, obj, hint);
}

/* A coroutine that can still be started: native, a generator, or anything with
 * send, throw and close. 0, or -1 with TypeError or RuntimeError. */
static int
check_coroutine(ModuleState *state, const char *function, PyObject *coro)
{
    if (PyCoro_CheckExact(coro) || PyGen_CheckExact(coro)) {
        int how_far = compat_coro_state(coro);
        if (how_far <= CORO_NEW) {
            return how_far < 0 ? -1 : 0;
        }
        const char *why = how_far == CORO_FINISHED  ? "has already finished"
                          : how_far == CORO_RUNNING ? "is running"
                                                    : "was already started elsewhere";
        raise_about(PyExc_RuntimeError,
                    "%s takes a coroutine that has not been started, but %U %s", function, coro,
                    why);
        return -1;
    }
    PyObject *names[] = {state->str_send, state->str_throw, state->str_close};
    int found = !PyType_Check(coro);
    for (size_t i = 0; found && i < Py_ARRAY_LENGTH(names); i++) {
        PyObject *method;
        found = PyObject_GetOptionalAttr(coro, names[i], &method);
        if (found < 0) {
            return -1;
        }
        Py_XDECREF(method);
    }
    if (!found) {
        not_a_coroutine(function, coro);
        return -1;
    }
    return 0;
}

#define SPEED_MUST "speed must be a positive number or math.inf"

/* Judges what came of reading a speed from obj: 0, or -1 with an exception set. must: "speed must be a
 * positive number or math.inf". */
static int
speed_check(const char *must, PyObject *obj, double speed, int may_be_zero)
{
    PyObject *error = NULL;
    if (speed == -1.0 && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_TypeError)) {
            error = PyExc_TypeError;
        }
        else if (PyErr_ExceptionMatches(PyExc_OverflowError)  /* 10**400 */
                 || (PyUnicode_Check(obj) && PyErr_ExceptionMatches(PyExc_ValueError))) {
            error = PyExc_ValueError;
        }
        else {
            return -1;
        }
    }
    else if (!(speed > 0) && !(may_be_zero && speed == 0)) {  /* nan as well */
        error = PyExc_ValueError;
    }
    if (error != NULL) {
        raise_about(error, "%s, not %U%s", must, obj, may_be_zero ? "; 0 pauses" : "");
    }
    return error == NULL ? 0 : -1;
}

/* speed=: positive, inf allowed. NULL or None: the environment's SLEEPLOOP_SPEED, else 1. */
static int
speed_from_object(PyObject *obj, double *speed)
{
    if (obj != NULL && obj != Py_None) {
        *speed = PyFloat_AsDouble(obj);
        return speed_check(SPEED_MUST, obj, *speed, 0);
    }
    PyObject *os = import_module("os");
    PyObject *variables = os != NULL ? PyObject_GetAttrString(os, "environ") : NULL;
    PyObject *text = variables != NULL
                         ? PyObject_CallMethod(variables, "get", "ss", "SLEEPLOOP_SPEED", "")
                         : NULL;
    Py_XDECREF(variables);
    Py_XDECREF(os);
    if (text == NULL) {
        return -1;
    }
    int rc = 0;
    *speed = 1.0;
    if (PyUnicode_Check(text) && PyUnicode_GET_LENGTH(text) > 0) {
        PyObject *number = PyFloat_FromString(text);
        *speed = number != NULL ? PyFloat_AS_DOUBLE(number) : -1.0;
        Py_XDECREF(number);
        rc = speed_check("the environment variable SLEEPLOOP_SPEED must be a positive number or inf",
                         text, *speed, 0);
    }
    Py_DECREF(text);
    return rc;
}

/* debug=: true or false. NULL or None: the environment's SLEEPLOOP_DEBUG, else false. */
static int
debug_from_object(PyObject *obj, int *debug)
{
    if (obj != NULL && obj != Py_None) {
        *debug = PyObject_IsTrue(obj);
        return *debug < 0 ? -1 : 0;
    }
    const char *text = getenv("SLEEPLOOP_DEBUG");
    if (text == NULL || text[0] == '\0' || strcmp(text, "0") == 0) {
        *debug = 0;
        return 0;
    }
    if (strcmp(text, "1") != 0) {
        PyErr_Format(PyExc_ValueError,
                     "the environment variable SLEEPLOOP_DEBUG must be 0 or 1, not '%.100s'", text);
        return -1;
    }
    *debug = 1;
    return 0;
}

#endif /* SLEEPLOOP_CORE_ARGS_H */
