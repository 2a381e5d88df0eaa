/* channelends.h: open_channel(), and the two types that it makes. The rules are in channel.h. */
#ifndef SLEEPLOOP_SYNC_CHANNELENDS_H
#define SLEEPLOOP_SYNC_CHANNELENDS_H

#include "../base/compat.h"
#include "../core/args.h"
#include "../core/state.h"
#include "../wait/handoff.h"
#include "../wait/readyawaitable.h"
#include "../wait/waitable.h"
#include "../wait/waitobject.h"
#include "channel.h"

/* ---- made, closed and freed ------------------------------------------------------------------ */

/* One more open end of the channel. Borrows all. */
static PyObject *
end_new(ModuleState *state, ChannelObject *channel, int sends, PyObject *name)
{
    PyTypeObject *type = sends ? state->SendChannelType : state->ReceiveChannelType;
    EndObject *end = (EndObject *)sync_new("open_channel()", type, name);
    if (end != NULL) {
        end->channel = (ChannelObject *)Py_NewRef(channel);
        end->sends = (uint8_t)sends;
        ++*(sends ? &channel->send_ends : &channel->receive_ends);
    }
    return (PyObject *)end;
}

/* Without a tp_clear: a parked task finds the list in which it stands by the end. A cycle through
 * one leads through what is buffered, or through a task, and these break it. */
static int
end_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((EndObject *)op)->channel);
    return 0;
}

/* Closes it. Not in a tp_finalize: in a garbage cycle a coroutine with a `finally` may still want
 * to use the end, and whose finalizer comes first is chance. */
static void
end_tp_dealloc(PyObject *op)
{
    EndObject *end = (EndObject *)op;
    PyObject_GC_UnTrack(op);
    /* What is buffered may hold the last end of the next channel, 100,000 in a row. */
    Py_TRASHCAN_BEGIN(op, end_tp_dealloc)
    sync_dies(op);
    if (end->channel != NULL) {
        end_close(end);
        Py_CLEAR(end->channel);
    }
    sync_free(op);
    Py_TRASHCAN_END
}

static PyObject *
end_py_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    EndObject *end = (EndObject *)op;
    const char *function = end->sends ? "SendChannel.close()" : "ReceiveChannel.close()";
    if (!end->closed) {
        if (channel_touch(end, function) < 0) {  /* it is not for this thread to close it */
            return NULL;
        }
        end_close(end);
    }
    Py_RETURN_NONE;
}

static PyObject *
end_py_aclose(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    PyObject *none = end_py_close(op, NULL);
    Py_XDECREF(none);
    return none != NULL ? ready_awaitable_done(state_of_type(Py_TYPE(op))) : NULL;
}

static PyObject *
end_py_enter(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(op);
}

static PyObject *
end_py_exit(PyObject *op, PyObject *const *args, Py_ssize_t n_args)
{
    PyObject *exc;
    return exit_args("__exit__()", args, n_args, &exc) == 0 ? end_py_close(op, NULL) : NULL;
}

static PyObject *
end_py_aenter(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return ready_awaitable_new_steal(state_of_type(Py_TYPE(op)), Py_NewRef(op), NULL);
}

static PyObject *
end_py_aexit(PyObject *op, PyObject *const *args, Py_ssize_t n_args)
{
    PyObject *exc;
    return exit_args("__aexit__()", args, n_args, &exc) == 0 ? end_py_aclose(op, NULL) : NULL;
}

static PyObject *
end_py_clone(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    EndObject *end = (EndObject *)op;
    const char *function = end->sends ? "SendChannel.clone()" : "ReceiveChannel.clone()";
    if (channel_touch(end, function) < 0
        || (end->closed && end_raise(end, CHANNEL_CLOSED, function) < 0)) {
        return NULL;
    }
    return end_new(state_of_type(Py_TYPE(op)), end->channel, end->sends, end->name);
}

static PyObject *
end_get_closed(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((EndObject *)op)->closed);
}

