/* queue.h: what a Queue does: items go in, wait, and come out. The types are in queuetype.h.
 *
 * All of it is a hand-off, but for the order of a PriorityQueue, whose items are in a heap instead
 * of the buffer, and what shutdown() and join() need. The rules of handoff.h hold for the heap as
 * well: also that there is always a place for each item that is in it or lent, and one more.
 */
#ifndef SLEEPLOOP_SYNC_QUEUE_H
#define SLEEPLOOP_SYNC_QUEUE_H

#include "../base/compat.h"
#include "../base/objectheap.h"
#include "../base/objectring.h"
#include "../core/args.h"
#include "../core/awaitable.h"
#include "../core/loopobject.h"
#include "../core/state.h"
#include "../core/taskobject.h"
#include "../wait/handoff.h"
#include "../wait/meter.h"
#include "../wait/waitable.h"
#include "../wait/waitlist.h"
#include "../wait/waitobject.h"

enum queue_order { QUEUE_FIFO, QUEUE_LIFO, QUEUE_PRIORITY };
enum queue_phase { QUEUE_OPEN, QUEUE_SHUT, QUEUE_SHUT_AT_ONCE };

/* Begins as a HandoffObject does. */
typedef struct {
    SYNC_HEAD
    struct handoff hand;         /* a getter's number is that of its item in the heap */
    struct waitlist joiners;
    struct objectheap heap;   /* of a PriorityQueue only */
    size_t unfinished;           /* items put in for which task_done() has not been called */
    uint8_t order;               /* enum queue_order */
    uint8_t phase;               /* enum queue_phase */
} QueueObject;

static inline size_t
queue_len(const QueueObject *queue)
{
    return queue->order == QUEUE_PRIORITY ? objectheap_len(&queue->heap)
                                          : queue->hand.items.len;
}

static inline int
queue_is_full(const QueueObject *queue)
{
    return queue_len(queue) >= queue->hand.capacity;
}

/* ---- described ------------------------------------------------------------------------------- */

/* New str: "Queue 'jobs' (full, 10 items)" */
static PyObject *
queue_describe(PyObject *op)
{
    QueueObject *queue = (QueueObject *)op;
    const char *shut = queue->phase != QUEUE_OPEN ? ", shut down" : "";
    size_t n = queue_len(queue);
    if (n == 0) {
        return titled(op, " (empty%s)", shut);
    }
    if (queue_is_full(queue)) {
        return titled(op, " (full, %zu item%s%s)", n, n == 1 ? "" : "s", shut);
    }
    return handoff_describe(op, n, queue->hand.capacity, shut);
}

/* New str, for those who wait in join(): "Queue 'jobs' (3 items unfinished)" */
static PyObject *
queue_describe_unfinished(PyObject *op)
{
    size_t n = ((QueueObject *)op)->unfinished;
    return titled(op, " (%zu item%s unfinished)", n, n == 1 ? "" : "s");
}

COLD static void
raise_queue_is_shut(QueueObject *queue, const char *function)
{
    raise_what_steal(state_of_base(Py_TYPE(queue))->QueueShutDown, function,
                     queue_describe((PyObject *)queue));
}

/* 0; or -1 with a RuntimeError: it is called by a comparison of the queue's own items. */
static inline int
queue_check_comparing(QueueObject *queue, const char *function)
{
    if (!queue->heap.comparing) {
        return 0;
    }
    raise_about(PyExc_RuntimeError, "%s: %U%s", function, (PyObject *)queue,
                " is comparing its items right now, and a comparison must not change it");
    return -1;
}

static inline void
queue_finish(QueueObject *queue, size_t n)
{
    queue->unfinished -= n < queue->unfinished ? n : queue->unfinished;
    if (queue->unfinished == 0) {
        waitlist_grant_all(&queue->joiners);
    }
}

/* ---- in and out of a heap -------------------------------------------------------------------- */

/* As handoff_reserve(). */
static inline int
sorted_reserve(QueueObject *queue)
{
    return objectheap_reserve(&queue->heap, queue->hand.lent + 2);
}

static inline void
sorted_measure(QueueObject *queue)
{
    flow_meter_level(queue->hand.meter, (double)objectheap_len(&queue->heap));
}

/* As handoff_put(); -1 also with the exception of a comparison. Beware: may run Python. */
static int
sorted_put(QueueObject *queue, PyObject *item)
{
    WaitObject *getter = waitlist_first(&queue->hand.getters);
    if (getter == NULL && queue_is_full(queue)) {
        return 0;
    }
    if (sorted_reserve(queue) < 0) {
        return -1;
    }
    if (getter != NULL) {
        getter->number = (double)++queue->heap.arrivals;
        handoff_give(&queue->hand, getter, Py_NewRef(item));
    }
    else if (objectheap_push(&queue->heap, item) == 0) {
        Py_INCREF(item);
    }
    else {
        return -1;
    }
    flow_meter_put(queue->hand.meter, NULL);
    sorted_measure(queue);
    return 1;
}

