/* queuetype.h: the types Queue, PriorityQueue and LifoQueue: arguments and docstrings. */
#ifndef SLEEPLOOP_SYNC_QUEUETYPE_H
#define SLEEPLOOP_SYNC_QUEUETYPE_H

#include "../base/compat.h"
#include "../base/objectheap.h"
#include "../core/args.h"
#include "../core/state.h"
#include "../wait/handoff.h"
#include "../wait/meter.h"
#include "../wait/part.h"
#include "../wait/waitable.h"
#include "../wait/waitlist.h"
#include "../wait/waitobject.h"
#include "queue.h"

/* ---- made and freed -------------------------------------------------------------------------- */

/* Which order it has is the business of who makes it: a subclass inherits that. */
static PyObject *
queue_new(PyTypeObject *type, enum queue_order order)
{
    QueueObject *queue = (QueueObject *)handoff_tp_new(type, NULL, NULL);
    if (queue != NULL) {
        waitlist_init(&queue->joiners);
        queue->order = (uint8_t)order;
        queue->hand.lifo = order == QUEUE_LIFO;
    }
    return (PyObject *)queue;
}

static PyObject *
queue_tp_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    return queue_new(type, QUEUE_FIFO);
}

static PyObject *
priority_queue_tp_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    return queue_new(type, QUEUE_PRIORITY);
}

static PyObject *
lifo_queue_tp_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    return queue_new(type, QUEUE_LIFO);
}

static int
queue_tp_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"maxsize", PART_OPTION_NAMES, NULL};
    static const char *const types[] = {
        [QUEUE_FIFO] = "Queue", [QUEUE_LIFO] = "LifoQueue", [QUEUE_PRIORITY] = "PriorityQueue",
    };
    return handoff_make(op, args, kwargs, types[((QueueObject *)op)->order], names, COUNT_OR_0);
}

static int
queue_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    int rc = handoff_tp_traverse(op, visit, arg);
    return rc != 0 ? rc : objectheap_traverse(&((QueueObject *)op)->heap, visit, arg);
}

static int
queue_tp_clear(PyObject *op)
{
    objectheap_clear(&((QueueObject *)op)->heap);
    return handoff_tp_clear(op);
}

static void
queue_tp_dealloc(PyObject *op)
{
    PyObject_GC_UnTrack(op);
    /* A queue may hold the last reference to the next, 100,000 in a row. */
    Py_TRASHCAN_BEGIN(op, queue_tp_dealloc)
    sync_dies(op);
    objectheap_clear(&((QueueObject *)op)->heap);
    handoff_free(op);
    Py_TRASHCAN_END
}

static PyObject *
queue_tp_repr(PyObject *op)
{
    return sync_repr_steal(op, queue_describe(op));
}

/* ---- methods --------------------------------------------------------------------------------- */

PyDoc_STRVAR(queue_put_doc,
"put($self, item, /)\n--\n\n"
"Await it to put an item in. If the queue is full, it waits until there is room, behind\n"
"those who wait already.\n"
"\n"
"The item of a put() that was cancelled is not in the queue. Where there is room it does\n"
"not switch tasks; a cancellation is raised even then.\n"
"\n"
"Raises QueueShutDown if the queue has been shut down, or is while it waits; RuntimeError\n"
"if tasks of another loop wait for the queue.\n");

static PyObject *
queue_py_put(PyObject *op, PyObject *item)
{
    return handoff_wait_new(op, "Queue", &queue_put_kind, &HANDOFF_OF(op)->putters,
                            Py_NewRef(item));
}

PyDoc_STRVAR(queue_get_doc,
"get($self, /)\n--\n\n"
"Await it to take the next item, which it returns. If there is none, it waits, behind those\n"
"who wait already.\n"
"\n"
"If there is one it does not switch tasks; a cancellation is raised even then.\n"
"\n"
"Raises QueueShutDown if there is none and the queue has been shut down, or is while it\n"
"waits; RuntimeError if tasks of another loop wait for the queue.\n");

static PyObject *
queue_py_get(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return handoff_wait_new(op, "Queue", &queue_get_kind, &HANDOFF_OF(op)->getters, NULL);
}

