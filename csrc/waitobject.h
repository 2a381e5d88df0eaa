/* waitobject.h: what `await lock.acquire()` and its like await: how it begins, and how it ends.
 *
 * It asks its kind for what is wanted, and yields itself if that cannot be had at once: then park.h
 * has its task wait at a place. What was granted and is not taken, it gives back.
 */
#ifndef SLEEPLOOP_WAITOBJECT_H
#define SLEEPLOOP_WAITOBJECT_H

#include "place.h"

/* ---- made, and given back -------------------------------------------------------------------- */

/* Of one that has just been allocated, or of what begins with one. place: in `object`, or NULL for
 * a kind that parks by itself. value: owned by the wait from now on, or NULL. Steals value. */
static inline void
wait_init(WaitObject *self, const struct wait_kind *kind, PyObject *object, struct place *place,
          PyObject *value_steal)
{
    self->kind = kind;
    self->object = (SyncObject *)Py_NewRef(object);
    self->value = value_steal;
    self->place = place;
    self->task = NULL;
    self->started = 0;
    self->number = 0;
    self->state = TRAP_NEW;
    self->outcome = WAIT_OPEN;
    self->taken = self->parked = self->firm = self->phase = self->excused = 0;
}

/* Likewise; steals value even if it fails. */
static WaitObject *
wait_new(ModuleState *state, const struct wait_kind *kind, PyObject *object, struct place *place,
         PyObject *value_steal)
{
    WaitObject *self = PyObject_GC_New(WaitObject, state->WaitType);
    if (self == NULL) {
        Py_XDECREF(value_steal);
        return NULL;
    }
    wait_init(self, kind, object, place, value_steal);
    PyObject_GC_Track(self);
    awaitable_made(state, (PyObject *)self);
    return self;
}

COLD static void
wait_give_back(WaitObject *self)
{
    PyObject *saved = PyErr_GetRaisedException();
    self->kind->give_back(self);
    PyErr_SetRaisedException(saved);
}

/* Granted, and the task that it was granted to does not take it. Beware: may run Python, where
 * what dies with it does. */
static inline void
wait_not_taken(WaitObject *self)
{
    if (self->outcome == WAIT_GRANTED && !self->taken) {
        self->taken = 1;
        if (self->kind->give_back != NULL) {
            wait_give_back(self);
        }
    }
}

/* ---- awaited --------------------------------------------------------------------------------- */

/* The end of the await. */
static PySendResult
wait_finish(WaitObject *self, PyObject **result)
{
    self->state = TRAP_DONE;
    self->taken = 1;
    if (self->outcome == WAIT_FAILED) {
        PyErr_SetObject((PyObject *)Py_TYPE(self->value), self->value);
        Py_CLEAR(self->value);  /* its traceback may lead to a frame that holds this */
        *result = NULL;
    }
    else if (self->kind->result != NULL) {
        *result = self->kind->result(self);
    }
    else if (self->value != NULL) {
        *result = self->value;
        self->value = NULL;
    }
    else {
        *result = Py_NewRef(Py_None);
    }
    if (*result == NULL) {
        self->taken = 0;  /* what was granted, and there was no memory to tell it */
        wait_not_taken(self);
        return PYGEN_ERROR;
    }
    return PYGEN_RETURN;
}

/* Granted, but there was no memory to tell it. Steals result. */
COLD static void
wait_not_told(WaitObject *self, PyObject *result_steal)
{
    if (result_steal == (PyObject *)self) {  /* a Request comes to itself */
        Py_DECREF(result_steal);
    }
    else {
        Py_XSETREF(self->value, result_steal);
    }
    self->taken = 0;
    wait_not_taken(self);
}

/* How tp_iternext ends with a result. Always NULL. Steals result. */
static inline PyObject *
wait_return_steal(WaitObject *self, PyObject *result)
{
    if (PyBool_Check(result)) {
        PyObject *value = Py_NewRef(result);
        (void)stop_iteration_reused_steal(state_of_type(Py_TYPE(self)), result);
        if (PyErr_ExceptionMatches(PyExc_StopIteration)) {
            Py_DECREF(value);
        }
        else {
            wait_not_told(self, value);
        }
    }
    else if (stop_iteration_bare(result) < 0) {
        wait_not_told(self, result);
    }
    return NULL;
}

/* How send() does: whoever catches it may look at its `args`. */
static PyObject *
wait_return_to_caller_steal(WaitObject *self, PyObject *result)
{
    PyObject *value = Py_NewRef(result);
    (void)stop_iteration_steal(result);
    if (PyErr_ExceptionMatches(PyExc_StopIteration)) {
        Py_DECREF(value);
    }
    else {
        wait_not_told(self, value);
    }
    return NULL;
}