/* There is room for the parked putter's item, which goes in; or its put() fails, by the exception
 * of a comparison. Beware: may run Python, which may cancel its task. */
static void
sorted_let_in(QueueObject *queue, WaitObject *putter)
{
    struct priority_entry entry = {putter->value, queue->heap.arrivals + 1};
    size_t at;
    Py_INCREF(putter);
    int rc = sorted_reserve(queue) == 0 ? objectheap_find_place(&queue->heap, entry, &at) : -1;
    if (rc == 0 && putter->parked) {
        objectheap_insert(&queue->heap, entry, at);
        (void)handoff_let_in(&queue->hand, putter);
        queue->unfinished++;
    }
    else if (rc < 0 && putter->parked) {
        wait_fail_steal(putter, PyErr_GetRaisedException());
    }
    else if (rc < 0) {
        PyErr_WriteUnraisable((PyObject *)queue);  /* it has nowhere to go */
    }
    Py_DECREF(putter);
}

/* As handoff_take(); -1 also with the exception of a comparison, and nothing has changed. Beware:
 * may run Python. */
static int
sorted_take(QueueObject *queue, PyObject **item, uint64_t *number)
{
    struct waitlist *putters = &queue->hand.putters;
    if (queue_len(queue) == 0) {
        return 0;
    }
    if (putters->count > 0 && sorted_reserve(queue) < 0) {
        return -1;
    }
    *item = objectheap_pop(&queue->heap, number);
    if (*item == NULL) {
        return -1;
    }
    while (putters->count > 0 && !queue_is_full(queue)) {
        sorted_let_in(queue, waitlist_first(putters));
    }
    flow_meter_get(queue->hand.meter, NULL);
    sorted_measure(queue);
    return 1;
}

/* As handoff_put_back(). Compares nothing. */
static void
sorted_put_back(QueueObject *queue, PyObject *item_steal, uint64_t number)
{
    WaitObject *getter = waitlist_first(&queue->hand.getters);
    if (getter != NULL) {
        getter->number = (double)number;
        handoff_give(&queue->hand, getter, item_steal);
    }
    else if (objectheap_reserve(&queue->heap, 1) == 0) {
        objectheap_put_back(&queue->heap, item_steal, number);
        sorted_measure(queue);
    }
    else {
        PyErr_WriteUnraisable((PyObject *)queue);
        Py_DECREF(item_steal);
    }
}

/* ---- in and out ------------------------------------------------------------------------------ */

/* The item goes in, or to the task that has waited longest: 1; 0: the queue is full; -1 with an
 * exception, and nothing has changed. Borrows item. Beware: may run Python. */
static inline int
queue_put(QueueObject *queue, PyObject *item, const char *function)
{
    int is_sorted = queue->order == QUEUE_PRIORITY;
    if (is_sorted && queue_check_comparing(queue, function) < 0) {
        return -1;
    }
    if (queue->phase != QUEUE_OPEN) {
        raise_queue_is_shut(queue, function);
        return -1;
    }
    int done = is_sorted ? sorted_put(queue, item) : handoff_put(&queue->hand, item);
    queue->unfinished += done > 0;
    return done;
}

/* *item: the next one, which is the caller's: 1; 0: there is none; -1 with an exception, and
 * nothing has changed. *number: in a heap. Beware: may run Python. */
static inline int
queue_get(QueueObject *queue, PyObject **item, uint64_t *number, const char *function)
{
    int taken;
    if (queue->order == QUEUE_PRIORITY) {
        taken = queue_check_comparing(queue, function) == 0 ? sorted_take(queue, item, number) : -1;
    }
    else {
        size_t n_putters = queue->hand.putters.count;
        taken = handoff_take(&queue->hand, item);
        queue->unfinished += n_putters - queue->hand.putters.count;  /* who was let in */
    }
    if (taken == 0 && queue->phase != QUEUE_OPEN) {
        raise_queue_is_shut(queue, function);
        return -1;
    }
    return taken;
}

/* ---- waiting --------------------------------------------------------------------------------- */

static int
queue_put_take(WaitObject *wait, LoopObject *loop, TaskObject *Py_UNUSED(task))
{
    QueueObject *queue = (QueueObject *)wait->object;
    flow_meter_follow(queue->hand.meter, loop);
    int done = queue_put(queue, wait->value, await_kind(wait)->function);
    if (done > 0) {
        Py_CLEAR(wait->value);
    }
    return done;
}

