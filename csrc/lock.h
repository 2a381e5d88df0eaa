/* lock.h: Lock, which one task has at a time. */
#ifndef SLEEPLOOP_LOCK_H
#define SLEEPLOOP_LOCK_H

#include "sync.h"

typedef struct {
    SYNC_HEAD
    struct place place;
    TaskObject *owner;  /* owned: who has it, or NULL */
    int64_t since;      /* loop time at which it got it */
} LockObject;

static LockObject *
lock_new(PyTypeObject *type, const char *function, PyObject *name)
{
    LockObject *lock = (LockObject *)sync_new(function, type, name);
    if (lock != NULL) {
        place_init(&lock->place);
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

/* New str: "Lock 'db' held by task 'writer' since 3.2 s" */
static PyObject *
lock_describe(PyObject *op)
{
    LockObject *lock = (LockObject *)op;
    TaskObject *owner = lock->owner;
    PyObject *title = sync_title(op);
    if (owner == NULL || title == NULL) {
        return title;
    }
    PyObject *name = task_name(owner), *since = seconds_rounded(lock->since), *text = NULL;
    if (name != NULL && since != NULL) {
        text = PyUnicode_FromFormat("%U held by task %R since %S s%s", title, name, since,
                                    task_done(owner) ? ", which has finished" : "");
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
    if (what != NULL && ((LockObject *)op)->owner == NULL) {
        Py_SETREF(what, PyUnicode_FromFormat("%U unlocked", what));
    }
    return sync_repr_steal(op, what);
}

/* ---- taken and passed on --------------------------------------------------------------------- */

static inline void
lock_own(LockObject *lock, TaskObject *task)
{
    lock->owner = (TaskObject *)Py_NewRef(task);
    lock->since = clock_about_now(&task->loop->clock);
}

/* To the first who waits, or to nobody. Returns the former owner, whose reference is the
 * caller's now, or NULL. */
static TaskObject *
lock_pass_on(LockObject *lock)
{
    TaskObject *old = lock->owner;
    WaitObject *next = place_first(&lock->place);
    lock->owner = NULL;
    if (next != NULL) {
        lock_own(lock, next->task);
        wait_grant(next);
    }
    return old;
}

/* Whether the task may wait for whoever has the lock: 0, or -1 with an exception. */
COLD static int
lock_check_wait(LockObject *lock, TaskObject *task, const char *function)
{
    TaskObject *owner = lock->owner;
    const char *why = NULL;
    PyObject *type = task->loop->state->DeadlockError;
    if (owner == task) {
        why = ", the task that asks for it: it would wait for itself for ever";
    }
    else if (task_done(owner)) {
        why = ": nobody can release it any more";
    }
    else if (owner->loop != task->loop) {
        why = " of another loop";
        type = PyExc_RuntimeError;
    }
    if (why == NULL) {
        return 0;
    }
    PyObject *text = lock_describe((PyObject *)lock);
    if (text != NULL) {
        PyErr_Format(type, "%s: %U%s", function, text, why);
        Py_DECREF(text);
    }
    return -1;
}

static int
lock_take(WaitObject *wait, LoopObject *Py_UNUSED(loop), TaskObject *task)
{
    LockObject *lock = (LockObject *)wait->object;
    if (lock->owner == NULL) {
        lock_own(lock, task);
        return 1;
    }
    return lock_check_wait(lock, task, wait->kind->function);
}

static void
lock_give_back(WaitObject *wait)
{
    Py_XDECREF(lock_pass_on((LockObject *)wait->object));
}

static uint32_t
lock_blocker(const WaitObject *wait)
{
    const LockObject *lock = (const LockObject *)wait->object;
    return lock->owner != NULL ? lock->owner->number : 0;
}

static const struct wait_kind lock_acquire_kind = {
    .function = "Lock.acquire()",
    .take = lock_take,
    .result = wait_result_true,
    .give_back = lock_give_back,
    .describe = lock_describe,
    .blocker = lock_blocker,
};

static const struct wait_kind lock_enter_kind = {
    .function = "async with Lock()",
    .take = lock_take,
    .give_back = lock_give_back,
    .describe = lock_describe,
    .blocker = lock_blocker,
};

/* Takes the lock from the current task. 0, or -1 with a RuntimeError. */
static inline int
lock_release(ModuleState *state, LockObject *lock, const char *function)
{
    LoopObject *loop = current_loop_borrowed(state);
    if (lock->owner == NULL || loop == NULL || lock->owner != loop->current) {
        PyObject *text = lock_describe((PyObject *)lock);
        if (text != NULL) {
            PyErr_Format(PyExc_RuntimeError,
                         lock->owner == NULL ? "%s: %U is not held by anyone"
                                             : "%s: %U, and only that task can release it",
                         function, text);
            Py_DECREF(text);
        }
        return -1;
    }
    Py_DECREF(lock_pass_on(lock));
    return 0;
}

/* ---- the type -------------------------------------------------------------------------------- */

PyDoc_STRVAR(lock_acquire_doc,
"acquire($self, /)\n--\n\n"
"Await it to have the lock, behind those who wait for it. Returns True.\n"
"\n"
"A lock that is free is had without switching tasks; a cancellation is raised even then.\n"
"\n"
"Raises DeadlockError if the task has it already, or if a task has it that has\n"
"finished; RuntimeError if a task of another loop has it.\n");

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
    LockObject *lock = (LockObject *)op;
    ModuleState *state = state_of_type(Py_TYPE(op));
    const char *function = "Lock.acquire_nowait()";
    TaskObject *task = need_current_task_borrowed(state, function);
    if (task == NULL || sync_enter(state, (SyncObject *)op, task->loop, function) < 0) {
        return NULL;
    }
    if (lock->owner != NULL) {
        if (lock->owner == task) {
            (void)lock_check_wait(lock, task, function);
        }
        else {
            raise_would_block(state, lock_describe(op));
        }
        return NULL;
    }
    lock_own(lock, task);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(lock_release_doc,
"release($self, /)\n--\n\n"
"Give the lock to the task that has waited longest, if there is one. It has it from\n"
"now on: nobody who comes before it runs can get in between.\n"
"\n"
"Raises RuntimeError unless the task that calls has the lock.\n");

static PyObject *
lock_py_release(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return lock_release(state_of_type(Py_TYPE(op)), (LockObject *)op, "Lock.release()") == 0
               ? Py_NewRef(Py_None)
               : NULL;
}

/* A free lock is had when the block is entered, not when the awaitable is awaited: that comes
 * next, and nothing has to be made for it. */
static PyObject *
lock_py_aenter(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    LockObject *lock = (LockObject *)op;
    ModuleState *state = state_of_type(Py_TYPE(op));
    TaskObject *task = need_current_task_borrowed(state, "async with Lock()");
    if (task == NULL
        || sync_enter(state, (SyncObject *)op, task->loop, "async with Lock()") < 0) {
        return NULL;
    }
    if (lock->owner == NULL && task_may_go_on(task)) {
        lock_own(lock, task);
        return instant_done(state);
    }
    return (PyObject *)wait_new(state, &lock_enter_kind, op, &lock->place, NULL);
}

static PyObject *
lock_py_aexit(PyObject *op, PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(n_args))
{
    ModuleState *state = state_of_type(Py_TYPE(op));
    return lock_release(state, (LockObject *)op, "async with Lock()") == 0 ? instant_done(state)
                                                                           : NULL;
}

static PyObject *
lock_py_locked(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(((LockObject *)op)->owner != NULL);
}

static PyObject *
lock_get_owner(PyObject *op, void *Py_UNUSED(closure))
{
    TaskObject *owner = ((LockObject *)op)->owner;
    return Py_NewRef(owner != NULL ? (PyObject *)owner : Py_None);
}

static int
lock_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((LockObject *)op)->owner);
    return 0;
}

static int
lock_tp_clear(PyObject *op)
{
    Py_CLEAR(((LockObject *)op)->owner);
    return 0;
}

static void
lock_tp_dealloc(PyObject *op)
{
    sync_dies(op);
    (void)lock_tp_clear(op);
    sync_free(op);
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
    {"__aenter__", lock_py_aenter, METH_NOARGS, NULL},
    {"__aexit__", (PyCFunction)(void (*)(void))lock_py_aexit, METH_FASTCALL, NULL},
    {"acquire", lock_py_acquire, METH_NOARGS, lock_acquire_doc},
    {"acquire_nowait", lock_py_acquire_nowait, METH_NOARGS, lock_acquire_nowait_doc},
    {"release", lock_py_release, METH_NOARGS, lock_release_doc},
    {"locked", lock_py_locked, METH_NOARGS,
     PyDoc_STR("locked($self, /)\n--\n\nWhether a task has it.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef lock_getset[] = {
    SYNC_NAME_GETTER,
    {"owner", lock_get_owner, NULL, PyDoc_STR("The Task that has it, or None."), NULL},
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
    {Py_tp_clear, lock_tp_clear},
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
