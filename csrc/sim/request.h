/* request.h: Request, by which a task waits for a slot of a resource, and has it. */
#ifndef SLEEPLOOP_SIM_REQUEST_H
#define SLEEPLOOP_SIM_REQUEST_H

#include "../base/compat.h"
#include "../core/args.h"
#include "../core/awaitable.h"
#include "../core/forgotten.h"
#include "../core/kinds.h"
#include "../core/loopobject.h"
#include "../core/ready.h"
#include "../core/state.h"
#include "../core/stopwatch.h"
#include "../core/task.h"
#include "../core/taskobject.h"
#include "preempt.h"
#include "slots.h"
#include "../wait/readyawaitable.h"
#include "../wait/waitable.h"
#include "../wait/waitlist.h"
#include "../wait/waitobject.h"

/* ---- waiting --------------------------------------------------------------------------------- */

COLD static void
raise_request_cancelled(RequestObject *request)
{
    PyObject *what = resource_describe((PyObject *)request_resource(request));
    if (what != NULL) {
        PyErr_Format(state_of_type(Py_TYPE(request))->RequestCancelled,
                     "this request for %U has been withdrawn by cancel()", what);
        Py_DECREF(what);
    }
}

static int
request_take(WaitObject *wait, LoopObject *loop, TaskObject *task)
{
    RequestObject *request = (RequestObject *)wait;
    ResourceObject *resource = request_resource(request);
    if (resource->meters != NULL) {
        stopwatch_follow(&resource->meters->watch, loop);
    }
    if (request->fate == REQUEST_CANCELLED) {
        raise_request_cancelled(request);
        return -1;
    }
    if (resource->held == resource->capacity && request->preempts) {
        int outcome = slot_preempt(resource, request, task);
        if (outcome > 0 && request->fate == REQUEST_CANCELLED) {  /* by what died with the other */
            raise_request_cancelled(request);
            return -1;
        }
        if (outcome != 0 || request->fate != REQUEST_OPEN) {
            return outcome;
        }
    }
    if (resource->held == resource->capacity) {
        return 0;
    }
    if (slots_reserve(resource) < 0) {
        return -1;
    }
    slot_give(resource, request, task);
    return 1;
}

static PyObject *
request_result(WaitObject *wait)
{
    RequestObject *request = (RequestObject *)wait;
    if (wait->outcome == WAIT_REFUSED) {
        raise_request_cancelled(request);
        return NULL;
    }
    if (request->slot != NO_SLOT) {  /* else it has been released or preempted meanwhile */
        Py_INCREF(request);
        request->is_owned = 1;
    }
    return Py_NewRef(request);
}

static void
request_undo(WaitObject *wait)
{
    if (((RequestObject *)wait)->slot != NO_SLOT) {
        request_give_back((RequestObject *)wait);
    }
}

/* If there is only one slot, somebody has it. */
static uint32_t
request_blocker(const WaitObject *wait)
{
    const ResourceObject *resource = (const ResourceObject *)wait->object;
    return resource->capacity == 1 && resource->held == 1 ? resource->slots[0]->user->number : 0;
}

/* New list of the numbers of the tasks that have slots, any of which may give one back. */
static PyObject *
request_blockers(PyObject *op)
{
    ResourceObject *resource = (ResourceObject *)op;
    PyObject *numbers = PyList_New(0);
    for (uint32_t slot = 0; numbers != NULL && slot < resource->n_slots; slot++) {
        if (resource->slots[slot] != NULL) {
            numbers_append(&numbers, resource->slots[slot]->user);
        }
    }
    return numbers;
}

static const struct wait_kind request_kind = {
    WAIT_KIND(request_kind, "Resource.request()"),
    .take = request_take,
    .result = request_result,
    .give_back = request_undo,
    .describe = resource_describe,
    .blocker = request_blocker,
    .blockers = request_blockers,
    .park = request_park,
    .unpark = request_unpark,
};

/* ---- made and freed -------------------------------------------------------------------------- */

