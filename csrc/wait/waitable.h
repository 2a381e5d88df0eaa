/* waitable.h: what all objects have in common that tasks wait at: a name, counts, a description;
 * and how their waits are granted or refused.
 */
#ifndef SLEEPLOOP_WAIT_WAITABLE_H
#define SLEEPLOOP_WAIT_WAITABLE_H

#include "../base/compat.h"
#include "../core/args.h"
#include "../core/loopobject.h"
#include "../core/ready.h"
#include "../poll/idle.h"
#include "waitlist.h"

/* ---- made and freed -------------------------------------------------------------------------- */

/* name=: NULL for None. A new reference to an exact str; 0, or -1 with a TypeError. */
static int
sync_name_from_object(const char *function, PyObject *obj, PyObject **name)
{
    *name = NULL;
    if (obj == NULL || obj == Py_None) {
        return 0;
    }
    if (!PyUnicode_Check(obj)) {
        raise_about(PyExc_TypeError, "%s: name must be a str, not %U%s", function, obj, "");
        return -1;
    }
    *name = PyUnicode_FromObject(obj);
    return *name != NULL ? 0 : -1;
}

#define COUNT_UNLIMITED (-1)

enum count_kind { COUNT_INT, COUNT_OR_INF, COUNT_OR_0 };

COLD static void
raise_about_count(PyObject *type, const char *function, const char *what, const char *wanted,
                  PyObject *obj)
{
    PyObject *text = describe(obj);
    if (text != NULL) {
        PyErr_Format(type, "%s: %s must be %s, not %U", function, what, wanted, text);
        Py_DECREF(text);
    }
}

/* How many there are of something, or can be: an int, `least` (0 or 1) or more, that fits; and
 * COUNT_UNLIMITED for math.inf, if that is allowed. COUNT_OR_0: 0 is said to mean no limit. 0, or
 * -1 with a TypeError or ValueError. Beware: runs the object's __index__(). */
static int
sync_count_from_object(const char *function, const char *what, PyObject *obj, int64_t least,
                       enum count_kind kind, int64_t *count)
{
    if (kind == COUNT_OR_INF && PyFloat_Check(obj) && PyFloat_AS_DOUBLE(obj) == Py_HUGE_VAL) {
        *count = COUNT_UNLIMITED;
        return 0;
    }
    if (!PyIndex_Check(obj)) {
        static const char *const wanted[] = {
            [COUNT_INT] = "an int",
            [COUNT_OR_INF] = "an int or math.inf",
            [COUNT_OR_0] = "an int, 0 for no limit",
        };
        raise_about_count(PyExc_TypeError, function, what, wanted[kind], obj);
        return -1;
    }
    PyObject *number = PyNumber_Index(obj);
    if (number == NULL) {
        return -1;
    }
    int overflow;
    *count = PyLong_AsLongLongAndOverflow(number, &overflow);
    int is_wrong = overflow != 0 || *count < least;
    if (is_wrong) {
        raise_about_count(PyExc_ValueError, function, what,
                          overflow > 0 ? "less than 2**63" : least > 0 ? "1 or more" : "0 or more",
                          number);
    }
    Py_DECREF(number);
    return is_wrong ? -1 : 0;
}

/* A count for which there is room in memory; SIZE_MAX: there is no limit. */
static inline size_t
count_as_size(int64_t count)
{
    return (uint64_t)count < PY_SSIZE_T_MAX ? (size_t)count : SIZE_MAX;
}

/* And back, as people see it: a new int, or math.inf. */
static PyObject *
count_object(int64_t count)
{
    return count == COUNT_UNLIMITED ? PyFloat_FromDouble(Py_HUGE_VAL)
                                    : PyLong_FromLongLong(count);
}

/* A new object of a type whose struct begins with SYNC_HEAD; the rest of it is zero, its places
 * have yet to be initialised. name: borrowed, what the type was called with, or NULL. */
static PyObject *
sync_new(const char *function, PyTypeObject *type, PyObject *name)
{
    PyObject *text;
    if (sync_name_from_object(function, name, &text) < 0) {
        return NULL;
    }
    PyObject *op = type->tp_alloc(type, 0);
    if (op == NULL) {
        Py_XDECREF(text);
        return NULL;
    }
    ((SyncObject *)op)->name = text;
    return op;
}

/* The beginning of tp_dealloc. */
static void
sync_dies(PyObject *op)
{
    PyObject_GC_UnTrack(op);
    assert(((SyncObject *)op)->parked == 0);  /* whoever waits holds it */
    if (((SyncObject *)op)->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
}

/* Its end, when whatever is the type's own has been dropped. */
static void
sync_free(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    Py_CLEAR(((SyncObject *)op)->name);
    type->tp_free(op);
    Py_DECREF(type);
}

/* Of a type that owns nothing else. */
static void
sync_tp_dealloc(PyObject *op)
{
    sync_dies(op);
    sync_free(op);
}

/* Likewise. It cannot be part of a cycle but by its type, which leads to the module and all that is
 * in it; that is why it is collected at all, and why there is no tp_clear. */
static int
sync_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    return 0;
}

