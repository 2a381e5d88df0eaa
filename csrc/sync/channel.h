/* channel.h: what the two ends of a channel share: a hand-off, and how it ends.
 *
 * The types that people see are in channelends.h.
 */
#ifndef SLEEPLOOP_SYNC_CHANNEL_H
#define SLEEPLOOP_SYNC_CHANNEL_H

#include "../base/compat.h"
#include "../base/objectring.h"
#include "../core/args.h"
#include "../core/loopobject.h"
#include "../core/state.h"
#include "../core/taskobject.h"
#include "../wait/handoff.h"
#include "../wait/waitable.h"
#include "../wait/waitlist.h"
#include "../wait/waitobject.h"

/* Knows how many of its ends are open, but not which: they own it. */
typedef struct {
    PyObject_HEAD
    struct handoff hand;     /* of values: who waits to send puts, who waits to receive gets */
    size_t send_ends, receive_ends;  /* open ones */
    uint64_t loop_number;    /* of the loop whose tasks used any of its ends last; 0: none yet */
} ChannelObject;

/* A SendChannel or a ReceiveChannel. What waits here stands in a list of the channel, which is
 * the one that changes loops: `loop_number` is a copy, and `held` is not used. */
typedef struct {
    SYNC_HEAD
    ChannelObject *channel;  /* owned; NULL: half made */
    uint8_t sends;           /* which of the two */
    uint8_t closed;
} EndObject;

/* The wait->phase of one that was refused, beside those of handoff.h. */
enum channel_phase {
    CHANNEL_CLOSED = HANDOFF_LENT + 1,  /* the end at which it waited has been closed */
    CHANNEL_ENDED,                      /* no end is left on the other side */
};

/* ---- which loop ------------------------------------------------------------------------------ */

/* A task of the loop is to use the end. 0, or -1 with a RuntimeError: tasks of another loop use
 * the channel, at whichever of its ends. */
COLD static int
channel_change_loop(EndObject *end, LoopObject *loop, const char *function)
{
    ChannelObject *channel = end->channel;
    end->loop_number = channel->loop_number;
    if (channel->loop_number != 0) {
        if (sync_check_thread(loop->state, (SyncObject *)end, function) < 0) {
            return -1;
        }
        struct handoff *h = &channel->hand;
        if (h->putters.count + h->getters.count + h->lent > 0) {
            raise_about(PyExc_RuntimeError, "%s: %U%s", function, (PyObject *)end,
                        " belongs to another loop, whose tasks wait at the channel");
            return -1;
        }
    }
    channel->loop_number = end->loop_number = loop->number;
    return 0;
}

static inline int
channel_enter(EndObject *end, LoopObject *loop, const char *function)
{
    return end->channel->loop_number == loop->number ? 0
                                                     : channel_change_loop(end, loop, function);
}

/* For what needs no task: as sync_touch(). */
static inline int
channel_touch(EndObject *end, const char *function)
{
    end->loop_number = end->channel->loop_number;
    return sync_touch(state_of_type(Py_TYPE(end)), (SyncObject *)end, function);
}

/* ---- described ------------------------------------------------------------------------------- */

/* New str: "SendChannel 'x' (full)" */
static PyObject *
end_describe(PyObject *op)
{
    EndObject *end = (EndObject *)op;
    struct handoff *h = &end->channel->hand;
    int has_room = h->capacity > 0;
    const char *how = "";
    if (end->closed) {
        how = " (closed)";
    }
    else if (end->sends && h->items.len >= h->capacity && h->getters.count == 0) {
        how = has_room ? " (full)" : " (nobody receives)";
    }
    else if (!end->sends && h->items.len == 0 && h->putters.count == 0) {
        how = has_room ? " (empty)" : " (nobody sends)";
    }
    return titled(op, "%s", how);
}

/* Always -1. */
COLD static int
end_raise(EndObject *end, enum channel_phase why, const char *function)
{
    ModuleState *state = state_of_type(Py_TYPE(end));
    PyObject *op = (PyObject *)end;
    if (why == CHANNEL_CLOSED) {
        raise_what_steal(state->ClosedResourceError, function, titled(op, " has been closed"));
    }
    else if (end->sends) {
        raise_what_steal(state->BrokenResourceError, function,
                         titled(op, ": no receive end is open any more"));
    }
    else {
        raise_what_steal(state->EndOfChannel, function,
                         titled(op, ": all send ends are closed, and nothing is left"));
    }
    return -1;
}

/* Whether anything can be done at the end: 0, or -1 with ClosedResourceError or
 * BrokenResourceError. */
static inline int
end_check(EndObject *end, const char *function)
{
    if (end->closed) {
        return end_raise(end, CHANNEL_CLOSED, function);
    }
    return end->sends && end->channel->receive_ends == 0 ? end_raise(end, CHANNEL_ENDED, function)
                                                         : 0;
}

/* ---- waiting to send ------------------------------------------------------------------------- */

static int
send_take(WaitObject *wait, LoopObject *loop, TaskObject *Py_UNUSED(task))
{
    EndObject *end = (EndObject *)wait->object;
    const char *function = await_kind(wait)->function;
    return channel_enter(end, loop, function) < 0 || end_check(end, function) < 0
               ? -1
               : handoff_put(&end->channel->hand, wait->value);
}

static PyObject *
send_result(WaitObject *wait)
{
    if (wait->outcome != WAIT_REFUSED) {
        Py_RETURN_NONE;
    }
    (void)end_raise((EndObject *)wait->object, wait->phase, await_kind(wait)->function);
    return NULL;
}

