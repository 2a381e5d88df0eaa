/* channel.h: what the two ends of a channel share: its buffer, who waits at it, and how it ends.
 *
 * Between any two calls: if somebody waits to receive, there is nothing to be had, neither in the
 * buffer nor from somebody who waits to send; if somebody waits to send, the buffer is full. So
 * whoever finds something may have it, and takes it from nobody.
 *
 * A value that was given to a task which never learns of it comes back, to the front. That must
 * not fail: for each value that is under way, the buffer keeps room.
 *
 * The types that people see are in channelends.h.
 */
#ifndef SLEEPLOOP_CHANNEL_H
#define SLEEPLOOP_CHANNEL_H

#include "buffer.h"
#include "sync.h"

#define CHANNEL_UNLIMITED SIZE_MAX

/* Knows how many of its ends are open, but not which: they own it. */
typedef struct {
    PyObject_HEAD
    struct buffer buffer;
    size_t max;              /* how many are buffered at most, or CHANNEL_UNLIMITED */
    size_t lent;             /* values given to tasks that have not learned of it yet */
    size_t send_ends, receive_ends;  /* open ones */
    struct place senders;    /* each wait's value is what it brings */
    struct place receivers;
    uint64_t loop_number;    /* of the loop whose tasks used any of its ends last; 0: none yet */
} ChannelObject;

/* A SendChannel or a ReceiveChannel. What waits here stands at a place of the channel, which is
 * the one that changes loops: `loop_number` is a copy, and `held` is not used. */
typedef struct {
    SYNC_HEAD
    ChannelObject *channel;  /* owned; NULL: half made */
    uint8_t sends;           /* which of the two */
    uint8_t closed;
} EndObject;

