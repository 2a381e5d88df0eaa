/* copies.h: how exceptions of the package are copied and pickled, whatever they hold.
 *
 * What an exception has as its arguments and attributes may be anything, also a task or a lock. So
 * that it does not get lost between two processes on their account, a copy shares what cannot be
 * copied, and in a pickle stands the repr() of what cannot be pickled: sleeploop/_copies.py.
 */
#ifndef SLEEPLOOP_CORE_COPIES_H
#define SLEEPLOOP_CORE_COPIES_H

#include "../base/compat.h"

/* sleeploop._copies.<function>(error, argument) */
static PyObject *
copies_call(const char *function, PyObject *error, PyObject *argument)
{
    PyObject *module = import_module("sleeploop._copies");
    PyObject *result =
        module != NULL ? PyObject_CallMethod(module, function, "OO", error, argument) : NULL;
    Py_XDECREF(module);
    return result;
}

/* memo: deepcopy()'s, or None for copy(). */
static PyObject *
error_copied(PyObject *error, PyObject *memo)
{
    return copies_call("copied", error, memo);
}

/* more: a tuple of what an exception knows beside its attributes, for its __setstate__(), or None. */
static PyObject *
error_reduced(PyObject *error, PyObject *more)
{
    return copies_call("reduced", error, more);
}

static PyObject *
error_py_copy(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return error_copied(op, Py_None);
}

static PyObject *
error_py_reduce(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return error_reduced(op, Py_None);
}

#define COPY_DOC PyDoc_STR("__copy__($self, /)\n--\n\nFor copy.copy().")
#define DEEPCOPY_DOC PyDoc_STR("__deepcopy__($self, memo, /)\n--\n\nFor copy.deepcopy().")
#define REDUCE_DOC PyDoc_STR("__reduce__($self, /)\n--\n\nFor pickle.")

/* What each has but CancelledError, which knows more than that. */
static PyMethodDef error_methods[] = {
    {"__copy__", error_py_copy, METH_NOARGS, COPY_DOC},
    {"__deepcopy__", error_copied, METH_O, DEEPCOPY_DOC},
    {"__reduce__", error_py_reduce, METH_NOARGS, REDUCE_DOC},
    {NULL, NULL, 0, NULL},
};

/* Gives them to a new type. 0, or -1 with an exception. */
static int
error_add_methods(PyTypeObject *type)
{
    for (PyMethodDef *method = error_methods; method->ml_name != NULL; method++) {
        PyObject *descr = PyDescr_NewMethod(type, method);
        int rc = descr != NULL ? PyObject_SetAttrString((PyObject *)type, method->ml_name, descr)
                               : -1;
        Py_XDECREF(descr);
        if (rc < 0) {
            return -1;
        }
    }
    return 0;
}

#endif /* SLEEPLOOP_CORE_COPIES_H */