static const struct wait_kind send_kind = {
    WAIT_KIND(send_kind, "SendChannel.send()"),
    .take = send_take,
    .result = send_result,
    .describe = end_describe,
};

/* ---- waiting to receive ---------------------------------------------------------------------- */

static int receive_raise_end(WaitObject *wait);

static int
receive_take(WaitObject *wait, LoopObject *loop, TaskObject *Py_UNUSED(task))
{
    EndObject *end = (EndObject *)wait->object;
    ChannelObject *channel = end->channel;
    const char *function = await_kind(wait)->function;
    PyObject *value;
    if (channel_enter(end, loop, function) < 0 || end_check(end, function) < 0) {
        return -1;
    }
    int taken = handoff_take(&channel->hand, &value);
    if (taken > 0) {
        handoff_lend(&channel->hand, wait, value);
    }
    return taken == 0 && channel->send_ends == 0 ? receive_raise_end(wait) : taken;
}

/* Who was told of the end gets what has come back since, all the same. */
static PyObject *
receive_result(WaitObject *wait)
{
    EndObject *end = (EndObject *)wait->object;
    struct handoff *h = &end->channel->hand;
    PyObject *value;
    if (wait->outcome != WAIT_REFUSED) {
        return handoff_settle(h, wait);
    }
    if (wait->phase == CHANNEL_CLOSED) {
        (void)end_raise(end, CHANNEL_CLOSED, await_kind(wait)->function);
        return NULL;
    }
    if (end->closed || handoff_take(h, &value) <= 0) {  /* nobody sends, so it cannot fail */
        (void)receive_raise_end(wait);
        return NULL;
    }
    wait->phase = HANDOFF_ASKED;
    wait->outcome = WAIT_GRANTED;
    return value;
}

/* Beware: what nobody can receive any more dies here. */
static void
receive_give_back(WaitObject *wait)
{
    ChannelObject *channel = ((EndObject *)wait->object)->channel;
    PyObject *value = handoff_settle(&channel->hand, wait);
    if (channel->receive_ends == 0) {
        Py_DECREF(value);
    }
    else {
        handoff_put_back(&channel->hand, value, (PyObject *)wait->object);
    }
}

static const struct wait_kind receive_kind = {
    WAIT_KIND(receive_kind, "ReceiveChannel.receive()"),
    .take = receive_take,
    .result = receive_result,
    .give_back = receive_give_back,
    .describe = end_describe,
};

static const struct wait_kind receive_next_kind = {
    WAIT_KIND(receive_next_kind, "async for on a ReceiveChannel"),
    .take = receive_take,
    .result = receive_result,
    .give_back = receive_give_back,
    .describe = end_describe,
};

/* Always -1. */
COLD static int
receive_raise_end(WaitObject *wait)
{
    if (wait_kind(wait) != &receive_next_kind) {
        return end_raise((EndObject *)wait->object, CHANNEL_ENDED, await_kind(wait)->function);
    }
    PyErr_SetNone(PyExc_StopAsyncIteration);
    return -1;
}

/* ---- closing --------------------------------------------------------------------------------- */

/* Those who wait at this very end, in order. Looks at all who wait on this side, but no further
 * than the last of them. */
static void
end_refuse_own(EndObject *end, struct waitlist *waitlist)
{
    struct link *l = waitlist->tasks.next;
    while (end->parked > 0) {
        WaitObject *wait = (WaitObject *)TASK_OF_LINK(l)->payload;
        l = l->next;
        if (wait->object == (SyncObject *)end) {
            wait->phase = CHANNEL_CLOSED;
            wait_refuse(wait);
        }
    }
}

/* Closed for good. Beware: if it is the last one to receive, what is buffered dies. */
static void
end_close(EndObject *end)
{
    ChannelObject *channel = end->channel;
    struct handoff *h = &channel->hand;
    size_t *open = end->sends ? &channel->send_ends : &channel->receive_ends;
    if (end->closed) {
        return;
    }
    end->closed = 1;
    end_refuse_own(end, end->sends ? &h->putters : &h->getters);
    if (--*open > 0) {
        return;
    }
    waitlist_refuse_all(end->sends ? &h->getters : &h->putters, CHANNEL_ENDED);
    if (!end->sends) {
        objectring_clear(&h->items);
    }
}

/* ---- the type -------------------------------------------------------------------------------- */

static ChannelObject *
channel_new(ModuleState *state, size_t capacity)
{
    ChannelObject *channel = (ChannelObject *)state->ChannelType->tp_alloc(state->ChannelType, 0);
    if (channel != NULL) {
        handoff_init(&channel->hand);
        channel->hand.capacity = capacity;
    }
    return channel;
}

static int
channel_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    return objectring_traverse(&((ChannelObject *)op)->hand.items, visit, arg);
}

static int
channel_tp_clear(PyObject *op)
{
    objectring_clear(&((ChannelObject *)op)->hand.items);
    return 0;
}

static void
channel_tp_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    assert(((ChannelObject *)op)->hand.lent == 0);  /* whoever waits or is given something holds it */
    (void)channel_tp_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyType_Slot channel_slots[] = {
    {Py_tp_doc, (void *)"What the ends of a channel share."},
    {Py_tp_dealloc, channel_tp_dealloc},
    {Py_tp_traverse, channel_tp_traverse},
    {Py_tp_clear, channel_tp_clear},
    {0, NULL},
};

static PyType_Spec channel_spec = {
    .name = "sleeploop.Channel",
    .basicsize = sizeof(ChannelObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = channel_slots,
};

#endif /* SLEEPLOOP_SYNC_CHANNEL_H */
