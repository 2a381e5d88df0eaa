/* compat.h: one C API for every CPython that is supported.
 *
 * The only file that may ask for PY_VERSION_HEX. Everything else is written
 * against the newest names; what an older version lacks is defined here.
 *
 * What is CPython's own and documented nowhere, or as subject to change, is used here and where
 * this says, and was looked up in the headers of the versions named; a new version means to look
 * again.
 *
 *   PyThreadState.id                                here                             3.11 to 3.15
 *   .cframe->current_frame (3.12), .current_frame   here: compat_running_code()      3.12, 3.13
 *   PyUnstable_InterpreterFrame_GetCode, _GetLasti  likewise                         3.12, 3.13
 *   PyCodeObject._co_firsttraceable                 likewise                         3.12, 3.13
 *   PyGenObject.gi_frame_state and its values       here: compat_coro_state()        3.11 to 3.13
 *   _Py_NewReference(), where references are
 *     counted or traced; and that a reference
 *     count of 0 can be set, and set to 1           here, inlinemethod.h             3.11 to 3.15
 *   a type's tp_flags, written before it is used    here: PyType_Freeze();           3.11 to 3.13
 *     BASETYPE is taken away                        finish_types()                   3.11 to 3.15
 *   PyStopIterationObject.value                     stopiteration.h, task.h          3.11 to 3.15
 *   PyBaseExceptionObject and its args, traceback,
 *     context; a struct that begins with one        cancelled.h, failure.h,
 *                                                   interrupt.h                      3.11 to 3.15
 *   tp_members of a struct sequence's type          sequence.h                       3.11 to 3.15
 *   slots that a type of CPython fills in:
 *     those of BaseException                        cancelled.h                      3.11 to 3.15
 */
#ifndef SLEEPLOOP_BASE_COMPAT_H
#define SLEEPLOOP_BASE_COMPAT_H

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>
#include <stddef.h>
#include <stdint.h>

/* Rarely called from a place that is hot: kept out of its code. */
#define COLD __attribute__((cold, noinline))

/* In every sleep: made part of its caller even where the compiler thinks that it is too large. */
#define HOT inline __attribute__((always_inline))

#if PY_VERSION_HEX < 0x030B0000
#error "sleeploop needs CPython 3.11 or newer"
#endif

/* What PyThreadState_GetID() tells, without a call. */
static inline uint64_t
compat_tstate_id(const PyThreadState *tstate)
{
    return tstate->id;
}

/* The first reference to an object that is a part of another one, with no memory of its own: for
 * _Py_NewReference() it would have to be a new block, of which tracemalloc may know. */
static inline void
compat_first_reference(PyObject *op)
{
#if defined(Py_REF_DEBUG) || defined(Py_TRACE_REFS)
    _Py_NewReference(op);  /* counts */
#else
    Py_SET_REFCNT(op, 1);
#endif
}

/* The module of that full name, a new reference. The one way in which anything here is imported:
 * PyImport_ImportModule() asks the builtins of the Python code that happens to be running for
 * `__import__`, and code may have builtins of its own, as a namedtuple's __new__ has, in the middle
 * of which a collection may end a task. */
static PyObject *
import_module(const char *full_name)
{
    PyObject *name = PyUnicode_FromString(full_name);
    /* What this returns is the package of a module in one. */
    PyObject *top = name != NULL ? PyImport_ImportModuleLevelObject(name, NULL, NULL, NULL, 0)
                                 : NULL;
    PyObject *module = top != NULL ? PyImport_GetModule(name) : NULL;
    if (top != NULL && module == NULL && !PyErr_Occurred()) {
        PyErr_Format(PyExc_ImportError, "%U is not in sys.modules", name);
    }
    Py_XDECREF(top);
    Py_XDECREF(name);
    return module;
}

#if PY_VERSION_HEX < 0x030C0000
#include <structmember.h>
#define Py_T_DOUBLE T_DOUBLE
#define Py_T_STRING T_STRING
#define Py_T_OBJECT_EX T_OBJECT_EX
#define Py_T_PYSSIZET T_PYSSIZET
#define Py_READONLY READONLY