static PySendResult
wait_yield(WaitObject *self, LoopObject *loop, PyObject **result)
{
    *result = Py_NewRef(self);
    trace_await(loop, (PyObject *)self);
    return PYGEN_NEXT;
}

static PySendResult
wait_begin(ModuleState *state, WaitObject *self, PyObject **result)
{
    TaskObject *task = need_current_task_borrowed(state, self->kind->function);
    if (task == NULL || sync_enter(state, self->object, task->loop, self->kind->function) < 0) {
        self->excused = 1;  /* it can be awaited elsewhere, but need not be */
        return PYGEN_ERROR;
    }
    self->state = TRAP_DONE;  /* so that no Python that take() runs awaits it as well */
    if (task_may_go_on(task)) {
        switch (self->kind->take(self, task->loop, task)) {
        case 1:
            self->outcome = WAIT_GRANTED;
            return wait_finish(self, result);
        case 0:
            break;
        default:
            return PYGEN_ERROR;
        }
    }
    self->task = task;
    self->started = clock_about_now(&task->loop->clock);
    self->state = TRAP_WAITING;
    return wait_yield(self, task->loop, result);
}

static inline PySendResult
wait_go_on(WaitObject *self, PyObject **result)
{
    ModuleState *state = state_of_type(Py_TYPE(self));
    *result = NULL;
    if (self->state == TRAP_NEW) {
        return wait_begin(state, self, result);
    }
    LoopObject *loop = current_loop_borrowed(state);
    if (self->state == TRAP_DONE || loop == NULL || loop->current == NULL
        || loop->current != self->task || self->outcome == WAIT_OPEN) {
        if (self->state == TRAP_DONE) {
            wait_not_taken(self);  /* granted after it had been closed by hand */
        }
        return trap_used_up(self->kind->function);  /* or the wake-up was somebody else's */
    }
    if (self->kind->resume != NULL && self->outcome != WAIT_FAILED) {
        switch (self->kind->resume(self, loop, loop->current, NULL)) {
        case 1:
            break;
        case 0:
            return wait_yield(self, loop, result);
        default:
            self->state = TRAP_DONE;
            return PYGEN_ERROR;
        }
    }
    return wait_finish(self, result);
}

static PySendResult
wait_advance(PyObject *op, PyObject *Py_UNUSED(sent), PyObject **result)
{
    PySendResult how = wait_go_on((WaitObject *)op, result);
    if (how == PYGEN_ERROR) {
        trap_error_is_no_end(((WaitObject *)op)->kind->function, PyExc_StopIteration);
    }
    return how;
}

static PyObject *
wait_tp_iternext(PyObject *op)
{
    WaitObject *self = (WaitObject *)op;
    PyObject *result;
    PySendResult how = wait_advance(op, Py_None, &result);
    return how != PYGEN_RETURN || result == Py_None ? trap_next_result(how, result)
                                                    : wait_return_steal(self, result);
}

static PyObject *
wait_py_send(PyObject *op, PyObject *value)
{
    PyObject *result;
    PySendResult how = wait_advance(op, value, &result);
    return how == PYGEN_RETURN ? wait_return_to_caller_steal((WaitObject *)op, result) : result;
}

static PyObject *
wait_py_throw(PyObject *op, PyObject *const *args, Py_ssize_t n_args)
{
    WaitObject *self = (WaitObject *)op;
    uint8_t thrown = TRAP_WAITING;
    (void)trap_throw(&thrown, args, n_args);
    if (thrown != TRAP_DONE) {
        return NULL;  /* bad arguments */
    }
    if (self->state != TRAP_WAITING) {  /* or not any more: making the exception ran Python */
        self->state = TRAP_DONE;
        return NULL;
    }
    LoopObject *loop = current_loop_borrowed(state_of_type(Py_TYPE(op)));
    int is_ours = loop != NULL && loop->current != NULL && loop->current == self->task
                  && !self->parked;
    if (is_ours && self->kind->resume != NULL) {
        PyObject *exc = PyErr_GetRaisedException();
        int ended = self->kind->resume(self, loop, loop->current, exc);
        if (ended == 0) {
            Py_DECREF(exc);
            trace_await_thrown(loop);
            return Py_NewRef(self);
        }
        if (ended > 0) {
            PyErr_SetRaisedException(exc);
        }
        else {
            Py_DECREF(exc);
        }
    }
    else {
        wait_not_taken(self);
    }
    self->state = TRAP_DONE;
    return NULL;
}