/* A finite number or an infinite one, of type int or float. 0, or -1 with an exception. */
static int
priority_from_object(const char *function, PyObject *obj, double *priority)
{
    if (PyFloat_Check(obj)) {
        *priority = PyFloat_AS_DOUBLE(obj);
    }
    else if (PyLong_Check(obj)) {
        *priority = PyLong_AsDouble(obj);
        if (*priority == -1.0 && PyErr_Occurred()) {
            raise_about(PyExc_OverflowError, "%s: priority %U%s", function, obj,
                        " is too large: it must fit in a float");
            return -1;
        }
    }
    else {
        raise_about(PyExc_TypeError, "%s: priority must be an int or a float, not %U%s", function,
                    obj, "");
        return -1;
    }
    if (isnan(*priority)) {
        PyErr_Format(PyExc_ValueError, "%s: priority must be a number, not nan", function);
        return -1;
    }
    return 0;
}

static inline PyObject *
request_new(ModuleState *state, ResourceObject *resource, double priority, int is_int,
            int preempts)
{
    RequestObject *self = PyObject_GC_New(RequestObject, state->RequestType);
    if (self == NULL) {
        return NULL;
    }
    wait_init(&self->wait, &request_kind, (PyObject *)resource, NULL, NULL);
    self->wait.number = priority;
    self->user = NULL;
    self->since = 0;
    self->turn = 0;
    self->slot = NO_SLOT;
    self->fate = REQUEST_OPEN;
    self->is_owned = 0;
    self->is_int = (uint8_t)is_int;
    self->preempts = (uint8_t)preempts;
    PyObject_GC_Track(self);
    awaitable_made(state, (PyObject *)self);
    return (PyObject *)self;
}

/* Without a tp_clear, as a Wait: what closes a cycle is a task, or a resource. */
static int
request_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(((RequestObject *)op)->user);
    return wait_tp_traverse(op, visit, arg);
}

static void
request_tp_dealloc(PyObject *op)
{
    RequestObject *self = (RequestObject *)op;
    assert(!self->is_owned && !self->wait.parked);
    if (self->slot != NO_SLOT && PyObject_CallFinalizerFromDealloc(op) < 0) {
        return;
    }
    if (await_dies(op) < 0) {
        return;
    }
    PyObject_GC_UnTrack(op);
    if (self->slot != NO_SLOT) {  /* given by the finalizer of other garbage, after its own */
        request_give_back(self);
    }
    PyTypeObject *type = Py_TYPE(op);
    Py_XDECREF(self->user);
    Py_XDECREF(self->wait.value);
    Py_DECREF(self->wait.object);
    type->tp_free(op);
    Py_DECREF(type);
}

/* ---- methods --------------------------------------------------------------------------------- */

static inline int
request_touch(RequestObject *request, const char *function)
{
    return sync_touch(state_of_type(Py_TYPE(request)), request->wait.object, function);
}

/* What has become of it, for people; the answer for REQUEST_OPEN is for one without a slot. */
static const char *
request_word(const RequestObject *request)
{
    static const char *const words[] = {
        [REQUEST_CANCELLED] = "cancelled", [REQUEST_LEFT] = "its await has ended without a slot",
        [REQUEST_RELEASED] = "released", [REQUEST_PREEMPTED] = "preempted",
    };
    if (request->fate != REQUEST_OPEN) {
        return words[request->fate];
    }
    if (request->wait.state == AWAIT_NEW) {
        return "not awaited yet";
    }
    return request->wait.state == AWAIT_DONE && !request->wait.parked ? words[REQUEST_LEFT]
                                                                      : "waiting";
}

/* Its slot is given back, because somebody says so. If its task has not learned of it yet, it never
 * will. Beware: see request_dismiss(). */
static void
request_release(RequestObject *request)
{
    int is_known = request->is_owned;
    request_give_back(request);
    if (!is_known) {
        request->fate = REQUEST_CANCELLED;
        request->wait.outcome = WAIT_REFUSED;
    }
}

