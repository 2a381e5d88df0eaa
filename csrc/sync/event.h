/* event.h: Event, something that happens, and that tasks may wait for. */
#ifndef SLEEPLOOP_SYNC_EVENT_H
#define SLEEPLOOP_SYNC_EVENT_H

#include "../base/compat.h"
#include "../core/loopobject.h"
#include "../core/state.h"
#include "../core/taskobject.h"
#include "../wait/waitable.h"
#include "../wait/waitlist.h"
#include "../wait/waitobject.h"

typedef struct {
    SYNC_HEAD
    struct waitlist waitlist;
    int is_set;
} EventObject;

static PyObject *
event_tp_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"name", NULL};
    PyObject *name = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$O:Event", names, &name)) {
        return NULL;
    }
    EventObject *event = (EventObject *)sync_new("Event()", type, name);
    if (event != NULL) {
        waitlist_init(&event->waitlist);
    }
    return (PyObject *)event;
}

static PyObject *
event_describe(PyObject *op)
{
    return sync_title(op);
}

static PyObject *
event_tp_repr(PyObject *op)
{
    PyObject *title = sync_title(op);
    PyObject *what = title != NULL ? PyUnicode_FromFormat(
                         "%U%s", title, ((EventObject *)op)->is_set ? " set" : " not set")
                                   : NULL;
    Py_XDECREF(title);
    return sync_repr_steal(op, what);
}

/* ---- waiting --------------------------------------------------------------------------------- */

static int
event_take(WaitObject *wait, LoopObject *Py_UNUSED(loop), TaskObject *Py_UNUSED(task))
{
    return ((EventObject *)wait->object)->is_set;
}

static const struct wait_kind event_wait_kind = {
    WAIT_KIND(event_wait_kind, "Event.wait()"),
    .take = event_take,
    .result = wait_result_true,
    .describe = event_describe,
};

PyDoc_STRVAR(event_wait_doc,
"wait($self, /)\n--\n\n"
"Await it to wait until the event is set. Returns True.\n"
"\n"
"Who waits when set() is called has it, even if clear() comes before it runs. If it is set\n"
"already, the await does not switch tasks; a cancellation is raised even then.\n"
"\n"
"Raises RuntimeError if tasks of another loop wait for the event.\n");

static PyObject *
event_py_wait(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return (PyObject *)wait_new(state_of_type(Py_TYPE(op)), &event_wait_kind, op,
                                &((EventObject *)op)->waitlist, NULL);
}

PyDoc_STRVAR(event_set_doc,
"set($self, /)\n--\n\n"
"Let all go who wait, and whoever comes until clear().\n"
"\n"
"Raises RuntimeError if the tasks that use the event run in another thread.\n");

static PyObject *
event_py_set(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    EventObject *event = (EventObject *)op;
    if (sync_touch(state_of_type(Py_TYPE(op)), (SyncObject *)op, "Event.set()") < 0) {
        return NULL;
    }
    event->is_set = 1;
    waitlist_grant_all(&event->waitlist);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(event_clear_doc,
"clear($self, /)\n--\n\n"
"From now on wait() waits until set() is called anew.\n"
"\n"
"Raises RuntimeError if the tasks that use the event run in another thread.\n");

static PyObject *
event_py_clear(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    if (sync_touch(state_of_type(Py_TYPE(op)), (SyncObject *)op, "Event.clear()") < 0) {
        return NULL;
    }
    ((EventObject *)op)->is_set = 0;
    Py_RETURN_NONE;
}

static PyObject *
event_py_is_set(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(((EventObject *)op)->is_set);
}

/* ---- the type -------------------------------------------------------------------------------- */

PyDoc_STRVAR(event_type_doc,
"Event(*, name=None)\n--\n\n"
"Something that happens, and that tasks may wait for. Not set at first.\n"
"\n"
"name: a str, for the repr and for reports.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def guest(door):\n"
"...     await door.wait()\n"
"...     print('in at', sleeploop.current_loop().time())\n"
">>> async def main():\n"
"...     door = sleeploop.Event(name='door')\n"
"...     sleeploop.create_task(guest(door))\n"
"...     await sleeploop.sleep(3)\n"
"...     print(door)\n"
"...     door.set()\n"
"...     await sleeploop.checkpoint()\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"<Event 'door' not set, 1 waiting>\n"
"in at 3.0\n");

static PyMethodDef event_methods[] = {
    {"wait", event_py_wait, METH_NOARGS, event_wait_doc},
    {"set", event_py_set, METH_NOARGS, event_set_doc},
    {"clear", event_py_clear, METH_NOARGS, event_clear_doc},
    {"is_set", event_py_is_set, METH_NOARGS,
     PyDoc_STR("is_set($self, /)\n--\n\nWhether it has been set and not cleared.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef event_getset[] = {
    SYNC_GETTERS,
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef event_members[] = {
    SYNC_WEAKLIST,
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot event_slots[] = {
    {Py_tp_doc, (void *)event_type_doc},
    {Py_tp_new, event_tp_new},
    {Py_tp_dealloc, sync_tp_dealloc},
    {Py_tp_traverse, sync_tp_traverse},
    {Py_tp_repr, event_tp_repr},
    {Py_tp_methods, event_methods},
    {Py_tp_getset, event_getset},
    {Py_tp_members, event_members},
    {0, NULL},
};

static PyType_Spec event_spec = {
    .name = "sleeploop.Event",
    .basicsize = sizeof(EventObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = event_slots,
};

#endif /* SLEEPLOOP_SYNC_EVENT_H */
