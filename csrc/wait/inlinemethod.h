/* inlinemethod.h: `__aenter__` and `__aexit__` as objects inside of a lock, so that `async with`
 * makes none.
 *
 * Two bound methods for each block, made and thrown away, would take longer than everything else
 * about an uncontended Lock. So its __aenter__ and __aexit__ are objects inside of it: no memory
 * of their own, and while somebody holds one, it holds the object around it.
 *
 * Such a part of an object is one itself only while somebody refers to it. At 0 references it is
 * memory of the object around it, which nobody else can reach: no list of objects has it, and the
 * collector never knows of it. The first reference makes an object of it, with what CPython counts
 * by, where it counts; the last one does nothing but drop the object around it. To have it made by
 * PyObject_Init() each time, in memory that is kept for it, takes 7 % more instructions a block.
 */
#ifndef SLEEPLOOP_WAIT_INLINEMETHOD_H
#define SLEEPLOOP_WAIT_INLINEMETHOD_H

#include "../base/compat.h"
#include "../core/args.h"
#include "../core/state.h"

/* A callable without arguments, __aenter__, or with the three of __aexit__. */
typedef struct {
    PyObject_HEAD  /* only valid while it is referred to */
    vectorcallfunc vectorcall;
    PyObject *of;  /* the object that it is inside of; owned while this one is referred to */
} InlineMethodObject;

/* Its type is owned by the object that it is inside of, referred to or not. */
static inline void
inline_method_init(ModuleState *state, InlineMethodObject *method, PyObject *of,
                   vectorcallfunc call)
{
    Py_SET_TYPE(method, (PyTypeObject *)Py_NewRef(state->InlineMethodType));
    Py_SET_REFCNT(method, 0);
    method->vectorcall = call;
    method->of = of;
}

/* For that object's tp_traverse. The collector does not see what refers to a method, but that it
 * does refer to the object: who has one is not collected. Before inline_method_init() there is no
 * type. */
static inline int
inline_methods_traverse(const InlineMethodObject *enter, const InlineMethodObject *leave,
                        visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(enter));
    Py_VISIT(Py_TYPE(leave));
    return 0;
}

/* For its tp_dealloc. */
static inline void
inline_methods_drop(InlineMethodObject *enter, InlineMethodObject *leave)
{
    Py_DECREF(Py_TYPE(enter));
    Py_DECREF(Py_TYPE(leave));
}

/* A new reference. */
static inline PyObject *
inline_method_ref(InlineMethodObject *method)
{
    if (Py_REFCNT(method) > 0) {
        return Py_NewRef(method);
    }
    Py_INCREF(method->of);
    compat_first_reference((PyObject *)method);
    return (PyObject *)method;
}

/* 0, or -1 with a TypeError. */
static inline int
inline_method_check_args(const char *function, Py_ssize_t n_wanted, size_t n_args,
                         PyObject *kwnames)
{
    if (PyVectorcall_NARGS(n_args) == n_wanted && kwnames == NULL) {
        return 0;
    }
    PyErr_Format(PyExc_TypeError, "%s takes %zd arguments", function, n_wanted);
    return -1;
}

/* Nobody refers to it any more; its memory is the object's, which may go now. */
static void
inline_method_tp_dealloc(PyObject *op)
{
    Py_DECREF(((InlineMethodObject *)op)->of);
}

static PyObject *
inline_method_tp_repr(PyObject *op)
{
    return PyUnicode_FromFormat("<a method of %R>", ((InlineMethodObject *)op)->of);
}

