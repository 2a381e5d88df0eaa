/* condition.h: Condition, at which tasks that have a Lock wait until another one that has it tells
 * them that something has changed.
 */
#ifndef SLEEPLOOP_SYNC_CONDITION_H
#define SLEEPLOOP_SYNC_CONDITION_H

#include "../base/compat.h"
#include "../core/args.h"
#include "../core/state.h"
#include "../core/taskobject.h"
#include "condwait.h"
#include "lock.h"
#include "../wait/inlinemethod.h"
#include "../wait/readyawaitable.h"
#include "../wait/waitable.h"
#include "../wait/waitlist.h"
#include "../wait/waitobject.h"

static PyObject *condition_enter(PyObject *method, PyObject *const *args, size_t n_args,
                                 PyObject *kwnames);
static PyObject *condition_leave(PyObject *method, PyObject *const *args, size_t n_args,
                                 PyObject *kwnames);

static PyObject *
condition_tp_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"lock", "name", NULL};
    ModuleState *state = state_of_type(type);
    PyObject *lock = Py_None, *name = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O$O:Condition", names, &lock, &name)) {
        return NULL;
    }
    if (lock != Py_None && !Py_IS_TYPE(lock, state->LockType)) {
        raise_about(PyExc_TypeError, "%s: lock must be a sleeploop.Lock or None, not %U%s",
                    "Condition()", lock, "");
        return NULL;
    }
    ConditionObject *condition = (ConditionObject *)sync_new("Condition()", type, name);
    if (condition == NULL) {
        return NULL;
    }
    waitlist_init(&condition->waitlist);
    inline_method_init(state, &condition->enter, (PyObject *)condition, condition_enter);
    inline_method_init(state, &condition->leave, (PyObject *)condition, condition_leave);
    condition->lock = lock != Py_None ? (LockObject *)Py_NewRef(lock)
                                      : lock_new(state->LockType, "Condition()", name);
    if (condition->lock == NULL) {
        Py_DECREF(condition);
        return NULL;
    }
    return (PyObject *)condition;
}

static int
condition_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    ConditionObject *condition = (ConditionObject *)op;
    Py_VISIT(condition->lock);
    int stopped = inline_methods_traverse(&condition->enter, &condition->leave, visit, arg);
    return stopped ? stopped : sync_tp_traverse(op, visit, arg);
}

static void
condition_tp_dealloc(PyObject *op)
{
    ConditionObject *condition = (ConditionObject *)op;
    sync_dies(op);
    inline_methods_drop(&condition->enter, &condition->leave);
    Py_CLEAR(condition->lock);
    sync_free(op);
}

static PyObject *
condition_tp_repr(PyObject *op)
{
    LockObject *lock = ((ConditionObject *)op)->lock;
    PyObject *title = sync_title(op);
    PyObject *held = title != NULL ? lock_describe((PyObject *)lock) : NULL;
    PyObject *what = held != NULL ? PyUnicode_FromFormat("%U of %U%s", title, held,
                                                         lock->owner == 0 ? " unlocked" : "")
                                  : NULL;
    Py_XDECREF(held);
    Py_XDECREF(title);
    return sync_repr_steal(op, what);
}

/* ---- waiting --------------------------------------------------------------------------------- */

PyDoc_STRVAR(condition_wait_doc,
"wait($self, /)\n--\n\n"
"Await it to release the lock, wait until notify() lets the task go, and have the\n"
"lock again. Returns True.\n"
"\n"
"The task has the lock again however the await ends: if it is cancelled, or anything\n"
"is thrown into it, it waits for the lock first, and raises then. A task that has\n"
"been notified has been: if it is cancelled afterwards, the next await raises.\n"
"\n"
"Raises RuntimeError if the task does not have the lock; BrokenResourceError, and\n"
"without the lock, when a task that had it meanwhile ends without releasing it.\n");

static PyObject *
condition_py_wait(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return (PyObject *)wait_new(state_of_type(Py_TYPE(op)), &condition_wait_kind, op,
                                &((ConditionObject *)op)->waitlist, NULL);
}

PyDoc_STRVAR(condition_wait_for_doc,
"wait_for($self, predicate, /)\n--\n\n"
"Await it to wait until predicate() comes to something true, which it returns.\n"
"\n"
"predicate: a function without arguments. It is called by the task that waits, while\n"
"that has the lock: at once, and each time the task has been notified. What it raises\n"
"comes out of the await. Otherwise as wait().\n"
"\n"
"Raises TypeError for a predicate that cannot be called, RuntimeError if the task does\n"
"not have the lock.\n");