/* ---- woken ----------------------------------------------------------------------------------- */

/* Ends a parked wait. */
static inline void
wait_end(WaitObject *wait, enum wait_outcome outcome)
{
    LoopObject *loop = wait->task->loop;
    wait->outcome = (uint8_t)outcome;
    loop_wake(loop, wait->task);
    if (loop->idling) {  /* another thread does it: a coroutine that had a lock was collected there */
        idle_wake(&loop->idle);
    }
}

/* What the parked wait waits for is its task's from now on. */
static inline void
wait_grant(WaitObject *wait)
{
    wait_end(wait, WAIT_GRANTED);
}

/* Likewise for all who stand in the list now. */
static void
waitlist_grant_all(struct waitlist *waitlist)
{
    WaitObject *wait;
    while ((wait = waitlist_first(waitlist)) != NULL) {
        wait_grant(wait);
    }
}

/* The parked wait comes to an error, which result() of its kind raises. */
static inline void
wait_refuse(WaitObject *wait)
{
    wait_end(wait, WAIT_REFUSED);
}

/* Likewise for all who stand in the list now; phase: tells result() why. */
static void
waitlist_refuse_all(struct waitlist *waitlist, uint8_t phase)
{
    WaitObject *wait;
    while ((wait = waitlist_first(waitlist)) != NULL) {
        wait->phase = phase;
        wait_refuse(wait);
    }
}

/* The parked wait comes to that exception, raised at its await. Steals exc. Beware: drops what the
 * wait was for, which may run Python. */
static void
wait_fail_steal(WaitObject *wait, PyObject *exc_steal)
{
    PyObject *old = wait->value;
    wait->value = exc_steal;
    wait_end(wait, WAIT_FAILED);
    Py_XDECREF(old);
}

/* The result() of a kind whose await comes to True, as asyncio's do. */
static PyObject *
wait_result_true(WaitObject *Py_UNUSED(wait))
{
    Py_RETURN_TRUE;
}

/* Raises `type` with what the object is like. Steals what, which describes it, or passes its error
 * on. */
COLD static void
raise_what_steal(PyObject *type, const char *function, PyObject *what_steal)
{
    if (what_steal != NULL) {
        PyErr_Format(type, "%s: %U", function, what_steal);
        Py_DECREF(what_steal);
    }
}

/* It cannot be had at once; type: WouldBlock, or a kind of it. As raise_what_steal(). */
COLD static void
raise_would_block_steal(PyObject *type, const char *function, PyObject *what_steal)
{
    if (what_steal != NULL) {
        PyErr_Format(type, "%s would have to wait: %U", function, what_steal);
        Py_DECREF(what_steal);
    }
}

/* ---- described ------------------------------------------------------------------------------- */

#define HOLDERS_SHOWN 3  /* of those who have something, so many are named, and the others counted */

/* New str: "Lock 'db'", or "Lock" if it has no name. */
static PyObject *
sync_title(PyObject *op)
{
    PyObject *type = PyType_GetName(Py_TYPE(op));
    PyObject *name = ((SyncObject *)op)->name;
    if (type != NULL && name != NULL) {
        Py_SETREF(type, PyUnicode_FromFormat("%U %R", type, name));
    }
    return type;
}

/* New float, for people: seconds, to the millisecond. */
static PyObject *
seconds_rounded(int64_t ns)
{
    return PyFloat_FromDouble(nearbyint((double)ns / 1e6) / 1e3);
}

/* New str: "<Lock 'db' held by ..., 2 waiting>". Steals what, or passes its error on. */
static PyObject *
sync_repr_steal(PyObject *op, PyObject *what_steal)
{
    if (what_steal == NULL) {
        return NULL;
    }
    size_t n = ((SyncObject *)op)->parked;
    PyObject *text = n > 0 ? PyUnicode_FromFormat("<%U, %zu waiting>", what_steal, n)
                           : PyUnicode_FromFormat("<%U>", what_steal);
    Py_DECREF(what_steal);
    return text;
}

/* ---- parts of types -------------------------------------------------------------------------- */

static PyObject *
sync_get_name(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *name = ((SyncObject *)op)->name;
    return Py_NewRef(name != NULL ? name : Py_None);
}

static PyObject *
sync_get_n_waiting(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(((SyncObject *)op)->parked);
}

#define SYNC_GETTERS                                                                           \
    {"name", sync_get_name, NULL, PyDoc_STR("The name it was given, a str, or None."), NULL},  \
    {"n_waiting", sync_get_n_waiting, NULL, PyDoc_STR("How many tasks wait at it now."), NULL}

#define SYNC_WEAKLIST                                                                          \
    {"__weaklistoffset__", Py_T_PYSSIZET, offsetof(SyncObject, weakrefs), Py_READONLY, NULL}

#endif /* SLEEPLOOP_WAIT_WAITABLE_H */
