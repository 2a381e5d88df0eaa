/* lock.h: Lock, which one task has at a time. */
#ifndef SLEEPLOOP_SYNC_LOCK_H
#define SLEEPLOOP_SYNC_LOCK_H

#include "../base/clock.h"
#include "../base/compat.h"
#include "../base/ring.h"
#include "../core/loopobject.h"
#include "../core/ready.h"
#include "../core/scopetree.h"
#include "../core/state.h"
#include "../core/task.h"
#include "../core/taskobject.h"
#include "../wait/inlinemethod.h"
#include "../wait/readyawaitable.h"
#include "../wait/waitable.h"
#include "../wait/waitlist.h"
#include "../wait/waitobject.h"

/* Holds no object but its name. `held` is 1 while a task has it,
 * and 1 more for each that will want it back when its Condition has been notified. */
typedef struct {
    OWNED_HEAD
    InlineMethodObject enter, leave;
    ModuleState *state; /* borrowed from the module, which the type keeps: asking the type for it
                           takes as long as having the lock */
    int64_t since;      /* loop time at which it got it */
} LockObject;

static PyObject *lock_enter(PyObject *method, PyObject *const *args, size_t n_args,
                            PyObject *kwnames);
static PyObject *lock_leave(PyObject *method, PyObject *const *args, size_t n_args,
                            PyObject *kwnames);

static LockObject *
lock_new(PyTypeObject *type, const char *function, PyObject *name)
{
    LockObject *lock = (LockObject *)sync_new(function, type, name);
    if (lock != NULL) {
        lock->state = state_of_type(type);
        waitlist_init(&lock->waitlist);
        inline_method_init(lock->state, &lock->enter, (PyObject *)lock, lock_enter);
        inline_method_init(lock->state, &lock->leave, (PyObject *)lock, lock_leave);
    }
    return lock;
}

static PyObject *
lock_tp_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"name", NULL};
    PyObject *name = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$O:Lock", names, &name)) {
        return NULL;
    }
    return (PyObject *)lock_new(type, "Lock()", name);
}

static int
lock_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    LockObject *lock = (LockObject *)op;
    int stopped = inline_methods_traverse(&lock->enter, &lock->leave, visit, arg);
    return stopped ? stopped : sync_tp_traverse(op, visit, arg);
}

static void
lock_tp_dealloc(PyObject *op)
{
    LockObject *lock = (LockObject *)op;
    sync_dies(op);
    if (link_in_ring(&lock->link)) {
        link_remove(&lock->link);
    }
    Py_CLEAR(lock->left_by);
    inline_methods_drop(&lock->enter, &lock->leave);
    sync_free(op);
}

/* The task that has had it has ended without release(): nobody will ever have it again. */
static inline int
lock_is_broken(const LockObject *lock)
{
    return lock->owner == OWNER_GONE;
}

/* The task that has the lock, borrowed; NULL: none has, or it has finished. */
static TaskObject *
lock_find_owner(LockObject *lock)
{
    LoopObject *loop = begun_loop_borrowed(lock->state, lock->loop_number);
    return lock->owner != 0 && !lock_is_broken(lock) && loop != NULL
               ? loop_find_task(loop, lock->owner)
               : NULL;
}

/* New str: "Lock 'db' held by task 'writer' since 3.2 s" */
static PyObject *
lock_describe(PyObject *op)
{
    LockObject *lock = (LockObject *)op;
    PyObject *title = sync_title(op);
    if (lock->owner == 0 || title == NULL) {
        return title;
    }
    if (lock_is_broken(lock)) {
        PyObject *text = PyUnicode_FromFormat(
            lock->left_by != Py_None ? "%U broken by task %R, which ended without release()"
                                     : "%U broken by a task that ended without release()",
            title, lock->left_by);
        Py_DECREF(title);
        return text;
    }
    TaskObject *owner = lock_find_owner(lock);
    PyObject *since = seconds_rounded(lock->since), *name = NULL, *text = NULL;
    if (owner != NULL) {
        name = task_name(owner);
        text = name != NULL && since != NULL
                   ? PyUnicode_FromFormat("%U held by task %R since %S s", title, name, since)
                   : NULL;
    }
    else if (since != NULL) {
        text = PyUnicode_FromFormat("%U held since %S s by a task that is gone", title, since);
    }
    Py_XDECREF(since);
    Py_XDECREF(name);
    Py_DECREF(title);
    return text;
}