PyDoc_STRVAR(request_release_doc,
"release($self, /)\n--\n\n"
"Give the slot to whoever is first in the queue, who has it from now on.\n"
"\n"
"Anybody may do that who has the request. After a preemption it does nothing: the slot\n"
"has been given away.\n"
"\n"
"Raises RuntimeError if it never had a slot, or has released it before; or if the tasks\n"
"that use the resource run in another thread.\n");

static PyObject *
request_py_release(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    RequestObject *request = (RequestObject *)op;
    if (request_touch(request, "Request.release()") < 0) {
        return NULL;
    }
    if (request->slot != NO_SLOT) {
        request_release(request);
    }
    else if (request->fate != REQUEST_PREEMPTED) {
        PyErr_Format(PyExc_RuntimeError, "Request.release(): it has no slot, it is %s",
                     request_word(request));
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(request_cancel_doc,
"cancel($self, /)\n--\n\n"
"Withdraw it: if it waits, its await raises RequestCancelled; if it has a slot, that is\n"
"released; if it has not been awaited yet, awaiting it will raise RequestCancelled.\n"
"\n"
"Returns whether there was anything to do. Raises RuntimeError if the tasks that use the\n"
"resource run in another thread.\n");

static PyObject *
request_py_cancel(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    RequestObject *request = (RequestObject *)op;
    WaitObject *wait = &request->wait;
    if (request_touch(request, "Request.cancel()") < 0) {
        return NULL;
    }
    if (request->slot != NO_SLOT) {
        request_release(request);
    }
    else if (wait->parked) {
        wait_refuse(wait);
    }
    else if (request->fate != REQUEST_OPEN || wait->state == AWAIT_DONE) {
        Py_RETURN_FALSE;
    }
    else {
        request->fate = REQUEST_CANCELLED;
        wait->excused = 1;
        if (wait->state == AWAIT_WAITING) {  /* its task is about to be parked */
            wait->outcome = WAIT_REFUSED;
        }
    }
    Py_RETURN_TRUE;
}

static PyObject *
request_py_aenter(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(op);
}

static PyObject *
request_py_aexit(PyObject *op, PyObject *const *Py_UNUSED(args), Py_ssize_t n_args)
{
    RequestObject *request = (RequestObject *)op;
    if (n_args != 3) {
        PyErr_Format(PyExc_TypeError, "Request.__aexit__() takes 3 arguments, not %zd", n_args);
        return NULL;
    }
    if (request_touch(request, "async with Resource.request()") < 0) {
        return NULL;
    }
    if (request->slot != NO_SLOT) {
        request_release(request);
    }
    return ready_awaitable_done(state_of_type(Py_TYPE(op)));
}

/* ---- attributes ------------------------------------------------------------------------------ */

static PyObject *
request_get_number(PyObject *op, void *Py_UNUSED(closure))
{
    uint32_t slot = ((RequestObject *)op)->slot;
    return slot != NO_SLOT ? PyLong_FromUnsignedLong(slot) : Py_NewRef(Py_None);
}

static PyObject *
request_get_priority(PyObject *op, void *Py_UNUSED(closure))
{
    RequestObject *request = (RequestObject *)op;
    return request->is_int ? PyLong_FromDouble(request->wait.number)
                           : PyFloat_FromDouble(request->wait.number);
}

static PyObject *
request_get_task(PyObject *op, void *Py_UNUSED(closure))
{
    TaskObject *user = ((RequestObject *)op)->user;
    return Py_NewRef(user != NULL ? (PyObject *)user : Py_None);
}

static PyObject *
request_get_since(PyObject *op, void *Py_UNUSED(closure))
{
    RequestObject *request = (RequestObject *)op;
    return request->slot != NO_SLOT ? seconds_object(request->since) : Py_NewRef(Py_None);
}

static PyObject *
request_get_resource(PyObject *op, void *Py_UNUSED(closure))
{
    return Py_NewRef(((RequestObject *)op)->wait.object);
}

static PyObject *
request_get_preempted(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((RequestObject *)op)->fate == REQUEST_PREEMPTED);
}

/* New str: "slot 0 of task 'Task-3' since 2.0 s", or what has become of it. */
static PyObject *
request_describe_state(RequestObject *request)
{
    if (request->slot == NO_SLOT) {
        return PyUnicode_FromString(request_word(request));
    }
    PyObject *name = task_name(request->user);
    PyObject *since = seconds_rounded(request->since);
    PyObject *text = name != NULL && since != NULL
                         ? PyUnicode_FromFormat("slot %lu of task %R since %S s",
                                                (unsigned long)request->slot, name, since)
                         : NULL;
    Py_XDECREF(name);
    Py_XDECREF(since);
    return text;
}

static PyObject *
request_tp_repr(PyObject *op)
{
    const char *advice = await_is_stray((Awaitable *)op) ? ", " STRAY_ADVICE : "";
    PyObject *title = sync_title((PyObject *)((RequestObject *)op)->wait.object);
    PyObject *priority = request_get_priority(op, NULL);
    PyObject *what = request_describe_state((RequestObject *)op);
    PyObject *text = title != NULL && priority != NULL && what != NULL
                         ? PyUnicode_FromFormat("<Request of %U, priority %S%s, %U>", title,
                                                priority, advice, what)
                         : NULL;
    Py_XDECREF(title);
    Py_XDECREF(priority);
    Py_XDECREF(what);
    return text;
}

/* ---- the type -------------------------------------------------------------------------------- */

PyDoc_STRVAR(request_type_doc,
"What resource.request() returns: await it, once, or enter it by `async with`, to have a\n"
"slot of the resource. Both give the request itself, which is the one to release.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def main():\n"
"...     desk = sleeploop.Resource(name='desk')\n"
"...     request = desk.request()\n"
"...     print(request)\n"
"...     slot = await request\n"
"...     print(slot is request, slot.number, slot.since)\n"
"...     slot.release()\n"
"...     print(isinstance(slot, sleeploop.Request), slot)\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"<Request of Resource 'desk', priority 0, not awaited yet>\n"
"True 0 0.0\n"
"True <Request of Resource 'desk', priority 0, released>\n");

static PyMethodDef request_methods[] = {
    {"release", request_py_release, METH_NOARGS, request_release_doc},
    {"cancel", request_py_cancel, METH_NOARGS, request_cancel_doc},
    {"__aenter__", request_py_aenter, METH_NOARGS,
     PyDoc_STR("__aenter__($self, /)\n--\n\nWait for a slot.")},
    {"__aexit__", (PyCFunction)(void (*)(void))request_py_aexit, METH_FASTCALL,
     PyDoc_STR("__aexit__($self, exc_type, exc, tb, /)\n--\n\n"
               "Release the slot, unless it has been released, or taken away.")},
    AWAIT_METHODS,
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef request_getset[] = {
    AWAIT_GETTERS,
    {"resource", request_get_resource, NULL, PyDoc_STR("The Resource."), NULL},
    {"number", request_get_number, NULL,
     PyDoc_STR("The number of its slot, from 0; None while it has none."), NULL},
    {"priority", request_get_priority, NULL,
     PyDoc_STR("How urgent it is: the lower, the more. Compared as a float."), NULL},
    {"task", request_get_task, NULL,
     PyDoc_STR("The Task that waits or has the slot; None before and afterwards."), NULL},
    {"since", request_get_since, NULL,
     PyDoc_STR("Loop time in seconds at which it got its slot; None while it has none."), NULL},
    {"preempted", request_get_preempted, NULL,
     PyDoc_STR("Whether a more urgent request has taken its slot away."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot request_slots[] = {
    {Py_tp_doc, (void *)request_type_doc},
    {Py_tp_dealloc, request_tp_dealloc},
    {Py_tp_finalize, wait_tp_finalize},
    {Py_tp_traverse, request_tp_traverse},
    {Py_tp_repr, request_tp_repr},
    AWAIT_SLOTS(PyObject_SelfIter),
    {Py_tp_methods, request_methods},
    {Py_tp_getset, request_getset},
    {0, NULL},
};

static PyType_Spec request_spec = {
    .name = "sleeploop.Request",
    .basicsize = sizeof(RequestObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = request_slots,
};

#endif /* SLEEPLOOP_SIM_REQUEST_H */
