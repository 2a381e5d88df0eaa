/* queue.h: what a Queue does: items go in, wait, and come out. The types are in queuetype.h.
 *
 * Two rules hold whenever anybody can look: tasks wait in get() only while there is no item, and
 * in put() only while there are `maxsize` of them or more. So whoever brings an item while somebody
 * waits for one hands it over, and whoever takes one lets the next one in.
 *
 * An item may come back: its getter was given it, and never ran. Making room for that then could
 * fail, so it is made before an item goes in: there is always a place for each item that is in the
 * queue or `lent`, and one more.
 */
#ifndef SLEEPLOOP_QUEUE_H
#define SLEEPLOOP_QUEUE_H

#include "buffer.h"
#include "meter.h"
#include "priorityheap.h"
#include "sync.h"

enum queue_order { QUEUE_FIFO, QUEUE_LIFO, QUEUE_PRIORITY };
enum queue_phase { QUEUE_OPEN, QUEUE_SHUT, QUEUE_SHUT_AT_ONCE };

typedef struct {
    SYNC_HEAD
    struct place getters, putters, joiners;
    struct buffer items;         /* but for a PriorityQueue, which has */
    struct priority_heap heap;
    size_t maxsize;              /* SIZE_MAX: as many as you like */
    size_t lent;                 /* items that a task has been given and has not learned of */
    size_t unfinished;           /* items put in for which task_done() has not been called */
    struct flow_meter *meter;    /* owned; NULL: no statistics */
    uint8_t order;               /* enum queue_order */
    uint8_t phase;               /* enum queue_phase */
} QueueObject;

/* A getter's WaitObject: `number` is the item's in the heap, and `phase` is 1 while it is lent. */

static inline size_t
queue_len(const QueueObject *queue)
{
    return queue->items.len + priority_heap_len(&queue->heap);
}

static inline int
queue_is_full(const QueueObject *queue)
{
    return queue_len(queue) >= queue->maxsize;
}

/* ---- described ------------------------------------------------------------------------------- */

/* New str: "Queue 'jobs' (full, 10 items)" */
static PyObject *
queue_describe(PyObject *op)
{
    QueueObject *queue = (QueueObject *)op;
    const char *shut = queue->phase != QUEUE_OPEN ? ", shut down" : "";
    size_t n = queue_len(queue);
    const char *s = n == 1 ? "" : "s";
    PyObject *title = sync_title(op), *text = NULL;
    if (title == NULL) {
        return NULL;
    }
    if (n == 0) {
        text = PyUnicode_FromFormat("%U (empty%s)", title, shut);
    }
    else if (queue_is_full(queue)) {
        text = PyUnicode_FromFormat("%U (full, %zu item%s%s)", title, n, s, shut);
    }
    else if (queue->maxsize == SIZE_MAX) {
        text = PyUnicode_FromFormat("%U (%zu item%s%s)", title, n, s, shut);
    }
    else {
        text = PyUnicode_FromFormat("%U (%zu of %zu items%s)", title, n, queue->maxsize, shut);
    }
    Py_DECREF(title);
    return text;
}

