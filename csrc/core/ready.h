/* ready.h: a loop's tasks change state here: made, made ready, taken from where they wait.
 *
 * Each function leaves the rings, the heap and the counters consistent before it
 * drops a reference, as that may run arbitrary Python.
 */
#ifndef SLEEPLOOP_CORE_READY_H
#define SLEEPLOOP_CORE_READY_H

#include "../base/compat.h"
#include "../base/ring.h"
#include "kinds.h"
#include "loopobject.h"
#include "scopeobject.h"
#include "scopetree.h"
#include "task.h"
#include "taskobject.h"
#include "trace.h"

/* A task that the run waits for. */
static inline int
task_is_waited_for(const TaskObject *task)
{
    return !(task->flags & TASK_DAEMON);
}

static inline void
loop_make_ready(LoopObject *loop, TaskObject *task)
{
    task->state = TASK_READY;
    ring_push(&loop->ready, &task->link);
    loop->ready_len++;
}

/* Takes a parked task from where it waits. What it waited with stays its payload. */
static inline void
loop_unpark(LoopObject *loop, TaskObject *task)
{
    Awaitable *await = (Awaitable *)task->payload;
    assert(task->state == TASK_PARKED);
    if (await_kind(await)->unpark != NULL) {
        await_kind(await)->unpark(await, loop, task);
    }
}

static inline void
loop_wake(LoopObject *loop, TaskObject *task)
{
    loop_unpark(loop, task);
    loop_make_ready(loop, task);
    if (loop->trace != NULL) {
        trace_wake(loop, task);
    }
}

/* The live task of that number, borrowed, or NULL. Looks through all of them, but a report asks
 * for the owner of a lock as often as tasks wait for it. */
static TaskObject *
loop_find_task(LoopObject *loop, uint32_t number)
{
    if (loop->found != NULL && loop->found->number == number) {
        return loop->found;
    }
    for (struct link *l = loop->live.next; l != &loop->live; l = l->next) {
        TaskObject *task = TASK_OF_REGISTERED(l);
        if (task->number == number) {
            loop->found = task;
            return task;
        }
    }
    return NULL;
}

/* Whose a lock or a token is to be that the task gets, borrowed; see TASK_ACTS. It is found a
 * few scopes further out, in the block for which the task was made, unless that was torn. */
static TaskObject *
task_owner_borrowed(TaskObject *task)
{
    if (!(task->flags & TASK_ACTS)) {
        return task;
    }
    for (ScopeObject *s = task->scope; s != NULL; s = s->parent) {
        if (s->task != NULL && s->task->number == task->parent) {
            return s->task;
        }
    }
    TaskObject *owner = loop_find_task(task->loop, task->parent);
    return owner != NULL ? owner : task;
}

/* Makes a task that is running throw exc at its await. Steals exc. */
static void
loop_throw_next(LoopObject *loop, TaskObject *task, PyObject *exc_steal)
{
    assert(task->state == TASK_RUNNING && task->payload == NULL);
    task->payload = exc_steal;
    task->flags |= TASK_THROW;
    loop_make_ready(loop, task);
}

/* Adds a task to a list of numbers of tasks; NULL after an error. It makes no room by a collection,
 * so no Python runs. */
static void
numbers_append(PyObject **numbers, const TaskObject *task)
{
    PyObject *number = PyLong_FromUnsignedLong(task->number);
    if (number == NULL || PyList_Append(*numbers, number) < 0) {
        Py_CLEAR(*numbers);
    }
    Py_XDECREF(number);
}

/* For Task.created_at, in a debug run. What cannot be noted is left out. Beware: runs
 * Python. */
COLD static void
loop_note_creation(LoopObject *loop, TaskObject *task)
{
    PyObject *module = import_module("sleeploop._stacks");
    PyObject *stack = module != NULL ? PyObject_CallMethod(module, "of_caller", NULL) : NULL;
    PyObject *number = stack != NULL ? PyLong_FromUnsignedLong(task->number) : NULL;
    if (number != NULL && loop->created == NULL) {
        loop->created = PyDict_New();
    }
    if (number != NULL && loop->created != NULL) {
        (void)PyDict_SetItem(loop->created, number, stack);
    }
    Py_XDECREF(number);
    Py_XDECREF(stack);
    Py_XDECREF(module);
    PyErr_Clear();
}

/* A new task, registered and ready, made in the scope `base` (NULL: in none, so that
 * nothing cancels it). Borrows everything; a new reference. */
static TaskObject *
loop_spawn(LoopObject *loop, PyObject *coro, PyObject *name, PyObject *context, ScopeObject *base,
           int flags)
{
    uint32_t place = loop->trace != NULL ? trace_here(loop) : 0;
    TaskObject *task = task_new(loop->state, loop, coro, name, context, flags);
    if (task == NULL) {
        return NULL;
    }
    (void)task_set_base(task, base);
    task_update(task);
    if (base != NULL) {
        const TaskObject *parent = base->task != NULL ? base->task : loop->current;
        task->parent = parent != NULL ? parent->number : 0;
    }
    ring_push(&loop->live, &task->registered);
    Py_INCREF(task);  /* the register's */
    if (task_is_waited_for(task)) {
        loop->live_waited++;
    }
    loop_make_ready(loop, task);
    trace_spawn(loop, task, place);
    if (loop->debug && !(flags & TASK_HIDDEN)) {
        loop_note_creation(loop, task);
    }
    return task;
}

/* Out of the register, whose reference becomes the caller's. */
static inline void
loop_unregister(LoopObject *loop, TaskObject *task)
{
    link_remove(&task->registered);
    if (loop->found == task) {
        loop->found = NULL;
    }
    if (task_is_waited_for(task)) {
        loop->live_waited--;
    }
}

/* Gives the coroutines back unstarted, as if they had never been accepted. */
static void
loop_discard_tasks(LoopObject *loop)
{
    struct link *l;
    Py_CLEAR(loop->roots);
    while ((l = ring_pop(&loop->live)) != NULL) {
        TaskObject *task = TASK_OF_REGISTERED(l);
        if (link_in_ring(&task->link)) {
            link_remove(&task->link);
        }
        task->state = TASK_CANCELLED;
        loop->found = NULL;
        scopes_drop(task_take_scopes(task));
        Py_DECREF(task);
    }
    loop->ready_len = loop->live_waited = 0;
}

#endif /* SLEEPLOOP_CORE_READY_H */
