/* place.h: where tasks wait for each other. How they come there is in waitobject.h.
 *
 * A place is a ring of tasks, first in, first out. Whatever hands something out - a lock its
 * ownership, a queue its items - gives it to the first task there is and takes that task from the
 * place in the same moment; nobody who comes later can get in between. So there are two ways only
 * for a wait to end: it was granted, and its task has what it waited for whatever comes
 * afterwards; or it was taken away, and has got nothing.
 *
 * What is waited for is a kind's business: a table of functions, of which a type has one for each
 * of its methods that wait. Knows no loop but to ask which one uses an object; who wakes the tasks
 * is in sync.h.
 */
#ifndef SLEEPLOOP_PLACE_H
#define SLEEPLOOP_PLACE_H

#include "driver.h"
#include "join.h"

/* Its row of the table. */
static inline const struct wait_kind *
wait_kind(const WaitObject *self)
{
    return (const struct wait_kind *)await_kind((const Awaitable *)self);
}

static inline const char *
wait_function(const WaitObject *self)
{
    return await_kind((const Awaitable *)self)->function;
}

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
    if (wait_kind(self)->park != NULL) {
        if (wait_kind(self)->park(self, task) < 0) {
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

/* The other way round; the wait stays its task's payload. */
static inline void
wait_take_out(WaitObject *self, TaskObject *task)
{
    assert(self->parked && task->payload == (PyObject *)self);
    self->parked = 0;
    self->object->parked--;
    if (wait_kind(self)->unpark != NULL) {
        wait_kind(self)->unpark(self, task);
    }
    else {
        link_remove(&task->link);
        self->place->count--;
    }
}

/* Takes the task from where it waits. What it waited with stays its payload. */
static inline void
wait_unpark(WaitObject *self, TaskObject *task)
{
    wait_take_out(self, task);
    if (self->outcome == WAIT_OPEN && wait_kind(self)->left != NULL) {
        wait_kind(self)->left(self);
    }
}

/* Where a wait that is not parked is to be parked the next time, in an object that its kind knows
 * of. Beware: what it was to wait at before may die by it, which may run Python. */
static inline void
wait_aim(WaitObject *self, PyObject *object, struct place *place)
{
    SyncObject *old = self->object;
    assert(!self->parked);
    self->object = (SyncObject *)Py_NewRef(object);
    self->place = place;
    Py_DECREF(old);
}

/* A parked wait, and its task, to the end of another place, from where no cancellation takes it
 * away. For a kind whose park() cannot fail. Beware: as wait_aim(). */
static inline void
wait_move(WaitObject *self, PyObject *object, struct place *place)
{
    TaskObject *task = self->task;
    SyncObject *old = self->object;
    wait_take_out(self, task);
    self->object = (SyncObject *)Py_NewRef(object);
    self->place = place;
    self->firm = 1;
    int parked = wait_park(self, task);
    assert(parked == 0);
    (void)parked;
    Py_DECREF(old);  /* the last thing that is done here */
}

/* ---- whose object it is ---------------------------------------------------------------------- */

/* The loop of that number, if it runs or is suspended, borrowed, or NULL. Looks through all of
 * them, but a report asks for the same one again and again. */
static LoopObject *
begun_loop_borrowed(ModuleState *state, uint64_t number)
{
    if (state->found != NULL && state->found->number == number) {
        return state->found;
    }
    for (struct link *l = state->begun.next; l != &state->begun; l = l->next) {
        if (LOOP_OF_BEGUN(l)->number == number) {
            state->found = LOOP_OF_BEGUN(l);
            return state->found;
        }
    }
    return NULL;
}

/* Likewise, if it runs; there are no more of them than threads. */
static LoopObject *
running_loop_borrowed(ModuleState *state, uint64_t number)
{
    for (struct link *l = state->begun.next; l != &state->begun; l = l->next) {
        LoopObject *loop = LOOP_OF_BEGUN(l);
        if (loop->tstate == NULL || loop->number == number) {
            return loop->tstate != NULL ? loop : NULL;
        }
    }
    return NULL;
}

/* Has whoever drives the loop that used the object last told that it may have something to do, as
 * the object's tasks may. Before anything has changed: here Python code may run, and where they are
 * woken none may; and then again, if meanwhile he has come and gone. */
COLD static void
sync_tell_driver(ModuleState *state, SyncObject *object)
{
    LoopObject *loop = begun_loop_borrowed(state, object->loop_number);
    while (loop != NULL && loop->phase == LOOP_SUSPENDED && loop->wakeup != NULL && loop->tells) {
        loop_tell_driver(loop);
        loop = begun_loop_borrowed(state, object->loop_number);
    }
}

/* Whether the loop that used the object last runs in another thread now: -1 with a RuntimeError
 * that names the function, else 0. Beware: may run Python. */
COLD static int
sync_check_thread(ModuleState *state, SyncObject *object, const char *function)
{
    if (state->driven) {
        sync_tell_driver(state, object);
    }
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
    if (Py_TYPE(object) == state->LockType) {
        struct link *link = &((OwnedObject *)object)->link;
        if (link_in_ring(link)) {
            link_remove(link);
        }
        ring_push(&loop->locks, link);
    }
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
 * that uses it runs in another thread. Beware: may run Python, if that loop is suspended. */
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

#endif /* SLEEPLOOP_PLACE_H */
