/* condwait.h: how tasks wait at a Condition, and get its lock again.
 *
 * Who waits has given the lock away, and has it again when the await ends, however it ends. A
 * task that is notified is not woken: its wait is moved to the lock, behind those who wait for
 * that, and it wakes when the lock is its own. One that something is thrown into goes the same
 * way, and raises it then. So there are two things only that make an await end without the lock:
 * its coroutine is closed while it waits, and no await can follow; or the lock is broken.
 */
#ifndef SLEEPLOOP_SYNC_CONDWAIT_H
#define SLEEPLOOP_SYNC_CONDWAIT_H

#include "../base/compat.h"
#include "../base/ring.h"
#include "../core/awaitable.h"
#include "../core/kinds.h"
#include "../core/loopobject.h"
#include "../core/state.h"
#include "../core/taskobject.h"
#include "lock.h"
#include "../wait/inlinemethod.h"
#include "../wait/waitable.h"
#include "../wait/waitlist.h"
#include "../wait/waitobject.h"

/* The lock holds nothing, so that a Condition cannot be part of a cycle. */
typedef struct {
    SYNC_HEAD
    struct waitlist waitlist;  /* who waits to be notified */
    InlineMethodObject enter, leave;
    LockObject *lock;    /* owned */
} ConditionObject;

enum condition_phase {
    CONDITION_HOLDS,      /* its task has the lock: it has not waited yet, or not since the
                             predicate was looked at the last time */
    CONDITION_EVALUATES,  /* likewise, and the predicate is being called */
    CONDITION_WAITS,      /* for notify(), at the Condition; the lock has been given away */
    CONDITION_REGAINS,    /* for the lock, and it is `firm`; its object is the Lock */
    CONDITION_FAILS,      /* likewise, to raise `value` then */
};

/* The value of a wait_for() is a tuple until it has its result, or its exception. */
enum { PAIR_PREDICATE, PAIR_CONDITION };

static inline LockObject *
condition_wait_lock(const WaitObject *wait)
{
    return wait->firm ? (LockObject *)wait->object : ((ConditionObject *)wait->object)->lock;
}

/* -1 with a RuntimeError or BrokenResourceError unless the task has the lock, else 0. */
static int
condition_check_held(LockObject *lock, const TaskObject *task, const char *function)
{
    if (lock_is_owned(lock, task)) {
        return 0;
    }
    if (lock_is_broken(lock)) {
        raise_broken_lock(lock, function);
        return -1;
    }
    PyObject *text = lock_describe((PyObject *)lock);
    if (text != NULL) {
        const char *why = lock->owner != 0             ? ""
                          : !(task->flags & TASK_ACTS) ? " is not held by anyone"
                                                       : " is not held by anyone; of Conditions that "
                                                         "share a lock, only one can be waited for";
        PyErr_Format(PyExc_RuntimeError, "%s is for the task that has the lock: %U%s", function,
                     text, why);
        Py_DECREF(text);
    }
    return -1;
}

/* Which of the two it waits at. */
static PyObject *
condition_describe(PyObject *object)
{
    return Py_TYPE(object) == state_of_type(Py_TYPE(object))->LockType ? lock_describe(object)
                                                                       : sync_title(object);
}

/* Nobody knows who will notify. */
static uint32_t
condition_blocker(const WaitObject *wait)
{
    return wait->firm ? ((LockObject *)wait->object)->owner : 0;
}

/* Who waits to be notified will need the lock. */
static SyncObject *
condition_needs(const WaitObject *wait)
{
    return (SyncObject *)condition_wait_lock(wait);
}

/* From the last look at it until here no other task has had the lock. While it waits it counts
 * as one who has something of the lock, so that no other loop can take that away. */
static int
condition_park(WaitObject *wait, TaskObject *task)
{
    LockObject *lock = condition_wait_lock(wait);
    ring_push(&wait->waitlist->tasks, &task->link);
    wait->waitlist->count++;
    if (!wait->firm) {
        lock->held++;
    }
    if (wait->phase == CONDITION_HOLDS) {
        wait->phase = CONDITION_WAITS;
        lock_pass_on(lock, task);
    }
    return 0;
}

static void
condition_unpark(WaitObject *wait, TaskObject *task)
{
    link_remove(&task->link);
    wait->waitlist->count--;
    if (!wait->firm) {
        condition_wait_lock(wait)->held--;
    }
}

static int
condition_take(WaitObject *wait, LoopObject *Py_UNUSED(loop), TaskObject *task)
{
    LockObject *lock = condition_wait_lock(wait);
    switch (wait->phase) {
    case CONDITION_HOLDS:
        return condition_check_held(lock, task, await_kind(wait)->function);
    case CONDITION_REGAINS:
    case CONDITION_FAILS:
        if (lock->owner == 0) {
            lock_own(lock, task);
        }
        wait->number = (double)lock->turn;  /* for lock_give_back() */
        return lock_is_owned(lock, task) ? 1
               : lock_is_broken(lock)    ? condition_check_held(lock, task, await_kind(wait)->function)
                                         : 0;
    default:  /* it was cancelled, and yields the same trap once more instead */
        return 0;
    }
}

/* Calls the predicate: 1, and the wait's value is what it came to; 0: it does not hold; -1 with
 * an exception. Beware: may run Python, in which somebody may misuse the wait. */
static int
condition_evaluate(WaitObject *wait)
{
    PyObject *pair = Py_NewRef(wait->value);
    wait->phase = CONDITION_EVALUATES;
    PyObject *value = PyObject_CallNoArgs(PyTuple_GET_ITEM(pair, PAIR_PREDICATE));
    int holds = value != NULL ? PyObject_IsTrue(value) : -1;
    wait->phase = CONDITION_HOLDS;
    if (holds > 0) {
        Py_SETREF(wait->value, Py_NewRef(value));
    }
    Py_XDECREF(value);
    Py_DECREF(pair);
    return holds;
}