static PyObject *
queue_am_anext(PyObject *op)
{
    return handoff_wait_new(op, "Queue", &queue_next_kind, &HANDOFF_OF(op)->getters, NULL);
}

PyDoc_STRVAR(queue_put_nowait_doc,
"put_nowait($self, item, /)\n--\n\n"
"Put an item in at once. It goes to the task that has waited longest for one, if there is\n"
"one: nobody who comes before that runs can get it.\n"
"\n"
"Raises QueueFull if there is no room, QueueShutDown if the queue has been shut down,\n"
"RuntimeError if the tasks that use the queue run in another thread.\n");

static PyObject *
queue_py_put_nowait(PyObject *op, PyObject *item)
{
    const char *function = "Queue.put_nowait()";
    int done = handoff_touch(op, "Queue", function) == 0
                   ? queue_put((QueueObject *)op, item, function)
                   : -1;
    if (done == 0) {
        raise_would_block_steal(state_of_base(Py_TYPE(op))->QueueFull, function,
                                queue_describe(op));
    }
    return done > 0 ? Py_NewRef(Py_None) : NULL;
}

PyDoc_STRVAR(queue_get_nowait_doc,
"get_nowait($self, /)\n--\n\n"
"Take the next item at once. If tasks wait for room, the item of the one that has waited\n"
"longest is in the queue from then on.\n"
"\n"
"Raises QueueEmpty if there is none, QueueShutDown if there is none and the queue has been\n"
"shut down, RuntimeError if the tasks that use the queue run in another thread.\n");

static PyObject *
queue_py_get_nowait(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    const char *function = "Queue.get_nowait()";
    PyObject *item;
    uint64_t number;
    int taken = handoff_touch(op, "Queue", function) == 0
                    ? queue_get((QueueObject *)op, &item, &number, function)
                    : -1;
    if (taken == 0) {
        raise_would_block_steal(state_of_base(Py_TYPE(op))->QueueEmpty, function,
                                queue_describe(op));
    }
    return taken > 0 ? item : NULL;
}

PyDoc_STRVAR(queue_task_done_doc,
"task_done($self, /)\n--\n\n"
"Say that the work on an item is done which has been taken from the queue. When it has been\n"
"said of each that was put in, join() goes on.\n"
"\n"
"Raises ValueError if it is called more often than items were put in, RuntimeError if the\n"
"tasks that use the queue run in another thread.\n");

