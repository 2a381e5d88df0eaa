/* place.h: where tasks wait for each other, and the awaitable by which they come there.
 *
 * A place is a ring of tasks, first in, first out. Whatever hands something out - a lock its
 * ownership, a queue its items - gives it to the first task there is and takes that task from the
 * place in the same moment; nobody who comes later can get in between. So there are two ways only
 * for a wait to end: it was granted, and its task has what it waited for whatever comes
 * afterwards; or it was taken away, and has got nothing.
 *
 * What is waited for is a kind's business: a table of functions, of which a type has one for each
 * of its methods that wait. Knows no loop but to ask for the current one; who wakes the tasks is
 * in sync.h.
 */
#ifndef SLEEPLOOP_PLACE_H
#define SLEEPLOOP_PLACE_H

#include "join.h"

/* ---- places ---------------------------------------------------------------------------------- */

static inline void
place_init(struct place *place)
{
    ring_init(&place->tasks);
    place->count = 0;
}

/* The first wait at the place, borrowed, or NULL. */
static inline WaitObject *
place_first(const struct place *place)
{
    return ring_empty(&place->tasks)
               ? NULL
               : (WaitObject *)TASK_OF_LINK(place->tasks.next)->payload;
}

/* The task's payload is the wait, already. 0, or -1 with an exception. */
static inline int
wait_park(WaitObject *self, TaskObject *task)
{
    if (self->kind->park != NULL) {
        if (self->kind->park(self, task) < 0) {
            return -1;
        }
    }
    else {
        ring_push(&self->place->tasks, &task->link);
        self->place->count++;
    }
    self->object->parked++;
    self->parked = 1;
    return 0;
}

/* Takes the task from where it waits. What it waited with stays its payload. */
static inline void
wait_unpark(WaitObject *self, TaskObject *task)
{
    assert(self->parked && task->payload == (PyObject *)self);
    self->parked = 0;
    self->object->parked--;
    if (self->kind->unpark != NULL) {
        self->kind->unpark(self, task);
    }
    else {
        link_remove(&task->link);
        self->place->count--;
    }
    if (self->outcome == WAIT_OPEN && self->kind->left != NULL) {
        self->kind->left(self);
    }
}

/* ---- whose object it is ---------------------------------------------------------------------- */

/* The running loop of that number, borrowed, or NULL. */
static LoopObject *
running_loop_borrowed(ModuleState *state, uint64_t number)
{
    LoopObject *loop = state->running;
    while (loop != NULL && loop->number != number) {
        loop = loop->next_running;
    }
    return loop;
}

/* Whether the loop that used the object last runs in another thread now: -1 with a RuntimeError
 * that names the function, else 0. */
COLD static int
sync_check_thread(ModuleState *state, SyncObject *object, const char *function)
{
    LoopObject *owner = running_loop_borrowed(state, object->loop_number);
    if (owner != NULL && !loop_is_of_thread(owner, PyThreadState_Get())) {
        raise_about(PyExc_RuntimeError,
                    "%s: %U%s", function, (PyObject *)object,
                    " is used by a loop that runs in another thread; have it called there, by "
                    "loop.call_soon_threadsafe()");
        return -1;
    }
    return 0;
}

COLD static int
sync_change_loop(ModuleState *state, SyncObject *object, LoopObject *loop, const char *function)
{
    if (object->loop_number != 0) {
        if (sync_check_thread(state, object, function) < 0) {
            return -1;
        }
        if (object->parked > 0 || object->held > 0) {
            raise_about(PyExc_RuntimeError, "%s: %U%s", function, (PyObject *)object,
                        " belongs to another loop, whose tasks have it or wait for it");
            return -1;
        }
    }
    object->loop_number = loop->number;
    return 0;
}

/* A task of the loop is to take something from the object, or to wait at it. 0, or -1 with a
 * RuntimeError: it belongs to the tasks of another loop. */
static inline int
sync_enter(ModuleState *state, SyncObject *object, LoopObject *loop, const char *function)
{
    return object->loop_number == loop->number
               ? 0
               : sync_change_loop(state, object, loop, function);
}

/* For what needs no task: set(), put_nowait(), release(). 0, or -1 with a RuntimeError: the loop
 * that uses it runs in another thread. */
static inline int
sync_touch(ModuleState *state, SyncObject *object, const char *function)
{
    if (object->loop_number == 0) {
        return 0;
    }
    LoopObject *loop = current_loop_borrowed(state);
    return loop != NULL && loop->number == object->loop_number
               ? 0
               : sync_check_thread(state, object, function);
}

/* ---- the awaitable --------------------------------------------------------------------------- */

/* place: in `object`, or NULL for a kind that parks by itself. value: owned by the wait from now
 * on, or NULL. Steals value, even if it fails. */
static WaitObject *
wait_new(ModuleState *state, const struct wait_kind *kind, PyObject *object, struct place *place,
         PyObject *value_steal)
{
    WaitObject *self = PyObject_GC_New(WaitObject, state->WaitType);
    if (self == NULL) {
        Py_XDECREF(value_steal);
        return NULL;
    }
    self->kind = kind;
    self->object = (SyncObject *)Py_NewRef(object);
    self->value = value_steal;
    self->place = place;
    self->task = NULL;
    self->started = 0;
    self->number = 0;
    self->state = TRAP_NEW;
    self->outcome = WAIT_OPEN;
    self->taken = self->parked = self->firm = self->phase = 0;
    PyObject_GC_Track(self);
    return self;
}

