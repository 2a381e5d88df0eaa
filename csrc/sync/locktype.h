/* locktype.h: the Lock type. Its rules are in lock.h. */
#ifndef SLEEPLOOP_SYNC_LOCKTYPE_H
#define SLEEPLOOP_SYNC_LOCKTYPE_H

#include "../base/compat.h"
#include "../core/state.h"
#include "../core/taskobject.h"
#include "../wait/waitable.h"
#include "../wait/waitobject.h"
#include "lock.h"

PyDoc_STRVAR(lock_acquire_doc,
"acquire($self, /)\n--\n\n"
"Await it to have the lock, behind those who wait for it. Returns True.\n"
"\n"
"A lock that is free is had without switching tasks; a cancellation is raised even then.\n"
"\n"
"Raises DeadlockError if the task has it already, RuntimeError if a task of another\n"
"loop has it, and BrokenResourceError when the task that has it ends without release(),\n"
"or has done so.\n");

static PyObject *
lock_py_acquire(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return (PyObject *)wait_new(state_of_type(Py_TYPE(op)), &lock_acquire_kind, op,
                                &((LockObject *)op)->waitlist, NULL);
}

PyDoc_STRVAR(lock_acquire_nowait_doc,
"acquire_nowait($self, /)\n--\n\n"
"Have the lock at once.\n"
"\n"
"Raises WouldBlock if another task has it, DeadlockError if this one does, and\n"
"BrokenResourceError if one that had it has ended without release().\n");

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
"Raises RuntimeError unless the task that calls has the lock, or its loop does not run;\n"
"BrokenResourceError if the one that had it has ended.\n");

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
"First come, first served. Only the task that has it can release it. If it ends without\n"
"doing so, the lock is broken for good: whoever wants it gets a BrokenResourceError.\n"
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
     PyDoc_STR("locked($self, /)\n--\n\nWhether a task has it, or it is broken.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef lock_getset[] = {
    SYNC_GETTERS,
    {"owner", lock_get_owner, NULL, PyDoc_STR("The Task that has it; None: none has."), NULL},
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
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = lock_slots,
};

#endif /* SLEEPLOOP_SYNC_LOCKTYPE_H */
