/* sequence.h: struct sequences, which stats() and the like return: tuples whose items have names.
 *
 * They tell their names as a namedtuple does, by `_fields` and `_asdict()`.
 */
#ifndef SLEEPLOOP_CORE_SEQUENCE_H
#define SLEEPLOOP_CORE_SEQUENCE_H

#include "../base/compat.h"

/* A struct sequence of these values, which it steals; NULL among them: an error is set. Python
 * leaves it to us to have the collector see it: a Preempted leads to a task. */
static PyObject *
struct_sequence_steal(PyTypeObject *type, PyObject **values, Py_ssize_t n)
{
    PyObject *result = PyStructSequence_New(type);
    for (Py_ssize_t i = 0; i < n; i++) {
        if (result == NULL || values[i] == NULL) {
            Py_CLEAR(result);
            Py_XDECREF(values[i]);
        }
        else {
            PyStructSequence_SetItem(result, i, values[i]);
        }
    }
    if (result != NULL && PyObject_IS_GC(result) && !PyObject_GC_IsTracked(result)) {
        PyObject_GC_Track(result);
    }
    return result;
}

static PyObject *
struct_sequence_asdict(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    PyObject *dict = PyDict_New();
    for (Py_ssize_t i = 0; dict != NULL && i < Py_SIZE(op); i++) {
        const char *name = Py_TYPE(op)->tp_members[i].name;
        if (PyDict_SetItemString(dict, name, PyStructSequence_GetItem(op, i)) < 0) {
            Py_CLEAR(dict);
        }
    }
    return dict;
}

static PyMethodDef struct_sequence_asdict_def = {
    "_asdict", struct_sequence_asdict, METH_NOARGS,
    PyDoc_STR("_asdict($self, /)\n--\n\nA new dict of the fields, by their names.")};

/* New type, all of whose fields have names; or NULL with an exception. */
static PyTypeObject *
struct_sequence_type_new(PyStructSequence_Desc *desc)
{
    PyTypeObject *type = PyStructSequence_NewType(desc);
    PyObject *method = type != NULL ? PyDescr_NewMethod(type, &struct_sequence_asdict_def) : NULL;
    PyObject *names = method != NULL ? PyTuple_New(desc->n_in_sequence) : NULL;
    int rc = names != NULL ? 0 : -1;
    for (int i = 0; rc == 0 && i < desc->n_in_sequence; i++) {
        PyObject *name = PyUnicode_FromString(desc->fields[i].name);
        rc = name != NULL ? PyTuple_SetItem(names, i, name) : -1;
    }
    if (rc < 0 || PyObject_SetAttrString((PyObject *)type, "_asdict", method) < 0
        || PyObject_SetAttrString((PyObject *)type, "_fields", names) < 0) {
        Py_CLEAR(type);
    }
    Py_XDECREF(names);
    Py_XDECREF(method);
    return type;
}

#endif /* SLEEPLOOP_CORE_SEQUENCE_H */