static PyObject *
wait_py_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    WaitObject *self = (WaitObject *)op;
    wait_not_taken(self);
    self->state = TRAP_DONE;
    Py_RETURN_NONE;
}

/* ---- the type -------------------------------------------------------------------------------- */

/* Without a tp_clear, as a Join: a parked task finds the place where it stands by its wait. A
 * cycle through one leads through its task, or through an object that breaks it. */
static int
wait_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((WaitObject *)op)->object);
    Py_VISIT(((WaitObject *)op)->value);
    return 0;
}

static void
wait_tp_finalize(PyObject *op)
{
    WaitObject *self = (WaitObject *)op;
    wait_not_taken(self);
    awaitable_finalize(op, &self->state, self->excused, self->kind->function);
}

static void
wait_tp_dealloc(PyObject *op)
{
    WaitObject *self = (WaitObject *)op;
    PyTypeObject *type = Py_TYPE(op);
    if ((self->state == TRAP_NEW || (self->outcome == WAIT_GRANTED && !self->taken))
        && PyObject_CallFinalizerFromDealloc(op) < 0) {
        return;
    }
    PyObject_GC_UnTrack(op);
    assert(!self->parked);
    /* What is brought may be another wait that brings another, 100,000 in a row. */
    Py_TRASHCAN_BEGIN(op, wait_tp_dealloc)
    Py_XDECREF(self->value);
    Py_DECREF(self->object);
    type->tp_free(op);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

static PyMethodDef wait_methods[] = {
    {"send", wait_py_send, METH_O, PyDoc_STR("send($self, value, /)\n--\n\nAs of a generator.")},
    {"throw", (PyCFunction)(void (*)(void))wait_py_throw, METH_FASTCALL,
     PyDoc_STR("throw($self, exception, /, *args)\n--\n\nAs of a generator.")},
    {"close", wait_py_close, METH_NOARGS, PyDoc_STR("close($self, /)\n--\n\nAs of a generator.")},
    {NULL, NULL, 0, NULL},
};

/* As trap_is_stray(); its task may be gone. */
static int
wait_is_stray(const WaitObject *self)
{
    LoopObject *loop = current_loop_borrowed(state_of_type(Py_TYPE(self)));
    return self->state == TRAP_WAITING && loop != NULL && loop->current != NULL
           && loop->current == self->task;
}

static PyObject *
wait_tp_repr(PyObject *op)
{
    static const char *const words[] = {
        [TRAP_NEW] = "not awaited yet", [TRAP_WAITING] = "waiting",
        [TRAP_WAITING_ABROAD] = "waiting", [TRAP_DONE] = "done",
    };
    WaitObject *self = (WaitObject *)op;
    const char *advice = wait_is_stray(self) ? ", " STRAY_ADVICE : "";
    PyObject *what = self->kind->describe((PyObject *)self->object);
    PyObject *text = what != NULL ? PyUnicode_FromFormat("<%s of %U%s, %s>", self->kind->function,
                                                         what, advice, words[self->state])
                                  : NULL;
    Py_XDECREF(what);
    return text;
}

/* As a coroutine has it: "Lock.acquire", for reports on the task that runs it. */
static PyObject *
wait_get_qualname(PyObject *op, void *Py_UNUSED(closure))
{
    return qualname_of_function(((WaitObject *)op)->kind->function);
}

static PyObject *
wait_get_name(PyObject *op, void *Py_UNUSED(closure))
{
    return name_of_function(((WaitObject *)op)->kind->function);
}

#define WAIT_NAME_GETTERS                                                                      \
    {"__name__", wait_get_name, NULL, PyDoc_STR("What it was made by."), NULL},                \
    {"__qualname__", wait_get_qualname, NULL, PyDoc_STR("What it was made by."), NULL}

static PyGetSetDef wait_getset[] = {
    WAIT_NAME_GETTERS,
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot wait_slots[] = {
    {Py_tp_doc, (void *)"What waits at a Lock, a Queue and the like."},
    {Py_tp_dealloc, wait_tp_dealloc},
    {Py_tp_finalize, wait_tp_finalize},
    {Py_tp_traverse, wait_tp_traverse},
    {Py_tp_repr, wait_tp_repr},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, wait_tp_iternext},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, wait_advance},
    {Py_tp_methods, wait_methods},
    {Py_tp_getset, wait_getset},
    {0, NULL},
};

static PyType_Spec wait_spec = {
    .name = "sleeploop.Wait",
    .basicsize = sizeof(WaitObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = wait_slots,
};

#endif /* SLEEPLOOP_WAITOBJECT_H */