/* Whether a task may go on without a look at the loop: an await that need not wait is a place
 * where a cancellation or an interrupt is raised all the same. */
static inline int
task_may_go_on(const TaskObject *task)
{
    return !(task->flags & (TASK_CANCELLING | TASK_INTERRUPTED));
}

/* Granted, and the task that it was granted to does not take it. Beware: may run Python, where
 * what dies with it does. */
static void
wait_not_taken(WaitObject *self)
{
    if (self->outcome == WAIT_GRANTED && !self->taken) {
        self->taken = 1;
        if (self->kind->give_back != NULL) {
            PyObject *saved = PyErr_GetRaisedException();
            self->kind->give_back(self);
            PyErr_SetRaisedException(saved);
        }
    }
}

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
    return *result != NULL ? PYGEN_RETURN : PYGEN_ERROR;
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

static PySendResult
wait_advance(PyObject *op, PyObject *Py_UNUSED(sent), PyObject **result)
{
    WaitObject *self = (WaitObject *)op;
    ModuleState *state = state_of_type(Py_TYPE(op));
    *result = NULL;
    if (self->state == TRAP_NEW) {
        return wait_begin(state, self, result);
    }
    LoopObject *loop = current_loop_borrowed(state);
    if (self->state == TRAP_DONE || loop == NULL || loop->current == NULL
        || loop->current != self->task || self->outcome == WAIT_OPEN) {
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

static PyObject *
wait_tp_iternext(PyObject *op)
{
    WaitObject *self = (WaitObject *)op;
    PyObject *result;
    PySendResult how = wait_advance(op, Py_None, &result);
    if (how != PYGEN_RETURN || result == Py_None) {
        return trap_next_result(how, result);
    }
    if (PyBool_Check(result)) {
        return stop_iteration_reused_steal(state_of_type(Py_TYPE(op)), result);
    }
    PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, result);
    if (stop == NULL) {  /* no memory: what has been got is not lost */
        Py_XSETREF(self->value, result);
        self->taken = 0;
        wait_not_taken(self);
        return NULL;
    }
    Py_DECREF(result);
    PyErr_SetRaisedException(stop);
    return NULL;
}

static PyObject *
wait_py_send(PyObject *op, PyObject *value)
{
    return trap_send(op, value, wait_advance);
}

static PyObject *
wait_py_throw(PyObject *op, PyObject *const *args, Py_ssize_t n_args)
{
    WaitObject *self = (WaitObject *)op;
    LoopObject *loop = current_loop_borrowed(state_of_type(Py_TYPE(op)));
    uint8_t before = self->state;
    int is_ours = before == TRAP_WAITING && loop != NULL && loop->current != NULL
                  && loop->current == self->task && !self->parked;
    (void)trap_throw(&self->state, args, n_args);
    if (self->state != TRAP_DONE || before != TRAP_WAITING) {
        return NULL;  /* bad arguments; or nothing was under way */
    }
    self->state = TRAP_WAITING;
    if (is_ours && self->kind->resume != NULL) {
        PyObject *exc = PyErr_GetRaisedException();
        int ended = self->kind->resume(self, loop, loop->current, exc);
        if (ended == 0) {
            Py_DECREF(exc);
            PyObject *result;
            (void)wait_yield(self, loop, &result);
            return result;
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
    wait_not_taken((WaitObject *)op);
}

static void
wait_tp_dealloc(PyObject *op)
{
    WaitObject *self = (WaitObject *)op;
    PyTypeObject *type = Py_TYPE(op);
    if (self->outcome == WAIT_GRANTED && !self->taken
        && PyObject_CallFinalizerFromDealloc(op) < 0) {
        return;
    }
    PyObject_GC_UnTrack(op);
    assert(!self->parked);
    Py_XDECREF(self->value);
    Py_DECREF(self->object);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef wait_methods[] = {
    {"send", wait_py_send, METH_O, PyDoc_STR("send($self, value, /)\n--\n\nAs of a generator.")},
    {"throw", (PyCFunction)(void (*)(void))wait_py_throw, METH_FASTCALL,
     PyDoc_STR("throw($self, exception, /, *args)\n--\n\nAs of a generator.")},
    {"close", wait_py_close, METH_NOARGS, PyDoc_STR("close($self, /)\n--\n\nAs of a generator.")},
    {NULL, NULL, 0, NULL},
};

static PyObject *
wait_tp_repr(PyObject *op)
{
    static const char *const words[] = {
        [TRAP_NEW] = "not awaited yet", [TRAP_WAITING] = "waiting",
        [TRAP_WAITING_ABROAD] = "waiting", [TRAP_DONE] = "done",
    };
    WaitObject *self = (WaitObject *)op;
    PyObject *what = self->kind->describe((PyObject *)self->object);
    PyObject *text = what != NULL ? PyUnicode_FromFormat("<%s of %U, %s>", self->kind->function,
                                                         what, words[self->state])
                                  : NULL;
    Py_XDECREF(what);
    return text;
}

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
    {0, NULL},
};

static PyType_Spec wait_spec = {
    .name = "sleeploop.Wait",
    .basicsize = sizeof(WaitObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = wait_slots,
};

#endif /* SLEEPLOOP_PLACE_H */
