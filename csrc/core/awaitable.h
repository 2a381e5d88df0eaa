/* awaitable.h: what all awaitables of ours do alike: they begin, go on, end, and are used once.
 *
 * An awaitable yields itself to the loop, which parks its task where its kind says; it is resumed
 * by that task, and ends by value or by exception. These are the slots and the methods of the types
 * of all kinds; what differs stands in the kind's row, see kinds.h.
 */
#ifndef SLEEPLOOP_CORE_AWAITABLE_H
#define SLEEPLOOP_CORE_AWAITABLE_H

#include "../base/compat.h"
#include "args.h"
#include "forgotten.h"
#include "kinds.h"
#include "loopobject.h"
#include "state.h"
#include "stopiteration.h"
#include "taskobject.h"
#include "trace.h"

/* ---- whose it is ----------------------------------------------------------------------------- */

static PySendResult await_am_send(PyObject *op, PyObject *value, PyObject **result);

/* The object as an awaitable of ours, borrowed; NULL if it is none. No type of theirs can be
 * subclassed, and no other has that slot. */
static inline Awaitable *
awaitable_borrowed(const ModuleState *state, PyObject *op)
{
    const PyAsyncMethods *async = Py_TYPE(op)->tp_as_async;
    return async != NULL && async->am_send == await_am_send
                   && state_of_type(Py_TYPE(op)) == state
               ? (Awaitable *)op
               : NULL;
}

/* Whether it waits for the task. */
static inline int
await_is_of(const Awaitable *self, const LoopObject *loop, const TaskObject *task)
{
    return self->state == AWAIT_WAITING && self->task_number == task->number
           && self->loop_number == (uint32_t)loop->number;
}

/* ---- begun and ended ------------------------------------------------------------------------- */

/* Of one that has just been allocated. */
static inline void
await_init(Awaitable *self, enum await_kind_number kind)
{
    self->since = 0;
    self->loop_number = self->task_number = 0;
    self->kind = (uint8_t)kind;
    self->state = AWAIT_NEW;
    self->excused = self->firm = self->phase = 0;
}

/* It has to wait, from that time on: how begin() ends then. */
static inline PySendResult
await_yield(Awaitable *self, LoopObject *loop, int64_t since, PyObject **result)
{
    self->since = since;
    self->loop_number = (uint32_t)loop->number;
    self->task_number = loop->current != NULL ? loop->current->number : 0;
    self->state = AWAIT_WAITING;
    loop->awaited = self;
    if (loop->trace != NULL) {
        trace_await(loop, (PyObject *)self);
    }
    *result = Py_NewRef((PyObject *)self);
    return PYGEN_NEXT;
}

/* It goes on waiting. */
static inline PySendResult
await_yield_again(Awaitable *self, LoopObject *loop, PyObject **result)
{
    if (loop->trace != NULL) {
        trace_await(loop, (PyObject *)self);
    }
    *result = Py_NewRef((PyObject *)self);
    return PYGEN_NEXT;
}

COLD static PySendResult
await_used_up(const Awaitable *self)
{
    PyErr_Format(PyExc_RuntimeError, "this %s was awaited before: make a new one for each await",
                 await_kind(self)->function);
    return PYGEN_ERROR;
}

/* It waits no more, and did not get there by its loop: that is not to take another object, which may
 * come to lie at the same address, for it. */
static void
await_is_off(Awaitable *self)
{
    ModuleState *state = state_if_there(Py_TYPE(self));
    for (struct link *l = state != NULL ? state->begun.next : NULL;
         l != NULL && l != &state->begun && LOOP_OF_BEGUN(l)->tstate != NULL; l = l->next) {
        LoopObject *loop = LOOP_OF_BEGUN(l);  /* which runs, in whichever thread */
        loop->awaited = loop->awaited != self ? loop->awaited : NULL;
    }
}

/* An error that would be taken for the end of an await (StopIteration) or of an `async for`
 * (StopAsyncIteration) becomes a RuntimeError, as it does in coroutines; others stay. */
COLD static void
await_error_is_no_end(const char *function, PyObject *end)
{
    if (PyErr_ExceptionMatches(end)) {
        PyObject *exc = PyErr_GetRaisedException();
        PyErr_Format(PyExc_RuntimeError, "%s raised %s", function, Py_TYPE(exc)->tp_name);
        PyObject *error = PyErr_GetRaisedException();
        PyException_SetCause(error, Py_NewRef(exc));
        PyException_SetContext(error, exc);
        PyErr_SetRaisedException(error);
    }
}

/* Resumed by somebody else than the task that waits, or in another loop; or again. */
COLD static PySendResult
await_resumed_wrongly(Awaitable *self, PyObject *sent, PyObject **result)
{
    if (self->state == AWAIT_ABROAD) {
        return await_kind(self)->resume_abroad(self, sent, result);
    }
    if (self->state == AWAIT_DONE && await_kind(self)->not_told != NULL) {
        await_kind(self)->not_told(self, NULL);  /* granted after it had been closed by hand */
    }
    return await_used_up(self);
}