/* New str, for those who wait in join(): "Queue 'jobs' (3 items unfinished)" */
static PyObject *
queue_describe_unfinished(PyObject *op)
{
    size_t n = ((QueueObject *)op)->unfinished;
    PyObject *title = sync_title(op);
    PyObject *text = title != NULL ? PyUnicode_FromFormat("%U (%zu item%s unfinished)", title, n,
                                                          n == 1 ? "" : "s")
                                   : NULL;
    Py_XDECREF(title);
    return text;
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

/* ---- items ----------------------------------------------------------------------------------- */

/* Room for one item that comes in: 0, or -1 with MemoryError. */
static inline int
queue_reserve(QueueObject *queue)
{
    return queue->order != QUEUE_PRIORITY
               ? buffer_reserve_more(&queue->items, queue->lent + 2)
               : priority_heap_reserve(&queue->heap, queue->lent + 2);
}

/* The item is in, and its reference the queue's: 0; or -1 with the exception of a comparison, and
 * nothing has changed. There is room. Beware: may run Python. */
static inline int
queue_store(QueueObject *queue, PyObject *item)
{
    if (queue->order == QUEUE_PRIORITY) {
        return priority_heap_push(&queue->heap, item);
    }
    buffer_push(&queue->items, item);
    return 0;
}

/* Takes the next item, which is the caller's now; there is one. NULL with the exception of a
 * comparison, and nothing has changed. Beware: may run Python. */
static inline PyObject *
queue_take_out(QueueObject *queue, uint64_t *number)
{
    switch (queue->order) {
    case QUEUE_FIFO:
        return buffer_pop_front(&queue->items);
    case QUEUE_LIFO:
        return buffer_pop(&queue->items);
    default:
        return priority_heap_pop(&queue->heap, number);
    }
}

static inline void
queue_finish(QueueObject *queue, size_t n)
{
    queue->unfinished -= n < queue->unfinished ? n : queue->unfinished;
    if (queue->unfinished == 0) {
        place_grant_all(&queue->joiners);
    }
}

static inline void
queue_meter_level(QueueObject *queue)
{
    flow_meter_level(queue->meter, (double)queue_len(queue));
}

/* ---- in and out ------------------------------------------------------------------------------ */

/* The parked getter has the item. There is room for when it comes back. Steals item. */
static inline void
queue_hand_over(QueueObject *queue, WaitObject *getter, PyObject *item_steal, uint64_t number)
{
    getter->value = item_steal;
    getter->number = (double)number;
    getter->phase = 1;
    queue->lent++;
    flow_meter_get(queue->meter, getter);
    wait_grant(getter);
}

/* The item goes in, or to the task that has waited longest: 1, and its reference is the queue's; 0:
 * the queue is full; -1 with an exception, and nothing has changed. Beware: may run Python. */
static inline int
queue_put(QueueObject *queue, PyObject *item, const char *function)
{
    if (queue_check_comparing(queue, function) < 0) {
        return -1;
    }
    if (queue->phase != QUEUE_OPEN) {
        raise_queue_is_shut(queue, function);
        return -1;
    }
    if (queue_is_full(queue)) {
        return 0;
    }
    if (queue_reserve(queue) < 0) {
        return -1;
    }
    WaitObject *getter = place_first(&queue->getters);
    if (getter != NULL) {
        queue_hand_over(queue, getter, item, ++queue->heap.arrivals);
    }
    else if (queue_store(queue, item) < 0) {
        return -1;
    }
    queue->unfinished++;
    flow_meter_put(queue->meter, NULL);
    queue_meter_level(queue);
    return 1;
}

/* The parked putter's item goes in: 0, or -1 with the exception of a comparison. Its task may have
 * been cancelled meanwhile: 1. Beware: may run Python. */
static inline int
queue_let_in(QueueObject *queue, WaitObject *putter)
{
    if (queue->order == QUEUE_PRIORITY) {
        struct priority_heap *heap = &queue->heap;
        struct priority_entry entry = {putter->value, heap->arrivals + 1};
        size_t at;
        int rc = queue_reserve(queue) == 0 ? priority_heap_find_place(heap, entry, &at) : -1;
        if (!putter->parked) {
            if (rc < 0) {  /* it has nowhere to go */
                PyErr_WriteUnraisable((PyObject *)queue);
            }
            return 1;
        }
        if (rc < 0) {
            return -1;
        }
        priority_heap_insert(heap, entry, at);
    }
    else {
        buffer_push(&queue->items, putter->value);
    }
    putter->value = NULL;
    return 0;
}

/* An item has left, and tasks wait in put(): those for which there is room now are let in, in the
 * order in which they came. An error of a comparison goes to whose item it is. There is room.
 * Beware: may run Python. */
static void
queue_refill(QueueObject *queue)
{
    WaitObject *putter;
    while (!queue_is_full(queue) && (putter = place_first(&queue->putters)) != NULL) {
        Py_INCREF(putter);
        switch (queue_let_in(queue, putter)) {
        case 0:
            queue->unfinished++;
            flow_meter_put(queue->meter, putter);
            wait_grant(putter);
            break;
        case 1:
            break;
        default:
            wait_fail_steal(putter, PyErr_GetRaisedException());
            break;
        }
        Py_DECREF(putter);
    }
}

/* The next item, which is the caller's; NULL without an exception: there is none; NULL with one,
 * and nothing has changed. Beware: may run Python. */
static inline PyObject *
queue_get(QueueObject *queue, uint64_t *number, const char *function)
{
    if (queue_check_comparing(queue, function) < 0) {
        return NULL;
    }
    if (queue_len(queue) == 0) {
        if (queue->phase != QUEUE_OPEN) {
            raise_queue_is_shut(queue, function);
        }
        return NULL;
    }
    if (queue->putters.count > 0 && queue_reserve(queue) < 0) {
        return NULL;
    }
    PyObject *item = queue_take_out(queue, number);
    if (item != NULL) {
        if (queue->putters.count > 0) {
            queue_refill(queue);
        }
        queue_meter_level(queue);
    }
    return item;
}

/* An item comes back that its getter never learned of: before all others. Steals item. Beware: may
 * run Python, but compares nothing. */
static void
queue_put_back(QueueObject *queue, PyObject *item_steal, uint64_t number)
{
    WaitObject *getter = place_first(&queue->getters);
    if (queue->phase == QUEUE_SHUT_AT_ONCE) {
        queue_finish(queue, 1);
        Py_DECREF(item_steal);
        return;
    }
    if (getter != NULL) {
        queue_hand_over(queue, getter, item_steal, number);
        return;
    }
    if (queue->order != QUEUE_PRIORITY ? buffer_reserve(&queue->items) < 0
                                       : priority_heap_reserve(&queue->heap, 1) < 0) {
        PyErr_WriteUnraisable((PyObject *)queue);  /* the collector took the room away */
        Py_DECREF(item_steal);
        return;
    }
    switch (queue->order) {
    case QUEUE_FIFO:
        buffer_push_front(&queue->items, item_steal);
        break;
    case QUEUE_LIFO:
        buffer_push(&queue->items, item_steal);
        break;
    default:
        priority_heap_put_back(&queue->heap, item_steal, number);
        break;
    }
    queue_meter_level(queue);
}

/* ---- waiting --------------------------------------------------------------------------------- */

static int
queue_put_take(WaitObject *wait, LoopObject *loop, TaskObject *Py_UNUSED(task))
{
    flow_meter_follow(((QueueObject *)wait->object)->meter, loop);
    int done = queue_put((QueueObject *)wait->object, wait->value, wait_function(wait));
    if (done > 0) {
        wait->value = NULL;
    }
    return done;
}

static PyObject *
queue_put_result(WaitObject *wait)
{
    if (wait->outcome == WAIT_REFUSED) {
        raise_queue_is_shut((QueueObject *)wait->object, wait_function(wait));
        return NULL;
    }
    Py_RETURN_NONE;
}

static int
queue_get_take(WaitObject *wait, LoopObject *loop, TaskObject *Py_UNUSED(task))
{
    QueueObject *queue = (QueueObject *)wait->object;
    flow_meter_follow(queue->meter, loop);
    uint64_t number = 0;
    PyObject *item = queue_get(queue, &number, wait_function(wait));
    if (item == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    wait->value = item;
    wait->number = (double)number;
    wait->phase = 1;
    queue->lent++;
    flow_meter_get(queue->meter, NULL);
    return 1;
}

static PyObject *
queue_get_result(WaitObject *wait)
{
    QueueObject *queue = (QueueObject *)wait->object;
    if (wait->outcome == WAIT_REFUSED) {
        raise_queue_is_shut(queue, wait_function(wait));
        return NULL;
    }
    PyObject *item = wait->value;
    wait->value = NULL;
    wait->phase = 0;
    queue->lent--;
    return item;
}

static void
queue_get_give_back(WaitObject *wait)
{
    QueueObject *queue = (QueueObject *)wait->object;
    PyObject *item = wait->value;
    queue->lent -= wait->phase;
    wait->value = NULL;
    wait->phase = 0;
    queue_put_back(queue, item, (uint64_t)wait->number);
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
        await_error_is_no_end(wait_function(wait), PyExc_StopAsyncIteration);  /* of an item's */
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
    struct buffer items = {0};
    struct priority_heap heap = {0};
    if (queue->phase != QUEUE_SHUT_AT_ONCE) {
        queue->phase = at_once ? QUEUE_SHUT_AT_ONCE : QUEUE_SHUT;
    }
    if (at_once) {
        items = queue->items;
        heap = queue->heap;
        queue->items = (struct buffer){0};
        queue->heap = (struct priority_heap){.arrivals = heap.arrivals};
        queue_finish(queue, items.len + priority_heap_len(&heap));
        queue_meter_level(queue);
    }
    place_refuse_all(&queue->getters, 0);
    place_refuse_all(&queue->putters, 0);
    buffer_clear(&items);
    priority_heap_clear(&heap);
}

#endif /* SLEEPLOOP_QUEUE_H */