static PyObject *
condition_py_wait_for(PyObject *op, PyObject *predicate)
{
    if (!PyCallable_Check(predicate)) {
        raise_about(PyExc_TypeError, "%s takes a function without arguments, not %U%s",
                    "Condition.wait_for()", predicate, "");
        return NULL;
    }
    PyObject *pair = PyTuple_Pack(2, predicate, op);
    return pair == NULL
               ? NULL
               : (PyObject *)wait_new(state_of_type(Py_TYPE(op)), &condition_wait_for_kind, op,
                                      &((ConditionObject *)op)->waitlist, pair);
}

/* ---- notified -------------------------------------------------------------------------------- */

/* Lets the first n go, as far as there are so many: they wait for the lock now, which the caller
 * has, so that none of them can have it at once. A new None, or NULL with a RuntimeError. */
static PyObject *
condition_notify(PyObject *op, size_t n, const char *function)
{
    ConditionObject *condition = (ConditionObject *)op;
    LockObject *lock = condition->lock;
    ModuleState *state = state_of_type(Py_TYPE(op));
    TaskObject *task = need_current_task_borrowed(state, function);
    if (task == NULL || sync_enter(state, (SyncObject *)op, task->loop, function) < 0
        || condition_check_held(lock, task, function) < 0) {
        return NULL;
    }
    WaitObject *first;
    while (n-- > 0 && (first = waitlist_first(&condition->waitlist)) != NULL) {
        first->phase = CONDITION_REGAINS;
        wait_move(first, (PyObject *)lock, &lock->waitlist);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(condition_notify_doc,
"notify($self, n=1)\n--\n\n"
"Let the first n of those who wait go; fewer, if there are fewer. They have the lock\n"
"one after the other, behind those who wait for it already.\n"
"\n"
"Raises TypeError or ValueError if n is not an int of 0 or more, RuntimeError unless the\n"
"task that calls has the lock.\n");

static PyObject *
condition_py_notify(PyObject *op, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    static const char *const names[] = {"n", NULL};
    const char *function = "Condition.notify()";
    PyObject *arg;
    int64_t n = 1;
    if (args_parse(function, names, 1, 0, args, n_args, kwnames, &arg) < 0
        || (arg != NULL && sync_count_from_object(function, "n", arg, 0, COUNT_INT, &n) < 0)) {
        return NULL;
    }
    return condition_notify(op, count_as_size(n), function);
}

static PyObject *
condition_py_notify_all(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return condition_notify(op, SIZE_MAX, "Condition.notify_all()");
}

/* ---- its lock -------------------------------------------------------------------------------- */

static const struct wait_kind condition_acquire_kind = {
    WAIT_KIND(condition_acquire_kind, "Condition.acquire()"),
    .take = lock_take,
    .result = lock_result_true,
    .give_back = lock_give_back,
    .describe = lock_describe,
    .blocker = lock_blocker,
    .held = lock_held,
};

static const struct wait_kind condition_enter_kind = {
    WAIT_KIND(condition_enter_kind, "async with Condition()"),
    .take = lock_take,
    .result = lock_result,
    .give_back = lock_give_back,
    .describe = lock_describe,
    .blocker = lock_blocker,
    .held = lock_held,
};

static PyObject *
condition_enter(PyObject *method, PyObject *const *Py_UNUSED(args), size_t n_args,
                PyObject *kwnames)
{
    LockObject *lock = ((ConditionObject *)((InlineMethodObject *)method)->of)->lock;
    return inline_method_check_args("Condition.__aenter__()", 0, n_args, kwnames) == 0
               ? lock_begin_block(state_of_type(Py_TYPE(lock)), lock, &condition_enter_kind)
               : NULL;
}

/* Whether the coroutine that is closed now, while its loop does not run, is that of the task that
 * has the lock, as far as its loop can still tell. Others wait for that, or to be notified. */
COLD static int
condition_is_owners(ConditionObject *condition)
{
    TaskObject *owner = lock_find_owner(condition->lock);
    return owner == NULL || coro_is(owner->coro, CORO_RUNNING);
}

static PyObject *
condition_leave(PyObject *method, PyObject *const *args, size_t n_args, PyObject *kwnames)
{
    ConditionObject *condition = (ConditionObject *)((InlineMethodObject *)method)->of;
    LockObject *lock = condition->lock;
    ModuleState *state = state_of_type(Py_TYPE(lock));
    if (inline_method_check_args("Condition.__aexit__()", 3, n_args, kwnames) < 0) {
        return NULL;
    }
    if (args[0] != Py_None && lock_holder_here(state, lock) == NULL) {
        if (lock_is_broken(lock)) {
            return ready_awaitable_done(state);
        }
        int is_outside = lock_is_left_outside(state, lock, args[0]);
        if (is_outside && lock->owner != 0 && condition_is_owners(condition)) {
            lock_take_away(lock);
        }
        if (is_outside || state->closing != NULL) {
            /* As the loop stops, no await can follow by which it would have the lock again. */
            return ready_awaitable_done(state);
        }
    }
    return lock_release(state, lock, "async with Condition()") == 0 ? ready_awaitable_done(state) : NULL;
}

static PyObject *
condition_py_acquire(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    LockObject *lock = ((ConditionObject *)op)->lock;
    return (PyObject *)wait_new(state_of_type(Py_TYPE(op)), &condition_acquire_kind,
                                (PyObject *)lock, &lock->waitlist, NULL);
}

static PyObject *
condition_py_acquire_nowait(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    LockObject *lock = ((ConditionObject *)op)->lock;
    ModuleState *state = state_of_type(Py_TYPE(op));
    return lock_acquire_nowait(state, lock, "Condition.acquire_nowait()") == 0
               ? Py_NewRef(Py_None)
               : NULL;
}

static PyObject *
condition_py_release(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    LockObject *lock = ((ConditionObject *)op)->lock;
    return lock_release(state_of_type(Py_TYPE(op)), lock, "Condition.release()") == 0
               ? Py_NewRef(Py_None)
               : NULL;
}

static PyObject *
condition_py_locked(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(((ConditionObject *)op)->lock->owner != 0);
}

static PyObject *
condition_get_lock(PyObject *op, void *Py_UNUSED(closure))
{
    return Py_NewRef(((ConditionObject *)op)->lock);
}

/* ---- the type -------------------------------------------------------------------------------- */

PyDoc_STRVAR(condition_type_doc,
"Condition(lock=None, *, name=None)\n--\n\n"
"A Lock, and a place where those who have it wait until something has changed:\n"
"`async with condition`, and in the block wait() or notify().\n"
"\n"
"lock: the Lock, of which several Conditions may have the same one; None: one of its\n"
"    own, of the same name.\n"
"name: a str, for the repr and for reports.\n"
"\n"
"Raises TypeError for a lock of another kind.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def drink(glasses, filled):\n"
"...     async with filled:\n"
"...         await filled.wait_for(lambda: glasses)\n"
"...         print(glasses.pop(), 'at', sleeploop.current_loop().time())\n"
">>> async def main():\n"
"...     glasses, filled = [], sleeploop.Condition(name='filled')\n"
"...     sleeploop.create_task(drink(glasses, filled))\n"
"...     await sleeploop.sleep(3)\n"
"...     print(filled)\n"
"...     async with filled:\n"
"...         glasses.append('water')\n"
"...         filled.notify()\n"
"...     await sleeploop.checkpoint()\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"<Condition 'filled' of Lock 'filled' unlocked, 1 waiting>\n"
"water at 3.0\n");

static PyMethodDef condition_methods[] = {
    {"acquire", condition_py_acquire, METH_NOARGS,
     PyDoc_STR("acquire($self, /)\n--\n\nAs lock.acquire(): await it to have the lock.")},
    {"acquire_nowait", condition_py_acquire_nowait, METH_NOARGS,
     PyDoc_STR("acquire_nowait($self, /)\n--\n\n"
               "As lock.acquire_nowait(): have the lock at once, or raise WouldBlock.")},
    {"release", condition_py_release, METH_NOARGS,
     PyDoc_STR("release($self, /)\n--\n\n"
               "As lock.release(): give the lock to the task that has waited longest for it.")},
    {"locked", condition_py_locked, METH_NOARGS,
     PyDoc_STR("locked($self, /)\n--\n\nWhether a task has the lock.")},
    {"wait", condition_py_wait, METH_NOARGS, condition_wait_doc},
    {"wait_for", condition_py_wait_for, METH_O, condition_wait_for_doc},
    {"notify", (PyCFunction)(void (*)(void))condition_py_notify, METH_FASTCALL | METH_KEYWORDS,
     condition_notify_doc},
    {"notify_all", condition_py_notify_all, METH_NOARGS,
     PyDoc_STR("notify_all($self, /)\n--\n\nAs notify(), for all who wait.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef condition_getset[] = {
    SYNC_GETTERS,
    {"lock", condition_get_lock, NULL, PyDoc_STR("Its Lock."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef condition_members[] = {
    SYNC_WEAKLIST,
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot condition_slots[] = {
    {Py_tp_doc, (void *)condition_type_doc},
    {Py_tp_new, condition_tp_new},
    {Py_tp_dealloc, condition_tp_dealloc},
    {Py_tp_traverse, condition_tp_traverse},
    {Py_tp_repr, condition_tp_repr},
    {Py_tp_methods, condition_methods},
    {Py_tp_getset, condition_getset},
    {Py_tp_members, condition_members},
    {0, NULL},
};

static PyType_Spec condition_spec = {
    .name = "sleeploop.Condition",
    .basicsize = sizeof(ConditionObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = condition_slots,
};

#endif /* SLEEPLOOP_SYNC_CONDITION_H */