static inline PySendResult
await_advance(Awaitable *self, PyObject *sent, PyObject **result)
{
    const struct await_kind *kind = await_kind(self);
    ModuleState *state = state_of_type(Py_TYPE(self));
    *result = NULL;
    if (self->state == AWAIT_NEW) {
        return kind->begin(state, self, result);
    }
    LoopObject *loop = current_loop_borrowed(state);
    if (loop == NULL || loop->current == NULL || !await_is_of(self, loop, loop->current)) {
        return await_resumed_wrongly(self, sent, result);
    }
    loop->awaited = NULL;  /* perhaps this one, by hand, and it may end and die now */
    return kind->resume(self, loop, result);
}

/* ---- the slots ------------------------------------------------------------------------------- */

static PySendResult
await_am_send(PyObject *op, PyObject *value, PyObject **result)
{
    return await_advance((Awaitable *)op, value, result);
}

/* What an await came to was not handed over: an exception is set. Steals result. */
COLD static void
await_not_told(Awaitable *self, PyObject *result_steal)
{
    PyObject *saved = PyErr_GetRaisedException();
    if (await_kind(self)->not_told != NULL) {
        await_kind(self)->not_told(self, result_steal);
    }
    else {
        Py_DECREF(result_steal);
    }
    PyErr_SetRaisedException(saved);
}

/* How tp_iternext ends with a result that is not None. Always NULL. Steals result. */
static inline PyObject *
await_return_steal(Awaitable *self, PyObject *result)
{
    if (!await_kind(self)->reuses_end && !PyBool_Check(result)) {
        if (stop_iteration_bare(result) < 0) {
            await_not_told(self, result);
        }
        return NULL;
    }
    PyObject *value = Py_NewRef(result);
    (void)stop_iteration_reused_steal(state_of_type(Py_TYPE(self)), result);
    if (PyErr_ExceptionMatches(PyExc_StopIteration)) {
        Py_DECREF(value);
    }
    else {
        await_not_told(self, value);
    }
    return NULL;
}

static PyObject *
await_tp_iternext(PyObject *op)
{
    PyObject *result;
    switch (await_advance((Awaitable *)op, Py_None, &result)) {
    case PYGEN_NEXT:
        return result;
    case PYGEN_RETURN:
        if (result != Py_None) {
            return await_return_steal((Awaitable *)op, result);
        }
        Py_DECREF(result);
        return NULL;  /* the short form of "ended with None" */
    default:
        return NULL;
    }
}

/* .send(): whoever catches the StopIteration may look at its `args`. */
static PyObject *
await_py_send(PyObject *op, PyObject *value)
{
    PyObject *result;
    if (await_advance((Awaitable *)op, value, &result) != PYGEN_RETURN) {
        return result;
    }
    PyObject *kept = Py_NewRef(result);
    (void)stop_iteration_steal(result);
    if (PyErr_ExceptionMatches(PyExc_StopIteration)) {
        Py_DECREF(kept);
    }
    else {
        await_not_told((Awaitable *)op, kept);
    }
    return NULL;
}

/* What .throw(exception) or, as generators still take it, .throw(type, value, traceback) is to
 * raise, a new reference; NULL with a TypeError. Beware: to make it may run Python. */
static PyObject *
exception_from_throw(PyObject *const *args, Py_ssize_t n_args)
{
    if (n_args < 1 || n_args > 3) {
        PyErr_Format(PyExc_TypeError, "throw() takes 1 to 3 arguments, not %zd", n_args);
        return NULL;
    }
    PyObject *exc = args[0];
    PyObject *value = n_args > 1 && args[1] != Py_None ? args[1] : NULL;
    if (PyExceptionClass_Check(exc)) {
        if (value != NULL && PyExceptionInstance_Check(value)) {
            exc = Py_NewRef(value);
        }
        else {
            exc = value != NULL ? PyObject_CallOneArg(exc, value) : PyObject_CallNoArgs(exc);
        }
    }
    else {
        Py_INCREF(exc);
    }
    if (exc == NULL) {
        return NULL;
    }
    if (!PyExceptionInstance_Check(exc)) {
        raise_about(PyExc_TypeError, "%s takes an exception, not %U%s", "throw()", exc, "");
        Py_CLEAR(exc);
    }
    else if (n_args > 2 && args[2] != Py_None && PyException_SetTraceback(exc, args[2]) < 0) {
        Py_CLEAR(exc);
    }
    return exc;
}

static PyObject *
await_py_throw(PyObject *op, PyObject *const *args, Py_ssize_t n_args)
{
    Awaitable *self = (Awaitable *)op;
    const struct await_kind *kind = await_kind(self);
    PyObject *exc = exception_from_throw(args, n_args);
    if (exc == NULL) {
        return NULL;
    }
    if (self->state == AWAIT_WAITING) {
        await_is_off(self);
    }
    int ended = kind->give_up != NULL ? kind->give_up(self, exc) : 1;
    if (ended == 0) {
        Py_DECREF(exc);
        return Py_NewRef(op);
    }
    self->state = AWAIT_DONE;
    if (ended > 0) {
        PyErr_SetRaisedException(exc);
    }
    else {
        Py_DECREF(exc);
    }
    return NULL;
}