static PyObject *
lock_tp_repr(PyObject *op)
{
    PyObject *what = lock_describe(op);
    if (what != NULL && ((LockObject *)op)->owner == 0) {
        Py_SETREF(what, PyUnicode_FromFormat("%U unlocked", what));
    }
    return sync_repr_steal(op, what);
}

/* ---- taken and passed on --------------------------------------------------------------------- */

/* Since when a lock is had, for reports: the loop time of the first that was had in this step. To
 * ask the system each time would take as long as all the rest. */
static inline int64_t
lock_time(LoopObject *loop)
{
    if (loop->looked != loop->steps || loop->current == NULL) {
        loop->looked = loop->steps;
        loop->looked_at = clock_about_now(&loop->clock);
    }
    return loop->looked_at;
}

static inline void
lock_own(LockObject *lock, TaskObject *task)
{
    assert(lock->owner == 0);
    TaskObject *owner = task->flags & TASK_ACTS ? task_owner_borrowed(task) : task;
    if (owner->locks < LOCKS_MANY) {
        owner->locks++;
    }
    lock->owner = task_owner_number(task);
    lock->held++;
    lock->turn++;
    lock->since = lock_time(task->loop);
}

static inline int
lock_is_owned(const LockObject *lock, const TaskObject *task)
{
    return lock->owner == task_owner_number(task) && lock->loop_number == task->loop->number;
}

static void
lock_hand_over(LockObject *lock, WaitObject *next)
{
    lock_own(lock, next->task);
    lock->untold = lock->turn;
    next->number = (double)lock->turn;
    wait_grant(next);
}

/* To the first who waits, or to nobody. holder: the task that has it, or acts for that, if it is
 * known. */
static inline void
lock_pass_on(LockObject *lock, TaskObject *holder)
{
    assert(lock->owner != 0 && !lock_is_broken(lock));
    if (holder != NULL && holder->number == lock->owner && holder->locks < LOCKS_MANY) {
        holder->locks--;
    }
    lock->owner = 0;
    lock->held--;
    if (lock->waitlist.count > 0) {
        lock_hand_over(lock, waitlist_first(&lock->waitlist));
    }
}

/* Likewise when it is not known who calls, or the task that has had it has ended. */
COLD static void
lock_take_away(LockObject *lock)
{
    Py_CLEAR(lock->left_by);
    lock_pass_on(lock, NULL);
}

COLD static void
raise_broken_lock(LockObject *lock, const char *function)
{
    raise_what_steal(state_of_type(Py_TYPE(lock))->BrokenResourceError, function,
                     lock_describe((PyObject *)lock));
}

/* The current task asks for a lock that it has. */
COLD static void
raise_lock_is_own(LockObject *lock, const char *function)
{
    PyObject *text = lock_describe((PyObject *)lock);
    if (text != NULL) {
        PyErr_Format(state_of_type(Py_TYPE(lock))->DeadlockError,
                     "%s: %U, the task that asks for it: it would wait for itself for ever",
                     function, text);
        Py_DECREF(text);
    }
}

/* 1: the task has it now; 0: another one has it; -1 with a DeadlockError: it had it before; or with
 * a BrokenResourceError. */
static inline int
lock_try(LockObject *lock, TaskObject *task, const char *function)
{
    if (lock->owner == 0) {
        lock_own(lock, task);
        return 1;
    }
    if (lock->owner == task_owner_number(task)) {
        raise_lock_is_own(lock, function);
        return -1;
    }
    if (lock_is_broken(lock)) {
        raise_broken_lock(lock, function);
        return -1;
    }
    return 0;
}

static int
lock_take(WaitObject *wait, LoopObject *Py_UNUSED(loop), TaskObject *task)
{
    LockObject *lock = (LockObject *)wait->object;
    int taken = lock_try(lock, task, await_kind(wait)->function);
    if (taken > 0) {
        wait->number = (double)lock->turn;
    }
    return taken;
}