/* Returns a new reference to the raised exception, normalised and with its
 * traceback attached, and clears the error indicator; NULL if there is none. */
static inline PyObject *
PyErr_GetRaisedException(void)
{
    PyObject *type, *value, *tb;
    PyErr_Fetch(&type, &value, &tb);
    if (type == NULL) {
        return NULL;
    }
    PyErr_NormalizeException(&type, &value, &tb);
    if (tb != NULL) {
        PyException_SetTraceback(value, tb);
    }
    Py_DECREF(type);
    Py_XDECREF(tb);
    return value;
}

/* Steals exc, which may be NULL. */
static inline void
PyErr_SetRaisedException(PyObject *exc)
{
    if (exc == NULL) {
        PyErr_Clear();
        return;
    }
    PyErr_Restore(Py_NewRef(Py_TYPE(exc)), exc, PyException_GetTraceback(exc));
}
#endif

#if PY_VERSION_HEX < 0x030D0000
/* 1 and a new reference, 0 and NULL if there is no such attribute, -1 on error. */
static inline int
PyObject_GetOptionalAttr(PyObject *obj, PyObject *name, PyObject **result)
{
    *result = PyObject_GetAttr(obj, name);
    if (*result != NULL) {
        return 1;
    }
    if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
        return -1;
    }
    PyErr_Clear();
    return 0;
}

/* 1 and a new reference, or 0 and NULL when the referent is gone. */
static inline int
PyWeakref_GetRef(PyObject *ref, PyObject **result)
{
    PyObject *obj = PyWeakref_GetObject(ref);  /* borrowed; None when dead */
    *result = obj == Py_None ? NULL : Py_NewRef(obj);
    return *result != NULL;
}
#endif

#if PY_VERSION_HEX < 0x030D0000
/* Declared, but not exported before 3.13. Never fails: an fd that the signal module
 * refuses (the former one may have been closed meanwhile) leaves none set. */
static int
compat_set_wakeup_fd(int fd)
{
    int old = -1;
    PyObject *signal = import_module("signal");
    PyObject *result =
        signal != NULL ? PyObject_CallMethod(signal, "set_wakeup_fd", "i", fd) : NULL;
    if (result != NULL) {
        old = (int)PyLong_AsLong(result);
        Py_DECREF(result);
    }
    Py_XDECREF(signal);
    PyErr_Clear();
    return result == NULL && fd != -1 ? compat_set_wakeup_fd(-1) : old;
}
#else
#define compat_set_wakeup_fd PySignal_SetWakeupFd
#endif

#if PY_VERSION_HEX < 0x030E0000
/* Makes a type immutable of which nothing has been made yet, and whose bases are immutable: 0, or
 * -1 with an exception. What 3.14 does, too, but for its look at the bases. */
static inline int
PyType_Freeze(PyTypeObject *type)
{
    type->tp_flags |= Py_TPFLAGS_IMMUTABLETYPE;
    PyType_Modified(type);
    return 0;
}
#endif

/* How far a native coroutine or generator has come. */
enum coro_state { CORO_NEW, CORO_SUSPENDED, CORO_RUNNING, CORO_FINISHED };

#if PY_VERSION_HEX < 0x030E0000

#if PY_VERSION_HEX < 0x030D0000
#define COMPAT_FRAME_CREATED (-2)
#else
#define COMPAT_FRAME_CREATED (-3)
#endif

/* op is an exact coroutine or generator. Reading the frame's state costs
 * nothing; asking for cr_frame would create a frame object for each task. */
static inline int
compat_coro_state(PyObject *op)
{
    int8_t state = ((PyGenObject *)op)->gi_frame_state;
    if (state > 0) {
        return CORO_FINISHED;
    }
    if (state == 0) {
        return CORO_RUNNING;
    }
    return state == COMPAT_FRAME_CREATED ? CORO_NEW : CORO_SUSPENDED;
}

#elif PY_VERSION_HEX < 0x030F0000

/* 1: the attribute, of a coroutine or of a generator, is what is wanted; 0: it is not; -1 with an
 * exception set on error. */
