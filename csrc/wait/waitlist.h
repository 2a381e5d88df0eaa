/* waitlist.h: where tasks wait for each other. How they come there is in waitobject.h.
 *
 * A waitlist is a ring of tasks, first in, first out. Whatever hands something out - a lock its
 * ownership, a queue its items - gives it to the first task there is and takes that task from the
 * ring in the same moment; nobody who comes later can get in between. So there are two ways only
 * for a wait to end: it was granted, and its task has what it waited for whatever comes
 * afterwards; or it was taken away, and has got nothing.
 *
 * What is waited for is a kind's business: a row of functions, of which a type has one for each of
 * its methods that wait. Knows no loop but to ask which one uses an object; the tasks are woken in
 * waitable.h.
 */
#ifndef SLEEPLOOP_WAIT_WAITLIST_H
#define SLEEPLOOP_WAIT_WAITLIST_H

#include "../base/compat.h"
#include "../base/ring.h"
#include "../core/args.h"
#include "../core/driver.h"
#include "../core/kinds.h"
#include "../core/loopobject.h"
#include "../core/state.h"
#include "../core/taskobject.h"

/* Where tasks wait for one and the same thing, in the order in which they get it. */
struct waitlist {
    struct link tasks;  /* head: parked here, borrowed; the payload of each is the Wait by which
                           it is */
    size_t count;
};

/* What every object begins with that tasks wait at. The rest of its struct is with its type:
 * nothing else needs to know. */
#define SYNC_HEAD                                                                              \
    PyObject_HEAD                                                                              \
    PyObject *name;        /* owned exact str; NULL: none */                                   \
    PyObject *weakrefs;                                                                        \
    uint64_t loop_number;  /* of the loop whose tasks used it last; 0: none yet */             \
    size_t parked;         /* tasks that wait here, in whichever of its lists */               \
    size_t held;           /* what tasks of that loop have of it and will give back */

typedef struct {
    SYNC_HEAD
} SyncObject;

/* And what a Lock begins with: the loop finds those that a task has when it ends. */
#define OWNED_HEAD                                                                             \
    SYNC_HEAD                                                                                  \
    struct waitlist waitlist;                                                                  \
    struct link link;    /* in the ring `locks` of the loop that used it last, unless that is  \
                            gone or it is broken */                                            \
    PyObject *left_by;   /* owned: name of the task that has ended with it, or Py_None; NULL: \
                            none has */                                                        \
    uint32_t owner;      /* number of the task that has it, of the loop of `loop_number`; 0:   \
                            none has; OWNER_GONE: it is broken, none ever will */              \
    uint64_t turn;       /* how often it has been had; a wait's `number` is which it was */    \
    uint64_t untold;     /* the turn that was handed over and whose task has not learned of it */

#define OWNER_GONE UINT32_MAX

typedef struct {
    OWNED_HEAD
} OwnedObject;

#define OWNED_OF_LINK(l) LINK_OWNER(l, OwnedObject, link)

typedef struct WaitObject WaitObject;

enum wait_outcome {
    WAIT_OPEN,     /* nothing has come of it yet */
    WAIT_GRANTED,  /* it has what it waited for; or `value` is that */
    WAIT_FAILED,   /* it will raise `value` */
    WAIT_REFUSED,  /* its kind's result() says why, for which there may have been no memory */
};

/* `await lock.acquire()` and its like; see waitobject.h. */
struct WaitObject {
    AWAIT_HEAD
    uint8_t outcome;     /* enum wait_outcome */
    uint8_t taken;       /* GRANTED, and the task has learned of it */
    uint8_t parked;
    SyncObject *object;  /* owned; see also wait_move() */
    PyObject *value;     /* owned: what is brought, or what has been got; or NULL */
    struct waitlist *waitlist; /* in `object`: where it waits, or would; NULL: its kind parks it */
    TaskObject *task;    /* borrowed while WAITING, for comparison alone unless it is parked */
    double number;       /* of its kind: how much, how urgent, which */
};

/* ---- what is waited for by a Wait ------------------------------------------------------------ */

/* The rows of Locks, Queues and the like: all begin with WAIT_KIND(), and say more. Each type has
 * one for each of its methods that wait. Only `take`, `result`, `give_back`, `describe_object`,
 * `blockers` and `go_on` may run Python. */
struct wait_kind {
    struct await_kind await;