static int
condition_take_for(WaitObject *wait, LoopObject *loop, TaskObject *task)
{
    if (wait->phase == CONDITION_EVALUATES) {
        (void)await_used_up((Awaitable *)wait);
        return -1;
    }
    int taken = condition_take(wait, loop, task);
    /* Waiting: it is about to be parked, and the value has been looked at. */
    return taken == 0 && wait->state != AWAIT_WAITING ? condition_evaluate(wait) : taken;
}

/* The task has the lock again, and this is the end of having waited for it. */
static void
condition_regained(WaitObject *wait)
{
    condition_wait_lock(wait)->untold = 0;
    wait->outcome = WAIT_OPEN;  /* nothing is left to give back */
    wait->phase = CONDITION_HOLDS;
}

/* The task will never have the lock again, and the exception that is set says why. exc: what was
 * to be raised with it, or NULL. Always -1. */
COLD static int
condition_lost(WaitObject *wait, PyObject *exc)
{
    if (exc != NULL) {
        PyObject *error = PyErr_GetRaisedException();
        PyException_SetContext(error, Py_NewRef(exc));
        PyErr_SetRaisedException(error);
    }
    condition_regained(wait);
    return -1;
}

/* Something was thrown into a task that waits, or does not any more. */
static int
condition_thrown(WaitObject *wait, LoopObject *loop, TaskObject *task, PyObject *exc)
{
    LockObject *lock = condition_wait_lock(wait);
    if (lock_is_broken(lock)) {
        raise_broken_lock(lock, await_kind(wait)->function);
        return condition_lost(wait, exc);
    }
    if (sync_enter(loop->state, (SyncObject *)lock, loop, await_kind(wait)->function) < 0) {
        return condition_lost(wait, exc);
    }
    if (lock->owner == 0) {
        lock_own(lock, task);
    }
    if (lock_is_owned(lock, task)) {
        condition_regained(wait);
        return 1;
    }
    PyObject *old = wait->value;
    wait->value = Py_NewRef(exc);
    wait->phase = CONDITION_FAILS;
    wait->firm = 1;
    wait_aim(wait, (PyObject *)lock, &lock->waitlist);
    Py_XDECREF(old);
    return 0;
}

/* The end of wait(), and what wait_for() begins with after each notification. */
static int
condition_resume(WaitObject *wait, LoopObject *loop, TaskObject *task, PyObject *exc)
{
    if (wait->phase <= CONDITION_EVALUATES) {
        return 1;  /* cancelled before it was parked: the lock is still there */
    }
    if (wait->outcome == WAIT_REFUSED) {
        raise_broken_lock(condition_wait_lock(wait), await_kind(wait)->function);
        return condition_lost(wait, exc != NULL ? exc
                                    : wait->phase == CONDITION_FAILS ? wait->value
                                                                     : NULL);
    }
    if (wait->outcome != WAIT_GRANTED) {
        return condition_thrown(wait, loop, task, exc);
    }
    int fails = wait->phase == CONDITION_FAILS;
    condition_regained(wait);
    if (fails && exc == NULL) {
        PyObject *error = wait->value;
        wait->value = NULL;
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
        return -1;
    }
    return 1;
}

static int
condition_resume_for(WaitObject *wait, LoopObject *loop, TaskObject *task, PyObject *exc)
{
    int ended = condition_resume(wait, loop, task, exc);
    if (ended <= 0 || exc != NULL) {
        return ended;
    }
    ConditionObject *condition =
        (ConditionObject *)Py_NewRef(PyTuple_GET_ITEM(wait->value, PAIR_CONDITION));
    ended = condition_evaluate(wait);
    if (ended == 0) {
        ended = sync_enter(loop->state, (SyncObject *)condition, loop, await_kind(wait)->function);
        wait->firm = 0;
        wait_aim(wait, (PyObject *)condition, &condition->waitlist);
    }
    Py_DECREF(condition);
    return ended;
}

/* Had again, but nobody has resumed the await. A task that closes its own keeps the lock, which
 * what is around the await will release; if its coroutine is closed, the lock is for the next. */
static void
condition_give_back(WaitObject *wait)
{
    LoopObject *loop = current_loop_borrowed(state_of_type(Py_TYPE(wait)));
    int is_its_own = wait->state == AWAIT_WAITING && loop != NULL && loop->current != NULL
                     && loop->current == wait->task;
    if (wait->phase >= CONDITION_REGAINS && !is_its_own) {
        lock_give_back(wait);
    }
}

static const struct wait_kind condition_wait_kind = {
    WAIT_KIND(condition_wait_kind, "Condition.wait()"),
    .take = condition_take,
    .result = wait_result_true,
    .give_back = condition_give_back,
    .describe = condition_describe,
    .blocker = condition_blocker,
    .park = condition_park,
    .unpark = condition_unpark,
    .needs = condition_needs,
    .resume = condition_resume,
};

static const struct wait_kind condition_wait_for_kind = {
    WAIT_KIND(condition_wait_for_kind, "Condition.wait_for()"),
    .take = condition_take_for,
    .give_back = condition_give_back,
    .describe = condition_describe,
    .blocker = condition_blocker,
    .park = condition_park,
    .unpark = condition_unpark,
    .needs = condition_needs,
    .resume = condition_resume_for,
};

#endif /* SLEEPLOOP_SYNC_CONDWAIT_H */