static PyObject *
queue_put_result(WaitObject *wait)
{
    if (wait->outcome == WAIT_REFUSED) {
        raise_queue_is_shut((QueueObject *)wait->object, await_kind(wait)->function);
        return NULL;
    }
    Py_RETURN_NONE;
}

static int
queue_get_take(WaitObject *wait, LoopObject *loop, TaskObject *Py_UNUSED(task))
{
    QueueObject *queue = (QueueObject *)wait->object;
    PyObject *item;
    uint64_t number = 0;
    flow_meter_follow(queue->hand.meter, loop);
    int taken = queue_get(queue, &item, &number, await_kind(wait)->function);
    if (taken > 0) {
        handoff_lend(&queue->hand, wait, item);
        wait->number = (double)number;
    }
    return taken;
}

static PyObject *
queue_get_result(WaitObject *wait)
{
    QueueObject *queue = (QueueObject *)wait->object;
    if (wait->outcome == WAIT_REFUSED) {
        raise_queue_is_shut(queue, await_kind(wait)->function);
        return NULL;
    }
    return handoff_settle(&queue->hand, wait);
}

/* Beware: an item that was dropped by shutdown() dies here. */
static void
queue_get_give_back(WaitObject *wait)
{
    QueueObject *queue = (QueueObject *)wait->object;
    PyObject *item = handoff_settle(&queue->hand, wait);
    if (queue->phase == QUEUE_SHUT_AT_ONCE) {
        queue_finish(queue, 1);
        Py_DECREF(item);
    }
    else if (queue->order == QUEUE_PRIORITY) {
        sorted_put_back(queue, item, (uint64_t)wait->number);
    }
    else {
        handoff_put_back(&queue->hand, item, (PyObject *)queue);
    }
}

/* `async for`: ends where get() would raise. */
static int
queue_next_take(WaitObject *wait, LoopObject *loop, TaskObject *task)
{
    QueueObject *queue = (QueueObject *)wait->object;
    if (queue->phase != QUEUE_OPEN && queue_len(queue) == 0) {
        PyErr_SetNone(PyExc_StopAsyncIteration);
        return -1;
    }
    int taken = queue_get_take(wait, loop, task);
    if (taken < 0) {
        await_error_is_no_end(await_kind(wait)->function, PyExc_StopAsyncIteration);  /* of an item's */
    }
    return taken;
}

static PyObject *
queue_next_result(WaitObject *wait)
{
    if (wait->outcome == WAIT_REFUSED) {
        PyErr_SetNone(PyExc_StopAsyncIteration);
        return NULL;
    }
    return queue_get_result(wait);
}

static int
queue_join_take(WaitObject *wait, LoopObject *Py_UNUSED(loop), TaskObject *Py_UNUSED(task))
{
    return ((QueueObject *)wait->object)->unfinished == 0;
}

/* A put() that nobody learned of has happened all the same: it has nothing to give back. */
static const struct wait_kind queue_put_kind = {
    WAIT_KIND(queue_put_kind, "Queue.put()"),
    .take = queue_put_take,
    .result = queue_put_result,
    .describe = queue_describe,
};

static const struct wait_kind queue_get_kind = {
    WAIT_KIND(queue_get_kind, "Queue.get()"),
    .take = queue_get_take,
    .result = queue_get_result,
    .give_back = queue_get_give_back,
    .describe = queue_describe,
};

static const struct wait_kind queue_next_kind = {
    WAIT_KIND(queue_next_kind, "async for item in Queue()"),
    .take = queue_next_take,
    .result = queue_next_result,
    .give_back = queue_get_give_back,
    .describe = queue_describe,
};

static const struct wait_kind queue_join_kind = {
    WAIT_KIND(queue_join_kind, "Queue.join()"),
    .take = queue_join_take,
    .describe = queue_describe_unfinished,
};

/* ---- shut down ------------------------------------------------------------------------------- */

/* Beware: runs Python, where an item dies. */
static void
queue_shut(QueueObject *queue, int at_once)
{
    if (queue->phase != QUEUE_SHUT_AT_ONCE) {
        queue->phase = at_once ? QUEUE_SHUT_AT_ONCE : QUEUE_SHUT;
    }
    if (at_once) {
        queue_finish(queue, queue_len(queue));
        flow_meter_level(queue->hand.meter, 0);
    }
    waitlist_refuse_all(&queue->hand.getters, HANDOFF_ASKED);
    waitlist_refuse_all(&queue->hand.putters, 0);
    if (at_once) {
        objectring_clear(&queue->hand.items);
        objectheap_clear(&queue->heap);
    }
}

#endif /* SLEEPLOOP_SYNC_QUEUE_H */
