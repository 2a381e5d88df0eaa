/* door.h: `async with` for which nothing has to be made.
 *
 * Two bound methods for each block, made and thrown away, would take longer than everything else
 * about an uncontended Lock. So its __aenter__ and __aexit__ are objects inside of it: no memory
 * of their own, and while somebody holds one, it holds the object around it.
 */
#ifndef SLEEPLOOP_DOOR_H
#define SLEEPLOOP_DOOR_H

#include "sync.h"

/* One way through: a callable without arguments (in), or with the three of __aexit__ (out). */
typedef struct {
    PyObject_HEAD  /* only valid while it is referred to */
    vectorcallfunc vectorcall;
    PyObject *of;  /* the object that it is inside of; owned while the door is referred to */
} DoorObject;

/* Its type is owned by the object that it is inside of, referred to or not. */
static inline void
door_init(ModuleState *state, DoorObject *door, PyObject *of, vectorcallfunc call)
{
    Py_SET_TYPE(door, (PyTypeObject *)Py_NewRef(state->DoorType));
    Py_SET_REFCNT(door, 0);
    door->vectorcall = call;
    door->of = of;
}

/* For that object's tp_traverse. The collector does not see what refers to a door, but that it does
 * refer to the object: who has a door is not collected. Before door_init() there is no type. */
static inline int
doors_traverse(const DoorObject *enter, const DoorObject *leave, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(enter));
    Py_VISIT(Py_TYPE(leave));
    return 0;
}

/* For its tp_dealloc. */
static inline void
doors_drop(DoorObject *enter, DoorObject *leave)
{
    Py_DECREF(Py_TYPE(enter));
    Py_DECREF(Py_TYPE(leave));
}

/* A new reference. */
static inline PyObject *
door_ref(DoorObject *door)
{
    if (Py_REFCNT(door) > 0) {
        return Py_NewRef(door);
    }
    Py_INCREF(door->of);
    compat_first_reference((PyObject *)door);
    return (PyObject *)door;
}

/* 0, or -1 with a TypeError. */
static inline int
door_check_args(const char *function, Py_ssize_t n_wanted, size_t n_args, PyObject *kwnames)
{
    if (PyVectorcall_NARGS(n_args) == n_wanted && kwnames == NULL) {
        return 0;
    }
    PyErr_Format(PyExc_TypeError, "%s takes %zd arguments", function, n_wanted);
    return -1;
}

/* Nobody refers to it any more; its memory is the object's, which may go now. */
static void
door_tp_dealloc(PyObject *op)
{
    Py_DECREF(((DoorObject *)op)->of);
}

static PyObject *
door_tp_repr(PyObject *op)
{
    return PyUnicode_FromFormat("<a method of %R>", ((DoorObject *)op)->of);
}

static PyMemberDef door_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(DoorObject, vectorcall), READONLY, NULL},
    {"__self__", T_OBJECT_EX, offsetof(DoorObject, of), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot door_slots[] = {
    {Py_tp_doc, (void *)"__aenter__ or __aexit__ of an object."},
    {Py_tp_dealloc, door_tp_dealloc},
    {Py_tp_repr, door_tp_repr},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, door_members},
    {0, NULL},
};

static PyType_Spec door_spec = {
    .name = "sleeploop.Door",
    .basicsize = sizeof(DoorObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE
             | Py_TPFLAGS_HAVE_VECTORCALL,
    .slots = door_slots,
};

/* ---- how a type has them --------------------------------------------------------------------- */

/* What stands in the type under the method's name. */
typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    newfunc of;      /* tp_new of the type, for comparison: the type may be gone */
    size_t offset;   /* of the DoorObject in its objects */
} DoorwayObject;

COLD static PyObject *
doorway_refuse(PyObject *obj)
{
    raise_about(PyExc_TypeError, "%s take an object of their type, not %U%s",
                "__aenter__() and __aexit__()", obj, "");
    return NULL;
}

static PyObject *
doorway_tp_descr_get(PyObject *op, PyObject *obj, PyObject *Py_UNUSED(type))
{
    DoorwayObject *self = (DoorwayObject *)op;
    if (obj == NULL) {
        return Py_NewRef(op);
    }
    if (Py_TYPE(obj)->tp_new != self->of) {
        return doorway_refuse(obj);
    }
    return door_ref((DoorObject *)((char *)obj + self->offset));
}

/* Type.__aenter__(object), as contextlib.AsyncExitStack has it. */
static PyObject *
doorway_vectorcall(PyObject *op, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    DoorwayObject *self = (DoorwayObject *)op;
    Py_ssize_t n = PyVectorcall_NARGS(nargsf);
    if (n < 1 || Py_TYPE(args[0])->tp_new != self->of) {
        return doorway_refuse(n < 1 ? Py_None : args[0]);
    }
    PyObject *bound = door_ref((DoorObject *)((char *)args[0] + self->offset));
    PyObject *result = PyObject_Vectorcall(bound, args + 1, (size_t)n - 1, kwnames);
    Py_DECREF(bound);
    return result;
}

static int
doorway_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    return 0;
}

static void
doorway_tp_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMemberDef doorway_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(DoorwayObject, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot doorway_slots[] = {
    {Py_tp_doc, (void *)"__aenter__ or __aexit__ of a type."},
    {Py_tp_dealloc, doorway_tp_dealloc},
    {Py_tp_traverse, doorway_tp_traverse},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_descr_get, doorway_tp_descr_get},
    {Py_tp_members, doorway_members},
    {0, NULL},
};

static PyType_Spec doorway_spec = {
    .name = "sleeploop.Doorway",
    .basicsize = sizeof(DoorwayObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_VECTORCALL,
    .slots = doorway_slots,
};

/* Gives a type, while the module is made, a method of that name. 0, or -1 with an exception. */
static int
doorway_add(ModuleState *state, PyTypeObject *type, const char *name, size_t offset)
{
    DoorwayObject *self = PyObject_GC_New(DoorwayObject, state->DoorwayType);
    if (self == NULL) {
        return -1;
    }
    self->vectorcall = doorway_vectorcall;
    self->of = type->tp_new;
    self->offset = offset;
    PyObject_GC_Track(self);
    int rc = PyDict_SetItemString(type->tp_dict, name, (PyObject *)self);
    PyType_Modified(type);
    Py_DECREF(self);
    return rc;
}

#endif /* SLEEPLOOP_DOOR_H */