/* Unless the task has released it by itself, without learning that it had it. */
static void
lock_give_back(WaitObject *wait)
{
    LockObject *lock = (LockObject *)wait->object;
    if (lock->owner != 0 && !lock_is_broken(lock) && wait->number == (double)lock->turn) {
        lock_take_away(lock);
    }
}

/* The task learns that it has the lock; or that it was broken meanwhile: -1 with that error, else
 * 0. */
static int
lock_tell(WaitObject *wait)
{
    LockObject *lock = (LockObject *)wait->object;
    if (wait->outcome == WAIT_REFUSED) {
        raise_broken_lock(lock, await_kind(wait)->function);
        return -1;
    }
    lock->untold = 0;
    return 0;
}

static PyObject *
lock_result(WaitObject *wait)
{
    return lock_tell(wait) == 0 ? Py_NewRef(Py_None) : NULL;
}

static PyObject *
lock_result_true(WaitObject *wait)
{
    return lock_tell(wait) == 0 ? Py_NewRef(Py_True) : NULL;
}

static uint32_t
lock_blocker(const WaitObject *wait)
{
    return ((const LockObject *)wait->object)->owner;
}

static PyObject *
lock_held(const WaitObject *wait, int64_t *since)
{
    *since = ((const LockObject *)wait->object)->since;
    return (PyObject *)wait->object;
}

static const struct wait_kind lock_acquire_kind = {
    WAIT_KIND(lock_acquire_kind, "Lock.acquire()"),
    .take = lock_take,
    .result = lock_result_true,
    .give_back = lock_give_back,
    .describe = lock_describe,
    .blocker = lock_blocker,
    .held = lock_held,
};

static const struct wait_kind lock_enter_kind = {
    WAIT_KIND(lock_enter_kind, "async with Lock()"),
    .take = lock_take,
    .result = lock_result,
    .give_back = lock_give_back,
    .describe = lock_describe,
    .blocker = lock_blocker,
    .held = lock_held,
};

/* Has a free lock at once. 0, or -1 with a WouldBlock or another exception. */
static int
lock_acquire_nowait(ModuleState *state, LockObject *lock, const char *function)
{
    TaskObject *task = need_current_task_borrowed(state, function);
    if (task == NULL || sync_enter(state, (SyncObject *)lock, task->loop, function) < 0) {
        return -1;
    }
    int taken = lock_try(lock, task, function);
    if (taken == 0) {
        raise_would_block_steal(state->WouldBlock, function, lock_describe((PyObject *)lock));
    }
    return taken > 0 ? 0 : -1;
}

COLD static int
raise_not_owner(LockObject *lock, const char *function)
{
    if (lock_is_broken(lock)) {
        raise_broken_lock(lock, function);
        return -1;
    }
    PyObject *text = lock_describe((PyObject *)lock);
    if (text != NULL) {
        PyErr_Format(PyExc_RuntimeError,
                     lock->owner == 0 ? "%s: %U is not held by anyone"
                                      : "%s: %U, and only that task can release it",
                     function, text);
        Py_DECREF(text);
    }
    return -1;
}

/* The task whose code runs now, borrowed, if it is the one that has the lock, or acts for that; or
 * NULL. */
static inline TaskObject *
lock_holder_here(ModuleState *state, const LockObject *lock)
{
    LoopObject *loop = current_loop_borrowed(state);
    if (loop != NULL && loop->current != NULL && lock_is_owned(lock, loop->current)) {
        return loop->current;
    }
    return state->closing != NULL && lock_is_owned(lock, state->closing) ? state->closing : NULL;
}

/* Whether no task can be the one that releases the lock, as no loop runs here, nor its own anywhere
 * else. Then the collector closes the coroutine of the one that has it; or somebody does by hand
 * what nobody else will. */
COLD static int
lock_is_left_behind(ModuleState *state, const LockObject *lock)
{
    return lock->owner != 0 && !lock_is_broken(lock) && current_loop_borrowed(state) == NULL
           && running_loop_borrowed(state, lock->loop_number) == NULL;
}

/* Whoever waits for the lock is woken, between two steps of its loop. Beware: runs Python, so first
 * of all. */