/* wait->phase */
enum channel_phase {
    CHANNEL_ASKED,
    CHANNEL_LENT,    /* its value is counted in `lent` */
    CHANNEL_CLOSED,  /* refused: the end at which it waited has been closed */
    CHANNEL_ENDED,   /* refused: no end is left on the other side */
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
        if (channel->senders.count + channel->receivers.count + channel->lent > 0) {
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

static inline int
channel_is_empty(const ChannelObject *channel)
{
    return channel->buffer.len == 0 && channel->senders.count == 0;
}

static inline int
channel_is_full(const ChannelObject *channel)
{
    return channel->buffer.len >= channel->max && channel->receivers.count == 0;
}

/* New str: "SendChannel 'x' (full)" */
static PyObject *
end_describe(PyObject *op)
{
    EndObject *end = (EndObject *)op;
    PyObject *title = sync_title(op);
    if (title == NULL) {
        return NULL;
    }
    int has_room = end->channel->max > 0;
    const char *how = "";
    if (end->closed) {
        how = " (closed)";
    }
    else if (end->sends && channel_is_full(end->channel)) {
        how = has_room ? " (full)" : " (nobody receives)";
    }
    else if (!end->sends && channel_is_empty(end->channel)) {
        how = has_room ? " (empty)" : " (nobody sends)";
    }
    PyObject *text = PyUnicode_FromFormat("%U%s", title, how);
    Py_DECREF(title);
    return text;
}

COLD static void
raise_of_end(PyObject *type, const char *function, EndObject *end, const char *why)
{
    PyObject *title = sync_title((PyObject *)end);
    if (title != NULL) {
        PyErr_Format(type, "%s: %U%s", function, title, why);
        Py_DECREF(title);
    }
}

COLD static void
raise_closed(EndObject *end, const char *function)
{
    raise_of_end(state_of_type(Py_TYPE(end))->ClosedResourceError, function, end,
                 " has been closed");
}

COLD static void
raise_broken(EndObject *end, const char *function)
{
    raise_of_end(state_of_type(Py_TYPE(end))->BrokenResourceError, function, end,
                 ": no receive end is open any more");
}

COLD static void
raise_end_of_channel(EndObject *end, const char *function)
{
    raise_of_end(state_of_type(Py_TYPE(end))->EndOfChannel, function, end,
                 ": all send ends are closed, and nothing is left");
}

/* ---- values ---------------------------------------------------------------------------------- */

/* The wait is over, and its task goes on. A loop that waits for time is woken as well: an end may
 * be dropped in another thread. */
static inline void
channel_wake(WaitObject *wait, enum wait_outcome outcome)
{
    LoopObject *loop = wait->task->loop;
    wait->outcome = (uint8_t)outcome;
    loop_wake(loop, wait->task);
    if (loop->idling) {
        idle_wake(&loop->idle);
    }
}

/* The value is the wait's, whose task may not have learned of it yet. Steals value. */
static inline void
channel_lend(ChannelObject *channel, WaitObject *wait, PyObject *value_steal)
{
    assert(wait->value == NULL);
    wait->value = value_steal;
    wait->phase = CHANNEL_LENT;
    channel->lent++;
}

/* Room for one more value, wherever it goes. 0, or -1 with MemoryError. */
static inline int
channel_reserve(ChannelObject *channel)
{
    return buffer_reserve_more(&channel->buffer, channel->lent + 1);
}

/* To the first who waits for it, or into the buffer: 1; 0: it would have to wait; -1 with
 * MemoryError. Borrows value. */
static inline int
channel_put(ChannelObject *channel, PyObject *value)
{
    if (channel_is_full(channel)) {
        return 0;
    }
    if (channel_reserve(channel) < 0) {
        return -1;
    }
    WaitObject *receiver = place_first(&channel->receivers);
    if (receiver != NULL) {
        channel_lend(channel, receiver, Py_NewRef(value));
        channel_wake(receiver, WAIT_GRANTED);
    }
    else {
        assert(channel->senders.count == 0);
        buffer_push(&channel->buffer, Py_NewRef(value));
    }
    return 1;
}

/* What the first who waits to send brings, which has been sent now: the caller's. */
static inline PyObject *
channel_take_from(WaitObject *sender)
{
    PyObject *value = sender->value;
    sender->value = NULL;
    channel_wake(sender, WAIT_GRANTED);
    return value;
}

/* The first value there is, which is the caller's now; NULL without an exception: none. */
static inline PyObject *
channel_pop(ChannelObject *channel)
{
    WaitObject *sender = place_first(&channel->senders);
    if (channel->buffer.len == 0) {
        return sender != NULL ? channel_take_from(sender) : NULL;
    }
    PyObject *value = buffer_pop_front(&channel->buffer);
    if (sender != NULL && channel->buffer.len < channel->max) {
        buffer_push(&channel->buffer, channel_take_from(sender));
    }
    return value;
}

/* ---- waiting to send ------------------------------------------------------------------------- */

/* Whether the end can be used at all: 0, or -1 with ClosedResourceError or BrokenResourceError. */
static inline int
send_check(EndObject *end, const char *function)
{
    if (end->closed) {
        raise_closed(end, function);
        return -1;
    }
    if (end->channel->receive_ends == 0) {
        raise_broken(end, function);
        return -1;
    }
    return 0;
}

static int
send_take(WaitObject *wait, LoopObject *loop, TaskObject *Py_UNUSED(task))
{
    EndObject *end = (EndObject *)wait->object;
    const char *function = wait_function(wait);
    if (channel_enter(end, loop, function) < 0 || send_check(end, function) < 0) {
        return -1;
    }
    return channel_put(end->channel, wait->value);
}

static PyObject *
send_result(WaitObject *wait)
{
    if (wait->outcome != WAIT_REFUSED) {
        Py_RETURN_NONE;
    }
    if (wait->phase == CHANNEL_CLOSED) {
        raise_closed((EndObject *)wait->object, wait_function(wait));
    }
    else {
        raise_broken((EndObject *)wait->object, wait_function(wait));
    }
    return NULL;
}

static const struct wait_kind send_kind = {
    WAIT_KIND(send_kind, "SendChannel.send()"),
    .take = send_take,
    .result = send_result,
    .describe = end_describe,
};

/* ---- waiting to receive ---------------------------------------------------------------------- */

static void receive_raise_end(WaitObject *wait);

static int
receive_take(WaitObject *wait, LoopObject *loop, TaskObject *Py_UNUSED(task))
{
    EndObject *end = (EndObject *)wait->object;
    ChannelObject *channel = end->channel;
    const char *function = wait_function(wait);
    if (channel_enter(end, loop, function) < 0) {
        return -1;
    }
    if (end->closed) {
        raise_closed(end, function);
        return -1;
    }
    if (channel_is_empty(channel)) {
        if (channel->send_ends == 0) {
            receive_raise_end(wait);
            return -1;
        }
        return 0;
    }
    if (channel_reserve(channel) < 0) {
        return -1;
    }
    channel_lend(channel, wait, channel_pop(channel));
    return 1;
}

/* Who was told of the end gets what has come back since, all the same. */
static PyObject *
receive_result(WaitObject *wait)
{
    EndObject *end = (EndObject *)wait->object;
    PyObject *value = wait->value;
    if (wait->outcome != WAIT_REFUSED) {
        wait->value = NULL;
        if (wait->phase == CHANNEL_LENT) {
            wait->phase = CHANNEL_ASKED;
            end->channel->lent--;
        }
        return value;
    }
    if (wait->phase == CHANNEL_CLOSED) {
        raise_closed(end, wait_function(wait));
        return NULL;
    }
    value = end->closed ? NULL : channel_pop(end->channel);
    if (value == NULL) {
        receive_raise_end(wait);
        return NULL;
    }
    wait->outcome = WAIT_GRANTED;
    return value;
}

/* Beware: what nobody can receive any more dies here. */
static void
receive_give_back(WaitObject *wait)
{
    ChannelObject *channel = ((EndObject *)wait->object)->channel;
    PyObject *value = wait->value;
    wait->value = NULL;
    if (wait->phase == CHANNEL_LENT) {
        wait->phase = CHANNEL_ASKED;
        channel->lent--;
    }
    WaitObject *next = place_first(&channel->receivers);
    if (next != NULL) {
        channel_lend(channel, next, value);
        channel_wake(next, WAIT_GRANTED);
    }
    else if (channel->receive_ends == 0) {
        Py_DECREF(value);
    }
    else if (buffer_reserve(&channel->buffer) == 0) {
        buffer_push_front(&channel->buffer, value);
    }
    else {  /* it had been taken for good, but for its StopIteration there was no memory either */
        PyErr_WriteUnraisable((PyObject *)wait->object);
        Py_DECREF(value);
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

COLD static void
receive_raise_end(WaitObject *wait)
{
    if (wait_kind(wait) == &receive_next_kind) {
        PyErr_SetNone(PyExc_StopAsyncIteration);
    }
    else {
        raise_end_of_channel((EndObject *)wait->object, wait_function(wait));
    }
}

/* ---- closing --------------------------------------------------------------------------------- */

static void
channel_refuse(WaitObject *wait, enum channel_phase why)
{
    wait->phase = (uint8_t)why;
    channel_wake(wait, WAIT_REFUSED);
}

/* Those who wait at this very end, in order. Looks at all who wait on this side, but no further
 * than the last of them. */
static void
end_refuse_own(EndObject *end, struct place *place)
{
    struct link *l = place->tasks.next;
    while (end->parked > 0) {
        WaitObject *wait = (WaitObject *)TASK_OF_LINK(l)->payload;
        l = l->next;
        if (wait->object == (SyncObject *)end) {
            channel_refuse(wait, CHANNEL_CLOSED);
        }
    }
}

/* Closed for good. Beware: if it is the last one to receive, what is buffered dies. */
static void
end_close(EndObject *end)
{
    ChannelObject *channel = end->channel;
    struct place *own = end->sends ? &channel->senders : &channel->receivers;
    struct place *others = end->sends ? &channel->receivers : &channel->senders;
    size_t *open = end->sends ? &channel->send_ends : &channel->receive_ends;
    WaitObject *wait;
    if (end->closed) {
        return;
    }
    end->closed = 1;
    end_refuse_own(end, own);
    if (--*open > 0) {
        return;
    }
    while ((wait = place_first(others)) != NULL) {
        channel_refuse(wait, CHANNEL_ENDED);
    }
    if (!end->sends) {
        struct buffer dropped = channel->buffer;
        channel->buffer = (struct buffer){0};
        buffer_clear(&dropped);
    }
}

/* ---- the type -------------------------------------------------------------------------------- */

/* New; max as in the struct. */
static ChannelObject *
channel_new(ModuleState *state, size_t max)
{
    ChannelObject *channel = PyObject_GC_New(ChannelObject, state->ChannelType);
    if (channel != NULL) {
        channel->buffer = (struct buffer){0};
        channel->max = max;
        channel->lent = channel->send_ends = channel->receive_ends = 0;
        place_init(&channel->senders);
        place_init(&channel->receivers);
        channel->loop_number = 0;
        PyObject_GC_Track(channel);
    }
    return channel;
}

static int
channel_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    return buffer_traverse(&((ChannelObject *)op)->buffer, visit, arg);
}

static int
channel_tp_clear(PyObject *op)
{
    buffer_clear(&((ChannelObject *)op)->buffer);
    return 0;
}

static void
channel_tp_dealloc(PyObject *op)
{
    ChannelObject *channel = (ChannelObject *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    assert(channel->senders.count + channel->receivers.count + channel->lent == 0);
    buffer_clear(&channel->buffer);
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

#endif /* SLEEPLOOP_CHANNEL_H */
