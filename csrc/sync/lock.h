/* lock.h: Lock, which one task has at a time. */
#ifndef SLEEPLOOP_LOCK_H
#define SLEEPLOOP_LOCK_H

#include "door.h"

/* Holds no object but its name. `held` is 1 while a task has it,
 * and 1 more for each that will want it back when its Condition has been notified. */
typedef struct {
    SYNC_HEAD
    struct place place;
    DoorObject enter, leave;
    ModuleState *state; /* borrowed from the module, which the type keeps: asking the type for it
                           takes as long as having the lock */
    uint32_t owner;     /* number of the task that has it, of the loop of `loop_number`; or 0 */
    uint64_t turn;      /* how often it has been had; a wait's `number` is which of these it was */
    int64_t since;      /* loop time at which it got it */
} LockObject;

static PyObject *lock_enter(PyObject *door, PyObject *const *args, size_t n_args, PyObject *kwnames);
static PyObject *lock_leave(PyObject *door, PyObject *const *args, size_t n_args, PyObject *kwnames);

static LockObject *
lock_new(PyTypeObject *type, const char *function, PyObject *name)
{
    LockObject *lock = (LockObject *)sync_new(function, type, name);
    if (lock != NULL) {
        lock->state = state_of_type(type);
        place_init(&lock->place);
        door_init(lock->state, &lock->enter, (PyObject *)lock, lock_enter);
        door_init(lock->state, &lock->leave, (PyObject *)lock, lock_leave);
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
    int stopped = doors_traverse(&lock->enter, &lock->leave, visit, arg);
    return stopped ? stopped : sync_tp_traverse(op, visit, arg);
}

static void
lock_tp_dealloc(PyObject *op)
{
    sync_dies(op);
    doors_drop(&((LockObject *)op)->enter, &((LockObject *)op)->leave);
    sync_free(op);
}

/* The task that has the lock, borrowed; NULL: none has, or it has finished. */
static TaskObject *
lock_find_owner(LockObject *lock)
{
    LoopObject *loop = begun_loop_borrowed(lock->state, lock->loop_number);
    return lock->owner != 0 && loop != NULL ? loop_find_task(loop, lock->owner) : NULL;
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

/* To the first who waits, or to nobody. */
static inline void
lock_pass_on(LockObject *lock)
{
    WaitObject *next = place_first(&lock->place);
    assert(lock->owner != 0);
    lock->owner = 0;
    lock->held--;
    if (next != NULL) {
        lock_own(lock, next->task);
        next->number = (double)lock->turn;
        wait_grant(next);
    }
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

/* 1: the task has it now; 0: another one has it; -1 with a DeadlockError: it had it before. */
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
    return 0;
}

static int
lock_take(WaitObject *wait, LoopObject *Py_UNUSED(loop), TaskObject *task)
{
    LockObject *lock = (LockObject *)wait->object;
    int taken = lock_try(lock, task, wait->kind->function);
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
    if (lock->owner != 0 && wait->number == (double)lock->turn) {
        lock_pass_on(lock);
    }
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
    .function = "Lock.acquire()",
    .take = lock_take,
    .result = wait_result_true,
    .give_back = lock_give_back,
    .describe = lock_describe,
    .blocker = lock_blocker,
    .held = lock_held,
};

static const struct wait_kind lock_enter_kind = {
    .function = "async with Lock()",
    .take = lock_take,
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

/* Whether the code that runs now is that of the task that has the lock. */
static inline int
lock_is_held_here(ModuleState *state, const LockObject *lock)
{
    LoopObject *loop = current_loop_borrowed(state);
    return (loop != NULL && loop->current != NULL && lock_is_owned(lock, loop->current))
           || (state->closing != NULL && lock_is_owned(lock, state->closing));
}

/* Whether no task can be the one that releases the lock, as no loop runs here, nor its own anywhere
 * else. Then the collector closes the coroutine of the one that has it; or somebody does by hand
 * what nobody else will. */
COLD static int
lock_is_left_behind(ModuleState *state, const LockObject *lock)
{
    return lock->owner != 0 && current_loop_borrowed(state) == NULL
           && running_loop_borrowed(state, lock->loop_number) == NULL;
}

/* Takes the lock from the task that has it. 0, or -1 with a RuntimeError: another one calls. */
static inline int
lock_release(ModuleState *state, LockObject *lock, const char *function)
{
    if (!lock_is_held_here(state, lock) && !lock_is_left_behind(state, lock)) {
        return raise_not_owner(lock, function);
    }
    lock_pass_on(lock);
    return 0;
}

/* What `async with` awaits to have the lock. A free one is had when the block is entered, not when
 * the awaitable is awaited: that comes next, and nothing has to be made for it. */
static inline PyObject *
lock_begin_block(ModuleState *state, LockObject *lock, const struct wait_kind *kind)
{
    TaskObject *task = need_current_task_borrowed(state, kind->function);
    if (task == NULL || sync_enter(state, (SyncObject *)lock, task->loop, kind->function) < 0) {
        return NULL;
    }
    if (lock->owner == 0 && task_may_go_on(task)) {
        lock_own(lock, task);
        return instant_done(state);
    }
    return (PyObject *)wait_new(state, kind, (PyObject *)lock, &lock->place, NULL);
}

static PyObject *
lock_enter(PyObject *door, PyObject *const *Py_UNUSED(args), size_t n_args, PyObject *kwnames)
{
    LockObject *lock = (LockObject *)((DoorObject *)door)->of;
    return door_check_args("Lock.__aenter__()", 0, n_args, kwnames) == 0
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

static PyObject *
lock_leave(PyObject *door, PyObject *const *args, size_t n_args, PyObject *kwnames)
{
    LockObject *lock = (LockObject *)((DoorObject *)door)->of;
    ModuleState *state = lock->state;
    if (door_check_args("Lock.__aexit__()", 3, n_args, kwnames) < 0) {
        return NULL;
    }
    if (args[0] != Py_None && !lock_is_held_here(state, lock)
        && lock_is_left_outside(state, lock, args[0])) {
        if (lock->owner != 0) {
            lock_pass_on(lock);
        }
        return instant_done(state);
    }
    return lock_release(state, lock, "async with Lock()") == 0 ? instant_done(state) : NULL;
}

/* ---- the type -------------------------------------------------------------------------------- */

PyDoc_STRVAR(lock_acquire_doc,
"acquire($self, /)\n--\n\n"
"Await it to have the lock, behind those who wait for it. Returns True.\n"
"\n"
"A lock that is free is had without switching tasks; a cancellation is raised even then.\n"
"\n"
"Raises DeadlockError if the task has it already, RuntimeError if a task of another\n"
"loop has it.\n");

static PyObject *
lock_py_acquire(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return (PyObject *)wait_new(state_of_type(Py_TYPE(op)), &lock_acquire_kind, op,
                                &((LockObject *)op)->place, NULL);
}

PyDoc_STRVAR(lock_acquire_nowait_doc,
"acquire_nowait($self, /)\n--\n\n"
"Have the lock at once.\n"
"\n"
"Raises WouldBlock if another task has it, DeadlockError if this one does.\n");

static PyObject *
lock_py_acquire_nowait(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    ModuleState *state = state_of_type(Py_TYPE(op));
    return lock_acquire_nowait(state, (LockObject *)op, "Lock.acquire_nowait()") == 0
               ? Py_NewRef(Py_None)
               : NULL;
}

PyDoc_STRVAR(lock_release_doc,
"release($self, /)\n--\n\n"
"Give the lock to the task that has waited longest, if there is one. It has it from\n"
"now on: nobody who comes before it runs can get in between.\n"
"\n"
"Raises RuntimeError unless the task that calls has the lock, or its loop does not run.\n");

static PyObject *
lock_py_release(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return lock_release(state_of_type(Py_TYPE(op)), (LockObject *)op, "Lock.release()") == 0
               ? Py_NewRef(Py_None)
               : NULL;
}

static PyObject *
lock_py_locked(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(((LockObject *)op)->owner != 0);
}

static PyObject *
lock_get_owner(PyObject *op, void *Py_UNUSED(closure))
{
    TaskObject *owner = lock_find_owner((LockObject *)op);
    return Py_NewRef(owner != NULL ? (PyObject *)owner : Py_None);
}

PyDoc_STRVAR(lock_type_doc,
"Lock(*, name=None)\n--\n\n"
"Something that one task has at a time: `async with lock`.\n"
"\n"
"First come, first served. Only the task that has it can release it.\n"
"\n"
"name: a str, for the repr and for reports.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def write(lock, seconds):\n"
"...     async with lock:\n"
"...         print(lock)\n"
"...         await sleeploop.sleep(seconds)\n"
">>> async def main():\n"
"...     lock = sleeploop.Lock(name='db')\n"
"...     async with sleeploop.TaskGroup() as group:\n"
"...         group.create_task(write(lock, 2), name='first')\n"
"...         group.create_task(write(lock, 1), name='second')\n"
"...         await sleeploop.sleep(1)\n"
"...         print(sleeploop.format_tasks().splitlines()[-1].partition(', ')[0])\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"<Lock 'db' held by task 'first' since 0.0 s>\n"
"  Task 'second' write: waiting for Lock 'db' held by task 'first' since 0.0 s\n"
"<Lock 'db' held by task 'second' since 2.0 s>\n");

static PyMethodDef lock_methods[] = {
    {"acquire", lock_py_acquire, METH_NOARGS, lock_acquire_doc},
    {"acquire_nowait", lock_py_acquire_nowait, METH_NOARGS, lock_acquire_nowait_doc},
    {"release", lock_py_release, METH_NOARGS, lock_release_doc},
    {"locked", lock_py_locked, METH_NOARGS,
     PyDoc_STR("locked($self, /)\n--\n\nWhether a task has it.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef lock_getset[] = {
    SYNC_GETTERS,
    {"owner", lock_get_owner, NULL, PyDoc_STR("The Task that has it; None: none has, or it has finished."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef lock_members[] = {
    SYNC_WEAKLIST,
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot lock_slots[] = {
    {Py_tp_doc, (void *)lock_type_doc},
    {Py_tp_new, lock_tp_new},
    {Py_tp_dealloc, lock_tp_dealloc},
    {Py_tp_traverse, lock_tp_traverse},
    {Py_tp_repr, lock_tp_repr},
    {Py_tp_methods, lock_methods},
    {Py_tp_getset, lock_getset},
    {Py_tp_members, lock_members},
    {0, NULL},
};

static PyType_Spec lock_spec = {
    .name = "sleeploop.Lock",
    .basicsize = sizeof(LockObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = lock_slots,
};

#endif /* SLEEPLOOP_LOCK_H */