    /* Takes what is wanted if it can be had at once: 1; 0: it cannot, and nothing has changed;
     * -1 with an exception. Asked when the await begins, and once more when its task is about to
     * be parked: Python code may have run in between. Never called while others wait that come
     * first, unless it looks at them itself. */
    int (*take)(WaitObject *wait, LoopObject *loop, TaskObject *task);

    /* What the await comes to, once granted: a new reference, or NULL with an exception. If
     * there is no such function: the value, or None. */
    PyObject *(*result)(WaitObject *wait);

    /* Granted, but nobody will ever learn of it: its coroutine was closed, or did not pass the
     * wake-up on. Must not fail. NULL: nothing to do. */
    void (*give_back)(WaitObject *wait);

    /* A parked wait has been taken away: others may have waited for it only. Must not fail.
     * NULL: nothing to do. */
    void (*left)(WaitObject *wait);

    /* New str for reports: "Lock 'db' held by task 'writer' since 3.2 s". */
    PyObject *(*describe)(PyObject *object);

    /* Number of the one task that is waited for; 0: nobody knows. NULL: likewise. */
    uint32_t (*blocker)(const WaitObject *wait);

    /* Of a parked wait that has such a blocker: what that task has, borrowed, and since when, for
     * reports. NULL: describe() tells it all. */
    PyObject *(*held)(const WaitObject *wait, int64_t *since);

    /* What a parked wait will need besides what it waits for, borrowed. NULL: nothing. */
    SyncObject *(*needs)(const WaitObject *wait);

    /* Numbers of the tasks any of which may give back what is waited for, a new list of int; the
     * same for all that wait at the object with this kind. None, or an empty list: anybody may.
     * NULL with an exception. If there is no such function: likewise, or see `blocker`. */
    PyObject *(*blockers)(PyObject *object);

    /* Parks in an order of its own: 0, or -1 with an exception. NULL: at the end of the list. */
    int (*park)(WaitObject *wait, TaskObject *task);
    void (*unpark)(WaitObject *wait, TaskObject *task);

    /* The await goes on after it has been granted, or after `exc` was thrown into it, which is
     * borrowed: 1: it has ended (with exc, if there was one), 0: it waits again, -1 with an
     * exception. NULL: it ends. */
    int (*resume)(WaitObject *wait, LoopObject *loop, TaskObject *task, PyObject *exc);
};

/* Its row of the table, with what Waits have beside the others. */
#define wait_kind(self) ((const struct wait_kind *)await_kinds[(self)->kind])

/* ---- places ---------------------------------------------------------------------------------- */

static inline void
waitlist_init(struct waitlist *waitlist)
{
    ring_init(&waitlist->tasks);
    waitlist->count = 0;
}

/* The first wait at the waitlist, borrowed, or NULL. */
static inline WaitObject *
waitlist_first(const struct waitlist *waitlist)
{
    return ring_empty(&waitlist->tasks)
               ? NULL
               : (WaitObject *)TASK_OF_LINK(waitlist->tasks.next)->payload;
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
        ring_push(&self->waitlist->tasks, &task->link);
        self->waitlist->count++;
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
        self->waitlist->count--;
    }
}

/* Takes the task from where it waits: unpark() of all Waits. */
static void
wait_unpark(Awaitable *await, LoopObject *Py_UNUSED(loop), TaskObject *task)
{
    WaitObject *self = (WaitObject *)await;
    wait_take_out(self, task);
    if (self->outcome == WAIT_OPEN && wait_kind(self)->left != NULL) {
        wait_kind(self)->left(self);
    }
}

/* Where a wait that is not parked is to be parked the next time, in an object that its kind knows
 * of. Beware: what it was to wait at before may die by it, which may run Python. */
static inline void
wait_aim(WaitObject *self, PyObject *object, struct waitlist *waitlist)
{
    SyncObject *old = self->object;
    assert(!self->parked);
    self->object = (SyncObject *)Py_NewRef(object);
    self->waitlist = waitlist;
    Py_DECREF(old);
}

/* A parked wait, and its task, to the end of another waitlist, from where no cancellation takes it
 * away. For a kind whose park() cannot fail. Beware: as wait_aim(). */
static inline void
wait_move(WaitObject *self, PyObject *object, struct waitlist *waitlist)
{
    TaskObject *task = self->task;
    SyncObject *old = self->object;
    wait_take_out(self, task);
    self->object = (SyncObject *)Py_NewRef(object);
    self->waitlist = waitlist;
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

#endif /* SLEEPLOOP_WAIT_WAITLIST_H */