COLD static void
lock_tell_driver(ModuleState *state, LockObject *lock)
{
    if (state->driven) {
        sync_tell_driver(state, (SyncObject *)lock);
    }
}

COLD static int
lock_release_from_elsewhere(ModuleState *state, LockObject *lock, const char *function)
{
    lock_tell_driver(state, lock);
    if (!lock_is_left_behind(state, lock)) {
        return raise_not_owner(lock, function);
    }
    lock_take_away(lock);
    return 0;
}

/* Takes the lock from the task that has it. 0, or -1 with a RuntimeError: another one calls. */
static inline int
lock_release(ModuleState *state, LockObject *lock, const char *function)
{
    TaskObject *holder = lock_holder_here(state, lock);
    if (holder == NULL) {
        return lock_release_from_elsewhere(state, lock, function);
    }
    lock_pass_on(lock, holder);
    return 0;
}

/* What `async with` awaits to have the lock. A free one is had when the block is entered, not when
 * the awaitable is awaited: that comes next, and nothing has to be made for it. */
static inline PyObject *
lock_begin_block(ModuleState *state, LockObject *lock, const struct wait_kind *kind)
{
    TaskObject *task = need_current_task_borrowed(state, kind->await.function);
    if (task == NULL || sync_enter(state, (SyncObject *)lock, task->loop, kind->await.function) < 0) {
        return NULL;
    }
    if (lock->owner == 0 && task_may_go_on(task)) {
        lock_own(lock, task);
        return ready_awaitable_done(state);
    }
    return (PyObject *)wait_new(state, kind, (PyObject *)lock, &lock->waitlist, NULL);
}

static PyObject *
lock_enter(PyObject *method, PyObject *const *Py_UNUSED(args), size_t n_args, PyObject *kwnames)
{
    LockObject *lock = (LockObject *)((InlineMethodObject *)method)->of;
    return inline_method_check_args("Lock.__aenter__()", 0, n_args, kwnames) == 0
               ? lock_begin_block(lock->state, lock, &lock_enter_kind)
               : NULL;
}

/* Whether a block of a lock that is not held here ends with that exception because a coroutine is
 * closed while its loop does not run - the collector has found both and comes to the coroutine
 * first, or somebody does it by hand - or because the loop closes an async generator that was left
 * unfinished. Nobody else will ever release the lock then. */
COLD static int
lock_is_left_outside(ModuleState *state, const LockObject *lock, PyObject *exc_type)
{
    LoopObject *loop = running_loop_borrowed(state, lock->loop_number);
    return PyErr_GivenExceptionMatches(exc_type, PyExc_GeneratorExit)
           && (loop == NULL
               || (loop->current != NULL && (loop->current->flags & TASK_HIDDEN)
                   && loop_is_of_thread(loop, PyThreadState_Get())));
}

/* The end of a block whose task does not have the lock. What the block ends with counts more than
 * that nobody has it any more. */
COLD static PyObject *
lock_leave_from_elsewhere(ModuleState *state, LockObject *lock, PyObject *exc_type)
{
    lock_tell_driver(state, lock);
    if (exc_type != Py_None && lock_is_broken(lock)) {
        return ready_awaitable_done(state);
    }
    if (exc_type != Py_None && lock_is_left_outside(state, lock, exc_type)) {
        if (lock->owner != 0) {
            lock_take_away(lock);
        }
        return ready_awaitable_done(state);
    }
    return lock_release_from_elsewhere(state, lock, "async with Lock()") == 0 ? ready_awaitable_done(state)
                                                                              : NULL;
}

static PyObject *
lock_leave(PyObject *method, PyObject *const *args, size_t n_args, PyObject *kwnames)
{
    LockObject *lock = (LockObject *)((InlineMethodObject *)method)->of;
    ModuleState *state = lock->state;
    if (inline_method_check_args("Lock.__aexit__()", 3, n_args, kwnames) < 0) {
        return NULL;
    }
    TaskObject *holder = lock_holder_here(state, lock);
    if (holder == NULL) {
        return lock_leave_from_elsewhere(state, lock, args[0]);
    }
    lock_pass_on(lock, holder);
    return ready_awaitable_done(state);
}

#endif /* SLEEPLOOP_SYNC_LOCK_H */