static PyObject *
end_tp_repr(PyObject *op)
{
    EndObject *end = (EndObject *)op;
    ChannelObject *channel = end->channel;
    char limit[32] = "", open[80] = "";
    if (channel->hand.capacity != SIZE_MAX) {
        PyOS_snprintf(limit, sizeof limit, " of %zu", channel->hand.capacity);
    }
    if (channel->send_ends != 1 || channel->receive_ends != 1) {
        PyOS_snprintf(open, sizeof open, ", open ends: %zu to send, %zu to receive",
                      channel->send_ends, channel->receive_ends);
    }
    return sync_repr_steal(op, titled(op, " (%s%zu%s buffered%s)", end->closed ? "closed, " : "",
                                      channel->hand.items.len, limit, open));
}

/* The awaitable of one of its methods. Steals value. */
static PyObject *
end_wait_new(PyObject *op, const struct wait_kind *kind, struct waitlist *waitlist,
             PyObject *value_steal)
{
    EndObject *end = (EndObject *)op;
    end->loop_number = end->channel->loop_number;
    return (PyObject *)wait_new(state_of_type(Py_TYPE(op)), kind, op, waitlist, value_steal);
}

/* ---- SendChannel ----------------------------------------------------------------------------- */

PyDoc_STRVAR(send_doc,
"send($self, value, /)\n--\n\n"
"Await it to send the value: to the first task that waits to receive, or else into the\n"
"buffer, or else when there is room in it, behind those who wait for that already.\n"
"\n"
"It has been sent when the await returns; if it is cancelled, it has not been.\n"
"\n"
"Raises ClosedResourceError if this end has been closed, even while it waits, and\n"
"BrokenResourceError if all receive ends have been; RuntimeError if tasks of another loop\n"
"wait at the channel. Who need not wait does not switch tasks; a cancellation is raised even\n"
"then.\n");

static PyObject *
send_py_send(PyObject *op, PyObject *value)
{
    return end_wait_new(op, &send_kind, &((EndObject *)op)->channel->hand.putters, Py_NewRef(value));
}

PyDoc_STRVAR(send_nowait_doc,
"send_nowait($self, value, /)\n--\n\n"
"Send the value at once. It needs no task.\n"
"\n"
"Raises WouldBlock if it would have to wait, and whatever send() raises.\n");

static PyObject *
send_py_send_nowait(PyObject *op, PyObject *value)
{
    EndObject *end = (EndObject *)op;
    const char *function = "SendChannel.send_nowait()";
    int done = channel_touch(end, function) == 0 && end_check(end, function) == 0
                   ? handoff_put(&end->channel->hand, value)
                   : -1;
    if (done == 0) {
        raise_would_block_steal(state_of_type(Py_TYPE(op))->WouldBlock, function, end_describe(op));
    }
    return done > 0 ? Py_NewRef(Py_None) : NULL;
}

PyDoc_STRVAR(send_type_doc,
"The end of a channel at which values are sent; open_channel() makes it.\n"
"\n"
"`with send_channel` closes it in the end, and so does `async with`. When all send ends\n"
"are closed, those who receive get what is left, and then the end of the channel. An end\n"
"that nobody refers to any more counts as closed.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def produce(send_channel, name):\n"
"...     with send_channel:\n"
"...         for number in (1, 2):\n"
"...             await send_channel.send(f'{name} {number}')\n"
">>> async def main():\n"
"...     send_channel, receive_channel = sleeploop.open_channel(0)\n"
"...     with send_channel:\n"
"...         sleeploop.create_task(produce(send_channel.clone(), 'A'))\n"
"...         sleeploop.create_task(produce(send_channel.clone(), 'B'))\n"
"...     async for value in receive_channel:\n"
"...         print(value)\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"A 1\n"
"A 2\n"
"B 1\n"
"B 2\n");

#define CLOSE_DOC                                                                              \
    "close($self, /)\n--\n\n"                                                                  \
    "Close this end. Those who wait at it get a ClosedResourceError; its clones stay open.\n"   \
    "Closing it once more does nothing.\n"                                                     \
    "\n"                                                                                       \
    "Raises RuntimeError if the tasks that use the channel run in another thread.\n"

#define ACLOSE_DOC                                                                             \
    "aclose($self, /)\n--\n\n"                                                                 \
    "close(), and then something to await, for what closes things that way. It neither\n"       \
    "waits nor raises CancelledError.\n"

#define CLOSED_GETTER                                                                          \
    {"closed", end_get_closed, NULL, PyDoc_STR("Whether this end has been closed, a bool."), NULL}