static PyObject *
await_py_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    Awaitable *self = (Awaitable *)op;
    if (self->state == AWAIT_WAITING) {
        await_is_off(self);
    }
    if (await_kind(self)->give_up != NULL) {
        (void)await_kind(self)->give_up(self, NULL);
    }
    self->state = AWAIT_DONE;
    Py_RETURN_NONE;
}

/* Each `await` asks for the iterator once: the place to notice a second one, which would otherwise
 * take the first one's wake-up. */
static PyObject *
await_tp_iter(PyObject *op)
{
    if (((Awaitable *)op)->state != AWAIT_NEW) {
        (void)await_used_up((Awaitable *)op);
        return NULL;
    }
    return Py_NewRef(op);
}

/* ---- described ------------------------------------------------------------------------------- */

/* Whether the task that waits with it has yielded it in the step that is under way, so that not our
 * loop has it, but one that runs in that step. */
static int
await_is_stray(const Awaitable *self)
{
    LoopObject *loop = current_loop_borrowed(state_of_type(Py_TYPE(self)));
    return loop != NULL && loop->current != NULL && await_is_of(self, loop, loop->current);
}

/* What the repr of a stray says, since the other loop shows that in its error. */
#define STRAY_ADVICE                                                                           \
    "awaited on a loop that is not sleeploop's: await it in a coroutine that sleeploop.run() " \
    "or create_task() runs, or use that loop's own means"

/* New str, the repr of a stray. */
COLD static PyObject *
await_stray_repr(const Awaitable *self)
{
    return PyUnicode_FromFormat("<sleeploop's %s, " STRAY_ADVICE ">", await_kind(self)->function);
}

/* The repr of those that have nothing else to say. */
static PyObject *
await_tp_repr(PyObject *op)
{
    const Awaitable *self = (Awaitable *)op;
    return await_is_stray(self) ? await_stray_repr(self) : PyBaseObject_Type.tp_repr(op);
}

/* As a coroutine has it: "Lock.acquire", for reports on the task that runs it. */
static PyObject *
await_get_qualname(PyObject *op, void *Py_UNUSED(closure))
{
    return qualname_of_function(await_kind((Awaitable *)op)->function);
}

static PyObject *
await_get_name(PyObject *op, void *Py_UNUSED(closure))
{
    return name_of_function(await_kind((Awaitable *)op)->function);
}

/* ---- for the types --------------------------------------------------------------------------- */

static void
await_tp_finalize(PyObject *op)
{
    Awaitable *self = (Awaitable *)op;
    if (self->state == AWAIT_NEW && !self->excused) {
        self->state = AWAIT_DONE;
        warn_forgotten(op, await_kind(self)->function);
    }
}

/* Somebody takes it over who will await or close it, if that has to be; or it has been withdrawn. It
 * is not forgotten, even if the collector finds it together with what has it. Does nothing about
 * anything else than our own awaitables. */
static void
await_excuse(const ModuleState *state, PyObject *op)
{
    Awaitable *self = awaitable_borrowed(state, op);
    if (self != NULL) {
        self->excused = 1;
    }
}

COLD static int
await_dies_unfinished(PyObject *op)
{
    if (((Awaitable *)op)->state == AWAIT_NEW && PyObject_CallFinalizerFromDealloc(op) < 0) {
        return -1;
    }
    if (((Awaitable *)op)->state == AWAIT_WAITING) {
        await_is_off((Awaitable *)op);
    }
    return 0;
}

/* The beginning of tp_dealloc: 0; or -1: somebody has kept it. Beware: may run Python. */
static inline int
await_dies(PyObject *op)
{
    return ((Awaitable *)op)->state != AWAIT_DONE ? await_dies_unfinished(op) : 0;
}

#define AWAIT_METHODS                                                                          \
    {"send", await_py_send, METH_O, PyDoc_STR("send($self, value, /)\n--\n\nAs of a generator.")}, \
    {"throw", (PyCFunction)(void (*)(void))await_py_throw, METH_FASTCALL,                      \
     PyDoc_STR("throw($self, exception, /, *args)\n--\n\nAs of a generator.")},                \
    {"close", await_py_close, METH_NOARGS, PyDoc_STR("close($self, /)\n--\n\nAs of a generator.")}

#define AWAIT_GETTERS                                                                          \
    {"__name__", await_get_name, NULL, PyDoc_STR("What it was made by."), NULL},               \
    {"__qualname__", await_get_qualname, NULL, PyDoc_STR("What it was made by."), NULL}

/* All slots but those for life, repr, methods and attributes. */
#define AWAIT_SLOTS(iter)                                                                      \
    {Py_tp_iter, (iter)},                                                                      \
    {Py_tp_iternext, await_tp_iternext},                                                       \
    {Py_am_await, (iter)},                                                                     \
    {Py_am_send, await_am_send}

/* Of those that have no others. */
static PyMethodDef await_methods[] = {
    AWAIT_METHODS,
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef await_getset[] = {
    AWAIT_GETTERS,
    {NULL, NULL, NULL, NULL, NULL},
};

#endif /* SLEEPLOOP_CORE_AWAITABLE_H */