static PyObject *
queue_py_task_done(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    QueueObject *queue = (QueueObject *)op;
    const char *function = "Queue.task_done()";
    if (sync_touch(state_of_base(Py_TYPE(op)), (SyncObject *)op, function) < 0) {
        return NULL;
    }
    if (queue->unfinished == 0) {
        raise_about(PyExc_ValueError, "%s: %U%s", function, op,
                    ": it was called once for each item that was put in, and now once more");
        return NULL;
    }
    queue_finish(queue, 1);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(queue_join_doc,
"join($self, /)\n--\n\n"
"Await it to wait until task_done() has been called for each item that was put in.\n");

static PyObject *
queue_py_join(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return (PyObject *)wait_new(state_of_base(Py_TYPE(op)), &queue_join_kind, op,
                                &((QueueObject *)op)->joiners, NULL);
}

PyDoc_STRVAR(queue_shutdown_doc,
"shutdown($self, /, immediate=False)\n--\n\n"
"Take no more items. put() raises QueueShutDown from now on, also in the tasks that wait in\n"
"it; get() does when nothing is left.\n"
"\n"
"immediate: drop what is left. It counts as done for join().\n"
"\n"
"Raises RuntimeError if the tasks that use the queue run in another thread.\n");

static PyObject *
queue_py_shutdown(PyObject *op, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    static const char *const names[] = {"immediate", NULL};
    const char *function = "Queue.shutdown()";
    PyObject *values[1];
    if (args_parse(function, names, 1, 0, args, n_args, kwnames, values) < 0) {
        return NULL;
    }
    int at_once = values[0] != NULL ? PyObject_IsTrue(values[0]) : 0;
    if (at_once < 0 || sync_touch(state_of_base(Py_TYPE(op)), (SyncObject *)op, function) < 0
        || queue_check_comparing((QueueObject *)op, function) < 0) {
        return NULL;
    }
    queue_shut((QueueObject *)op, at_once);
    Py_RETURN_NONE;
}

static PyObject *
queue_py_qsize(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromSize_t(queue_len((QueueObject *)op));
}

static PyObject *
queue_py_empty(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(queue_len((QueueObject *)op) == 0);
}

static PyObject *
queue_py_full(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(queue_is_full((QueueObject *)op));
}

PyDoc_STRVAR(queue_stats_doc,
"stats($self, /)\n--\n\n"
"A QueueStats: how long the queue was, and how long tasks waited in put() and get(), in\n"
"seconds of loop time.\n"
"\n"
"Raises RuntimeError if the queue was made without stats=True, or if the tasks that use it\n"
"run in another thread.\n");

static PyObject *
queue_py_stats(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    ModuleState *state = state_of_base(Py_TYPE(op));
    return flow_stats_new(state, state->QueueStatsType, HANDOFF_OF(op)->meter,
                          "Queue.stats()", op);
}

static PyObject *
queue_get_maxsize(PyObject *op, void *Py_UNUSED(closure))
{
    size_t maxsize = HANDOFF_OF(op)->capacity;
    return PyLong_FromSize_t(maxsize != SIZE_MAX ? maxsize : 0);
}

/* ---- the types ------------------------------------------------------------------------------- */

PyDoc_STRVAR(queue_stats_type_doc, "What stats() of a queue returns.");

static PyStructSequence_Desc queue_stats_desc = {
    .name = "sleeploop.QueueStats",
    .doc = queue_stats_type_doc,
    .fields = handoff_stats_fields,
    .n_in_sequence = 3,
};

PyDoc_STRVAR(queue_type_doc,
"Queue(maxsize=0, *, name=None, stats=False, loop=None)\n--\n\n"
"Items that tasks hand on to each other, first in, first out. `async for item in queue`\n"
"takes one after the other until the queue has been shut down and is empty.\n"
"\n"
"maxsize: how many items it holds before put() waits, an int of 0 or more; 0: as many as\n"
"    you like.\n"
"name: a str, for the repr and for reports.\n"
"stats: whether to keep what stats() tells.\n"
"loop: the SleepingLoop on whose time it counts; None: the one that is running, or else\n"
"    the first that uses it.\n"
"\n"
"Raises TypeError or ValueError for another maxsize, LoopClosedError for a loop that has\n"
"run.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def produce(queue):\n"
"...     for number in range(3):\n"
"...         await queue.put(number)\n"
"...         await sleeploop.sleep(1)\n"
"...     queue.shutdown()\n"
">>> async def main():\n"
"...     queue = sleeploop.Queue(10, name='numbers')\n"
"...     sleeploop.create_task(produce(queue))\n"
"...     async for number in queue:\n"
"...         print(number, 'at', sleeploop.current_loop().time())\n"
"...     print(queue)\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"0 at 0.0\n"
"1 at 1.0\n"
"2 at 2.0\n"
"<Queue 'numbers' (empty, shut down)>\n");

PyDoc_STRVAR(priority_queue_type_doc,
"PriorityQueue(maxsize=0, *, name=None, stats=False, loop=None)\n--\n\n"
"A Queue whose lowest item comes first, by `<` alone; among equals the one that came first.\n"
"\n"
"An error of a comparison is raised by the put() whose item it is about, or by the get()\n"
"that needs to know which is lowest; no item is lost. A comparison that uses the queue\n"
"gets a RuntimeError.\n"
"\n"
">>> import sleeploop\n"
">>> queue = sleeploop.PriorityQueue()\n"
">>> for job in [(2, 'sweep'), (1, 'cook'), (3, 'sleep')]:\n"
"...     queue.put_nowait(job)\n"
">>> queue.get_nowait()\n"
"(1, 'cook')\n");

PyDoc_STRVAR(lifo_queue_type_doc,
"LifoQueue(maxsize=0, *, name=None, stats=False, loop=None)\n--\n\n"
"A Queue whose latest item comes first.\n"
"\n"
">>> import sleeploop\n"
">>> queue = sleeploop.LifoQueue()\n"
">>> queue.put_nowait('below')\n"
">>> queue.put_nowait('on top')\n"
">>> queue.get_nowait()\n"
"'on top'\n");

static PyMethodDef queue_methods[] = {
    {"put", queue_py_put, METH_O, queue_put_doc},
    {"get", queue_py_get, METH_NOARGS, queue_get_doc},
    {"put_nowait", queue_py_put_nowait, METH_O, queue_put_nowait_doc},
    {"get_nowait", queue_py_get_nowait, METH_NOARGS, queue_get_nowait_doc},
    {"qsize", queue_py_qsize, METH_NOARGS,
     PyDoc_STR("qsize($self, /)\n--\n\nHow many items are in it.")},
    {"empty", queue_py_empty, METH_NOARGS,
     PyDoc_STR("empty($self, /)\n--\n\nWhether there is none.")},
    {"full", queue_py_full, METH_NOARGS,
     PyDoc_STR("full($self, /)\n--\n\nWhether put() would wait. Never, if maxsize is 0.")},
    {"task_done", queue_py_task_done, METH_NOARGS, queue_task_done_doc},
    {"join", queue_py_join, METH_NOARGS, queue_join_doc},
    {"shutdown", (PyCFunction)(void (*)(void))queue_py_shutdown, METH_FASTCALL | METH_KEYWORDS,
     queue_shutdown_doc},
    {"stats", queue_py_stats, METH_NOARGS, queue_stats_doc},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS,
     PyDoc_STR("Queue[int], for type checkers.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef queue_getset[] = {
    SYNC_GETTERS,
    {"maxsize", queue_get_maxsize, NULL,
     PyDoc_STR("How many items it holds before put() waits; 0: as many as you like."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot queue_slots[] = {
    {Py_tp_doc, (void *)queue_type_doc},
    {Py_tp_new, queue_tp_new},
    {Py_tp_init, queue_tp_init},
    {Py_tp_dealloc, queue_tp_dealloc},
    {Py_tp_traverse, queue_tp_traverse},
    {Py_tp_clear, queue_tp_clear},
    {Py_tp_repr, queue_tp_repr},
    {Py_am_aiter, PyObject_SelfIter},
    {Py_am_anext, queue_am_anext},
    {Py_tp_methods, queue_methods},
    {Py_tp_getset, queue_getset},
    {Py_tp_members, handoff_members},
    {0, NULL},
};

static PyType_Spec queue_spec = {
    .name = "sleeploop.Queue",
    .basicsize = sizeof(QueueObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = queue_slots,
};

static PyType_Slot priority_queue_slots[] = {
    {Py_tp_doc, (void *)priority_queue_type_doc},
    {Py_tp_new, priority_queue_tp_new},
    {Py_tp_init, queue_tp_init},
    {Py_tp_dealloc, queue_tp_dealloc},
    {Py_tp_traverse, queue_tp_traverse},
    {Py_tp_clear, queue_tp_clear},
    {0, NULL},
};

static PyType_Spec priority_queue_spec = {
    .name = "sleeploop.PriorityQueue",
    .basicsize = sizeof(QueueObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = priority_queue_slots,
};

static PyType_Slot lifo_queue_slots[] = {
    {Py_tp_doc, (void *)lifo_queue_type_doc},
    {Py_tp_new, lifo_queue_tp_new},
    {Py_tp_init, queue_tp_init},
    {Py_tp_dealloc, queue_tp_dealloc},
    {Py_tp_traverse, queue_tp_traverse},
    {Py_tp_clear, queue_tp_clear},
    {0, NULL},
};

static PyType_Spec lifo_queue_spec = {
    .name = "sleeploop.LifoQueue",
    .basicsize = sizeof(QueueObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = lifo_queue_slots,
};

#endif /* SLEEPLOOP_SYNC_QUEUETYPE_H */