#define END_METHODS                                                                            \
    {"close", end_py_close, METH_NOARGS, PyDoc_STR(CLOSE_DOC)},                                \
    {"aclose", end_py_aclose, METH_NOARGS, PyDoc_STR(ACLOSE_DOC)},                             \
    {"__enter__", end_py_enter, METH_NOARGS, NULL},                                            \
    {"__exit__", (PyCFunction)(void (*)(void))end_py_exit, METH_FASTCALL,                      \
     PyDoc_STR("Closes it.")},                                                                 \
    {"__aenter__", end_py_aenter, METH_NOARGS, NULL},                                          \
    {"__aexit__", (PyCFunction)(void (*)(void))end_py_aexit, METH_FASTCALL,                    \
     PyDoc_STR("Closes it.")},                                                                 \
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS,                                \
     PyDoc_STR("Of what type the values are, for type checkers.")}

static PyMethodDef send_methods[] = {
    {"send", send_py_send, METH_O, send_doc},
    {"send_nowait", send_py_send_nowait, METH_O, send_nowait_doc},
    {"clone", end_py_clone, METH_NOARGS,
     PyDoc_STR("clone($self, /)\n--\n\n"
               "Another send end of the same channel, with the same name; each is closed by\n"
               "itself. So each task that sends can have, and close, its own.\n"
               "\n"
               "Raises ClosedResourceError if this one has been closed.\n")},
    END_METHODS,
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef end_getset[] = {
    SYNC_GETTERS,
    CLOSED_GETTER,
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot send_channel_slots[] = {
    {Py_tp_doc, (void *)send_type_doc},
    {Py_tp_dealloc, end_tp_dealloc},
    {Py_tp_traverse, end_tp_traverse},
    {Py_tp_repr, end_tp_repr},
    {Py_tp_methods, send_methods},
    {Py_tp_getset, end_getset},
    {Py_tp_members, handoff_members},
    {0, NULL},
};

static PyType_Spec send_channel_spec = {
    .name = "sleeploop.SendChannel",
    .basicsize = sizeof(EndObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = send_channel_slots,
};

/* ---- ReceiveChannel -------------------------------------------------------------------------- */

PyDoc_STRVAR(receive_doc,
"receive($self, /)\n--\n\n"
"Await it to have the next value, behind those who wait for one already.\n"
"\n"
"Raises EndOfChannel if all send ends are closed and nothing is left, and\n"
"ClosedResourceError if this end has been closed, even while it waits; RuntimeError if tasks\n"
"of another loop wait at the channel. Who need not wait does not switch tasks; a cancellation\n"
"is raised even then.\n");

static PyObject *
receive_py_receive(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return end_wait_new(op, &receive_kind, &((EndObject *)op)->channel->hand.getters, NULL);
}

static PyObject *
receive_am_anext(PyObject *op)
{
    return end_wait_new(op, &receive_next_kind, &((EndObject *)op)->channel->hand.getters, NULL);
}

PyDoc_STRVAR(receive_nowait_doc,
"receive_nowait($self, /)\n--\n\n"
"The next value, at once. It needs no task.\n"
"\n"
"Raises WouldBlock if there is none, and whatever receive() raises.\n");

static PyObject *
receive_py_receive_nowait(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    EndObject *end = (EndObject *)op;
    const char *function = "ReceiveChannel.receive_nowait()";
    PyObject *value;
    int taken = channel_touch(end, function) == 0 && end_check(end, function) == 0
                    ? handoff_take(&end->channel->hand, &value)
                    : -1;
    if (taken == 0 && end->channel->send_ends == 0) {
        (void)end_raise(end, CHANNEL_ENDED, function);
    }
    else if (taken == 0) {
        raise_would_block_steal(state_of_type(Py_TYPE(op))->WouldBlock, function, end_describe(op));
    }
    return taken > 0 ? value : NULL;
}

PyDoc_STRVAR(receive_type_doc,
"The end of a channel at which values are received; open_channel() makes it.\n"
"\n"
"`async for value in receive_channel` receives until all send ends are closed and nothing\n"
"is left. `with receive_channel` closes it in the end, and so does `async with`. When all\n"
"receive ends are closed, nobody can send any more, and what is buffered is dropped. An\n"
"end that nobody refers to any more counts as closed.\n"
"\n"
">>> import math, sleeploop\n"
">>> send_channel, receive_channel = sleeploop.open_channel(10, name='numbers')\n"
">>> for number in range(3):\n"
"...     send_channel.send_nowait(number)\n"
">>> receive_channel\n"
"<ReceiveChannel 'numbers' (3 of 10 buffered)>\n"
">>> send_channel.close()\n"
">>> async def main():\n"
"...     return [number async for number in receive_channel]\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"[0, 1, 2]\n");

static PyMethodDef receive_methods[] = {
    {"receive", receive_py_receive, METH_NOARGS, receive_doc},
    {"receive_nowait", receive_py_receive_nowait, METH_NOARGS, receive_nowait_doc},
    {"clone", end_py_clone, METH_NOARGS,
     PyDoc_STR("clone($self, /)\n--\n\n"
               "Another receive end of the same channel, with the same name; each is closed by\n"
               "itself. A value goes to one of them.\n"
               "\n"
               "Raises ClosedResourceError if this one has been closed.\n")},
    END_METHODS,
    {NULL, NULL, 0, NULL},
};

static PyType_Slot receive_channel_slots[] = {
    {Py_tp_doc, (void *)receive_type_doc},
    {Py_tp_dealloc, end_tp_dealloc},
    {Py_tp_traverse, end_tp_traverse},
    {Py_tp_repr, end_tp_repr},
    {Py_am_aiter, PyObject_SelfIter},
    {Py_am_anext, receive_am_anext},
    {Py_tp_methods, receive_methods},
    {Py_tp_getset, end_getset},
    {Py_tp_members, handoff_members},
    {0, NULL},
};

static PyType_Spec receive_channel_spec = {
    .name = "sleeploop.ReceiveChannel",
    .basicsize = sizeof(EndObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = receive_channel_slots,
};

/* ---- open_channel() -------------------------------------------------------------------------- */

PyDoc_STRVAR(open_channel_doc,
"open_channel($module, n, *, name=None)\n--\n\n"
"Open a channel on which tasks send values to each other. Returns its two ends, a\n"
"SendChannel and a ReceiveChannel: values flow from left to right.\n"
"\n"
"n: how many values are buffered at most before those who send have to wait, an int of 0\n"
"or more, or math.inf. With 0, sending waits until somebody receives.\n"
"name: a str, for the repr and for reports.\n"
"\n"
"Raises TypeError or ValueError for an n or a name that is nothing of the kind.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def produce(send_channel):\n"
"...     async with send_channel:\n"
"...         for word in ('ready', 'steady', 'go'):\n"
"...             await sleeploop.sleep(1)\n"
"...             await send_channel.send(word)\n"
">>> async def main():\n"
"...     send_channel, receive_channel = sleeploop.open_channel(0)\n"
"...     async with sleeploop.TaskGroup() as group:\n"
"...         group.create_task(produce(send_channel))\n"
"...         async for word in receive_channel:\n"
"...             print(sleeploop.current_loop().time(), word)\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"1.0 ready\n"
"2.0 steady\n"
"3.0 go\n");

static PyObject *
module_py_open_channel(PyObject *module, PyObject *const *args, Py_ssize_t n_args,
                       PyObject *kwnames)
{
    static const char *const names[] = {"n", "name", NULL};
    ModuleState *state = PyModule_GetState(module);
    PyObject *given[2], *name;
    int64_t n;
    if (args_parse("open_channel()", names, 1, 1, args, n_args, kwnames, given) < 0
        || sync_count_from_object("open_channel()", "n", given[0], 0, COUNT_OR_INF, &n) < 0
        || sync_name_from_object("open_channel()", given[1], &name) < 0) {
        return NULL;
    }
    ChannelObject *channel = channel_new(state, count_as_size(n));
    PyObject *sends = channel != NULL ? end_new(state, channel, 1, name) : NULL;
    PyObject *receives = sends != NULL ? end_new(state, channel, 0, name) : NULL;
    PyObject *pair = receives != NULL ? PyTuple_Pack(2, sends, receives) : NULL;
    Py_XDECREF(receives);
    Py_XDECREF(sends);
    Py_XDECREF(channel);
    Py_XDECREF(name);
    return pair;
}

#endif /* SLEEPLOOP_SYNC_CHANNELENDS_H */