static PyMemberDef inline_method_members[] = {
    {"__vectorcalloffset__", Py_T_PYSSIZET, offsetof(InlineMethodObject, vectorcall), Py_READONLY,
     NULL},
    {"__self__", Py_T_OBJECT_EX, offsetof(InlineMethodObject, of), Py_READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot inline_method_slots[] = {
    {Py_tp_doc, (void *)"__aenter__ or __aexit__ of an object."},
    {Py_tp_dealloc, inline_method_tp_dealloc},
    {Py_tp_repr, inline_method_tp_repr},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, inline_method_members},
    {0, NULL},
};

static PyType_Spec inline_method_spec = {
    .name = "sleeploop.InlineMethod",
    .basicsize = sizeof(InlineMethodObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE
             | Py_TPFLAGS_HAVE_VECTORCALL,
    .slots = inline_method_slots,
};

/* ---- how a type has them --------------------------------------------------------------------- */

/* What stands in the type under the method's name. */
typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    PyTypeObject *of; /* owned */
    size_t offset;    /* of the method in its objects */
} InlineDescrObject;

static inline PyObject *
inline_descr_bind(InlineDescrObject *self, PyObject *obj)
{
    return inline_method_ref((InlineMethodObject *)((char *)obj + self->offset));
}

/* To an object of a subtype; or a TypeError. */
COLD static PyObject *
inline_descr_bind_other(InlineDescrObject *self, PyObject *obj)
{
    if (PyObject_TypeCheck(obj, self->of)) {
        return inline_descr_bind(self, obj);
    }
    raise_about(PyExc_TypeError, "%s take an object of their type, not %U%s",
                "__aenter__() and __aexit__()", obj, "");
    return NULL;
}

static PyObject *
inline_descr_tp_descr_get(PyObject *op, PyObject *obj, PyObject *Py_UNUSED(type))
{
    InlineDescrObject *self = (InlineDescrObject *)op;
    if (obj == NULL) {
        return Py_NewRef(op);
    }
    return Py_IS_TYPE(obj, self->of) ? inline_descr_bind(self, obj)
                                     : inline_descr_bind_other(self, obj);
}

/* Type.__aenter__(object), as contextlib.AsyncExitStack has it, and `async with` from 3.14 on. */
static PyObject *
inline_descr_vectorcall(PyObject *op, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    Py_ssize_t n = PyVectorcall_NARGS(nargsf);
    PyObject *bound = inline_descr_tp_descr_get(op, n > 0 ? args[0] : Py_None, NULL);
    if (bound == NULL) {
        return NULL;
    }
    PyObject *result = PyObject_Vectorcall(bound, args + 1, (size_t)n - 1, kwnames);
    Py_DECREF(bound);
    return result;
}

/* Nothing to clear: a cycle through it goes by its type's dict, as of CPython's own descriptors. */
static int
inline_descr_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((InlineDescrObject *)op)->of);
    return 0;
}

static void
inline_descr_tp_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    Py_DECREF(((InlineDescrObject *)op)->of);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMemberDef inline_descr_members[] = {
    {"__vectorcalloffset__", Py_T_PYSSIZET, offsetof(InlineDescrObject, vectorcall), Py_READONLY,
     NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot inline_descr_slots[] = {
    {Py_tp_doc, (void *)"__aenter__ or __aexit__ of a type."},
    {Py_tp_dealloc, inline_descr_tp_dealloc},
    {Py_tp_traverse, inline_descr_tp_traverse},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_descr_get, inline_descr_tp_descr_get},
    {Py_tp_members, inline_descr_members},
    {0, NULL},
};

/* METHOD_DESCRIPTOR: whoever only wants to call it may leave out the binding, as `async with` does
 * from 3.14 on. */
static PyType_Spec inline_descr_spec = {
    .name = "sleeploop.InlineMethodDescriptor",
    .basicsize = sizeof(InlineDescrObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR,
    .slots = inline_descr_slots,
};

/* Gives a type that is not immutable yet a method of that name. 0, or -1 with an exception. */
static int
inline_descr_add(ModuleState *state, PyTypeObject *type, const char *name, size_t offset)
{
    InlineDescrObject *self = PyObject_GC_New(InlineDescrObject, state->InlineDescrType);
    if (self == NULL) {
        return -1;
    }
    self->vectorcall = inline_descr_vectorcall;
    self->of = (PyTypeObject *)Py_NewRef(type);
    self->offset = offset;
    PyObject_GC_Track(self);
    int rc = PyObject_SetAttrString((PyObject *)type, name, (PyObject *)self);
    Py_DECREF(self);
    return rc;
}

#endif /* SLEEPLOOP_WAIT_INLINEMETHOD_H */