static inline int
compat_coro_says(PyObject *op, const char *coro, const char *gen, PyObject *wanted)
{
    PyObject *answer = PyObject_GetAttrString(op, PyCoro_CheckExact(op) ? coro : gen);
    Py_XDECREF(answer);
    return answer == NULL ? -1 : answer == wanted;
}

/* The struct is opaque from 3.14 on; -1 with an exception set on error. Beware: audit hooks are
 * asked for the frame of one that neither runs nor is suspended. */
static inline int
compat_coro_state(PyObject *op)
{
    int yes = compat_coro_says(op, "cr_running", "gi_running", Py_True);
    if (yes != 0) {
        return yes < 0 ? -1 : CORO_RUNNING;
    }
    yes = compat_coro_says(op, "cr_suspended", "gi_suspended", Py_True);
    if (yes != 0) {
        return yes < 0 ? -1 : CORO_SUSPENDED;
    }
    yes = compat_coro_says(op, "cr_frame", "gi_frame", Py_None);
    return yes < 0 ? -1 : yes ? CORO_FINISHED : CORO_NEW;
}

#else

/* Likewise; from 3.15 on it tells. */
static inline int
compat_coro_state(PyObject *op)
{
    static const char *const names[][2] = {
        [CORO_NEW] = {"GEN_CREATED", "CORO_CREATED"},
        [CORO_SUSPENDED] = {"GEN_SUSPENDED", "CORO_SUSPENDED"},
        [CORO_RUNNING] = {"GEN_RUNNING", "CORO_RUNNING"},
        [CORO_FINISHED] = {"GEN_CLOSED", "CORO_CLOSED"},
    };
    int is_coro = PyCoro_CheckExact(op);
    PyObject *name = PyObject_GetAttrString(op, is_coro ? "cr_state" : "gi_state");
    if (name == NULL) {
        return -1;
    }
    int state = CORO_NEW;
    while (state < CORO_FINISHED && !PyUnicode_EqualToUTF8(name, names[state][is_coro])) {
        state++;
    }
    Py_DECREF(name);
    return state;
}

#endif

/* Whether op is a native coroutine or generator in that state; not if that cannot be told. */
static inline int
coro_is(PyObject *op, enum coro_state state)
{
    if (!PyCoro_CheckExact(op) && !PyGen_CheckExact(op)) {
        return 0;
    }
    int found = compat_coro_state(op);
    if (found < 0) {
        PyErr_Clear();
    }
    return found == (int)state;
}

#if PY_VERSION_HEX >= 0x030C0000 && PY_VERSION_HEX < 0x030E0000

/* The code object that this thread is running and the instruction in it, in bytes: a new
 * reference, or NULL without an exception set. Makes no frame object for it, which would
 * cost more than all the rest of an event of a trace. */
static inline PyObject *
compat_running_code(int *offset)
{
    PyThreadState *tstate = PyThreadState_Get();
#if PY_VERSION_HEX < 0x030D0000
    struct _PyInterpreterFrame *frame = tstate->cframe->current_frame;
#else
    struct _PyInterpreterFrame *frame = tstate->current_frame;
#endif
    if (frame == NULL) {
        return NULL;
    }
    PyObject *code = PyUnstable_InterpreterFrame_GetCode(frame);
    /* The interpreter has frames of its own, and shows them while one of ours dies: their
     * code is no code object, or has nothing that could be traced. */
    if (PyCode_Check(code)) {
        *offset = PyUnstable_InterpreterFrame_GetLasti(frame);
        if (*offset / 2 >= ((PyCodeObject *)code)->_co_firsttraceable) {
            return code;
        }
    }
    Py_DECREF(code);  /* never the last one */
    return NULL;
}

#else

/* Likewise. Beware: in 3.11 a collection may run. */
static inline PyObject *
compat_running_code(int *offset)
{
    PyFrameObject *frame = PyThreadState_GetFrame(PyThreadState_Get());
    if (frame == NULL) {
        return NULL;
    }
    PyObject *code = (PyObject *)PyFrame_GetCode(frame);
    *offset = PyFrame_GetLasti(frame);
    Py_DECREF(frame);
    return code;
}

#endif

#endif /* SLEEPLOOP_BASE_COMPAT_H */
